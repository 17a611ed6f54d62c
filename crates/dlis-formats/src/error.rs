//! What can be wrong with the parts of a weight, or with its conversion.

use crate::Format;

/// Parts that do not make a weight.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Extents that a packed format cannot have.
    #[error("`dims` {dims:?}: expected at least one extent and at most {} elements", crate::MAX_ELEMENTS)]
    Dims {
        /// The extents given.
        dims: Vec<usize>,
    },
    /// A part of another length than the extents call for.
    #[error("`{field}` has {found} elements, expected {expected}")]
    Length {
        /// The part.
        field: &'static str,
        /// Elements expected.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// Starts of rows that do not begin at 0, decrease, or do not end where the values do.
    #[error("`{field}`[{index}] is {found}, expected {expected}")]
    RowStart {
        /// The part.
        field: &'static str,
        /// Index of the first wrong start.
        index: usize,
        /// The start found.
        found: u32,
        /// What it should be.
        expected: &'static str,
    },
    /// A column beyond the last, or not after the one before it in its row.
    #[error("`{field}`[{index}] is {found}, expected columns below {limit}, increasing along a row")]
    Column {
        /// The part.
        field: &'static str,
        /// Index of the first wrong column.
        index: usize,
        /// The column found.
        found: u32,
        /// Columns there are.
        limit: usize,
    },
    /// Columns of a type wider or narrower than needed.
    #[error("`{field}` are of {found} bits, expected {expected} bits for {limit} columns")]
    IndexWidth {
        /// The part.
        field: &'static str,
        /// Bits of an index found.
        found: u32,
        /// Bits of an index expected.
        expected: u32,
        /// Columns there are.
        limit: usize,
    },
    /// A block of a shape that no format has.
    #[error("`block` is {}x{}, expected 1x4, 4x1, 8x1 or 16x1", found[0], found[1])]
    Block {
        /// Rows and columns of a block.
        found: [usize; 2],
    },
    /// A code that stands for no value.
    #[error("`{field}`[{index}] is {found}, expected {expected}")]
    Code {
        /// The part.
        field: &'static str,
        /// Index of the first such element of the part.
        index: usize,
        /// The code found.
        found: i32,
        /// The codes there are.
        expected: &'static str,
    },
    /// A part of the padding that is not zero.
    #[error("`{field}`[{index}]: expected zeros where nothing of the tensor is stored")]
    Padding {
        /// The part.
        field: &'static str,
        /// Index of the first element of the part that holds something.
        index: usize,
    },
    /// NaN or an infinity, or (a quantisation's scale) not positive.
    #[error("`{field}`[{index}] is {value}, expected {expected}")]
    Number {
        /// The part.
        field: &'static str,
        /// Index of the first such number.
        index: usize,
        /// The number.
        value: f32,
        /// The numbers allowed.
        expected: &'static str,
    },
}

/// A conversion that would change a value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A value that the format does not have.
    #[error("element {index} is {value}, which {format} cannot represent exactly")]
    Value {
        /// Row-major index of the first element that would change.
        index: usize,
        /// Its value.
        value: f32,
        /// The format asked for.
        format: Format,
    },
    /// A tensor that the format has no form for, whatever its values.
    #[error("{format}: {source}")]
    Tensor {
        /// The format asked for.
        format: Format,
        /// Why not.
        source: FormatError,
    },
}

/// That a part has the length it should have.
pub(crate) fn check_length(field: &'static str, found: usize, expected: usize) -> Result<(), FormatError> {
    if found == expected { Ok(()) } else { Err(FormatError::Length { field, expected, found }) }
}

/// That factors, scales or magnitudes are finite.
pub(crate) fn check_finite(field: &'static str, values: &[f32]) -> Result<(), FormatError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(FormatError::Number { field, index, value: values[index], expected: "a finite number" }),
        None => Ok(()),
    }
}
