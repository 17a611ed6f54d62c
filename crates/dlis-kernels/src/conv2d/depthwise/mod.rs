//! Depthwise convolution, channels last: vectors of channels, column by column where windows are the usual ones (`three`),
//! else a few neighbouring pixels at a time so that a tap's weights are loaded once for all of them.
//!
//! Such a layer does few operations a byte, so what counts is that input and output are touched once, in
//! order: rows of the output are the tasks, and the input rows that two neighbouring output rows share
//! are still in the first-level cache.

pub(crate) mod planes;
mod rows;
mod three;

use dlis_backend::{
    AlignedBytes, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, TensorSpec,
};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;
use dlis_model::{Activation, Conv2d};

use self::three::Three;
use super::decoded::Packed;
use super::tile::{operands, rectify_all};
use crate::accepts::{self, Accepts};
use crate::simd::{Simd, Work, at_every_level};

/// Pixels computed together: enough independent sums to hide the latency of a multiply-add.
const PIXELS: usize = 8;
/// Most taps of a window, which bounds the table of pointers on the stack.
pub(super) const MAX_TAPS: usize = 49;

/// The kernel on one SIMD level, for one format.
pub(crate) struct Depthwise<S> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd> Depthwise<S> {
    const fn new(format: Format) -> Self {
        let id = KernelId::new("conv2d", "f32", accepts::format_name(format), "depthwise", S::LEVEL.name());
        Self { id, format, level: std::marker::PhantomData }
    }
}

impl<S: Simd> Kernel for Depthwise<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else {
            return accepts::another_operation();
        };
        Support::when(conv.is_depthwise(), "it convolves every channel on its own")
            .and(|| Support::when(conv.window.taps() <= MAX_TAPS, "it has room for windows of at most 49 taps"))
            .and(|| Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level"))
            .and(|| {
                let layouts = &[Layout::Nhwc];
                Accepts { layouts, weight: Some(self.format), residual: true, activation: true }.check(op)
            })
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        let channels = op.output.channels;
        0.5 * channels as f32 / channels.next_multiple_of(S::LANES) as f32 * S::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Operation::Conv2d(conv), true) = (S::new(hw), op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let weight = accepts::weight(self, weights, self.format, &conv.weight_dims())?;
        let values = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let (channels, taps) = (conv.out_channels, conv.window.taps());
        let padded = channels.next_multiple_of(S::LANES);
        let weights = match weight {
            Weight::F32(array) => {
                let mut dense = AlignedBytes::zeroed(taps * padded * size_of::<f32>());
                for (index, &value) in array.iter().enumerate() {
                    let (channel, tap) = (index / taps, index % taps);
                    let vector = channel / S::LANES * S::LANES;
                    dense.f32_mut()[vector * taps + tap * S::LANES + channel - vector] = value;
                }
                Weights::Dense(dense)
            }
            other => Weights::Packed(
                Packed::new(other, S::LANES, channels)
                    .ok_or_else(|| accepts::wrong_weight(self, weights, self.format, other.dims()))?,
            ),
        };
        let mut bias = AlignedBytes::zeroed(padded * size_of::<f32>());
        if conv.bias {
            bias.f32_mut()[..channels].copy_from_slice(values.f32());
        }
        let zeros = AlignedBytes::zeroed(channels * size_of::<f32>());
        let (input, output, epilogue) = (op.inputs[0], op.output, op.epilogue);
        let three = Three::of::<S>(&conv, &input, &output);
        Ok(Box::new(PreparedDepthwise { simd, conv, input, output, epilogue, weights, bias, zeros, three }))
    }
}

/// The weights of a depthwise layer: `[vector of channels][tap][channel]`, the last vector padded.
enum Weights {
    Dense(AlignedBytes),
    /// In the bits they are stored in. They are few, and are decoded once a call.
    Packed(Packed),
}

struct PreparedDepthwise<S> {
    simd: S,
    conv: Conv2d,
    input: TensorSpec,
    output: TensorSpec,
    epilogue: Epilogue,
    weights: Weights,
    /// Padded likewise.
    bias: AlignedBytes,
    /// What a tap in the padding reads.
    zeros: AlignedBytes,
    /// Where its window is the usual one, how that is walked.
    three: Option<Three>,
}

