//! The store keeps what was measured, whatever happens to the run that writes it.

mod support;

use std::fs;
use std::path::PathBuf;

use dlis_experiment::{LineError, Record, Store, StoreError};

fn three() -> [Record; 3] {
    [
        support::record(2, "measured", "rayon", 1),
        support::record(2, "measured", "omp", 1),
        support::record(2, "heuristic", "omp", 8),
    ]
}

fn line(record: &Record) -> String {
    serde_json::to_string(record).unwrap() + "\n"
}

/// A file of these bytes in a folder that lives as long as the first value.
fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn records_come_back_in_order_and_the_last_of_an_id_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folders/records.jsonl");
    let [a, b, _] = three();
    let mut again = a.clone();
    again.notes.push("measured again".into());
    {
        let mut store = Store::open(&path).unwrap();
        for record in [&a, &b, &again] {
            store.append(record.clone()).unwrap();
        }
        assert_eq!(store.records(), [again.clone(), b.clone()]);
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.records(), [again.clone(), b.clone()]);
    assert!(store.notes().is_empty());
    assert!(store.contains(&b.id) && !store.contains("0000000000000000"));
    assert_eq!(store.get(&a.id), Some(&again));
    assert_eq!(Store::read(&path).unwrap(), store.records());
    assert_eq!(fs::read_to_string(&path).unwrap(), [line(&a), line(&b), line(&again)].concat());
}

#[test]
fn a_write_that_is_killed_at_any_byte_costs_that_record_alone() {
    let [a, b, c] = three();
    let (first, second) = (line(&a), line(&b));
    let whole = [first.as_bytes(), second.as_bytes()].concat();
    let (_folder, path) = file(b"");
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        // A record that lacks but its line break is whole.
        let expected = usize::from(cut >= first.len() - 1) + usize::from(cut >= whole.len() - 1);
        assert_eq!(Store::read(&path).unwrap().len(), expected, "cut at {cut}");
        assert_eq!(fs::read(&path).unwrap().len(), cut, "reading changes nothing");
        // Opening flushes to the disk, so it is spared where nothing can differ from the byte before.
        if cut % 97 == 0 || cut.abs_diff(first.len()) < 12 || cut + 12 > whole.len() {
            let mut store = Store::open(&path).unwrap();
            let torn = ![0, first.len() - 1, first.len(), whole.len() - 1, whole.len()].contains(&cut);
            assert_eq!(store.notes().len(), usize::from(torn), "cut at {cut}");
            store.append(c.clone()).unwrap();
            drop(store);
            let reopened = Store::open(&path).unwrap();
            assert_eq!(reopened.records().len(), expected + 1, "cut at {cut}");
            assert_eq!(reopened.records().last(), Some(&c));
            assert!(reopened.notes().is_empty());
        }
    }
}

#[test]
fn a_second_run_is_refused_while_the_first_writes_but_may_read() {
    let (_folder, path) = file(b"");
    let mut store = Store::open(&path).unwrap();
    store.append(three()[0].clone()).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("another run is writing"), "{error}");
    assert_eq!(Store::read(&path).unwrap().len(), 1);
    drop(store);
    assert_eq!(Store::open(&path).unwrap().records().len(), 1);
}

#[test]
fn a_store_that_is_not_there_has_no_records() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Store::read(folder.path().join("none.jsonl")).unwrap().is_empty());
}

