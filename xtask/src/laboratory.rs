//! The machine, the datasets and the networks that commands work with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dlis_eval::dataset::{Dataset, cifar10};
use dlis_experiment::run::{Accuracies, Laboratory};
use dlis_experiment::spec::{AccuracySpec, Dataset as DatasetName};
use dlis_experiment::{ACCURACIES_FILE, Catalogue, TUNING_FILE};
use dlis_hw::{Hardware, Peaks};
use dlis_runtime::TuneCache;

use crate::Failure;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where the built-in experiment leaves its records.
pub(crate) fn default_results() -> PathBuf {
    root().join("results/default")
}

/// Where the weights of the zoo are, and what recipes made of them.
pub(crate) fn catalogue() -> Catalogue {
    let threads = Hardware::detect().logical_cores;
    Catalogue::new(root().join("datasets")).keep_derived(root().join("results/derived")).threads(threads)
}

/// Where CIFAR-10 in full is, once it is fetched.
pub(crate) fn cifar10_folder() -> PathBuf {
    root().join("datasets/cifar-10")
}

/// The images that accuracy is measured on.
pub(crate) fn dataset(spec: &AccuracySpec) -> Result<Dataset, Failure> {
    let whole = match spec.dataset {
        DatasetName::Embedded => cifar10::embedded(),
        DatasetName::Cifar10 => cifar10::load_test(&cifar10_folder())
            .map_err(|error| Failure::new(format!("{error}\nfetch it with `cargo xtask datasets fetch cifar10`")))?,
    };
    match spec.images {
        Some(images) if (images.get() as usize) < whole.len() => {
            let indices: Vec<usize> = (0..images.get() as usize).collect();
            let name = whole.name().to_owned();
            Ok(whole.select(name, &indices)?)
        }
        _ => Ok(whole),
    }
}

/// Measures the machine's peaks, with the thread counts in question.
pub(crate) fn peaks(threads: &[usize]) -> Peaks {
    Peaks::measure(threads, Peaks::DEFAULT_BUDGET.max(Duration::from_secs(1)))
}

/// All of it; measured kernels are kept in `out`.
pub(crate) fn laboratory(out: &Path, spec: &AccuracySpec, threads: &[usize]) -> Result<Laboratory, Failure> {
    let dataset = dataset(spec)?;
    Ok(Laboratory {
        device_rooflines: BTreeMap::new(),
        catalogue: catalogue(),
        hw: Hardware::detect(),
        peaks: peaks(threads),
        dataset_sha256: dataset.sha256(),
        dataset,
        cache: TuneCache::open(out.join(TUNING_FILE))?,
        accuracies: Accuracies::open(out.join(ACCURACIES_FILE))?,
        allocated: Some(crate::allocated),
        git_revision: said_by("git", &["rev-parse", "--short=12", "HEAD"]),
        rustc: said_by("rustc", &["--version"]),
    })
}

/// The first line that a program prints, if it is there and succeeds.
pub(crate) fn said_by(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(root()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
