//! Four bits an element.

use ndarray::ArrayD;

use crate::error::{check_finite, check_length};
use crate::extents::Extents;
use crate::scales;
use crate::{ConvertError, Format, FormatError, Int8};

/// Most steps of a value from zero. -8 is left out so that the range is symmetric.
const LEVELS: i8 = 7;

/// Weights that are a whole number, -7 to 7, of steps of their output channel's scale: [`Int8`] with half a
/// byte an element. Elements are in row-major order, two's complement, low nibble first; each row starts on a
/// byte, and the last nibble of an odd row is zero.
///
/// ```
/// use dlis_formats::Int4;
/// use ndarray::arr2;
///
/// let dense = arr2(&[[0.7, -0.1, 0.24]]).into_dyn();
/// let int4 = Int4::quantize(&dense, Int4::max_abs_scales(&dense))?;
/// assert_eq!(int4.packed(), [0xf7, 0x02]);
/// assert_eq!((0..3).map(|column| int4.step(0, column)).collect::<Vec<_>>(), [7, -1, 2]);
/// # Ok::<(), dlis_formats::FormatError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Int4 {
    extents: Extents,
    packed: Vec<u8>,
    scales: Vec<f32>,
}

impl Int4 {
    /// Of its parts: two elements a byte and a scale a row.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if a part has another length than the extents call for, a nibble is -8, the nibble
    /// after an odd row is not zero, or a scale is not finite.
    pub fn new(dims: Vec<usize>, packed: Vec<u8>, scales: Vec<f32>) -> Result<Self, FormatError> {
        let int4 = Self { extents: Extents::new(dims)?, packed, scales };
        check_length("packed", int4.packed.len(), int4.rows() * int4.row_bytes())?;
        check_length("scales", int4.scales.len(), int4.rows())?;
        check_finite("scales", &int4.scales)?;
        if let Some(index) = int4.packed.iter().position(|&byte| byte & 15 == 8 || byte >> 4 == 8) {
            let found = i32::from(int4.packed[index]);
            return Err(FormatError::Code { field: "packed", index, found, expected: "two nibbles of -7 to 7" });
        }
        if int4.columns() % 2 == 1 {
            let mut last = (int4.row_bytes() - 1..int4.packed.len()).step_by(int4.row_bytes());
            if let Some(index) = last.find(|&at| int4.packed[at] >> 4 != 0) {
                return Err(FormatError::Padding { field: "packed", index });
            }
        }
        Ok(int4)
    }

    /// The nearest to a dense tensor with these scales, one a row: rounded, ties to even, and clamped.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if there is not one finite scale a row, an element is not finite, or the tensor is too
    /// large.
    pub fn quantize(dense: &ArrayD<f32>, scales: Vec<f32>) -> Result<Self, FormatError> {
        let (extents, steps) = scales::quantize(dense, &scales, LEVELS)?;
        Ok(Self::pack(extents, &steps, scales))
    }

    /// The scale of each row of a dense tensor by which its largest magnitude is 7 steps; 1 for a row of
    /// zeros.
    pub fn max_abs_scales(dense: &ArrayD<f32>) -> Vec<f32> {
        scales::max_abs(dense, LEVELS)
    }

    pub(crate) fn from_elements(dims: &[usize], elements: &[f32]) -> Result<Self, ConvertError> {
        let (extents, steps, scales) = scales::exact(dims, elements, LEVELS, Format::Int4)?;
        Ok(Self::pack(extents, &steps, scales))
    }

    /// The same steps with half the bits, if they all fit.
    pub(crate) fn from_int8(int8: &Int8) -> Option<Self> {
        let fits = int8.values().iter().all(|value| (-LEVELS..=LEVELS).contains(value));
        fits.then(|| Self::pack(int8.extents().clone(), int8.values(), int8.scales().to_vec()))
    }

    /// The same steps with twice the bits.
    pub(crate) fn to_int8(&self) -> Int8 {
        let steps = (0..self.rows()).flat_map(|row| (0..self.columns()).map(move |column| self.step(row, column)));
        Int8::from_parts(self.extents.clone(), steps.collect(), self.scales.clone())
    }

    /// Packs steps of -7 to 7.
    fn pack(extents: Extents, steps: &[i8], scales: Vec<f32>) -> Self {
        let mut int4 = Self { extents, packed: Vec::new(), scales };
        let (columns, row_bytes) = (int4.columns(), int4.row_bytes());
        int4.packed = vec![0; int4.rows() * row_bytes];
        for (index, &step) in steps.iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            int4.packed[row * row_bytes + column / 2] |= (step.cast_unsigned() & 15) << (column % 2 * 4);
        }
        int4
    }

    /// The extents of the tensor, outermost first.
    pub fn dims(&self) -> &[usize] {
        self.extents.dims()
    }

    /// Output channels.
    pub fn rows(&self) -> usize {
        self.extents.rows()
    }

    /// Elements of one output channel.
    pub fn columns(&self) -> usize {
        self.extents.columns()
    }

    /// Two elements a byte, each row from a byte on.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// What a step stands for, in each row.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.columns().div_ceil(2)
    }

    /// One element, -7 to 7.
    ///
    /// # Panics
    ///
    /// If there is no such element.
    pub fn step(&self, row: usize, column: usize) -> i8 {
        let byte = self.packed[row * self.row_bytes() + column / 2];
        // Shifted to the top and back, so that the sign is extended.
        (byte << (4 - column % 2 * 4)).cast_signed() >> 4
    }

    /// Bytes of elements and scales.
    pub fn bytes(&self) -> usize {
        self.packed.len() + self.scales.len() * 4
    }

    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        for (column, out) in out.iter_mut().enumerate() {
            *out = f32::from(self.step(row, column)) * self.scales[row];
        }
    }

    /// Each row times a factor; `None` if a scale would not be finite.
    pub(crate) fn scale_rows(&self, factors: &[f32]) -> Option<Self> {
        let scales = scales::product(&self.scales, factors)?;
        Some(Self { scales, ..self.clone() })
    }
}
