//! Convolution as a matrix product whose left matrix is never built (Chetlur et al. 2014, "cuDNN:
//! Efficient Primitives for Deep Learning", section 3), channels last, register-tiled by hand.
//!
//! Output pixels are the rows of the product, output channels its columns, and (tap, input channel) the
//! dimension summed over. A tile of `ROWS` pixels by `COLUMNS` vectors of output channels lives in
//! registers for the whole sum: for each tap, `ROWS` pointers into the input (or to zeros where the tap
//! lies in the padding, as in Dukhan 2019, "The Indirect Convolution Algorithm"), and for each input
//! channel one vector load a column and one broadcast a row. Weights are packed once in the order in
//! which they are read, `[group][block of output channels][tap][input channel][channel of the block]`, and
//! stream through once a tile; bias, residual and activation are applied before the only store.
//!
//! Weights of f16 are packed as they are, half as many bytes to read from memory, and become f32 on their way
//! into a register; sums are multiplied by the scales of their output channels, which are ones where it has none.
//!
//! A linear layer is the same product with one tap. Where an image has few channels, as the first layer's, the taps of
//! a row of the window are merged into one: the image is copied once with its padding in place, and what those taps
//! read of it are then neighbours.

use std::marker::PhantomData;
use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel, PrepareError,
    Prepared, Scratch, Support, TensorSpec, static_range,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::{Conv2d, Window};

use super::pack::pack_block;
use super::product::{Ahead, COLUMNS, Stored, Wanted};
use super::tile::{Block, Geometry, operands, rows_of, with_rows};
use crate::accepts::{self, Accepts};
use crate::simd::{Simd, Work, at_every_level};
use crate::tasks::Tasks;

/// Most input channels whose taps are merged by rows.
const FEW: usize = 4;
/// Most elements of a padded input.
const MAX_PADDED: usize = 1 << 26;
/// Least output channels of a group, where there are several groups.
const MIN_GROUP: usize = 4;

/// The kernel on one SIMD level, for convolutions or for linear layers, of weights in one format.
pub(crate) struct ImplicitGemm<S> {
    id: KernelId,
    format: Format,
    level: PhantomData<S>,
}

impl<S: Simd> ImplicitGemm<S> {
    /// `op` is `conv2d` or `linear`, `format` dense f32, dense f16 or scaled f16.
    pub(crate) const fn new(op: &'static str, format: Format) -> Self {
        let id = KernelId::new(op, "f32", accepts::format_name(format), "implicit-gemm", S::LEVEL.name());
        Self { id, format, level: PhantomData }
    }

    fn accepts(&self) -> Accepts {
        Accepts { layouts: &[Layout::Nhwc], weight: Some(self.format), residual: true, activation: true }
    }
}

/// The convolution that an operation amounts to.
pub(crate) fn as_conv(operation: &Operation) -> Option<Conv2d> {
    match *operation {
        Operation::Conv2d(conv) => Some(conv),
        Operation::Linear(linear) => Some(Conv2d {
            in_channels: linear.in_features,
            out_channels: linear.out_features,
            groups: 1,
            window: Window::square(1),
            bias: linear.bias,
        }),
        _ => None,
    }
}

impl<S: Simd> Kernel for ImplicitGemm<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        Support::when(op.operation.name() == self.id.op(), "it executes another operation")
            .and(|| Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level"))
            .and(|| self.accepts().check(op))
            .and(|| {
                let wide = as_conv(&op.operation)
                    .is_some_and(|conv| conv.groups == 1 || conv.out_channels / conv.groups >= MIN_GROUP);
                Support::when(
                    wide,
                    "a group has fewer than 4 output channels, so its tiles would be nearly all padding",
                )
            })
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        let Some(conv) = as_conv(&op.operation) else { return 0.01 };
        // A block of channels that is mostly padding, and taps too short to pay for their pointers.
        let per_group = conv.out_channels / conv.groups;
        let block = COLUMNS * S::LANES;
        let filled = per_group as f32 / per_group.next_multiple_of(block) as f32;
        let merged = Padded::of(&conv, op.inputs[0]).map_or(conv, |padded| padded.merged(conv));
        let depth = (merged.in_channels / merged.groups) as f32;
        0.7 * filled * depth / (depth + 8.0) * S::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Some(conv), true) = (S::new(hw), as_conv(&op.operation), support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let dims = conv.weight_dims();
        let dims = if matches!(op.operation, Operation::Linear(_)) { &dims[..2] } else { &dims[..] };
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let padded = Padded::of(&conv, op.inputs[0]);
        let (merged, input) = padded.as_ref().map_or((conv, op.inputs[0]), |padded| (padded.merged(conv), padded.to));
        let geometry = Geometry::new(merged, input, op.output, op.epilogue);
        let bias = geometry.by_block::<S>(bias.f32());
        // The rest is for activations.
        let keep = hw.l2.map_or(0, |l2| usize::try_from(l2.bytes / 4 * 3).unwrap_or(usize::MAX));
        if self.format == Format::DenseF32 {
            let weights = packed::<S, f32>(&conv, &geometry, &accepts::dense_f32(self, weights, dims)?);
            let (scales, stored) = (AlignedBytes::zeroed(0), PhantomData::<f32>);
            return Ok(Box::new(PreparedGemm { simd, geometry, padded, weights, bias, scales, keep, stored }));
        }
        let halves = accepts::halves(self, weights, self.format, dims)?;
        let ones;
        let scales = match halves.scales {
            Some(scales) => scales,
            None => {
                ones = vec![1.0; conv.out_channels];
                &ones
            }
        };
        let scales = geometry.by_block::<S>(scales);
        let (weights, stored) = (packed::<S, u16>(&conv, &geometry, &halves.bits), PhantomData::<u16>);
        Ok(Box::new(PreparedGemm { simd, geometry, padded, weights, bias, scales, keep, stored }))
    }
}

