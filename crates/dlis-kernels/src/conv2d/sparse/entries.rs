//! The weights that are not zero, packed, and where each meets the input.

use std::ops::Range;

use dlis_formats::{Bsr, Csr, Indices, Values};

use crate::simd::Simd;

/// Entries decoded at a time: their places and values stay in the first-level cache.
const CHUNK: usize = 256;
/// Most entries that are added to a chunk.
pub(super) const PADDING: usize = 16;
/// How far ahead of what is decoded memory is asked for, in bytes: what is decoded while it answers.
const AHEAD: usize = 1024;
/// Blocks are decoded in groups of this many, whatever their number: what is read beyond a row's last is not used.
const GROUP: usize = 16;

/// How the columns of a weight meet the padded planes, and how they are divided into parts whose input the
/// first-level cache holds.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// The place of each column: a number of elements from where the first output's window starts.
    pub(super) places: Vec<u32>,
    /// Columns of a part.
    pub(super) part: usize,
    /// Elements of the planes that a part reads.
    pub(super) part_len: usize,
    /// Rows (of blocks) that read a part before any reads the next.
    pub(super) together: usize,
}

impl Columns {
    fn parts(&self) -> usize {
        self.places.len().div_ceil(self.part)
    }

    /// The place of a column, counted from where its part's planes start.
    fn within_part(&self, column: usize) -> Option<u16> {
        u16::try_from(self.places[column] as usize - column / self.part * self.part_len).ok()
    }
}

/// Rows of blocks, each block a few values that share one place in the input.
///
/// An entry is `height` output channels of one column. What is stored with it is its place, counted from where
/// its part's planes start, so that 16 bits are enough; where they are not, or a block has several columns,
/// the column, and places are looked up.
#[derive(Debug)]
pub(super) struct Entries {
    /// Output channels of a block.
    height: usize,
    /// Columns of a block.
    width: usize,
    parts: usize,
    /// Elements of the planes from one part to the next, where places are counted from there.
    part_len: usize,
    rows: usize,
    /// Rows that read a part before any reads the next.
    together: usize,
    /// `[group of rows][part][row]`: where the blocks start, and where the last row's end. They lie in the order
    /// in which they are read.
    starts: Vec<u32>,
    places: Places,
    values: Reals,
    /// The place of each column, where `places` are columns (of blocks).
    table: Vec<u32>,
}

/// Longer than the blocks by a group.
#[derive(Debug)]
enum Places {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

/// Longer than the blocks by a group.
#[derive(Debug)]
enum Reals {
    F32(Vec<f32>),
    F16(Vec<u16>),
}

/// Decoded entries.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Elements of the input from that of the first output.
    pub(super) places: [u32; CHUNK + PADDING],
    /// The values of each entry's output channels.
    pub(super) values: [f32; CHUNK * 4],
}

impl Chunk {
    pub(super) const fn new() -> Self {
        Self { places: [0; CHUNK + PADDING], values: [0.0; CHUNK * 4] }
    }

    /// Adds entries of weight zero that read from `place`, where zeros must lie, until their number is a multiple of
    /// `of`, at most [`PADDING`]. Returns it. For entries of one output channel.
    #[inline(always)]
    pub(super) fn pad(&mut self, count: usize, of: usize, place: u32) -> usize {
        // Always as many: that is two stores and no branch.
        self.places[count..count + PADDING].fill(place);
        self.values[count..count + PADDING].fill(0.0);
        count.next_multiple_of(of)
    }
}

impl Entries {
    /// Of a CSR weight.
    pub(super) fn of_csr(csr: &Csr, columns: &Columns) -> Self {
        let values = match csr.values() {
            Values::F32(values) => Reals::F32(values.clone()),
            Values::F16(values) => Reals::F16(values.iter().map(|value| value.to_bits()).collect()),
        };
        Self::new([1, 1], csr.row_starts(), csr.column_indices(), values, columns)
    }

    /// Of a BSR weight with blocks of one row, or of one column and at most four rows.
    pub(super) fn of_bsr(bsr: &Bsr, columns: &Columns) -> Self {
        let [height, width] = bsr.block();
        let values = Reals::F32(bsr.values().to_vec());
        Self::new([height, width], bsr.block_row_starts(), bsr.block_columns(), values, columns)
    }

