//! Convolution as a matrix product (Chellapilla et al. 2006, "High Performance Convolutional Neural Networks
//! for Document Processing"): the inputs that each output reads become the columns of a matrix, and a GEMM
//! library does the rest.
//!
//! The product is the `matrixmultiply` crate's, called on one thread at a time: its output is divided among
//! the workers here. The matrix of columns is built for as many output rows as fit [`COLUMN_BYTES`], so
//! that scratch is bounded whatever the map.
//!
//! The library packs both factors into a buffer that it allocates and frees on every call, once a worker
//! and product, and takes none from outside: this kernel's `run` allocates, as no other does, and
//! [`Footprint`] cannot count those bytes. With the library's blocking (version 0.3: 64 rows by 256 terms of
//! one factor, 256 terms by 1024 columns of the other) they are at most 1088 KiB a worker.

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Disjoint, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::Conv2d;

use crate::accepts::{self, Accepts};
use crate::axis::Axis;
use crate::epilogue::finish_channel;

/// Bytes of columns built at a time, or one output row's where that is more: they should stay in the
/// second-level cache of a large core, and no strip should be so narrow that packing the weights again
/// for each shows.
const COLUMN_BYTES: usize = 4 << 20;
/// The library computes tiles of this many rows and columns; no worker should get less of either.
const TILE: usize = 8;

/// `conv2d/f32/dense/im2col-gemm/matrixmultiply`.
#[derive(Debug)]
struct Im2colGemm;

const ACCEPTS: Accepts =
    Accepts { layouts: &[Layout::Nchw], weight: Some(Format::DenseF32), residual: true, activation: true };

impl Kernel for Im2colGemm {
    fn id(&self) -> KernelId {
        KernelId::new("conv2d", "f32", "dense", "im2col-gemm", "matrixmultiply")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Conv2d(_) = op.operation else { return accepts::another_operation() };
        ACCEPTS.check(op)
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        match op.operation {
            // A product with one row for each of many groups is all packing.
            Operation::Conv2d(conv) if conv.out_channels < TILE * conv.groups => 0.02,
            _ => 0.5,
        }
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Operation::Conv2d(conv), true) = (op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let weight = AlignedBytes::from_f32(&accepts::dense_f32(self, weights, &conv.weight_dims())?);
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let axes = Axis::both(&conv.window, &op.inputs[0], &op.output);
        Ok(Box::new(PreparedIm2col { conv, epilogue: op.epilogue, axes, weight, bias }))
    }
}

#[derive(Debug)]
struct PreparedIm2col {
    conv: Conv2d,
    epilogue: Epilogue,
    axes: [Axis; 2],
    /// `[out, in / groups * taps]`, the left factors of the products, one a group.
    weight: AlignedBytes,
    bias: AlignedBytes,
}

/// The right factor of one product: rows of `pitch` elements, of which those of `columns` are multiplied.
#[derive(Clone, Copy)]
struct Columns<'a> {
    matrix: &'a [f32],
    pitch: usize,
}

impl Prepared for PreparedIm2col {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint {
            weight_bytes: self.weight.allocated() + self.bias.allocated(),
            scratch_bytes: self.strip_rows() * self.axes[1].output * self.row_bytes(),
            worker_scratch_bytes: 0,
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, residual) = (io.input(0).f32(), io.residual().map(|residual| residual.f32()));
        let (columns, ..) = scratch.f32();
        let [rows, width] = [self.axes[0].output, self.axes[1].output];
        let image_out = self.conv.out_channels * rows * width;
        let output = io.output().f32();
        let residuals = residual.map(|residual| residual.chunks(image_out));
        let mut residuals = residuals.into_iter().flatten();
        for (input, output) in input.chunks(self.image_in()).zip(output.chunks_mut(image_out)) {
            let residual = residuals.next();
            for (group, input) in input.chunks(self.image_in() / self.conv.groups).enumerate() {
                if self.conv.window.is_pointwise() {
                    let columns = Columns { matrix: input, pitch: rows * width };
                    self.multiply(group, columns, 0..rows * width, output, residual, parallel);
                    continue;
                }
                for start in (0..rows).step_by(self.strip_rows()) {
                    let strip = start..rows.min(start + self.strip_rows());
                    let pitch = strip.len() * width;
                    let matrix = &mut columns[..self.depth() * pitch];
                    self.build(input, strip.clone(), matrix, parallel);
                    let pixels = strip.start * width..strip.end * width;
                    self.multiply(group, Columns { matrix, pitch }, pixels, output, residual, parallel);
                }
            }
        }
    }
}

impl PreparedIm2col {
    /// Rows of the matrix of columns: the terms of one output's sum.
    fn depth(&self) -> usize {
        self.conv.in_channels / self.conv.groups * self.conv.window.taps()
    }

    /// Bytes of one column.
    fn row_bytes(&self) -> usize {
        if self.conv.window.is_pointwise() { 0 } else { self.depth() * size_of::<f32>() }
    }

