//! Convolution of u8 activations with 3x3 windows by Winograd's F(4x4, 3x3) (Lavin and Gray 2016, "Fast Algorithms for
//! Convolutional Neural Networks"), exact to the last bit, channels last.
//!
//! A tile of 4x4 outputs is made of 6x6 inputs. Both and the weights are transformed, so that each of 36 positions is a
//! matrix product of its own, of four times fewer multiplications in all. Where a product of bytes takes three instructions
//! for 32 products, as on machines without an instruction for the purpose, this takes two for 64.
//!
//! Everything is whole numbers ([`transform`]): transformed inputs and weights have 16 bits, sums 32. Outputs come out 576
//! times too large and may exceed 32 bits, but what they stand for does not: all is computed modulo 2^32, where division
//! by 576 is exact. Its factor 9 has an inverse. Division by the other, 64, leaves 26 bits, which tell the sums of a channel
//! apart if they span less than 2^26: 255 times its weights, without their signs. Weights are seen when they are prepared;
//! those that span more, as more than 2072 of the largest do, are left to the definition's matrix product.
//!
//! ```text
//! for each run of tiles whose transformed inputs leave room in a second-level cache   (each worker its own, if they are enough)
//!     for each tile:   positions of the input          (else workers share the tiles, then wait for each other)
//!     for each block of output channels, for some input channels:   positions of the weights
//!         for each position, for each few tiles:   sums in registers
//!         for each tile:   outputs from the positions' sums
//! ```

mod transform;
mod weights;

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Disjoint, Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Operation, Parallel, PrepareError,
    Prepared, Scratch, Support, TensorSpec, static_range,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::Conv2d;

use self::transform::{SIDE, TILE};
use self::weights::{Extents, OF_CODES, Weights, block};
use super::accepts::{self as quantized, Integers};
use super::gemm;
use super::output::{Output, Rows, Tensors};
use super::simd::{Dot, DotWork, at_every_level};
use crate::accepts;
use crate::conv2d::tile::with_rows;
use crate::conv2d::winograd::suits;
use crate::grid::Grid;
use crate::runs::{Blocks, Memory, Runs, Task};

/// Positions of a tile.
const POSITIONS: usize = SIDE * SIDE;
/// Vectors of output channels of a block.
const COLUMNS: usize = 2;
/// What a second-level cache holds where nobody says.
const USUAL_L2: usize = 1 << 20;
/// Bytes of a worker's sums: with the weights of a position they should stay in a second-level cache.
const SUM_BYTES: usize = 192 << 10;
/// Bytes between the parts of two positions: a line, so that the positions of one tile, a power of two apart otherwise,
/// are not all in the same few sets of a cache.
const GAP: usize = 64;
/// The inverse of 9 modulo 2^32.
const NINTH: i32 = 954_437_177;

/// The kernel on one level, of weights in one format.
struct Winograd<D> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<D>,
}

impl<D: Dot> Winograd<D> {
    /// `format` is int8 or ternary.
    const fn new(format: Format) -> Self {
        let id = KernelId::new("conv2d", "u8", format.name(), "winograd-4x4", D::NAME);
        Self { id, format, level: std::marker::PhantomData }
    }
}

