//! The sums of a few vectors of outputs of one row of blocks, in registers.

use super::entries::{Chunk, Entries};
use crate::simd::Simd;

/// Most vectors of outputs of a tile, of one output channel.
const MAX_VECTORS: usize = 8;
/// Outputs of the smallest maps whose vectors are full.
pub(in crate::conv2d) const QUAD: usize = 4;
/// Output channels of a tile where blocks have several.
pub(in crate::conv2d) const TALL: usize = 4;
/// Room for sums: of 16 rows of the largest tiles, of several channels of fewer rows.
pub(super) const MAX_SUMS: usize = 16 * 8 * 16;

/// Most vectors of outputs of a tile whose blocks have this many output channels.
pub(in crate::conv2d) const fn most_vectors<S: Simd>(height: usize) -> usize {
    // Sums, and for tall blocks the inputs that they share, must fit the registers.
    if height == 1 {
        MAX_VECTORS
    } else if S::REGISTERS >= 32 {
        4
    } else {
        2
    }
}

/// A row of blocks, within one part of the columns.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) entries: &'a Entries,
    /// Its entries, within one part of the columns.
    pub(super) segment: usize,
    /// Whether sums of another part are there already.
    pub(super) begun: bool,
    /// What places are multiplied by.
    pub(super) scale: u32,
    /// How the vectors of outputs lie.
    pub(super) lines: Lines,
    /// A place where zeros lie, [`ZEROS`] vectors of them.
    pub(super) zeros: Option<u32>,
}

/// Vectors of zeros behind the planes.
pub(super) const ZEROS: usize = 2;

/// Where the vectors of a tile find their input, from that of its first output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    /// Vectors of a line; 0 where all vectors are one line.
    pub(super) vectors: usize,
    /// Elements from one line to the next.
    pub(super) pitch: usize,
}

