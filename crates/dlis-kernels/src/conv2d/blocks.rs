//! Convolution with weights that are sparse by blocks of output channels, channels last: a block of 8 or 16
//! output channels is a vector or two, which several pixels use.
//!
//! The loops are those of `implicit-gemm` but for the innermost, which visits only the input channels whose
//! block is stored: for each, one load of weights, and for each pixel of the tile one broadcast and one
//! multiply-add (Gray et al. 2017, "GPU Kernels for Block-Sparse Weights"; Elsen et al. 2020, "Fast Sparse
//! `ConvNets`", for blocks of output channels). Nothing is gathered, and maps of any size fill the vectors.
//!
//! A block that is not stored contributes nothing, not even where the input is infinite or NaN.

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel, PrepareError,
    Prepared, Scratch, Support, static_range,
};
use dlis_formats::{Bsr, Format, Indices, Weight};
use dlis_hw::Hardware;

use super::implicit_gemm::as_conv;
use super::tile::{Geometry, Tensors};
use crate::accepts::{self, Accepts};
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd, Work};

/// The kernel on one SIMD level, of one format, for convolutions or for linear layers. `V` vectors are a block.
struct DirectSparseBlock<S, const V: usize> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd, const V: usize> DirectSparseBlock<S, V> {
    const fn new(op: &'static str, format: Format) -> Self {
        let id = KernelId::new(op, "f32", format.name(), "direct-sparse-block", S::LEVEL.name());
        Self { id, format, level: std::marker::PhantomData }
    }
}

impl<S: Simd, const V: usize> Kernel for DirectSparseBlock<S, V> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let (Some(conv), true) = (as_conv(&op.operation), op.operation.name() == self.id.op()) else {
            return accepts::another_operation();
        };
        let layouts = &[Layout::Nhwc];
        Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level")
            .and(|| Accepts { layouts, weight: Some(self.format), residual: true, activation: true }.check(op))
            .and(|| {
                let whole = conv.groups == 1 || (conv.out_channels / conv.groups).is_multiple_of(V * S::LANES);
                Support::when(whole, "a block of output channels reaches from one group into the next")
            })
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        // Of the dense operation's multiply-adds, most of which it does not do.
        let pixels = (op.output.batch * op.output.pixels()) as f32;
        (S::LANES as f32 / 16.0 * pixels / (pixels + 4.0)).clamp(0.01, 1.0)
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Some(conv), true) = (S::new(hw), as_conv(&op.operation), support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let dims = conv.weight_dims();
        let dims = if matches!(op.operation, Operation::Linear(_)) { &dims[..2] } else { &dims[..] };
        let Weight::Bsr(weight) = accepts::weight(self, weights, self.format, dims)? else {
            return Err(accepts::wrong_weight(self, weights, self.format, dims));
        };
        let values = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let blocks = Blocks::new(weight, conv.window.taps());
        let mut bias = AlignedBytes::zeroed(blocks.rows * V * S::LANES * size_of::<f32>());
        bias.f32_mut()[..values.f32().len()].copy_from_slice(values.f32());
        let geometry = Geometry::new(conv, op.inputs[0], op.output, op.epilogue);
        Ok(Box::new(PreparedBlocks::<S, V> { simd, geometry, blocks, bias }))
    }
}

/// Blocks of one column, by rows of blocks and within them by taps.
struct Blocks {
    /// Rows of blocks.
    rows: usize,
    taps: usize,
    /// `[row][tap]`: where the blocks start, and where the last row's end.
    starts: Vec<u32>,
    /// The input channel of each.
    channels: Channels,
    /// The values of each.
    values: AlignedBytes,
}

enum Channels {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl Blocks {
    fn new(bsr: &Bsr, taps: usize) -> Self {
        let height = bsr.block()[0];
        let (rows, count) = (bsr.block_rows(), bsr.block_columns().len());
        let mut starts = Vec::with_capacity(rows * taps + 1);
        starts.push(0);
        let mut order: Vec<usize> = Vec::with_capacity(count);
        let mut done = 0;
        for row in bsr.block_row_starts().windows(2) {
            let blocks = row[0] as usize..row[1] as usize;
            for tap in 0..taps {
                order.extend(blocks.clone().filter(|&at| bsr.block_columns().get(at) % taps == tap));
                #[expect(clippy::cast_possible_truncation, reason = "as many as the weight has, whose starts are u32")]
                let more = (order.len() - done) as u32;
                done = order.len();
                starts.push(starts.last().unwrap_or(&0) + more);
            }
        }
        let channel = |&at: &usize| bsr.block_columns().get(at) / taps;
        let channels = match bsr.block_columns() {
            Indices::U16(_) => Channels::U16(order.iter().map(|at| u16::try_from(channel(at)).unwrap_or(0)).collect()),
            Indices::U32(_) => Channels::U32(order.iter().map(|at| u32::try_from(channel(at)).unwrap_or(0)).collect()),
        };
        let mut values = AlignedBytes::zeroed(count * height * size_of::<f32>());
        for (to, &at) in values.f32_mut().chunks_exact_mut(height).zip(&order) {
            to.copy_from_slice(&bsr.values()[at * height..][..height]);
        }
        Self { rows, taps, starts, channels, values }
    }

