//! The sums of a few vectors of outputs of one row of blocks, in registers.

use super::entries::{Chunk, Entries};
use crate::simd::Simd;

/// Most vectors of outputs of a tile, of one output channel.
const MAX_VECTORS: usize = 8;
/// Output channels of a tile where blocks have several.
const TALL: usize = 4;
/// Most sums of a tile: four channels of four of the widest vectors.
pub(super) const MAX_SUMS: usize = 4 * 4 * 16;

/// Most vectors of outputs of a tile whose blocks have this many output channels.
pub(super) const fn most_vectors<S: Simd>(height: usize) -> usize {
    // Sums, and for tall blocks the inputs that they share, must fit the registers: 32 of AVX-512, else 16.
    if height == 1 {
        MAX_VECTORS
    } else if S::LANES >= 16 {
        4
    } else {
        2
    }
}

/// Sums the entries of a row of blocks for the `vectors` vectors of outputs at `input` into `sums`,
/// `[output channel][vector]`.
///
/// # Safety
///
/// From `input` on, `vectors * LANES` elements further on than the greatest place times `scale` must be
/// readable; `vectors` is at least 1 and at most [`most_vectors`] of the entries' height, which is 1 or [`TALL`].
#[inline(always)]
pub(super) unsafe fn sum<S: Simd>(
    simd: S,
    entries: &Entries,
    (row, scale): (usize, u32),
    input: *const f32,
    vectors: usize,
    chunk: &mut Chunk,
    sums: &mut [f32],
) {
    let row = Row { entries, row, scale, input };
    // SAFETY: passed on. The second number is how many entries are summed apart, so that enough sums are under
    // way to hide the latency of a multiply-add.
    unsafe {
        match (entries.height(), vectors) {
            (1, 1) => row.sum::<S, 1, 8, 1>(simd, chunk, sums),
            (1, 2) => row.sum::<S, 2, 4, 1>(simd, chunk, sums),
            (1, 3) => row.sum::<S, 3, 3, 1>(simd, chunk, sums),
            (1, 4) => row.sum::<S, 4, 2, 1>(simd, chunk, sums),
            (1, 5) => row.sum::<S, 5, 2, 1>(simd, chunk, sums),
            (1, 6) => row.sum::<S, 6, 2, 1>(simd, chunk, sums),
            (1, 7) => row.sum::<S, 7, 1, 1>(simd, chunk, sums),
            (1, _) => row.sum::<S, 8, 1, 1>(simd, chunk, sums),
            (_, 1) => row.sum::<S, 1, 2, TALL>(simd, chunk, sums),
            (_, 2) => row.sum::<S, 2, 1, TALL>(simd, chunk, sums),
            (_, 3) => row.sum::<S, 3, 1, TALL>(simd, chunk, sums),
            (_, _) => row.sum::<S, 4, 1, TALL>(simd, chunk, sums),
        }
    }
}

struct Row<'a> {
    entries: &'a Entries,
    row: usize,
    scale: u32,
    input: *const f32,
}

impl Row<'_> {
    /// `V` vectors of `H` output channels, `U` entries apart.
    #[inline(always)]
    unsafe fn sum<S: Simd, const V: usize, const U: usize, const H: usize>(
        &self,
        simd: S,
        chunk: &mut Chunk,
        to: &mut [f32],
    ) {
        let mut sums = [[[simd.splat(0.0); V]; H]; U];
        let blocks = self.entries.row(self.row);
        let mut block = blocks.start;
        while block < blocks.end {
            let end = (block + self.entries.chunk()).min(blocks.end);
            let count = self.entries.decode(block..end, self.scale, chunk);
            let whole = count - count % U;
            let mut entry = 0;
            while entry < whole {
                for (apart, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: `entry + apart < count`; passed on.
                    unsafe { self.add(simd, chunk, entry + apart, sums) };
                }
                entry += U;
            }
            for entry in whole..count {
                // SAFETY: as above.
                unsafe { self.add(simd, chunk, entry, &mut sums[0]) };
            }
            block = end;
        }
        let mut total = sums[0];
        for sums in &sums[1..] {
            for (total, sums) in total.iter_mut().zip(sums) {
                for (total, &sum) in total.iter_mut().zip(sums) {
                    *total = simd.add(*total, sum);
                }
            }
        }
        assert!(to.len() >= H * V * S::LANES, "room for the sums");
        for (channel, total) in total.iter().enumerate() {
            for (vector, &total) in total.iter().enumerate() {
                // SAFETY: just checked.
                unsafe { simd.store(to.as_mut_ptr().add((channel * V + vector) * S::LANES), total) };
            }
        }
    }

    /// Adds one entry to the sums.
    #[inline(always)]
    unsafe fn add<S: Simd, const V: usize, const H: usize>(
        &self,
        simd: S,
        chunk: &Chunk,
        entry: usize,
        sums: &mut [[S::Vector; V]; H],
    ) {
        // SAFETY: the entry is one of the chunk's; the input is readable there by the caller's promise.
        unsafe {
            let from = self.input.add(*chunk.places.get_unchecked(entry) as usize);
            let mut inputs = [simd.splat(0.0); V];
            for (vector, input) in inputs.iter_mut().enumerate() {
                *input = simd.load(from.add(vector * S::LANES));
            }
            for (channel, sums) in sums.iter_mut().enumerate() {
                let value = simd.splat(*chunk.values.get_unchecked(entry * H + channel));
                for (sum, &input) in sums.iter_mut().zip(&inputs) {
                    *sum = simd.mul_add(value, input, *sum);
                }
            }
        }
    }
}