impl Row<'_> {
    /// Sums the entries for the `vectors` vectors of outputs at `input` into `sums`, `[output channel][vector]`,
    /// on top of what is there if this is not the first part.
    ///
    /// # Safety
    ///
    /// Further on from `input` than the greatest place times `scale`, all vectors must be readable; `vectors` is at
    /// least 1 and at most [`most_vectors`] of the entries' height, which is 1 or [`TALL`]. Lines are of 0, 2 or 4
    /// vectors, the `vectors` whole lines, and all one line where the height is not 1.
    #[inline(always)]
    pub(super) unsafe fn sum<S: Simd>(
        self,
        simd: S,
        input: *const f32,
        vectors: usize,
        chunk: &mut Chunk,
        sums: &mut [f32],
    ) {
        // SAFETY: passed on. The second number is how many entries are summed apart, so that enough sums are under
        // way to hide the latency of a multiply-add; the last is of how many vectors a line is.
        unsafe {
            match (self.entries.height(), vectors, self.lines.vectors) {
                (1, 1, 0) => self.sum_in::<S, 1, 8, 1, 0>(simd, input, chunk, sums),
                (1, 2, 0) => self.sum_in::<S, 2, 4, 1, 0>(simd, input, chunk, sums),
                (1, 3, 0) => self.sum_in::<S, 3, 3, 1, 0>(simd, input, chunk, sums),
                (1, 4, 0) => self.sum_in::<S, 4, 2, 1, 0>(simd, input, chunk, sums),
                (1, 5, 0) => self.sum_in::<S, 5, 2, 1, 0>(simd, input, chunk, sums),
                (1, 6, 0) => self.sum_in::<S, 6, 2, 1, 0>(simd, input, chunk, sums),
                (1, 7, 0) => self.sum_in::<S, 7, 1, 1, 0>(simd, input, chunk, sums),
                (1, _, 0) => self.sum_in::<S, 8, 1, 1, 0>(simd, input, chunk, sums),
                (1, 2, 2) => self.sum_in::<S, 2, 4, 1, 2>(simd, input, chunk, sums),
                (1, 4, 2) => self.sum_in::<S, 4, 2, 1, 2>(simd, input, chunk, sums),
                (1, 6, 2) => self.sum_in::<S, 6, 2, 1, 2>(simd, input, chunk, sums),
                (1, _, 2) => self.sum_in::<S, 8, 1, 1, 2>(simd, input, chunk, sums),
                (1, 4, _) => self.sum_in::<S, 4, 2, 1, 4>(simd, input, chunk, sums),
                (1, _, _) => self.sum_in::<S, 8, 1, 1, 4>(simd, input, chunk, sums),
                (_, 1, _) => self.sum_in::<S, 1, 2, TALL, 0>(simd, input, chunk, sums),
                (_, 2, _) => self.sum_in::<S, 2, 1, TALL, 0>(simd, input, chunk, sums),
                (_, 3, _) => self.sum_in::<S, 3, 1, TALL, 0>(simd, input, chunk, sums),
                (_, _, _) => self.sum_in::<S, 4, 1, TALL, 0>(simd, input, chunk, sums),
            }
        }
    }

    /// `V` vectors of `H` output channels, `U` entries apart, `L` vectors a line.
    #[inline(always)]
    unsafe fn sum_in<S: Simd, const V: usize, const U: usize, const H: usize, const L: usize>(
        self,
        simd: S,
        input: *const f32,
        chunk: &mut Chunk,
        to: &mut [f32],
    ) {
        assert!(to.len() >= H * V * S::LANES, "room for the sums");
        let mut sums = [[[simd.splat(0.0); V]; H]; U];
        if self.begun {
            for (channel, sums) in sums[0].iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: just checked.
                    *sum = unsafe { simd.load(to.as_ptr().add((channel * V + vector) * S::LANES)) };
                }
            }
        }
        let blocks = self.entries.blocks(self.segment);
        let mut block = blocks.start;
        while block < blocks.end {
            let end = (block + self.entries.chunk()).min(blocks.end);
            let mut count = self.entries.decode(simd, block..end, self.scale, chunk);
            if V <= ZEROS
                && H == 1
                && U > 1
                && let Some(zeros) = self.zeros
            {
                // Rather than a branch for each entry that is left over.
                count = chunk.pad(count, U, zeros);
            }
            let whole = count - count % U;
            let mut entry = 0;
            while entry < whole {
                for (apart, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: `entry + apart < count`; passed on.
                    unsafe { add::<S, V, H, L>(simd, chunk, input, self.lines.pitch, entry + apart, sums) };
                }
                entry += U;
            }
            for (apart, sums) in sums.iter_mut().enumerate() {
                if whole + apart < count {
                    // SAFETY: as above.
                    unsafe { add::<S, V, H, L>(simd, chunk, input, self.lines.pitch, whole + apart, sums) };
                }
            }
            block = end;
        }
        let mut left = U;
        while left > 1 {
            for pair in 0..left / 2 {
                let other = sums[left - 1 - pair];
                for (sums, other) in sums[pair].iter_mut().zip(&other) {
                    for (sum, &other) in sums.iter_mut().zip(other) {
                        *sum = simd.add(*sum, other);
                    }
                }
            }
            left -= left / 2;
        }
        for (channel, sums) in sums[0].iter().enumerate() {
            for (vector, &sum) in sums.iter().enumerate() {
                // SAFETY: checked above.
                unsafe { simd.store(to.as_mut_ptr().add((channel * V + vector) * S::LANES), sum) };
            }
        }
    }
}

/// Adds one entry to the sums.
///
/// # Safety
///
/// The entry must be one of the chunk's, and what it reads readable.
#[inline(always)]
unsafe fn add<S: Simd, const V: usize, const H: usize, const L: usize>(
    simd: S,
    chunk: &Chunk,
    input: *const f32,
    pitch: usize,
    entry: usize,
    sums: &mut [[S::Vector; V]; H],
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let from = input.add(*chunk.places.get_unchecked(entry) as usize);
        let mut inputs = [simd.splat(0.0); V];
        for (vector, input) in inputs.iter_mut().enumerate() {
            let line = vector.checked_div(L).unwrap_or(0);
            let vector = vector - line * L;
            *input = simd.load(from.add(line * pitch + vector * S::LANES));
        }
        for (channel, sums) in sums.iter_mut().enumerate() {
            let value = simd.splat(*chunk.values.get_unchecked(entry * H + channel));
            for (sum, &input) in sums.iter_mut().zip(&inputs) {
                *sum = simd.mul_add(value, input, *sum);
            }
        }
    }
}
