//! The sparse convolution of Turner et al. 2018 ("Characterising Across-Stack Optimisations for Deep
//! Convolutional Neural Networks", IISWC), as its published program computes it: to compare with, not to use.
//!
//! Every filter of a pair of channels is a sparse matrix of its own. Output channels are parallel; for each
//! input channel the plane is copied with its padding once more, and every output pixel walks through the
//! filter's rows. What makes it slow is kept: a header and row starts for nine elements or fewer, no weight used
//! for more than one pixel while it is at hand, loads through two indices that no vector unit helps with, and a
//! copy for each pair of channels. What made it wrong (strides by cropping, groups by other loops) is not.

use dlis_backend::{
    AlignedBytes, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support,
};
use dlis_formats::{FilterCsr, Format, Weight};
use dlis_hw::Hardware;
use dlis_model::Conv2d;

use super::implicit_gemm::as_conv;
use crate::accepts::{self, Accepts};
use crate::axis::Axis;
use crate::epilogue::finish_channel;

/// Most elements of a padded plane.
const MAX_PLANE: usize = 1 << 26;

const ACCEPTS: Accepts =
    Accepts { layouts: &[Layout::Nchw], weight: Some(Format::FilterCsr), residual: true, activation: true };

/// `conv2d/f32/filter-csr/paper/portable`, and the same for linear layers, whose weight is one filter.
struct Paper(&'static str);

/// Rows and columns of a padded plane; `None` if it is too large.
fn padded(axes: &[Axis; 2]) -> Option<[usize; 2]> {
    let extent = |axis: &Axis| {
        let last = (axis.output - 1).checked_mul(axis.stride)?.checked_add((axis.kernel - 1) * axis.dilation)?;
        last.checked_add(1).map(|read| read.max(axis.before.saturating_add(axis.input)))
    };
    let extents = [extent(&axes[0])?, extent(&axes[1])?];
    (extents[0].checked_mul(extents[1])? <= MAX_PLANE).then_some(extents)
}

impl Kernel for Paper {
    fn id(&self) -> KernelId {
        KernelId::new(self.0, "f32", "filter-csr", "paper", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        if op.operation.name() != self.0 {
            return accepts::another_operation();
        }
        ACCEPTS.check(op).and(|| {
            let planes = as_conv(&op.operation)
                .is_some_and(|conv| padded(&Axis::both(&conv.window, &op.inputs[0], &op.output)).is_some());
            Support::when(planes, "its padded planes would be too large")
        })
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.01
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(conv), true) = (as_conv(&op.operation), support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let axes = Axis::both(&conv.window, &op.inputs[0], &op.output);
        let Some(padded) = padded(&axes) else { return Err(accepts::unsupported(self, op, support)) };
        let linear = matches!(op.operation, Operation::Linear(_));
        let dims = conv.weight_dims();
        let dims = if linear { &dims[..2] } else { &dims[..] };
        let Weight::FilterCsr(weight) = accepts::weight(self, weights, Format::FilterCsr, dims)? else {
            return Err(accepts::wrong_weight(self, weights, Format::FilterCsr, dims));
        };
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        Ok(Box::new(PreparedPaper { conv, linear, epilogue: op.epilogue, axes, padded, weight: weight.clone(), bias }))
    }
}

struct PreparedPaper {
    conv: Conv2d,
    linear: bool,
    epilogue: Epilogue,
    axes: [Axis; 2],
    /// Rows and columns of a plane with its padding.
    padded: [usize; 2],
    weight: FilterCsr,
    bias: AlignedBytes,
}

impl Prepared for PreparedPaper {
    fn footprint(&self, _threads: usize) -> Footprint {
        let plane = if self.linear { 0 } else { self.padded[0] * self.padded[1] };
        Footprint {
            weight_bytes: self.weight.bytes() + self.bias.allocated(),
            scratch_bytes: 0,
            worker_scratch_bytes: plane * size_of::<f32>(),
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let [rows, columns] = &self.axes;
        let (pixels_in, pixels) = (rows.input * columns.input, rows.output * columns.output);
        let (image_in, channels) = (self.conv.in_channels * pixels_in, self.conv.out_channels);
        let (input, residual) = (io.input(0).f32(), io.residual().map(|residual| residual.f32()));
        let (_, worker_len, workers) = scratch.f32();
        // All planes of the batch, each an output channel of an image.
        parallel.for_each_row_with(io.output().f32(), pixels, workers, worker_len, |_, first, planes, padded| {
            for (index, plane) in (first..).zip(planes.chunks_mut(pixels)) {
                let (image, channel) = (index / channels, index % channels);
                let input = &input[image * image_in..][..image_in];
                plane.fill(0.0);
                if self.linear {
                    plane[0] = self.dot(channel, input);
                } else {
                    self.convolve(channel, input, padded, plane);
                }
                let residual = residual.map(|residual| &residual[index * pixels..][..pixels]);
                let bias = self.bias.f32().get(channel).copied().unwrap_or(0.0);
                finish_channel(plane, bias, residual, self.epilogue.activation);
            }
        });
    }
}

impl PreparedPaper {
    /// One row of the one matrix of a linear layer.
    fn dot(&self, row: usize, input: &[f32]) -> f32 {
        let filter = self.weight.filter(0);
        let range = filter.row_starts[row] as usize..filter.row_starts[row + 1] as usize;
        filter.columns[range.clone()]
            .iter()
            .zip(&filter.values[range])
            .map(|(&x, value)| value * input[x as usize])
            .sum()
    }

    /// One output channel, an input channel at a time.
    fn convolve(&self, channel: usize, input: &[f32], padded: &mut [f32], output: &mut [f32]) {
        let [rows, columns] = &self.axes;
        let depth = self.conv.in_channels / self.conv.groups;
        let group = channel / (self.conv.out_channels / self.conv.groups);
        let pixels = rows.input * columns.input;
        let [height, width] = self.padded;
        let padded = &mut padded[..height * width];
        for within in 0..depth {
            let plane = &input[(group * depth + within) * pixels..][..pixels];
            padded.fill(0.0);
            for (from, to) in plane.chunks(columns.input).zip(padded.chunks_mut(width).skip(rows.before)) {
                to[columns.before..][..columns.input].copy_from_slice(from);
            }
            let filter = self.weight.filter(channel * depth + within);
            for (y, output) in output.chunks_mut(columns.output).enumerate() {
                for (x, output) in output.iter_mut().enumerate() {
                    let mut sum = 0.0;
                    for (row, bounds) in filter.row_starts.windows(2).enumerate() {
                        let line = (y * rows.stride + row * rows.dilation) * width + x * columns.stride;
                        for at in bounds[0] as usize..bounds[1] as usize {
                            sum += filter.values[at] * padded[line + filter.columns[at] as usize * columns.dilation];
                        }
                    }
                    *output += sum;
                }
            }
        }
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[&Paper("conv2d"), &Paper("linear")];
