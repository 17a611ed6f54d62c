//! Depthwise convolution, planes of a channel each: vectors of neighbouring outputs.
//!
//! What a tap reads for neighbouring outputs are neighbours in the image, too, a fixed distance away (at stride 2, every
//! second of them), but for those in the padding. Each tap has a bit for each output that says whether it is to be
//! read, so that nothing is copied and nothing is read that is not there.
//!
//! Between pointwise layers whose weights are sparse, which want planes as well, this saves a reorder before and one
//! after.

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, TensorSpec,
};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;
use dlis_model::{Activation, Conv2d};

use super::MAX_TAPS;
use super::rows::{Plane, Walk};
use crate::accepts::{self, Accepts};
use crate::axis::Axis;
use crate::conv2d::tile::{operands, rectify};
use crate::epilogue::activate;
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
use crate::simd::{MOST_LANES, Simd, Work, at_every_level};

/// Farthest that a window reaches along an axis, and most pixels of an axis: no layer has more, but a stranger's file may.
const REACH: usize = 1 << 20;

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
}

impl<S: Simd> Kernel for DepthwisePlanes<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else {
            return accepts::another_operation();
        };
        let layouts = &[Layout::Nchw];
        Support::when(conv.is_depthwise(), "it is not depthwise")
            .and(|| Support::when(conv.window.taps() <= MAX_TAPS, "its window has more than 49 taps"))
            .and(|| Support::when(conv.window.stride[1] <= 2, "it skips more than one column"))
            .and(|| Support::when(op.inputs.first().is_some_and(|input| reaches(&conv, input)), "it reaches too far"))
            .and(|| Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level"))
            .and(|| Accepts { layouts, weight: Some(self.format), residual: true, activation: true }.check(op))
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
        let values = match accepts::weight(self, weights, self.format, &conv.weight_dims())? {
            Weight::F32(array) => Values::F32(array.iter().copied().collect()),
            Weight::F16(array) => {
                // Zeros behind them, so that those of a channel can be widened as whole vectors.
                let zeros = std::iter::repeat_n(0, MOST_LANES);
                Values::F16(array.iter().map(|value| value.to_bits()).chain(zeros).collect())
            }
            other => return Err(accepts::wrong_weight(self, weights, self.format, other.dims())),
        };
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        // Vectors longer than a row are computed in part for nothing, or are hard to fill.
        #[cfg(target_arch = "x86_64")]
        if S::LANES > Avx2::LANES
            && Walk::of::<S>(&conv, &op.inputs[0], &op.output).is_none()
            && (Walk::of::<Avx2>(&conv, &op.inputs[0], &op.output).is_some()
                || Vectors::longest(&conv, &op.inputs[0], &op.output) <= Avx2::LANES)
            && let Some(narrower) = Avx2::new(hw)
        {
            return Ok(prepared(narrower, &conv, op, values, bias));
        }
        Ok(prepared(simd, &conv, op, values, bias))
    }
}

/// Whether places in the input, and before it, can be counted.
fn reaches(conv: &Conv2d, input: &TensorSpec) -> bool {
    [0, 1].into_iter().all(|axis| {
        let taps = conv.window.kernel[axis].saturating_mul(conv.window.dilation[axis]);
        taps.max(conv.window.padding[axis]).max([input.height, input.width][axis]) <= REACH
    })
}

fn prepared<S: Simd>(simd: S, conv: &Conv2d, op: &OpSpec, values: Values, bias: AlignedBytes) -> Box<dyn Prepared> {
    let (input, output, epilogue) = (op.inputs[0], op.output, op.epilogue);
    let walk = Walk::of::<S>(conv, &input, &output);
    let vectors = if walk.is_some() { Vectors::default() } else { Vectors::new::<S>(conv, &input, &output) };
    Box::new(PreparedPlanes { simd, conv: *conv, input, output, epilogue, walk, vectors, values, bias })
}

/// The weights, `[channel][tap]`.
#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    F16(Vec<u16>),
}

/// The vectors of outputs of a plane, and what their taps read, whatever the window.
#[derive(Debug, Default)]
struct Vectors {
    /// Of each vector.
    places: Vec<Place>,
    /// `[vector][tap]`: a bit an element of the input from the first output's on that is to be read: two an output at
    /// stride 2.
    reads: Vec<u32>,
    /// Of each tap, elements of the input from that of the first.
    offsets: Vec<isize>,
}

