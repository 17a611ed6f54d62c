//! Random weights of a given sparsity that a format stores without loss.

use dlis_eval::stats::SplitMix64;
use dlis_formats::{ConvertError, Format, Weight};
use ndarray::{ArrayD, IxDyn};

/// The sparsities at which a format is worth measuring, of those asked for: formats that take the same time
/// and space whatever the zeros are measured once, as they are.
pub fn sparsities_of(format: Format, asked: &[f64]) -> Vec<f64> {
    match format {
        format if format.keeps_zeros() => vec![0.0],
        Format::TwoFour => vec![0.5],
        _ => asked.to_vec(),
    }
}

/// A random weight of these extents in this format, of which about a share of `sparsity` is zero.
///
/// Values are small multiples of powers of two, so that every format stores them exactly: no rounding makes
/// one format's zeros another's.
///
/// # Errors
///
/// If the format cannot store a weight of these extents.
pub(super) fn random_weight(format: Format, dims: &[usize], sparsity: f64, seed: u64) -> Result<Weight, ConvertError> {
    let rows = dims.first().copied().unwrap_or(1);
    let columns = dims.iter().skip(1).product::<usize>();
    let mut random = SplitMix64::new(seed);
    let mut values = vec![0.0_f32; rows * columns];
    let steps = |random: &mut SplitMix64, largest: u16| {
        let magnitude = 1 + u16::try_from(random.below(usize::from(largest))).unwrap_or(0);
        let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
        sign * f32::from(magnitude)
    };
    match format {
        Format::TwoFour => {
            // Groups are of four neighbouring input channels of one tap.
            let taps = dims.iter().skip(2).product::<usize>().max(1);
            let channels = dims.get(1).copied().unwrap_or(1);
            for row in 0..rows {
                for tap in 0..taps {
                    for first in (0..channels).step_by(4) {
                        let mut places: Vec<usize> = (first..channels.min(first + 4)).collect();
                        random.shuffle(&mut places);
                        for channel in places.into_iter().take(2) {
                            values[row * columns + channel * taps + tap] = steps(&mut random, 127) / 128.0;
                        }
                    }
                }
            }
        }
        Format::Int8 | Format::Int4 => {
            let largest = if format == Format::Int8 { 127 } else { 7 };
            for row in values.chunks_mut(columns.max(1)) {
                row.iter_mut().for_each(|value| *value = steps(&mut random, largest) / 128.0);
                // The largest step is there, so that the scale of the row is a power of two.
                row[0] = f32::from(largest) / 128.0;
            }
        }
        Format::Ternary2Bit | Format::Ternary5In8 => {
            let value = |random: &mut SplitMix64| if random.below(2) == 0 { 0.125 } else { -0.25 };
            fill(&mut values, [rows, columns], [1, 1], sparsity, &mut random, value);
        }
        _ => {
            let block = format.block().unwrap_or([1, 1]);
            fill(&mut values, [rows, columns], block, sparsity, &mut random, |random| steps(random, 127) / 128.0);
        }
    }
    let array = ArrayD::from_shape_vec(IxDyn(dims), values).unwrap_or_default();
    Weight::F32(array).convert(format)
}

/// Fills random blocks so that a share of `sparsity` of the blocks stays zero.
fn fill(
    values: &mut [f32],
    [rows, columns]: [usize; 2],
    [height, width]: [usize; 2],
    sparsity: f64,
    random: &mut SplitMix64,
    mut value: impl FnMut(&mut SplitMix64) -> f32,
) {
    let across = columns.div_ceil(width);
    let mut blocks: Vec<usize> = (0..rows.div_ceil(height) * across).collect();
    random.shuffle(&mut blocks);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    let kept = ((1.0 - sparsity.clamp(0.0, 1.0)) * blocks.len() as f64).round() as usize;
    for block in blocks.into_iter().take(kept) {
        let (top, left) = (block / across * height, block % across * width);
        for row in top..rows.min(top + height) {
            for column in left..columns.min(left + width) {
                values[row * columns + column] = value(random);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros(weight: &Weight) -> f64 {
        let values = weight.to_f32();
        values.iter().filter(|value| **value == 0.0).count() as f64 / values.len() as f64
    }

    #[test]
    fn every_format_takes_its_own_weights_with_the_sparsity_asked_for() {
        for format in Format::ALL {
            for dims in [&[32, 16, 3, 3][..], &[48, 64]] {
                for sparsity in sparsities_of(format, &[0.5, 0.9]) {
                    if format == Format::FilterCsr && dims.len() == 2 {
                        continue;
                    }
                    let weight = random_weight(format, dims, sparsity, 7).unwrap_or_else(|e| panic!("{format}: {e}"));
                    assert_eq!((weight.format(), weight.dims()), (format, dims));
                    assert!((zeros(&weight) - sparsity).abs() < 0.01, "{format} {dims:?}: {}", zeros(&weight));
                }
            }
        }
    }

    #[test]
    fn masks_follow_the_seed() {
        let weight = |seed| random_weight(Format::CsrF32, &[16, 16, 3, 3], 0.9, seed).unwrap();
        assert_eq!(weight(1), weight(1));
        assert_ne!(weight(1), weight(2));
    }
}
