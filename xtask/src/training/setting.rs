//! The trainer, its images and its folders.

use std::path::PathBuf;

use dlis_eval::dataset::cifar10;
use dlis_train::{Device, Options, TorchTrainer};

use super::Place;
use super::journal::Journal;
use crate::Failure;
use crate::laboratory::{cifar10_folder, root};

/// What a command trains with.
pub(crate) struct Setting {
    pub(crate) trainer: TorchTrainer,
    pub(crate) journal: Journal,
    pub(crate) out: PathBuf,
}

impl Setting {
    pub(crate) fn new(place: &Place) -> Result<Self, Failure> {
        let out = place.out.clone().unwrap_or_else(|| root().join("results/train"));
        std::fs::create_dir_all(&out).map_err(|error| Failure::new(format!("{}: {error}", out.display())))?;
        let data = place.data.clone().unwrap_or_else(cifar10_folder);
        let images = cifar10::load(&data).map_err(|error| {
            Failure::new(format!(
                "{error}\nfetch it with `cargo xtask datasets fetch cifar10`, or name its folder: --data"
            ))
        })?;
        let device: Device = place.device.parse().map_err(Failure::new)?;
        let options = Options {
            device,
            checkpoints: Some(checkpoints(&out)),
            steps_limit: place.steps_limit,
            ..Options::default()
        };
        let mut trainer = TorchTrainer::new(&images.train, &images.test, options)?;
        let journal = Journal::new();
        let seen = journal.clone();
        trainer.watch(move |progress| seen.watch(progress));
        Ok(Self { trainer, journal, out })
    }
}

/// Where unfinished training runs are kept.
pub(crate) fn checkpoints(out: &std::path::Path) -> PathBuf {
    out.join("checkpoints")
}