/// Where a vector of outputs is, in elements of the planes.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The first output.
    output: usize,
    /// How many outputs it is of.
    len: usize,
    /// What the first output's first tap reads, before the plane where that is padding.
    input: isize,
}

impl Vectors {
    /// Outputs that lie as their inputs do: all, or those of a row.
    fn longest(conv: &Conv2d, input: &TensorSpec, output: &TensorSpec) -> usize {
        // At stride 1 of a map that stays as wide, the outputs of the next row read the inputs of the next row.
        let same = conv.window.stride == [1, 1] && input.width == output.width;
        if same { output.pixels() } else { output.width }
    }

    fn new<S: Simd>(conv: &Conv2d, input: &TensorSpec, output: &TensorSpec) -> Self {
        let [rows, columns] = Axis::both(&conv.window, input, output);
        let (line, stride) = (Self::longest(conv, input, output), columns.stride);
        let taps = conv.window.taps();
        let width = input.width.cast_signed();
        let place_of = |y: usize, x: usize| {
            let y = (y * rows.stride).cast_signed() - rows.before.cast_signed();
            y * width + (x * columns.stride).cast_signed() - columns.before.cast_signed()
        };
        let (mut places, mut reads) = (Vec::new(), Vec::new());
        for start in (0..output.pixels()).step_by(line) {
            for first in (start..start + line).step_by(S::LANES) {
                let len = S::LANES.min(start + line - first);
                let place = place_of(first / output.width, first % output.width);
                places.push(Place { output: first, len, input: place });
                for tap in 0..taps {
                    let (tap_y, tap_x) = (tap / columns.kernel, tap % columns.kernel);
                    let read = |lane: usize| {
                        let (y, x) = ((first + lane) / output.width, (first + lane) % output.width);
                        rows.taps(y).contains(&tap_y) && columns.taps(x).contains(&tap_x)
                    };
                    let bits = (0..len).filter(|&lane| read(lane)).map(|lane| 1 << (lane * stride));
                    reads.push(bits.fold(0, |all: u32, bit: u32| all | bit));
                }
            }
        }
        let offset = |tap: usize| {
            let (y, x) = (tap / columns.kernel * rows.dilation, tap % columns.kernel * columns.dilation);
            (y * input.width + x).cast_signed()
        };
        let offsets = (0..taps).map(offset).collect();
        Self { places, reads, offsets }
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.places[..]) + size_of_val(&self.reads[..]) + size_of_val(&self.offsets[..])
    }
}

#[derive(Debug)]
struct PreparedPlanes<S> {
    simd: S,
    conv: Conv2d,
    input: TensorSpec,
    output: TensorSpec,
    epilogue: Epilogue,
    /// The usual window's, which need not look anything up.
    walk: Option<Walk>,
    vectors: Vectors,
    values: Values,
    bias: AlignedBytes,
}

impl<S: Simd> Prepared for PreparedPlanes<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let values = match &self.values {
            Values::F32(values) => size_of_val(&values[..]),
            Values::F16(values) => size_of_val(&values[..]),
        };
        let places = self.vectors.bytes() + self.walk.as_ref().map_or(0, Walk::bytes);
        let weight_bytes = values + places + self.bias.allocated();
        Footprint { weight_bytes, ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, residual) = operands(io, &self.input, &self.output, &self.epilogue);
        let pixels = self.output.pixels();
        parallel.for_each_row(io.output().f32(), pixels, |_, first, planes| {
            let residual = residual.map(|residual| &residual[first * pixels..][..planes.len()]);
            self.simd.vectorize(Channels { prepared: self, input, residual, first, planes });
        });
    }
}

/// Neighbouring channels, counted over the whole batch.
struct Channels<'a, P> {
    prepared: &'a PreparedPlanes<P>,
    input: &'a [f32],
    residual: Option<&'a [f32]>,
    first: usize,
    planes: &'a mut [f32],
}

impl<P: Simd> Work for Channels<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.prepared.conv.window.stride[1] {
            1 => self.channels::<S, 1>(simd),
            _ => self.channels::<S, 2>(simd),
        }
    }
}

