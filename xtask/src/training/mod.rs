//! `cargo xtask train` and `cargo xtask compress`: what needs libtorch.

use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "train")]
mod compress;
#[cfg(feature = "train")]
mod journal;
#[cfg(feature = "train")]
mod scratch;
#[cfg(feature = "train")]
mod setting;

#[cfg(feature = "train")]
pub(crate) use self::{compress::run as compress, scratch::run as train};

/// What both commands train on and where their results go.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Where tensors live: `cpu` or `cuda`.
    #[arg(long, default_value = "cpu", value_parser = ["cpu", "cuda"])]
    pub(crate) device: String,
    /// Folder for artefacts, logs and checkpoints [default: results/train].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Folder with CIFAR-10 as `datasets fetch` leaves it [default: datasets/cifar-10].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Most steps of each training run, to try things out.
    #[arg(long, value_name = "STEPS")]
    pub(crate) steps_limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// A network of the zoo.
    pub(crate) network: String,
    /// Passes over the training images.
    #[arg(long, default_value_t = 80.0)]
    pub(crate) epochs: f64,
    /// Images a step.
    #[arg(long, default_value_t = 256)]
    pub(crate) batch: usize,
    /// Largest learning rate.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) rate: f64,
    /// Decides initial weights, order and augmentation.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct CompressArgs {
    /// A network of the zoo, or the path of an artefact with its batch-norms.
    pub(crate) network: String,
    /// A recipe's file; may be repeated. Recipes that it is based on are looked for among these, then beside it.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) recipe: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[cfg(not(feature = "train"))]
mod absent {
    use super::{CompressArgs, TrainArgs};
    use crate::Failure;

    fn absent() -> Failure {
        Failure::new(
            "this build cannot train: training needs libtorch 2.11. Build with it so:
  pip download --no-deps torch==2.11.0 && unzip torch-2.11.0-*.whl -d libtorch
  export LIBTORCH=$PWD/libtorch/torch LIBTORCH_BYPASS_VERSION_CHECK=1
  export RUSTFLAGS='-C link-arg=-Wl,--unresolved-symbols=ignore-in-shared-libs'
  export LD_LIBRARY_PATH=$LIBTORCH/lib
  cargo run --release --package xtask --features train -- train --help",
        )
    }

    pub(crate) fn train(_: &TrainArgs) -> Result<(), Failure> {
        Err(absent())
    }

    pub(crate) fn compress(_: &CompressArgs) -> Result<(), Failure> {
        Err(absent())
    }
}

#[cfg(not(feature = "train"))]
pub(crate) use self::absent::{compress, train};