    fn bytes(&self) -> usize {
        let channels = match &self.channels {
            Channels::U16(channels) => size_of_val(&channels[..]),
            Channels::U32(channels) => size_of_val(&channels[..]),
        };
        channels + size_of_val(&self.starts[..]) + self.values.allocated()
    }

    /// The blocks of a tap in a row.
    #[inline(always)]
    fn of_tap(&self, row: usize, tap: usize) -> Range<usize> {
        let at = row * self.taps + tap;
        self.starts[at] as usize..self.starts[at + 1] as usize
    }
}

/// Most pixels of a tile: as many sums as fit the registers beside weights and broadcast.
const fn rows_of<S: Simd>(vectors: usize) -> usize {
    match (vectors, S::REGISTERS >= 32) {
        (1, _) | (2, true) => 8,
        (2, false) | (_, true) => 6,
        (_, false) => 3,
    }
}

struct PreparedBlocks<S, const V: usize> {
    simd: S,
    geometry: Geometry,
    blocks: Blocks,
    /// Padded to whole blocks.
    bias: AlignedBytes,
}

impl<S: Simd, const V: usize> Prepared for PreparedBlocks<S, V> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let weight_bytes = self.blocks.bytes() + self.bias.allocated() + self.geometry.bytes();
        Footprint { weight_bytes, ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let geometry = &self.geometry;
        let tensors = geometry.tensors(io);
        let tiles = (geometry.output.batch * geometry.output.pixels()).div_ceil(rows_of::<S>(V));
        // A row of blocks stays in cache from tile to tile.
        let runs = (8 * parallel.threads()).div_ceil(self.blocks.rows).clamp(1, tiles);
        parallel.for_each(self.blocks.rows * runs, |_, tasks| {
            for task in tasks {
                let tiles = static_range(tiles, runs, task % runs);
                self.simd.vectorize(Rows::<'_, S, V> { prepared: self, tensors: &tensors, row: task / runs, tiles });
            }
        });
    }
}

/// A row of blocks on a run of tiles.
struct Rows<'a, S, const V: usize> {
    prepared: &'a PreparedBlocks<S, V>,
    tensors: &'a Tensors<'a>,
    row: usize,
    tiles: Range<usize>,
}

impl<P: Simd, const V: usize> Work for Rows<'_, P, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Geometry { output, .. } = self.prepared.geometry;
        let pixels = output.batch * output.pixels();
        for tile in self.tiles.clone() {
            let first = tile * rows_of::<P>(V);
            // Entries are summed so many apart that the sums hide the latency of a multiply-add.
            match (pixels - first).min(rows_of::<P>(V)) {
                8 => self.tile::<S, 8, 1>(simd, first),
                7 => self.tile::<S, 7, 1>(simd, first),
                6 => self.tile::<S, 6, 1>(simd, first),
                5 => self.tile::<S, 5, 1>(simd, first),
                // Of many vectors one set of sums is enough, and two would not fit the registers.
                4 if V > 2 => self.tile::<S, 4, 1>(simd, first),
                4 => self.tile::<S, 4, 2>(simd, first),
                3 => self.tile::<S, 3, 1>(simd, first),
                2 => self.tile::<S, 2, 2>(simd, first),
                _ => self.tile::<S, 1, 4>(simd, first),
            }
        }
    }
}

