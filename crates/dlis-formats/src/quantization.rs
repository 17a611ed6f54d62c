//! Affine quantisation of activations.

use serde::{Deserialize, Serialize};

use crate::FormatError;

/// What the bytes of a quantised tensor stand for: `real = (q - zero_point) * scale`, the affine mapping of
/// Jacob et al., *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
/// Inference*, CVPR 2018. The scale is finite and positive.
///
/// ```
/// use dlis_formats::Quantization;
///
/// let of = Quantization::from_range(-1.0, 3.0)?;
/// assert_eq!((of.scale(), of.zero_point()), (4.0 / 255.0, 64));
/// assert_eq!(of.quantize(0.0), of.zero_point());
/// assert_eq!(of.quantize(99.0), 255);
/// assert!((of.dequantize(of.quantize(1.7)) - 1.7).abs() <= of.scale() / 2.0);
/// # Ok::<(), dlis_formats::FormatError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(f32, u8)", into = "(f32, u8)")]
pub struct Quantization {
    scale: f32,
    zero_point: u8,
}

impl Quantization {
    /// Of a scale and the byte that stands for 0.
    ///
    /// # Errors
    ///
    /// [`FormatError::Number`] if the scale is not finite and positive.
    pub fn new(scale: f32, zero_point: u8) -> Result<Self, FormatError> {
        if scale.is_finite() && scale > 0.0 {
            return Ok(Self { scale, zero_point });
        }
        Err(FormatError::Number { field: "scale", index: 0, value: scale, expected: "a finite number above 0" })
    }

    /// The finest that reaches from `min` to `max`, widened to contain 0, which is then exact.
    ///
    /// # Errors
    ///
    /// [`FormatError::Number`] if an end is not finite. Ends the wrong way round are swapped.
    pub fn from_range(min: f32, max: f32) -> Result<Self, FormatError> {
        for (field, value) in [("min", min), ("max", max)] {
            if !value.is_finite() {
                return Err(FormatError::Number { field, index: 0, value, expected: "a finite number" });
            }
        }
        let (min, max) = (f64::from(min.min(max).min(0.0)), f64::from(max.max(min).max(0.0)));
        if min == max {
            return Self::new(1.0, 0);
        }
        #[expect(clippy::cast_possible_truncation, reason = "twice the largest f32 over 255 is an f32")]
        let scale = ((max - min) / 255.0) as f32;
        // A range of a few of the smallest numbers would else have a scale of zero.
        let scale = scale.max(f32::from_bits(1));
        let zero_point = (-min / f64::from(scale)).round_ties_even().clamp(0.0, 255.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
        Self::new(scale, zero_point as u8)
    }

    /// What one step stands for.
    pub const fn scale(self) -> f32 {
        self.scale
    }

    /// The byte that stands for 0.
    pub const fn zero_point(self) -> u8 {
        self.zero_point
    }

    /// `round(real / scale) + zero_point`, ties to even, clamped to a byte. NaN becomes the zero point.
    pub fn quantize(self, real: f32) -> u8 {
        if real.is_nan() {
            return self.zero_point;
        }
        let steps = (real / self.scale).round_ties_even() + f32::from(self.zero_point);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
        return steps.clamp(0.0, 255.0) as u8;
    }

    /// The real number that a byte stands for.
    pub fn dequantize(self, q: u8) -> f32 {
        f32::from(i16::from(q) - i16::from(self.zero_point)) * self.scale
    }
}

impl TryFrom<(f32, u8)> for Quantization {
    type Error = FormatError;

    fn try_from((scale, zero_point): (f32, u8)) -> Result<Self, FormatError> {
        Self::new(scale, zero_point)
    }
}

impl From<Quantization> for (f32, u8) {
    fn from(of: Quantization) -> Self {
        (of.scale, of.zero_point)
    }
}
