//! Depthwise convolution, planes of a channel each: vectors of neighbouring pixels.
//!
//! What a tap reads for neighbouring outputs are neighbours in the image, too, a fixed distance away (at stride 2, every
//! second of them), but for those in the padding: each tap has masks that make these zero. So no image is copied, but for
//! the channels at the ends of memory, whose taps would reach beyond it.
//!
//! Between pointwise layers whose weights are sparse, which want planes as well, this saves a reorder before and one
//! after; between others, channels last is no slower.

use dlis_backend::{
    AlignedBytes, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, TensorSpec,
};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;
use dlis_model::{Activation, Conv2d};

use super::planes::{Planes, Shifted};
use super::tile::{operands, rectify};
use crate::accepts::{self, Accepts};
use crate::axis::Axis;
use crate::half::widen;
use crate::simd::{Portable, Simd, Work, at_every_level};

/// Taps of the usual window.
const USUAL: usize = 9;
/// Most taps of a window, which bounds the weights of a channel on the stack.
const MAX_TAPS: usize = 49;

/// The kernel on one SIMD level, for one format.
struct DepthwisePlanes<S> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd> DepthwisePlanes<S> {
    const fn new(format: Format) -> Self {
        let id = KernelId::new("conv2d", "f32", accepts::format_name(format), "depthwise-planes", S::LEVEL.name());
        Self { id, format, level: std::marker::PhantomData }
    }

    /// The planes of one channel, one a tap.
    fn planes(op: &OpSpec, conv: &Conv2d) -> Option<Planes> {
        let planes = Planes::split(Axis::both(&conv.window, &op.inputs[0], &op.output), 1, [true, true])?;
        planes.shifted().is_some().then_some(planes)
    }
}

impl<S: Simd> Kernel for DepthwisePlanes<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else {
            return accepts::another_operation();
        };
        Support::when(
            conv.is_depthwise() && conv.in_channels == conv.out_channels,
            "it convolves every channel on its own",
        )
        .and(|| Support::when(conv.window.taps() <= MAX_TAPS, "it has room for windows of at most 49 taps"))
        .and(|| Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level"))
        .and(|| {
            let layouts = &[Layout::Nchw];
            Accepts { layouts, weight: Some(self.format), residual: true, activation: true }.check(op)
        })
        .and(|| {
            let shifted = Self::planes(op, &conv).is_some();
            Support::when(
                shifted,
                "its window is a single tap, skips more than a column, or its map or reach is too large",
            )
        })
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        let pixels = op.output.pixels();
        0.15 * pixels as f32 / pixels.next_multiple_of(S::LANES) as f32 * S::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Operation::Conv2d(conv), true) = (S::new(hw), op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let Some(planes) = Self::planes(op, &conv) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let weight = accepts::weight(self, weights, self.format, &conv.weight_dims())?;
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let weights = match weight {
            Weight::F32(array) => Weights::F32(array.iter().copied().collect()),
            Weight::F16(array) => Weights::F16(array.iter().map(|value| value.to_bits()).collect()),
            other => return Err(accepts::wrong_weight(self, weights, self.format, other.dims())),
        };
        let (input, output, epilogue) = (op.inputs[0], op.output, op.epilogue);
        Ok(Box::new(PreparedPlanes {
            simd,
            taps: conv.window.taps(),
            stride: conv.window.stride[1],
            input,
            output,
            epilogue,
            planes,
            weights,
            bias,
        }))
    }
}

/// The weights, `[channel][tap]`.
enum Weights {
    F32(Vec<f32>),
    F16(Vec<u16>),
}

struct PreparedPlanes<S> {
    simd: S,
    taps: usize,
    /// Columns of the input from one output to the next.
    stride: usize,
    input: TensorSpec,
    output: TensorSpec,
    epilogue: Epilogue,
    planes: Planes,
    weights: Weights,
    bias: AlignedBytes,
}

