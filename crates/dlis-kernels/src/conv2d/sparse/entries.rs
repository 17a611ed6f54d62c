//! The weights that are not zero, packed, and where each meets the input.

use dlis_formats::{Bsr, Csr, Indices, Values};

use crate::half::widen;

/// Entries decoded at a time: their places and values stay in the first-level cache.
pub(super) const CHUNK: usize = 256;

/// Rows of blocks, each block a few values that share one place in the input.
///
/// An entry is `height` output channels of one column. Its place is a number of elements from where the
/// first output's window starts in the padded planes: stored itself wherever that takes no more bytes than
/// the column, looked up by column otherwise.
#[derive(Debug)]
pub(super) struct Entries {
    /// Output channels of a block.
    height: usize,
    /// Columns of a block.
    width: usize,
    /// Where each row's blocks start, and where the last row's end.
    starts: Vec<u32>,
    places: Places,
    values: Reals,
    /// The place of each column, where `places` are columns (of blocks).
    table: Vec<u32>,
}

#[derive(Debug)]
enum Places {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

#[derive(Debug)]
enum Reals {
    F32(Vec<f32>),
    F16(Vec<u16>),
}

/// Decoded entries.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Elements of the input from that of the first output.
    pub(super) places: [u32; CHUNK],
    /// The values of each entry's output channels.
    pub(super) values: [f32; CHUNK * 4],
}

impl Chunk {
    pub(super) const fn new() -> Self {
        Self { places: [0; CHUNK], values: [0.0; CHUNK * 4] }
    }
}

impl Entries {
    /// Of a CSR weight; `offsets` are the places of its columns.
    pub(super) fn of_csr(csr: &Csr, offsets: &[u32]) -> Self {
        let values = match csr.values() {
            Values::F32(values) => Reals::F32(values.clone()),
            Values::F16(values) => Reals::F16(values.iter().map(|value| value.to_bits()).collect()),
        };
        let (places, table) = pack(csr.column_indices(), offsets);
        Self { height: 1, width: 1, starts: csr.row_starts().to_vec(), places, values, table }
    }

    /// Of a BSR weight with blocks of one row, or of one column and at most four rows.
    pub(super) fn of_bsr(bsr: &Bsr, offsets: &[u32]) -> Self {
        let [height, width] = bsr.block();
        let (places, table) =
            if width == 1 { pack(bsr.block_columns(), offsets) } else { (copy(bsr.block_columns()), offsets.to_vec()) };
        let values = Reals::F32(bsr.values().to_vec());
        Self { height, width, starts: bsr.block_row_starts().to_vec(), places, values, table }
    }

    /// Rows of blocks.
    pub(super) fn rows(&self) -> usize {
        self.starts.len() - 1
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

    /// The blocks of a row.
    pub(super) fn row(&self, row: usize) -> std::ops::Range<usize> {
        self.starts[row] as usize..self.starts[row + 1] as usize
    }

    /// Blocks that a chunk holds.
    pub(super) fn chunk(&self) -> usize {
        CHUNK / self.width
    }

    /// Decodes these blocks, at most [`chunk`](Self::chunk), and returns the number of entries. Places are
    /// multiplied by `scale`.
    #[inline(always)]
    pub(super) fn decode(&self, blocks: std::ops::Range<usize>, scale: u32, chunk: &mut Chunk) -> usize {
        let count = blocks.len();
        if self.width > 1 {
            return self.decode_wide(blocks, scale, chunk);
        }
        let to = &mut chunk.places[..count];
        match (&self.places, self.table.is_empty()) {
            (Places::U16(places), true) => {
                to.iter_mut().zip(&places[blocks.clone()]).for_each(|(to, &place)| *to = u32::from(place) * scale);
            }
            (Places::U32(places), true) => {
                to.iter_mut().zip(&places[blocks.clone()]).for_each(|(to, &place)| *to = place * scale);
            }
            (Places::U16(columns), false) => {
                let columns = &columns[blocks.clone()];
                to.iter_mut().zip(columns).for_each(|(to, &column)| *to = self.table[usize::from(column)] * scale);
            }
            (Places::U32(columns), false) => {
                let columns = &columns[blocks.clone()];
                to.iter_mut().zip(columns).for_each(|(to, &column)| *to = self.table[column as usize] * scale);
            }
        }
        let to = &mut chunk.values[..count * self.height];
        let range = blocks.start * self.height..blocks.end * self.height;
        match &self.values {
            Reals::F32(values) => to.copy_from_slice(&values[range]),
            Reals::F16(values) => to.iter_mut().zip(&values[range]).for_each(|(to, &half)| *to = widen(half)),
        }
        count
    }

    /// As [`decode`](Self::decode), of blocks of several columns: an entry each, but none for the columns of a
    /// last block that lie outside of the matrix.
    fn decode_wide(&self, blocks: std::ops::Range<usize>, scale: u32, chunk: &mut Chunk) -> usize {
        let Reals::F32(values) = &self.values else { return 0 };
        let mut count = 0;
        for block in blocks {
            let column = match &self.places {
                Places::U16(columns) => usize::from(columns[block]),
                Places::U32(columns) => columns[block] as usize,
            } * self.width;
            let offsets = &self.table[column..(column + self.width).min(self.table.len())];
            for (&offset, &value) in offsets.iter().zip(&values[block * self.width..]) {
                chunk.places[count] = offset * scale;
                chunk.values[count] = value;
                count += 1;
            }
        }
        count
    }
}

/// The places of columns, or the columns and a table of places where places would take more bytes.
fn pack(columns: &Indices, offsets: &[u32]) -> (Places, Vec<u32>) {
    let fits = offsets.iter().all(|&offset| u16::try_from(offset).is_ok());
    match columns {
        Indices::U16(columns) if fits => {
            let place = |&column: &u16| u16::try_from(offsets[usize::from(column)]).unwrap_or_default();
            (Places::U16(columns.iter().map(place).collect()), Vec::new())
        }
        Indices::U16(columns) => (Places::U16(columns.clone()), offsets.to_vec()),
        Indices::U32(columns) => {
            (Places::U32(columns.iter().map(|&column| offsets[column as usize]).collect()), Vec::new())
        }
    }
}

fn copy(columns: &Indices) -> Places {
    match columns {
        Indices::U16(columns) => Places::U16(columns.clone()),
        Indices::U32(columns) => Places::U32(columns.clone()),
    }
}
