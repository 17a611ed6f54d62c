//! Kernels for NVIDIA GPUs, in OpenCL C with inline PTX.

mod mma_conv;
mod pack;
pub(crate) mod persistent;
mod tile;

use std::sync::OnceLock;

use dlis_backend::Support;

use crate::device::Device;

pub(crate) use mma_conv::{Conv, Linear};

/// Macros over the instructions of tensor cores and asynchronous copies, and their emulation.
pub(crate) const PTX: &str = include_str!("ptx.cl");

/// Whether devices without the instructions of NVIDIA's take these kernels with an emulation of them, for tests of the
/// rest: where the environment variable `DLIS_OPENCL_EMULATE` is set.
pub(crate) fn emulates() -> bool {
    static EMULATES: OnceLock<bool> = OnceLock::new();
    *EMULATES.get_or_init(|| std::env::var_os("DLIS_OPENCL_EMULATE").is_some())
}

/// Whether a device understands the PTX of these kernels, or emulates it.
fn understands(device: &Device) -> Support {
    let understands = device.info().has_tensor_cores() || emulates();
    Support::when(understands, "it needs an NVIDIA GPU of compute capability 8.0 or later")
}