/// The message for a store whose second line is `bad`; the file must not change.
fn refused(bad: &str) -> String {
    let [a, b, _] = three();
    let text = [line(&a), bad.to_owned(), line(&b)].concat();
    let (_folder, path) = file(text.as_bytes());
    let error = Store::open(&path).unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert!(matches!(error, StoreError::Line { line: 2, .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("records.jsonl:2: "), "{message}");
    message
}

#[test]
fn garbage_between_records_is_refused_with_line_and_field() {
    let good = line(&three()[2]);
    assert!(refused("\n").contains("EOF"));
    assert!(refused("hello\n").contains("column 1"));
    assert!(refused(&format!("{}\n", &good[..good.len() / 2])).contains("column"));
    let wrong_type = refused(&good.replacen("\"samples\":60", "\"samples\":\"many\"", 1));
    assert!(wrong_type.contains("field `latency.samples`: invalid type: string \"many\""), "{wrong_type}");
    let unknown = refused(&good.replacen("\"top1\":", "\"top_1\":", 1));
    assert!(unknown.contains("field `accuracy.top_1`: unknown field"), "{unknown}");
    let layer = refused(&good.replacen("\"macs\":", "\"mac\":", 3).replacen("\"mac\":", "\"macs\":", 2));
    assert!(layer.contains("field `layers[0].mac`"), "{layer}");
    assert!(refused(&good.replacen("\"samples\":60", "\"samples\":1e999", 1)).contains("latency.samples"));
    assert!(refused(&format!("{}{}\n", good.trim_end(), good.trim_end())).contains("trailing"));
}

#[test]
fn impossible_values_are_refused_by_field() {
    let good = three()[2].clone();
    let refused_value = |change: fn(&mut Record)| {
        let mut bad = good.clone();
        change(&mut bad);
        let (_folder, path) = file(b"");
        let mut store = Store::open(&path).unwrap();
        let appended = store.append(bad.clone()).unwrap_err();
        assert!(fs::read(&path).unwrap().is_empty());
        match appended {
            StoreError::Append { source: LineError::Invalid(invalid), .. } => invalid.field,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused_value(|r| r.latency.median_ns = f64::NAN), "latency.median_ns");
    assert_eq!(refused_value(|r| r.latency.p90_ns = f64::INFINITY), "latency.p90_ns");
    assert_eq!(refused_value(|r| r.latency.p10_ns = r.latency.median_ns * 2.0), "latency.p10_ns");
    assert_eq!(refused_value(|r| r.latency.ci_high_ns = 1.0), "latency.ci_high_ns");
    assert_eq!(refused_value(|r| r.accuracy.top1 = 1.5), "accuracy.top1");
    assert_eq!(refused_value(|r| r.accuracy.top5 = 0.1), "accuracy.top5");
    assert_eq!(refused_value(|r| r.accuracy.images = 0), "accuracy.images");
    assert_eq!(refused_value(|r| r.throughput_images_per_s = 0.0), "throughput_images_per_s");
    assert_eq!(refused_value(|r| r.layers[3].median_ns = -1.0), "layers[3].median_ns");
    assert_eq!(refused_value(|r| r.energy_joules = Some(-1.0)), "energy_joules");
    assert_eq!(refused_value(|r| r.point.threads = 0), "point.threads");
    assert_eq!(refused_value(|r| r.schema = 3), "schema");
    let on_disk = refused(&line(&good).replacen("\"threads\":8", "\"threads\":4", 1));
    assert!(on_disk.contains("`id` is"), "{on_disk}");
    assert!(on_disk.contains("the id of its point"), "{on_disk}");
}

#[test]
fn records_of_another_version_are_named_as_such() {
    let newer = refused(&line(&three()[2]).replacen("\"schema\":2", "\"schema\":3,\"colour\":3", 1));
    assert!(newer.contains("schema 3, but this version of DLIS reads schema 2"), "{newer}");
}

#[test]
fn a_file_that_is_no_store_is_never_cut() {
    for text in ["Dear diary", "{\"a\":", "{\"schema\":3}", "\0\0\0\0", "[1, 2"] {
        let (_folder, path) = file(text.as_bytes());
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Line { line: 1, .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn lines_without_end_are_refused_before_they_fill_the_memory() {
    let long = format!("{{\"schema\":2,\"id\":\"{}", "a".repeat(dlis_experiment::MAX_LINE_BYTES));
    let (_folder, path) = file(long.as_bytes());
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Line { source: LineError::TooLong, .. }), "{error}");
    let mut record = three()[0].clone();
    record.notes.push("a".repeat(dlis_experiment::MAX_LINE_BYTES));
    let (_folder, path) = file(b"");
    let error = Store::open(&path).unwrap().append(record).unwrap_err();
    assert!(matches!(error, StoreError::Append { source: LineError::TooLong, .. }), "{error}");
}
