//! Convolution and linear layers on u8 activations as a matrix product whose left matrix is never built, channels
//! last.
//!
//! As for f32, output pixels are the rows of the product and output channels its columns. Four neighbouring
//! inputs are multiplied with four weights of each channel in one step ([`Dot::dot`]): for each four inputs, one
//! broadcast a row and one vector of weights a column. A tap in the padding reads a row of zero points, which
//! contributes nothing, exactly.
//!
//! Ternary weights stay codes of two bits. A vector of them, of sixteen inputs, is decoded in registers where it is
//! multiplied with, by a look-up in what the codes of its channels stand for; where many tiles follow, it is kept for
//! them.
//!
//! Levels that sum products in 16 bits first keep whole bytes in another way ([`light`]); weights of four bits fit as they
//! are, and so do ternary ones.
//!
//! Where a group's channels are a multiple of four, of ternary weights sixteen, every tap is read where it lies.
//! Elsewhere the taps of a few tiles are first gathered in scratch, side by side (Dukhan 2019, "The Indirect Convolution Algorithm", tells
//! why this is worth avoiding).

mod pack;
mod patches;
mod tile;

use dlis_backend::{
    AlignedBytes, Disjoint, Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Operation, Parallel, PrepareError,
    Prepared, Scratch, Support, TensorSpec,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::Conv2d;

use self::pack::{Packed, Packing};
use self::tile::Task;
use super::accepts::{self as quantized, Accepts, Integers};
use super::light;
use super::output::{Output, Rows, Tensors};
use super::simd::{Dot, at_every_level};
use crate::accepts;
use crate::conv2d::implicit_gemm::as_conv;
use crate::tasks::Tasks;

/// Vectors of output channels of a tile.
const COLUMNS: usize = 2;
/// Bytes of patches that are gathered together: half of a usual first-level cache.
const PANEL: usize = 16 << 10;

/// Tiles that decode ternary weights each for itself, if each input is multiplied by one instruction, whose latency hides
/// most of it. Where it takes several, two tiles are enough to keep what the first decodes.
const KEPT_FROM: usize = 8;

/// The kernel on one level, for convolutions or for linear layers, with weights of one format.
struct Gemm<D> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<D>,
}

impl<D: Dot> Gemm<D> {
    /// `op` is `conv2d` or `linear`, `format` of integers or ternary.
    const fn new(op: &'static str, format: Format) -> Self {
        let id = KernelId::new(op, "u8", format.name(), "implicit-gemm", D::NAME);
        Self { id, format, level: std::marker::PhantomData }
    }
}

/// The extents that everything is computed from.
#[derive(Clone, Copy, Debug)]
struct Shape {
    conv: Conv2d,
    packing: Packing,
    input: TensorSpec,
    output: TensorSpec,
    /// Input channels of a group.
    depth: usize,
    /// Output channels of a group.
    per_group: usize,
    /// Steps of four inputs that a sum takes, a multiple of those of a byte of weights.
    quads: usize,
    /// Whether taps are gathered, rather than read where they lie.
    gathers: bool,
    /// Whether every output pixel is computed from the input pixel of the same index, read where it lies.
    pointwise: bool,
}

impl Shape {
    fn new(conv: Conv2d, op: &OpSpec, packing: Packing) -> Self {
        let depth = conv.in_channels / conv.groups;
        Self {
            conv,
            packing,
            input: op.inputs[0],
            output: op.output,
            depth,
            per_group: conv.out_channels / conv.groups,
            quads: (depth * conv.window.taps()).next_multiple_of(packing.inputs()) / 4,
            gathers: !depth.is_multiple_of(packing.inputs()),
            pointwise: conv.window.is_pointwise() && conv.groups == 1 && depth.is_multiple_of(packing.inputs()),
        }
    }

    /// Output channels of a full block.
    const fn block<D: Dot>() -> usize {
        COLUMNS * D::LANES
    }

    /// Blocks of a group.
    fn blocks<D: Dot>(&self) -> usize {
        self.per_group.div_ceil(Self::block::<D>())
    }

    /// Output channels of a block of a group.
    fn width<D: Dot>(&self, block: usize) -> usize {
        (self.per_group - block * Self::block::<D>()).min(Self::block::<D>())
    }