impl<S: Simd> Prepared for PreparedDepthwise<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let weights = match &self.weights {
            Weights::Dense(weights) => weights.allocated(),
            Weights::Packed(weights) => weights.bytes(),
        };
        Footprint {
            weight_bytes: weights + self.bias.allocated() + self.zeros.allocated(),
            scratch_bytes: self.decoded_len() * size_of::<f32>(),
            worker_scratch_bytes: 0,
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, residual) = operands(io, &self.input, &self.output, &self.epilogue);
        let (decoded, _, _) = scratch.f32();
        let weights = match &self.weights {
            Weights::Dense(weights) => weights.f32(),
            Weights::Packed(weights) => {
                let decoded = &mut decoded[..self.decoded_len()];
                let vector = self.conv.window.taps() * S::LANES;
                parallel.for_each_row(decoded, vector, |_, first, vectors| {
                    for (index, to) in vectors.chunks_exact_mut(vector).enumerate() {
                        self.simd.vectorize(Decode { prepared: self, weights, first: (first + index) * S::LANES, to });
                    }
                });
                decoded
            }
        };
        let row = self.output.width * self.output.channels;
        parallel.for_each_row(io.output().f32(), row, |_, first, rows| {
            for (index, to) in rows.chunks_exact_mut(row).enumerate() {
                let residual = residual.map(|residual| &residual[(first + index) * row..][..row]);
                self.simd.vectorize(Row { prepared: self, weights, input, residual, to, row: first + index });
            }
        });
    }
}

impl<S: Simd> PreparedDepthwise<S> {
    /// Floats of the weights where they are decoded.
    fn decoded_len(&self) -> usize {
        match self.weights {
            Weights::Dense(_) => 0,
            Weights::Packed(_) => self.output.channels.next_multiple_of(S::LANES) * self.conv.window.taps(),
        }
    }
}

/// The weights of one vector of channels.
struct Decode<'a, S> {
    prepared: &'a PreparedDepthwise<S>,
    weights: &'a Packed,
    first: usize,
    to: &'a mut [f32],
}

impl<P: Simd> Work for Decode<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let taps = self.prepared.conv.window.taps();
        let channels = self.first..(self.first + S::LANES).min(self.prepared.output.channels);
        self.weights.decode(simd, channels, 0..taps, S::LANES, self.to);
    }
}

/// One row of output pixels of one image.
struct Row<'a, S> {
    prepared: &'a PreparedDepthwise<S>,
    weights: &'a [f32],
    input: &'a [f32],
    residual: Option<&'a [f32]>,
    to: &'a mut [f32],
    /// Counted over the whole batch.
    row: usize,
}

impl<P: Simd> Work for Row<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if let Some(three) = &self.prepared.three {
            match three.stride() {
                1 => self.three::<S, 1>(simd, three),
                _ => self.three::<S, 2>(simd, three),
            }
            return;
        }
        let width = self.prepared.output.width;
        let mut x = 0;
        while x + PIXELS <= width {
            self.pixels::<S, PIXELS>(simd, x);
            x += PIXELS;
        }
        while x + 2 <= width {
            self.pixels::<S, 2>(simd, x);
            x += 2;
        }
        if x < width {
            self.pixels::<S, 1>(simd, x);
        }
        self.finish_sigmoid();
    }
}

