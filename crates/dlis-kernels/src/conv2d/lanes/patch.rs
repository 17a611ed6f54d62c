//! What a tile of outputs reads, and how it is laid out for it.

use std::ops::Range;

use dlis_backend::{Layout, TensorSpec};
use dlis_model::Conv2d;

use crate::axis::Axis;

/// The images of one pixel of one channel: what lies together.
pub(super) type Pixel = [f32; Layout::LANES];

/// Bytes of a patch that are read together. Each is read by a few of the weights only, so that a bit more than the
/// first-level cache is best: larger parts load and store the sums less often.
const PART_BYTES: usize = 44 << 10;
/// Least entries of an output channel within a part, on average: each part loads and stores the sums, and has a number
/// of its own for every output channel.
const PART_ENTRIES: usize = 4;
/// Pixels that 16 bits tell apart.
const MOST_PIXELS: usize = 1 << 16;

/// Tiles of outputs, and the patch of the input that one of them reads: some channels of the pixels of its windows.
///
/// It is copied, padding in place, to where its pixels neither lie in each other's way in a cache nor outside of the
/// image; but with windows of one pixel, where tiles are whole, it is read where it is.
///
/// A copy is `[channel][row][column % stride][column / stride]`, so that neighbouring outputs read neighbours.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    axes: [Axis; 2],
    channels: usize,
    /// Outputs of a tile, rows and columns.
    pub(super) tile: [usize; 2],
    /// Tiles of an image.
    pub(super) tiles: [usize; 2],
    /// Channels of a part.
    part: usize,
    /// Rows and columns of a copy; `None` where it is read in place.
    copied: Option<[usize; 2]>,
}

impl Patch {
    /// Tiles of `sums` outputs at most, for output channels of so many entries on average; `None` where what one
    /// channel's windows of a tile span is too large.
    pub(super) fn new(
        conv: &Conv2d,
        input: &TensorSpec,
        output: &TensorSpec,
        sums: usize,
        entries: usize,
    ) -> Option<Self> {
        let axes = Axis::both(&conv.window, input, output);
        let channels = conv.in_channels;
        let dense = axes.iter().all(|axis| axis.kernel == 1 && axis.stride == 1 && axis.input == axis.output);
        let in_place = |of: usize| {
            // All pixels as a column, which is what a tile has pointers for.
            let [rows, columns] = &axes;
            let pixels = rows.output * columns.output;
            let axis = |input| Axis { input, output: input, kernel: 1, stride: 1, dilation: 1, before: 0 };
            let whole = pixels.is_multiple_of(of) && (of > 1 || pixels < 4);
            whole.then(|| Self {
                axes: [axis(pixels), axis(1)],
                channels,
                tile: [of, 1],
                tiles: [pixels / of, 1],
                part: part(channels, of, entries),
                copied: None,
            })
        };
        if dense && let Some(patch) = in_place(8).or_else(|| in_place(4)).or_else(|| in_place(1)) {
            return Some(patch);
        }
        let tile = match (sums, output.height.max(output.width)) {
            (_, 1) => [1, 1],
            (_, 2) => [2, 2],
            (16.., _) => [4, 4],
            _ => [2, 4],
        };
        let span = |axis: &Axis, of: usize| {
            let taps = (axis.kernel - 1).checked_mul(axis.dilation)?;
            Some((of - 1).checked_mul(stride(axis))?.checked_add(taps)? + 1)
        };
        let [height, width] = [span(&axes[0], tile[0])?, span(&axes[1], tile[1])?];
        let width = width.checked_next_multiple_of(stride(&axes[1]))?;
        let of_channel = height.checked_mul(width).filter(|&pixels| pixels <= MOST_PIXELS)?;
        Some(Self {
            axes,
            channels,
            tile,
            tiles: [output.height.div_ceil(tile[0]), output.width.div_ceil(tile[1])],
            part: part(channels, of_channel, entries),
            copied: Some([height, width]),
        })
    }

