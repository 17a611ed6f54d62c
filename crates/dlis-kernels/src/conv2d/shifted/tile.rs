//! The sums of a tile of outputs of one channel: in registers while those of one kind are added, then moved to where
//! they belong.

use super::super::sparse::{QUAD, TALL};
use super::entries::Entries;
use super::layout::{MOST_MOVED, Shift};
use crate::simd::Simd;

/// Some rows of blocks, of one group, within a part of the input channels.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) entries: &'a Entries,
    pub(super) shifts: &'a [Shift],
    /// The first of their segments: each row has one for each of the shifts.
    pub(super) segment: usize,
    pub(super) count: usize,
    /// Whether sums of another part are there already.
    pub(super) begun: bool,
}

impl Rows<'_> {
    /// Adds the entries' products for a tile of so many vectors, whose input is at `input` from an entry's place on, to
    /// `sums`, `[output channel][vector]`; `of_line` vectors are a line, or where that is 0, the one vector has the sums of
    /// entries abreast, four of each. What is there already counts if sums were begun. `widened` is for the values, see
    /// [`Entries::values`].
    ///
    /// # Safety
    ///
    /// `vectors` vectors must be readable at `input` from every place on, or four elements where `of_line` is 0. There are
    /// 1 to [`most_vectors`](super::most_vectors) of the entries' height, or 16 where that is 1, and they are whole lines
    /// of 1, 2, 4 or 8. The height is [`TALL`] or 1, and 1 where entries are abreast.
    #[inline(always)]
    pub(super) unsafe fn sum<S: Simd>(
        self,
        simd: S,
        input: *const f32,
        (vectors, of_line): (usize, usize),
        widened: &mut [f32],
        sums: &mut [f32],
    ) {
        // SAFETY: passed on. The numbers are vectors, entries that are summed apart, so that enough sums are under way to
        // hide the latency of a multiply-add, output channels, and vectors a line.
        unsafe {
            match (self.entries.height(), vectors, of_line) {
                (1, _, 0) => self.sum_in::<S, 1, 4, 1, 0>(simd, input, widened, sums),
                (1, 1, _) => self.sum_in::<S, 1, 4, 1, 1>(simd, input, widened, sums),
                (1, 2, 1) => self.sum_in::<S, 2, 4, 1, 1>(simd, input, widened, sums),
                (1, 3, _) => self.sum_in::<S, 3, 2, 1, 1>(simd, input, widened, sums),
                (1, 4, 1) => self.sum_in::<S, 4, 2, 1, 1>(simd, input, widened, sums),
                (1, 5, _) => self.sum_in::<S, 5, 1, 1, 1>(simd, input, widened, sums),
                (1, 6, 1) => self.sum_in::<S, 6, 1, 1, 1>(simd, input, widened, sums),
                (1, 7, _) => self.sum_in::<S, 7, 1, 1, 1>(simd, input, widened, sums),
                (1, 8, 1) => self.sum_in::<S, 8, 1, 1, 1>(simd, input, widened, sums),
                (1, _, 1) => self.sum_in::<S, 16, 1, 1, 1>(simd, input, widened, sums),
                (1, 2, _) => self.sum_in::<S, 2, 4, 1, 2>(simd, input, widened, sums),
                (1, 4, 2) => self.sum_in::<S, 4, 2, 1, 2>(simd, input, widened, sums),
                (1, 6, _) => self.sum_in::<S, 6, 1, 1, 2>(simd, input, widened, sums),
                (1, 8, 2) => self.sum_in::<S, 8, 1, 1, 2>(simd, input, widened, sums),
                (1, _, 2) => self.sum_in::<S, 16, 1, 1, 2>(simd, input, widened, sums),
                (1, 4, _) => self.sum_in::<S, 4, 2, 1, 4>(simd, input, widened, sums),
                (1, 8, 4) => self.sum_in::<S, 8, 1, 1, 4>(simd, input, widened, sums),
                (1, _, 4) => self.sum_in::<S, 16, 1, 1, 4>(simd, input, widened, sums),
                (1, 8, _) => self.sum_in::<S, 8, 1, 1, 8>(simd, input, widened, sums),
                (1, _, _) => self.sum_in::<S, 16, 1, 1, 8>(simd, input, widened, sums),
                (_, 1, _) => self.sum_in::<S, 1, 1, TALL, 1>(simd, input, widened, sums),
                (_, 2, 1) => self.sum_in::<S, 2, 1, TALL, 1>(simd, input, widened, sums),
                (_, 3, _) => self.sum_in::<S, 3, 1, TALL, 1>(simd, input, widened, sums),
                (_, _, 1) => self.sum_in::<S, 4, 1, TALL, 1>(simd, input, widened, sums),
                (_, 2, _) => self.sum_in::<S, 2, 1, TALL, 2>(simd, input, widened, sums),
                (_, _, 2) => self.sum_in::<S, 4, 1, TALL, 2>(simd, input, widened, sums),
                (_, _, _) => self.sum_in::<S, 4, 1, TALL, 4>(simd, input, widened, sums),
            }
        }
    }

    /// `V` vectors, `U` entries apart, `H` output channels, `L` vectors a line, or entries abreast.
    #[inline(always)]
    unsafe fn sum_in<S: Simd, const V: usize, const U: usize, const H: usize, const L: usize>(
        self,
        simd: S,
        input: *const f32,
        widened: &mut [f32],
        to: &mut [f32],
    ) {
        let segments = (self.segment..).step_by(self.shifts.len()).take(self.count);
        for (segment, to) in segments.zip(to.chunks_exact_mut(H * V * S::LANES)) {
            // SAFETY: passed on.
            unsafe { self.sum_row::<S, V, U, H, L>(simd, segment, input, widened, to) };
        }
    }

    /// The same of one row of blocks, whose first segment this is.
    #[inline(always)]
    unsafe fn sum_row<S: Simd, const V: usize, const U: usize, const H: usize, const L: usize>(
        self,
        simd: S,
        segment: usize,
        input: *const f32,
        widened: &mut [f32],
        to: &mut [f32],
    ) {
        assert!(to.len() >= H * V * S::LANES, "room for the sums");
        let places = self.entries.places();
        let end = self.entries.end(segment);
        let mut have = 0..0;
        let mut totals = [[simd.splat(0.0); V]; H];
        if self.begun {
            for (channel, totals) in totals.iter_mut().enumerate() {
                for (vector, total) in totals.iter_mut().enumerate() {
                    // SAFETY: checked above.
                    *total = unsafe { simd.load(to.as_ptr().add((channel * V + vector) * S::LANES)) };
                }
            }
        }
        for (class, shift) in self.shifts.iter().enumerate() {
            let of_class = self.entries.range(segment + class);
            if of_class.is_empty() {
                continue;
            }
            let mut sums = [[[simd.splat(0.0); V]; H]; U];
            let mut at = of_class.start;
            while at < of_class.end {
                let values = self.entries.values::<S, H>(simd, at, end, &mut have, widened);
                let count = values.len().min(of_class.end - at);
                // SAFETY: passed on.
                unsafe {
                    let (places, values) = (&places[at..at + count], &values[..count]);
                    if L == 0 {
                        add_abreast(simd, input, places, values, &mut sums);
                    } else {
                        add(simd, input, places, values, &mut sums);
                    }
                }
                at += count;
            }
            let sums = together(simd, sums);
            for (totals, mut moved) in totals.iter_mut().zip(sums) {
                match shift {
                    Shift::Columns(columns) => move_columns::<S, V, L>(simd, *columns, &mut moved),
                    Shift::Lanes(lanes) if V <= MOST_MOVED => move_lanes(simd, lanes, &mut moved),
                    Shift::Lanes(_) => unreachable!("rows are moved within two vectors"),
                }
                totals.iter_mut().zip(moved).for_each(|(total, sum)| *total = simd.add(*total, sum));
            }
        }
        for (channel, totals) in totals.iter().enumerate() {
            for (vector, &total) in totals.iter().enumerate() {
                // SAFETY: checked above.
                unsafe { simd.store(to.as_mut_ptr().add((channel * V + vector) * S::LANES), total) };
            }
        }
    }
}

