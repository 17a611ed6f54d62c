//! Weights as they are kept, and their positions, which are made of them as they are read.
//!
//! Positions have eight times as many bytes as weights of eight bits, and 32 times as many as codes of two: it takes less time to
//! transform a few channels for all tiles of a task than to read what is transformed.

use dlis_backend::AlignedBytes;

use super::super::simd::Dot;
use super::transform::{self, SIDE};
use super::{COLUMNS, POSITIONS};

/// Taps of a window.
const TAPS: usize = 9;
/// Input channels whose weights lie together, a byte each in every lane: two pairs.
const QUAD: usize = 4;
/// Those whose ternary weights do, of which there must be a multiple.
pub(super) const OF_CODES: usize = 4 * QUAD;
/// Bytes of positions that are made before they are used: they stay in a second-level cache, and sums are loaded and
/// stored but once for as many channels.
const CHUNK_BYTES: usize = 80 << 10;

/// Weights of blocks of output channels; channels beyond the last are zero, of inputs as of outputs.
///
/// A lane has the weights of four input channels: of the first pair in its first and third byte, of the second in the
/// others, which is how [`Dot::halves`] parts them.
#[derive(Debug)]
pub(super) enum Weights {
    /// `[block][four input channels][tap][channel of the block][one of four]`.
    Bytes(AlignedBytes),
    /// `[block][16 input channels][vector of channels][code]`, and what codes stand for, `[block][channel of the block]`.
    /// Codes are in the order of four input channels and taps, of which four are in a vector of bytes.
    Codes { codes: AlignedBytes, tables: AlignedBytes },
}

/// Extents of a layer's weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Extents {
    /// Blocks of output channels.
    pub(super) const fn blocks<D: Dot>(&self) -> usize {
        self.outputs.div_ceil(block::<D>())
    }
}

/// Output channels of a block.
pub(super) const fn block<D: Dot>() -> usize {
    COLUMNS * D::LANES
}

/// Bytes of a vector of weights, or of their codes.
const fn vector<D: Dot>() -> usize {
    4 * D::LANES
}

/// Bytes of the positions of a pair of input channels: 16 bits for both, of a block.
const fn of_pair<D: Dot>() -> usize {
    4 * block::<D>()
}

impl Weights {
    /// `values` are `[output channel][input channel][tap]`, `codes` what the two codes of each output channel stand for, of
    /// ternary ones.
    pub(super) fn new<D: Dot>(extents: Extents, values: &[i8], codes: &[[i8; 2]]) -> Self {
        let Extents { inputs, .. } = extents;
        let is_coded = !codes.is_empty();
        let step = if is_coded { OF_CODES } else { QUAD };
        // Of either kind: four channels of nine taps are nine vectors of bytes, and so are 16 channels' codes, four a byte.
        let of_step = COLUMNS * TAPS * vector::<D>();
        let of_block = inputs.div_ceil(step) * of_step;
        let mut packed = AlignedBytes::zeroed(extents.blocks::<D>() * of_block);
        let bytes = packed.as_mut_slice();
        for (index, &value) in values.iter().enumerate().filter(|&(_, &value)| value != 0) {
            let (tap, channel, out) = (index % TAPS, index / TAPS % inputs, index / TAPS / inputs);
            let (column, within) = (out / block::<D>(), out % block::<D>());
            let (vector_of, lane) = (within / D::LANES, within % D::LANES);
            let at = column * of_block + channel / step * of_step;
            let byte = 4 * lane + [0, 2, 1, 3][channel % QUAD];
            if is_coded {
                let which = channel % OF_CODES / QUAD * TAPS + tap;
                let code = 1 + u8::from(value != codes[out][0]);
                bytes[at + (vector_of * TAPS + which / 4) * vector::<D>() + byte] |= code << (2 * (which % 4));
            } else {
                bytes[at + (tap * COLUMNS + vector_of) * vector::<D>() + byte] = value.cast_unsigned();
            }
        }
        if !is_coded {
            return Self::Bytes(packed);
        }
        let mut tables = AlignedBytes::zeroed(extents.blocks::<D>() * block::<D>() * 4);
        for (table, &[one, two]) in tables.as_mut_slice().chunks_exact_mut(4).zip(codes) {
            table.copy_from_slice(&[0, one, two, 0].map(i8::cast_unsigned));
        }
        Self::Codes { codes: packed, tables }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.allocated(),
            Self::Codes { codes, tables } => codes.allocated() + tables.allocated(),
        }
    }

    /// Input channels whose weights lie together.
    pub(super) const fn step(&self) -> usize {
        match self {
            Self::Bytes(_) => QUAD,
            Self::Codes { .. } => OF_CODES,
        }
    }

    /// Input channels whose positions are there at a time, of so many in all: equal shares of what has room.
    pub(super) fn together<D: Dot>(&self, inputs: usize) -> usize {
        let steps = inputs.div_ceil(self.step());
        let most = (CHUNK_BYTES / (POSITIONS * of_pair::<D>() * self.step() / 2)).max(1);
        steps.div_ceil(steps.div_ceil(most)) * self.step()
    }

    /// Bytes that a worker needs: for the positions of those, a pair more than there are for each, as lines at a distance
    /// of powers of two would share few places of a cache; and for the weights of some codes.
    pub(super) fn scratch<D: Dot>(&self, inputs: usize) -> usize {
        let decoded = match self {
            Self::Bytes(_) => 0,
            Self::Codes { .. } => OF_CODES / QUAD * COLUMNS * TAPS * vector::<D>(),
        };
        POSITIONS * self.apart::<D>(inputs) + decoded
    }

    /// Bytes from one position to the next.
    fn apart<D: Dot>(&self, inputs: usize) -> usize {
        (self.together::<D>(inputs) / 2 + 1) * of_pair::<D>()
    }

    /// Makes the positions of the input channels from `first`, a multiple of [`step`](Self::step), on: as many as are
    /// there at a time, or the rest. `scratch` is of [`scratch`](Self::scratch).
    #[inline(always)]
    pub(super) fn positions<'a, D: Dot>(
        &'a self,
        d: D,
        extents: Extents,
        (column, first): (usize, usize),
        scratch: &'a mut [u8],
    ) -> Positions<'a> {
        let Extents { inputs, .. } = extents;
        let (step, of_step) = (self.step(), COLUMNS * TAPS * vector::<D>());
        let (steps, apart) = (inputs.div_ceil(step), self.apart::<D>(inputs));
        let count = (self.together::<D>(inputs) / step).min(steps - first / step);
        let start = (column * steps + first / step) * of_step;
        let (Self::Bytes(bytes) | Self::Codes { codes: bytes, .. }) = self;
        let (these, next) = bytes.as_slice()[start..].split_at(count * of_step);
        let (positions, decoded) = scratch.split_at_mut(POSITIONS * apart);
        for (index, weights) in these.chunks_exact(of_step).enumerate() {
            let to = &mut positions[index * step / 2 * of_pair::<D>()..];
            match self {
                Self::Bytes(_) => quad(d, weights, to, apart),
                Self::Codes { tables, .. } => {
                    let tables = &tables.as_slice()[column * block::<D>() * 4..][..block::<D>() * 4];
                    decode(d, weights, tables, decoded);
                    for (index, weights) in decoded.chunks_exact(of_step).enumerate().take(OF_CODES / QUAD) {
                        quad(d, weights, &mut to[index * QUAD / 2 * of_pair::<D>()..], apart);
                    }
                }
            }
        }
        let next = &next[..these.len().min(next.len())];
        Positions { bytes: positions, apart, pairs: count * step / 2, next }
    }
}