impl<P: Simd, const V: usize> Rows<'_, P, V> {
    /// Computes the output pixels `first..first + ROWS`, summing blocks `U` apart.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const U: usize>(&self, simd: S, first: usize) {
        match &self.prepared.blocks.channels {
            Channels::U16(channels) => self.sum::<S, u16, ROWS, U>(simd, channels, first),
            Channels::U32(channels) => self.sum::<S, u32, ROWS, U>(simd, channels, first),
        }
    }

    #[inline(always)]
    fn sum<S: Simd, I: Index, const ROWS: usize, const U: usize>(&self, simd: S, channels: &[I], first: usize) {
        let PreparedBlocks { geometry, blocks, bias, .. } = self.prepared;
        let block = V * S::LANES;
        let channel = self.row * block;
        let group = channel / geometry.per_group();
        let bias = &bias.f32()[channel..][..block];
        let mut sums = [[[simd.splat(0.0); V]; ROWS]; U];
        for sums in &mut sums[0] {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the slice holds `V` vectors.
                *sum = unsafe { simd.load(bias.as_ptr().add(v * S::LANES)) };
            }
        }
        let origin = geometry.origins::<ROWS>(first);
        for tap in 0..blocks.taps {
            let range = blocks.of_tap(self.row, tap);
            if range.is_empty() {
                continue;
            }
            let of_row = geometry.conv.window.kernel[1];
            let pixel = geometry.pixels(self.tensors, &origin, [tap / of_row, tap % of_row], group);
            let channels = &channels[range.clone()];
            let values = &blocks.values.f32()[range.start * block..range.end * block];
            let whole = channels.len() - channels.len() % U;
            for at in (0..whole).step_by(U) {
                for (apart, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: `at + apart` is one of the blocks, each of `V` vectors; its channel is one of the
                    // group's, to which every pixel points.
                    unsafe { add(simd, values, channels, at + apart, &pixel, sums) };
                }
            }
            for at in whole..channels.len() {
                // SAFETY: as above.
                unsafe { add(simd, values, channels, at, &pixel, &mut sums[0]) };
            }
        }
        let mut total = sums[0];
        for sums in &sums[1..] {
            for (total, sums) in total.iter_mut().zip(sums) {
                for (total, &sum) in total.iter_mut().zip(sums) {
                    *total = simd.add(*total, sum);
                }
            }
        }
        let channels = channel..(channel + block).min(geometry.output.channels);
        geometry.store(simd, self.tensors, (first, channels), total);
    }
}

/// Adds one block to the sums.
///
/// # Safety
///
/// `at` must be one of `channels`, of which `values` has `V` vectors each, and every pixel must have its channel.
#[inline(always)]
unsafe fn add<S: Simd, I: Index, const ROWS: usize, const V: usize>(
    simd: S,
    values: &[f32],
    channels: &[I],
    at: usize,
    pixel: &[*const f32; ROWS],
    sums: &mut [[S::Vector; V]; ROWS],
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let channel = channels.get_unchecked(at).index();
        let mut weights = [simd.splat(0.0); V];
        for (v, weight) in weights.iter_mut().enumerate() {
            *weight = simd.load(values.as_ptr().add((at * V + v) * S::LANES));
        }
        for (pixel, sums) in pixel.iter().zip(sums) {
            let x = simd.splat(*pixel.add(channel));
            for (sum, &weight) in sums.iter_mut().zip(&weights) {
                *sum = simd.mul_add(x, weight, *sum);
            }
        }
    }
}

/// An input channel, in as few bits as all need.
trait Index: Copy {
    fn index(self) -> usize;
}

impl Index for u16 {
    #[inline(always)]
    fn index(self) -> usize {
        usize::from(self)
    }
}

impl Index for u32 {
    #[inline(always)]
    fn index(self) -> usize {
        self as usize
    }
}

// How many vectors a block is depends on the level, and not every block is whole vectors of each.
macro_rules! kernels {
    ($($op:literal),+) => {
        &[$(
            #[cfg(target_arch = "x86_64")]
            &DirectSparseBlock::<Avx512, 1>::new($op, Format::Bsr16x1),
            #[cfg(target_arch = "x86_64")]
            &DirectSparseBlock::<Avx2, 2>::new($op, Format::Bsr16x1),
            #[cfg(target_arch = "aarch64")]
            &DirectSparseBlock::<Neon, 4>::new($op, Format::Bsr16x1),
            &DirectSparseBlock::<Portable, 4>::new($op, Format::Bsr16x1),
            #[cfg(target_arch = "x86_64")]
            &DirectSparseBlock::<Avx2, 1>::new($op, Format::Bsr8x1),
            #[cfg(target_arch = "aarch64")]
            &DirectSparseBlock::<Neon, 2>::new($op, Format::Bsr8x1),
            &DirectSparseBlock::<Portable, 2>::new($op, Format::Bsr8x1),
        )+]
    };
}

pub(crate) static KERNELS: &[&dyn Kernel] = kernels!("conv2d", "linear");
