//! The kernels, one file an operation or algorithm.

mod concat;
mod direct;
mod elementwise;
mod geometry;
mod im2col;
mod pool;
mod softmax;
mod support;

use crate::kernel::DeviceKernel;

/// Every kernel, in the order in which they are listed to users. Of two that expect to take the same time the
/// planner takes the first.
pub(crate) fn kernels() -> &'static [&'static dyn DeviceKernel] {
    &[
        &direct::Conv,
        &direct::Linear,
        &im2col::Gemm("conv2d"),
        &im2col::Gemm("linear"),
        &elementwise::Affine,
        &elementwise::Activate,
        &elementwise::Add,
        &elementwise::Scale,
        &elementwise::Reorder,
        &pool::MaxPool,
        &pool::AvgPool,
        &pool::GlobalAvgPool,
        &concat::Concat,
        &softmax::Softmax,
    ]
}