impl<S: Simd> Prepared for PreparedPlanes<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let weights = match &self.weights {
            Weights::F32(weights) => size_of_val(&weights[..]),
            Weights::F16(weights) => size_of_val(&weights[..]),
        };
        let (reach, masks) = match self.planes.shifted() {
            Some(shifted) => (shifted.reach, size_of_val(&shifted.masks[..])),
            None => (0, 0),
        };
        Footprint {
            weight_bytes: weights + masks + self.bias.allocated(),
            scratch_bytes: 0,
            worker_scratch_bytes: reach * size_of::<f32>(),
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, residual) = operands(io, &self.input, &self.output, &self.epilogue);
        let Some(shifted) = self.planes.shifted() else { return };
        let (_, worker_len, workers) = scratch.f32();
        let pixels = self.output.pixels();
        parallel.for_each_row_with(io.output().f32(), pixels, workers, worker_len, |_, first, planes, aside| {
            let residual = residual.map(|residual| &residual[first * pixels..][..planes.len()]);
            self.simd.vectorize(Channels { prepared: self, shifted, input, residual, first, planes, aside });
        });
    }
}

/// Neighbouring channels, counted over the whole batch.
struct Channels<'a, S> {
    prepared: &'a PreparedPlanes<S>,
    shifted: &'a Shifted,
    input: &'a [f32],
    residual: Option<&'a [f32]>,
    first: usize,
    planes: &'a mut [f32],
    /// Room for what a channel's taps reach.
    aside: &'a mut [f32],
}

impl<P: Simd> Work for Channels<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { prepared, shifted, input, residual, first, planes, aside } = self;
        let (pixels, plane_in, taps) = (prepared.output.pixels(), prepared.input.pixels(), prepared.taps);
        let mut weights = [0.0f32; MAX_TAPS];
        let weights = &mut weights[..taps];
        for (index, to) in planes.chunks_exact_mut(pixels).enumerate() {
            let channel = (first + index) % prepared.output.channels;
            match &prepared.weights {
                Weights::F32(all) => weights.copy_from_slice(&all[channel * taps..(channel + 1) * taps]),
                Weights::F16(all) => {
                    let halves = &all[channel * taps..(channel + 1) * taps];
                    weights.iter_mut().zip(halves).for_each(|(to, &half)| *to = widen(half));
                }
            }
            let plane = (first + index) * plane_in;
            let start = plane.wrapping_add_signed(shifted.first);
            let from = match input.get(start..start.wrapping_add(shifted.reach)) {
                Some(from) => from,
                None => {
                    // What is missing is masked; it has but to be readable.
                    let aside = &mut aside[..shifted.reach];
                    aside.fill(0.0);
                    let (skip, at) = match shifted.first {
                        ..0 => (0, shifted.first.unsigned_abs()),
                        _ => (shifted.first.unsigned_abs(), 0),
                    };
                    let image = &input[plane..plane + plane_in];
                    let image = &image[skip.min(plane_in)..];
                    let room = &mut aside[at.min(shifted.reach)..];
                    let count = room.len().min(image.len());
                    room[..count].copy_from_slice(&image[..count]);
                    aside
                }
            };
            let channel = Channel {
                shifted,
                from,
                weights,
                stride: prepared.stride,
                plane: prepared.planes.plane_len(),
                bias: prepared.bias.f32().get(channel).copied().unwrap_or(0.0),
                residual: residual.map(|residual| &residual[index * pixels..][..pixels]),
                activation: prepared.epilogue.activation,
            };
            channel.run(simd, to);
        }
    }
}

/// One channel of one image.
struct Channel<'a> {
    shifted: &'a Shifted,
    /// All that its taps reach.
    from: &'a [f32],
    weights: &'a [f32],
    stride: usize,
    /// Elements of a tap's plane.
    plane: usize,
    bias: f32,
    residual: Option<&'a [f32]>,
    activation: Option<Activation>,
}