/// Weights of a convolution in the order in which they are read; channels beyond a group's last are zero. Merging its taps
/// changes nothing in that order.
fn packed<S: Simd, W: Stored>(conv: &Conv2d, geometry: &Geometry, source: &[W]) -> AlignedBytes {
    let block = COLUMNS * S::LANES;
    let (depth, taps) = (conv.in_channels / conv.groups, conv.window.taps());
    let mut packed = AlignedBytes::zeroed(geometry.columns::<S>() * taps * depth * block * size_of::<W>());
    for (column, to) in W::of_mut(&mut packed).chunks_exact_mut(taps * depth * block).enumerate() {
        let outs = geometry.channels::<S>(column);
        pack_block(source, (depth, taps), outs, block, to, |channel, tap| tap * depth + channel);
    }
    packed
}

/// An image of few channels with its padding in place.
struct Padded {
    from: TensorSpec,
    to: TensorSpec,
    /// Rows and columns of padding before the image.
    before: [usize; 2],
}

impl Padded {
    /// If the window's rows are worth merging.
    fn of(conv: &Conv2d, from: TensorSpec) -> Option<Self> {
        let [above, left, below, right] = conv.window.padding;
        let few = conv.groups == 1 && conv.in_channels <= FEW && conv.window.kernel[1] > 1;
        let [height, width] = [(from.height, above, below), (from.width, left, right)]
            .map(|(extent, before, after)| extent.checked_add(before)?.checked_add(after));
        let to = TensorSpec { height: height?, width: width?, ..from };
        let len = to.height.checked_mul(to.width)?.checked_mul(to.batch)?.checked_mul(to.channels)?;
        (few && conv.window.dilation[1] == 1 && len <= MAX_PADDED).then_some(Self { from, to, before: [above, left] })
    }

    /// The convolution of the padded image whose columns of taps are channels.
    fn merged(&self, conv: Conv2d) -> Conv2d {
        let [kernel_y, kernel_x] = conv.window.kernel;
        let window = Window { kernel: [kernel_y, 1], padding: [0; 4], ..conv.window };
        Conv2d { in_channels: conv.in_channels * kernel_x, window, ..conv }
    }

    /// Copies the images.
    fn fill(&self, images: &[f32], padded: &mut [f32], parallel: Parallel<'_>) {
        let Self { from, to, before: [above, left] } = self;
        let (row_from, row_to) = (from.width * from.channels, to.width * to.channels);
        parallel.for_each_row(padded, row_to, |_, first, rows| {
            rows.fill(0.0);
            for (index, row) in (first..).zip(rows.chunks_mut(row_to)) {
                let (image, y) = (index / to.height, index % to.height);
                if let Some(y) = y.checked_sub(*above).filter(|&y| y < from.height) {
                    let line = &images[(image * from.height + y) * row_from..][..row_from];
                    row[left * from.channels..][..row_from].copy_from_slice(line);
                }
            }
        });
    }
}

struct PreparedGemm<S, W> {
    simd: S,
    /// Of the padded image, if there is one.
    geometry: Geometry,
    padded: Option<Padded>,
    /// Packed as the module says.
    weights: AlignedBytes,
    /// What is added to the sums of each output channel: `[group][block][channel of the block]`.
    bias: AlignedBytes,
    /// What they are multiplied by before that, if such weights are.
    scales: AlignedBytes,
    /// Bytes of weights that remain in a cache of each core while others are read.
    keep: usize,
    stored: PhantomData<W>,
}

