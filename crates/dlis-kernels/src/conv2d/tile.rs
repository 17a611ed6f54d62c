//! The register tile that every product of pixels and packed weights is made of: a few pixels by two vectors
//! of output channels, for any part of the dimension that is summed over.

use dlis_backend::{AlignedBytes, Disjoint, Epilogue, Io, TensorSpec};
use dlis_model::{Activation, Conv2d};
use std::ops::Range;

use super::product::{Ahead, COLUMNS, Stored, Sums, accumulate};
use crate::simd::Simd;

/// Most pixels of a tile. With two vectors of channels this makes 16 accumulators, two vectors of
/// weights and a broadcast: as many as 16 registers have room for is 6 rows, 32 have room to spare.
const MAX_ROWS: usize = 8;
/// Most output channels of a block of any kernel: two of the widest vectors.
const MAX_BLOCK: usize = 32;

/// Pixels of a full tile on this level.
pub(super) const fn rows_of<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { MAX_ROWS } else { 6 }
}

/// A convolution and its tensors.
pub(super) struct Geometry {
    pub(super) conv: Conv2d,
    pub(super) input: TensorSpec,
    pub(super) output: TensorSpec,
    pub(super) epilogue: Epilogue,
    /// Input and output channels of a group, so that no tile begins with a division.
    depth: usize,
    per_group: usize,
    /// Whether every output pixel is computed from the input pixel of the same index.
    pointwise: bool,
    /// Whether no tap lies in the padding.
    inside: bool,
    /// What a tap in the padding reads: one group's channels.
    zeros: AlignedBytes,
}

impl Geometry {
    pub(super) fn new(conv: Conv2d, input: TensorSpec, output: TensorSpec, epilogue: Epilogue) -> Self {
        let (depth, per_group) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
        let zeros = AlignedBytes::zeroed(depth * size_of::<f32>());
        // Taps that were merged into channels are several pixels of the input.
        let merged = conv.in_channels != input.channels;
        let pointwise = conv.groups == 1 && conv.window.is_pointwise() && !merged;
        let inside = conv.window.padding == [0; 4]
            && [(output.height, input.height, 0), (output.width, input.width, 1)].into_iter().all(
                |(to, from, axis)| {
                    let first = (to - 1).checked_mul(conv.window.stride[axis]);
                    let last = (conv.window.kernel[axis] - 1).checked_mul(conv.window.dilation[axis]);
                    first.zip(last).and_then(|(first, last)| first.checked_add(last)).is_some_and(|last| last < from)
                },
            );
        Self { conv, input, output, epilogue, depth, per_group, pointwise, inside, zeros }
    }

    /// Elements from a window's first tap to that of this row and column, where windows lie inside.
    #[inline(always)]
    fn tap_offset(&self, [row, column]: [usize; 2]) -> usize {
        let [down, right] = self.conv.window.dilation;
        (row * down * self.input.width + column * right) * self.input.channels
    }

    /// The memory of a call, which must be of these tensors.
    pub(super) fn tensors<'a>(&self, io: &'a mut Io<'_>) -> Tensors<'a> {
        self.tensors_of(operands(io, &self.input, &self.output, &self.epilogue), io)
    }

    /// The memory of a call of these operands, of which the input may have been copied.
    pub(super) fn tensors_of<'a>(
        &self,
        (input, residual): (&'a [f32], Option<&'a [f32]>),
        io: &'a mut Io<'_>,
    ) -> Tensors<'a> {
        assert!(input.len() >= self.input.elements(), "an input of this geometry");
        Tensors { input, residual, output: Disjoint::new(io.output().f32()) }
    }

    /// As many zeros as a group has channels.
    pub(super) fn zeros(&self) -> &[f32] {
        self.zeros.f32()
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.zeros.allocated()
    }

    /// Input channels of a group.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Output channels of a group.
    pub(super) fn per_group(&self) -> usize {
        self.per_group
    }

    /// Terms of a sum: taps times [`depth`](Self::depth), taps outside.
    pub(super) fn terms(&self) -> usize {
        self.conv.window.taps() * self.depth()
    }

    /// Blocks of output channels, of all groups.
    pub(super) fn columns<S: Simd>(&self) -> usize {
        self.conv.groups * self.per_group().div_ceil(COLUMNS * S::LANES)
    }

    /// The output channels of a block.
    pub(super) fn channels<S: Simd>(&self, column: usize) -> Range<usize> {
        let (block, per_group) = (COLUMNS * S::LANES, self.per_group());
        let blocks = per_group.div_ceil(block);
        let (group, within) = if column < blocks { (0, column) } else { (column / blocks, column % blocks) };
        let within = within * block;
        let first = group * per_group + within;
        first..first + (per_group - within).min(block)
    }

    /// A number of each output channel, block by block; zeros beyond a group's last, and throughout where there are none.
    pub(super) fn by_block<S: Simd>(&self, values: &[f32]) -> AlignedBytes {
        let block = COLUMNS * S::LANES;
        let mut to = AlignedBytes::zeroed(self.columns::<S>() * block * size_of::<f32>());
        if !values.is_empty() {
            for (column, to) in to.f32_mut().chunks_exact_mut(block).enumerate() {
                let channels = self.channels::<S>(column);
                to[..channels.len()].copy_from_slice(&values[channels]);
            }
        }
        to
    }

    /// Tiles of pixels of the whole batch.
    pub(super) fn tiles<S: Simd>(&self) -> usize {
        (self.output.batch * self.output.pixels()).div_ceil(rows_of::<S>())
    }

    /// Pixels of a tile: the last may have fewer.
    pub(super) fn rows<S: Simd>(&self, tile: usize) -> usize {
        (self.output.batch * self.output.pixels() - tile * rows_of::<S>()).min(rows_of::<S>())
    }
}

