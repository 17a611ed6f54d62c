//! Weights in the order in which `mma_conv.cl` copies them to local memory.

use crate::nvidia::tile::{Product, Tile};
use crate::precision::Precision;

/// Where the 16-byte part `part` of packed row `row` lies among the parts of its row: `SWIZZLE` of the kernel.
const fn swizzled(part: usize, row: usize, k_bytes: usize) -> usize {
    part ^ if k_bytes == 128 { row & 7 } else { (row >> 1) & 3 }
}

/// The channel that packed row `row` holds, of groups of `group`: those of a work-item's accumulators are consecutive.
const fn channel(row: usize, group: usize) -> usize {
    let (j, t, e) = (row % group / 8, row % 8 / 2, row % 2);
    row / group * group + t * (group / 4) + 2 * j + e
}

/// The nearest tf32, ties away from zero; NaN and infinities stay.
fn tf32(value: f32) -> f32 {
    let rounded = f32::from_bits(value.to_bits().wrapping_add(0x1000) & 0xffff_e000);
    if value.is_finite() { rounded } else { value }
}

/// Weights `[out, in, taps]` as `[tile of K][packed row][bytes of K]`, zeros where there are none.
pub(crate) fn pack(dense: &[f32], taps: usize, product: &Product, tile: &Tile, precision: Precision) -> Vec<u8> {
    let (channels, element) = (product.k / taps, product.element);
    let rows = tile.packed_columns(product);
    let group = if precision == Precision::F16 { 32 } else { 16 };
    let mut packed = vec![0; tile.depth(product) * rows * tile.k_bytes];
    for row in 0..rows {
        let out = channel(row, group);
        if out >= product.n {
            continue;
        }
        for k in 0..product.k {
            let value = dense[(out * channels + k % channels) * taps + k / channels];
            let byte = k * element;
            let (k_tile, byte) = (byte / tile.k_bytes, byte % tile.k_bytes);
            let part = swizzled(byte / 16, row, tile.k_bytes);
            let at = (k_tile * rows + row) * tile.k_bytes + part * 16 + byte % 16;
            let to = &mut packed[at..at + element];
            match precision {
                Precision::F16 => to.copy_from_slice(&half::f16::from_f32(value).to_ne_bytes()),
                Precision::Tf32 => to.copy_from_slice(&tf32(value).to_ne_bytes()),
                Precision::F32 => to.copy_from_slice(&value.to_ne_bytes()),
            }
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_permuted_within_groups() {
        for group in [16, 32] {
            let mut channels: Vec<usize> = (group..2 * group).map(|row| channel(row, group)).collect();
            channels.sort_unstable();
            assert!(channels.into_iter().eq(group..2 * group));
        }
        // Lane t's two accumulators of fragment j.
        assert_eq!([channel(6, 16), channel(7, 16), channel(14, 16), channel(15, 16)], [12, 13, 14, 15]);
    }

    #[test]
    fn tf32_rounds_to_nearest_and_keeps_what_is_not_finite() {
        let ulp = f32::EPSILON * 8192.0;
        assert_eq!(tf32(1.0 + 0.49 * ulp), 1.0);
        assert_eq!(tf32(-1.0 - 0.5 * ulp), -1.0 - ulp);
        assert!(tf32(f32::NAN).is_nan() && tf32(f32::NEG_INFINITY) == f32::NEG_INFINITY);
    }
}