impl<D: Dot> Kernel for Winograd<D> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else {
            return accepts::another_operation();
        };
        Support::when(suits(&conv), "it convolves ungrouped with 3x3 windows of stride and dilation 1")
            .and(|| {
                let whole = self.format == Format::Int8 || conv.in_channels.is_multiple_of(OF_CODES);
                Support::when(whole, "it decodes ternary weights of sixteen input channels together")
            })
            // Which may have to do the work, and limits more where weights are light.
            .and(|| gemm::support::<D>(self.format, op, hw))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        // Slower than the definition's where few tiles share what is made of weights: for whoever measures.
        0.3 * D::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(dot), Operation::Conv2d(conv), true) = (D::new(hw), op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let Integers { values, scales, codes } = quantized::integers(self, weights, self.format, &conv.weight_dims())?;
        let spans: Vec<Span> = values.chunks(conv.in_channels * 9).map(Span::of).collect();
        if !spans.iter().all(Span::fits) {
            return gemm::prepare::<D>(self.format, op, weights, hw);
        }
        let sums: Vec<i32> = spans.iter().map(|span| span.above - span.below).collect();
        let rows = Rows { scales: &scales, sums: &sums, offset: 0 };
        let extents = Extents { inputs: conv.in_channels, outputs: conv.out_channels };
        let slots = extents.blocks::<D>() * block::<D>();
        let output = Output::new(self, op, weights, rows, slots, |channel| channel)?;
        let mut padding = AlignedBytes::zeroed(conv.in_channels);
        padding.as_mut_slice().fill(quantized::input(self, weights, 0)?.zero_point());
        let mut least = vec![0; slots];
        least.iter_mut().zip(&spans).for_each(|(least, span)| *least = -255 * span.below);
        Ok(Box::new(PreparedWinograd {
            dot,
            conv,
            input: op.inputs[0],
            output: op.output,
            tiles: [op.output.height.div_ceil(TILE), op.output.width.div_ceil(TILE)],
            extents,
            weights: Weights::new::<D>(extents, &values, &codes),
            constants: output,
            least,
            padding,
            input_bytes: hw.l2.and_then(|l2| usize::try_from(l2.bytes).ok()).unwrap_or(USUAL_L2) / 4,
        }))
    }
}

/// How far an output channel's weights reach, and so its sums with bytes of up to 255.
struct Span {
    /// Sum of the weights above zero.
    above: i32,
    /// And of those below, without their sign.
    below: i32,
}

impl Span {
    fn of(weights: &[i8]) -> Self {
        let sum = |sign: i32| weights.iter().map(|&weight| (sign * i32::from(weight)).max(0)).sum();
        Self { above: sum(1), below: sum(-1) }
    }

    /// Whether 26 bits tell its sums apart.
    fn fits(&self) -> bool {
        255 * (i64::from(self.above) + i64::from(self.below)) < 1 << 26
    }
}

struct PreparedWinograd<D> {
    dot: D,
    conv: Conv2d,
    input: TensorSpec,
    output: TensorSpec,
    /// Tiles of an image, along both axes.
    tiles: [usize; 2],
    extents: Extents,
    weights: Weights,
    constants: Output,
    /// The least sum that each channel can have.
    least: Vec<i32>,
    /// What is read outside of the input: a pixel of zero points.
    padding: AlignedBytes,
    /// Of transformed inputs that are computed before they are used: all blocks of weights read them again.
    input_bytes: usize,
}

impl<D: Dot> PreparedWinograd<D> {
    /// Tiles of the whole batch.
    fn tiles(&self) -> usize {
        self.output.batch * self.tiles[0] * self.tiles[1]
    }

    /// Bytes of a position of a tile's inputs: 16 bits each, whole vectors, which are whole steps of the weights.
    fn of_place(&self) -> usize {
        2 * self.extents.inputs.next_multiple_of(2 * D::LANES)
    }

    /// Tiles whose transformed inputs are there at a time.
    fn together(&self) -> usize {
        let rows = D::PAIR_ROWS;
        let some = (self.input_bytes / (POSITIONS * self.of_place())).next_multiple_of(rows);
        some.max(rows).min(self.tiles())
    }

    fn runs(&self, threads: usize) -> Runs {
        Runs::new(self.tiles(), self.together(), threads)
    }

    /// Bytes from one position of the inputs of a run to the next.
    fn places_apart(&self, runs: Runs) -> usize {
        runs.together * self.of_place() + GAP
    }

    /// Bytes of the transformed inputs of a run: those that workers share, and those of each.
    fn places(&self, runs: Runs) -> [usize; 2] {
        runs.places(AlignedBytes::round_up(POSITIONS * self.places_apart(runs)))
    }

    /// Bytes of a worker's sums.
    fn sums(&self) -> usize {
        (self.most_tiles() * block::<D>() * 4 + GAP) * POSITIONS
    }

    /// Bytes of a worker besides its places: sums, then what weights need.
    fn worker(&self) -> usize {
        self.sums() + self.weights.scratch::<D>(self.extents.inputs)
    }

    /// Most tiles of a task.
    fn most_tiles(&self) -> usize {
        let of_tile = POSITIONS * block::<D>() * 4;
        (SUM_BYTES / of_tile / D::PAIR_ROWS * D::PAIR_ROWS).max(D::PAIR_ROWS).min(self.together())
    }

