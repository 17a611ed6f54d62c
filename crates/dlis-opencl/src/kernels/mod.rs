//! The kernels, one file an operation or algorithm.

mod concat;
mod cpu;
pub(crate) mod direct;
mod elementwise;
mod gemm;
pub(crate) mod geometry;
mod im2col;
mod pool;
mod quantized;
mod softmax;
mod sparse;
pub(crate) mod support;
mod vector;

use dlis_formats::Format;

use crate::kernel::DeviceKernel;
use crate::nvidia::{self, persistent::Persistent};

/// Every kernel, in the order in which they are listed to users. Of two that expect to take the same time the
/// planner takes the first.
pub(crate) fn kernels() -> &'static [&'static dyn DeviceKernel] {
    &[
        &cpu::Conv,
        &cpu::Depthwise,
        &cpu::Winograd,
        &cpu::Linear,
        &cpu::Pool::Max,
        &cpu::Pool::Average,
        &cpu::Pool::GlobalAverage,
        &nvidia::Conv,
        &nvidia::Linear,
        &vector::Depthwise,
        &vector::MaxPool,
        &vector::GlobalAvgPool,
        &direct::Conv,
        &direct::Linear,
        &gemm::Gemm("conv2d", Format::DenseF32),
        &gemm::Gemm("conv2d", Format::DenseF16),
        &gemm::Gemm("conv2d", Format::Int8),
        &gemm::Gemm("conv2d", Format::Int4),
        &gemm::Gemm("conv2d", Format::Ternary2Bit),
        &gemm::Gemm("conv2d", Format::Ternary5In8),
        &gemm::Gemm("conv2d", Format::TwoFour),
        &gemm::Gemm("linear", Format::DenseF32),
        &gemm::Gemm("linear", Format::DenseF16),
        &gemm::Gemm("linear", Format::Int8),
        &gemm::Gemm("linear", Format::Int4),
        &gemm::Gemm("linear", Format::Ternary2Bit),
        &gemm::Gemm("linear", Format::Ternary5In8),
        &gemm::Gemm("linear", Format::TwoFour),
        &gemm::Depthwise(Format::DenseF32),
        &gemm::Depthwise(Format::DenseF16),
        &gemm::Depthwise(Format::Int8),
        &gemm::Depthwise(Format::Int4),
        &gemm::Depthwise(Format::Ternary2Bit),
        &gemm::Depthwise(Format::Ternary5In8),
        &gemm::Depthwise(Format::TwoFour),
        &im2col::Gemm("conv2d"),
        &im2col::Gemm("linear"),
        &sparse::DirectSparse("conv2d", Format::CsrF32),
        &sparse::DirectSparse("conv2d", Format::CsrF16),
        &sparse::DirectSparse("conv2d", Format::Bsr1x4),
        &sparse::DirectSparse("conv2d", Format::Bsr4x1),
        &sparse::DirectSparse("conv2d", Format::Bsr8x1),
        &sparse::DirectSparse("conv2d", Format::Bsr16x1),
        &sparse::DirectSparse("linear", Format::CsrF32),
        &sparse::DirectSparse("linear", Format::CsrF16),
        &sparse::DirectSparse("linear", Format::Bsr1x4),
        &sparse::DirectSparse("linear", Format::Bsr4x1),
        &sparse::DirectSparse("linear", Format::Bsr8x1),
        &sparse::DirectSparse("linear", Format::Bsr16x1),
        &sparse::Paper("conv2d"),
        &sparse::Paper("linear"),
        &elementwise::Affine,
        &elementwise::Activate,
        &elementwise::Add,
        &elementwise::Scale,
        &Persistent::REORDER,
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
        &quantized::tile::Tiled { op: "conv2d", format: Format::Int8, slices: false },
        &quantized::tile::Tiled { op: "conv2d", format: Format::Int8, slices: true },
        &quantized::tile::Tiled { op: "conv2d", format: Format::Int4, slices: false },
        &quantized::tile::Tiled { op: "conv2d", format: Format::Int4, slices: true },
        &quantized::tile::Tiled { op: "linear", format: Format::Int8, slices: false },
        &quantized::tile::Tiled { op: "linear", format: Format::Int8, slices: true },
        &quantized::tile::Tiled { op: "linear", format: Format::Int4, slices: false },
        &quantized::tile::Tiled { op: "linear", format: Format::Int4, slices: true },
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
    ]
}
