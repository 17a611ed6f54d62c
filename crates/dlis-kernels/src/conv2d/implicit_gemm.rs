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
//! A linear layer is the same product with one tap.

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Disjoint, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, TensorSpec,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::{Activation, Conv2d, Window};

use crate::accepts::{self, Accepts};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd, Work};

/// Most pixels of a tile. With two vectors of channels this makes 16 accumulators, two vectors of
/// weights and a broadcast: as many as AVX2 has registers for is 6 rows, AVX-512 has room to spare.
const MAX_ROWS: usize = 8;
/// Vectors of output channels of a tile.
const COLUMNS: usize = 2;
/// How far ahead of their use weights are prefetched, in elements: a page, as the processor's own
/// prefetchers stop at the end of one, and a layer of few pixels does little else than read weights.
const AHEAD: usize = 1024;
/// Least output channels of a group, where there are several groups.
const MIN_GROUP: usize = 4;

const ACCEPTS: Accepts =
    Accepts { layouts: &[Layout::Nhwc], weight: Some(Format::DenseF32), residual: true, activation: true };

/// Pixels of a full tile on this level.
const fn rows_of<S: Simd>() -> usize {
    if S::LANES >= 16 { MAX_ROWS } else { 6 }
}

/// The kernel on one SIMD level, for convolutions or for linear layers.
pub(crate) struct ImplicitGemm<S> {
    id: KernelId,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd> ImplicitGemm<S> {
    /// `op` is `conv2d` or `linear`.
    pub(crate) const fn new(op: &'static str, isa: &'static str) -> Self {
        Self { id: KernelId::new(op, "f32", "dense", "implicit-gemm", isa), level: std::marker::PhantomData }
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
            .and(|| ACCEPTS.check(op))
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
        let depth = (conv.in_channels / conv.groups) as f32;
        0.7 * filled * depth / (depth + 8.0) * S::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Some(conv), true) = (S::new(hw), as_conv(&op.operation), support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let dims = conv.weight_dims();
        let source = match op.operation {
            Operation::Linear(_) => accepts::dense_f32(self, weights, &dims[..2])?,
            _ => accepts::dense_f32(self, weights, &dims)?,
        };
        let values = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let block = COLUMNS * S::LANES;
        let depth = conv.in_channels / conv.groups;
        let per_group = conv.out_channels / conv.groups;
        let blocks = per_group.div_ceil(block);
        let taps = conv.window.taps();
        let mut packed = AlignedBytes::zeroed(conv.groups * blocks * taps * depth * block * size_of::<f32>());
        let mut bias = AlignedBytes::zeroed(conv.groups * blocks * block * size_of::<f32>());
        for out in 0..conv.out_channels {
            let (group, within) = (out / per_group, out % per_group);
            let column = group * blocks + within / block;
            let lane = within % block;
            let to = &mut packed.f32_mut()[column * taps * depth * block..];
            for tap in 0..taps {
                for channel in 0..depth {
                    to[(tap * depth + channel) * block + lane] = source.f32()[(out * depth + channel) * taps + tap];
                }
            }
            if conv.bias {
                bias.f32_mut()[column * block + lane] = values.f32()[out];
            }
        }
        Ok(Box::new(PreparedGemm {
            simd,
            conv,
            input: op.inputs[0],
            output: op.output,
            epilogue: op.epilogue,
            weights: packed,
            bias,
            zeros: AlignedBytes::zeroed(depth * size_of::<f32>()),
        }))
    }
}

struct PreparedGemm<S> {
    simd: S,
    conv: Conv2d,
    input: TensorSpec,
    output: TensorSpec,
    epilogue: Epilogue,
    /// Packed as the module says; channels beyond the last are zero.
    weights: AlignedBytes,
    /// `[group][block][channel of the block]`.
    bias: AlignedBytes,
    /// What a tap in the padding reads: one group's channels.
    zeros: AlignedBytes,
}

impl<S: Simd> Prepared for PreparedGemm<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let weight_bytes = self.weights.allocated() + self.bias.allocated() + self.zeros.allocated();
        Footprint { weight_bytes, ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0);
        assert!(
            input.spec().same_bytes(&self.input) && io.output_spec().same_bytes(&self.output),
            "tensors of the operation"
        );
        let residual = io.residual();
        assert_eq!(residual.is_some(), self.epilogue.residual);
        let output = Disjoint::new(io.output().f32());
        let tensors =
            Tensors { input: input.f32(), residual: residual.map(|residual| residual.f32()), output: &output };
        let per_group = self.conv.out_channels / self.conv.groups;
        let columns = self.conv.groups * per_group.div_ceil(COLUMNS * S::LANES);
        let tiles = (self.output.batch * self.output.pixels()).div_ceil(rows_of::<S>());
        // A task is one column of blocks and a run of tiles: the column's weights stay in cache from tile to
        // tile. Enough tasks that a free worker finds one, few enough that the weights are not re-read.
        let runs = (8 * parallel.threads()).div_ceil(columns).clamp(1, tiles);
        parallel.for_each(columns * runs, |_, tasks| {
            for task in tasks {
                let (column, run) = (task / runs, task % runs);
                let tiles = dlis_backend::static_range(tiles, runs, run);
                self.simd.vectorize(Column { prepared: self, tensors: &tensors, column, tiles });
            }
        });
    }
}

