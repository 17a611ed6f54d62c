//! An experiment that is killed loses no record and measures none twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dlis_experiment::{RECORDS_FILE, Record, Store};

const EXPERIMENT: &str = r#"
name = "resume"
networks = ["mobilenet-cifar10"]
algorithms = ["fixed:implicit-gemm", "fixed:im2col-gemm"]
backends = ["omp"]
threads = [1, 2]
batches = [1, 2, 3]

[accuracy]
images = 20

[latency]
min_samples = 2
budget_ms = 60
"#;
/// Two algorithms, two thread counts, three batches.
const POINTS: usize = 12;

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("experiment").arg(folder.join("resume.toml")).arg("--out").arg(folder.join("out"));
    command.stdout(Stdio::null());
    command
}

/// The store's text, as far as it has been written.
fn text(folder: &Path) -> String {
    fs::read_to_string(folder.join("out").join(RECORDS_FILE)).unwrap_or_default()
}

#[test]
fn a_killed_experiment_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("resume.toml"), EXPERIMENT).unwrap();

    let mut child = command(folder).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while text(folder).lines().count() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "the experiment ended before it could be killed");
        assert!(start.elapsed() < Duration::from_secs(600), "no record in ten minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap(); // SIGKILL: nothing gets to clean up
    child.wait().unwrap();
    let before = text(folder);
    let whole: Vec<&str> = before.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
    assert!((2..POINTS).contains(&whole.len()), "{} records at the kill", whole.len());
    let readable = Store::read(folder.join("out").join(RECORDS_FILE)).unwrap();
    assert_eq!(readable.len(), whole.len(), "records that can be read after the kill");

    let output = command(folder).stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let left = POINTS - whole.len();
    assert!(stderr.contains(&format!("{left} of {POINTS} stack points to measure")), "{stderr}");
    let after = text(folder);
    assert!(after.starts_with(&whole.concat()), "records from before the kill are as they were");
    let records: Vec<Record> = Store::read(folder.join("out").join(RECORDS_FILE)).unwrap();
    let ids: BTreeSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!((after.lines().count(), records.len(), ids.len()), (POINTS, POINTS, POINTS), "each point once");
    // Threads do not change the arithmetic: accuracy was measured once for both counts.
    let mut arithmetics: BTreeMap<(String, usize), BTreeSet<&str>> = BTreeMap::new();
    for record in &records {
        let key = (record.point.algorithm.to_string(), record.point.batch);
        arithmetics.entry(key).or_default().insert(&record.accuracy.arithmetic);
    }
    assert!(arithmetics.values().all(|of_both| of_both.len() == 1), "{arithmetics:?}");
    assert!(folder.join("out/report.html").is_file() && folder.join("out/records.csv").is_file());

    // A third run has nothing left to measure.
    let output = command(folder).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(folder), after);
}

#[test]
fn a_misspelt_network_points_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("typo.toml");
    fs::write(&file, "name = \"typo\"\nnetworks = [\"resnet-18\"]\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("experiment").arg(&file).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("typo.toml:2:13") && stderr.contains("resnet18-cifar10"), "{stderr}");
}

#[test]
fn a_choice_that_no_kernel_has_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("typo.toml");
    for (line, expected) in [
        ("algorithms = [\"fixed:implict-gemm\"]", "implicit-gemm"),
        ("formats = [\"dense-f64\"]", "dense-f32"),
        ("recipes = [\"prune\"]", "none, int8, int4"),
        ("backends = [\"openmp\"]", "rayon, omp"),
    ] {
        fs::write(&file, format!("name = \"typo\"\nnetworks = [\"mobilenet-cifar10\"]\n{line}\n")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("experiment").arg(&file).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains("typo.toml:3:") && stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("resume.toml"), EXPERIMENT).unwrap();
    let output = command(folder.path()).arg("--dry-run").stdout(Stdio::piped()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains(&format!("{POINTS} of {POINTS} stack points are left")), "{stdout}");
    assert!(!folder.path().join("out").exists());
}

#[test]
fn every_command_has_help_with_examples() {
    for name in ["experiment", "report", "recommend", "explain", "bench", "datasets"] {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args([name, "--help"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("Example"), "{name}: {text}");
    }
}