impl Channel<'_> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, to: &mut [f32]) {
        let Shifted { runs, masks, reach, .. } = self.shifted;
        assert!(self.from.len() == *reach && masks.len() == self.weights.len() * self.plane && self.plane >= to.len());
        let lines = runs.len() / self.weights.len();
        let mut line_start = 0;
        for line in 0..lines {
            // The last line of a plane may be longer than what is left of the outputs.
            let len = runs[line].len.min(to.len() - line_start);
            let x = match self.weights.first_chunk::<USUAL>() {
                Some(weights) if self.weights.len() == USUAL => {
                    // A number of taps that the compiler knows, so that weights and places stay in registers.
                    let mut from = [0; USUAL];
                    from.iter_mut().zip(runs[line..].iter().step_by(lines)).for_each(|(to, run)| *to = run.from);
                    let x = self.vectors(simd, (weights, &from), line_start, 0..len, to);
                    self.vectors(Portable, (weights, &from), line_start, x..len, to)
                }
                _ => {
                    let mut from = [0; MAX_TAPS];
                    from.iter_mut().zip(runs[line..].iter().step_by(lines)).for_each(|(to, run)| *to = run.from);
                    let from = &from[..self.weights.len()];
                    let x = self.vectors(simd, (self.weights, from), line_start, 0..len, to);
                    self.vectors(Portable, (self.weights, from), line_start, x..len, to)
                }
            };
            for x in x..len {
                let at = line_start + x;
                let mut sum = self.bias;
                for (tap, weight) in self.weights.iter().enumerate() {
                    let bits = self.from[runs[tap * lines + line].from + x * self.stride].to_bits();
                    sum += f32::from_bits(bits & masks[tap * self.plane + at]) * weight;
                }
                sum += self.residual.map_or(0.0, |residual| residual[at]);
                to[at] = match self.activation {
                    None | Some(Activation::Sigmoid) => sum,
                    Some(activation) => activation.apply(sum),
                };
            }
            line_start += len;
        }
        if self.activation == Some(Activation::Sigmoid) {
            to.iter_mut().for_each(|x| *x = Activation::Sigmoid.apply(*x));
        }
    }

    /// Computes whole vectors of these outputs of a line, from taps' weights and where each finds its first input, and
    /// returns where the rest begins.
    #[inline(always)]
    fn vectors<S: Simd>(
        &self,
        simd: S,
        (weights, from): (&[f32], &[usize]),
        line_start: usize,
        outputs: std::ops::Range<usize>,
        to: &mut [f32],
    ) -> usize {
        let mut x = outputs.start;
        while x + S::LANES <= outputs.end {
            let at = line_start + x;
            let mut sum = simd.splat(self.bias);
            for (tap, (&weight, &from)) in weights.iter().zip(from).enumerate() {
                // SAFETY: a run's elements are among the `reach` of `self.from`, and a tap's masks are as many as its
                // plane has elements, which are no fewer than the outputs.
                sum = unsafe {
                    let from = self.from.as_ptr().add(from + x * self.stride);
                    let inputs = if self.stride == 1 { simd.load(from) } else { simd.load_even(from) };
                    let inputs = simd.and(inputs, self.shifted.masks.as_ptr().add(tap * self.plane + at));
                    simd.mul_add(inputs, simd.splat(weight), sum)
                };
            }
            if let Some(residual) = self.residual {
                // SAFETY: the slice is one vector.
                sum = simd.add(sum, unsafe { simd.load(residual[at..at + S::LANES].as_ptr()) });
            }
            // SAFETY: the slice is one vector.
            unsafe { simd.store(to[at..at + S::LANES].as_mut_ptr(), rectify(simd, self.activation, sum)) };
            x += S::LANES;
        }
        x
    }
}

macro_rules! kernels {
    ($($format:ident)+) => {
        at_every_level!($(DepthwisePlanes(Format::$format)),+)
    };
}

pub(crate) static KERNELS: &[&dyn Kernel] = kernels!(DenseF32 DenseF16);