/// The memory of one call.
struct Tensors<'a> {
    input: &'a [f32],
    residual: Option<&'a [f32]>,
    output: &'a Disjoint<'a, f32>,
}

/// A run of tiles of one block of output channels.
struct Column<'a, S> {
    prepared: &'a PreparedGemm<S>,
    tensors: &'a Tensors<'a>,
    column: usize,
    tiles: Range<usize>,
}

impl<P: Simd> Work for Column<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pixels = self.prepared.output.batch * self.prepared.output.pixels();
        let rows = rows_of::<S>();
        for tile in self.tiles.clone() {
            let first = tile * rows;
            match (pixels - first).min(rows) {
                8 => self.tile::<S, 8>(simd, first),
                7 => self.tile::<S, 7>(simd, first),
                6 => self.tile::<S, 6>(simd, first),
                5 => self.tile::<S, 5>(simd, first),
                4 => self.tile::<S, 4>(simd, first),
                3 => self.tile::<S, 3>(simd, first),
                2 => self.tile::<S, 2>(simd, first),
                _ => self.tile::<S, 1>(simd, first),
            }
        }
    }
}

impl<P: Simd> Column<'_, P> {
    /// Computes the output pixels `first..first + ROWS`, counted over the whole batch.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&self, simd: S, first: usize) {
        let PreparedGemm { conv, input, output, weights, bias, zeros, .. } = self.prepared;
        let block = COLUMNS * S::LANES;
        let depth = conv.in_channels / conv.groups;
        let per_group = conv.out_channels / conv.groups;
        let blocks = per_group.div_ceil(block);
        let group = self.column / blocks;
        let taps = conv.window.taps();
        let [kernel_height, kernel_width] = conv.window.kernel;

        // Where each pixel's window begins, in input coordinates: before the first where the padding is, which as
        // an unsigned number is beyond the last. Plain loops throughout: `array::from_fn` is not always inlined.
        let mut origin = [(0, 0, 0); ROWS];
        for (row, origin) in origin.iter_mut().enumerate() {
            let (image, within) = ((first + row) / output.pixels(), (first + row) % output.pixels());
            let (y, x) = (within / output.width, within % output.width);
            let along = |position: usize, axis: usize| {
                (position * conv.window.stride[axis]).wrapping_sub(conv.window.padding[axis])
            };
            *origin = (image * input.height, along(y, 0), along(x, 1));
        }

        let column_weights = &weights.f32()[self.column * taps * depth * block..][..taps * depth * block];
        let column_bias = &bias.f32()[self.column * block..][..block];
        let mut weight = column_weights.as_ptr();
        let mut sums = [[simd.splat(0.0); COLUMNS]; ROWS];
        for sums in &mut sums {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a block of bias holds `COLUMNS` vectors.
                *sum = unsafe { simd.load(column_bias.as_ptr().add(v * S::LANES)) };
            }
        }
        let zero = zeros.f32().as_ptr();
        for tap_y in 0..kernel_height {
            for tap_x in 0..kernel_width {
                let mut pixel = [zero; ROWS];
                for (pixel, &(image_rows, y, x)) in pixel.iter_mut().zip(&origin) {
                    let y = y.wrapping_add(tap_y * conv.window.dilation[0]);
                    let x = x.wrapping_add(tap_x * conv.window.dilation[1]);
                    if y < input.height && x < input.width {
                        let at = ((image_rows + y) * input.width + x) * input.channels + group * depth;
                        debug_assert!(at + depth <= self.tensors.input.len(), "input pixel in bounds");
                        // SAFETY: image, row and column lie within the input and `run` has checked its size.
                        *pixel = unsafe { self.tensors.input.as_ptr().add(at) };
                    }
                }
                for channel in 0..depth {
                    // SAFETY: every `pixel` points to the `depth` channels of one group; `weight` advances through
                    // `taps * depth` blocks of `COLUMNS` vectors, which is the length of `column_weights`.
                    unsafe {
                        let mut columns = [simd.splat(0.0); COLUMNS];
                        for (v, column) in columns.iter_mut().enumerate() {
                            simd.prefetch(weight.wrapping_add(AHEAD + v * S::LANES));
                            *column = simd.load(weight.add(v * S::LANES));
                        }
                        for (pixel, sums) in pixel.iter().zip(&mut sums) {
                            let x = simd.splat(*pixel.add(channel));
                            for (sum, &column) in sums.iter_mut().zip(&columns) {
                                *sum = simd.mul_add(x, column, *sum);
                            }
                        }
                        weight = weight.add(block);
                    }
                }
            }
        }
        self.store(simd, first, sums);
    }

    /// Applies the epilogue and writes a tile.
    #[inline(always)]
    fn store<S: Simd, const ROWS: usize>(&self, simd: S, first: usize, sums: [[S::Vector; COLUMNS]; ROWS]) {
        let PreparedGemm { conv, epilogue, output, .. } = self.prepared;
        let block = COLUMNS * S::LANES;
        let per_group = conv.out_channels / conv.groups;
        let blocks = per_group.div_ceil(block);
        let within = self.column % blocks * block;
        let channel = self.column / blocks * per_group + within;
        let valid = (per_group - within).min(block);
        for (row, sums) in sums.into_iter().enumerate() {
            let at = (first + row) * output.channels + channel;
            // SAFETY: pixels and blocks of channels belong to one task each, so no two parts overlap.
            let to = unsafe { self.tensors.output.slice(at..at + valid) };
            let residual = self.tensors.residual.map(|residual| &residual[at..at + valid]);
            if valid == block {
                for (v, sum) in sums.into_iter().enumerate() {
                    let sum = match residual {
                        // SAFETY: the slice holds `COLUMNS` vectors.
                        Some(residual) => simd.add(sum, unsafe { simd.load(residual.as_ptr().add(v * S::LANES)) }),
                        None => sum,
                    };
                    // SAFETY: as above.
                    unsafe { simd.store(to.as_mut_ptr().add(v * S::LANES), rectify(simd, epilogue.activation, sum)) };
                }
            } else {
                // The last block of a group's channels is not full: compute it aside and copy what counts.
                let mut aside = [0.0f32; COLUMNS * MAX_LANES];
                for (v, sum) in sums.into_iter().enumerate() {
                    // SAFETY: `aside` holds `COLUMNS` of the widest vectors.
                    unsafe { simd.store(aside.as_mut_ptr().add(v * S::LANES), sum) };
                }
                for (index, to) in to.iter_mut().enumerate() {
                    let sum = aside[index] + residual.map_or(0.0, |residual| residual[index]);
                    *to = match epilogue.activation {
                        Some(Activation::Sigmoid) | None => sum,
                        Some(activation) => activation.apply(sum),
                    };
                }
            }
            if epilogue.activation == Some(Activation::Sigmoid) {
                to.iter_mut().for_each(|x| *x = Activation::Sigmoid.apply(*x));
            }
        }
    }
}

/// Elements of the widest vector of any level.
const MAX_LANES: usize = 16;

/// The activations that are a comparison or two; a sigmoid is left to the caller.
#[inline(always)]
pub(crate) fn rectify<S: Simd>(simd: S, activation: Option<Activation>, x: S::Vector) -> S::Vector {
    match activation {
        None | Some(Activation::Sigmoid) => x,
        Some(Activation::Relu) => simd.at_least(x, simd.splat(0.0)),
        Some(Activation::Relu6) => simd.at_most(simd.at_least(x, simd.splat(0.0)), simd.splat(6.0)),
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    &ImplicitGemm::<Avx512>::new("conv2d", "avx512"),
    #[cfg(target_arch = "x86_64")]
    &ImplicitGemm::<Avx2>::new("conv2d", "avx2"),
    &ImplicitGemm::<Portable>::new("conv2d", "portable"),
    #[cfg(target_arch = "x86_64")]
    &ImplicitGemm::<Avx512>::new("linear", "avx512"),
    #[cfg(target_arch = "x86_64")]
    &ImplicitGemm::<Avx2>::new("linear", "avx2"),
    &ImplicitGemm::<Portable>::new("linear", "portable"),
];