    /// Output pixels of the whole batch.
    fn pixels(&self) -> usize {
        self.output.batch * self.output.pixels()
    }

    /// Slots of the constants of a group.
    fn slots<D: Dot>(&self) -> usize {
        self.per_group.next_multiple_of(D::LANES)
    }

    /// Whether so many pixels are enough tiles to keep for later ones what the first decodes.
    const fn keeps<D: Dot>(pixels: usize) -> bool {
        let few = if D::NEEDS_LIGHT { 1 } else { KEPT_FROM };
        pixels > few * D::ROWS
    }

    /// The slot of an output channel.
    fn slot<D: Dot>(&self, channel: usize) -> usize {
        channel / self.per_group * self.slots::<D>() + channel % self.per_group
    }

    /// Tiles whose patches are gathered together.
    fn panel<D: Dot>(&self) -> usize {
        (PANEL / (D::ROWS * 4 * self.quads)).max(1)
    }
}

impl<D: Dot> Gemm<D> {
    /// Whether weights are kept in sets that are light.
    fn is_light(&self) -> bool {
        D::NEEDS_LIGHT && self.format == Format::Int8
    }
}

/// Whether a convolution with weights of this format is executed at a level.
pub(super) fn support<D: Dot>(format: Format, op: &OpSpec, hw: &Hardware) -> Support {
    Gemm::<D>::new("conv2d", format).support(op, hw)
}

/// That convolution.
pub(super) fn prepare<D: Dot>(
    format: Format,
    op: &OpSpec,
    weights: OpWeights<'_>,
    hw: &Hardware,
) -> Result<Box<dyn Prepared>, PrepareError> {
    Gemm::<D>::new("conv2d", format).prepare(op, weights, hw)
}

impl<D: Dot> Kernel for Gemm<D> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        Support::when(op.operation.name() == self.id.op(), "it executes another operation")
            .and(|| Support::when(D::new(hw).is_some(), "the machine lacks the instructions"))
            .and(|| Accepts::weighted(self.format).check(op))
            .and(|| {
                let terms = as_conv(&op.operation).map_or(0, |conv| conv.weight_dims()[1..].iter().product());
                quantized::sum_fits(terms)
            })
            .and(|| {
                let fits = || as_conv(&op.operation).is_some_and(|conv| light::fits(&conv, op.inputs[0], op.output));
                Support::when(!self.is_light() || fits(), light::LIMITS)
            })
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        let Some(conv) = as_conv(&op.operation) else { return 0.01 };
        let per_group = conv.out_channels / conv.groups;
        let filled = per_group as f32 / per_group.next_multiple_of(D::LANES) as f32;
        let depth = conv.in_channels / conv.groups;
        let depth = if depth.is_multiple_of(4) { depth as f32 } else { depth as f32 / 2.0 };
        (0.7 * filled * depth / (depth + 16.0) * D::LANES as f32 / 16.0).clamp(0.001, 1.0)
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(dot), Some(conv), true) = (D::new(hw), as_conv(&op.operation), support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let dims = conv.weight_dims();
        let dims = if matches!(op.operation, Operation::Linear(_)) { &dims[..2] } else { &dims[..] };
        let Integers { values, scales, codes } = quantized::integers(self, weights, self.format, dims)?;
        let shape = Shape::new(conv, op, Packing::of(self.format));
        let columns = shape.depth * conv.window.taps();
        let sums: Vec<i32> = values.chunks(columns).map(|row| row.iter().map(|&w| i32::from(w)).sum()).collect();
        let rows = Rows { scales: &scales, sums: &sums, offset: D::SHARED_OFFSET };
        let slots = conv.groups * shape.slots::<D>();
        let output = Output::new(self, op, weights, rows, slots, |channel| shape.slot::<D>(channel))?;
        let zero_point = quantized::input(self, weights, 0)?.zero_point();
        if self.is_light() {
            let light = light::prepare(dot, conv, [op.inputs[0], op.output], &values, output, zero_point);
            return light.ok_or_else(|| accepts::unsupported(self, op, support));
        }
        // Without padding every tap is read from the input.
        let pads = conv.window.padding != [0; 4] && !shape.gathers;
        let mut padding = AlignedBytes::zeroed(if pads { shape.depth } else { 0 });
        padding.as_mut_slice().fill(zero_point);
        let weights = Packed::new::<D>(&shape, &values, &codes);
        Ok(Box::new(PreparedGemm { dot, shape, weights, output, zero_point, padding }))
    }
}

