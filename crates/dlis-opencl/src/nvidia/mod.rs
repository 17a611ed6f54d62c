//! Kernels for NVIDIA GPUs, in OpenCL C with inline PTX.

pub(crate) mod persistent;
