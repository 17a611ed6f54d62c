//! The weights that are added, in the order in which they are read, and where each meets the patch.

use std::ops::Range;

use dlis_formats::{Csr, Values, Weight};
use half::f16;

use super::patch::Patch;
use crate::simd::Simd;

/// A type of which values are stored.
pub(super) trait Real: Copy {
    /// All lanes the value.
    fn splat<S: Simd>(self, simd: S) -> S::Vector;
}

impl Real for f32 {
    #[inline(always)]
    fn splat<S: Simd>(self, simd: S) -> S::Vector {
        simd.splat(self)
    }
}

impl Real for f16 {
    #[inline(always)]
    fn splat<S: Simd>(self, simd: S) -> S::Vector {
        simd.splat_half(self.to_bits())
    }
}

/// Values as they are stored: f16 are widened where they are used.
#[derive(Debug)]
pub(super) enum Reals {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Reals {
    /// Bytes in all.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(&values[..]),
            Self::F16(values) => size_of_val(&values[..]),
        }
    }
}

/// Entries by part of the input channels, then by output channel.
#[derive(Debug)]
pub(super) struct Entries {
    rows: usize,
    /// `[part][row]`: where the entries start, and where the last one's end.
    starts: Vec<u32>,
    /// Of each entry, the pixel of the part's patch that the first output of a tile reads.
    places: Vec<u16>,
    values: Reals,
}

impl Entries {
    /// Of a weight `[out, in, height, width]`, dense or in compressed rows; `None` where a place does not fit 16 bits,
    /// or the weight is of another format.
    pub(super) fn of(weight: &Weight, patch: &Patch) -> Option<Self> {
        match weight {
            Weight::Csr(csr) => {
                let values = match csr.values() {
                    Values::F32(values) => Reals::F32(values.clone()),
                    Values::F16(values) => Reals::F16(values.clone()),
                };
                Self::new(csr.rows(), |row| of_row(csr, row), values, patch)
            }
            Weight::F32(array) => {
                let columns = weight.columns();
                let values = Reals::F32(array.iter().copied().collect());
                Self::new(
                    weight.rows(),
                    |row| (0..columns).map(move |column| (row * columns + column, column)),
                    values,
                    patch,
                )
            }
            _ => None,
        }
    }

    /// Of rows of `(index of the value, column)`, columns increasing.
    fn new<I: Iterator<Item = (usize, usize)>>(
        rows: usize,
        row: impl Fn(usize) -> I,
        values: Reals,
        patch: &Patch,
    ) -> Option<Self> {
        let parts = patch.parts();
        let mut divided: Vec<Vec<(usize, u16)>> = vec![Vec::new(); rows * parts];
        for at in 0..rows {
            for (index, column) in row(at) {
                let (part, place) = patch.place(column);
                divided[part * rows + at].push((index, u16::try_from(place).ok()?));
            }
        }
        let mut starts = Vec::with_capacity(divided.len() + 1);
        let mut end = 0;
        starts.push(0);
        for entries in &divided {
            end += entries.len();
            starts.push(u32::try_from(end).ok()?);
        }
        let order = || divided.iter().flatten();
        let places = order().map(|&(_, place)| place).collect();
        let values = match values {
            Reals::F32(values) => Reals::F32(order().map(|&(index, _)| values[index]).collect()),
            Reals::F16(values) => Reals::F16(order().map(|&(index, _)| values[index]).collect()),
        };
        Some(Self { rows, starts, places, values })
    }

    /// Output channels.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes in all.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.starts[..]) + size_of_val(&self.places[..]) + self.values.bytes()
    }

    /// The entries of an output channel within a part.
    #[inline(always)]
    pub(super) fn range(&self, part: usize, row: usize) -> Range<usize> {
        let segment = part * self.rows + row;
        self.starts[segment] as usize..self.starts[segment + 1] as usize
    }

    /// The places of these entries.
    #[inline(always)]
    pub(super) fn places(&self, range: Range<usize>) -> &[u16] {
        &self.places[range]
    }

    /// All values.
    #[inline(always)]
    pub(super) fn values(&self) -> &Reals {
        &self.values
    }
}

/// Index of the value and column of each entry of a row.
fn of_row(csr: &Csr, row: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let [start, end] = [row, row + 1].map(|at| csr.row_starts()[at] as usize);
    (start..end).map(|at| (at, csr.column_indices().get(at)))
}
