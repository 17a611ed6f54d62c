//! Convolution with images as the lanes of vectors: each weight is read once for sixteen images, and what it meets is
//! whole, aligned vectors, whatever the window, the stride or the size of the map. Weights that are zero cost nothing
//! where the format leaves them out.
//!
//! ```text
//! for each group of sixteen images, for each tile of at most 16 outputs
//!     for each part of the input channels         (what of it the tile reads is copied to where it stays in cache)
//!         for each output channel                  (its sums stay in registers)
//!             for each weight that is there: sums += weight * patch[place of the weight + output ...]
//! ```
//!
//! The batch as the innermost dimension is that of Vasilache et al. 2015 ("Fast convolutional nets with fbfft") and
//! the first releases of cuda-convnet; the loops are those of [`sparse`](super::sparse).

mod depthwise;
mod entries;
mod patch;
mod tile;

use dlis_backend::{
    AlignedBytes, Disjoint, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, TensorSpec, static_range,
};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;
use dlis_model::Conv2d;

use self::entries::Entries;
use self::patch::{Patch, Pixel};
use self::tile::Task;
use super::tile::operands;
use crate::accepts::{self, Accepts};
use crate::simd::{Simd, at_every_level};

/// Tasks that there should be for each worker.
const TASKS: usize = 8;
/// Least output channels of a task: each copies what it reads.
const LEAST_ROWS: usize = 64;

/// The kernel on one SIMD level, of one format.
struct ImageLanes<S> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd> ImageLanes<S> {
    const fn new(format: Format) -> Self {
        let id = KernelId::new("conv2d", "f32", accepts::format_name(format), "image-lanes", S::LEVEL.name());
        Self { id, format, level: std::marker::PhantomData }
    }

    fn accepts(&self) -> Accepts {
        Accepts { layouts: &[Layout::Nhwc16n], weight: Some(self.format), residual: true, activation: true }
    }
}

/// Sums that a level has registers for.
const fn sums<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 16 } else { 8 }
}

impl<S: Simd> Kernel for ImageLanes<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else { return accepts::another_operation() };
        Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level")
            .and(|| self.accepts().check(op))
            .and(|| Support::when(conv.groups == 1, "it has one group"))
            .and(|| {
                let patch = Patch::new(&conv, &op.inputs[0], &op.output, sums::<S>(), 0);
                Support::when(patch.is_some(), "its windows span too many pixels")
            })
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        // As for `direct-sparse`: of the dense operation's multiply-adds, most of which it need not do.
        let least = if self.format == Format::DenseF32 { 0.6 } else { 1.0 };
        least * S::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Operation::Conv2d(conv), true) = (S::new(hw), op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let (input, output) = (op.inputs[0], op.output);
        let weight = accepts::weight(self, weights, self.format, &conv.weight_dims())?;
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let entries = match weight {
            Weight::Csr(csr) => csr.values().len(),
            _ => weight.elements(),
        };
        let patch = Patch::new(&conv, &input, &output, sums::<S>(), entries / conv.out_channels);
        let prepared = patch.and_then(|patch| {
            let entries = Entries::of(weight, &patch)?;
            Some(PreparedLanes { simd, conv, input, output, epilogue: op.epilogue, patch, entries, bias })
        });
        match prepared {
            Some(prepared) => Ok(Box::new(prepared)),
            None => Err(accepts::unsupported(self, op, Support::No("its weight is too large".into()))),
        }
    }
}

#[derive(Debug)]
struct PreparedLanes<S> {
    simd: S,
    conv: Conv2d,
    input: TensorSpec,
    output: TensorSpec,
    epilogue: Epilogue,
    patch: Patch,
    entries: Entries,
    bias: AlignedBytes,
}

impl<S: Simd> PreparedLanes<S> {
    /// Pixels of the sums of all output channels on a tile, where they do not stay in registers.
    fn sums_len(&self) -> usize {
        if self.patch.parts() > 1 { self.conv.out_channels * self.patch.tile[0] * self.patch.tile[1] } else { 0 }
    }
}

impl<S: Simd> Prepared for PreparedLanes<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint {
            weight_bytes: self.entries.bytes() + self.bias.allocated(),
            scratch_bytes: 0,
            worker_scratch_bytes: (self.patch.copy_len() + self.sums_len()) * size_of::<Pixel>(),
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, residual) = operands(io, &self.input, &self.output, &self.epilogue);
        let (input, _) = input.as_chunks();
        let residual = residual.map(|residual| residual.as_chunks().0);
        let (output, _) = io.output().f32().as_chunks_mut();
        let output = Disjoint::new(output);
        let (_, of_worker, workers) = scratch.f32();
        let room = self.patch.copy_len() + self.sums_len();
        let workers = Disjoint::new(workers);

        let groups = self.input.batch / Layout::LANES;
        let of_image = self.input.pixels() * self.input.channels;
        let [tiles_y, tiles_x] = self.patch.tiles;
        let tiles = groups * tiles_y * tiles_x;
        let rows = self.entries.rows();
        // Weights outside, so that a worker reads few of them again and again.
        let blocks = (TASKS * parallel.threads()).div_ceil(tiles).min(rows / LEAST_ROWS).max(1);
        let blocks = if parallel.threads() > 1 { blocks } else { 1 };
        parallel.for_each(tiles * blocks, |worker, tasks| {
            // SAFETY: every worker has a row of its own, and runs one of these at a time.
            let own = unsafe { workers.slice(worker * of_worker..(worker + 1) * of_worker) };
            let (own, _) = own.as_chunks_mut();
            let (copy, sums) = own[..room].split_at_mut(self.patch.copy_len());
            for task in tasks {
                let (block, at) = (task / tiles, task % tiles);
                let (group, at) = (at / (tiles_y * tiles_x), at % (tiles_y * tiles_x));
                self.simd.vectorize(Task {
                    prepared: self,
                    image: &input[group * of_image..(group + 1) * of_image],
                    residual,
                    output: &output,
                    group,
                    tile: [at / tiles_x, at % tiles_x],
                    rows: static_range(rows, blocks, block),
                    copy: &mut *copy,
                    sums: &mut *sums,
                });
            }
        });
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] =
    at_every_level!(ImageLanes(Format::DenseF32), ImageLanes(Format::CsrF32), ImageLanes(Format::CsrF16));
pub(crate) use depthwise::KERNELS as DEPTHWISE;
