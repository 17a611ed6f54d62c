//! What one work-group does between two barriers, as `persistent.cl` reads it.

use bytemuck::{Pod, Zeroable};

/// [`Job::kind`]: a product of matrices.
pub(super) const PRODUCT: i32 = 0;
/// [`Job::kind`]: a window without one, for a range of elements of the output.
pub(super) const WINDOW: i32 = 1;
/// [`Job::kind`]: nothing, for a work-group that only waits for the others.
pub(super) const NOTHING: i32 = 2;

/// [`Job::flags`]: every work-group must have come here before this job starts.
pub(super) const BARRIER: i32 = 1;
/// [`Job::flags`]: the tile's first channels.
pub(super) const FIRST: i32 = 2;
/// [`Job::flags`]: the tile's last channels: its result is stored.
pub(super) const LAST: i32 = 4;
/// [`Job::flags`]: the elements of the source are fetched one by one.
pub(super) const SCALAR: i32 = 8;
/// [`Job::flags`]: the left operand has no more than eight rows.
pub(super) const EIGHT_ROWS: i32 = 16;

/// [`Job::flags`] of the memories that the source, the residual and the output lie in.
pub(super) fn memories(source: u8, residual: u8, output: u8) -> i32 {
    i32::from(source) << 8 | i32::from(residual) << 11 | i32::from(output) << 14
}

/// [`Job::before`]: a depthwise convolution makes the left operand.
pub(super) const BEFORE_DEPTHWISE: i32 = 1;
/// [`Job::before`]: the mean of the pixels makes the left operand.
pub(super) const BEFORE_MEAN: i32 = 2;

/// [`Job::before`] of a [`WINDOW`].
pub(super) const WINDOW_MAX: i32 = 0;
/// As [`WINDOW_MAX`]; the padding counts.
pub(super) const WINDOW_MEAN: i32 = 1;
/// As [`WINDOW_MAX`]; the padding does not count.
pub(super) const WINDOW_MEAN_VALID: i32 = 2;
/// As [`WINDOW_MAX`].
pub(super) const WINDOW_DEPTHWISE: i32 = 3;

/// No residual.
pub(super) const NONE: u32 = u32::MAX;

/// Most columns of a tile's output.
pub(super) const MAX_COLUMNS: usize = 32;

/// The record of the same name in `persistent.cl`, which says what the fields are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Job {
    pub(super) kind: i32,
    pub(super) flags: i32,
    pub(super) weights: u32,
    pub(super) weights_count: i32,
    pub(super) shared: u32,
    pub(super) shared_count: i32,
    pub(super) source: u32,
    pub(super) source_batch: i32,
    pub(super) source_row: i32,
    pub(super) source_pixel: i32,
    pub(super) source_channel: i32,
    pub(super) tile_height: i32,
    pub(super) tile_width: i32,
    pub(super) first_row: i32,
    pub(super) first_column: i32,
    pub(super) height: i32,
    pub(super) width: i32,
    pub(super) images: i32,
    pub(super) tile_vectors: i32,
    pub(super) pixel_vectors: i32,
    pub(super) channels: i32,
    pub(super) pixel_stride: i32,
    pub(super) by_pixel_vectors: u32,
    pub(super) by_tile_width: u32,
    pub(super) by_tile_height: u32,
    pub(super) rows: i32,
    pub(super) rows_log2_tiles: i32,
    pub(super) by_image_rows: u32,
    pub(super) image_rows: i32,
    pub(super) by_row_width: u32,
    pub(super) row_width: i32,
    pub(super) a_start: i32,
    pub(super) a_image: i32,
    pub(super) a_row: i32,
    pub(super) a_pixel: i32,
    pub(super) units: i32,
    pub(super) channel_units: i32,
    pub(super) by_channel_units: u32,
    pub(super) kernel_width: i32,
    pub(super) by_kernel_width: u32,
    pub(super) tap_row: i32,
    pub(super) tap_column: i32,
    pub(super) columns_log2: i32,
    pub(super) output: u32,
    pub(super) output_batch: i32,
    pub(super) output_row: i32,
    pub(super) output_pixel: i32,
    pub(super) output_rows: i32,
    pub(super) by_output_image: u32,
    pub(super) output_image: i32,
    pub(super) by_output_width: u32,
    pub(super) output_width: i32,
    pub(super) valid_images: i32,
    pub(super) valid_rows: i32,
    pub(super) valid_columns: i32,
    pub(super) valid_channels: i32,
    pub(super) residual: u32,
    pub(super) activation: i32,
    pub(super) pool_height: i32,
    pub(super) pool_width: i32,
    pub(super) pool_row: i32,
    pub(super) pool_image: i32,
    pub(super) before: i32,
    pub(super) before_taps: i32,
    pub(super) before_width: i32,
    pub(super) before_activation: i32,
    pub(super) before_row: i32,
    pub(super) before_column: i32,
    pub(super) before_image_stride: i32,
    pub(super) before_row_stride: i32,
    pub(super) before_pixel_stride: i32,
    pub(super) before_stride: i32,
    pub(super) before_bias: i32,
    pub(super) before_scale: f32,
    pub(super) bias: [f32; 32],
    /// Records are a multiple of 16 bytes.
    pub(super) unused: [i32; 2],
}

impl Job {
    /// A job that does nothing.
    pub(super) fn nothing() -> Self {
        Self { kind: NOTHING, residual: NONE, ..Self::zeroed() }
    }
}

/// A divisor as the kernel wants it: the quotient of a number and this is the upper half of their product, where the
/// number times the divisor is below 2^32. 0 stands for 1.
pub(super) fn divisor(value: usize) -> u32 {
    match u64::try_from(value) {
        Ok(0 | 1) => 0,
        Ok(value) => u32::try_from((1_u64 << 32).div_ceil(value)).expect("a divisor of two or more"),
        Err(_) => 0,
    }
}

/// A count or a stride: tensors have fewer than 2^31 bytes.
pub(super) fn int(value: usize) -> i32 {
    i32::try_from(value).expect("kernels count in 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_whole_vectors() {
        assert_eq!(size_of::<Job>(), 108 * 4);
    }

    #[test]
    fn divisors_divide() {
        for by in 1..700_usize {
            let magic = u64::from(divisor(by));
            for value in 0..6000_usize {
                let quotient = if magic == 0 { value as u64 } else { (value as u64 * magic) >> 32 };
                assert_eq!(quotient, (value / by) as u64, "{value} / {by}");
            }
        }
    }
}
