//! Operations on u8 activations, which stand for real numbers by a quantisation: to the bit what every other backend
//! computes, whatever the device.
//!
//! A convolution or linear layer sums `acc = sum of (x - zero_point) * w` in 32 bits and stores
//! `round(activation(acc * m[c] + b[c] + (r - zero_point_r) * mr)) + zero_point_out`, clamped to a byte, every product
//! and sum of floats rounded on its own. All that is divided is divided by the host, before the first run: devices are
//! free to divide approximately, but not to multiply and add so. See `rescale.cl`.

mod accepts;
mod constants;
pub(super) mod depthwise;
pub(super) mod direct;
pub(super) mod elementwise;
pub(super) mod gemm;
pub(super) mod pool;
pub(super) mod tile;
mod tiles;
