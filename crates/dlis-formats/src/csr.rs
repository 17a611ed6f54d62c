//! Compressed sparse rows.

use half::f16;
use ndarray::ArrayD;

use crate::extents::{Extents, index32};
use crate::indices::{check_columns, check_row_starts};
use crate::{ConvertError, DType, Format, FormatError, Indices, Values};

/// The values of each output channel that are not zero, and their columns: the format in which Han et al.,
/// *Learning both Weights and Connections for Efficient Neural Networks*, NIPS 2015, and Turner et al.
/// 2018 store pruned weights.
///
/// Rows are output channels; columns run over the rest of the tensor in row-major order, `[in / groups]
/// [height][width]` for a convolution, so `column = (channel * height + y) * width + x`. A value may be
/// any number, a stored zero, NaN and infinities among them.
///
/// ```
/// use dlis_formats::{Csr, DType};
/// use ndarray::arr2;
///
/// let dense = arr2(&[[0.0, 2.0, 0.0, -1.0], [0.0; 4]]).into_dyn();
/// let csr = Csr::from_dense(&dense, DType::F16)?;
/// assert_eq!(csr.row_starts(), [0, 2, 2]);
/// assert_eq!(csr.row(0).collect::<Vec<_>>(), [(1, 2.0), (3, -1.0)]);
/// // Three starts of 4 bytes, two columns and two values of 2.
/// assert_eq!(csr.bytes(), 3 * 4 + 2 * (2 + 2));
/// # Ok::<(), dlis_formats::ConvertError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Csr {
    extents: Extents,
    row_starts: Vec<u32>,
    columns: Indices,
    values: Values,
}

impl Csr {
    /// Of its parts: `rows + 1` starts into `columns` and `values`, and for each value its column, of 16
    /// bits if and only if there are at most 65,536 columns.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if the parts do not fit each other: starts that do not increase from 0 to the number
    /// of values, columns that are out of range or do not strictly increase along a row.
    pub fn new(dims: Vec<usize>, row_starts: Vec<u32>, columns: Indices, values: Values) -> Result<Self, FormatError> {
        let extents = Extents::new(dims)?;
        check_row_starts("row_starts", &row_starts, extents.rows(), values.len())?;
        crate::error::check_length("columns", columns.len(), values.len())?;
        check_columns("columns", &row_starts, &columns, extents.columns())?;
        Ok(Self { extents, row_starts, columns, values })
    }

    /// The elements of a dense tensor that are not zero.
    ///
    /// # Errors
    ///
    /// [`ConvertError`] if `values` is [`DType::F16`] and an element is not one, or if `values` is no type
    /// of real numbers.
    pub fn from_dense(dense: &ArrayD<f32>, values: DType) -> Result<Self, ConvertError> {
        Self::from_elements(dense.shape(), &dense.as_standard_layout().into_iter().collect::<Vec<_>>(), values)
    }

    pub(crate) fn from_elements(dims: &[usize], elements: &[f32], dtype: DType) -> Result<Self, ConvertError> {
        let half = dtype == DType::F16;
        let format = if half { Format::CsrF16 } else { Format::CsrF32 };
        let extents = Extents::new(dims.to_vec()).map_err(|source| ConvertError::Tensor { format, source })?;
        let width = extents.columns();
        let mut row_starts = Vec::with_capacity(extents.rows() + 1);
        row_starts.push(0);
        let (mut columns, mut values) = (Indices::for_columns(width), Vec::new());
        for row in 0..extents.rows() {
            for (column, &value) in elements[row * width..][..width].iter().enumerate() {
                if value != 0.0 {
                    columns.push(column);
                    values.push(value);
                }
            }
            row_starts.push(index32(values.len()));
        }
        let csr = Self { extents, row_starts, columns, values: Values::F32(values) };
        if half { csr.with_half_values() } else { Ok(csr) }
    }

    /// The same values as f16.
    pub(crate) fn with_half_values(self) -> Result<Self, ConvertError> {
        let Values::F32(values) = &self.values else { return Ok(self) };
        if let Some(at) = values.iter().position(|&value| !is_half(value)) {
            let row = self.row_starts.partition_point(|&start| start as usize <= at) - 1;
            let index = row * self.columns() + self.columns.get(at);
            return Err(ConvertError::Value { index, value: values[at], format: Format::CsrF16 });
        }
        let values = Values::F16(values.iter().copied().map(f16::from_f32).collect());
        Ok(Self { values, ..self })
    }

    /// The same values as f32.
    pub(crate) fn with_full_values(self) -> Self {
        let values = (0..self.values.len()).map(|at| self.values.get(at)).collect();
        Self { values: Values::F32(values), ..self }
    }

    /// The extents of the tensor, outermost first.
    pub fn dims(&self) -> &[usize] {
        self.extents.dims()
    }

    /// Output channels.
    pub fn rows(&self) -> usize {
        self.extents.rows()
    }

    /// Elements of one output channel, zeros included.
    pub fn columns(&self) -> usize {
        self.extents.columns()
    }

    /// Where each row's values start, and where the last row's end: `rows + 1` numbers.
    pub fn row_starts(&self) -> &[u32] {
        &self.row_starts
    }

    /// The column of each value.
    pub fn column_indices(&self) -> &Indices {
        &self.columns
    }

    /// The values, row after row.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Columns and values of one row, columns increasing.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn row(&self, row: usize) -> impl ExactSizeIterator<Item = (usize, f32)> + '_ {
        let range = self.row_starts[row] as usize..self.row_starts[row + 1] as usize;
        range.map(|at| (self.columns.get(at), self.values.get(at)))
    }

    /// Bytes of starts, columns and values.
    pub fn bytes(&self) -> usize {
        self.row_starts.len() * 4 + self.columns.bytes() + self.values.bytes()
    }

    /// Row-major index and value of the first stored element that satisfies a condition.
    pub(crate) fn find_stored(&self, condition: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
        (0..self.rows()).find_map(|row| {
            let (column, value) = self.row(row).find(|&(_, value)| condition(value))?;
            Some((row * self.columns() + column, value))
        })
    }

    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        self.row(row).for_each(|(column, value)| out[column] = value);
    }

    /// Each row times a factor; f16 values become f32 unless every product is an f16.
    pub(crate) fn scale_rows(self, factors: &[f32]) -> Self {
        let half = self.values.dtype() == DType::F16;
        let rows = self.rows();
        let Self { extents, row_starts, columns, values: Values::F32(mut values) } = self.with_full_values() else {
            unreachable!("with_full_values gives f32")
        };
        for (row, factor) in (0..rows).zip(factors) {
            values[row_starts[row] as usize..row_starts[row + 1] as usize]
                .iter_mut()
                .for_each(|value| *value *= factor);
        }
        let scaled = Self { extents, row_starts, columns, values: Values::F32(values) };
        if half { scaled.clone().with_half_values().unwrap_or(scaled) } else { scaled }
    }
}

/// Whether f16 has this value; NaN is one whatever its payload.
pub(crate) fn is_half(value: f32) -> bool {
    f16::from_f32(value).to_f32() == value || value.is_nan()
}