/// Transformed weights of some input channels and a block of output channels.
pub(super) struct Positions<'a> {
    /// `[position][pair of input channels][channel of the block]`, 16 bits for each of the pair.
    bytes: &'a [u8],
    apart: usize,
    /// How many pairs there are.
    pairs: usize,
    /// Weights that follow, and are transformed next unless more tiles take the same block's from the first on.
    pub(super) next: &'a [u8],
}

impl<'a> Positions<'a> {
    /// Those of one position.
    #[inline(always)]
    pub(super) fn of<D: Dot>(&self, position: usize) -> &'a [u8] {
        &self.bytes[position * self.apart..][..self.pairs * of_pair::<D>()]
    }
}

/// The positions of four input channels, `apart` bytes from one to the next.
#[inline(always)]
fn quad<D: Dot>(d: D, weights: &[u8], to: &mut [u8], apart: usize) {
    let of_pair = of_pair::<D>();
    assert!(weights.len() >= TAPS * COLUMNS * vector::<D>(), "a vector of each tap");
    assert!(to.len() >= (POSITIONS - 1) * apart + 2 * of_pair, "both pairs of every position");
    for v in 0..COLUMNS {
        let mut taps = [[[d.splat_int(0); 3]; 3]; 2];
        for tap in 0..TAPS {
            // SAFETY: a vector for each tap and `v`, as was checked.
            let of_tap = unsafe { d.weights(weights.as_ptr().add((tap * COLUMNS + v) * vector::<D>()).cast()) };
            let [first, second] = d.halves(of_tap);
            taps[0][tap / 3][tap % 3] = first;
            taps[1][tap / 3][tap % 3] = second;
        }
        for (pair, rows_of_taps) in taps.iter().enumerate() {
            // Two rows after two: all of them at once would not fit the registers.
            for stage in 0..SIDE / 2 {
                let (ys, rows) = transform::weight_rows(d, stage, rows_of_taps);
                for (y, row) in ys.into_iter().zip(rows) {
                    for (x, value) in transform::weights(d, row).into_iter().enumerate() {
                        let at = (y * SIDE + x) * apart + pair * of_pair + v * vector::<D>();
                        // SAFETY: both pairs of a block at each position, as was checked.
                        unsafe { d.store_ints(to.as_mut_ptr().add(at).cast(), value) };
                    }
                }
            }
        }
    }
}

/// The weights of sixteen input channels, four after four, from their codes and the tables of the block.
#[inline(always)]
fn decode<D: Dot>(d: D, codes: &[u8], tables: &[u8], to: &mut [u8]) {
    let vector = vector::<D>();
    assert!(codes.len() >= COLUMNS * TAPS * vector && tables.len() >= COLUMNS * vector, "codes and tables of a block");
    assert!(to.len() >= OF_CODES / QUAD * COLUMNS * TAPS * vector, "room for their weights");
    for v in 0..COLUMNS {
        // SAFETY: a vector of tables for each of codes, as was checked.
        let tables = unsafe { d.tables(tables.as_ptr().add(v * vector)) };
        for four in 0..TAPS {
            // SAFETY: checked above: nine vectors of codes for each of channels, four times as many of weights.
            unsafe {
                let codes = d.codes(codes.as_ptr().add((v * TAPS + four) * vector));
                let to = to.as_mut_ptr().add((4 * four * COLUMNS + v) * vector).cast::<i8>();
                d.store_weights(to, d.decode::<0>(codes, tables));
                d.store_weights(to.add(COLUMNS * vector), d.decode::<1>(codes, tables));
                d.store_weights(to.add(2 * COLUMNS * vector), d.decode::<2>(codes, tables));
                d.store_weights(to.add(3 * COLUMNS * vector), d.decode::<3>(codes, tables));
            }
        }
    }
}
