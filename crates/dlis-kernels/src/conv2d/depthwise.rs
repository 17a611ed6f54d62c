//! Depthwise convolution, channels last: vectors of channels, a few neighbouring pixels at a time so that
//! a tap's weights are loaded once for all of them.
//!
//! Such a layer does few operations a byte, so what counts is that input and output are touched once, in
//! order: rows of the output are the tasks, and the input rows that two neighbouring output rows share
//! are still in the first-level cache.

use dlis_backend::{
    AlignedBytes, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, TensorSpec,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::{Activation, Conv2d};

use super::tile::rectify;
use crate::accepts::{self, Accepts};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd, Work};

/// Pixels computed together: enough independent sums to hide the latency of a multiply-add.
const PIXELS: usize = 8;
/// Most taps of a window, which bounds the table of pointers on the stack.
const MAX_TAPS: usize = 49;

const ACCEPTS: Accepts =
    Accepts { layouts: &[Layout::Nhwc], weight: Some(Format::DenseF32), residual: true, activation: true };

/// The kernel on one SIMD level.
pub(crate) struct Depthwise<S> {
    id: KernelId,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd> Depthwise<S> {
    pub(crate) const fn new(isa: &'static str) -> Self {
        Self { id: KernelId::new("conv2d", "f32", "dense", "depthwise", isa), level: std::marker::PhantomData }
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
            .and(|| ACCEPTS.check(op))
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
        let weight = accepts::dense_f32(self, weights, &conv.weight_dims())?;
        let values = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let (channels, taps) = (conv.out_channels, conv.window.taps());
        let padded = channels.next_multiple_of(S::LANES);
        let mut packed = AlignedBytes::zeroed(taps * padded * size_of::<f32>());
        for (index, &value) in weight.f32().iter().enumerate() {
            let (channel, tap) = (index / taps, index % taps);
            packed.f32_mut()[tap * padded + channel] = value;
        }
        let mut bias = AlignedBytes::zeroed(padded * size_of::<f32>());
        if conv.bias {
            bias.f32_mut()[..channels].copy_from_slice(values.f32());
        }
        let zeros = AlignedBytes::zeroed(channels * size_of::<f32>());
        let (input, output) = (op.inputs[0], op.output);
        Ok(Box::new(PreparedDepthwise {
            simd,
            conv,
            input,
            output,
            epilogue: op.epilogue,
            weights: packed,
            bias,
            zeros,
        }))
    }
}

struct PreparedDepthwise<S> {
    simd: S,
    conv: Conv2d,
    input: TensorSpec,
    output: TensorSpec,
    epilogue: Epilogue,
    /// `[tap][channel]`, channels padded with zeros to whole vectors.
    weights: AlignedBytes,
    /// Padded likewise.
    bias: AlignedBytes,
    /// What a tap in the padding reads.
    zeros: AlignedBytes,
}

impl<S: Simd> Prepared for PreparedDepthwise<S> {
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
        let (input, residual) = (input.f32(), io.residual().map(|residual| residual.f32()));
        assert_eq!(residual.is_some(), self.epilogue.residual);
        let row = self.output.width * self.output.channels;
        parallel.for_each_row(io.output().f32(), row, |_, first, rows| {
            for (index, to) in rows.chunks_exact_mut(row).enumerate() {
                let residual = residual.map(|residual| &residual[(first + index) * row..][..row]);
                self.simd.vectorize(Row { prepared: self, input, residual, to, row: first + index });
            }
        });
    }
}

/// One row of output pixels of one image.
struct Row<'a, S> {
    prepared: &'a PreparedDepthwise<S>,
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
    }
}

impl<P: Simd> Row<'_, P> {
    /// Computes `N` neighbouring output pixels from column `x`.
    #[inline(always)]
    fn pixels<S: Simd, const N: usize>(&mut self, simd: S, x: usize) {
        let PreparedDepthwise { conv, input, output, epilogue, weights, bias, zeros, .. } = self.prepared;
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
        let padded = channels.next_multiple_of(S::LANES);
        let whole = channels - channels % S::LANES;
        for channel in (0..whole).step_by(S::LANES) {
            // SAFETY: `channel + LANES <= channels`: every pointer of the table is to `channels` floats, weights and
            // bias have at least as many a tap.
            let sums = unsafe {
                let mut sums = [simd.load(bias.f32().as_ptr().add(channel)); N];
                for (tap, pointers) in table[..taps].iter().enumerate() {
                    let weight = simd.load(weights.f32().as_ptr().add(tap * padded + channel));
                    for (sum, pointer) in sums.iter_mut().zip(pointers) {
                        *sum = simd.mul_add(simd.load(pointer.add(channel)), weight, *sum);
                    }
                }
                sums
            };
            for (pixel, mut sum) in sums.into_iter().enumerate() {
                let range = (x + pixel) * channels + channel..(x + pixel) * channels + channel + S::LANES;
                if let Some(residual) = self.residual {
                    // SAFETY: the slice is one vector.
                    sum = simd.add(sum, unsafe { simd.load(residual[range.clone()].as_ptr()) });
                }
                // SAFETY: the slice is one vector.
                unsafe { simd.store(self.to[range].as_mut_ptr(), rectify(simd, epilogue.activation, sum)) };
            }
        }
        for channel in whole..channels {
            for pixel in 0..N {
                let mut sum = bias.f32()[channel];
                for (tap, pointers) in table[..taps].iter().enumerate() {
                    // SAFETY: every pointer of the table is to `channels` floats.
                    sum += unsafe { *pointers[pixel].add(channel) } * weights.f32()[tap * padded + channel];
                }
                let at = (x + pixel) * channels + channel;
                sum += self.residual.map_or(0.0, |residual| residual[at]);
                self.to[at] = match epilogue.activation {
                    None | Some(Activation::Sigmoid) => sum,
                    Some(activation) => activation.apply(sum),
                };
            }
        }
        if epilogue.activation == Some(Activation::Sigmoid) {
            let pixels = &mut self.to[x * channels..(x + N) * channels];
            pixels.iter_mut().for_each(|x| *x = Activation::Sigmoid.apply(*x));
        }
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    &Depthwise::<Avx512>::new("avx512"),
    #[cfg(target_arch = "x86_64")]
    &Depthwise::<Avx2>::new("avx2"),
    &Depthwise::<Portable>::new("portable"),
];
