//! `cargo xtask datasets`.

use std::path::Path;

use dlis_eval::dataset::cifar10;
use dlis_eval::fetch::{Phase, fetch_cifar10};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;
use crate::command::{DatasetsArgs, DatasetsCommand};
use crate::laboratory::cifar10_folder;
use crate::output::say;

pub(crate) fn run(args: &DatasetsArgs) -> Result<(), Failure> {
    match &args.command {
        DatasetsCommand::Fetch { name: _, to } => fetch(to.as_deref().unwrap_or(&cifar10_folder())),
        DatasetsCommand::List => {
            list();
            Ok(())
        }
    }
}

fn fetch(to: &Path) -> Result<(), Failure> {
    let bar = ProgressBar::new(0);
    let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "),
    );
    let result = fetch_cifar10(to, &mut |progress| {
        let doing = match progress.phase {
            Phase::Downloading => "fetching",
            Phase::Verifying => "verifying",
        };
        bar.set_message(format!("{doing} {}", progress.source));
        bar.set_length(progress.total);
        bar.set_position(progress.bytes);
    });
    bar.finish_and_clear();
    let report = result?;
    for attempt in &report.failed {
        eprintln!("note: {attempt}");
    }
    for path in &report.set_aside {
        eprintln!("note: a file that was not the published one was set aside as {}", path.display());
    }
    let how = match &report.source {
        Some(source) if !report.already_there => format!("fetched from {source} and verified"),
        _ => "already there and verified".to_owned(),
    };
    say!("CIFAR-10: {how}: {}", report.path.display());
    let test = cifar10::load_test(to)?;
    say!("{} test images of {} classes", test.len(), test.classes().len());
    Ok(())
}

fn list() {
    let folder = cifar10_folder();
    say!("embedded  1,000 test images of CIFAR-10, 100 of each class: part of the program");
    match cifar10::load_test(&folder) {
        Ok(test) => say!("cifar10   CIFAR-10 in full: {} test images in {}", test.len(), folder.display()),
        Err(_) => say!("cifar10   CIFAR-10 in full: not here; `cargo xtask datasets fetch cifar10` fetches it"),
    }
}
