//! Compressed sparse blocks.

use ndarray::ArrayD;

use crate::extents::{Extents, index32};
use crate::indices::{check_columns, check_row_starts};
use crate::{ConvertError, Format, FormatError, Indices};

/// The blocks of the weight matrix that are not all zero, each in row-major order, and their block columns:
/// compressed sparse rows of small dense blocks, which vector units execute without gathering (Gray et al.,
/// *GPU Kernels for Block-Sparse Weights*, 2017; Elsen et al., *Fast Sparse `ConvNets`*, CVPR 2020, for blocks
/// of output channels).
///
/// The matrix is that of [`Csr`](crate::Csr). A block of `[4, 1]` is 4 output channels of one column, one of `[1, 4]` is 4
/// consecutive columns of one output channel. Where a block reaches over the edge of the matrix, the
/// elements outside are stored as zeros.
///
/// ```
/// use dlis_formats::Bsr;
/// use ndarray::ArrayD;
///
/// let mut dense = ArrayD::zeros(vec![8, 3, 3, 3]);
/// dense[[5, 0, 1, 1]] = 1.0;
/// let bsr = Bsr::from_dense(&dense, [4, 1])?;
/// assert_eq!(bsr.block_row_starts(), [0, 0, 1]);
/// assert_eq!(bsr.block_columns().get(0), 4);
/// assert_eq!(bsr.values(), [0.0, 1.0, 0.0, 0.0]);
/// # Ok::<(), dlis_formats::ConvertError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Bsr {
    extents: Extents,
    block: [usize; 2],
    block_row_starts: Vec<u32>,
    block_columns: Indices,
    values: Vec<f32>,
}

/// The format whose blocks are of this shape.
fn format_of(block: [usize; 2]) -> Option<Format> {
    Format::ALL.into_iter().find(|format| format.block() == Some(block))
}

impl Bsr {
    /// Of its parts: a start for each row of blocks and one more, the block column of each block (of 16 bits
    /// if and only if there are at most 65,536 block columns), and the elements of each block.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if the block's shape is none of a [`Format`], if starts do not increase from 0 to the
    /// number of blocks, if block columns are out of range or do not strictly increase along a row, or if an
    /// element outside of the matrix is not zero.
    pub fn new(
        dims: Vec<usize>,
        block: [usize; 2],
        block_row_starts: Vec<u32>,
        block_columns: Indices,
        values: Vec<f32>,
    ) -> Result<Self, FormatError> {
        let extents = Extents::new(dims)?;
        format_of(block).ok_or(FormatError::Block { found: block })?;
        let bsr = Self { extents, block, block_row_starts, block_columns, values };
        let blocks = bsr.block_columns.len();
        check_row_starts("block_row_starts", &bsr.block_row_starts, bsr.block_rows(), blocks)?;
        let limit = bsr.columns().div_ceil(block[1]);
        check_columns("block_columns", &bsr.block_row_starts, &bsr.block_columns, limit)?;
        // Distinct blocks of a bounded matrix: the product cannot overflow.
        crate::error::check_length("values", bsr.values.len(), blocks * block[0] * block[1])?;
        for block_row in 0..bsr.block_rows() {
            for (at, row, column) in bsr.places(block_row) {
                if (row >= bsr.rows() || column >= bsr.columns()) && bsr.values[at] != 0.0 {
                    return Err(FormatError::Padding { field: "values", index: at });
                }
            }
        }
        Ok(bsr)
    }

    /// The blocks of a dense tensor that have an element that is not zero.
    ///
    /// # Errors
    ///
    /// [`ConvertError`] if no format has blocks of this shape or the tensor is too large.
    pub fn from_dense(dense: &ArrayD<f32>, block: [usize; 2]) -> Result<Self, ConvertError> {
        Self::from_elements(dense.shape(), &dense.as_standard_layout().into_iter().collect::<Vec<_>>(), block)
    }

