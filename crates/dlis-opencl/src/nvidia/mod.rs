//! Kernels for NVIDIA GPUs, in OpenCL C with inline PTX.

mod mma_conv;
mod pack;
pub(crate) mod persistent;
mod tile;

use std::sync::OnceLock;

pub(crate) use mma_conv::{Conv, Linear};

/// Macros over the instructions of tensor cores and asynchronous copies, and their emulation.
pub(crate) const PTX: &str = include_str!("ptx.cl");

/// Whether devices without the instructions of NVIDIA's take these kernels with an emulation of them, for tests of the
/// rest: where the environment variable `DLIS_OPENCL_EMULATE` is set.
pub(crate) fn emulates() -> bool {
    static EMULATES: OnceLock<bool> = OnceLock::new();
    *EMULATES.get_or_init(|| std::env::var_os("DLIS_OPENCL_EMULATE").is_some())
}
