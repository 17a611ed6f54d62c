//! Convolution with 3x3 windows by Winograd's minimal filtering (Lavin and Gray 2016, "Fast Algorithms for
//! Convolutional Neural Networks"), channels last: F(2x2, 3x3), F(4x4, 3x3) and F(6x6, 3x3).
//!
//! A tile of 2x2 (4x4, 6x6) outputs is made of 4x4 (6x6, 8x8) inputs. Input tiles and weights are transformed, so that each of
//! the 16 (36, 64) positions of a tile is a matrix product of its own, of tiles by input channels by output channels; the
//! products are transformed back. That is 2.25 (4, 5.1) times fewer multiplications than the definition's, for weights
//! that are 1.8 (4, 7.1) times as large: it pays where maps are large enough that multiplications count, not the reading
//! of weights. Weights of f16 are therefore kept as they are, and transformed some channels at a time as they are read.
//!
//! ```text
//! for each run of tiles whose transformed inputs fit a second-level cache   (each worker its own, if they are enough)
//!     for each tile:   positions of the input          (else workers share the tiles, then wait for each other)
//!     for each block of output channels, for each position, for each few tiles:   sums in registers
//!         for each tile:   outputs from the positions' sums, bias, residual, activation, the only store
//! ```
//!
//! Results differ from the definition's by rounding: transformed values, up to 576 (8100) times too large before they are
//! scaled (`transform`), are larger than those they stand for
//! (the conformance suite's `Tolerance::WINOGRAD` and `WINOGRAD_6X6` say how much is granted).

mod transform;
mod weights;

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Disjoint, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::{Conv2d, Window};

use self::transform::MOST;
use self::weights::Weights;
use super::product::{Ahead, COLUMNS, Far, Stream, Sums, accumulate};
use super::tile::{Geometry, Tensors, rows_of, with_rows};
use crate::accepts::{self, Accepts};
use crate::grid::Grid;
use crate::runs::{Blocks, Memory, Runs, Task};
use crate::simd::{Simd, Work, at_every_level};

/// What a second-level cache holds where nobody says.
const USUAL_L2: usize = 1 << 20;
/// Bytes of a worker's sums: with the weights of a position they should stay in a second-level cache.
const SUM_BYTES: usize = 192 << 10;
/// Floats between the parts of two positions: a line, so that the positions of one tile, a power of two apart otherwise,
/// are not all in the same few sets of a cache.
const GAP: usize = 16;

/// The kernel on one SIMD level, for tiles of `TILE` outputs a side: 2, 4 or 6, of weights in one format.
struct Winograd<S, const TILE: usize> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd, const TILE: usize> Winograd<S, TILE> {
    const fn new(format: Format) -> Self {
        let algorithm = match TILE {
            2 => "winograd-2x2",
            4 => "winograd-4x4",
            _ => "winograd-6x6",
        };
        let id = KernelId::new("conv2d", "f32", accepts::format_name(format), algorithm, S::LEVEL.name());
        Self { id, format, level: std::marker::PhantomData }
    }

    fn accepts(&self) -> Accepts {
        Accepts { layouts: &[Layout::Nhwc], weight: Some(self.format), residual: true, activation: true }
    }
}

/// Whether a convolution is one that these kernels execute.
pub(crate) fn suits(conv: &Conv2d) -> bool {
    conv.groups == 1 && conv.window == Window { padding: conv.window.padding, ..Window::square(3) }
}

