//! Two-dimensional convolution, an algorithm a file.

pub(crate) mod blocks;
pub(crate) mod decoded;
pub(crate) mod depthwise;
pub(crate) mod direct;
mod finish;
pub(crate) mod im2col;
pub(crate) mod implicit_gemm;
pub(crate) mod lanes;
mod pack;
pub(crate) mod paper;
mod planes;
mod product;
pub(crate) mod shifted;
pub(crate) mod sparse;
#[cfg(test)]
mod tests;
pub(crate) mod tile;
pub(crate) mod winograd;

use dlis_backend::Kernel;

/// The kernels of every file.
pub(crate) static KERNELS: &[&[&dyn Kernel]] = &[
    direct::KERNELS,
    im2col::KERNELS,
    implicit_gemm::KERNELS,
    depthwise::KERNELS,
    depthwise::planes::KERNELS,
    winograd::KERNELS,
    lanes::KERNELS,
    lanes::DEPTHWISE,
    shifted::KERNELS,
    sparse::KERNELS,
    decoded::KERNELS,
    blocks::KERNELS,
    paper::KERNELS,
];
