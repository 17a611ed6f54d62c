//! The direct convolution: the loop nest of the definition, which every other algorithm is compared with.
//!
//! As in Turner et al. 2018 ("Characterising Across-Stack Optimisations for Deep Convolutional Neural
//! Networks"), the output channels are the parallel outermost loop, and each output plane is the sum of the
//! input planes, each shifted by a tap of the window and multiplied by its weight:
//!
//! ```text
//! for each output channel (in parallel)
//!     for each input channel of its group and each tap of the window
//!         for each pixel: sum[pixel] += weight * input[pixel, shifted by the tap]
//! ```
//!
//! Two things keep the innermost loop long and free of conditions, whatever the window and however small the
//! map. The input is copied once into planes that have the padding in place ([`Planes`]), so that a shift is
//! an offset and the loop over pixels runs through the end of one row into the next. And [`TERMS`] pairs of
//! channel and tap are added in one pass, so that the sums are loaded and stored once for all of them.

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::Conv2d;

use super::planes::Planes;
use crate::accepts::{self, Accepts};
use crate::axis::Axis;
use crate::epilogue::finish_channel;
use crate::simd::Portable;

/// Terms added in one pass over the sums: as many weights as fit the registers beside the sum.
const TERMS: usize = 8;

/// `conv2d/f32/dense/direct/portable`.
#[derive(Debug)]
struct Direct;

const ACCEPTS: Accepts =
    Accepts { layouts: &[Layout::Nchw], weight: Some(Format::DenseF32), residual: true, activation: true };

impl Kernel for Direct {
    fn id(&self) -> KernelId {
        KernelId::new("conv2d", "f32", "dense", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else { return accepts::another_operation() };
        ACCEPTS.check(op).and(|| {
            let planes = Planes::new(Axis::both(&conv.window, &op.inputs[0], &op.output), conv.in_channels);
            Support::when(planes.is_some(), "its padded input would be too large")
        })
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.1
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Operation::Conv2d(conv), true) = (op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let planes = Planes::new(Axis::both(&conv.window, &op.inputs[0], &op.output), conv.in_channels)
            .ok_or_else(|| accepts::unsupported(self, op, support))?;
        let weight = AlignedBytes::from_f32(&accepts::dense_f32(self, weights, &conv.weight_dims())?);
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let offsets = planes.offsets(conv.in_channels / conv.groups);
        Ok(Box::new(PreparedDirect { conv, epilogue: op.epilogue, planes, weight, bias, offsets }))
    }
}

#[derive(Debug)]
struct PreparedDirect {
    conv: Conv2d,
    epilogue: Epilogue,
    planes: Planes,
    /// `[out, in / groups * taps]`.
    weight: AlignedBytes,
    bias: AlignedBytes,
    /// Where each term of an output channel's sum starts, counted from the group's first plane.
    offsets: Vec<usize>,
}

impl Prepared for PreparedDirect {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint {
            weight_bytes: self.weight.allocated() + self.bias.allocated() + size_of_val(&*self.offsets),
            scratch_bytes: self.planes.scratch_len() * size_of::<f32>(),
            worker_scratch_bytes: self.planes.sum_len() * size_of::<f32>(),
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, residual) = (io.input(0).f32(), io.residual().map(|residual| residual.f32()));
        let (padded, worker_len, workers) = scratch.f32();
        let pixels = self.planes.pixels();
        let (image_in, image_out) = (self.planes.image_len(), self.conv.out_channels * pixels);
        let output = io.output().f32();
        for (index, (input, output)) in input.chunks(image_in).zip(output.chunks_mut(image_out)).enumerate() {
            let input = self.planes.fill(Portable, input, &mut padded[..self.planes.scratch_len()], parallel);
            parallel.for_each_row_with(output, pixels, workers, worker_len, |_, first, planes, sums| {
                for (channel, plane) in (first..).zip(planes.chunks_mut(pixels)) {
                    let sums = &mut sums[..self.planes.sum_len()];
                    self.sum(channel, input, sums);
                    self.planes.extract(sums, plane);
                    let start = index * image_out + channel * pixels;
                    let residual = residual.map(|residual| &residual[start..start + pixels]);
                    let bias = self.bias.f32().get(channel).copied().unwrap_or(0.0);
                    finish_channel(plane, bias, residual, self.epilogue.activation);
                }
            });
        }
    }
}

impl PreparedDirect {
    /// Sums the terms of one output channel.
    fn sum(&self, channel: usize, input: &[f32], sums: &mut [f32]) {
        let group = channel / (self.conv.out_channels / self.conv.groups);
        let input = &input[self.planes.channels(self.group_channels(group))];
        let weights = &self.weight.f32()[channel * self.offsets.len()..][..self.offsets.len()];
        let (weights, last_weights) = weights.as_chunks::<TERMS>();
        let (offsets, last_offsets) = self.offsets.as_chunks::<TERMS>();
        sums.fill(0.0);
        for (offsets, weights) in offsets.iter().zip(weights) {
            add_terms(sums, input, offsets, weights);
        }
        for (&offset, &weight) in last_offsets.iter().zip(last_weights) {
            let term = &input[offset..][..sums.len()];
            sums.iter_mut().zip(term).for_each(|(sum, x)| *sum += weight * x);
        }
    }

    fn group_channels(&self, group: usize) -> Range<usize> {
        let channels = self.conv.in_channels / self.conv.groups;
        group * channels..(group + 1) * channels
    }
}

/// Adds to each sum the inputs that lie `offsets` further on, times their weights.
///
/// A slice a term, rather than an array of them: the compiler then sees that all are of one length and that
/// none is written to, and the loop starts without a check. On maps of a few pixels that is most of the time.
fn add_terms(sums: &mut [f32], input: &[f32], offsets: &[usize; TERMS], w: &[f32; TERMS]) {
    let pixels = sums.len();
    let from = |term: usize| &input[offsets[term]..][..pixels];
    let (a, b, c, d) = (from(0), from(1), from(2), from(3));
    let (e, f, g, h) = (from(4), from(5), from(6), from(7));
    for i in 0..pixels {
        // Pairs of pairs, so that no addition waits for all others.
        let first = (w[0] * a[i] + w[1] * b[i]) + (w[2] * c[i] + w[3] * d[i]);
        let second = (w[4] * e[i] + w[5] * f[i]) + (w[6] * g[i] + w[7] * h[i]);
        sums[i] += first + second;
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[&Direct];
