//! Convolution and linear layers on u8 activations, at levels that sum products in 16 bits first: weights in sets of
//! vectors whose sums fit there ([`sets`]).
//!
//! As for other levels, output pixels are the rows of a product and output channels its columns. But inputs are not taken
//! in the order in which they lie: each vector of weights says where its four are, which is the same for all pixels, as
//! the padding is part of what is read ([`bands`]).

mod bands;
mod sets;
mod turned;

use std::ops::Range;

use dlis_backend::{AlignedBytes, Footprint, Io, Parallel, Prepared, Scratch, TensorSpec};
use dlis_model::Conv2d;

use self::bands::Source;
use self::sets::{AlignedSets, FOUR, MAX_BYTES, Sets, TWO, Vector, match_block};
use self::turned::Turned;
use super::output::{Output, Tensors};
use super::simd::{AHEAD, Dot, DotWork};
use crate::tasks::Tasks;

/// Pixels of a full tile, of one vector of channels: as many as there are registers for.
const ROWS: usize = 8;
/// Vectors of channels of a task.
const BLOCKS: usize = 4;
/// Most bytes that a window may span, so that the places of its inputs can be told.
const MAX_SPAN: usize = 4 << 16;
/// What windows and rows must keep within.
pub(super) const LIMITS: &str = "it has room for windows of 256 KiB and rows of 16 MiB of input";

/// Whether a layer keeps within the limits.
pub(super) fn fits(conv: &Conv2d, input: TensorSpec, output: TensorSpec) -> bool {
    Source::new(*conv, input, output, MAX_SPAN).is_some()
}

/// A layer that keeps within the limits, of values in row-major order, `[out][channel][tap]`, and constants of which each
/// group's begin with a whole vector. None, if it does not.
pub(super) fn prepare<D: Dot>(
    dot: D,
    conv: Conv2d,
    specs: [TensorSpec; 2],
    values: &[i8],
    constants: Output,
    zero_point: u8,
) -> Option<Box<dyn Prepared>> {
    // Other levels are never asked, and need not be compiled.
    if D::NEEDS_LIGHT && turned::suits(&conv, &specs[1], &constants) {
        return Some(Box::new(Turned::new(dot, conv, specs, values, constants, zero_point)?));
    }
    Some(Box::new(Light::new(dot, conv, specs, values, constants, zero_point)?))
}

/// A layer with its weights in sets of vectors of channels.
struct Light<D> {
    dot: D,
    input: TensorSpec,
    output: TensorSpec,
    source: Source,
    groups: usize,
    /// Output channels of a group, and the slots of their constants.
    per_group: usize,
    slots: usize,
    fours: AlignedSets<FOUR>,
    twos: AlignedSets<TWO>,
    constants: Output,
    zero_point: u8,
}

impl<D: Dot> Light<D> {
    /// As [`prepare`].
    fn new(
        dot: D,
        conv: Conv2d,
        [input, output]: [TensorSpec; 2],
        values: &[i8],
        constants: Output,
        zero_point: u8,
    ) -> Option<Self> {
        const { assert!(!D::NEEDS_LIGHT || 4 * D::LANES <= MAX_BYTES, "vectors of weights have room for a level's") };
        let source = Source::new(conv, input, output, MAX_SPAN)?;
        let ([_, kernel_width], taps) = (conv.window.kernel, conv.window.taps());
        let of_group = conv.in_channels / conv.groups;
        let (mut fours, mut twos) = (Sets::new(), Sets::new());
        for of_group_rows in values.chunks(conv.out_channels / conv.groups * of_group * taps) {
            for of_block in of_group_rows.chunks(D::LANES * of_group * taps) {
                let mut vectors = Vec::with_capacity(taps * source.depth() / 4);
                for tap in 0..taps {
                    for first in (0..source.depth()).step_by(4) {
                        let place = (source.tap(tap / kernel_width, tap % kernel_width) + first) / 4;
                        let place = u16::try_from(place).ok()?;
                        let mut weights = vec![0; 4 * D::LANES];
                        for (weights, row) in weights.chunks_exact_mut(4).zip(of_block.chunks(of_group * taps)) {
                            for (weight, channel) in weights.iter_mut().zip(first..of_group) {
                                *weight = row[channel * taps + tap].cast_unsigned();
                            }
                        }
                        vectors.extend(Vector::light(place, &weights));
                    }
                }
                match_block(&vectors, 4 * D::LANES, &mut fours, &mut twos);
            }
        }
        let (fours, twos) = (fours.aligned(), twos.aligned());
        let (groups, per_group) = (conv.groups, conv.out_channels / conv.groups);
        let slots = per_group.next_multiple_of(D::LANES);
        Some(Self { dot, input, output, source, groups, per_group, slots, fours, twos, constants, zero_point })
    }
}

