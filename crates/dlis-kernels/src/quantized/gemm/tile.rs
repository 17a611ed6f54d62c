//! The part of the product that lives in registers.

use std::ops::Range;

use dlis_formats::Ternary;

use super::super::output::Tensors;
use super::super::simd::{AHEAD, Dot, DotWork, LIGHT};
use super::pack::Packing;
use super::{COLUMNS, PreparedGemm, Shape};

// Two steps of two products each are summed in 16 bits where a level needs that: of ternary weights and of four bits.
const _: () = assert!(4 * Ternary::MOST_STEPS.unsigned_abs() <= LIGHT && 4 * 8 <= LIGHT);

/// Some pixels of some blocks of output channels.
pub(super) struct Task<'a, D> {
    pub(super) prepared: &'a PreparedGemm<D>,
    pub(super) input: &'a [u8],
    pub(super) tensors: &'a Tensors<'a>,
    /// Blocks, counted over all groups; where patches are gathered, those of one group.
    pub(super) columns: Range<usize>,
    /// Output pixels, counted over the whole batch.
    pub(super) pixels: Range<usize>,
    /// Scratch for the weights of one block.
    pub(super) weights: &'a mut [u8],
    /// Scratch for patches.
    pub(super) patches: &'a mut [u8],
}

impl<P: Dot> DotWork for Task<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let Self { prepared, input, tensors, columns, pixels, weights, patches } = self;
        let shape = &prepared.shape;
        let blocks = shape.blocks::<D>();
        let panel = if shape.gathers { shape.panel::<D>() * D::ROWS } else { pixels.len() };
        for start in pixels.clone().step_by(panel.max(1)) {
            let pixels = start..pixels.end.min(start + panel);
            if shape.gathers {
                let patches = &mut patches[..pixels.len() * 4 * shape.quads];
                shape.gather(input, columns.start / blocks, start, prepared.zero_point, patches);
            }
            for column in columns.clone() {
                let (group, block) = (column / blocks, column % blocks);
                let width = shape.width::<D>(block);
                let (len, patches) = (width * shape.quads * 4, &*patches);
                let column =
                    |weights| Column { prepared, input, tensors, patches, weights, group, block, width, panel: start };
                if shape.packing == Packing::Codes {
                    column(prepared.weights.packed(group, block, len)).run_codes(d, pixels.clone(), weights);
                } else {
                    column(prepared.weights.block(group, block, len, weights)).run(d, pixels.clone());
                }
            }
        }
    }
}

/// Some pixels of a block, `COLUMNS` vectors wide; `FULL` says that these are whole. A function of its own for each
/// kind, as the compiler takes a minute for all of them in one.
struct Tiles<'a, P, const COLUMNS: usize, const FULL: bool> {
    column: Column<'a, P>,
    pixels: Range<usize>,
}

impl<P: Dot, const COLUMNS: usize, const FULL: bool> DotWork for Tiles<'_, P, COLUMNS, FULL> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        self.column.tiles::<D, COLUMNS, FULL, false>(d, self.pixels);
    }
}

/// The same, where weights are ternary codes.
struct DecodedTiles<'a, P, const COLUMNS: usize, const FULL: bool> {
    column: Column<'a, P>,
    pixels: Range<usize>,
    kept: &'a mut [u8],
}

impl<P: Dot, const COLUMNS: usize, const FULL: bool> DotWork for DecodedTiles<'_, P, COLUMNS, FULL> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        self.column.decoded::<D, COLUMNS, FULL>(d, self.pixels, self.kept);
    }
}

/// One block of output channels.
#[derive(Clone, Copy)]
struct Column<'a, P> {
    prepared: &'a PreparedGemm<P>,
    input: &'a [u8],
    tensors: &'a Tensors<'a>,
    patches: &'a [u8],
    weights: &'a [u8],
    group: usize,
    block: usize,
    /// Output channels of the block.
    width: usize,
    /// The pixel that the first of the patches belongs to.
    panel: usize,
}

