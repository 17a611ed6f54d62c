//! Layer 4 of the stack: the CPU backend whose parallel loops run on an OpenMP-style team of threads.
//!
//! [`Team`] is what an OpenMP runtime keeps behind `#pragma omp parallel for`: threads that outlive
//! the loops, woken by one store and joined by a barrier, with OpenMP's schedules. Kernels see it as
//! a [`dlis_backend::Executor`].
#![deny(unsafe_code)]

mod backend;
mod pinning;
mod team;

pub use backend::{backend, backend_on};
pub use dlis_backend::WaitPolicy;
pub use pinning::Pinning;
pub use team::{Team, TeamBuilder, TeamError};