impl<S: Simd, const TILE: usize> Kernel for Winograd<S, TILE> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else {
            return accepts::another_operation();
        };
        Support::when(suits(&conv), "it convolves ungrouped with 3x3 windows of stride and dilation 1")
            .and(|| Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level"))
            .and(|| self.accepts().check(op))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        // Faster than the definition's algorithms on large maps, and in f32 larger in memory: whoever does not measure
        // gets weights of their own size.
        0.3 * S::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Operation::Conv2d(conv), true) = (S::new(hw), op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let dims = conv.weight_dims();
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let geometry = Geometry::new(conv, op.inputs[0], op.output, op.epilogue);
        let mut scales = vec![1.0; conv.out_channels];
        let weights = if self.format == Format::DenseF32 {
            Weights::positions::<S, TILE>(&conv, &accepts::dense_f32(self, weights, &dims)?)
        } else {
            let halves = accepts::halves(self, weights, self.format, &dims)?;
            if let Some(of_rows) = halves.scales {
                scales.copy_from_slice(of_rows);
            }
            Weights::taps::<S>(&conv, &halves.bits)
        };
        let denominator = transform::denominator(TILE);
        scales.iter_mut().for_each(|scale| *scale /= denominator * denominator);
        let finish = [&scales[..], bias.f32()].map(|values| geometry.by_block::<S>(values));
        let tiles = [op.output.height.div_ceil(TILE), op.output.width.div_ceil(TILE)];
        let l2 = hw.l2.and_then(|l2| usize::try_from(l2.bytes).ok()).unwrap_or(USUAL_L2);
        let input_bytes = weights.input_bytes(l2);
        Ok(Box::new(PreparedWinograd::<S, TILE> { simd, geometry, tiles, weights, finish, input_bytes }))
    }
}

/// Positions of a tile of so many outputs a side.
const fn positions(tile: usize) -> usize {
    (tile + 2) * (tile + 2)
}

struct PreparedWinograd<S, const TILE: usize> {
    simd: S,
    geometry: Geometry,
    /// Tiles of an image, along both axes.
    tiles: [usize; 2],
    weights: Weights,
    /// What sums are multiplied by, and what is added: `[block][channel of the block]`.
    finish: [AlignedBytes; 2],
    /// Of transformed inputs that are computed before they are used.
    input_bytes: usize,
}

impl<S: Simd, const TILE: usize> PreparedWinograd<S, TILE> {
    const POSITIONS: usize = positions(TILE);
    const BLOCK: usize = COLUMNS * S::LANES;

    /// Tiles of the whole batch.
    fn tiles(&self) -> usize {
        self.geometry.output.batch * self.tiles[0] * self.tiles[1]
    }

    /// Input channels, rounded up to whole vectors.
    fn depth(&self) -> usize {
        self.geometry.depth().next_multiple_of(S::LANES)
    }

    /// Tiles whose transformed inputs are there at a time.
    fn together(&self) -> usize {
        let of_tile = Self::POSITIONS * self.depth() * size_of::<f32>();
        (self.input_bytes / of_tile).next_multiple_of(rows_of::<S>()).max(rows_of::<S>()).min(self.tiles())
    }

    fn runs(&self, threads: usize) -> Runs {
        Runs::new(self.tiles(), self.together(), threads)
    }

    /// Floats of the transformed inputs of a run: those that workers share, and those of each.
    fn places_len(&self, runs: Runs) -> [usize; 2] {
        runs.places((runs.together * self.depth() + GAP) * Self::POSITIONS)
    }

    /// Floats of a worker besides its places: sums, and weights that are transformed as they are read.
    fn worker_len(&self) -> usize {
        self.sums_len() + self.weights.scratch_len::<S, TILE>(self.geometry.depth())
    }

    fn sums_len(&self) -> usize {
        (self.most_tiles() * Self::BLOCK + GAP) * Self::POSITIONS
    }

    /// Most tiles of a task.
    fn most_tiles(&self) -> usize {
        let of_tile = Self::POSITIONS * Self::BLOCK * size_of::<f32>();
        (SUM_BYTES / of_tile / rows_of::<S>() * rows_of::<S>()).max(rows_of::<S>()).min(self.together())
    }
}

