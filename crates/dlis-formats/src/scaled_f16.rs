//! Two bytes an element and a scale a row.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use ndarray::ArrayD;

use crate::csr::is_half;
use crate::error::{check_finite, check_length};
use crate::extents::Extents;
use crate::scales;
use crate::{ConvertError, Format, FormatError};

/// Weights that are an f16 times their output channel's scale: what f16 weights become when a batch-norm is
/// folded into them (Jacob et al. 2018, section 3.2), half as large as the same in f32.
///
/// An element is `values[i] * scales[row]`, in f32. Values may be any f16, NaN and infinities among them; scales are
/// finite and of any sign.
///
/// ```
/// use dlis_formats::{Format, ScaledF16, Weight};
/// use ndarray::arr2;
///
/// let half = Weight::F32(arr2(&[[1.5, -0.25], [2.0, 0.0]]).into_dyn()).convert(Format::ScaledF16)?;
/// let folded = half.scale_rows(&[0.1, 3.0]);
/// assert_eq!(folded.to_f32().iter().copied().collect::<Vec<_>>(), [1.5 * 0.1, -0.25 * 0.1, 6.0, 0.0]);
/// assert_eq!(folded.bytes(), 4 * 2 + 2 * 4);
/// # Ok::<(), dlis_formats::ConvertError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ScaledF16 {
    extents: Extents,
    values: Vec<f16>,
    scales: Vec<f32>,
}

impl ScaledF16 {
    /// Of its parts: a value an element, in row-major order, and a scale a row.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if a part has another length than the extents call for, or a scale is not finite.
    pub fn new(dims: Vec<usize>, values: Vec<f16>, scales: Vec<f32>) -> Result<Self, FormatError> {
        let extents = Extents::new(dims)?;
        check_length("values", values.len(), extents.elements())?;
        check_length("scales", scales.len(), extents.rows())?;
        check_finite("scales", &scales)?;
        Ok(Self { extents, values, scales })
    }

    /// A tensor of f16 whose rows have these scales. Copies no element that is in row-major order.
    ///
    /// # Errors
    ///
    /// The tensor itself if there is not one finite scale a row, or it is too large.
    pub fn from_f16(array: ArrayD<f16>, scales: Vec<f32>) -> Result<Self, ArrayD<f16>> {
        let Ok(extents) = Extents::new(array.shape().to_vec()) else { return Err(array) };
        if scales.len() != extents.rows() || scales.iter().any(|scale| !scale.is_finite()) {
            return Err(array);
        }
        let values = match array.is_standard_layout() {
            true => array.into_raw_vec_and_offset(),
            false => (array.iter().copied().collect(), None),
        };
        let values = match values {
            (values, None | Some(0)) => values,
            (values, Some(offset)) => values.into_iter().skip(offset).take(extents.elements()).collect(),
        };
        Ok(Self { extents, values, scales })
    }

    /// Of elements that are f16 themselves: all scales are 1.
    pub(crate) fn from_elements(dims: &[usize], elements: &[f32]) -> Result<Self, ConvertError> {
        let format = Format::ScaledF16;
        if let Some(index) = elements.iter().position(|&value| !is_half(value)) {
            return Err(ConvertError::Value { index, value: elements[index], format });
        }
        let extents = Extents::new(dims.to_vec()).map_err(|source| ConvertError::Tensor { format, source })?;
        let scales = vec![1.0; extents.rows()];
        Ok(Self { extents, values: elements.iter().copied().map(f16::from_f32).collect(), scales })
    }

    /// The extents of the tensor, outermost first.
    pub fn dims(&self) -> &[usize] {
        self.extents.dims()
    }

    /// Each element before its row's scale, in row-major order.
    pub fn values(&self) -> &[f16] {
        &self.values
    }

    /// The scale of each row.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Bytes of values and scales.
    pub fn bytes(&self) -> usize {
        self.values.len() * 2 + self.scales.len() * 4
    }

    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        let columns = self.extents.columns();
        self.values[row * columns..][..columns].convert_to_f32_slice(out);
        out.iter_mut().for_each(|value| *value *= self.scales[row]);
    }

    /// Each row times a factor; itself unless all scales would be finite.
    pub(crate) fn scale_rows(self, factors: &[f32]) -> Result<Self, Self> {
        match scales::product(&self.scales, factors) {
            Some(scales) => Ok(Self { scales, ..self }),
            None => Err(self),
        }
    }
}