    /// Where a tile begins: its image, and the row and column of its first output.
    fn origin(&self, tile: usize) -> [usize; 3] {
        let [down, across] = self.tiles;
        let (image, within) = (tile / (down * across), tile % (down * across));
        [image, within / across * TILE, within % across * TILE]
    }
}

impl<D: Dot> Prepared for PreparedWinograd<D> {
    fn footprint(&self, threads: usize) -> Footprint {
        let [shared, own] = self.places(self.runs(threads));
        Footprint {
            weight_bytes: self.weights.bytes()
                + self.constants.bytes()
                + size_of_val(&self.least[..])
                + self.padding.allocated(),
            scratch_bytes: shared,
            worker_scratch_bytes: AlignedBytes::round_up(own + self.worker()),
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0);
        assert!(
            input.spec().same_bytes(&self.input) && io.output_spec().same_bytes(&self.output),
            "tensors of the operation"
        );
        let tensors = Tensors::of(io, self.constants.has_residual());
        let (shared, row, workers) = scratch.bytes();
        let runs = self.runs(parallel.threads());
        let [of_all, own] = self.places(runs);
        assert!(row >= own + self.worker(), "scratch of the operation");
        let memory = Memory { shared: &mut shared[..of_all], workers, row, own };
        let blocks = Blocks {
            columns: self.extents.blocks::<D>(),
            rows: D::PAIR_ROWS,
            most: self.most_tiles(),
            weight_bytes: self.weights.bytes(),
        };
        let (layer, input, tensors, apart) = (self, input.u8(), &tensors, self.places_apart(runs));
        runs.execute(
            blocks,
            memory,
            parallel,
            |places, first, some| self.dot.vectorize(Inputs { layer, input, places, apart, first, some }),
            |places, task, scratch| self.dot.vectorize(Column { layer, tensors, places, apart, task, scratch }),
        );
    }
}

/// The input positions of some tiles.
struct Inputs<'a, D> {
    layer: &'a PreparedWinograd<D>,
    input: &'a [u8],
    /// `[position][tile][input channel]`, of 16 bits.
    places: &'a Disjoint<'a, u8>,
    /// Bytes from one position to the next.
    apart: usize,
    /// The tile that comes first among the places.
    first: usize,
    some: Range<usize>,
}

impl<P: Dot> DotWork for Inputs<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        for tile in self.some.clone() {
            self.tile(d, tile, tile - self.first);
        }
    }
}

impl<P: Dot> Inputs<'_, P> {
    /// Where each input of a tile lies: its channels, or zero points in the padding.
    #[inline(always)]
    fn pixels(&self, tile: usize) -> [[*const u8; SIDE]; SIDE] {
        let PreparedWinograd { conv, input, padding, .. } = self.layer;
        let [above, left, ..] = conv.window.padding;
        let [image, top, start] = self.layer.origin(tile);
        let mut pixels = [[padding.as_slice().as_ptr(); SIDE]; SIDE];
        for (row, pixels) in pixels.iter_mut().enumerate() {
            // In the padding the difference wraps to a huge number, which the comparison rules out.
            let y = (top + row).wrapping_sub(above);
            for (column, pixel) in pixels.iter_mut().enumerate() {
                let x = (start + column).wrapping_sub(left);
                if y < input.height && x < input.width {
                    let at = ((image * input.height + y) * input.width + x) * input.channels;
                    *pixel = self.input[at..at + input.channels].as_ptr();
                }
            }
        }
        pixels
    }

    #[inline(always)]
    fn tile<D: Dot>(&self, d: D, tile: usize, place: usize) {
        let (apart, of_place) = (self.apart, self.layer.of_place());
        assert!((place + 1) * of_place <= apart && POSITIONS * apart <= self.places.len(), "a tile of the places");
        let pixels = self.pixels(tile);
        let (channels, step) = (self.layer.extents.inputs, 2 * D::LANES);
        for channel in (0..channels).step_by(step) {
            let count = (channels - channel).min(step);
            let mut half = Grid::<_, SIDE, SIDE>::new();
            for (y, pixels) in pixels.iter().enumerate() {
                let mut row = [d.splat_int(0); SIDE];
                for (x, &pixel) in row.iter_mut().zip(pixels) {
                    // SAFETY: every pixel points to `channels` bytes; those of a last vector that is not full are copied to
                    // an array that holds the widest.
                    *x = unsafe {
                        if count == step {
                            d.words(pixel.add(channel))
                        } else {
                            let mut aside = [0; 32];
                            std::ptr::copy_nonoverlapping(pixel.add(channel), aside.as_mut_ptr(), count);
                            d.words(aside.as_ptr())
                        }
                    };
                }
                for (x, value) in transform::data(d, row).into_iter().enumerate() {
                    half.set(y, x, value);
                }
            }
            for x in 0..SIDE {
                let mut column = [d.splat_int(0); SIDE];
                for (y, to) in column.iter_mut().enumerate() {
                    // SAFETY: set above.
                    *to = unsafe { half.get(y, x) };
                }
                for (y, value) in transform::data(d, column).into_iter().enumerate() {
                    let at = (y * SIDE + x) * apart + place * of_place + 2 * channel;
                    // SAFETY: there are as many positions, `apart` bytes from one to the next, in each of which the tile's
                    // part is whole vectors, as was checked above; tiles belong to one worker each, so no two parts overlap.
                    unsafe { d.store_ints(self.places.as_mut_ptr().add(at).cast(), value) };
                }
            }
        }
    }
}