impl<S: Simd, const TILE: usize> Prepared for PreparedWinograd<S, TILE> {
    fn footprint(&self, threads: usize) -> Footprint {
        let [shared, own] = self.places_len(self.runs(threads));
        Footprint {
            weight_bytes: self.weights.bytes() + 2 * self.finish[0].allocated() + self.geometry.bytes(),
            scratch_bytes: shared * size_of::<f32>(),
            worker_scratch_bytes: (own + self.worker_len()) * size_of::<f32>(),
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let tensors = self.geometry.tensors(io);
        let (shared, row, workers) = scratch.f32();
        let runs = self.runs(parallel.threads());
        let [of_all, own] = self.places_len(runs);
        assert!(row >= own + self.worker_len(), "scratch of the operation");
        let memory = Memory { shared: &mut shared[..of_all], workers, row, own };
        let blocks = Blocks {
            columns: self.geometry.columns::<S>(),
            rows: rows_of::<S>(),
            most: self.most_tiles(),
            weight_bytes: self.weights.bytes(),
        };
        let (prepared, tensors) = (self, &tensors);
        runs.execute(
            blocks,
            memory,
            parallel,
            |places, first, some| self.simd.vectorize(Inputs { prepared, tensors, places, first, some }),
            |places, task, scratch| self.simd.vectorize(Column { prepared, tensors, places, task, scratch }),
        );
    }
}

/// The input positions of some tiles.
struct Inputs<'a, S, const TILE: usize> {
    prepared: &'a PreparedWinograd<S, TILE>,
    tensors: &'a Tensors<'a>,
    /// `[position][tile][input channel]`.
    places: &'a Disjoint<'a, f32>,
    /// The tile that comes first among the places.
    first: usize,
    some: Range<usize>,
}

impl<P: Simd, const TILE: usize> Work for Inputs<'_, P, TILE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for tile in self.some.clone() {
            self.tile(simd, tile);
        }
    }
}

impl<P: Simd, const TILE: usize> Inputs<'_, P, TILE> {
    /// Where each input of a tile lies: its channels, or zeros in the padding.
    #[inline(always)]
    fn pixels(&self, tile: usize) -> [[*const f32; MOST]; MOST] {
        let PreparedWinograd { geometry, tiles: [down, across], .. } = self.prepared;
        let (input, [above, left, ..]) = (geometry.input, geometry.conv.window.padding);
        let (image, within) = (tile / (down * across), tile % (down * across));
        let (top, start) = (within / across * TILE, within % across * TILE);
        let mut pixels = [[geometry.zeros().as_ptr(); MOST]; MOST];
        for (row, pixels) in pixels.iter_mut().enumerate().take(TILE + 2) {
            // In the padding the difference wraps to a huge number, which the comparison rules out.
            let y = (top + row).wrapping_sub(above);
            for (column, pixel) in pixels.iter_mut().enumerate().take(TILE + 2) {
                let x = (start + column).wrapping_sub(left);
                if y < input.height && x < input.width {
                    let at = ((image * input.height + y) * input.width + x) * input.channels;
                    debug_assert!(at + input.channels <= self.tensors.input.len(), "input pixel in bounds");
                    // SAFETY: image, row and column lie within the input, whose size was checked when the call began.
                    *pixel = unsafe { self.tensors.input.as_ptr().add(at) };
                }
            }
        }
        pixels
    }

    #[inline(always)]
    fn tile<S: Simd>(&self, simd: S, tile: usize) {
        let side = TILE + 2;
        let (channels, depth) = (self.prepared.geometry.depth(), self.prepared.depth());
        let stride = self.places.len() / positions(TILE);
        let place = (tile - self.first) * depth;
        assert!(place + depth <= stride, "a tile of the places");
        let pixels = self.pixels(tile);
        for channel in (0..channels).step_by(S::LANES) {
            let count = (channels - channel).min(S::LANES);
            let mut half = Grid::<_, MOST, MOST>::new();
            for (y, pixels) in pixels.iter().enumerate().take(side) {
                let mut row = [simd.splat(0.0); MOST];
                for (x, &pixel) in row.iter_mut().zip(pixels).take(side) {
                    // SAFETY: every pixel points to `channels` elements; those of a last vector that is not full are
                    // copied to an array that holds the widest.
                    *x = unsafe {
                        if count == S::LANES {
                            simd.load(pixel.add(channel))
                        } else {
                            let mut aside = [0.0f32; 16];
                            std::ptr::copy_nonoverlapping(pixel.add(channel), aside.as_mut_ptr(), count);
                            simd.load(aside.as_ptr())
                        }
                    };
                }
                for (x, value) in transform::data::<S, TILE>(simd, row).into_iter().enumerate().take(side) {
                    half.set(y, x, value);
                }
            }
            for x in 0..side {
                let mut column = [simd.splat(0.0); MOST];
                for (y, to) in column.iter_mut().enumerate().take(side) {
                    // SAFETY: set above.
                    *to = unsafe { half.get(y, x) };
                }
                let column = transform::data::<S, TILE>(simd, column);
                for (y, &value) in column.iter().enumerate().take(side) {
                    // SAFETY: there are as many positions of `stride` elements, in each of which the tile's part is
                    // `depth` elements, whole vectors, as was checked above; tiles belong to one worker each, so no two
                    // parts overlap.
                    unsafe {
                        simd.store(self.places.as_mut_ptr().add((y * side + x) * stride + place + channel), value);
                    }
                }
            }
        }
    }
}