/// Adds entries' products to the sums, each to those of its number modulo `U`.
///
/// # Safety
///
/// `V` vectors must be readable at `input` from every place on.
#[inline(always)]
unsafe fn add<S: Simd, const V: usize, const U: usize, const H: usize>(
    simd: S,
    input: *const f32,
    places: &[u16],
    values: &[[f32; H]],
    sums: &mut [[[S::Vector; V]; H]; U],
) {
    let (places, rest_places) = places.as_chunks::<U>();
    let (values, rest_values) = values.as_chunks::<U>();
    for (places, values) in places.iter().zip(values) {
        for ((&place, values), sums) in places.iter().zip(values).zip(sums.iter_mut()) {
            // SAFETY: passed on.
            unsafe { add_one(simd, input, place, values, sums) };
        }
    }
    for ((&place, values), sums) in rest_places.iter().zip(rest_values).zip(sums.iter_mut()) {
        // SAFETY: passed on.
        unsafe { add_one(simd, input, place, values, sums) };
    }
}

/// Adds one entry's products.
///
/// # Safety
///
/// `V` vectors must be readable at `input` from its place on.
#[inline(always)]
unsafe fn add_one<S: Simd, const V: usize, const H: usize>(
    simd: S,
    input: *const f32,
    place: u16,
    values: &[f32; H],
    sums: &mut [[S::Vector; V]; H],
) {
    let mut inputs = [simd.splat(0.0); V];
    for (vector, to) in inputs.iter_mut().enumerate() {
        // SAFETY: passed on.
        *to = unsafe { simd.load(input.add(usize::from(place) + vector * S::LANES)) };
    }
    for (sums, &value) in sums.iter_mut().zip(values) {
        let value = simd.splat(value);
        for (sum, &input) in sums.iter_mut().zip(&inputs) {
            *sum = simd.mul_add(value, input, *sum);
        }
    }
}