impl<P: Dot> Column<'_, P> {
    /// Computes some pixels.
    #[inline(always)]
    fn run<D: Dot>(&self, d: D, pixels: Range<usize>) {
        let column = *self;
        match (self.width > D::LANES, self.width.is_multiple_of(D::LANES)) {
            (true, true) => d.vectorize(Tiles::<P, COLUMNS, true> { column, pixels }),
            (true, false) => d.vectorize(Tiles::<P, COLUMNS, false> { column, pixels }),
            (false, true) => d.vectorize(Tiles::<P, 1, true> { column, pixels }),
            (false, false) => d.vectorize(Tiles::<P, 1, false> { column, pixels }),
        }
    }

    /// The same, where weights are ternary codes.
    #[inline(always)]
    fn run_codes<D: Dot>(&self, d: D, pixels: Range<usize>, kept: &mut [u8]) {
        let column = *self;
        match (self.width > D::LANES, self.width.is_multiple_of(D::LANES)) {
            (true, true) => d.vectorize(DecodedTiles::<P, COLUMNS, true> { column, pixels, kept }),
            (true, false) => d.vectorize(DecodedTiles::<P, COLUMNS, false> { column, pixels, kept }),
            (false, true) => d.vectorize(DecodedTiles::<P, 1, true> { column, pixels, kept }),
            (false, false) => d.vectorize(DecodedTiles::<P, 1, false> { column, pixels, kept }),
        }
    }

    /// The first tile leaves what it decodes in `kept`, for the others, if they are enough ([`Shape::keeps`]).
    #[inline(always)]
    fn decoded<D: Dot, const COLUMNS: usize, const FULL: bool>(&self, d: D, mut pixels: Range<usize>, kept: &mut [u8]) {
        if !Shape::keeps::<D>(pixels.len()) {
            return self.tiles::<D, COLUMNS, FULL, true>(d, pixels);
        }
        pixels.start += if D::ROWS >= 8 {
            self.tile::<D, 8, COLUMNS, FULL, true, true>(d, pixels.start, kept)
        } else {
            self.tile::<D, 4, COLUMNS, FULL, true, true>(d, pixels.start, kept)
        };
        let weights = &kept[..self.width * self.prepared.shape.quads * 4];
        Column { weights, ..*self }.tiles::<D, COLUMNS, FULL, false>(d, pixels);
    }

    /// Computes some pixels; `FULL` says that the block is whole vectors, `CODES` that its weights are ternary codes.
    #[inline(always)]
    fn tiles<D: Dot, const COLUMNS: usize, const FULL: bool, const CODES: bool>(&self, d: D, pixels: Range<usize>) {
        let mut at = pixels.start;
        while at < pixels.end {
            let left = pixels.end - at;
            at += if D::ROWS >= 8 && left >= 8 {
                self.tile::<D, 8, COLUMNS, FULL, CODES, false>(d, at, &mut [])
            } else if left >= 4 {
                self.tile::<D, 4, COLUMNS, FULL, CODES, false>(d, at, &mut [])
            } else if left >= 2 {
                self.tile::<D, 2, COLUMNS, FULL, CODES, false>(d, at, &mut [])
            } else {
                self.tile::<D, 1, COLUMNS, FULL, CODES, false>(d, at, &mut [])
            };
        }
    }

    /// Computes the pixels `first..first + ROWS` and says how many they are. If `KEEP`, what the codes of the block
    /// stand for goes to `kept`, which has room for a vector more.
    #[inline(always)]
    fn tile<D, const ROWS: usize, const COLUMNS: usize, const FULL: bool, const CODES: bool, const KEEP: bool>(
        &self,
        d: D,
        first: usize,
        kept: &mut [u8],
    ) -> usize
    where
        D: Dot,
    {
        let PreparedGemm { shape, weights, output: constants, padding, .. } = self.prepared;
        let Shape { conv, packing, input, output, depth, per_group, quads, gathers, pointwise } = *shape;
        let slot = self.group * shape.slots::<D>() + self.block * Shape::block::<D>();
        let mut sums = [[d.splat_int(0); COLUMNS]; ROWS];
        for sums in &mut sums {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a group's slots are padded to whole vectors, and the block has `COLUMNS`.
                *sum = unsafe { constants.start(d, slot + v * D::LANES) };
            }
        }
        let per_byte = if CODES { packing.per_byte() } else { 1 };
        assert_eq!(self.weights.len(), self.width * quads * 4 / per_byte, "weights of the block");
        let mut weight = self.weights.as_ptr().cast::<i8>();
        assert!(!KEEP || kept.len() >= (self.width * quads + D::LANES) * 4, "room for the weights of the block");
        let mut kept = kept.as_mut_ptr().cast::<i8>();
        let tables = if CODES { &weights.tables()[4 * slot..][..4 * COLUMNS * D::LANES] } else { &[] };
        if gathers || pointwise {
            let row = 4 * quads;
            let from = if gathers { first - self.panel } else { first };
            let patches = &(if gathers { self.patches } else { self.input })[from * row..][..ROWS * row];
            let mut places = [patches.as_ptr(); ROWS];
            for (index, place) in places.iter_mut().enumerate() {
                *place = patches[index * row..].as_ptr();
            }
            // SAFETY: every place is of `quads` times four bytes, and the weights of each channel are as many. Of
            // codes, the steps are a multiple of four, and there is a table for each lane; `kept` is as asserted.
            unsafe {
                if CODES {
                    let (from, to) = (&mut weight, &mut kept);
                    self.decode::<D, ROWS, COLUMNS, FULL, KEEP>(d, &mut sums, &places, tables, from, to, quads);
                } else {
                    self.accumulate::<D, ROWS, COLUMNS, FULL>(d, &mut sums, &places, &mut weight, quads);
                }
            }
        } else {
            // Where each pixel's window begins, in input coordinates: before the first where the padding is, which
            // as an unsigned number is beyond the last. Counted on, as divisions are slow.
            let mut origin = [(0, 0, 0); ROWS];
            let (mut image, within) = (first / output.pixels(), first % output.pixels());
            let (mut y, mut x) = (within / output.width, within % output.width);
            let along = |position: usize, axis: usize| {
                (position * conv.window.stride[axis]).wrapping_sub(conv.window.padding[axis])
            };
            for origin in &mut origin {
                *origin = (image * input.height, along(y, 0), along(x, 1));
                x += 1;
                if x == output.width {
                    (x, y) = (0, y + 1);
                    if y == output.height {
                        (y, image) = (0, image + 1);
                    }
                }
            }
            let [kernel_height, kernel_width] = conv.window.kernel;
            for tap_y in 0..kernel_height {
                // Of each pixel the row that the taps of this row read, if there is one, from the window's first column on.
                let mut lines = [(self.input.as_ptr(), false); ROWS];
                for (line, &(image_rows, y, x)) in lines.iter_mut().zip(&origin) {
                    let y = y.wrapping_add(tap_y * conv.window.dilation[0]);
                    let first = (image_rows.wrapping_add(y)).wrapping_mul(input.width).wrapping_add(x);
                    let at = first.wrapping_mul(input.channels).wrapping_add(self.group * depth);
                    *line = (self.input.as_ptr().wrapping_add(at), y < input.height);
                }
                for tap_x in 0..kernel_width {
                    let column = tap_x * conv.window.dilation[1];
                    let mut places = [padding.as_slice().as_ptr(); ROWS];
                    for ((place, &(line, there)), &(_, _, x)) in places.iter_mut().zip(&lines).zip(&origin) {
                        if there && x.wrapping_add(column) < input.width {
                            *place = line.wrapping_add(column.wrapping_mul(input.channels));
                        }
                    }
                    // SAFETY: image, row and column of a place lie within the input, whose size `run` has checked, or it is
                    // padding; it is of the `depth` channels of a group, which four divides, sixteen where weights are
                    // codes; the weights are as many for each tap. There is a table for each lane; `kept`
                    // is as asserted.
                    unsafe {
                        let quads = depth / 4;
                        if CODES {
                            let (from, to) = (&mut weight, &mut kept);
                            self.decode::<D, ROWS, COLUMNS, FULL, KEEP>(d, &mut sums, &places, tables, from, to, quads);
                        } else {
                            self.accumulate::<D, ROWS, COLUMNS, FULL>(d, &mut sums, &places, &mut weight, quads);
                        }
                    }
                }
            }
        }
        let at = first * output.channels + self.group * per_group + self.block * Shape::block::<D>();
        let width = if FULL { COLUMNS * D::LANES } else { self.width };
        // SAFETY: slots as above; pixels and blocks of channels belong to one task each, so that no other part in
        // use overlaps.
        unsafe { constants.store(d, self.tensors, sums, slot, at, output.channels, width) };
        ROWS
    }

    /// Adds `quads` times four products to every sum, and moves `weight` past the weights used.
    ///
    /// # Safety
    ///
    /// At each place `4 * quads` bytes must be readable, at `weight` as many for each channel of the block.
    #[inline(always)]
    unsafe fn accumulate<D: Dot, const ROWS: usize, const COLUMNS: usize, const FULL: bool>(
        &self,
        d: D,
        sums: &mut [[D::Ints; COLUMNS]; ROWS],
        places: &[*const u8; ROWS],
        weight: &mut *const i8,
        quads: usize,
    ) {
        let mut from = *weight;
        let mut done = 0;
        // Where sums are first taken in 16 bits, weights are small enough for two steps before they are widened.
        while D::NEEDS_LIGHT && done + 2 <= quads {
            // SAFETY: as below.
            unsafe {
                let first = self.vectors::<D, COLUMNS, FULL>(d, from);
                let second = self.vectors::<D, COLUMNS, FULL>(d, from.add(4 * self.width));
                for (&place, sums) in places.iter().zip(sums.iter_mut()) {
                    *sums = d.dot_twice(*sums, place, [done, done + 1], [first, second]);
                }
                from = from.add(8 * self.width);
            }
            done += 2;
        }
        for quad in done..quads {
            // SAFETY: all reads are within what the caller promises: the block has more than `COLUMNS - 1` vectors
            // of channels and `COLUMNS` of them where it is `FULL`, and `from` moves on by its width.
            unsafe {
                let columns = self.vectors::<D, COLUMNS, FULL>(d, from);
                for (place, sums) in places.iter().zip(sums.iter_mut()) {
                    let x = d.broadcast(place.add(4 * quad));
                    for (sum, &column) in sums.iter_mut().zip(&columns) {
                        *sum = d.dot_shared(*sum, x, column);
                    }
                }
                from = from.add(4 * self.width);
            }
        }
        *weight = from;
    }

    /// The weights of a step of four inputs, and a hint that those a page further on are read soon.
    ///
    /// # Safety
    ///
    /// At `from` four bytes for each channel of the block must be readable.
    #[inline(always)]
    unsafe fn vectors<D: Dot, const COLUMNS: usize, const FULL: bool>(
        &self,
        d: D,
        from: *const i8,
    ) -> [D::Weights; COLUMNS] {
        // SAFETY: the block has more than `COLUMNS - 1` vectors of channels and `COLUMNS` of them where it is `FULL`.
        unsafe {
            let first = if FULL || COLUMNS > 1 { d.weights(from) } else { d.some_weights(from, self.width) };
            let mut columns = [first; COLUMNS];
            d.prefetch(from.wrapping_add(AHEAD));
            for (v, column) in columns.iter_mut().enumerate().skip(1) {
                let at = from.add(v * D::LANES * 4);
                *column = if FULL { d.weights(at) } else { d.some_weights(at, self.width - v * D::LANES) };
                if D::LANES >= 16 {
                    d.prefetch(at.wrapping_add(AHEAD));
                }
            }
            columns
        }
    }

    /// As [`accumulate`](Self::accumulate), of codes, which are decoded by the tables of the block's channels and, if
    /// `KEEP`, left at `kept`, which moves on as well.
    ///
    /// # Safety
    ///
    /// `quads` must be a multiple of four and `tables` have four bytes for each lane of the block's vectors. At each
    /// place `4 * quads` bytes must be readable, at `weight` a quarter as many for each channel of the block. If `KEEP`,
    /// `4 * quads` bytes for each channel must be writable at `kept`, and a vector of weights after them.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "two places to read from and two to write to")]
    unsafe fn decode<D: Dot, const ROWS: usize, const COLUMNS: usize, const FULL: bool, const KEEP: bool>(
        &self,
        d: D,
        sums: &mut [[D::Ints; COLUMNS]; ROWS],
        places: &[*const u8; ROWS],
        tables: &[u8],
        weight: &mut *const i8,
        kept: &mut *mut i8,
        quads: usize,
    ) {
        let mut from = weight.cast::<u8>();
        // SAFETY: all reads are within what the caller promises: the block has more than `COLUMNS - 1` vectors of
        // channels and `COLUMNS` of them where it is `FULL`, and `from` moves on by its width, as `kept` does. What a
        // vector writes beyond the width, the next step writes over.
        unsafe {
            let mut of_lanes = [d.tables(tables.as_ptr()); COLUMNS];
            for (v, of_vector) in of_lanes.iter_mut().enumerate().skip(1) {
                *of_vector = d.tables(tables.as_ptr().add(v * D::LANES * 4));
            }
            for four in 0..quads / 4 {
                let first = if FULL || COLUMNS > 1 { d.codes(from) } else { d.some_codes(from, self.width) };
                let mut codes = [first; COLUMNS];
                d.prefetch(from.cast::<i8>().wrapping_add(AHEAD));
                for (v, codes) in codes.iter_mut().enumerate().skip(1) {
                    let at = from.add(v * D::LANES * 4);
                    *codes = if FULL { d.codes(at) } else { d.some_codes(at, self.width - v * D::LANES) };
                    if D::LANES >= 16 {
                        d.prefetch(at.cast::<i8>().wrapping_add(AHEAD));
                    }
                }
                let steps = if D::NEEDS_LIGHT {
                    let [a, b] = two_steps::<D, ROWS, COLUMNS, 0, 1>(d, sums, places, 4 * four, &codes, &of_lanes);
                    let [c, e] = two_steps::<D, ROWS, COLUMNS, 2, 3>(d, sums, places, 4 * four, &codes, &of_lanes);
                    [a, b, c, e]
                } else {
                    [
                        step::<D, ROWS, COLUMNS, 0>(d, sums, places, 16 * four, &codes, &of_lanes),
                        step::<D, ROWS, COLUMNS, 1>(d, sums, places, 16 * four, &codes, &of_lanes),
                        step::<D, ROWS, COLUMNS, 2>(d, sums, places, 16 * four, &codes, &of_lanes),
                        step::<D, ROWS, COLUMNS, 3>(d, sums, places, 16 * four, &codes, &of_lanes),
                    ]
                };
                if KEEP {
                    for weights in steps {
                        for (v, weights) in weights.into_iter().enumerate() {
                            d.store_weights(kept.add(v * D::LANES * 4), weights);
                        }
                        *kept = kept.add(4 * self.width);
                    }
                }
                from = from.add(4 * self.width);
            }
        }
        *weight = from.cast();
    }
}

