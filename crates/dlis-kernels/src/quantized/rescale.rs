//! The arithmetic between two quantisations, one element at a time.

use dlis_formats::Quantization;
use dlis_model::Activation;

/// Adding it to a float of at most 2^22 leaves no bits for a fraction, so that the sum is rounded to a whole
/// number as all sums are, ties to even; and that many more than its own the sum's bits are then, as a number.
const WHOLE: f32 = 12_582_912.0;

/// The nearest float.
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
pub(super) fn narrow(x: f64) -> f32 {
    x as f32
}

/// What an element is multiplied with on its way from one quantisation to another.
pub(super) fn multiplier(from: Quantization, to: Quantization) -> f32 {
    narrow(f64::from(from.scale()) / f64::from(to.scale()))
}

/// How a result in units of the output's scale becomes a byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounding {
    /// Least result: where the activation or the byte ends.
    pub(crate) low: f32,
    /// Greatest result.
    pub(crate) high: f32,
    /// The byte that stands for 0.
    pub(crate) zero_point: i32,
    /// Least and greatest byte, four times, and the zero point, twice in 16 bits.
    pub(crate) packed: [i32; 3],
}

impl Rounding {
    /// Of results that go to `output` through `activation`, which is no sigmoid.
    ///
    /// Rounding keeps order and the ends of a byte are whole, so clamping first changes nothing; nor does it
    /// matter in which order bounds are applied.
    pub(super) fn new(output: Quantization, activation: Option<Activation>) -> Self {
        let zero_point = i32::from(output.zero_point());
        let (low, high) = (-f32::from(output.zero_point()), 255.0 - f32::from(output.zero_point()));
        let six = narrow(6.0 / f64::from(output.scale()));
        let (low, high) = match activation {
            Some(Activation::Relu) => (0.0, high),
            Some(Activation::Relu6) => (0.0, high.min(six)),
            None | Some(Activation::Sigmoid) => (low, high),
        };
        let mut rounding = Self { low, high, zero_point, packed: [0; 3] };
        let bytes = |byte: u8| i32::from_le_bytes([byte; 4]);
        rounding.packed = [bytes(rounding.round(low)), bytes(rounding.round(high)), zero_point << 16 | zero_point];
        rounding
    }

    /// `round(clamp(v)) + zero_point`, NaN counting as 0.
    #[inline(always)]
    pub(super) fn round(self, v: f32) -> u8 {
        let v = if v.is_nan() { 0.0 } else { v };
        let v = if v < self.low { self.low } else { v };
        let v = if v > self.high { self.high } else { v };
        let whole = (v + WHOLE).to_bits().wrapping_sub(WHOLE.to_bits()).cast_signed();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
        let byte = (whole + self.zero_point) as u8;
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_definition() {
        for zero_point in [0, 1, 100, 255] {
            let output = Quantization::new(0.05, zero_point).unwrap();
            for activation in [None, Some(Activation::Relu), Some(Activation::Relu6)] {
                let rounding = Rounding::new(output, activation);
                let ends = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, -0.0, 119.999_99, 120.5];
                for v in (-1200..1200).map(|i| i as f32 / 4.0).chain(ends) {
                    let active = match activation {
                        Some(Activation::Relu) => {
                            if v < 0.0 {
                                0.0
                            } else {
                                v
                            }
                        }
                        Some(Activation::Relu6) => {
                            let six = narrow(6.0 / f64::from(0.05_f32));
                            if v < 0.0 {
                                0.0
                            } else if v > six {
                                six
                            } else {
                                v
                            }
                        }
                        _ => v,
                    };
                    #[expect(clippy::cast_possible_truncation, reason = "saturates, as the definition wants")]
                    let whole = active.round_ties_even() as i32;
                    let expected = whole.saturating_add(i32::from(zero_point)).clamp(0, 255);
                    assert_eq!(i32::from(rounding.round(v)), expected, "{v} {activation:?} {zero_point}");
                }
            }
        }
    }
}