    pub(crate) fn from_elements(dims: &[usize], elements: &[f32], block: [usize; 2]) -> Result<Self, ConvertError> {
        let Some(format) = format_of(block) else {
            let source = FormatError::Block { found: block };
            return Err(ConvertError::Tensor { format: Format::Bsr1x4, source });
        };
        let extents = Extents::new(dims.to_vec()).map_err(|source| ConvertError::Tensor { format, source })?;
        let (rows, columns) = (extents.rows(), extents.columns());
        let across = columns.div_ceil(block[1]);
        let mut block_row_starts = vec![0];
        let (mut block_columns, mut values) = (Indices::for_columns(across), Vec::new());
        for top in (0..rows).step_by(block[0]) {
            for block_column in 0..across {
                let left = block_column * block[1];
                let start = values.len();
                for row in top..top + block[0] {
                    for column in left..left + block[1] {
                        let inside = row < rows && column < columns;
                        values.push(if inside { elements[row * columns + column] } else { 0.0 });
                    }
                }
                if values[start..].iter().all(|&value| value == 0.0) {
                    values.truncate(start);
                } else {
                    block_columns.push(block_column);
                }
            }
            block_row_starts.push(index32(block_columns.len()));
        }
        Ok(Self { extents, block, block_row_starts, block_columns, values })
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

    /// Rows and columns of a block.
    pub fn block(&self) -> [usize; 2] {
        self.block
    }

    /// The format, which the block's shape tells.
    pub fn format(&self) -> Format {
        format_of(self.block).expect("the shape was checked")
    }

    /// Rows of blocks.
    pub fn block_rows(&self) -> usize {
        self.rows().div_ceil(self.block[0])
    }

    /// Where the blocks of each row of blocks start, and where the last row's end: `block_rows + 1` numbers.
    pub fn block_row_starts(&self) -> &[u32] {
        &self.block_row_starts
    }

    /// The block column of each block: its first column divided by the block's columns.
    pub fn block_columns(&self) -> &Indices {
        &self.block_columns
    }

    /// The elements, block after block, each block in row-major order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Bytes of starts, columns and values.
    pub fn bytes(&self) -> usize {
        self.block_row_starts.len() * 4 + self.block_columns.bytes() + self.values.len() * 4
    }

    /// Index into the values, row and column of each stored element of a row of blocks; rows and columns of
    /// padding lie outside of the matrix.
    fn places(&self, block_row: usize) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let [height, width] = self.block;
        let blocks = self.block_row_starts[block_row] as usize..self.block_row_starts[block_row + 1] as usize;
        blocks.flat_map(move |at| {
            let left = self.block_columns.get(at) * width;
            (0..height * width).map(move |element| {
                let (row, column) = (block_row * height + element / width, left + element % width);
                (at * height * width + element, row, column)
            })
        })
    }

    /// Row-major index and value of the first stored element that satisfies a condition, which 0 does not.
    pub(crate) fn find_stored(&self, condition: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
        (0..self.block_rows()).find_map(|block_row| {
            let found = self.places(block_row).filter(|&(at, ..)| condition(self.values[at]));
            found
                .map(|(at, row, column)| (row * self.columns() + column, self.values[at]))
                .min_by_key(|&(index, _)| index)
        })
    }

    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        let [height, width] = self.block;
        let block_row = row / height;
        for at in self.block_row_starts[block_row] as usize..self.block_row_starts[block_row + 1] as usize {
            let values = &self.values[(at * height + row % height) * width..][..width];
            let out = &mut out[self.block_columns.get(at) * width..];
            // What is left of the row may be shorter than the block.
            out.iter_mut().zip(values).for_each(|(out, &value)| *out = value);
        }
    }

    pub(crate) fn scale_rows(mut self, factors: &[f32]) -> Self {
        for block_row in 0..self.block_rows() {
            let places: Vec<_> = self.places(block_row).filter(|&(_, row, _)| row < factors.len()).collect();
            for (at, row, column) in places {
                if column < self.columns() {
                    self.values[at] *= factors[row];
                }
            }
        }
        self
    }
}
