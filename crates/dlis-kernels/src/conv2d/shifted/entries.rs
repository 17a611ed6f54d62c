//! The weights that are not zero, by how their sums are moved, and where each meets the input.

use std::ops::Range;

use dlis_formats::{Values, Weight};

use super::super::sparse::TALL;
use super::layout::Lines;
use crate::simd::{MOST_LANES, Simd};

/// How far ahead of what is widened memory is asked for, in bytes.
const AHEAD: usize = 1024;
/// Values that are widened at a time, at most.
pub(super) const WIDENED: usize = 1024;

/// Values as they are stored, and some zeros behind them.
#[derive(Debug)]
enum Reals {
    F32(Vec<f32>),
    /// Their bits.
    F16(Vec<u16>),
}

/// How the input channels are divided into parts, whose planes the first-level cache holds, and the rows of blocks into
/// groups that read a part before any reads the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    /// Input channels of a part.
    pub(super) channels: usize,
    /// Rows of a group.
    pub(super) together: usize,
}

/// The entries of a weight, blocks of one column and one or more rows: those of one row of blocks within one part whose
/// sums are moved alike are neighbours.
#[derive(Debug)]
pub(super) struct Entries {
    /// Output channels of a block.
    height: usize,
    /// Rows of blocks.
    rows: usize,
    parts: usize,
    /// Elements of the planes from one part to the next.
    part_len: usize,
    /// Rows of a group.
    together: usize,
    /// Ways of moving sums.
    classes: usize,
    /// `[group][part][row][class]`: where the entries start, and where the last ones end. They lie in the order in which
    /// they are read.
    starts: Vec<u32>,
    /// Of each entry, the element that the first output reads, counted from where its part's planes start; and some behind
    /// them.
    places: Vec<u16>,
    values: Reals,
}

/// What of a weight does not depend on its values.
struct Pattern {
    starts: Vec<u32>,
    places: Vec<u16>,
    /// The entries as they are stored in the order in which they are read; `None` for a zero that fills a vector up.
    order: Vec<Option<usize>>,
}

impl Entries {
    /// Of a weight `[out, in, height, width]` in compressed rows, in blocks of one column, or dense, which is blocks of
    /// [`TALL`] without a gap; `None` of another format, or where a place does not fit 16 bits.
    pub(super) fn of(weight: &Weight, lines: &Lines, division: Division) -> Option<Self> {
        let columns = weight.columns();
        let depth = columns / lines.taps.len().max(1);
        let parts = depth.div_ceil(division.channels).max(1);
        let find = Find { lines, division, parts };
        let height = height_of(weight);
        let rows = weight.rows().div_ceil(height);
        let (pattern, values) = match weight {
            Weight::Csr(csr) => {
                let (starts, indices) = (csr.row_starts(), csr.column_indices());
                let of_row = |row: usize| starts[row] as usize..starts[row + 1] as usize;
                let pattern = find.pattern(rows, columns, of_row, |at| indices.get(at))?;
                let values = match csr.values() {
                    Values::F32(values) => Reals::F32(in_order(values, &pattern.order, 1, |value| value)),
                    Values::F16(values) => Reals::F16(in_order(values, &pattern.order, 1, |value| value.to_bits())),
                };
                (pattern, values)
            }
            Weight::Bsr(bsr) if bsr.block() == [TALL, 1] => {
                let (starts, indices) = (bsr.block_row_starts(), bsr.block_columns());
                let of_row = |row: usize| starts[row] as usize..starts[row + 1] as usize;
                let pattern = find.pattern(rows, columns, of_row, |at| indices.get(at))?;
                let values = Reals::F32(in_order(bsr.values(), &pattern.order, height, |value| value));
                (pattern, values)
            }
            Weight::F32(array) => {
                let of_row = |row: usize| row * columns..(row + 1) * columns;
                let pattern = find.pattern(rows, columns, of_row, |at| at % columns)?;
                let dense: Vec<f32> = array.iter().copied().collect();
                let value = |row: usize, column| dense.get(row * columns + column).copied().unwrap_or(0.0);
                let block = |row, column| (0..height).map(move |within| value(row * height + within, column));
                let values = (0..rows).flat_map(|row| (0..columns).flat_map(move |column| block(row, column)));
                let values = Reals::F32(in_order(&values.collect::<Vec<_>>(), &pattern.order, height, |value| value));
                (pattern, values)
            }
            _ => return None,
        };
        let Pattern { starts, places, .. } = pattern;
        let part_len = find.part_len();
        let (together, classes) = (division.together, lines.shifts.len());
        Some(Self { height, rows, parts, part_len, together, classes, starts, places, values })
    }

    /// Output channels of a block.
    #[inline(always)]
    pub(super) fn height(&self) -> usize {
        self.height
    }

    /// Rows of blocks.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Rows of a group: whoever reads them begins with the first of such.
    pub(super) fn together(&self) -> usize {
        self.together
    }

    /// Parts of the input channels.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// Elements of the planes from one part to the next.
    pub(super) fn part_len(&self) -> usize {
        self.part_len
    }

    /// Bytes in all.
    pub(super) fn bytes(&self) -> usize {
        let values = match &self.values {
            Reals::F32(values) => size_of_val(&values[..]),
            Reals::F16(values) => size_of_val(&values[..]),
        };
        values + size_of_val(&self.places[..]) + size_of_val(&self.starts[..])
    }

    /// The first segment, of one class each, of these rows, which are a group, within a part.
    #[inline(always)]
    pub(super) fn segment(&self, group: &Range<usize>, part: usize) -> usize {
        (group.start * self.parts + part * group.len()) * self.classes
    }

