//! The part of the product that lives in registers.

use std::ops::Range;

use super::super::output::Tensors;
use super::super::simd::{Dot, DotWork};
use super::{COLUMNS, PreparedGemm, Shape};

/// How far ahead of their use weights are prefetched: a page, as the processor's own prefetchers stop at the end of
/// one, and a layer of few pixels does little else than read weights.
const AHEAD: usize = 4096;

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
                let weights = prepared.weights.block(group, block, width * shape.quads * 4, weights);
                let column = Column { prepared, input, tensors, patches, weights, group, block, width, panel: start };
                match (width > D::LANES, width.is_multiple_of(D::LANES)) {
                    (true, true) => column.run::<D, COLUMNS, true>(d, pixels.clone()),
                    (true, false) => column.run::<D, COLUMNS, false>(d, pixels.clone()),
                    (false, true) => column.run::<D, 1, true>(d, pixels.clone()),
                    (false, false) => column.run::<D, 1, false>(d, pixels.clone()),
                }
            }
        }
    }
}

/// One block of output channels.
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
    /// Computes some pixels; `FULL` says that the block is whole vectors.
    #[inline(always)]
    fn run<D: Dot, const COLUMNS: usize, const FULL: bool>(&self, d: D, pixels: Range<usize>) {
        let mut at = pixels.start;
        while at < pixels.end {
            let left = pixels.end - at;
            at += if D::ROWS >= 8 && left >= 8 {
                self.tile::<D, 8, COLUMNS, FULL>(d, at)
            } else if left >= 4 {
                self.tile::<D, 4, COLUMNS, FULL>(d, at)
            } else if left >= 2 {
                self.tile::<D, 2, COLUMNS, FULL>(d, at)
            } else {
                self.tile::<D, 1, COLUMNS, FULL>(d, at)
            };
        }
    }

    /// Computes the pixels `first..first + ROWS` and says how many they are.
    #[inline(always)]
    fn tile<D: Dot, const ROWS: usize, const COLUMNS: usize, const FULL: bool>(&self, d: D, first: usize) -> usize {
        let PreparedGemm { shape, output: constants, padding, .. } = self.prepared;
        let Shape { conv, input, output, depth, per_group, quads, gathers } = *shape;
        let slot = self.group * shape.slots::<D>() + self.block * Shape::block::<D>();
        let mut sums = [[d.splat_int(0); COLUMNS]; ROWS];
        for sums in &mut sums {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a group's slots are padded to whole vectors, and the block has `COLUMNS`.
                *sum = unsafe { constants.start(d, slot + v * D::LANES) };
            }
        }
        assert_eq!(self.weights.len(), self.width * quads * 4, "weights of the block");
        let mut weight = self.weights.as_ptr().cast::<i8>();
        if gathers {
            let row = 4 * quads;
            let patches = &self.patches[(first - self.panel) * row..][..ROWS * row];
            let mut places = [patches.as_ptr(); ROWS];
            for (index, place) in places.iter_mut().enumerate() {
                *place = patches[index * row..].as_ptr();
            }
            // SAFETY: every place is of `quads` times four bytes, as are the weights of each channel.
            unsafe { self.accumulate::<D, ROWS, COLUMNS, FULL>(d, &mut sums, &places, &mut weight, quads) };
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
                for tap_x in 0..kernel_width {
                    let mut places = [padding.as_slice().as_ptr(); ROWS];
                    for (place, &(image_rows, y, x)) in places.iter_mut().zip(&origin) {
                        let y = y.wrapping_add(tap_y * conv.window.dilation[0]);
                        let x = x.wrapping_add(tap_x * conv.window.dilation[1]);
                        if y < input.height && x < input.width {
                            let at = ((image_rows + y) * input.width + x) * input.channels + self.group * depth;
                            debug_assert!(at + depth <= self.input.len(), "input pixel in bounds");
                            // SAFETY: image, row and column lie within the input and `run` has checked its size.
                            *place = unsafe { self.input.as_ptr().add(at) };
                        }
                    }
                    // SAFETY: every place is of the `depth` channels of a group, which four divides; the weights are
                    // as many for each tap.
                    unsafe { self.accumulate::<D, ROWS, COLUMNS, FULL>(d, &mut sums, &places, &mut weight, depth / 4) };
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
        for quad in 0..quads {
            // SAFETY: all reads are within what the caller promises: the block has more than `COLUMNS - 1` vectors
            // of channels and `COLUMNS` of them where it is `FULL`, and `from` moves on by its width.
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
                for (place, sums) in places.iter().zip(sums.iter_mut()) {
                    let x = d.broadcast(place.add(4 * quad));
                    for (sum, &column) in sums.iter_mut().zip(&columns) {
                        *sum = d.dot(*sum, x, column);
                    }
                }
                from = from.add(4 * self.width);
            }
        }
        *weight = from;
    }
}