/// A run of tiles of one block of output channels.
struct Column<'a, D> {
    layer: &'a PreparedWinograd<D>,
    tensors: &'a Tensors<'a>,
    /// `[position][tile][input channel]`, of 16 bits.
    places: &'a [u8],
    /// Bytes from one position to the next.
    apart: usize,
    task: Task,
    /// Sums, `[position][tile of the task][channel of the block]`, then transformed weights.
    scratch: &'a mut [u8],
}

impl<P: Dot> DotWork for Column<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        const { assert!(D::PAIR_ROWS <= 8, "a tile has up to eight rows") };
        let Self { layer, tensors, places, apart, task: Task { first, some, column }, scratch } = self;
        let PreparedWinograd { extents, weights, .. } = layer;
        let (of_place, of_tile) = (layer.of_place(), 4 * block::<D>());
        let sums_apart = some.len() * of_tile + GAP;
        let (sums, scratch) = scratch.split_at_mut(layer.sums());
        for channel in (0..extents.inputs).step_by(weights.together::<D>(extents.inputs)) {
            let positions = weights.positions(d, *extents, (column, channel), &mut *scratch);
            for position in 0..POSITIONS {
                let weights = positions.of::<D>(position);
                // What is transformed next comes while this is multiplied.
                let next = &positions.next[static_range(positions.next.len(), POSITIONS, position)];
                for line in next.chunks(64) {
                    d.prefetch(line.as_ptr().cast());
                }
                let from = &places[position * apart..][..apart];
                let to = &mut sums[position * sums_apart..][..sums_apart];
                let mut at = some.start;
                while at < some.end {
                    let rows = (some.end - at).min(D::PAIR_ROWS);
                    let from = &from[at * of_place + 2 * channel..];
                    let to = &mut to[(at - some.start) * of_tile..];
                    let more = channel > 0;
                    with_rows!(rows, product::<D; _>(d, from, of_place, weights, more, to));
                    at += rows;
                }
            }
        }
        for tile in some.clone() {
            let sums = &sums[(tile - some.start) * of_tile..];
            outputs(d, layer, tensors, (first + tile, column), sums, sums_apart);
        }
    }
}

