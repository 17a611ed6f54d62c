//! Pooling of u8 tensors over windows and over whole maps, in the strided layouts.
//!
//! As for f32, a tensor is taken as `[outer, height, width, inner]`, so that one loop nest serves both.

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch, Support,
};
use dlis_formats::Quantization;
use dlis_hw::Hardware;

use super::accepts::{self as quantized, Accepts};
use super::rescale::{Rounding, narrow};
use crate::accepts;
use crate::axis::Axis;
use crate::blocks::for_each_block;
use crate::fold::{Order, folded};
use crate::pool::add_tap;

/// `max_pool/u8/none/direct/portable`: order is the same in bytes.
#[derive(Debug)]
struct MaxPool;

/// `avg_pool/u8/none/direct/portable`: the mean with or without the padding; 0 over nothing but padding.
#[derive(Debug)]
struct AvgPool;

/// `global_avg_pool/u8/none/direct/portable`.
#[derive(Debug)]
struct GlobalAvgPool;

/// Channels summed together: as many sums as stay in registers or close by.
const CHANNELS: usize = 64;

impl Kernel for MaxPool {
    fn id(&self) -> KernelId {
        KernelId::new("max_pool", "u8", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::MaxPool(_) = op.operation else { return accepts::another_operation() };
        Accepts::PLAIN.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        match (op.operation, folded(op)) {
            (Operation::MaxPool(pool), Some((order, folded))) if support.is_yes() => {
                let axes = Axis::both(&pool.window, &op.inputs[0], &op.output);
                let inner = order.inner(folded.output.channels);
                Ok(Box::new(PreparedMax { axes, inner }))
            }
            _ => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedMax {
    axes: [Axis; 2],
    inner: usize,
}

impl Prepared for PreparedMax {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).u8();
        let ([rows, columns], inner) = (&self.axes, self.inner);
        let (row_in, row_out) = (columns.input * inner, columns.output * inner);
        parallel.for_each_row(io.output().u8(), row_out, |_, first, outputs| {
            for (index, output) in (first..).zip(outputs.chunks_mut(row_out)) {
                let (outer, y) = (index / rows.output, index % rows.output);
                output.fill(0);
                for ky in rows.taps(y) {
                    let from = &input[(outer * rows.input + rows.source(y, ky)) * row_in..][..row_in];
                    (0..columns.kernel).for_each(|kx| add_tap(columns, inner, kx, from, output, u8::max));
                }
            }
        });
    }
}

/// How sums of steps become means.
#[derive(Clone, Copy, Debug)]
struct Mean {
    input: Quantization,
    output: Quantization,
    rounding: Rounding,
}

impl Mean {
    fn new(kernel: &dyn Kernel, weights: OpWeights<'_>) -> Result<Self, PrepareError> {
        let (input, output) = (quantized::input(kernel, weights, 0)?, quantized::output(kernel, weights)?);
        Ok(Self { input, output, rounding: Rounding::new(output, None) })
    }

    /// Writes means over `count` elements, of which the sums are of the `seen`, their bytes added up.
    #[inline(always)]
    fn write(&self, sums: &[i32], seen: usize, count: usize, to: &mut [u8]) {
        let multiplier = narrow(f64::from(self.input.scale()) / (count as f64 * f64::from(self.output.scale())));
        // `support` has checked that 255 times the window's taps fit 32 bits.
        let zeros = i32::from(self.input.zero_point()) * i32::try_from(seen).unwrap_or(0);
        for (to, &sum) in to.iter_mut().zip(sums) {
            *to = self.rounding.round((sum - zeros) as f32 * multiplier);
        }
    }
}

/// Adds bytes to sums.
#[inline(always)]
fn add(sums: &mut [i32], bytes: &[u8]) {
    sums.iter_mut().zip(bytes).for_each(|(sum, &byte)| *sum += i32::from(byte));
}

impl Kernel for AvgPool {
    fn id(&self) -> KernelId {
        KernelId::new("avg_pool", "u8", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::AvgPool(pool) = op.operation else { return accepts::another_operation() };
        let [height, width] = pool.window.kernel;
        Accepts::PLAIN.check(op).and(|| quantized::sum_fits(height.saturating_mul(width)))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.2
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        match (op.operation, folded(op)) {
            (Operation::AvgPool(pool), Some((order, folded))) if support.is_yes() => {
                let axes = Axis::both(&pool.window, &op.inputs[0], &op.output);
                let inner = order.inner(folded.output.channels);
                let include_padding = pool.include_padding;
                Ok(Box::new(PreparedAverage { axes, inner, include_padding, mean: Mean::new(self, weights)? }))
            }
            _ => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedAverage {
    axes: [Axis; 2],
    inner: usize,
    include_padding: bool,
    mean: Mean,
}

impl Prepared for PreparedAverage {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).u8();
        let ([rows, columns], inner) = (&self.axes, self.inner);
        let row_out = columns.output * inner;
        parallel.for_each_row(io.output().u8(), row_out, |_, first, outputs| {
            for (index, output) in (first..).zip(outputs.chunks_mut(row_out)) {
                let (outer, y) = (index / rows.output, index % rows.output);
                for (x, pixel) in output.chunks_mut(inner).enumerate() {
                    let (down, across) = (rows.taps(y), columns.taps(x));
                    let seen = down.len() * across.len();
                    let count = if self.include_padding { rows.kernel * columns.kernel } else { seen.max(1) };
                    for (block, to) in pixel.chunks_mut(CHANNELS).enumerate() {
                        let mut sums = [0; CHANNELS];
                        for ky in down.clone() {
                            let row = (outer * rows.input + rows.source(y, ky)) * columns.input;
                            for kx in across.clone() {
                                let at = (row + columns.source(x, kx)) * inner + block * CHANNELS;
                                add(&mut sums, &input[at..at + to.len()]);
                            }
                        }
                        self.mean.write(&sums, seen, count, to);
                    }
                }
            }
        });
    }
}

impl Kernel for GlobalAvgPool {
    fn id(&self) -> KernelId {
        KernelId::new("global_avg_pool", "u8", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::GlobalAvgPool = op.operation else { return accepts::another_operation() };
        Accepts::PLAIN.check(op).and(|| quantized::sum_fits(op.inputs[0].pixels()))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        match folded(op) {
            Some((order, folded)) if support.is_yes() => {
                let (pixels, channels) = (op.inputs[0].pixels(), folded.output.channels);
                Ok(Box::new(PreparedGlobal { pixels, channels, order, mean: Mean::new(self, weights)? }))
            }
            _ => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedGlobal {
    pixels: usize,
    channels: usize,
    order: Order,
    mean: Mean,
}

impl Prepared for PreparedGlobal {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).u8();
        let output = io.output().u8();
        let pixels = self.pixels;
        match self.order {
            Order::Planes => parallel.for_each_row(output, 1, |_, first, means| {
                for (mean, plane) in means.chunks_mut(1).zip(input[first * pixels..].chunks(pixels)) {
                    let sum = plane.iter().map(|&byte| i32::from(byte)).sum();
                    self.mean.write(&[sum], pixels, pixels, mean);
                }
            }),
            Order::Pixels => {
                for (input, output) in input.chunks(pixels * self.channels).zip(output.chunks_mut(self.channels)) {
                    for_each_block(parallel, output, CHANNELS, |channels, means| {
                        let mut sums = [0; CHANNELS];
                        for pixel in input.chunks(self.channels) {
                            add(&mut sums, &pixel[channels.clone()]);
                        }
                        self.mean.write(&sums, pixels, pixels, means);
                    });
                }
            }
        }
    }
}

pub(super) static KERNELS: &[&dyn Kernel] = &[&MaxPool, &AvgPool, &GlobalAvgPool];
