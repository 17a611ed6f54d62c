//! Columns and values of the sparse formats, in the width that they need.

use half::f16;

use crate::extents::index32;
use crate::{DType, FormatError};

/// Columns of stored values: 16 bits each where every column fits, else 32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Indices {
    /// Of tensors of at most 65,536 columns.
    U16(Vec<u16>),
    /// Of tensors of more columns.
    U32(Vec<u32>),
}

impl Indices {
    /// None yet, in the width that `limit` columns need.
    pub fn for_columns(limit: usize) -> Self {
        if limit <= 1 << 16 { Self::U16(Vec::new()) } else { Self::U32(Vec::new()) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::U16(indices) => indices.len(),
            Self::U32(indices) => indices.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bits of one index: 16 or 32.
    pub const fn bits(&self) -> u32 {
        match self {
            Self::U16(_) => 16,
            Self::U32(_) => 32,
        }
    }

    /// Bytes of all indices.
    pub fn bytes(&self) -> usize {
        self.len() * self.bits() as usize / 8
    }

    /// One index.
    ///
    /// # Panics
    ///
    /// If there is none at `at`.
    pub fn get(&self, at: usize) -> usize {
        match self {
            Self::U16(indices) => usize::from(indices[at]),
            Self::U32(indices) => indices[at] as usize,
        }
    }

    /// Adds a column, which is below the limit that the width was chosen for.
    pub(crate) fn push(&mut self, column: usize) {
        match self {
            Self::U16(indices) => indices.push(u16::try_from(column).expect("a column below 65,536")),
            Self::U32(indices) => indices.push(index32(column)),
        }
    }
}

/// Values that are not zero, in one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// As f32.
    F32(Vec<f32>),
    /// As f16.
    F16(Vec<f16>),
}

impl Values {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of each.
    pub const fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
        }
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype().bytes()
    }

    /// One value.
    ///
    /// # Panics
    ///
    /// If there is none at `at`.
    pub fn get(&self, at: usize) -> f32 {
        match self {
            Self::F32(values) => values[at],
            Self::F16(values) => values[at].to_f32(),
        }
    }
}

/// That `starts` are the `rows + 1` starts of rows of `total` elements.
pub(crate) fn check_row_starts(
    field: &'static str,
    starts: &[u32],
    rows: usize,
    total: usize,
) -> Result<(), FormatError> {
    crate::error::check_length(field, starts.len(), rows + 1)?;
    let wrong = |index: usize, expected| FormatError::RowStart { field, index, found: starts[index], expected };
    if starts[0] != 0 {
        return Err(wrong(0, "0"));
    }
    if let Some(index) = starts.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(wrong(index + 1, "at least the start before it"));
    }
    if starts[rows] as usize != total {
        return Err(wrong(rows, "the number of values"));
    }
    Ok(())
}

/// That `columns` are below `limit`, increase along each row of checked `starts`, and are of the width
/// that `limit` needs.
pub(crate) fn check_columns(
    field: &'static str,
    starts: &[u32],
    columns: &Indices,
    limit: usize,
) -> Result<(), FormatError> {
    let expected = Indices::for_columns(limit).bits();
    if columns.bits() != expected {
        return Err(FormatError::IndexWidth { field, found: columns.bits(), expected, limit });
    }
    for pair in starts.windows(2) {
        let mut least = 0;
        for index in pair[0] as usize..pair[1] as usize {
            let column = columns.get(index);
            if column < least || column >= limit {
                return Err(FormatError::Column { field, index, found: index32(column), limit });
            }
            least = column + 1;
        }
    }
    Ok(())
}