impl<S: Simd, W: Stored> Prepared for PreparedGemm<S, W> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let of_channels = self.bias.allocated() + self.scales.allocated();
        let weight_bytes = self.weights.allocated() + of_channels + self.geometry.bytes();
        let scratch_bytes = self.padded.as_ref().map_or(0, |padded| padded.to.elements() * size_of::<f32>());
        Footprint { weight_bytes, scratch_bytes, ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let geometry = &self.geometry;
        let tensors = match &self.padded {
            None => geometry.tensors(io),
            Some(padded) => {
                let (images, residual) = operands(io, &padded.from, &geometry.output, &geometry.epilogue);
                let (to, _, _) = scratch.f32();
                let to = &mut to[..padded.to.elements()];
                padded.fill(images, to, parallel);
                geometry.tensors_of((to, residual), io)
            }
        };
        let columns = geometry.columns::<S>();
        let tiles = geometry.tiles::<S>();
        // A task is one column of blocks and a run of tiles: the column's weights stay in cache from tile to
        // tile. Enough tasks that a free worker finds one, few enough that the weights are not re-read.
        let runs = (8 * parallel.threads()).div_ceil(columns).clamp(1, tiles);
        let tasks = Tasks::new(columns, runs, self.weights.allocated(), geometry.input.bytes());
        parallel.for_each(tasks.len(), |_, some| {
            for task in some {
                let (column, run) = tasks.at(task);
                let tiles = static_range(tiles, runs, run);
                let block = Block::new::<S>(geometry, &tensors, column);
                self.simd.vectorize(Column { prepared: self, block, tiles });
            }
        });
    }
}

/// A run of tiles of one block of output channels.
struct Column<'a, S, W> {
    prepared: &'a PreparedGemm<S, W>,
    block: Block<'a>,
    tiles: Range<usize>,
}

impl<P: Simd, W: Stored> Work for Column<'_, P, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PreparedGemm { geometry, weights, keep, .. } = self.prepared;
        let of_block = geometry.terms() * COLUMNS * S::LANES;
        let weights = &W::of(weights)[self.block.column * of_block..][..of_block];
        let terms = [geometry.conv.window.taps(), geometry.depth()];
        match Wanted::new(weights, terms, self.tiles.len(), *keep) {
            Wanted::Much(ahead) => self.tiles(simd, weights, ahead),
            Wanted::Little(ahead) => self.tiles(simd, weights, ahead),
        }
    }
}

impl<P: Simd, W: Stored> Column<'_, P, W> {
    #[inline(always)]
    fn tiles<S: Simd>(self, simd: S, weights: &[W], mut ahead: impl Ahead) {
        let Self { prepared: PreparedGemm { geometry, bias, scales, .. }, block, tiles } = self;
        let width = COLUMNS * S::LANES;
        let of_block = block.column * width..(block.column + 1) * width;
        let bias = &bias.f32()[of_block.clone()];
        let scales = if W::SCALED { &scales.f32()[of_block] } else { &[] };
        for tile in tiles {
            let (first, rows) = (tile * rows_of::<S>(), geometry.rows::<S>(tile));
            let ahead = ahead.next();
            with_rows!(rows, tile_of::<S, W; _>(simd, &block, first, (weights, ahead), (bias, scales)));
        }
    }
}

/// Computes the output pixels `first..first + ROWS`, counted over the whole batch.
#[inline(always)]
fn tile_of<S: Simd, W: Stored, const ROWS: usize>(
    simd: S,
    block: &Block<'_>,
    first: usize,
    (weights, ahead): (&[W], impl Ahead),
    (bias, scales): (&[f32], &[f32]),
) {
    let terms = 0..block.geometry.terms();
    if !W::SCALED {
        let mut sums = Block::splat::<S, ROWS>(simd, bias);
        block.add::<S, _, ROWS>(simd, first, terms, weights, ahead, &mut sums);
        return block.store(simd, first, sums);
    }
    let mut sums = [[simd.splat(0.0); COLUMNS]; ROWS];
    block.add::<S, _, ROWS>(simd, first, terms, weights, ahead, &mut sums);
    let ([scales], [bias]) = (Block::splat::<S, 1>(simd, scales), Block::splat::<S, 1>(simd, bias));
    for sums in &mut sums {
        for ((sum, &scale), &bias) in sums.iter_mut().zip(&scales).zip(&bias) {
            *sum = simd.mul_add(*sum, scale, bias);
        }
    }
    block.store(simd, first, sums);
}

macro_rules! kernels {
    ($($format:ident)+) => {
        at_every_level!(
            $(ImplicitGemm("conv2d", Format::$format), ImplicitGemm("linear", Format::$format)),+
        )
    };
}

pub(crate) static KERNELS: &[&dyn Kernel] = kernels!(DenseF32 DenseF16 ScaledF16);
