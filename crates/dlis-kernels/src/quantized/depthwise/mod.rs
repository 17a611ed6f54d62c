//! Depthwise convolution on u8 activations, channels last: four taps of a vector of channels in one step, or two where
//! products of 16 bits take less time.

mod columns;
mod lines;
mod sliding;
mod strips;

use dlis_backend::{
    AlignedBytes, Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared,
    Scratch, Support, TensorSpec,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::Conv2d;

use super::accepts::{self as quantized, Accepts, Integers};
use super::output::{Output, Rows, Tensors};
use super::simd::{Dot, DotWork, MAX_LANES, at_every_level};
use crate::accepts;

/// Pixels computed together, for which a step's weights are loaded once.
const PIXELS: usize = 4;
/// Most steps of four taps of a window, which bounds the table of pointers on the stack.
const MAX_QUADS: usize = 13;

/// The kernel on one level.
struct Depthwise<D> {
    id: KernelId,
    level: std::marker::PhantomData<D>,
}

impl<D: Dot> Depthwise<D> {
    const fn new() -> Self {
        Self { id: KernelId::new("conv2d", "u8", "int8", "depthwise", D::NAME), level: std::marker::PhantomData }
    }
}

impl<D: Dot> Kernel for Depthwise<D> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else {
            return accepts::another_operation();
        };
        Support::when(conv.is_depthwise(), "it convolves every channel on its own")
            .and(|| Support::when(conv.window.taps() <= 4 * MAX_QUADS, "it has room for windows of at most 52 taps"))
            .and(|| Support::when(D::new(hw).is_some(), "the machine lacks the instructions"))
            .and(|| Accepts::weighted(Format::Int8).check(op))
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        let channels = op.output.channels;
        0.5 * channels as f32 / channels.next_multiple_of(D::LANES) as f32 * D::LANES as f32 / 16.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(dot), Operation::Conv2d(conv), true) = (D::new(hw), op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let Integers { values, scales, .. } = quantized::integers(self, weights, Format::Int8, &conv.weight_dims())?;
        let (channels, taps) = (conv.out_channels, conv.window.taps());
        let padded = channels.next_multiple_of(D::LANES);
        let walk = Walk::of::<D>(&conv, &op.inputs[0], &op.output);
        let bytes = match walk {
            Walk::Columns | Walk::Strips => columns::BYTES,
            Walk::Sliding => sliding::BYTES,
            Walk::Pixels => bytes_per_lane(taps),
        };
        let mut packed = AlignedBytes::zeroed(padded * bytes);
        for (index, &value) in values.iter().enumerate() {
            let (channel, tap) = (index / taps, index % taps);
            let place = match walk {
                Walk::Columns | Walk::Strips => {
                    let place = 2 * columns::place::<D>(channel, tap);
                    packed.as_mut_slice()[place..place + 2].copy_from_slice(&i16::from(value).to_ne_bytes());
                    continue;
                }
                Walk::Sliding => sliding::place::<D>(channel, tap),
                Walk::Pixels => place::<D>(taps, channel, tap),
            };
            packed.as_mut_slice()[place] = value.cast_unsigned();
        }
        let sums: Vec<i32> = values.chunks(taps).map(|row| row.iter().map(|&w| i32::from(w)).sum()).collect();
        let offset = if matches!(walk, Walk::Columns | Walk::Strips) { 0 } else { D::OFFSET };
        let rows = Rows { scales: &scales, sums: &sums, offset };
        let output = Output::new(self, op, weights, rows, padded, |channel| channel)?;
        let mut padding = AlignedBytes::zeroed(channels);
        padding.as_mut_slice().fill(quantized::input(self, weights, 0)?.zero_point());
        let (from, to) = (op.inputs[0], op.output);
        Ok(Box::new(PreparedDepthwise { dot, conv, from, to, walk, weights: packed, output, padding }))
    }
}

/// Bytes of the weights of one channel: whole steps of four taps, but for a lone last tap.
const fn bytes_per_lane(taps: usize) -> usize {
    if taps % 4 == 1 { taps } else { taps.next_multiple_of(4) }
}

/// Where the weight of a tap of a channel lies.
const fn place<D: Dot>(taps: usize, channel: usize, tap: usize) -> usize {
    let (per_lane, block, lane) = (bytes_per_lane(taps), channel / D::LANES, channel % D::LANES);
    // A lone last tap is not filled up to four.
    let step = if tap / 4 * 4 < per_lane - per_lane % 4 { lane * 4 + tap % 4 } else { lane };
    block * D::LANES * per_lane + tap / 4 * 4 * D::LANES + step
}

/// How windows are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// As `columns` says.
    Columns,
    /// As `strips` says.
    Strips,
    /// As `sliding` says.
    Sliding,
    /// A few neighbouring pixels at a time, by a table of what each tap reads.
    Pixels,
}

impl Walk {
    fn of<D: Dot>(conv: &Conv2d, from: &TensorSpec, to: &TensorSpec) -> Self {
        if strips::suits::<D>(conv, from, to) {
            Self::Strips
        } else if columns::suits::<D>(conv, from) {
            Self::Columns
        } else if sliding::slides::<D>(conv, from, to) {
            Self::Sliding
        } else {
            Self::Pixels
        }
    }
}

struct PreparedDepthwise<D> {
    dot: D,
    conv: Conv2d,
    from: TensorSpec,
    to: TensorSpec,
    walk: Walk,
    /// As `columns` or `sliding` say; else `[vector of channels][four taps][channel][one of four]`, padded with zeros;
    /// of a lone last tap, as 3x3 windows have, `[channel]`.
    weights: AlignedBytes,
    output: Output,
    /// What a tap in the padding reads.
    padding: AlignedBytes,
}

