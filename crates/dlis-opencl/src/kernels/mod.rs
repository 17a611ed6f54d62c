//! The kernels, one file an operation or algorithm.

mod concat;
mod cpu;
pub(crate) mod direct;
mod elementwise;
pub(crate) mod geometry;
mod im2col;
mod pool;
mod quantized;
mod softmax;
pub(crate) mod support;

use dlis_formats::Format;

use crate::kernel::DeviceKernel;
use crate::nvidia::persistent::Persistent;

/// Every kernel, in the order in which they are listed to users. Of two that expect to take the same time the
/// planner takes the first.
pub(crate) fn kernels() -> &'static [&'static dyn DeviceKernel] {
    &[
        &cpu::Conv,
        &cpu::Depthwise,
        &cpu::Linear,
        &cpu::Pool::Max,
        &cpu::Pool::Average,
        &cpu::Pool::GlobalAverage,
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
        &quantized::elementwise::Quantize,
        &quantized::elementwise::Dequantize,
        &quantized::gemm::Gemm { op: "conv2d", format: Format::Int8 },
        &quantized::gemm::Gemm { op: "conv2d", format: Format::Int4 },
        &quantized::gemm::Gemm { op: "linear", format: Format::Int8 },
        &quantized::gemm::Gemm { op: "linear", format: Format::Int4 },
        &quantized::tile::Tiled { op: "conv2d", format: Format::Int8 },
        &quantized::tile::Tiled { op: "conv2d", format: Format::Int4 },
        &quantized::tile::Tiled { op: "linear", format: Format::Int8 },
        &quantized::tile::Tiled { op: "linear", format: Format::Int4 },
        &quantized::depthwise::Depthwise,
        &quantized::direct::Conv(Format::Int8),
        &quantized::direct::Conv(Format::Int4),
        &quantized::direct::Linear(Format::Int8),
        &quantized::direct::Linear(Format::Int4),
        &quantized::pool::MaxPool,
        &quantized::pool::AvgPool,
        &quantized::pool::GlobalAvgPool,
        &quantized::elementwise::Add,
        &quantized::elementwise::Activate,
        &quantized::elementwise::Concat,
        &quantized::elementwise::Reorder,
        &Persistent::CONV2D,
        &Persistent::LINEAR,
        &Persistent::MAX_POOL,
        &Persistent::AVG_POOL,
        &Persistent::GLOBAL_AVG_POOL,
        &Persistent::ADD,
        &Persistent::ACTIVATION,
        &Persistent::REORDER,
    ]
}