impl<P: Simd> Row<'_, P> {
    /// Computes `N` neighbouring output pixels from column `x`.
    #[inline(always)]
    fn pixels<S: Simd, const N: usize>(&mut self, simd: S, x: usize) {
        let PreparedDepthwise { conv, input, output, epilogue, bias, zeros, .. } = self.prepared;
        let weights = self.weights;
        let (image, y) = (self.row / output.height, self.row % output.height);
        let taps = conv.window.taps();
        let mut table = [[zeros.f32().as_ptr(); N]; MAX_TAPS];
        for (tap, pointers) in table[..taps].iter_mut().enumerate() {
            let (tap_y, tap_x) = (tap / conv.window.kernel[1], tap % conv.window.kernel[1]);
            // In the padding the difference wraps to a huge number, which the comparison rules out.
            let along = |position: usize, tap: usize, axis: usize| {
                (position * conv.window.stride[axis] + tap * conv.window.dilation[axis])
                    .wrapping_sub(conv.window.padding[axis])
            };
            let from_y = along(y, tap_y, 0);
            for (pixel, pointer) in pointers.iter_mut().enumerate() {
                let from_x = along(x + pixel, tap_x, 1);
                if from_y < input.height && from_x < input.width {
                    let at = ((image * input.height + from_y) * input.width + from_x) * input.channels;
                    *pointer = self.input[at..at + input.channels].as_ptr();
                }
            }
        }
        let channels = output.channels;
        let whole = channels - channels % S::LANES;
        for channel in (0..whole).step_by(S::LANES) {
            // SAFETY: `channel + LANES <= channels`: every pointer of the table is to `channels` floats, bias has
            // as many, and weights have `taps` vectors for each vector of channels.
            let sums = unsafe {
                let mut sums = [simd.load(bias.f32().as_ptr().add(channel)); N];
                for (tap, pointers) in table[..taps].iter().enumerate() {
                    let weight = simd.load(weights.as_ptr().add(channel * taps + tap * S::LANES));
                    for (sum, pointer) in sums.iter_mut().zip(pointers) {
                        *sum = simd.mul_add(simd.load(pointer.add(channel)), weight, *sum);
                    }
                }
                sums
            };
            self.put(simd, x * channels + channel, sums);
        }
        for channel in whole..channels {
            for pixel in 0..N {
                let mut sum = bias.f32()[channel];
                for (tap, pointers) in table[..taps].iter().enumerate() {
                    // SAFETY: every pointer of the table is to `channels` floats.
                    sum += unsafe { *pointers[pixel].add(channel) }
                        * weights[whole * taps + tap * S::LANES + channel - whole];
                }
                let at = (x + pixel) * channels + channel;
                sum += self.residual.map_or(0.0, |residual| residual[at]);
                self.to[at] = match epilogue.activation {
                    None | Some(Activation::Sigmoid) => sum,
                    Some(activation) => activation.apply(sum),
                };
            }
        }
    }

    /// Finishes and writes a vector of each of `N` neighbouring pixels but for a sigmoid, the first at `at`. A loop for
    /// each step: each is small enough to be unrolled, so that the sums never leave the registers.
    #[inline(always)]
    fn put<S: Simd, const N: usize>(&mut self, simd: S, at: usize, mut sums: [S::Vector; N]) {
        let channels = self.prepared.output.channels;
        let end = at + (N - 1) * channels + S::LANES;
        assert!(end <= self.to.len() && self.residual.is_none_or(|residual| end <= residual.len()), "in the row");
        if let Some(residual) = self.residual {
            for (pixel, sum) in sums.iter_mut().enumerate() {
                // SAFETY: vectors of the row, of which the last was just checked.
                *sum = simd.add(*sum, unsafe { simd.load(residual.as_ptr().add(at + pixel * channels)) });
            }
        }
        rectify_all(simd, self.prepared.epilogue.activation, &mut sums);
        for (pixel, sum) in sums.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { simd.store(self.to.as_mut_ptr().add(at + pixel * channels), sum) };
        }
    }

    /// What vectors have not done of the epilogue.
    #[inline(always)]
    fn finish_sigmoid(&mut self) {
        if self.prepared.epilogue.activation == Some(Activation::Sigmoid) {
            self.to.iter_mut().for_each(|x| *x = Activation::Sigmoid.apply(*x));
        }
    }
}

macro_rules! kernels {
    ($($format:ident)+) => {
        at_every_level!($(Depthwise(Format::$format)),+)
    };
}

pub(crate) static KERNELS: &[&dyn Kernel] = kernels!(DenseF32 DenseF16 Int8 Int4 Ternary2Bit Ternary5In8 TwoFour);
