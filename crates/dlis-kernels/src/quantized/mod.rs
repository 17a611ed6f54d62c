//! Operations on u8 activations, which stand for real numbers by a quantisation
//! (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference").
//!
//! All kernels of one operation compute the same bits. A convolution or linear layer sums
//! `acc = sum of (x - zero_point) * w` in 32 bits, padding contributing nothing, and stores
//!
//! ```text
//! v = f32(acc) * m[c] + b[c]            two roundings, no fused multiply-add
//! v = v + f32(r - zero_point_r) * mr    a residual of u8
//! q = clamp(round(activation(v)) + zero_point_out, 0, 255)    ties to even, NaN as 0
//! ```
//!
//! where, of scales `s`, `m[c] = f32(f64(s_in) * f64(s_w[c]) / f64(s_out))`, `b[c] = f32(f64(bias[c]) / f64(s_out))`
//! and `mr = f32(f64(s_r) / f64(s_out))`; the 6 of a `relu6` is `f32(6 / f64(s_out))`. With an f32 output, `s_out` is 1
//! and `v`, an f32 residual added and activated, is the result. The other operations are rounded likewise.
//!
//! A ternary weight has two magnitudes a row, so no such scale: `w` is a whole number of steps for each, and `s_w` that
//! step, by [`dlis_formats::Ternary::steps`].

mod accepts;
mod concat;
mod depthwise;
mod elementwise;
mod gemm;
mod light;
mod output;
mod pool;
mod reorder;
mod rescale;
mod simd;
mod winograd;

use dlis_backend::Kernel;

/// The kernels of every file.
pub(crate) static KERNELS: &[&[&dyn Kernel]] = &[
    gemm::KERNELS,
    winograd::KERNELS,
    depthwise::KERNELS,
    pool::KERNELS,
    elementwise::KERNELS,
    elementwise::QUANTIZE,
    concat::KERNELS,
    reorder::KERNELS,
];
