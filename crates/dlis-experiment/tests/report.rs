//! The files of a report say what the records say.

mod support;

use std::fs;

use dlis_experiment::report::{self, Plot, ReportError};
use dlis_experiment::{StackLayer, table};

#[test]
fn a_report_is_a_page_three_plots_and_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("new/report");
    let records = support::records();
    for _ in 0..2 {
        let files = report::write(&place, "A <title>", &records).unwrap();
        assert_eq!(files.svgs.len(), 3);
        assert!(files.html.is_file() && files.csv.is_file() && files.svgs.iter().all(|svg| svg.is_file()));
    }
    // Nothing is left beside them.
    assert_eq!(fs::read_dir(&place).unwrap().count(), 5);
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(report::write(&file, "t", &records), Err(ReportError::Io { .. })));
    assert!(matches!(report::write(&place, "t", &[]), Err(ReportError::Empty)));
}

#[test]
fn the_page_loads_nothing_and_holds_the_records_whole() {
    let mut records = support::records();
    records[0].notes.push("</script><script>alert(1)</script>".into());
    let page = report::html("A <title>", &records, &[]);
    assert!(page.contains("<title>A &lt;title&gt;</title>"));
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let read: Vec<dlis_experiment::Record> = serde_json::from_value(data["records"].clone()).unwrap();
    assert_eq!(read, records);
    let addresses = page.matches("://").count();
    assert_eq!(addresses, page.matches("http://www.w3.org/2000/svg").count(), "an address that is no namespace");
    for loading in ["src=", "<link rel=\"stylesheet\"", "@import", "url(", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(loading), "{loading}");
    }
}

#[test]
fn a_plot_has_a_mark_for_each_record_and_readable_text() {
    let records = support::records();
    for plot in Plot::ALL {
        let svg = report::svg(plot, &records).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for name in ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10", "rayon", "omp", " MB\n"] {
            assert!(svg.contains(name) || (plot == Plot::AccuracyLatency && name == " MB\n"), "{plot:?}: {name}");
        }
        // omp's, of 24 records, the noisy ones drawn as a white disc and a rim; in the legend 3 networks, omp
        // and, twice, noisy.
        let noisy = records.iter().filter(|record| record.latency.noisy && record.point.backend == "omp").count();
        assert!(noisy > 0);
        assert_eq!(svg.matches("<circle").count(), 24 + noisy + 6, "{plot:?}");
    }
    // A legend of many networks takes several rows, within the picture.
    let many: Vec<_> = (0..30)
        .map(|i| {
            let mut record = records[i].clone();
            record.point.network = format!("a-network-of-many-{i}");
            record
        })
        .collect();
    let svg = report::svg(Plot::AccuracyLatency, &many).unwrap();
    for (i, part) in svg.split("<text x=\"").skip(1).enumerate() {
        let x: u32 = part[..part.find('"').unwrap()].parse().unwrap();
        assert!(x < 760, "text {i} at {x}");
    }
    assert!(report::svg(Plot::AccuracyLatency, &records[..1]).is_ok());
    assert!(report::svg(Plot::AccuracyLatency, &[]).is_ok());
}

#[test]
fn the_csv_has_a_row_a_record_and_quotes_what_needs_it() {
    let mut records = support::records();
    records[0].notes = vec!["one, two".into(), "said \"three\"\nfour".into()];
    let csv = report::csv(&records);
    assert!(csv.contains(",\"one, two; said \"\"three\"\"\nfour\",2\r\n"), "{}", &csv[..900]);
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(lines.len(), records.len() + 2);
    assert_eq!(lines.last(), Some(&""));
    let heading: Vec<&str> = lines[0].split(',').collect();
    assert_eq!(heading[0], "id");
    assert_eq!(heading[1..10], StackLayer::ALL.map(StackLayer::name));
    // Quoted cells are the machine's name and nothing else in this row.
    let row = lines[2].replace("\"Example CPU 5000, 8 cores\"", "machine");
    let row: Vec<&str> = row.split(',').collect();
    assert_eq!(row.len(), heading.len());
    let value = |name: &str| row[heading.iter().position(|column| *column == name).unwrap()];
    assert_eq!(value("id"), records[1].id);
    assert_eq!(value("threads"), "8");
    assert_eq!(value("latency_median_ns").parse::<f64>().unwrap(), records[1].latency.median_ns);
    assert_eq!(value("memory_resident_bytes"), records[1].memory.resident_bytes().to_string());
    assert_eq!(value("energy_joules"), "");
    let mut unique = heading.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), heading.len());
}

#[test]
fn the_table_shows_where_records_differ() {
    let records = support::records();
    let table = table::table(&records);
    let titles: Vec<&str> = table.columns.iter().map(|column| column.title).collect();
    assert_eq!(titles[..4], ["network", "algorithm", "backend", "threads"]);
    assert!(titles.contains(&"latency") && titles.contains(&"memory"));
    assert_eq!(table.rows.len(), 48);
    assert!(table.rows.iter().all(|row| row.len() == titles.len()));
    assert_eq!(table.rows[0][..4], ["vgg16-cifar10", "fixed:direct", "rayon", "1"]);
    assert_eq!(table.rows[0][4], "93.6 %");
    let common: Vec<String> = table.common.iter().map(|(layer, choice)| format!("{layer} {choice}")).collect();
    assert_eq!(common[..2], ["recipe none", "format dense-f32"]);
    let noisy = records.iter().position(|record| record.latency.noisy).unwrap();
    assert!(table.rows[noisy].iter().any(|cell| cell.ends_with(" ~")));
    let one = table::table(&records[..1]);
    assert_eq!(one.columns[0].title, "network");
}