/// Where the windows of a tile's pixels begin: the first row of the image, counted over the batch, and row and
/// column within it; of a pointwise convolution the index of the pixel.
pub(super) type Origins<const ROWS: usize> = [(usize, usize, usize); ROWS];

impl Geometry {
    /// Where the windows of `ROWS` output pixels begin, from the one of this index over the whole batch on.
    #[inline(always)]
    pub(super) fn origins<const ROWS: usize>(&self, first: usize) -> Origins<ROWS> {
        // Where each pixel's window begins, in input coordinates: before the first where the padding is, which as
        // an unsigned number is beyond the last. Plain loops throughout: `array::from_fn` is not always inlined.
        let Self { conv, input, output, .. } = self;
        let mut origin = [(0, 0, 0); ROWS];
        if self.pointwise {
            for (row, origin) in origin.iter_mut().enumerate() {
                origin.0 = first + row;
            }
            return origin;
        }
        let (mut image, within) = (first / output.pixels(), first % output.pixels());
        let (mut y, mut x) = (within / output.width, within % output.width);
        for origin in &mut origin {
            let [stride_y, stride_x] = conv.window.stride;
            let [above, left, ..] = conv.window.padding;
            let along = [(y * stride_y).wrapping_sub(above), (x * stride_x).wrapping_sub(left)];
            *origin = (image * input.height, along[0], along[1]);
            // The next pixel, without a division.
            x += 1;
            if x == output.width {
                (x, y) = (0, y + 1);
                if y == output.height {
                    (y, image) = (0, image + 1);
                }
            }
        }
        origin
    }

    /// What the tap of this row and column reads of each of these windows: the channels of a group, or zeros where it lies
    /// in the padding.
    #[inline(always)]
    pub(super) fn pixels<const ROWS: usize>(
        &self,
        tensors: &Tensors<'_>,
        origin: &Origins<ROWS>,
        [tap_y, tap_x]: [usize; 2],
        group: usize,
    ) -> [*const f32; ROWS] {
        let Self { conv, input, zeros, .. } = self;
        let depth = self.depth();
        let mut pixel = [zeros.f32().as_ptr(); ROWS];
        if self.pointwise {
            for (pixel, &(index, ..)) in pixel.iter_mut().zip(origin) {
                debug_assert!((index + 1) * depth <= tensors.input.len(), "input pixel in bounds");
                // SAFETY: input and output have the same pixels, and the input's size was checked when the call began.
                *pixel = unsafe { tensors.input.as_ptr().add(index * depth) };
            }
            return pixel;
        }
        for (pixel, &(image_rows, y, x)) in pixel.iter_mut().zip(origin) {
            let y = y.wrapping_add(tap_y * conv.window.dilation[0]);
            let x = x.wrapping_add(tap_x * conv.window.dilation[1]);
            if y < input.height && x < input.width {
                let at = ((image_rows + y) * input.width + x) * input.channels + group * depth;
                debug_assert!(at + depth <= tensors.input.len(), "input pixel in bounds");
                // SAFETY: image, row and column lie within the input, whose size was checked when the call began.
                *pixel = unsafe { tensors.input.as_ptr().add(at) };
            }
        }
        pixel
    }

