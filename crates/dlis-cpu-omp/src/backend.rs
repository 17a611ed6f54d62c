//! The backend: all CPU kernels on a [`Team`].

use std::num::NonZeroUsize;
use std::sync::Arc;

use dlis_backend::{HostBackend, Schedule};

use crate::team::{Team, TeamError};

/// The backend `omp` with a team of this many threads, the calling thread among them, not pinned.
///
/// # Errors
///
/// [`TeamError`] if the threads cannot be started.
///
/// # Examples
///
/// ```
/// use dlis_backend::{Backend, Schedule};
///
/// let backend = dlis_cpu_omp::backend(2.try_into()?, Schedule::Static)?;
/// assert_eq!((backend.name(), backend.threads()), ("omp", 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn backend(threads: NonZeroUsize, schedule: Schedule) -> Result<HostBackend, TeamError> {
    Ok(backend_on(Team::builder().threads(threads).build()?, schedule))
}

/// The backend `omp` on a team made elsewhere, pinned or with another way of waiting.
pub fn backend_on(team: Team, schedule: Schedule) -> HostBackend {
    HostBackend::new("omp", dlis_kernels::kernels(), Arc::new(team), schedule)
}
