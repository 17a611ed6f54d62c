//! Layer 4 of the stack: the CPU backend whose parallel loops run on a private rayon pool.
//!
//! [`RayonExecutor`] gives rayon's work-stealing threads the shape that kernels ask for, a
//! [`dlis_backend::Executor`] with a fixed number of numbered workers.
#![deny(unsafe_code)]

mod backend;
mod executor;
mod foreman;

pub use backend::backend;
pub use executor::{BuildError, RayonExecutor};