impl<D: Dot> Prepared for Light<D> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let weight_bytes = self.fours.bytes() + self.twos.bytes() + self.constants.bytes();
        let worker_scratch_bytes = AlignedBytes::round_up(self.source.scratch());
        Footprint { weight_bytes, scratch_bytes: 0, worker_scratch_bytes }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0);
        assert!(
            input.spec().same_bytes(&self.input) && io.output_spec().same_bytes(&self.output),
            "tensors of the operation"
        );
        let tensors = Tensors::of(io, self.constants.has_residual());
        // A task is a band of pixels and a few blocks of a group. Enough tasks that a free worker finds one, few enough
        // that the weights are not read again and again.
        let blocks = self.slots / D::LANES;
        let columns_of_group = blocks.div_ceil(BLOCKS);
        let columns = self.groups * columns_of_group;
        let wanted = if parallel.threads() == 1 { 1 } else { (8 * parallel.threads()).div_ceil(columns) };
        let bands = self.source.bands(wanted);
        let weight_bytes = self.fours.bytes() + self.twos.bytes();
        // Where columns are outside, each of them copies all bands that a worker has more than one of.
        let copies = if self.source.is_copied() { columns.div_ceil(parallel.threads()) } else { 1 };
        let input_bytes = input.spec().bytes().saturating_mul(copies);
        let tasks = Tasks::new(columns, self.source.count(bands), weight_bytes, input_bytes);
        let (source, input) = (&self.source, (input.u8(), self.zero_point));
        let scratch = (scratch, AlignedBytes::round_up(source.scratch()));
        source.for_each_task((tasks, bands), input, scratch, parallel, |column, pixels, from, _| {
            let first = column % columns_of_group * BLOCKS;
            self.dot.vectorize(Task {
                layer: self,
                from,
                tensors: &tensors,
                group: column / columns_of_group,
                blocks: first..(first + BLOCKS).min(blocks),
                pixels,
            });
        });
    }
}

/// A band of pixels of some blocks of a group.
struct Task<'a, D> {
    layer: &'a Light<D>,
    /// The input, or the copy for the band.
    from: &'a [u8],
    tensors: &'a Tensors<'a>,
    group: usize,
    blocks: Range<usize>,
    pixels: Range<usize>,
}

impl<P: Dot> DotWork for Task<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let mut windows = self.layer.source.windows(self.group, self.pixels.start);
        let mut at = self.pixels.start;
        while at < self.pixels.end {
            at += match self.pixels.end - at {
                ROWS.. => self.tiles::<D, ROWS>(d, at, windows.take()),
                4.. => self.tiles::<D, 4>(d, at, windows.take()),
                2.. => self.tiles::<D, 2>(d, at, windows.take()),
                _ => self.tiles::<D, 1>(d, at, windows.take()),
            };
        }
    }
}

impl<P: Dot> Task<'_, P> {
    /// Computes the pixels `first..first + ROWS` of all blocks, whose windows begin at these bytes, and says how many they
    /// are.
    #[inline(always)]
    fn tiles<D: Dot, const ROWS: usize>(&self, d: D, first: usize, windows: [usize; ROWS]) -> usize {
        let Light { output, source, per_group, slots, fours, twos, constants, .. } = self.layer;
        let span = source.span();
        let windows = windows.map(|window| self.from[window..][..span].as_ptr());
        for block in self.blocks.clone() {
            let slot = self.group * slots + block * D::LANES;
            // SAFETY: a group's slots are padded to whole vectors.
            let mut sums = [[unsafe { constants.start(d, slot) }]; ROWS];
            let of_all = slot / D::LANES;
            // SAFETY: each window is of `span` bytes, and no place is beyond.
            unsafe {
                accumulate(d, &mut sums, &windows, fours.of(of_all, 4 * D::LANES));
                accumulate(d, &mut sums, &windows, twos.of(of_all, 4 * D::LANES));
            }
            let at = first * output.channels + self.group * per_group + block * D::LANES;
            let width = (per_group - block * D::LANES).min(D::LANES);
            // SAFETY: slots as above; pixels and blocks of channels belong to one task each, so that no other part in
            // use overlaps.
            unsafe { constants.store(d, self.tensors, sums, slot, at, output.channels, width) };
        }
        ROWS
    }
}

/// Adds the products of sets of `N` vectors to every sum.
///
/// # Safety
///
/// Four bytes must be readable at each place of each window.
#[inline(always)]
unsafe fn accumulate<D: Dot, const ROWS: usize, const N: usize>(
    d: D,
    sums: &mut [[D::Ints; 1]; ROWS],
    windows: &[*const u8; ROWS],
    (places, weights): (&[[u16; N]], &[u8]),
) {
    for (places, weights) in places.iter().zip(weights.chunks_exact(N * 4 * D::LANES)) {
        let from = weights.as_ptr().cast::<i8>();
        // SAFETY: there are `N` vectors of weights.
        let mut weights = [unsafe { d.weights(from) }; N];
        for (index, weights) in weights.iter_mut().enumerate() {
            // SAFETY: as above.
            *weights = unsafe { d.weights(from.add(index * 4 * D::LANES)) };
            if index % 2 == 0 {
                d.prefetch(from.wrapping_add(index * 4 * D::LANES + AHEAD));
            }
        }
        let places = places.map(usize::from);
        for (&window, [sum]) in windows.iter().zip(sums.iter_mut()) {
            // SAFETY: as promised.
            *sum = unsafe { d.dot_set(*sum, window, places, weights) };
        }
    }
}
