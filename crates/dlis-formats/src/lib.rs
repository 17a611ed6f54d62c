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
//!
//! Bytes of an element of a matrix of many columns, by the density `d` (the part of the elements that is not
//! zero; of blocks with one, `b`). [`Weight::bytes`] is exact: it also counts what each row takes. Columns take
//! 4 bytes instead of 2 beyond 65,536 of them.
//!
//! | format         | an element                  | and a row             | dense f32 over it, at           |
//! |----------------|-----------------------------|-----------------------|---------------------------------|
//! | `dense-f32`    | 4                           |                       | 1                               |
//! | `dense-f16`    | 2                           |                       | 2                               |
//! | `scaled-f16` | 2                           | 4                     | 2                               |
//! | `csr-f32`      | 6 d                         | 4                     | 6.7 at d = 0.1, 13 at 0.05      |
//! | `csr-f16`      | 4 d                         | 4                     | 10 at d = 0.1, 20 at 0.05       |
//! | `bsr-RxC`      | b (4 + 2 / (R C))           | 4 / R                 | 8.9 (1x4), 9.7 (16x1) at b = 0.1 |
//! | `two-four`     | 2.125                       |                       | 1.9                             |
//! | `ternary-2bit` | 0.25                        | 8                     | 16                              |
//! | `ternary-5in8` | 0.2                         | 8                     | 20                              |
//! | `int8`         | 1                           | 4                     | 4                               |
//! | `int4`         | 0.5                         | 4                     | 8                               |
//! | `filter-csr`   | 8 d + 56 / 9 (3x3 filters)  |                       | 0.57 at d = 0.1                 |
//!
//! ```
//! use dlis_formats::{Format, Weight};
//! use ndarray::ArrayD;
//!
//! // A tenth of 256 x 2304 weights, each a value of f16.
//! let dense = ArrayD::from_shape_fn(vec![256, 256, 3, 3], |at| if (at[1] + at[2]) % 10 == 0 { 0.5 } else { 0.0 });
//! let (dense, stored) = (Weight::F32(dense.clone()), dense.iter().filter(|&&value| value != 0.0).count());
//! assert_eq!(dense.convert(Format::CsrF16).unwrap().bytes(), 257 * 4 + stored * 4);
//! // More than the dense f32, and that is what the format is here to show.
//! assert!(dense.convert(Format::FilterCsr).unwrap().bytes() > dense.bytes());
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
mod scaled_f16;
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
pub use scaled_f16::ScaledF16;
pub use ternary::{Ternary, TernaryPacking};
pub use two_four::TwoFour;
pub use weight::Weight;

#[cfg(test)]
mod hostile_tests;