impl<D> PreparedDepthwise<D> {
    /// The image of a row of the output, counted over the whole batch, and its place within that.
    #[inline(always)]
    fn place_of(&self, row: usize) -> [usize; 2] {
        [row / self.to.height, row % self.to.height]
    }
}

impl<D: Dot> Prepared for PreparedDepthwise<D> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let weight_bytes = self.weights.allocated() + self.output.bytes() + self.padding.allocated();
        Footprint { weight_bytes, ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0);
        assert!(
            input.spec().same_bytes(&self.from) && io.output_spec().same_bytes(&self.to),
            "tensors of the operation"
        );
        let tensors = Tensors::of(io, self.output.has_residual());
        let (prepared, input, tensors, rows) = (self, input.u8(), &tensors, self.to.batch * self.to.height);
        match self.walk {
            Walk::Strips => strips::run(self, input, tensors, parallel),
            Walk::Columns => parallel.for_each(rows, |_, rows| {
                self.dot.vectorize(columns::Rows { prepared, input, tensors, rows });
            }),
            Walk::Sliding => parallel.for_each(rows, |_, rows| {
                self.dot.vectorize(sliding::Rows { prepared, input, tensors, rows });
            }),
            Walk::Pixels => parallel.for_each(rows, |_, rows| {
                for row in rows {
                    self.dot.vectorize(Row { prepared, input, tensors, row });
                }
            }),
        }
    }
}

/// One row of output pixels of one image.
struct Row<'a, D> {
    prepared: &'a PreparedDepthwise<D>,
    input: &'a [u8],
    tensors: &'a Tensors<'a>,
    /// Counted over the whole batch.
    row: usize,
}

impl<P: Dot> DotWork for Row<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let width = self.prepared.to.width;
        let mut x = 0;
        while x + PIXELS <= width {
            self.pixels::<D, PIXELS>(d, x);
            x += PIXELS;
        }
        while x < width {
            self.pixels::<D, 1>(d, x);
            x += 1;
        }
    }
}

impl<P: Dot> Row<'_, P> {
    /// Computes `N` neighbouring output pixels from column `x`.
    #[inline(always)]
    fn pixels<D: Dot, const N: usize>(&self, d: D, x: usize) {
        let PreparedDepthwise { conv, from, to, weights, output, padding, .. } = self.prepared;
        let [image, y] = self.prepared.place_of(self.row);
        let (taps, channels) = (conv.window.taps(), to.channels);
        let quads = taps.div_ceil(4);
        // Taps beyond the last are multiplied with zeros.
        let mut table = [[[padding.as_slice().as_ptr(); 4]; N]; MAX_QUADS];
        assert_eq!(self.input.len(), from.batch * from.height * from.width * channels, "input of the operation");
        let [kernel_height, kernel_width] = conv.window.kernel;
        // In the padding the difference wraps to a huge number, which the comparison rules out.
        let along = |position: usize, tap: usize, axis: usize| {
            (position * conv.window.stride[axis] + tap * conv.window.dilation[axis])
                .wrapping_sub(conv.window.padding[axis])
        };
        let mut tap = 0;
        for tap_y in 0..kernel_height {
            let from_y = along(y, tap_y, 0);
            if from_y >= from.height {
                tap += kernel_width;
                continue;
            }
            let row = (image * from.height + from_y) * from.width;
            for tap_x in 0..kernel_width {
                for (pixel, places) in table[tap / 4].iter_mut().enumerate() {
                    let from_x = along(x + pixel, tap_x, 1);
                    if from_x < from.width {
                        // SAFETY: image, row and column lie within the input, whose size is checked above.
                        places[tap % 4] = unsafe { self.input.as_ptr().add((row + from_x) * channels) };
                    }
                }
                tap += 1;
            }
        }
        for channel in (0..channels).step_by(D::LANES) {
            let count = (channels - channel).min(D::LANES);
            let per_lane = bytes_per_lane(taps);
            let weights = &weights.as_slice()[channel * per_lane..][..D::LANES * per_lane];
            // SAFETY: constants are padded to whole vectors.
            let mut sums = [unsafe { output.start(d, channel) }; N];
            for (places, weights) in table[..quads].iter().zip(weights.chunks(D::LANES * 4)) {
                // SAFETY: a step's weights are four a lane, those of a lone last tap one.
                let weight = unsafe {
                    if weights.len() == D::LANES * 4 {
                        d.weights(weights.as_ptr().cast())
                    } else {
                        d.lone_weights(weights.as_ptr().cast())
                    }
                };
                for (sum, places) in sums.iter_mut().zip(places) {
                    let quads = if count == D::LANES {
                        // SAFETY: `channel + LANES <= channels`, and every place is of `channels` bytes.
                        unsafe { d.interleave(places.map(|place| place.add(channel))) }
                    } else {
                        let mut aside = [[0; MAX_LANES]; 4];
                        for (aside, place) in aside.iter_mut().zip(places) {
                            // SAFETY: `channel + count <= channels`, and every place is of `channels` bytes.
                            let bytes = unsafe { std::slice::from_raw_parts(place.add(channel), count) };
                            aside[..count].copy_from_slice(bytes);
                        }
                        // SAFETY: the arrays hold the widest vector.
                        unsafe { d.interleave([0, 1, 2, 3].map(|tap| aside[tap].as_ptr())) }
                    };
                    *sum = d.dot(*sum, quads, weight);
                }
            }
            let at = (self.row * to.width + x) * channels + channel;
            // SAFETY: constants as above; rows of the output belong to one task each.
            unsafe { output.store(d, self.tensors, sums.map(|sum| [sum]), channel, at, channels, count) };
        }
    }
}

pub(super) static KERNELS: &[&dyn Kernel] = at_every_level!(Depthwise());