/// One block of output channels of some tiles of a run.
struct Column<'a, S, const TILE: usize> {
    prepared: &'a PreparedWinograd<S, TILE>,
    tensors: &'a Tensors<'a>,
    /// `[position][tile][input channel]`, of the tiles of the run.
    places: &'a [f32],
    task: Task,
    /// Sums, `[position][tile of the task][channel of the block]`, then transformed weights.
    scratch: &'a mut [f32],
}

impl<P: Simd, const TILE: usize> Work for Column<'_, P, TILE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { prepared, tensors, places, task: Task { first: first_tile, some, column }, scratch } = self;
        let (depth, padded) = (prepared.geometry.depth(), prepared.depth());
        let block = COLUMNS * S::LANES;
        let stride = places.len() / positions(TILE);
        let (sums, scratch) = scratch.split_at_mut(prepared.sums_len());
        let rows = rows_of::<S>();
        for first in (0..depth).step_by(prepared.weights.together::<S, TILE>(depth)) {
            let count = prepared.weights.together::<S, TILE>(depth).min(depth - first);
            let weights = prepared.weights.of::<S, TILE>(simd, (column, depth), (first, count), &mut *scratch);
            for position in 0..positions(TILE) {
                let (weights, next) = weights.of::<TILE>(position, count * block);
                for begin in some.clone().step_by(rows) {
                    let from = &places[position * stride + begin * padded + first..];
                    let to = &mut sums[position * (some.len() * block + GAP) + (begin - some.start) * block..];
                    let (of_tile, rows) = ((padded, first > 0), (some.end - begin).min(rows));
                    // All tiles read the same weights: the first asks for them, or for those that are transformed next.
                    match next {
                        None if begin == some.start => {
                            let ahead = Stream::of_terms(weights, count);
                            with_rows!(rows, product::<S; _>(simd, from, of_tile, (weights, ahead), to));
                        }
                        Some(next @ [_, ..]) if begin == some.start => {
                            let ahead = Far::over(next, count);
                            with_rows!(rows, product::<S; _>(simd, from, of_tile, (weights, ahead), to));
                        }
                        _ => with_rows!(rows, product::<S; _>(simd, from, of_tile, (weights, ()), to)),
                    }
                }
            }
        }
        let finish = [0, 1].map(|which| &prepared.finish[which].f32()[column * block..][..block]);
        for tile in some.clone() {
            let of_tile = &sums[(tile - some.start) * block..];
            outputs::<S, P, TILE>(
                simd,
                prepared,
                tensors,
                (first_tile + tile, column),
                finish,
                of_tile,
                some.len() * block + GAP,
            );
        }
    }
}

