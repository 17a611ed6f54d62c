//! One sparse matrix a filter.

use ndarray::ArrayD;

use crate::error::check_length;
use crate::extents::{Extents, index32};
use crate::{ConvertError, Format, FormatError};

/// A compressed sparse matrix of its own for each filter of each pair of channels, as Turner et al.,
/// *Characterising Across-Stack Optimisations for Deep Convolutional Neural Networks*, IISWC 2018, store a
/// pruned network. A 3x3 filter takes 56 bytes before its first value, more than the 36 of the dense one:
/// the format is here to reproduce that result, not to be used.
///
/// A tensor of three or more extents has a filter for each combination of all but the last two, a matrix of
/// the last two. The tensor of a linear layer or of biases is one filter, its weight matrix.
///
/// ```
/// use dlis_formats::FilterCsr;
/// use ndarray::ArrayD;
///
/// let mut dense = ArrayD::zeros(vec![2, 1, 3, 3]);
/// dense[[1, 0, 2, 1]] = 4.0;
/// let sparse = FilterCsr::from_dense(&dense)?;
/// assert_eq!(sparse.filter(1).row_starts, [0, 0, 0, 1]);
/// assert_eq!((sparse.filter(1).columns, sparse.filter(1).values), (&[1][..], &[4.0][..]));
/// // Two filters with a header and four starts each, and one value with its column.
/// assert_eq!(sparse.bytes(), 2 * (40 + 4 * 4) + 8);
/// # Ok::<(), dlis_formats::ConvertError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FilterCsr {
    extents: Extents,
    headers: Vec<Header>,
    row_starts: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

/// What the C structure of a sparse matrix has: three numbers and three addresses, here places in the
/// arrays that all filters share.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Header {
    rows: u32,
    columns: u32,
    nonzeros: u32,
    first_row_start: u64,
    first_column: u64,
    first_value: u64,
}

const _: () = assert!(size_of::<Header>() == 40, "the structure of the paper");

/// The sparse matrix of one filter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filter<'a> {
    /// Where each row's values start, and where the last row's end.
    pub row_starts: &'a [u32],
    /// The column of each value.
    pub columns: &'a [u32],
    /// The values, row after row.
    pub values: &'a [f32],
}

/// Filters of a tensor, and rows and columns of each.
fn filters_of(extents: &Extents) -> [usize; 3] {
    match extents.dims() {
        [filters @ .., rows, columns] if !filters.is_empty() => [filters.iter().product(), *rows, *columns],
        _ => [1, extents.rows(), extents.columns()],
    }
}

impl FilterCsr {
    /// Of its parts: for each filter the starts of its rows, which begin at 0 in each filter, and the columns
    /// and values of all filters.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if the parts do not fit each other: starts that do not increase from 0 in each filter,
    /// columns that are out of range or do not strictly increase along a row, lengths that disagree.
    pub fn new(
        dims: Vec<usize>,
        row_starts: Vec<u32>,
        columns: Vec<u32>,
        values: Vec<f32>,
    ) -> Result<Self, FormatError> {
        let extents = Extents::new(dims)?;
        let [filters, rows, width] = filters_of(&extents);
        check_length("row_starts", row_starts.len(), filters * (rows + 1))?;
        check_length("columns", columns.len(), values.len())?;
        let mut headers = Vec::with_capacity(filters);
        let mut first = 0;
        for (filter, starts) in row_starts.chunks_exact(rows + 1).enumerate() {
            let wrong = |at: usize, expected| FormatError::RowStart {
                field: "row_starts",
                index: filter * (rows + 1) + at,
                found: starts[at],
                expected,
            };
            if starts[0] != 0 {
                return Err(wrong(0, "0"));
            }
            if let Some(at) = starts.windows(2).position(|pair| pair[0] > pair[1]) {
                return Err(wrong(at + 1, "at least the start before it"));
            }
            let nonzeros = starts[rows];
            if nonzeros as usize > values.len() - first {
                return Err(wrong(rows, "at most the values left"));
            }
            for pair in starts.windows(2) {
                let range = first + pair[0] as usize..first + pair[1] as usize;
                let mut least = 0;
                for index in range {
                    let found = columns[index];
                    if (found as usize) < least || found as usize >= width {
                        return Err(FormatError::Column { field: "columns", index, found, limit: width });
                    }
                    least = found as usize + 1;
                }
            }
            headers.push(Header {
                rows: index32(rows),
                columns: index32(width),
                nonzeros,
                first_row_start: (filter * (rows + 1)) as u64,
                first_column: first as u64,
                first_value: first as u64,
            });
            first += nonzeros as usize;
        }
        check_length("values", values.len(), first)?;
        Ok(Self { extents, headers, row_starts, columns, values })
    }

