//! A byte an element.

use ndarray::ArrayD;

use crate::error::{check_finite, check_length};
use crate::extents::Extents;
use crate::scales;
use crate::{ConvertError, Format, FormatError};

/// Most steps of a value from zero. -128 is left out so that the range is symmetric.
const LEVELS: i8 = 127;

/// Weights that are a whole number, -127 to 127, of steps of their output channel's scale: symmetric
/// quantisation by channel (Krishnamoorthi, *Quantizing deep convolutional networks for efficient inference*,
/// 2018). An element is `values[i] * scales[row]`, in f32. Scales are finite and of any sign.
///
/// ```
/// use dlis_formats::Int8;
/// use ndarray::arr2;
///
/// let dense = arr2(&[[1.27, -0.4, 0.004], [2.54, 0.0, 0.0]]).into_dyn();
/// let int8 = Int8::quantize(&dense, Int8::max_abs_scales(&dense))?;
/// assert_eq!(int8.values(), [127, -40, 0, 127, 0, 0]);
/// assert_eq!(int8.bytes(), 6 + 2 * 4);
/// # Ok::<(), dlis_formats::FormatError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Int8 {
    extents: Extents,
    values: Vec<i8>,
    scales: Vec<f32>,
}

impl Int8 {
    /// Of its parts: a value an element and a scale a row.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if a part has another length than the extents call for, a value is -128, or a scale is
    /// not finite.
    pub fn new(dims: Vec<usize>, values: Vec<i8>, scales: Vec<f32>) -> Result<Self, FormatError> {
        let extents = Extents::new(dims)?;
        check_length("values", values.len(), extents.elements())?;
        check_length("scales", scales.len(), extents.rows())?;
        check_finite("scales", &scales)?;
        if let Some(index) = values.iter().position(|&value| value < -LEVELS) {
            let found = i32::from(values[index]);
            return Err(FormatError::Code { field: "values", index, found, expected: "-127 to 127" });
        }
        Ok(Self { extents, values, scales })
    }

    /// The nearest to a dense tensor with these scales, one a row: rounded, ties to even, and clamped.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if there is not one finite scale a row, an element is not finite, or the tensor is too
    /// large.
    pub fn quantize(dense: &ArrayD<f32>, scales: Vec<f32>) -> Result<Self, FormatError> {
        let (extents, values) = scales::quantize(dense, &scales, LEVELS)?;
        Ok(Self { extents, values, scales })
    }

    /// The scale of each row of a dense tensor by which its largest magnitude is 127 steps; 1 for a row of
    /// zeros.
    pub fn max_abs_scales(dense: &ArrayD<f32>) -> Vec<f32> {
        scales::max_abs(dense, LEVELS)
    }

    pub(crate) fn from_elements(dims: &[usize], elements: &[f32]) -> Result<Self, ConvertError> {
        let (extents, values, scales) = scales::exact(dims, elements, LEVELS, Format::Int8)?;
        Ok(Self { extents, values, scales })
    }

    /// Of parts that are known to fit.
    pub(crate) fn from_parts(extents: Extents, values: Vec<i8>, scales: Vec<f32>) -> Self {
        Self { extents, values, scales }
    }

    pub(crate) fn extents(&self) -> &Extents {
        &self.extents
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

    /// Steps of each element, in row-major order.
    pub fn values(&self) -> &[i8] {
        &self.values
    }

    /// What a step stands for, in each row.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Bytes of values and scales.
    pub fn bytes(&self) -> usize {
        self.values.len() + self.scales.len() * 4
    }

    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        let values = &self.values[row * self.columns()..];
        out.iter_mut().zip(values).for_each(|(out, &value)| *out = f32::from(value) * self.scales[row]);
    }

    /// Each row times a factor; `None` if a scale would not be finite.
    pub(crate) fn scale_rows(&self, factors: &[f32]) -> Option<Self> {
        let scales = scales::product(&self.scales, factors)?;
        Some(Self { scales, ..self.clone() })
    }
}