    /// Applies the epilogue and writes sums of `ROWS` output pixels, of `VECTORS` vectors of channels of which
    /// `channels` are some.
    #[inline(always)]
    pub(super) fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        tensors: &Tensors<'_>,
        (first, channels): (usize, Range<usize>),
        mut sums: [[S::Vector; VECTORS]; ROWS],
    ) {
        let activation = self.epilogue.activation;
        if channels.len() < VECTORS * S::LANES || activation == Some(Activation::Sigmoid) {
            let mut aside = [[0.0f32; MAX_BLOCK]; ROWS];
            for (aside, sums) in aside.iter_mut().zip(sums) {
                for (v, sum) in sums.into_iter().enumerate() {
                    // SAFETY: `aside` holds a block.
                    unsafe { simd.store(aside.as_mut_ptr().add(v * S::LANES), sum) };
                }
            }
            return self.store_each(tensors, (first, channels), &aside);
        }
        // A loop for each step: each is small enough to be unrolled, so that the sums never leave the registers.
        let (at, stride) = (first * self.output.channels + channels.start, self.output.channels);
        if let Some(residual) = tensors.residual {
            for (row, sums) in sums.iter_mut().enumerate() {
                let residual = &residual[at + row * stride..][..VECTORS * S::LANES];
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the slice holds `VECTORS` vectors.
                    *sum = simd.add(*sum, unsafe { simd.load(residual.as_ptr().add(v * S::LANES)) });
                }
            }
        }
        rectify_all(simd, activation, sums.as_flattened_mut());
        for (row, sums) in sums.into_iter().enumerate() {
            // SAFETY: pixels and blocks of channels belong to one task each, so no two parts overlap.
            let to = unsafe { tensors.output.slice(at + row * stride..at + row * stride + VECTORS * S::LANES) };
            for (v, sum) in sums.into_iter().enumerate() {
                // SAFETY: the slice holds `VECTORS` vectors.
                unsafe { simd.store(to.as_mut_ptr().add(v * S::LANES), sum) };
            }
        }
    }

    /// The same, number by number: of the last block of a group, which is not full, and for sigmoids.
    fn store_each(&self, tensors: &Tensors<'_>, (first, channels): (usize, Range<usize>), sums: &[[f32; MAX_BLOCK]]) {
        for (row, sums) in sums.iter().enumerate() {
            let at = (first + row) * self.output.channels + channels.start;
            // SAFETY: pixels and blocks of channels belong to one task each, so no two parts overlap.
            let to = unsafe { tensors.output.slice(at..at + channels.len()) };
            for (index, (to, &sum)) in to.iter_mut().zip(sums).enumerate() {
                let sum = sum + tensors.residual.map_or(0.0, |residual| residual[at + index]);
                *to = self.epilogue.activation.map_or(sum, |activation| activation.apply(sum));
            }
        }
    }
}

/// Input and residual of a call, whose tensors must be these.
pub(super) fn operands<'a>(
    io: &Io<'a>,
    input: &TensorSpec,
    output: &TensorSpec,
    epilogue: &Epilogue,
) -> (&'a [f32], Option<&'a [f32]>) {
    let (from, residual) = (io.input(0), io.residual());
    assert!(from.spec().same_bytes(input) && io.output_spec().same_bytes(output), "tensors of the operation");
    assert_eq!(residual.is_some(), epilogue.residual, "a residual where the operation has one");
    (from.f32(), residual.map(|residual| residual.f32()))
}

/// The memory of one call.
pub(super) struct Tensors<'a> {
    pub(super) input: &'a [f32],
    pub(super) residual: Option<&'a [f32]>,
    pub(super) output: Disjoint<'a, f32>,
}

/// One block of output channels of a call.
pub(super) struct Block<'a> {
    pub(super) geometry: &'a Geometry,
    pub(super) column: usize,
    /// The output channels, which are some of a group's.
    pub(super) channels: Range<usize>,
    tensors: &'a Tensors<'a>,
    group: usize,
}

impl<'a> Block<'a> {
    pub(super) fn new<S: Simd>(geometry: &'a Geometry, tensors: &'a Tensors<'a>, column: usize) -> Self {
        let channels = geometry.channels::<S>(column);
        let group = channels.start / geometry.per_group;
        Self { geometry, column, channels, tensors, group }
    }

