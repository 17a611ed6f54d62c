//! Two-dimensional convolution, an algorithm a file.

pub(crate) mod depthwise;
pub(crate) mod direct;
pub(crate) mod im2col;
pub(crate) mod implicit_gemm;
mod planes;
#[cfg(test)]
mod tests;