    fn new(block: [usize; 2], starts: &[u32], indices: &Indices, values: Reals, columns: &Columns) -> Self {
        let [height, width] = block;
        let parts = columns.parts();
        let column = |at: usize| indices.get(at) * width;
        let rows = starts.len() - 1;
        let mut divided = Vec::with_capacity(rows * parts);
        for row in starts.windows(2) {
            let (mut at, end) = (row[0] as usize, row[1] as usize);
            for part in 0..parts {
                let first = at;
                while at < end && column(at) < (part + 1) * columns.part {
                    at += 1;
                }
                divided.push(first..at);
            }
        }
        let together = if parts > 1 { columns.together.max(1) } else { 1 };
        let mut order = Vec::with_capacity(indices.len());
        let mut starts = Vec::with_capacity(divided.len() + 1);
        for first in (0..rows).step_by(together) {
            for part in 0..parts {
                for row in first..rows.min(first + together) {
                    // No more than the starts of the weight, which are u32.
                    starts.push(u32::try_from(order.len()).unwrap_or(u32::MAX));
                    order.extend(divided[row * parts + part].clone());
                }
            }
        }
        starts.push(u32::try_from(order.len()).unwrap_or(u32::MAX));
        let values = match values {
            Reals::F32(values) => Reals::F32(in_order(&values, &order, height * width)),
            Reals::F16(values) => Reals::F16(in_order(&values, &order, height * width)),
        };
        let all = order.iter().copied();
        let near: Option<Vec<u16>> =
            if width == 1 { all.clone().map(|at| columns.within_part(column(at))).collect() } else { None };
        let (places, part_len, table) = match (near, indices) {
            (Some(near), _) => (Places::U16(longer(near.into_iter(), GROUP)), columns.part_len, Vec::new()),
            (None, Indices::U16(indices)) => {
                (Places::U16(longer(all.map(|at| indices[at]), GROUP)), 0, columns.places.clone())
            }
            (None, Indices::U32(_)) if width == 1 => {
                let places = all.map(|at| columns.places[column(at)]);
                (Places::U32(longer(places, GROUP)), 0, Vec::new())
            }
            (None, Indices::U32(indices)) => {
                (Places::U32(longer(all.map(|at| indices[at]), GROUP)), 0, columns.places.clone())
            }
        };
        Self { height, width, parts, part_len, rows, together, starts, places, values, table }
    }

    /// Rows of blocks.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that read a part before any reads the next: whoever reads them begins with the first of such.
    pub(super) fn together(&self) -> usize {
        self.together
    }

    /// Parts of the columns.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// Elements of the planes from one part to the next.
    pub(super) fn part_len(&self) -> usize {
        self.part_len
    }

    /// Output channels of a block.
    pub(super) fn height(&self) -> usize {
        self.height
    }

    /// Bytes in all.
    pub(super) fn bytes(&self) -> usize {
        let places = match &self.places {
            Places::U16(places) => size_of_val(&places[..]),
            Places::U32(places) => size_of_val(&places[..]),
        };
        let values = match &self.values {
            Reals::F32(values) => size_of_val(&values[..]),
            Reals::F16(values) => size_of_val(&values[..]),
        };
        places + values + size_of_val(&self.starts[..]) + size_of_val(&self.table[..])
    }

    /// The segment of the first of these rows, which are read together, within a part. Those of the others follow.
    #[inline(always)]
    pub(super) fn segment(&self, rows: &Range<usize>, part: usize) -> usize {
        rows.start * self.parts + part * rows.len()
    }

    /// The blocks of a segment: of a row within a part.
    #[inline(always)]
    pub(super) fn blocks(&self, segment: usize) -> Range<usize> {
        self.starts[segment] as usize..self.starts[segment + 1] as usize
    }

    /// Blocks that a chunk holds.
    #[inline(always)]
    pub(super) fn chunk(&self) -> usize {
        if self.width == 1 { CHUNK } else { CHUNK / self.width }
    }