    /// The same number in every row, one a channel of the block.
    #[inline(always)]
    pub(super) fn splat<S: Simd, const ROWS: usize>(simd: S, block: &[f32]) -> Sums<S::Vector, ROWS> {
        let block = &block[..COLUMNS * S::LANES];
        let mut sums = [[simd.splat(0.0); COLUMNS]; ROWS];
        for sums in &mut sums {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a block holds `COLUMNS` vectors.
                *sum = unsafe { simd.load(block.as_ptr().add(v * S::LANES)) };
            }
        }
        sums
    }

    /// Adds the terms `terms` of the output pixels `first..first + ROWS`, counted over the whole batch.
    /// `weights` are those of these terms, a block each.
    #[inline(always)]
    pub(super) fn add<S: Simd, W: Stored, const ROWS: usize>(
        &self,
        simd: S,
        first: usize,
        terms: Range<usize>,
        weights: &[W],
        mut ahead: impl Ahead,
        sums: &mut Sums<S::Vector, ROWS>,
    ) {
        let block = COLUMNS * S::LANES;
        let depth = self.geometry.depth();
        assert!(weights.len() >= terms.len() * block, "a block of weights a term");

        let origin = self.geometry.origins::<ROWS>(first);
        let of_first = self.geometry.pixels(self.tensors, &origin, [0; 2], self.group);
        let mut weight = weights.as_ptr();
        let of_row = self.geometry.conv.window.kernel[1];
        // The usual case begins with the first tap, and a division takes long beside few terms.
        let (mut tap, mut channel) = ([0; 2], terms.start);
        if terms.start >= depth {
            let index = terms.start / depth;
            (tap, channel) = ([index / of_row, index % of_row], terms.start % depth);
        }
        let mut left = terms.len();
        while left > 0 {
            let channels = channel..depth.min(channel + left);
            (left, channel) = (left - channels.len(), 0);
            let mut pixel = of_first;
            if tap != [0; 2] && self.geometry.inside {
                // All taps of a window are as far from its first as those of any other.
                let offset = self.geometry.tap_offset(tap);
                for pixel in &mut pixel {
                    // SAFETY: the tap lies within the input, as the first does.
                    *pixel = unsafe { pixel.add(offset) };
                }
            } else if tap != [0; 2] {
                pixel = self.geometry.pixels(self.tensors, &origin, tap, self.group);
            }
            tap[1] += 1;
            if tap[1] == of_row {
                tap = [tap[0] + 1, 0];
            }
            // SAFETY: every pixel points to the `depth` channels of one group; `weight` advances through a block a term,
            // as many as were checked above.
            unsafe {
                let mut rows = pixel;
                for row in &mut rows {
                    *row = row.add(channels.start);
                }
                accumulate(simd, &rows, weight, channels.len(), &mut ahead, sums);
                weight = weight.add(channels.len() * block);
            }
        }
    }

    /// Applies the epilogue and writes a tile.
    #[inline(always)]
    pub(super) fn store<S: Simd, const ROWS: usize>(&self, simd: S, first: usize, sums: Sums<S::Vector, ROWS>) {
        self.geometry.store(simd, self.tensors, (first, self.channels.clone()), sums);
    }
}

/// The activations that are a comparison or two; a sigmoid is left to the caller.
#[inline(always)]
pub(crate) fn rectify<S: Simd>(simd: S, activation: Option<Activation>, x: S::Vector) -> S::Vector {
    match activation {
        None | Some(Activation::Sigmoid) => x,
        Some(Activation::Relu) => simd.at_least(x, simd.splat(0.0)),
        Some(Activation::Relu6) => simd.at_most(simd.at_least(x, simd.splat(0.0)), simd.splat(6.0)),
    }
}

/// The same of several, the activation asked for once.
#[inline(always)]
pub(crate) fn rectify_all<S: Simd>(simd: S, activation: Option<Activation>, all: &mut [S::Vector]) {
    if matches!(activation, Some(Activation::Relu | Activation::Relu6)) {
        for x in &mut *all {
            *x = simd.at_least(*x, simd.splat(0.0));
        }
    }
    if activation == Some(Activation::Relu6) {
        for x in all {
            *x = simd.at_most(*x, simd.splat(6.0));
        }
    }
}

/// Calls a function whose constant is the number of pixels of a tile.
macro_rules! with_rows {
    ($rows:expr, $body:ident::<$($type:ty),+; _>($($argument:expr),*)) => {
        match $rows {
            8 => $body::<$($type),+, 8>($($argument),*),
            7 => $body::<$($type),+, 7>($($argument),*),
            6 => $body::<$($type),+, 6>($($argument),*),
            5 => $body::<$($type),+, 5>($($argument),*),
            4 => $body::<$($type),+, 4>($($argument),*),
            3 => $body::<$($type),+, 3>($($argument),*),
            2 => $body::<$($type),+, 2>($($argument),*),
            _ => $body::<$($type),+, 1>($($argument),*),
        }
    };
}
pub(crate) use with_rows;
