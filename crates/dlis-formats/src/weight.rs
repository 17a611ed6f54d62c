//! The weight tensor of one layer in one format.

use std::ops::ControlFlow;

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use ndarray::{ArrayD, CowArray, IxDyn};

use crate::csr::is_half;
use crate::{
    Bsr, ConvertError, Csr, DType, FilterCsr, Format, FormatError, Int4, Int8, ScaledF16, Ternary, TernaryPacking,
    TwoFour, Values,
};

/// The weight tensor of one layer (for a convolution `[out, in / groups, height, width]`, for a linear
/// layer `[out, in]`, for a vector of biases `[n]`), in one [`Format`].
///
/// Seen as a matrix, it has a row for each output channel (the first extent) and the rest of the tensor as
/// columns, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Weight {
    /// [`Format::DenseF32`].
    F32(ArrayD<f32>),
    /// [`Format::DenseF16`].
    F16(ArrayD<f16>),
    /// [`Format::ScaledF16`].
    ScaledF16(ScaledF16),
    /// [`Format::CsrF32`] or [`Format::CsrF16`].
    Csr(Csr),
    /// [`Format::Bsr1x4`], [`Format::Bsr4x1`], [`Format::Bsr8x1`] or [`Format::Bsr16x1`].
    Bsr(Bsr),
    /// [`Format::TwoFour`].
    TwoFour(TwoFour),
    /// [`Format::Ternary2Bit`] or [`Format::Ternary5In8`].
    Ternary(Ternary),
    /// [`Format::Int8`].
    Int8(Int8),
    /// [`Format::Int4`].
    Int4(Int4),
    /// [`Format::FilterCsr`].
    FilterCsr(FilterCsr),
}

impl Weight {
    /// The format it is stored in.
    pub fn format(&self) -> Format {
        match self {
            Self::F32(_) => Format::DenseF32,
            Self::F16(_) => Format::DenseF16,
            Self::ScaledF16(_) => Format::ScaledF16,
            Self::Csr(csr) => match csr.values() {
                Values::F32(_) => Format::CsrF32,
                Values::F16(_) => Format::CsrF16,
            },
            Self::Bsr(bsr) => bsr.format(),
            Self::TwoFour(_) => Format::TwoFour,
            Self::Ternary(ternary) => ternary.packing().format(),
            Self::Int8(_) => Format::Int8,
            Self::Int4(_) => Format::Int4,
            Self::FilterCsr(_) => Format::FilterCsr,
        }
    }

