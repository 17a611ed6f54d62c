//! What can go wrong between a network and its results.

use dlis_backend::{CompileError, ExecuteError};
use dlis_model::FoldError;

/// Why a network could not be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A batch-norm could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A batch of no images, or one whose tensors are too large.
    #[error("a batch of {batch}: expected at least 1, and tensors of at most {max_elements} elements")]
    Batch {
        /// Images asked for.
        batch: usize,
        /// Most elements of a tensor.
        max_elements: usize,
    },
    /// No kernel of the backend can execute a layer.
    #[error("backend `{backend}` has no kernel for layer `{layer}` ({op}):{reasons}")]
    NoKernel {
        /// The backend.
        backend: String,
        /// The layer.
        layer: String,
        /// What it computes.
        op: String,
        /// What each kernel said.
        reasons: String,
    },
    /// Measuring a kernel failed.
    #[error("layer `{layer}`, kernel `{kernel}`: measuring it failed: {source}")]
    Measure {
        /// The layer.
        layer: String,
        /// The kernel.
        kernel: String,
        /// Why.
        source: Box<SessionError>,
    },
    /// Measuring a whole program failed.
    #[error("network `{network}`: measuring it failed: {source}")]
    MeasureNetwork {
        /// The network.
        network: String,
        /// Why.
        source: Box<SessionError>,
    },
}

/// Why a plan could not be made a session, or a session not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The backend refused the program.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The images are of other extents than those planned for.
    #[error("images of {found:?}: the session was planned for {expected:?}")]
    Images {
        /// Batch, channels, height, width.
        expected: [usize; 4],
        /// Those of the images given.
        found: Vec<usize>,
    },
    /// A run failed.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}
