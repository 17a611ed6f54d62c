//! The product of `implicit-gemm` with weights that stay as small as they are stored: a chunk of terms of a
//! block of output channels is decoded to f32 in the first-level cache, and there met by as many pixels as a
//! task has.
//!
//! Weights are fetched from memory in 8, 4, 2 or 1.6 bits, which is what maps of few pixels are bound by;
//! decoding is a few operations on a vector of weights that 8 pixels (or 6) and more then use. The arithmetic is
//! that of `implicit-gemm` on the weight in dense f32, to the bit. Activations stay f32: what integers gain here
//! is memory.
//!
//! Of 2:4 weights a processor without instructions for them multiplies the zeros, too: they are decoded like
//! the others, and gain half the memory.

mod packed;

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Disjoint, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, static_range,
};
use dlis_formats::Format;
use dlis_hw::Hardware;

pub(super) use self::packed::Packed;
use super::implicit_gemm::as_conv;
use super::product::{COLUMNS, Sums};
use super::tile::{Block, Geometry, rows_of, with_rows};
use crate::accepts::{self, Accepts};
use crate::simd::{Simd, Work, at_every_level};

/// Terms decoded at a time: 20 KiB of two vectors of AVX-512. A multiple of all terms that share a byte.
const TERMS: usize = 160;
/// Most tiles that meet a chunk of terms before the next is decoded: their sums stay in cache besides.
const TILES: usize = 32;

/// The kernel on one SIMD level, of one format, for convolutions or for linear layers.
struct DecodedGemm<S> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd> DecodedGemm<S> {
    const fn new(op: &'static str, format: Format) -> Self {
        let id = KernelId::new(op, "f32", format.name(), "decoded-gemm", S::LEVEL.name());
        Self { id, format, level: std::marker::PhantomData }
    }

    fn accepts(&self) -> Accepts {
        Accepts { layouts: &[Layout::Nhwc], weight: Some(self.format), residual: true, activation: true }
    }
}

impl<S: Simd> Kernel for DecodedGemm<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        Support::when(op.operation.name() == self.id.op(), "it executes another operation")
            .and(|| Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level"))
            .and(|| self.accepts().check(op))
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        let Some(conv) = as_conv(&op.operation) else { return 0.01 };
        // As `implicit-gemm`, less what decoding takes where few pixels share it.
        let per_group = conv.out_channels / conv.groups;
        let filled = per_group as f32 / per_group.next_multiple_of(COLUMNS * S::LANES) as f32;
        let depth = (conv.in_channels / conv.groups) as f32;
        let pixels = (op.output.batch * op.output.pixels()) as f32;
        0.7 * filled * depth / (depth + 8.0) * pixels / (pixels + 2.0) * S::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Some(conv), true) = (S::new(hw), as_conv(&op.operation), support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let dims = conv.weight_dims();
        let dims = if matches!(op.operation, Operation::Linear(_)) { &dims[..2] } else { &dims[..] };
        let weight = accepts::weight(self, weights, self.format, dims)?;
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let geometry = Geometry::new(conv, op.inputs[0], op.output, op.epilogue);
        let weights = Packed::new(weight, COLUMNS * S::LANES, geometry.per_group())
            .ok_or_else(|| accepts::wrong_weight(self, weights, self.format, dims))?;
        let bias = geometry.by_block::<S>(bias.f32());
        Ok(Box::new(PreparedDecoded { simd, geometry, weights, bias }))
    }
}

struct PreparedDecoded<S> {
    simd: S,
    geometry: Geometry,
    weights: Packed,
    /// `[group][block][channel of the block]`.
    bias: AlignedBytes,
}

impl<S: Simd> PreparedDecoded<S> {
    /// Floats of decoded weights: a chunk, or all terms if they are fewer.
    fn chunk_len(&self) -> usize {
        self.geometry.terms().min(TERMS) * COLUMNS * S::LANES
    }

    /// Floats of sums that wait for their next terms.
    fn sums_len(&self) -> usize {
        let tile = rows_of::<S>() * COLUMNS * S::LANES;
        if self.geometry.terms() > TERMS { self.geometry.tiles::<S>().min(TILES) * tile } else { 0 }
    }
}