    /// The entries of a segment.
    #[inline(always)]
    pub(super) fn range(&self, segment: usize) -> Range<usize> {
        self.starts[segment] as usize..self.starts[segment + 1] as usize
    }

    /// Where the entries of the row whose first segment this is end.
    #[inline(always)]
    pub(super) fn end(&self, segment: usize) -> usize {
        self.starts[segment + self.classes] as usize
    }

    /// Places, of which there are some more than entries.
    #[inline(always)]
    pub(super) fn places(&self) -> &[u16] {
        &self.places
    }

    /// The values of the entries from `at` on, as many each as blocks are high. `widened` holds those of `have`, where they
    /// have to be widened: it has room for [`WIDENED`] and a vector more. Fewer than up to `end` may be there: `have` then says up to where.
    #[inline(always)]
    pub(super) fn values<'a, S: Simd, const H: usize>(
        &'a self,
        simd: S,
        at: usize,
        end: usize,
        have: &mut Range<usize>,
        widened: &'a mut [f32],
    ) -> &'a [[f32; H]] {
        let halves = match &self.values {
            Reals::F32(values) => {
                *have = at..end;
                return values[at * H..end * H].as_chunks().0;
            }
            Reals::F16(halves) => halves,
        };
        if at >= have.end {
            *have = at..end.min(at + WIDENED);
            let count = have.len().next_multiple_of(S::LANES);
            let (from, to) = (&halves[at..at + count], &mut widened[..count]);
            let places = self.places[at..].as_ptr();
            for vector in (0..count).step_by(S::LANES) {
                simd.prefetch(from.as_ptr().wrapping_add(vector).wrapping_byte_add(AHEAD).cast());
                simd.prefetch(places.wrapping_add(vector).wrapping_byte_add(AHEAD).cast());
                // SAFETY: both have `count` elements, which are whole vectors.
                unsafe { simd.store(to.as_mut_ptr().add(vector), simd.load_half(from.as_ptr().add(vector))) };
            }
        }
        // Values of 16 bits come one an entry.
        widened[at - have.start..have.len()].as_chunks().0
    }
}

/// Where the entries of a weight are found.
struct Find<'a> {
    lines: &'a Lines,
    division: Division,
    parts: usize,
}

impl Find<'_> {
    /// Elements of the planes from one part to the next.
    fn part_len(&self) -> usize {
        self.division.channels * self.lines.channel()
    }

    /// The order of entries whose rows and columns these are.
    fn pattern(
        &self,
        rows: usize,
        columns: usize,
        of_row: impl Fn(usize) -> Range<usize>,
        column: impl Fn(usize) -> usize,
    ) -> Option<Pattern> {
        let Lines { taps, shifts, abreast, .. } = self.lines;
        // Of each column: part, class and place.
        let mut found = Vec::with_capacity(columns);
        for channel in 0..columns / taps.len().max(1) {
            let (part, within) = (channel / self.division.channels, channel % self.division.channels);
            for &(class, place) in taps {
                found.push((part, class, u16::try_from(within * self.lines.channel() + place).ok()?));
            }
        }
        let (mut places, mut order) = (Vec::new(), Vec::new());
        let mut starts: Vec<u32> = Vec::with_capacity(rows * self.parts * shifts.len() + 1);
        let mut next = Vec::new();
        let mut begin = 0;
        for first in (0..rows).step_by(self.division.together) {
            let group = first..rows.min(first + self.division.together);
            let segment =
                |row: usize, (part, class): (usize, usize)| (part * group.len() + row - first) * shifts.len() + class;
            // Entries are counted by segment, and then each takes the next place of its own.
            next.clear();
            next.resize(group.len() * self.parts * shifts.len(), 0usize);
            for row in group.clone() {
                for at in of_row(row) {
                    let (part, class, _) = found[column(at)];
                    next[segment(row, (part, class))] += 1;
                }
            }
            let of_part = group.len() * shifts.len();
            for (segment, count) in next.iter_mut().enumerate() {
                starts.push(u32::try_from(begin).ok()?);
                begin += std::mem::replace(count, begin).next_multiple_of(*abreast);
                // Read by what fills a vector up: the zeros behind the last channel.
                let zeros = self.lines.planes_len().saturating_sub(segment / of_part * self.part_len());
                places.resize(begin, if *abreast > 1 { u16::try_from(zeros).ok()? } else { 0 });
            }
            order.resize(begin, None);
            for row in group.clone() {
                for at in of_row(row) {
                    let (part, class, place) = found[column(at)];
                    let next = &mut next[segment(row, (part, class))];
                    (places[*next], order[*next]) = (place, Some(at));
                    *next += 1;
                }
            }
        }
        starts.push(u32::try_from(begin).ok()?);
        places.resize(begin + MOST_LANES, 0);
        places.shrink_to_fit();
        Some(Pattern { starts, places, order })
    }
}

/// Output channels of a block of a weight.
pub(super) fn height_of(weight: &Weight) -> usize {
    match weight {
        Weight::Csr(_) => 1,
        _ => TALL,
    }
}

/// Blocks of `len` values in this order, as they are stored, and some zeros.
fn in_order<T: Copy, R: Copy + Default>(
    values: &[T],
    order: &[Option<usize>],
    len: usize,
    stored: impl Fn(T) -> R,
) -> Vec<R> {
    let mut all = Vec::with_capacity(order.len() * len + MOST_LANES);
    for at in order {
        match at {
            Some(at) => all.extend(values[at * len..(at + 1) * len].iter().map(|&value| stored(value))),
            None => all.extend(std::iter::repeat_n(R::default(), len)),
        }
    }
    all.resize(order.len() * len + MOST_LANES, R::default());
    all
}