    /// The extents of the tensor, outermost first.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::F32(array) => array.shape(),
            Self::F16(array) => array.shape(),
            Self::ScaledF16(scaled) => scaled.dims(),
            Self::Csr(csr) => csr.dims(),
            Self::Bsr(bsr) => bsr.dims(),
            Self::TwoFour(packed) => packed.dims(),
            Self::Ternary(ternary) => ternary.dims(),
            Self::Int8(int8) => int8.dims(),
            Self::Int4(int4) => int4.dims(),
            Self::FilterCsr(sparse) => sparse.dims(),
        }
    }

    /// Output channels: the first extent, 1 if there is none.
    pub fn rows(&self) -> usize {
        self.dims().first().copied().unwrap_or(1)
    }

    /// Elements of one output channel, zeros included: the product of all extents but the first.
    pub fn columns(&self) -> usize {
        self.dims().iter().skip(1).product()
    }

    /// The number of elements, zeros included.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// The bytes that the stored form takes, indices and scales included, headers not.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(array) => array.len() * DType::F32.bytes(),
            Self::F16(array) => array.len() * DType::F16.bytes(),
            Self::ScaledF16(scaled) => scaled.bytes(),
            Self::Csr(csr) => csr.bytes(),
            Self::Bsr(bsr) => bsr.bytes(),
            Self::TwoFour(packed) => packed.bytes(),
            Self::Ternary(ternary) => ternary.bytes(),
            Self::Int8(int8) => int8.bytes(),
            Self::Int4(int4) => int4.bytes(),
            Self::FilterCsr(sparse) => sparse.bytes(),
        }
    }

    /// Writes the elements of one row, zeros included, to `out`.
    ///
    /// # Panics
    ///
    /// If there is no such row or `out` is not as long as a row.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        let columns = self.columns();
        assert!(row < self.rows(), "row {row} of {}", self.rows());
        assert_eq!(out.len(), columns, "columns of a row");
        match self {
            Self::F32(array) => match array.as_slice() {
                Some(elements) => out.copy_from_slice(&elements[row * columns..][..columns]),
                None => out.iter_mut().zip(array.iter().skip(row * columns)).for_each(|(out, &value)| *out = value),
            },
            Self::F16(array) => {
                out.iter_mut().zip(array.iter().skip(row * columns)).for_each(|(out, value)| *out = value.to_f32());
            }
            Self::ScaledF16(scaled) => scaled.decode_row(row, out),
            Self::Csr(csr) => csr.decode_row(row, out),
            Self::Bsr(bsr) => bsr.decode_row(row, out),
            Self::TwoFour(packed) => packed.decode_row(row, out),
            Self::Ternary(ternary) => ternary.decode_row(row, out),
            Self::Int8(int8) => int8.decode_row(row, out),
            Self::Int4(int4) => int4.decode_row(row, out),
            Self::FilterCsr(sparse) => sparse.decode_row(row, out),
        }
    }

    /// The tensor as dense f32; borrowed where it is stored so.
    pub fn to_f32(&self) -> CowArray<'_, f32, IxDyn> {
        match self {
            Self::F32(array) => CowArray::from(array),
            Self::F16(array) => CowArray::from(widened(array)),
            packed => {
                let columns = packed.columns();
                let mut dense = ArrayD::zeros(packed.dims());
                let elements = dense.as_slice_mut().expect("a new array is in row-major order");
                if columns > 0 {
                    elements.chunks_exact_mut(columns).enumerate().for_each(|(row, out)| packed.decode_row(row, out));
                }
                CowArray::from(dense)
            }
        }
    }

    /// Row-major index and value of the first element that satisfies a condition.
    ///
    /// What is allocated is in proportion to what is stored: a sparse tensor whose zeros do not satisfy the
    /// condition is searched as it is stored, any other row by row.
    pub fn find(&self, condition: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
        match self {
            Self::Csr(csr) if !condition(0.0) => csr.find_stored(condition),
            Self::Bsr(bsr) if !condition(0.0) => bsr.find_stored(condition),
            Self::FilterCsr(sparse) if !condition(0.0) => sparse.find_stored(condition),
            other => other.visit(|start, elements| match first(elements, &condition) {
                Some(index) => ControlFlow::Break((start + index, elements[index])),
                None => ControlFlow::Continue(()),
            }),
        }
    }

    /// The number of elements that are zero, stored or not.
    pub fn zeros(&self) -> usize {
        let mut zeros = 0;
        let _: Option<()> = self.visit(|_, elements| {
            zeros += elements.iter().filter(|&&value| value == 0.0).count();
            ControlFlow::Continue(())
        });
        zeros
    }

    /// Shows all elements in row-major order, some at a time with the index of the first, until the visitor has what it
    /// wants.
    fn visit<T>(&self, mut visitor: impl FnMut(usize, &[f32]) -> ControlFlow<T>) -> Option<T> {
        match self {
            Self::F32(array) => {
                let array = array.as_standard_layout();
                let mut chunks = array.as_slice()?.chunks(CHUNK).enumerate();
                chunks.find_map(|(chunk, elements)| visitor(chunk * CHUNK, elements).break_value())
            }
            Self::F16(array) => {
                let array = array.as_standard_layout();
                let mut wide = [0.0; CHUNK];
                array.as_slice()?.chunks(CHUNK).enumerate().find_map(|(chunk, halves)| {
                    let wide = &mut wide[..halves.len()];
                    halves.convert_to_f32_slice(wide);
                    visitor(chunk * CHUNK, wide).break_value()
                })
            }
            packed => {
                let columns = packed.columns();
                let mut elements = vec![0.0; columns];
                (0..packed.rows()).find_map(|row| {
                    packed.decode_row(row, &mut elements);
                    visitor(row * columns, &elements).break_value()
                })
            }
        }
    }

    /// The same values in another format.
    ///
    /// Sparse formats store what is not zero, NaN and infinities included; the sign of a zero may be lost.
    /// Quantised formats take what they represent exactly: rounding is what their own constructors do.
    ///
    /// # Errors
    ///
    /// [`ConvertError`] if a value would change: rounding is a compressor's business, not a format's.
    /// NaN stays NaN, whatever its payload.
    pub fn convert(&self, format: Format) -> Result<Self, ConvertError> {
        if self.format() == format {
            return Ok(self.clone());
        }
        // Between relatives, parts are kept as they are.
        match (self, format) {
            (Self::F16(array), Format::ScaledF16) => {
                let scales = vec![1.0; self.rows()];
                let scaled = ScaledF16::from_f16(array.clone(), scales);
                let too_large = |array: ArrayD<f16>| {
                    let source = FormatError::Dims { dims: array.shape().to_vec() };
                    ConvertError::Tensor { format, source }
                };
                return scaled.map(Self::ScaledF16).map_err(too_large);
            }
            (Self::Csr(csr), Format::CsrF32) => return Ok(Self::Csr(csr.clone().with_full_values())),
            (Self::Csr(csr), Format::CsrF16) => return csr.clone().with_half_values().map(Self::Csr),
            (Self::Ternary(from), Format::Ternary2Bit) => {
                return Ok(Self::Ternary(from.repack(TernaryPacking::TwoBit)));
            }
            (Self::Ternary(from), Format::Ternary5In8) => {
                return Ok(Self::Ternary(from.repack(TernaryPacking::FiveInEight)));
            }
            (Self::Int4(from), Format::Int8) => return Ok(Self::Int8(from.to_int8())),
            (Self::Int8(from), Format::Int4) => {
                if let Some(int4) = Int4::from_int8(from) {
                    return Ok(Self::Int4(int4));
                }
            }
            _ => {}
        }
        let dense = self.to_f32();
        let standard = dense.as_standard_layout();
        let elements = standard.as_slice().expect("the standard layout is a slice");
        let dims = self.dims();
        match format {
            Format::DenseF32 => Ok(Self::F32(standard.into_owned())),
            Format::DenseF16 => match elements.iter().position(|&value| !is_half(value)) {
                Some(index) => Err(ConvertError::Value { index, value: elements[index], format }),
                None => Ok(Self::F16(standard.mapv(f16::from_f32))),
            },
            Format::ScaledF16 => ScaledF16::from_elements(dims, elements).map(Self::ScaledF16),
            Format::CsrF32 => Csr::from_elements(dims, elements, DType::F32).map(Self::Csr),
            Format::CsrF16 => Csr::from_elements(dims, elements, DType::F16).map(Self::Csr),
            Format::Bsr1x4 => Bsr::from_elements(dims, elements, [1, 4]).map(Self::Bsr),
            Format::Bsr4x1 => Bsr::from_elements(dims, elements, [4, 1]).map(Self::Bsr),
            Format::Bsr8x1 => Bsr::from_elements(dims, elements, [8, 1]).map(Self::Bsr),
            Format::Bsr16x1 => Bsr::from_elements(dims, elements, [16, 1]).map(Self::Bsr),
            Format::TwoFour => TwoFour::from_elements(dims, elements).map(Self::TwoFour),
            Format::Ternary2Bit => Ternary::from_elements(dims, elements, TernaryPacking::TwoBit).map(Self::Ternary),
            Format::Ternary5In8 => {
                Ternary::from_elements(dims, elements, TernaryPacking::FiveInEight).map(Self::Ternary)
            }
            Format::Int8 => Int8::from_elements(dims, elements).map(Self::Int8),
            Format::Int4 => Int4::from_elements(dims, elements).map(Self::Int4),
            Format::FilterCsr => FilterCsr::from_elements(dims, elements).map(Self::FilterCsr),
        }
    }

    /// Each row times its factor, as the folding of a batch-norm needs it.
    ///
    /// The format is kept: sparse formats scale what they store, ternary ones both magnitudes, scaled f16, int8 and int4
    /// their scales. It widens only where it must: f16 values to f32 if a product is not an f16, ternary, scaled f16, int8
    /// and int4 to dense f32 if a magnitude or scale would not be finite. Products are f32, rounded once.
    /// Sparse formats leave a zero that they do not store a zero, whatever its factor.
    ///
    /// # Panics
    ///
    /// If there is not one factor a row.
    #[must_use]
    pub fn scale_rows(self, factors: &[f32]) -> Self {
        assert_eq!(factors.len(), self.rows(), "factors, one a row");
        match self {
            Self::F32(array) => Self::F32(scale_dense(array, factors)),
            Self::F16(ref array) => {
                let scaled = Self::F32(scale_dense(widened(array), factors));
                scaled.convert(Format::DenseF16).unwrap_or(scaled)
            }
            Self::ScaledF16(scaled) => match scaled.scale_rows(factors) {
                Ok(scaled) => Self::ScaledF16(scaled),
                Err(scaled) => Self::F32(scale_dense(Self::ScaledF16(scaled).to_f32().into_owned(), factors)),
            },
            Self::Csr(csr) => Self::Csr(csr.scale_rows(factors)),
            Self::Bsr(bsr) => Self::Bsr(bsr.scale_rows(factors)),
            Self::TwoFour(packed) => Self::TwoFour(packed.scale_rows(factors)),
            Self::Ternary(ref ternary) => match ternary.scale_rows(factors) {
                Some(scaled) => Self::Ternary(scaled),
                None => Self::F32(scale_dense(self.to_f32().into_owned(), factors)),
            },
            Self::Int8(ref int8) => match int8.scale_rows(factors) {
                Some(scaled) => Self::Int8(scaled),
                None => Self::F32(scale_dense(self.to_f32().into_owned(), factors)),
            },
            Self::Int4(ref int4) => match int4.scale_rows(factors) {
                Some(scaled) => Self::Int4(scaled),
                None => Self::F32(scale_dense(self.to_f32().into_owned(), factors)),
            },
            Self::FilterCsr(sparse) => Self::FilterCsr(sparse.scale_rows(factors)),
        }
    }
}

/// Elements that are widened, or searched, at a time, by instructions that take several.
const CHUNK: usize = 1024;

/// Index of the first element that satisfies a condition. That there is none, as a rule, is found out without a branch
/// an element.
fn first(elements: &[f32], condition: impl Fn(f32) -> bool) -> Option<usize> {
    let any = elements.iter().fold(false, |any, &value| any | condition(value));
    if any { elements.iter().position(|&value| condition(value)) } else { None }
}

/// A tensor of f16 as f32.
fn widened(array: &ArrayD<f16>) -> ArrayD<f32> {
    let mut wide = ArrayD::zeros(array.shape());
    match (array.as_slice(), wide.as_slice_mut()) {
        (Some(halves), Some(wide)) => halves.convert_to_f32_slice(wide),
        _ => wide.iter_mut().zip(array).for_each(|(to, half)| *to = half.to_f32()),
    }
    wide
}

/// Each row of a dense tensor times its factor.
fn scale_dense(mut array: ArrayD<f32>, factors: &[f32]) -> ArrayD<f32> {
    for (mut row, factor) in array.outer_iter_mut().zip(factors) {
        row.map_inplace(|value| *value *= factor);
    }
    array
}

#[cfg(test)]
#[path = "weight_tests.rs"]
mod tests;
