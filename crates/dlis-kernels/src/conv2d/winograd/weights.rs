//! The weights of a convolution by Winograd's algorithm: transformed once, or as they are read.

use dlis_backend::{AlignedBytes, static_range};
use dlis_model::Conv2d;

use super::super::pack::pack_block;
use super::super::product::COLUMNS;
use super::{positions, transform};
use crate::simd::Simd;

/// Input channels whose weights are packed at a time.
const PACKED: usize = 4;
/// Bytes of transformed weights that are made of halves before they are used: they stay in a second-level cache, and
/// sums are loaded and stored but once for as many channels.
const CHUNK_BYTES: usize = 64 << 10;

/// Weights of so many times a second-level cache come from beyond it each time; fewer do too, but are hidden by what is
/// computed with them.
const FAR: usize = 8;

/// Weights of blocks of output channels; channels beyond the last are zero.
#[derive(Debug)]
pub(super) enum Weights {
    /// `[block][position][input channel][channel of the block]`, transformed.
    Positions(AlignedBytes),
    /// `[block][input channel][tap][channel of the block]`, the bits of f16. There are 3.6 (8) times as many bytes of
    /// positions, so that where few tiles share them it takes less time to transform halves than to read those.
    Taps(AlignedBytes),
}

/// Weights as they are multiplied.
#[derive(Clone, Copy)]
pub(super) struct Positions<'a> {
    /// `[position][input channel][channel of the block]`.
    values: &'a [f32],
    /// Elements from one position to the next.
    apart: usize,
    /// Halves that are transformed next, where such are.
    next: Option<&'a [u16]>,
}

impl<'a> Positions<'a> {
    /// The weights of one position, and, where weights are transformed, its share of those that are next: asked for while
    /// these are multiplied, it comes in time.
    #[inline(always)]
    pub(super) fn of<const TILE: usize>(&self, position: usize, len: usize) -> (&'a [f32], Option<&'a [u16]>) {
        let next = self.next.map(|next| &next[static_range(next.len(), positions(TILE), position)]);
        (&self.values[position * self.apart..][..len], next)
    }
}

impl Weights {
    /// `source` is `[output channel][input channel][tap]`.
    pub(super) fn positions<S: Simd, const TILE: usize>(conv: &Conv2d, source: &[f32]) -> Self {
        let (block, depth) = (COLUMNS * S::LANES, conv.in_channels);
        let blocks = conv.out_channels.div_ceil(block);
        let mut packed = AlignedBytes::zeroed(blocks * positions(TILE) * depth * block * size_of::<f32>());
        for (column, to) in packed.f32_mut().chunks_exact_mut(positions(TILE) * depth * block).enumerate() {
            let outs = column * block..conv.out_channels.min((column + 1) * block);
            // Few channels of all outputs at a time, so that what is written to again and again is in a cache.
            for channels in (0..depth).step_by(PACKED).map(|first| first..depth.min(first + PACKED)) {
                for (lane, out) in outs.clone().enumerate() {
                    for channel in channels.clone() {
                        let taps = &source[(out * depth + channel) * 9..][..9];
                        for (position, value) in transformed::<TILE>(taps).into_iter().flatten().enumerate() {
                            to[(position * depth + channel) * block + lane] = value;
                        }
                    }
                }
            }
        }
        Self::Positions(packed)
    }