    /// Decodes these blocks, at most [`chunk`](Self::chunk), and returns the number of entries. Places are
    /// multiplied by `scale`.
    #[inline(always)]
    pub(super) fn decode<S: Simd>(&self, simd: S, blocks: Range<usize>, scale: u32, chunk: &mut Chunk) -> usize {
        if self.width > 1 {
            return self.decode_wide(blocks, scale, chunk);
        }
        let count = blocks.len();
        let (first, rounded) = (blocks.start, count.next_multiple_of(GROUP));
        match (&self.places, self.table.is_empty()) {
            (Places::U16(places), true) => {
                let (from, to) = (&places[first..first + rounded], &mut chunk.places[..rounded]);
                for at in (0..rounded).step_by(S::LANES) {
                    simd.prefetch(from.as_ptr().wrapping_add(at).wrapping_byte_add(AHEAD).cast());
                    // SAFETY: both have `rounded` elements, which are whole vectors.
                    unsafe { simd.scale_u16(from.as_ptr().add(at), scale, to.as_mut_ptr().add(at)) };
                }
            }
            (Places::U32(places), true) => {
                let (places, to) = (&places[first..], &mut chunk.places[..count]);
                to.iter_mut().zip(places).for_each(|(to, &place)| *to = place * scale);
            }
            (Places::U16(columns), false) => {
                let (columns, to) = (&columns[first..], &mut chunk.places[..count]);
                to.iter_mut().zip(columns).for_each(|(to, &column)| *to = self.table[usize::from(column)] * scale);
            }
            (Places::U32(columns), false) => {
                let (columns, to) = (&columns[first..], &mut chunk.places[..count]);
                to.iter_mut().zip(columns).for_each(|(to, &column)| *to = self.table[column as usize] * scale);
            }
        }
        let rounded = rounded * self.height;
        let (first, to) = (first * self.height, &mut chunk.values[..rounded]);
        match &self.values {
            Reals::F32(values) => {
                let from = &values[first..first + rounded];
                for at in (0..rounded).step_by(S::LANES) {
                    simd.prefetch(from.as_ptr().wrapping_add(at).wrapping_byte_add(AHEAD));
                    // SAFETY: both have `rounded` elements, which are whole vectors.
                    unsafe { simd.store(to.as_mut_ptr().add(at), simd.load(from.as_ptr().add(at))) };
                }
            }
            Reals::F16(values) => {
                let from = &values[first..first + rounded];
                for at in (0..rounded).step_by(S::LANES) {
                    simd.prefetch(from.as_ptr().wrapping_add(at).wrapping_byte_add(AHEAD).cast());
                    // SAFETY: as above.
                    unsafe { simd.store(to.as_mut_ptr().add(at), simd.load_half(from.as_ptr().add(at))) };
                }
            }
        }
        count
    }

    /// As [`decode`](Self::decode), of blocks of several columns: an entry each, but none for the columns of a
    /// last block that lie outside of the matrix.
    #[inline(always)]
    fn decode_wide(&self, blocks: Range<usize>, scale: u32, chunk: &mut Chunk) -> usize {
        const WIDTH: usize = 4;
        let Reals::F32(values) = &self.values else { return 0 };
        let (values, _) = values.as_chunks::<WIDTH>();
        let (to_places, _) = chunk.places.as_chunks_mut::<WIDTH>();
        let (to_values, _) = chunk.values.as_chunks_mut::<WIDTH>();
        let mut count = 0;
        for (block, (to_places, to_values)) in blocks.zip(to_places.iter_mut().zip(to_values)) {
            let column = match &self.places {
                Places::U16(columns) => usize::from(columns[block]),
                Places::U32(columns) => columns[block] as usize,
            } * WIDTH;
            *to_values = values[block];
            if let Some(places) = self.table.get(column..column + WIDTH) {
                to_places.iter_mut().zip(places).for_each(|(to, &place)| *to = place * scale);
                count += WIDTH;
            } else {
                // The last of its row.
                let places = &self.table[column..];
                to_places.iter_mut().zip(places).for_each(|(to, &place)| *to = place * scale);
                count += places.len();
            }
        }
        count
    }
}

/// The groups of `len` values in this order, and values for a group of entries behind them.
fn in_order<T: Copy + Default>(values: &[T], order: &[usize], len: usize) -> Vec<T> {
    let mut all = Vec::with_capacity((order.len() + GROUP) * len);
    order.iter().for_each(|&at| all.extend_from_slice(&values[at * len..(at + 1) * len]));
    all.resize((order.len() + GROUP) * len, T::default());
    all
}

/// These numbers and so many zeros.
fn longer<T: Copy + Default>(values: impl ExactSizeIterator<Item = T>, by: usize) -> Vec<T> {
    let mut all = Vec::with_capacity(values.len() + by);
    all.extend(values);
    all.resize(all.len() + by, T::default());
    all
}