impl<P: Simd> Channels<'_, P> {
    #[inline(always)]
    fn channels<S: Simd, const STRIDE: usize>(self, simd: S) {
        let Self { prepared, input, residual, first, planes } = self;
        let (pixels, plane) = (prepared.output.pixels(), prepared.input.pixels());
        let taps = prepared.conv.window.taps();
        let mut weights = [0.0; MAX_TAPS + MOST_LANES];
        for (index, to) in planes.chunks_exact_mut(pixels).enumerate() {
            let channel = (first + index) % prepared.output.channels;
            match &prepared.values {
                Values::F32(values) => weights[..taps].copy_from_slice(&values[channel * taps..][..taps]),
                Values::F16(values) => {
                    for tap in (0..taps).step_by(S::LANES) {
                        let (from, to) = (&values[channel * taps + tap..][..S::LANES], &mut weights[tap..][..S::LANES]);
                        // SAFETY: both are vectors.
                        unsafe { simd.store(to.as_mut_ptr(), simd.load_half(from.as_ptr())) };
                    }
                }
            }
            let bias = simd.splat(prepared.bias.f32().get(channel).copied().unwrap_or(0.0));
            let from = &input[(first + index) * plane..][..plane];
            let mut to = Outputs {
                plane: to,
                residual: residual.map(|residual| &residual[index * pixels..][..pixels]),
                activation: prepared.epilogue.activation,
            };
            match &prepared.walk {
                Some(walk) => {
                    let mut of_taps = [bias; super::rows::ALL];
                    for (to, &weight) in of_taps.iter_mut().zip(&weights) {
                        *to = simd.splat(weight);
                    }
                    Plane { input: from, weights: of_taps, bias }.walk(simd, walk, &mut to);
                }
                None => prepared.vectors.walk::<S, STRIDE>(simd, from, &weights[..taps], bias, &mut to),
            }
        }
    }
}

impl Vectors {
    /// Computes the outputs of a plane.
    #[inline(always)]
    fn walk<S: Simd, const STRIDE: usize>(
        &self,
        simd: S,
        plane: &[f32],
        weights: &[f32],
        bias: S::Vector,
        to: &mut Outputs<'_>,
    ) {
        let reads = self.reads.chunks_exact(weights.len());
        for (place, reads) in self.places.iter().zip(reads) {
            let from = plane.as_ptr().wrapping_offset(place.input);
            let mut sum = bias;
            for ((&which, &offset), &weight) in reads.iter().zip(&self.offsets).zip(weights) {
                let at = from.wrapping_offset(offset);
                // SAFETY: the elements whose bits are set are those of the plane that the taps of these outputs read.
                let x =
                    unsafe { if STRIDE == 1 { simd.load_where(at, which) } else { simd.load_even_where(at, which) } };
                sum = simd.mul_add(x, simd.splat(weight), sum);
            }
            to.put(simd, place.output..place.output + place.len, sum);
        }
    }
}

/// A plane of the output, and what becomes of sums on their way there.
pub(super) struct Outputs<'a> {
    plane: &'a mut [f32],
    residual: Option<&'a [f32]>,
    activation: Option<Activation>,
}

impl Outputs<'_> {
    /// Applies the epilogue and writes the first of these sums, as many as there are outputs.
    #[inline(always)]
    pub(super) fn put<S: Simd>(&mut self, simd: S, outputs: Range<usize>, mut sum: S::Vector) {
        let to = &mut self.plane[outputs.clone()];
        let all = u32::MAX >> (32 - to.len());
        if let Some(residual) = self.residual {
            // SAFETY: the bits are as many as there are elements.
            sum = simd.add(sum, unsafe { simd.load_where(residual[outputs].as_ptr(), all) });
        }
        let sum = rectify(simd, self.activation, sum);
        if to.len() == S::LANES {
            // SAFETY: it has as many elements.
            unsafe { simd.store(to.as_mut_ptr(), sum) };
        } else {
            let mut aside = [0.0; MOST_LANES];
            // SAFETY: no vector is longer.
            unsafe { simd.store(aside.as_mut_ptr(), sum) };
            to.iter_mut().zip(aside).for_each(|(to, sum)| *to = sum);
        }
        if self.activation == Some(Activation::Sigmoid) {
            activate(self.activation, to);
        }
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] =
    at_every_level!(DepthwisePlanes(Format::DenseF32), DepthwisePlanes(Format::DenseF16));
