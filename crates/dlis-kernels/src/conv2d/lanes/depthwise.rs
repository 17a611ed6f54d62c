//! Depthwise convolution with images as lanes: a few neighbouring outputs of a channel at a time, whose windows share
//! their weights.

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, TensorSpec,
};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;
use dlis_model::Activation;

use super::entries::{Real, Reals};
use super::patch::Pixel;
use crate::accepts::{self, Accepts};
use crate::axis::Axis;
use crate::conv2d::depthwise::MAX_TAPS;
use crate::conv2d::tile::{operands, rectify};
use crate::epilogue::activate;
use crate::simd::{Simd, Work, at_every_level};

/// Most neighbouring outputs at a time.
const RUN: usize = 4;

/// The kernel on one SIMD level, of one format.
struct Depthwise<S> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd> Depthwise<S> {
    const fn new(format: Format) -> Self {
        let id = KernelId::new("conv2d", "f32", accepts::format_name(format), "depthwise-lanes", S::LEVEL.name());
        Self { id, format, level: std::marker::PhantomData }
    }

    fn accepts(&self) -> Accepts {
        Accepts { layouts: &[Layout::Nhwc16n], weight: Some(self.format), residual: true, activation: true }
    }
}

impl<S: Simd> Kernel for Depthwise<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else { return accepts::another_operation() };
        Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level")
            .and(|| self.accepts().check(op))
            .and(|| Support::when(conv.is_depthwise(), "it is not depthwise"))
            .and(|| Support::when(conv.window.taps() <= MAX_TAPS, "its window has more than 49 taps"))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.2 * S::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Operation::Conv2d(conv), true) = (S::new(hw), op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let (input, output) = (op.inputs[0], op.output);
        let weights_of = accepts::weight(self, weights, self.format, &conv.weight_dims())?;
        let values = match weights_of {
            Weight::F16(array) => Reals::F16(array.iter().copied().collect()),
            other => Reals::F32(other.to_f32().iter().copied().collect()),
        };
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let axes = Axis::both(&conv.window, &input, &output);
        let inside = axes[1].inside();
        Ok(Box::new(PreparedDepthwise { simd, input, output, epilogue: op.epilogue, axes, inside, values, bias }))
    }
}

#[derive(Debug)]
struct PreparedDepthwise<S> {
    simd: S,
    input: TensorSpec,
    output: TensorSpec,
    epilogue: Epilogue,
    axes: [Axis; 2],
    /// The columns of the output that read no padding left or right.
    inside: Range<usize>,
    values: Reals,
    bias: AlignedBytes,
}

impl<S: Simd> Prepared for PreparedDepthwise<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint { weight_bytes: self.values.bytes() + self.bias.allocated(), ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, residual) = operands(io, &self.input, &self.output, &self.epilogue);
        let (input, _) = input.as_chunks();
        let residual = residual.map(|residual| residual.as_chunks().0);
        let (output, _) = io.output().f32().as_chunks_mut();
        let row_len = self.output.width * self.output.channels;
        parallel.for_each_row(output, row_len, |_, first, rows| {
            for (index, output) in (first..).zip(rows.chunks_mut(row_len)) {
                let residual = residual.map(|residual| &residual[index * row_len..(index + 1) * row_len]);
                self.simd.vectorize(Row { prepared: self, input, residual, output, index });
            }
        });
    }
}

/// A row of the output, of all channels.
struct Row<'a, P> {
    prepared: &'a PreparedDepthwise<P>,
    input: &'a [Pixel],
    residual: Option<&'a [Pixel]>,
    output: &'a mut [Pixel],
    index: usize,
}

impl<P: Simd> Work for Row<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        match &self.prepared.values {
            Reals::F32(values) => self.row(simd, values),
            Reals::F16(values) => self.row(simd, values),
        }
    }
}

impl<P: Simd> Row<'_, P> {
    #[inline(always)]
    fn row<S: Simd, T: Real>(&mut self, simd: S, values: &[T]) {
        let inside = &self.prepared.inside;
        let mut x = 0;
        while x < self.prepared.output.width {
            if inside.contains(&x) && x + RUN <= inside.end {
                self.run_of::<S, T, RUN>(simd, x, values);
                x += RUN;
            } else {
                self.run_of::<S, T, 1>(simd, x, values);
                x += 1;
            }
        }
    }

    /// `N` outputs from column `x` on, whose taps read the input alike.
    #[inline(always)]
    fn run_of<S: Simd, T: Real, const N: usize>(&mut self, simd: S, x: usize, values: &[T]) {
        let prepared = self.prepared;
        let [rows, columns] = &prepared.axes;
        let (group, y) = (self.index / rows.output, self.index % rows.output);
        let channels = prepared.output.channels;
        let taps = rows.kernel * columns.kernel;
        let activation = prepared.epilogue.activation;
        // Index of the weight of each tap that reads the input, and of the pixel that the first output's reads.
        let mut reads = [(0, 0); MAX_TAPS];
        let mut count = 0;
        for tap_y in rows.taps(y) {
            let line = (group * rows.input + rows.source(y, tap_y)) * columns.input;
            for tap_x in columns.taps(x) {
                reads[count] = (tap_y * columns.kernel + tap_x, (line + columns.source(x, tap_x)) * channels);
                count += 1;
            }
        }
        let reads = &reads[..count];
        let next = columns.stride * channels;
        let last = reads.last().map_or(0, |&(_, from)| from + (N - 1) * next + channels);
        assert!(last <= self.input.len() && values.len() == channels * taps, "what the taps read");
        let output = &mut self.output[x * channels..(x + N) * channels];
        for channel in 0..channels {
            let bias = simd.splat(prepared.bias.f32().get(channel).copied().unwrap_or(0.0));
            let values = &values[channel * taps..(channel + 1) * taps];
            for lane in (0..Layout::LANES).step_by(S::LANES) {
                let mut sums = [bias; N];
                for &(tap, from) in reads {
                    let value = values[tap].splat(simd);
                    for (output, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: the last output's last tap reads within the input, as was checked, and
                        // `lane + LANES` is at most the length of a pixel.
                        *sum = unsafe {
                            let from = self.input.as_ptr().add(from + output * next + channel).cast::<f32>();
                            simd.mul_add(simd.load(from.add(lane)), value, *sum)
                        };
                    }
                }
                for (index, sum) in sums.into_iter().enumerate() {
                    let at = index * channels + channel;
                    let sum = match self.residual {
                        Some(residual) => {
                            let residual = &residual[x * channels + at][lane..lane + S::LANES];
                            // SAFETY: it has as many elements.
                            simd.add(sum, unsafe { simd.load(residual.as_ptr()) })
                        }
                        None => sum,
                    };
                    let to = &mut output[at][lane..lane + S::LANES];
                    // SAFETY: it has as many elements.
                    unsafe { simd.store(to.as_mut_ptr(), rectify(simd, activation, sum)) };
                    if activation == Some(Activation::Sigmoid) {
                        activate(activation, to);
                    }
                }
            }
        }
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = at_every_level!(Depthwise(Format::DenseF32), Depthwise(Format::DenseF16));