    /// `source` is `[output channel][input channel][tap]`.
    pub(super) fn taps<S: Simd>(conv: &Conv2d, source: &[u16]) -> Self {
        let (block, depth) = (COLUMNS * S::LANES, conv.in_channels);
        let mut packed = AlignedBytes::zeroed(conv.out_channels.div_ceil(block) * depth * 9 * block * size_of::<u16>());
        for (column, to) in packed.u16_mut().chunks_exact_mut(depth * 9 * block).enumerate() {
            let outs = column * block..conv.out_channels.min((column + 1) * block);
            pack_block(source, (depth, 9), outs, block, to, |channel, tap| channel * 9 + tap);
        }
        Self::Taps(packed)
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Positions(bytes) | Self::Taps(bytes) => bytes.allocated(),
        }
    }

    /// Bytes of transformed inputs that are computed before they are used, for a second-level cache of so many. All blocks
    /// read them again, and weights are read again for each so many. So they leave much of that cache to others; less where
    /// weights come from far, and nothing where those are transformed again.
    pub(super) fn input_bytes(&self, l2: usize) -> usize {
        match self {
            Self::Positions(weights) if weights.allocated() / FAR <= l2 => l2 / 4,
            Self::Positions(_) => l2 / 2,
            Self::Taps(_) => l2,
        }
    }

    /// Input channels whose positions are there at a time, of so many in all.
    pub(super) fn together<S: Simd, const TILE: usize>(&self, depth: usize) -> usize {
        match self {
            Self::Positions(_) => depth,
            Self::Taps(_) => {
                let of_channel = positions(TILE) * COLUMNS * S::LANES * size_of::<f32>();
                (CHUNK_BYTES / of_channel).clamp(1, depth)
            }
        }
    }

    /// Floats that a worker needs for those.
    pub(super) fn scratch_len<S: Simd, const TILE: usize>(&self, depth: usize) -> usize {
        match self {
            Self::Positions(_) => 0,
            Self::Taps(_) => positions(TILE) * apart::<S>(self.together::<S, TILE>(depth)),
        }
    }

    /// The positions of `count` input channels from `first` on, of one block. `scratch` is of
    /// [`scratch_len`](Self::scratch_len).
    #[inline(always)]
    pub(super) fn of<'a, S: Simd, const TILE: usize>(
        &'a self,
        simd: S,
        (column, depth): (usize, usize),
        (first, count): (usize, usize),
        scratch: &'a mut [f32],
    ) -> Positions<'a> {
        let block = COLUMNS * S::LANES;
        match self {
            Self::Positions(positions_of) => {
                let of_column = positions(TILE) * depth * block;
                let values = &positions_of.f32()[column * of_column..][..of_column];
                Positions { values, apart: depth * block, next: None }
            }
            Self::Taps(taps) => {
                let (taps, next) = taps.u16()[(column * depth + first) * 9 * block..].split_at(count * 9 * block);
                let apart = apart::<S>(self.together::<S, TILE>(depth));
                let scratch = &mut scratch[..positions(TILE) * apart];
                for (channel, taps) in taps.chunks_exact(9 * block).enumerate() {
                    transform_channel::<S, TILE>(simd, taps, &mut scratch[channel * block..], apart);
                }
                Positions { values: scratch, apart, next: Some(&next[..taps.len().min(next.len())]) }
            }
        }
    }
}

/// Floats from one position to the next: a block more than there are, as lines at a distance of powers of two would
/// share few places of a cache.
const fn apart<S: Simd>(channels: usize) -> usize {
    (channels + 1) * COLUMNS * S::LANES
}

/// The positions of one input channel, `apart` elements from one to the next.
#[inline(always)]
fn transform_channel<S: Simd, const TILE: usize>(simd: S, taps: &[u16], to: &mut [f32], apart: usize) {
    let (side, block) = (TILE + 2, COLUMNS * S::LANES);
    assert!(taps.len() >= 9 * block && to.len() >= (positions(TILE) - 1) * apart + block, "taps and positions");
    for vector in 0..COLUMNS {
        let from = taps.as_ptr().wrapping_add(vector * S::LANES);
        let mut rows = [[simd.splat(0.0); 3]; transform::MOST];
        for x in 0..3 {
            let mut g = [simd.splat(0.0); 3];
            for (y, g) in g.iter_mut().enumerate() {
                let tap = from.wrapping_add((y * 3 + x) * block);
                // SAFETY: a block for each of nine taps, as was checked.
                *g = unsafe { simd.load_half(tap) };
            }
            for (row, value) in rows.iter_mut().zip(transform::weights::<S, TILE>(simd, g)) {
                row[x] = value;
            }
        }
        for (y, &row) in rows.iter().enumerate().take(side) {
            let row = transform::weights::<S, TILE>(simd, row);
            for (x, &value) in row.iter().enumerate().take(side) {
                // SAFETY: a block at each position, as was checked.
                unsafe { simd.store(to.as_mut_ptr().add((y * side + x) * apart + vector * S::LANES), value) };
            }
        }
    }
}

/// The transformed weight, `G w G^T`, rounded once.
fn transformed<const TILE: usize>(taps: &[f32]) -> impl IntoIterator<Item = impl IntoIterator<Item = f32>> {
    let g = transform::weight(TILE);
    g.iter().map(move |row| {
        let mut half = [0.0; 3];
        for (of_row, factor) in taps.chunks_exact(3).zip(row) {
            for (half, &tap) in half.iter_mut().zip(of_row) {
                *half += factor * f64::from(tap);
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
        g.iter().map(move |row| (half[0] * row[0] + half[1] * row[1] + half[2] * row[2]) as f32)
    })
}