/// What the codes of a step stand for.
#[inline(always)]
fn decoded<D: Dot, const COLUMNS: usize, const PLACE: usize>(
    d: D,
    codes: &[D::Codes; COLUMNS],
    tables: &[D::Tables; COLUMNS],
) -> [D::Weights; COLUMNS] {
    let mut weights = [d.decode::<PLACE>(codes[0], tables[0]); COLUMNS];
    for v in 1..COLUMNS {
        weights[v] = d.decode::<PLACE>(codes[v], tables[v]);
    }
    weights
}

/// Adds eight products to every sum, of the inputs of the steps `A` and `B` of those from the step `quad` on and the
/// weights of their codes, which it returns.
///
/// # Safety
///
/// At each place the inputs of four steps from `quad` on must be readable.
#[inline(always)]
unsafe fn two_steps<D: Dot, const ROWS: usize, const COLUMNS: usize, const A: usize, const B: usize>(
    d: D,
    sums: &mut [[D::Ints; COLUMNS]; ROWS],
    places: &[*const u8; ROWS],
    quad: usize,
    codes: &[D::Codes; COLUMNS],
    tables: &[D::Tables; COLUMNS],
) -> [[D::Weights; COLUMNS]; 2] {
    let (first, second) = (decoded::<D, COLUMNS, A>(d, codes, tables), decoded::<D, COLUMNS, B>(d, codes, tables));
    for (&place, sums) in places.iter().zip(sums) {
        // SAFETY: as promised.
        *sums = unsafe { d.dot_twice(*sums, place, [quad + A, quad + B], [first, second]) };
    }
    [first, second]
}

/// Adds four products to every sum, of the inputs of the step `PLACE` from `at` on and the weights of its codes, which it
/// returns.
///
/// # Safety
///
/// At each place `at + 16` bytes must be readable.
#[inline(always)]
unsafe fn step<D: Dot, const ROWS: usize, const COLUMNS: usize, const PLACE: usize>(
    d: D,
    sums: &mut [[D::Ints; COLUMNS]; ROWS],
    places: &[*const u8; ROWS],
    at: usize,
    codes: &[D::Codes; COLUMNS],
    tables: &[D::Tables; COLUMNS],
) -> [D::Weights; COLUMNS] {
    let weights = decoded::<D, COLUMNS, PLACE>(d, codes, tables);
    for (place, sums) in places.iter().zip(sums) {
        // SAFETY: as promised.
        let x = unsafe { d.broadcast(place.add(at + 4 * PLACE)) };
        for (sum, &weights) in sums.iter_mut().zip(&weights) {
            *sum = d.dot_shared(*sum, x, weights);
        }
    }
    weights
}