impl<S: Simd> Prepared for PreparedDecoded<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint {
            weight_bytes: self.weights.bytes() + self.bias.allocated() + self.geometry.bytes(),
            scratch_bytes: 0,
            worker_scratch_bytes: (self.chunk_len() + self.sums_len()) * size_of::<f32>(),
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let geometry = &self.geometry;
        let tensors = geometry.tensors(io);
        let (_, worker_len, workers) = scratch.f32();
        assert!(worker_len >= self.chunk_len() + self.sums_len(), "scratch of the operation");
        let workers = Disjoint::new(workers);
        let columns = geometry.columns::<S>();
        let tiles = geometry.tiles::<S>();
        // No more tiles to a task than have room, and enough tasks that a free worker finds one.
        let runs = tiles.div_ceil(TILES).max((4 * parallel.threads()).div_ceil(columns).min(tiles));
        parallel.for_each(columns * runs, |worker, tasks| {
            // SAFETY: no two calls with the same worker overlap in time, and every worker has its own part.
            let scratch = unsafe { workers.slice(worker * worker_len..(worker + 1) * worker_len) };
            for task in tasks {
                let (column, run) = (task / runs, task % runs);
                let tiles = static_range(tiles, runs, run);
                let block = Block::new::<S>(geometry, &tensors, column);
                self.simd.vectorize(Column { prepared: self, block, tiles, scratch: &mut *scratch });
            }
        });
    }
}

/// A run of tiles of one block of output channels.
struct Column<'a, S> {
    prepared: &'a PreparedDecoded<S>,
    block: Block<'a>,
    tiles: Range<usize>,
    scratch: &'a mut [f32],
}

impl<P: Simd> Work for Column<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { prepared, block, tiles, scratch } = self;
        let PreparedDecoded { geometry, weights, bias, .. } = prepared;
        let width = COLUMNS * S::LANES;
        let (decoded, sums) = scratch.split_at_mut(prepared.chunk_len());
        let bias = &bias.f32()[block.column * width..][..width];
        let channels = block.channels.clone();
        let mut begin = 0;
        while begin < geometry.terms() {
            let terms = begin..(begin + TERMS).min(geometry.terms());
            begin = terms.end;
            // A whole block has a constant number of channels, of which the compiler makes vectors.
            if channels.len() == width {
                weights.decode(simd, channels.start..channels.start + width, terms.clone(), width, decoded);
            } else {
                weights.decode(simd, channels.clone(), terms.clone(), width, decoded);
            }
            for (place, tile) in tiles.clone().enumerate() {
                let first = tile * rows_of::<S>();
                let chunk = Chunk { terms: terms.clone(), weights: decoded, bias };
                let tile_len = rows_of::<S>() * width;
                let sums = if prepared.sums_len() > 0 { &mut sums[place * tile_len..][..tile_len] } else { &mut [] };
                with_rows!(geometry.rows::<S>(tile), chunk_of::<S; _>(simd, &block, first, chunk, sums));
            }
        }
    }
}

/// Some terms and their weights.
struct Chunk<'a> {
    terms: Range<usize>,
    weights: &'a [f32],
    bias: &'a [f32],
}

/// Adds some terms of the output pixels `first..first + ROWS` to what `waiting` has of the earlier ones; stores
/// the outputs if they are the last.
#[inline(always)]
fn chunk_of<S: Simd, const ROWS: usize>(
    simd: S,
    block: &Block<'_>,
    first: usize,
    chunk: Chunk<'_>,
    waiting: &mut [f32],
) {
    let mut sums: Sums<S::Vector, ROWS>;
    if chunk.terms.start == 0 {
        sums = Block::splat::<S, ROWS>(simd, chunk.bias);
    } else {
        sums = [[simd.splat(0.0); COLUMNS]; ROWS];
        assert!(waiting.len() >= ROWS * COLUMNS * S::LANES, "sums of a tile");
        for (row, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: just checked.
                *sum = unsafe { simd.load(waiting.as_ptr().add((row * COLUMNS + v) * S::LANES)) };
            }
        }
    }
    let last = chunk.terms.end == block.geometry.terms();
    block.add::<S, f32, ROWS>(simd, first, chunk.terms, chunk.weights, (), &mut sums);
    if last {
        block.store(simd, first, sums);
        return;
    }
    assert!(waiting.len() >= ROWS * COLUMNS * S::LANES, "sums of a tile");
    for (row, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: just checked.
            unsafe { simd.store(waiting.as_mut_ptr().add((row * COLUMNS + v) * S::LANES), sum) };
        }
    }
}

macro_rules! kernels {
    ($($op:literal: $($format:ident)+),+) => {
        at_every_level!($($(DecodedGemm($op, Format::$format)),+),+)
    };
}

pub(crate) static KERNELS: &[&dyn Kernel] = kernels!(
    "conv2d": Int8 Int4 Ternary2Bit Ternary5In8 TwoFour,
    "linear": Int8 Int4 Ternary2Bit Ternary5In8 TwoFour
);
