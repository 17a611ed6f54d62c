//! Integer weights.

use dlis_formats::{FormatError, Int4, Int8, Weight};
use ndarray::ArrayD;

use crate::constraint::largest;

/// The weight in integers of so many bits: by its rows' largest magnitudes, or, if `search`, by the scales of the least
/// squared error.
pub(crate) fn integers(dense: &ArrayD<f32>, bits: u8, search: bool) -> Result<Weight, FormatError> {
    let scales = if bits == 4 { Int4::max_abs_scales(dense) } else { Int8::max_abs_scales(dense) };
    let scales = if search { scales_of_least_error(dense, scales, largest(bits)) } else { scales };
    Ok(if bits == 4 {
        Weight::Int4(Int4::quantize(dense, scales)?)
    } else {
        Weight::Int8(Int8::quantize(dense, scales)?)
    })
}

/// Per row the best of these scales times 0.4 to 1.
fn scales_of_least_error(dense: &ArrayD<f32>, scales: Vec<f32>, most: f64) -> Vec<f32> {
    let best = |(row, scale): (ndarray::ArrayViewD<'_, f32>, f32)| {
        let error = |scale: f32| {
            let step = f64::from(scale);
            let of = |&value: &f32| {
                let value = f64::from(value);
                let rounded = (value / step).round_ties_even().clamp(-most, most) * step;
                (value - rounded).powi(2)
            };
            row.iter().map(of).sum::<f64>()
        };
        let candidates = (20u8..=50).map(|part| scale * (f32::from(part) / 50.0)).filter(|&scale| scale > 0.0);
        let best = candidates.map(|scale| (scale, error(scale))).min_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or(scale, |(scale, _)| scale)
    };
    dense.outer_iter().zip(scales).map(best).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(dense: &ArrayD<f32>, weight: &Weight) -> f64 {
        dense.iter().zip(&weight.to_f32()).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }

    proptest! {
        #[test]
        fn values_are_at_most_half_a_step_off(values in proptest::collection::vec(-3f32..3.0, 4 * 18)) {
            let dense = ArrayD::from_shape_vec(vec![4, 2, 3, 3], values).unwrap();
            for bits in [4, 8] {
                let weight = integers(&dense, bits, false).unwrap();
                for (row, rounded) in dense.outer_iter().zip(weight.to_f32().outer_iter()) {
                    let step = row.iter().fold(0f32, |max, value| max.max(value.abs())) / if bits == 8 { 127.0 } else { 7.0 };
                    prop_assert!(row.iter().zip(rounded).all(|(a, b)| (a - b).abs() <= step * 0.5001));
                }
                prop_assert!(error(&dense, &integers(&dense, bits, true).unwrap()) <= error(&dense, &weight) * 1.001 + 1e-9);
            }
        }
    }

    #[test]
    fn searching_helps_where_one_weight_is_far_out() {
        let mut values = vec![0.1f32; 64];
        for (index, value) in values.iter_mut().enumerate() {
            *value *= (index % 7) as f32;
        }
        values[0] = 1.2;
        let dense = ArrayD::from_shape_vec(vec![1, 64], values).unwrap();
        let plain = error(&dense, &integers(&dense, 4, false).unwrap());
        assert!(error(&dense, &integers(&dense, 4, true).unwrap()) < 0.9 * plain);
    }
}
