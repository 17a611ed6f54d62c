//! The paper's figures come out with no measurement of ours, and hostile files of curves do not get in.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn paper(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .arg("paper")
        .args(args)
        .arg("--out")
        .arg(folder.join("out"))
        .arg("--curves")
        .arg(folder.join("curves.jsonl"));
    command.output().unwrap()
}

#[test]
fn a_page_with_every_figure_needs_no_measurement() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("curves.jsonl"), "").unwrap();
    fs::create_dir(folder.path().join("records")).unwrap();
    fs::write(folder.path().join("records/records.jsonl"), "").unwrap();
    let records = folder.path().join("records");
    let output = paper(folder.path(), &["--records", records.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("309.9 MB") && text.contains("not measured"), "{text}");
    let page = fs::read_to_string(folder.path().join("out/index.html")).unwrap();
    for id in ["accuracy", "pareto", "memory", "times", "fixed-accuracy"] {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    // Three curves, two fronts, times, and those at fixed accuracy.
    assert_eq!(page.matches("<figure").count(), 7);
    let svgs = fs::read_dir(folder.path().join("out")).unwrap();
    assert_eq!(svgs.filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "svg").count(), 7);
}

#[test]
fn one_topic_is_one_page_and_wrong_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("curves.jsonl"), "\n{\"network\":\"vgg\"}\n").unwrap();
    let output = paper(folder.path(), &["memory"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("curves.jsonl:2") && error.contains("technique"), "{error}");
    fs::write(folder.path().join("curves.jsonl"), "").unwrap();
    let output = paper(folder.path(), &["memory", "--records", "nowhere"]);
    assert!(!output.status.success() && String::from_utf8(output.stderr).unwrap().contains("no records in nowhere"));
    let output = paper(folder.path(), &["speed"]);
    assert!(!output.status.success() && String::from_utf8(output.stderr).unwrap().contains("fixed-accuracy"));
}