/// One position of `ROWS` tiles: their inputs, `padded` elements from one tile to the next, times the position's
/// weights, a block for each channel; with `more`, added to the sums that there are.
#[inline(always)]
fn product<S: Simd, const ROWS: usize>(
    simd: S,
    inputs: &[f32],
    (padded, more): (usize, bool),
    (weights, mut ahead): (&[f32], impl Ahead),
    to: &mut [f32],
) {
    let block = COLUMNS * S::LANES;
    let depth = weights.len() / block;
    assert!(inputs.len() >= (ROWS - 1) * padded + depth, "inputs of every tile");
    assert!(to.len() >= ROWS * block, "sums of the block");
    let mut rows = [inputs.as_ptr(); ROWS];
    for (row, at) in rows.iter_mut().enumerate() {
        *at = inputs[row * padded..].as_ptr();
    }
    let mut sums: Sums<S::Vector, ROWS> = [[simd.splat(0.0); COLUMNS]; ROWS];
    if more {
        for (row, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: checked above.
                *sum = unsafe { simd.load(to.as_ptr().add(row * block + v * S::LANES)) };
            }
        }
    }
    // SAFETY: checked above: `depth` elements a row, a block of weights a channel.
    unsafe { accumulate(simd, &rows, weights.as_ptr(), depth, &mut ahead, &mut sums) };
    for (row, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: checked above.
            unsafe { simd.store(to.as_mut_ptr().add(row * block + v * S::LANES), sum) };
        }
    }
}

/// The outputs of one tile and one block of channels, from the sums of its positions, `stride` elements from one to
/// the next.
#[inline(always)]
fn outputs<S: Simd, P: Simd, const TILE: usize>(
    simd: S,
    prepared: &PreparedWinograd<P, TILE>,
    tensors: &Tensors<'_>,
    (tile, column): (usize, usize),
    [scale, bias]: [&[f32]; 2],
    sums: &[f32],
    stride: usize,
) {
    let PreparedWinograd { geometry, tiles: [down, across], .. } = prepared;
    let side = TILE + 2;
    let block = COLUMNS * S::LANES;
    assert!(
        scale.len() >= block && bias.len() >= block && sums.len() >= (positions(TILE) - 1) * stride + block,
        "sums of every position"
    );
    let output = geometry.output;
    let (image, within) = (tile / (down * across), tile % (down * across));
    let (top, left) = (within / across * TILE, within % across * TILE);
    let (high, wide) = (TILE.min(output.height - top), TILE.min(output.width - left));
    let channels = geometry.channels::<S>(column);
    for (vector, channel) in channels.clone().step_by(S::LANES).enumerate() {
        let channels = channel..channels.end.min(channel + S::LANES);
        let mut half = Grid::<_, TILE, MOST>::new();
        for x in 0..side {
            let mut positions = [simd.splat(0.0); MOST];
            for (y, position) in positions.iter_mut().enumerate().take(side) {
                // SAFETY: checked above: a block at each position.
                *position = unsafe { simd.load(sums.as_ptr().add((y * side + x) * stride + vector * S::LANES)) };
            }
            for (y, value) in transform::result::<S, TILE>(simd, positions).into_iter().enumerate().take(TILE) {
                half.set(y, x, value);
            }
        }
        // SAFETY: checked above.
        let bias = unsafe { simd.load(bias.as_ptr().add(vector * S::LANES)) };
        // SAFETY: checked above.
        let scale = unsafe { simd.load(scale.as_ptr().add(vector * S::LANES)) };
        for y in 0..high {
            let mut row = [simd.splat(0.0); MOST];
            for (x, value) in row.iter_mut().enumerate().take(side) {
                // SAFETY: set above.
                *value = unsafe { half.get(y, x) };
            }
            let row = transform::result::<S, TILE>(simd, row);
            let mut results = [[simd.splat(0.0)]; TILE];
            for ([result], value) in results.iter_mut().zip(row) {
                *result = simd.mul_add(value, scale, bias);
            }
            let pixel = (image * output.height + top + y) * output.width + left;
            if wide == TILE {
                geometry.store(simd, tensors, (pixel, channels.clone()), results);
                continue;
            }
            for (x, &result) in results.iter().enumerate().take(wide) {
                geometry.store(simd, tensors, (pixel + x, channels.clone()), [result]);
            }
        }
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = at_every_level!(
    Winograd<4>(Format::DenseF32),
    Winograd<2>(Format::DenseF32),
    Winograd<6>(Format::DenseF32),
    Winograd<4>(Format::DenseF16),
    Winograd<2>(Format::DenseF16),
    Winograd<4>(Format::ScaledF16),
    Winograd<2>(Format::ScaledF16)
);
