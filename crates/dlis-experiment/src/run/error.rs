//! Why an experiment stopped.

use crate::catalogue::CatalogueError;
use crate::{StackPoint, StoreError};

/// Why an experiment stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A point names something that is not there.
    #[error("{point}: {source}")]
    Catalogue {
        /// The point.
        point: Box<StackPoint>,
        /// Why.
        source: Box<CatalogueError>,
    },
    /// The network could not be planned.
    #[error("{point}: {source}")]
    Plan {
        /// The point.
        point: Box<StackPoint>,
        /// Why.
        source: Box<dlis_runtime::PlanError>,
    },
    /// The session could not be made or run.
    #[error("{point}: {source}")]
    Session {
        /// The point.
        point: Box<StackPoint>,
        /// Why.
        source: Box<dlis_runtime::SessionError>,
    },
    /// The dataset does not fit the network.
    #[error("{point}: accuracy on `{dataset}`: {reason}")]
    Dataset {
        /// The point.
        point: Box<StackPoint>,
        /// The dataset.
        dataset: String,
        /// Why.
        reason: String,
    },
    /// The store could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of measured accuracies could not be written.
    #[error(transparent)]
    Accuracies(#[from] super::AccuraciesError),
    /// The cache of measured kernels could not be written.
    #[error(transparent)]
    Cache(#[from] dlis_runtime::TuneCacheError),
}

impl RunError {
    pub(super) fn session(point: &StackPoint, source: dlis_runtime::SessionError) -> Self {
        Self::Session { point: Box::new(point.clone()), source: Box::new(source) }
    }
}
