//! Layer 3 of the stack, data: weight formats, their lossless conversion and exact byte counts.
//!
//! A [`Weight`] is the weight tensor of one layer in one [`Format`]. Kernels say which formats they
//! execute; everything else sees a weight through [`Weight::dims`], [`Weight::bytes`] and
//! [`Weight::to_f32`].
//!
//! ```
//! use dlis_formats::{Format, Weight};
//! use ndarray::ArrayD;
//!
//! let weight = Weight::F32(ArrayD::from_elem(vec![8, 3, 3, 3], 0.5));
//! assert_eq!(weight.bytes(), 8 * 27 * 4);
//! // 0.5 is an f16, so nothing is lost on the way there and back.
//! let half = weight.convert(Format::DenseF16).unwrap();
//! assert_eq!(half.bytes(), 8 * 27 * 2);
//! assert_eq!(half.to_f32(), weight.to_f32());
//! ```
#![forbid(unsafe_code)]

mod bsr;
mod csr;
mod dtype;
mod error;
mod extents;
mod filter_csr;
mod format;
mod indices;
mod int4;
mod int8;
mod quantization;
mod scales;
mod ternary;
mod two_four;
mod weight;

pub use bsr::Bsr;
pub use csr::Csr;
pub use dtype::DType;
pub use error::{ConvertError, FormatError};
pub use extents::MAX_ELEMENTS;
pub use filter_csr::{Filter, FilterCsr};
pub use format::{Format, ParseFormatError};
pub use indices::{Indices, Values};
pub use int4::Int4;
pub use int8::Int8;
pub use quantization::Quantization;
pub use ternary::{Ternary, TernaryPacking};
pub use two_four::TwoFour;
pub use weight::Weight;
