//! Sparse weights as work-items stream them.

use dlis_formats::{Bsr, Csr, Weight};

use super::planes::Planes;

/// The blocks of one column that are not zero, row of blocks by row of blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    /// Rows of a block.
    pub(super) height: usize,
    /// Where each row of blocks starts, and the last one ends.
    pub(super) starts: Vec<u32>,
    /// Where each block meets the input: its [place](Planes::place), or the number of a block of four columns.
    pub(super) places: Vec<u32>,
    /// `height` values a block, or those of its four columns.
    pub(super) values: Vec<f32>,
    /// The places of all columns of a group, where blocks are of four.
    pub(super) columns: Vec<u32>,
}

/// How the rows and columns of the weights meet the input.
pub(super) struct Meeting<'a> {
    pub(super) planes: &'a Planes,
    pub(super) groups: usize,
    /// Input channels of a group.
    pub(super) depth: usize,
    pub(super) taps: usize,
}

impl Meeting<'_> {
    fn place(&self, group: usize, column: usize) -> u32 {
        let place = self.planes.place(group * self.depth + column / self.taps, column % self.taps);
        u32::try_from(place).expect("support has checked the planes")
    }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).expect("entries are counted in 32 bits, as in the formats")
}

impl Entries {
    /// Of a weight in a sparse format, where it is in one.
    pub(super) fn new(weight: &Weight, meeting: &Meeting<'_>) -> Option<Self> {
        let per_group = weight.rows() / meeting.groups;
        match weight {
            Weight::Csr(csr) => Some(Self::of_csr(csr, meeting)),
            // Blocks that reach into the next group have no one place in the input, and columns behind the last
            // have none at all.
            Weight::Bsr(bsr)
                if bsr.block()[0] > 1 && (meeting.groups == 1 || per_group.is_multiple_of(bsr.block()[0])) =>
            {
                Some(Self::of_bsr(bsr, meeting))
            }
            Weight::Bsr(bsr) if bsr.block()[0] == 1 && bsr.columns().is_multiple_of(4) => {
                Some(Self::of_wide(bsr, meeting))
            }
            Weight::Bsr(_) => match weight.convert(dlis_formats::Format::CsrF32) {
                Ok(Weight::Csr(csr)) => Some(Self::of_csr(&csr, meeting)),
                _ => None,
            },
            _ => None,
        }
    }

    fn of_csr(csr: &Csr, meeting: &Meeting<'_>) -> Self {
        let per_group = csr.rows() / meeting.groups;
        let entries = (0..csr.rows()).flat_map(|row| csr.row(row).map(move |entry| (row / per_group, entry)));
        let (places, values) = entries.map(|(group, (column, value))| (meeting.place(group, column), value)).unzip();
        Self { height: 1, starts: csr.row_starts().to_vec(), places, values, columns: Vec::new() }
    }

    fn of_bsr(bsr: &Bsr, meeting: &Meeting<'_>) -> Self {
        let height = bsr.block()[0];
        let per_group = bsr.rows() / meeting.groups;
        let starts = bsr.block_row_starts();
        let mut places = Vec::with_capacity(bsr.block_columns().len());
        for (row, ends) in starts.windows(2).enumerate() {
            let blocks = ends[0] as usize..ends[1] as usize;
            places.extend(blocks.map(|block| meeting.place(row * height / per_group, bsr.block_columns().get(block))));
        }
        Self { height, starts: starts.to_vec(), places, values: bsr.values().to_vec(), columns: Vec::new() }
    }

    fn of_wide(bsr: &Bsr, meeting: &Meeting<'_>) -> Self {
        let blocks = bsr.block_columns();
        Self {
            height: 1,
            starts: bsr.block_row_starts().to_vec(),
            places: (0..blocks.len()).map(|block| number(blocks.get(block))).collect(),
            values: bsr.values().to_vec(),
            columns: (0..bsr.columns()).map(|column| meeting.place(0, column)).collect(),
        }
    }

    /// Whether every place fits 16 bits.
    pub(super) fn is_short(&self) -> bool {
        self.places.iter().all(|&place| u16::try_from(place).is_ok())
    }
}
