//! What can go wrong in training.

use std::path::PathBuf;

use dlis_compress::TrainerError;
use dlis_model::WeightError;
use tch::TchError;

/// What can go wrong in training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// libtorch refused an operation: most often the device is out of memory.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// CUDA was asked for and is not there.
    #[error(
        "CUDA was asked for, but libtorch finds none: start the program with LD_PRELOAD=libtorch_cuda.so of a PyTorch with CUDA, \
         LD_LIBRARY_PATH naming its torch/lib and nvidia/*/lib, or train with the device `cpu`"
    )]
    NoCuda,
    /// Trained values are no valid weights.
    #[error("the trained network is not valid: {0}")]
    Weight(#[from] WeightError),
    /// A task asks for something impossible.
    #[error("training run `{key}`: {field}: expected {expected}, found {found}")]
    Task {
        /// The task's key.
        key: String,
        /// Which part of the task.
        field: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Images and network do not go together.
    #[error("images of {found:?} do not fit the network `{network}`, which takes {expected:?}")]
    Images {
        /// The network's name.
        network: String,
        /// Channels, height and width of its input.
        expected: [usize; 3],
        /// Those of the images.
        found: [usize; 3],
    },
    /// A data set without images.
    #[error("data set `{name}` has no images")]
    NoImages {
        /// The data set's name.
        name: String,
    },
    /// A checkpoint cannot be read as one of this run.
    #[error("checkpoint {path}: {problem}; delete it to begin that run anew")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A loss or weight is no longer finite.
    #[error("training run `{key}` diverged in epoch {epoch:.1}: lower its peak rate")]
    Diverged {
        /// The task's key.
        key: String,
        /// Epochs done.
        epoch: f64,
    },
    /// What was observed is no range of numbers.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
}

impl TrainError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }

    /// The same in the words of the trait [`dlis_compress::Trainer`].
    pub(crate) fn while_doing(self, doing: impl Into<String>) -> TrainerError {
        match self {
            Self::Trainer(error) => error,
            Self::Diverged { key, epoch } => TrainerError::Diverged { key, epoch },
            other => TrainerError::Other { doing: doing.into(), source: Box::new(other) },
        }
    }
}

/// A size as libtorch counts it.
pub(crate) fn extent(size: usize) -> i64 {
    // No tensor has more elements than `MAX_ELEMENTS`, so this loses nothing.
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Sizes as libtorch counts them.
pub(crate) fn extents(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&size| extent(size)).collect()
}