/// As [`add`], of four sums of each entry, several entries abreast.
///
/// # Safety
///
/// Four elements must be readable at `input` from every place on.
#[inline(always)]
unsafe fn add_abreast<S: Simd, const V: usize, const U: usize, const H: usize>(
    simd: S,
    input: *const f32,
    places: &[u16],
    values: &[[f32; H]],
    sums: &mut [[[S::Vector; V]; H]; U],
) {
    let values = values.as_flattened();
    let abreast = S::LANES / QUAD;
    assert!(places.len().is_multiple_of(abreast) && places.len() == values.len(), "entries fill vectors");
    let mut at = 0;
    while at + U * abreast <= places.len() {
        for (apart, sums) in sums.iter_mut().enumerate() {
            // SAFETY: so many entries are left; passed on.
            unsafe {
                add_vector(
                    simd,
                    input,
                    places.as_ptr().add(at + apart * abreast),
                    values.as_ptr().add(at + apart * abreast),
                    &mut sums[0][0],
                );
            };
        }
        at += U * abreast;
    }
    for sums in sums {
        if at < places.len() {
            // SAFETY: as above.
            unsafe { add_vector(simd, input, places.as_ptr().add(at), values.as_ptr().add(at), &mut sums[0][0]) };
        }
        at += abreast;
    }
}

/// Adds the entries of a vector, abreast.
///
/// # Safety
///
/// So many places and values must be there, and four elements readable at `input` from every place on.
#[inline(always)]
unsafe fn add_vector<S: Simd>(simd: S, input: *const f32, places: *const u16, values: *const f32, sum: &mut S::Vector) {
    // SAFETY: passed on.
    let (inputs, values) = unsafe { (simd.load_quads(input, places), simd.load_fourfold(values)) };
    *sum = simd.mul_add(values, inputs, *sum);
}

/// The sums of entries apart in one.
#[inline(always)]
fn together<S: Simd, const V: usize, const U: usize, const H: usize>(
    simd: S,
    mut sums: [[[S::Vector; V]; H]; U],
) -> [[S::Vector; V]; H] {
    let mut left = U;
    while left > 1 {
        for pair in 0..left / 2 {
            let other = sums[left - 1 - pair];
            let both = sums[pair].as_flattened_mut().iter_mut().zip(other.as_flattened());
            both.for_each(|(sum, &other)| *sum = simd.add(*sum, other));
        }
        left -= left / 2;
    }
    sums[0]
}

/// Each sum becomes that in the lane of this number in one of the vectors, or zero.
#[inline(always)]
fn move_lanes<S: Simd, const V: usize>(simd: S, lanes: &[u32], sums: &mut [S::Vector; V]) {
    let before = *sums;
    assert!(lanes.len() >= V * V * S::LANES, "a lane of each vector for each lane");
    for (to, sum) in sums.iter_mut().enumerate() {
        for (of, &before) in before.iter().enumerate() {
            // SAFETY: checked above.
            let moved = unsafe { simd.permute(before, lanes.as_ptr().add((to * V + of) * S::LANES)) };
            *sum = if of == 0 { moved } else { simd.add(*sum, moved) };
        }
    }
}

/// Each sum becomes that of the output so many columns further on in its line of `L` vectors, or zero.
#[inline(always)]
fn move_columns<S: Simd, const V: usize, const L: usize>(simd: S, columns: isize, sums: &mut [S::Vector; V]) {
    let zero = simd.splat(0.0);
    for _ in 0..columns.unsigned_abs() {
        let before = *sums;
        for (vector, sum) in sums.iter_mut().enumerate() {
            *sum = if columns > 0 {
                let after = if vector % L.max(1) == L.max(1) - 1 { zero } else { before[vector + 1] };
                simd.shift_down(before[vector], after)
            } else {
                let previous = if vector % L.max(1) == 0 { zero } else { before[vector - 1] };
                simd.shift_up(previous, before[vector])
            };
        }
    }
}
