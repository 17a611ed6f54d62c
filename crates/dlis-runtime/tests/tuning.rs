//! Measurements are made once, kept whole, and never mistaken for those of something else.

mod support;

use std::path::Path;

use dlis_backend::Backend;
use dlis_runtime::{Plan, Planner, Policy, TuneCache, TuneCacheError};
use support::{omp, rayon, small};

fn measure(backend: &dyn Backend, cache: &mut TuneCache) -> Plan {
    Planner::new(backend).policy(Policy::Measured).cache(cache).plan(&small(10)).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_second_plan_measures_nothing_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    // A folder that is not there yet.
    let path = folder.path().join("caches").join("tune.json");
    let backend = omp(1);
    let mut cache = TuneCache::open(&path).unwrap();
    assert!(cache.is_empty() && !path.exists());
    let first = measure(&backend, &mut cache);
    let measured = cache.len();
    assert!(measured > first.ops().len(), "{measured} measurements");
    let second = measure(&backend, &mut cache);
    assert_eq!((cache.len(), first.program()), (measured, second.program()));
    cache.save().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    // Reorders between layouts are measured like any other operation.
    assert!(text.contains("|reorder/f32/"), "{text}");

    let mut reopened = TuneCache::open(&path).unwrap();
    assert_eq!(reopened.len(), measured);
    // Timings repeat to the nanosecond only if they are read, so that equal reasons mean none was measured.
    assert_eq!(measure(&backend, &mut reopened).explain(&backend), first.explain(&backend));
    assert_eq!(reopened.len(), measured);
    // Nothing new, nothing written.
    std::fs::remove_file(&path).unwrap();
    reopened.save().unwrap();
    assert!(!path.exists());
    std::fs::write(&path, text).unwrap();
    assert_eq!(TuneCache::open(&path).unwrap().len(), measured);
}

#[test]
fn other_threads_and_other_backends_are_measured_anew() {
    let mut cache = TuneCache::in_memory();
    let mut lengths = vec![0];
    for backend in [omp(1), omp(2), rayon(1)] {
        measure(&backend, &mut cache);
        lengths.push(cache.len());
    }
    let one = lengths[1];
    assert!(one > 0);
    assert_eq!(lengths, [0, one, 2 * one, 3 * one]);
    // Another batch is another operation, too.
    Planner::new(&omp(1)).policy(Policy::Measured).batch(2).cache(&mut cache).plan(&small(10)).unwrap();
    assert_eq!(cache.len(), 4 * one);
    // One that is forgotten is saved by doing nothing.
    cache.save().unwrap();
}

#[test]
fn a_file_that_is_no_cache_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tune.json");
    let negative = r#"{"a":{"ns":-1.0,"abandoned":false}}"#;
    let zero = r#"{"a":{"ns":0.0,"abandoned":false}}"#;
    let huge = r#"{"a":{"ns":1e999,"abandoned":false}}"#;
    let null = r#"{"a":{"ns":null,"abandoned":false}}"#;
    let cut = r#"{"a":{"ns":1.0,"aband"#;
    for text in ["", "{", "[]", "null", "\u{0}\u{1}", r#"{"a":1}"#, negative, zero, huge, null, cut] {
        std::fs::write(&path, text).unwrap();
        let error = TuneCache::open(&path).unwrap_err();
        assert!(matches!(&error, TuneCacheError::Format { path: named, .. } if *named == path), "{text}: {error}");
        assert!(error.to_string().contains("tune.json") && error.to_string().contains("delete it"), "{error}");
    }
    std::fs::write(&path, [0xFF, 0xFE, 0x00]).unwrap();
    assert!(matches!(TuneCache::open(&path), Err(TuneCacheError::Format { .. })));
    std::fs::write(&path, r#"{"a":{"ns":1.5,"abandoned":true}}"#).unwrap();
    assert_eq!(TuneCache::open(&path).unwrap().len(), 1);

    let large = std::fs::File::create(&path).unwrap();
    // A hole: no byte is written.
    large.set_len(1 << 40).unwrap();
    let error = TuneCache::open(&path).unwrap_err();
    assert!(matches!(&error, TuneCacheError::TooLarge { path: named, bytes } if *named == path && *bytes == 1 << 40));
    assert!(error.to_string().contains("tune.json"), "{error}");

    let error = TuneCache::open(folder.path()).unwrap_err();
    assert!(matches!(&error, TuneCacheError::Io { path: named, .. } if named == folder.path()), "{error}");
}

/// A device says that it is of no size, and never ends.
#[cfg(target_os = "linux")]
#[test]
fn an_endless_file_is_not_read_to_its_end() {
    assert!(matches!(TuneCache::open("/dev/zero"), Err(TuneCacheError::TooLarge { .. })));
}

#[test]
fn saving_replaces_the_file_at_once_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tune.json");
    std::fs::write(&path, r#"{"old":{"ns":1.0,"abandoned":false}}"#).unwrap();
    let mut cache = TuneCache::open(&path).unwrap();
    measure(&omp(1), &mut cache);
    // A second name of the old file: were it written in place, this would change as well.
    let old = folder.path().join("old.json");
    std::fs::hard_link(&path, &old).unwrap();
    cache.save().unwrap();
    assert_eq!(files(folder.path()), ["old.json", "tune.json"]);
    assert_eq!(TuneCache::open(&old).unwrap().len(), 1);
    assert_eq!(TuneCache::open(&path).unwrap().len(), cache.len());

    // A folder in the file's place cannot be replaced: an error, and nothing is left lying about.
    let path = folder.path().join("taken.json");
    let mut cache = TuneCache::open(&path).unwrap();
    measure(&omp(1), &mut cache);
    std::fs::create_dir_all(path.join("in the way")).unwrap();
    let error = cache.save().unwrap_err();
    assert!(matches!(&error, TuneCacheError::Io { path: named, .. } if *named == path), "{error}");
    assert_eq!(files(folder.path()), ["old.json", "taken.json", "tune.json"]);
    // Once the way is free, the measurements are still there to be saved.
    std::fs::remove_dir_all(&path).unwrap();
    cache.save().unwrap();
    assert_eq!(TuneCache::open(&path).unwrap().len(), cache.len());
}