struct PreparedGemm<D> {
    dot: D,
    shape: Shape,
    weights: Packed,
    output: Output,
    zero_point: u8,
    /// What a tap in the padding reads, where there is any: one group's channels.
    padding: AlignedBytes,
}

impl<D: Dot> PreparedGemm<D> {
    /// Bytes of a worker's scratch: the weights of one block, then the patches of a panel.
    fn scratch(&self) -> [usize; 2] {
        let row = 4 * self.shape.quads;
        let panel = self.shape.panel::<D>() * D::ROWS;
        let together = if self.shape.gathers { panel.min(self.shape.pixels()) } else { self.shape.pixels() };
        let block = Shape::block::<D>().min(self.shape.per_group) * row;
        let weights = match self.shape.packing {
            Packing::Nibbles => block,
            Packing::Codes if Shape::keeps::<D>(together) => block + 4 * D::LANES,
            Packing::Bytes | Packing::Codes => 0,
        };
        let patches = if self.shape.gathers { panel * row } else { 0 };
        [AlignedBytes::round_up(weights), patches]
    }
}

impl<D: Dot> Prepared for PreparedGemm<D> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let weight_bytes = self.weights.bytes() + self.output.bytes() + self.padding.allocated();
        Footprint { weight_bytes, scratch_bytes: 0, worker_scratch_bytes: self.scratch().iter().sum() }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (shape, input) = (&self.shape, io.input(0));
        assert!(
            input.spec().same_bytes(&shape.input) && io.output_spec().same_bytes(&shape.output),
            "tensors of the operation"
        );
        let tensors = Tensors::of(io, self.output.has_residual());
        let [of_weights, of_patches] = self.scratch();
        let (_, row, workers) = scratch.bytes();
        assert!(of_weights + of_patches <= row && row * parallel.threads() <= workers.len(), "scratch for all workers");
        let workers = Disjoint::new(workers);
        let tiles = shape.pixels().div_ceil(D::ROWS);
        // A task is a run of tiles of one block of channels, whose weights stay in cache from tile to tile; where
        // patches are gathered, it is all blocks of a group, so that every patch is gathered once. Enough tasks
        // that a free worker finds one, few enough that the weights are not read again and again.
        let blocks = shape.blocks::<D>();
        let (columns, each) = if shape.gathers { (shape.conv.groups, blocks) } else { (shape.conv.groups * blocks, 1) };
        let wanted = if parallel.threads() == 1 { 1 } else { 8 * parallel.threads() };
        let runs = wanted.div_ceil(columns).clamp(1, tiles);
        let tasks = Tasks::new(columns, runs, self.weights.bytes(), input.spec().bytes());
        parallel.for_each(tasks.len(), |worker, some| {
            // SAFETY: no two calls with the same worker overlap in time, and every worker has its own row.
            let scratch = unsafe { workers.slice(worker * row..(worker + 1) * row) };
            let (weights, patches) = scratch.split_at_mut(of_weights);
            for task in some {
                let (column, run) = tasks.at(task);
                let tiles = dlis_backend::static_range(tiles, runs, run);
                self.dot.vectorize(Task {
                    prepared: self,
                    input: input.u8(),
                    tensors: &tensors,
                    columns: column * each..(column + 1) * each,
                    pixels: tiles.start * D::ROWS..(tiles.end * D::ROWS).min(shape.pixels()),
                    weights,
                    patches,
                });
            }
        });
    }
}

/// A kernel for each operation and format, on each level.
macro_rules! kernels {
    ($($op:literal $format:ident),+) => {
        at_every_level!($(Gemm($op, Format::$format)),+)
    };
}

pub(super) static KERNELS: &[&dyn Kernel] = kernels!(
    "conv2d" Int8, "conv2d" Int4, "conv2d" Ternary2Bit, "conv2d" Ternary5In8,
    "linear" Int8, "linear" Int4, "linear" Ternary2Bit, "linear" Ternary5In8
);