    /// The elements of a dense tensor that are not zero.
    ///
    /// # Errors
    ///
    /// [`ConvertError::Tensor`] if the tensor is too large.
    pub fn from_dense(dense: &ArrayD<f32>) -> Result<Self, ConvertError> {
        Self::from_elements(dense.shape(), &dense.as_standard_layout().into_iter().collect::<Vec<_>>())
    }

    pub(crate) fn from_elements(dims: &[usize], elements: &[f32]) -> Result<Self, ConvertError> {
        let tensor = |source| ConvertError::Tensor { format: Format::FilterCsr, source };
        let extents = Extents::new(dims.to_vec()).map_err(tensor)?;
        let [filters, rows, width] = filters_of(&extents);
        let (mut row_starts, mut columns, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for filter in 0..filters {
            let first = values.len();
            row_starts.push(0);
            for row in 0..rows {
                for (column, &value) in elements[(filter * rows + row) * width..][..width].iter().enumerate() {
                    if value != 0.0 {
                        columns.push(index32(column));
                        values.push(value);
                    }
                }
                row_starts.push(index32(values.len() - first));
            }
        }
        Self::new(dims.to_vec(), row_starts, columns, values).map_err(tensor)
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

    /// How many filters there are.
    pub fn filters(&self) -> usize {
        self.headers.len()
    }

    /// The filter `out * in + channel` of a convolution, the whole matrix of a linear layer.
    ///
    /// # Panics
    ///
    /// If there is no such filter.
    pub fn filter(&self, filter: usize) -> Filter<'_> {
        let header = &self.headers[filter];
        let part = |first: u64, count: usize| {
            let first = usize::try_from(first).expect("places of arrays in memory");
            first..first + count
        };
        Filter {
            row_starts: &self.row_starts[part(header.first_row_start, header.rows as usize + 1)],
            columns: &self.columns[part(header.first_column, header.nonzeros as usize)],
            values: &self.values[part(header.first_value, header.nonzeros as usize)],
        }
    }

    /// The starts of the rows of all filters, from 0 in each.
    pub fn row_starts(&self) -> &[u32] {
        &self.row_starts
    }

    /// The column of each value, within its filter.
    pub fn column_indices(&self) -> &[u32] {
        &self.columns
    }

    /// The values of all filters.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Bytes of a 40-byte header a filter, starts, columns and values.
    pub fn bytes(&self) -> usize {
        self.headers.len() * size_of::<Header>() + (self.row_starts.len() + self.columns.len() + self.values.len()) * 4
    }

    /// Row-major index and value of the first stored element that satisfies a condition.
    pub(crate) fn find_stored(&self, condition: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
        let [_, rows, width] = filters_of(&self.extents);
        (0..self.filters()).find_map(|at| {
            let filter = self.filter(at);
            let stored = filter.values.iter().position(|&value| condition(value))?;
            let row = filter.row_starts.partition_point(|&start| start as usize <= stored) - 1;
            Some(((at * rows + row) * width + filter.columns[stored] as usize, filter.values[stored]))
        })
    }

    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        let [_, rows, width] = filters_of(&self.extents);
        let mut write = |filter: Filter<'_>, row: usize, start: usize| {
            for at in filter.row_starts[row] as usize..filter.row_starts[row + 1] as usize {
                out[start + filter.columns[at] as usize] = filter.values[at];
            }
        };
        if self.dims().len() < 3 {
            return write(self.filter(0), row, 0);
        }
        let of_row = self.filters() / self.rows();
        for filter in 0..of_row {
            for y in 0..rows {
                write(self.filter(row * of_row + filter), y, (filter * rows + y) * width);
            }
        }
    }

    pub(crate) fn scale_rows(mut self, factors: &[f32]) -> Self {
        let mut first = 0;
        let of_row = self.filters() / self.rows().max(1);
        for (filter, header) in self.headers.iter().enumerate() {
            let starts = &self.row_starts[filter * (header.rows as usize + 1)..][..=header.rows as usize];
            for (y, pair) in starts.windows(2).enumerate() {
                let row = if self.extents.dims().len() < 3 { y } else { filter / of_row };
                let values = &mut self.values[first + pair[0] as usize..first + pair[1] as usize];
                values.iter_mut().for_each(|value| *value *= factors[row]);
            }
            first += header.nonzeros as usize;
        }
        self
    }
}
