//! The backend: all CPU kernels on a [`RayonExecutor`].

use std::num::NonZeroUsize;
use std::sync::Arc;

use dlis_backend::{HostBackend, Schedule};

use crate::executor::{BuildError, RayonExecutor};

/// The backend `rayon` with this many workers, the calling thread among them.
///
/// # Errors
///
/// [`BuildError`] if the threads cannot be started.
///
/// # Examples
///
/// ```
/// use dlis_backend::{Backend, Schedule};
///
/// let backend = dlis_cpu_rayon::backend(2.try_into()?, Schedule::Static)?;
/// assert_eq!((backend.name(), backend.threads()), ("rayon", 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn backend(threads: NonZeroUsize, schedule: Schedule) -> Result<HostBackend, BuildError> {
    let executor = Arc::new(RayonExecutor::new(threads)?);
    Ok(HostBackend::new("rayon", dlis_kernels::kernels(), executor, schedule))
}