    /// Output rows whose columns are built at a time.
    fn strip_rows(&self) -> usize {
        let bytes = self.axes[1].output * self.row_bytes();
        COLUMN_BYTES.checked_div(bytes).map_or(1, |rows| rows.clamp(1, self.axes[0].output))
    }

    fn image_in(&self) -> usize {
        self.conv.in_channels * self.axes[0].input * self.axes[1].input
    }

    /// Builds the columns of the output rows of `strip`: row `(channel, ky, kx)` of the matrix is that
    /// channel of the input as the tap sees it.
    fn build(&self, input: &[f32], strip: Range<usize>, matrix: &mut [f32], parallel: Parallel<'_>) {
        let [rows, columns] = &self.axes;
        parallel.for_each_row(matrix, strip.len() * columns.output, |_, first, terms| {
            for (index, term) in (first..).zip(terms.chunks_mut(strip.len() * columns.output)) {
                let (tap, kx) = (index / columns.kernel, index % columns.kernel);
                let (channel, ky) = (tap / rows.kernel, tap % rows.kernel);
                let plane = &input[channel * rows.input * columns.input..][..rows.input * columns.input];
                let (rows_inside, inside) = (rows.outputs(ky), columns.outputs(kx));
                for (y, to) in strip.clone().zip(term.chunks_mut(columns.output)) {
                    if !rows_inside.contains(&y) || inside.is_empty() {
                        to.fill(0.0);
                        continue;
                    }
                    to[..inside.start].fill(0.0);
                    to[inside.end..].fill(0.0);
                    let from = &plane[rows.source(y, ky) * columns.input..][..columns.input];
                    let from = &from[columns.source(inside.start, kx)..];
                    let to = &mut to[inside.clone()];
                    if columns.stride == 1 {
                        to.copy_from_slice(&from[..to.len()]);
                    } else {
                        to.iter_mut().zip(from.iter().step_by(columns.stride)).for_each(|(to, &from)| *to = from);
                    }
                }
            }
        });
    }

    /// Multiplies a group's weights by the columns of these pixels and finishes what comes out, the output
    /// divided among the workers along its longer side: each packs all of the other side's factor.
    fn multiply(
        &self,
        group: usize,
        columns: Columns<'_>,
        pixels: Range<usize>,
        output: &mut [f32],
        residual: Option<&[f32]>,
        parallel: Parallel<'_>,
    ) {
        let (channels, depth) = (self.conv.out_channels / self.conv.groups, self.depth());
        let plane = self.axes[0].output * self.axes[1].output;
        let weight = &self.weight.f32()[group * channels * depth..][..channels * depth];
        let by_channel = channels >= pixels.len();
        let side = if by_channel { channels } else { pixels.len() };
        let part = side.div_ceil(parallel.threads()).next_multiple_of(TILE);
        let output = Disjoint::new(output);
        parallel.for_each(side.div_ceil(part), |_, parts| {
            for index in parts {
                let part = index * part..side.min((index + 1) * part);
                let (rows, columns_of) = if by_channel { (part, 0..pixels.len()) } else { (0..channels, part) };
                let at = |row: usize| (group * channels + row) * plane + pixels.start + columns_of.start;
                let (m, n) = (rows.len(), columns_of.len());
                assert!(columns.matrix.len() >= (depth - 1) * columns.pitch + columns_of.end, "columns of {n} pixels");
                assert!(at(rows.end - 1) + n <= output.len(), "output of {m} channels");
                let (weight, matrix) = (&weight[rows.start * depth..], &columns.matrix[columns_of.start..]);
                // SAFETY: `weight` has `m` rows of `depth` elements, being sliced from `channels` such rows.
                // `matrix` has `depth` rows, `pitch` apart, of at least `n` elements, and `output` has `m` rows,
                // `plane` apart, of `n`, as just asserted. The executor passes every index once, and parts of
                // different indices have no row and column of the output in common.
                unsafe {
                    matrixmultiply::sgemm(
                        m,
                        depth,
                        n,
                        1.0,
                        weight.as_ptr(),
                        depth.cast_signed(),
                        1,
                        matrix.as_ptr(),
                        columns.pitch.cast_signed(),
                        1,
                        0.0,
                        output.as_mut_ptr().add(at(rows.start)),
                        plane.cast_signed(),
                        1,
                    );
                }
                for row in rows {
                    let place = at(row)..at(row) + n;
                    let residual = residual.map(|residual| &residual[place.clone()]);
                    let bias = self.bias.f32().get(group * channels + row).copied().unwrap_or(0.0);
                    // SAFETY: these elements are of this part alone, and the product is done.
                    let finished = unsafe { output.slice(place) };
                    finish_channel(finished, bias, residual, self.epilogue.activation);
                }
            }
        });
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[&Im2colGemm];