    /// Rows and columns of the output, as they are divided into tiles.
    pub(super) fn outputs(&self) -> [usize; 2] {
        [self.axes[0].output, self.axes[1].output]
    }

    /// Parts of the channels.
    pub(super) fn parts(&self) -> usize {
        self.channels.div_ceil(self.part)
    }

    /// The channels of a part.
    pub(super) fn channels(&self, part: usize) -> Range<usize> {
        part * self.part..self.channels.min((part + 1) * self.part)
    }

    /// The part of a column of the weights, and the pixel that it meets for the first output of a tile.
    pub(super) fn place(&self, column: usize) -> (usize, usize) {
        let [rows, columns] = &self.axes;
        let taps = rows.kernel * columns.kernel;
        let (channel, tap) = (column / taps, column % taps);
        let (part, channel) = (channel / self.part, channel % self.part);
        let Some([height, width]) = self.copied else { return (part, channel) };
        let (y, x) = (tap / columns.kernel * rows.dilation, tap % columns.kernel * columns.dilation);
        (part, (channel * height + y) * width + self.column(x, width))
    }

    /// Where a column lies in a copied row.
    fn column(&self, x: usize, width: usize) -> usize {
        let stride = stride(&self.axes[1]);
        x % stride * (width / stride) + x / stride
    }

    /// Pixels from one row of outputs to the next.
    pub(super) fn pitch(&self) -> usize {
        self.copied.map_or(self.channels, |[_, width]| width * stride(&self.axes[0]))
    }

    /// Pixels of a copy of a part; none where it is read in place.
    pub(super) fn copy_len(&self) -> usize {
        self.copied.map_or(0, |[height, width]| self.part * height * width)
    }

    /// The patch of a tile: a part of the channels of a group of images, from `copy`'s room where it is copied.
    #[inline(always)]
    pub(super) fn of_tile<'a>(
        &self,
        image: &'a [Pixel],
        [tile_y, tile_x]: [usize; 2],
        part: usize,
        copy: &'a mut [Pixel],
    ) -> &'a [Pixel] {
        let channels = self.channels(part);
        let Some([height, width]) = self.copied else {
            return &image[tile_y * self.tile[0] * self.channels + channels.start..];
        };
        let [rows, columns] = &self.axes;
        let copy = &mut copy[..channels.len() * height * width];
        for y in 0..height {
            // Beyond the last where it lies before the first.
            let from_y = (tile_y * self.tile[0] * rows.stride + y * step(rows)).wrapping_sub(rows.before);
            for x in 0..width {
                let from_x = (tile_x * self.tile[1] * columns.stride + x * step(columns)).wrapping_sub(columns.before);
                let to = copy[y * width + self.column(x, width)..].iter_mut().step_by(height * width);
                if from_y < rows.input && from_x < columns.input {
                    let at = (from_y * columns.input + from_x) * self.channels;
                    let from = &image[at + channels.start..at + channels.end];
                    to.zip(from).for_each(|(to, from)| *to = *from);
                } else {
                    to.for_each(|to| *to = [0.0; Layout::LANES]);
                }
            }
        }
        copy
    }
}

/// Inputs from one that is copied to the next: between windows of one, what is skipped is left out.
const fn step(axis: &Axis) -> usize {
    if axis.kernel == 1 { axis.stride } else { 1 }
}

/// What is copied, from one output to the next.
const fn stride(axis: &Axis) -> usize {
    axis.stride / step(axis)
}

/// Channels of a part, each of so many pixels: parts are of about the same size.
fn part(channels: usize, of_channel: usize, entries: usize) -> usize {
    let by_bytes = PART_BYTES / (of_channel * size_of::<Pixel>());
    let by_entries = channels / (entries / PART_ENTRIES).max(1);
    let most = by_bytes.max(by_entries).clamp(1, MOST_PIXELS / of_channel);
    channels.div_ceil(channels.div_ceil(most))
}