/// One position of `ROWS` tiles: their inputs, `of_place` bytes from one tile to the next, times the position's weights, a
/// block for each pair of channels; with `more`, added to the sums that there are.
#[inline(always)]
fn product<D: Dot, const ROWS: usize>(d: D, inputs: &[u8], of_place: usize, weights: &[u8], more: bool, to: &mut [u8]) {
    let (pairs, vector) = (weights.len() / (4 * block::<D>()), 4 * D::LANES);
    assert!(inputs.len() >= (ROWS - 1) * of_place + 4 * pairs, "inputs of every tile");
    assert!(to.len() >= ROWS * COLUMNS * vector, "sums of the block");
    let mut rows = [inputs.as_ptr(); ROWS];
    for (row, at) in rows.iter_mut().enumerate() {
        *at = inputs[row * of_place..].as_ptr();
    }
    let mut sums = [[d.splat_int(0); COLUMNS]; ROWS];
    if more {
        for (row, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: checked above.
                *sum = unsafe { d.ints(to.as_ptr().add((row * COLUMNS + v) * vector).cast()) };
            }
        }
    }
    let mut weight = weights.as_ptr();
    for pair in 0..pairs {
        // SAFETY: checked above: a block of weights and four bytes of each row a pair.
        unsafe {
            let mut columns = [d.splat_int(0); COLUMNS];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = d.ints(weight.add(v * vector).cast());
            }
            weight = weight.add(COLUMNS * vector);
            for (row, sums) in rows.iter().zip(sums.iter_mut()) {
                let x = d.splat_int(row.add(4 * pair).cast::<i32>().read_unaligned());
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = d.dot_pairs(*sum, x, column);
                }
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: checked above.
            unsafe { d.store_ints(to.as_mut_ptr().add((row * COLUMNS + v) * vector).cast(), sum) };
        }
    }
}

/// The outputs of one tile and one block of channels, from the sums of its positions, `apart` bytes from one to the next.
#[inline(always)]
fn outputs<D: Dot, P: Dot>(
    d: D,
    layer: &PreparedWinograd<P>,
    tensors: &Tensors<'_>,
    (tile, column): (usize, usize),
    sums: &[u8],
    apart: usize,
) {
    let PreparedWinograd { output, constants, least, .. } = layer;
    assert!(sums.len() >= (POSITIONS - 1) * apart + 4 * block::<D>(), "sums of every position");
    let [image, top, left] = layer.origin(tile);
    let (high, wide) = ((output.height - top).min(TILE), (output.width - left).min(TILE));
    for slot in (column * block::<D>()..output.channels.min((column + 1) * block::<D>())).step_by(D::LANES) {
        let from = &sums[4 * (slot - column * block::<D>())..];
        let mut half = Grid::<_, TILE, SIDE>::new();
        for x in 0..SIDE {
            let mut column = [d.splat_int(0); SIDE];
            for (y, sum) in column.iter_mut().enumerate() {
                // SAFETY: checked above: a block at each position.
                *sum = unsafe { d.ints(from.as_ptr().add((y * SIDE + x) * apart).cast()) };
            }
            for (y, value) in transform::result(d, column).into_iter().enumerate() {
                half.set(y, x, value);
            }
        }
        // SAFETY: slots are whole blocks.
        let (least, start) = unsafe { (d.ints(least[slot..].as_ptr()), constants.start(d, slot)) };
        let (start, least_64) = (d.add_ints(least, start), d.shift_ints::<4>(d.shift_ints::<2>(least)));
        let width = (output.channels - slot).min(D::LANES);
        for y in 0..high {
            let mut row = [d.splat_int(0); SIDE];
            for (x, value) in row.iter_mut().enumerate() {
                // SAFETY: set above.
                *value = unsafe { half.get(y, x) };
            }
            let mut results = [[start]; TILE];
            for ([result], value) in results.iter_mut().zip(transform::result(d, row)) {
                // From the least on, so that it has no sign.
                let beyond = d.part_64(d.sub(d.mul_ints(value, d.splat_int(NINTH)), least_64));
                *result = d.add_ints(beyond, start);
            }
            let pixel = (image * output.height + top + y) * output.width + left;
            let (at, stride) = (pixel * output.channels + slot, output.channels);
            // SAFETY: slots are whole blocks; tiles and blocks of channels belong to one task each, so that no other part in
            // use overlaps.
            unsafe {
                match wide {
                    TILE => constants.store(d, tensors, results, slot, at, stride, width),
                    _ => {
                        for (x, &result) in results.iter().enumerate().take(wide) {
                            constants.store(d, tensors, [result], slot, at + x * stride, stride, width);
                        }
                    }
                }
            }
        }
    }
}

pub(super) static KERNELS: &[&dyn Kernel] =
    at_every_level!(Winograd(Format::Int8), Winograd(Format::Ternary2Bit), Winograd(Format::Ternary5In8));
