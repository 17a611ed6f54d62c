//! An image laid out so that every tap of a window reads it in one straight run.

use std::ops::Range;

use dlis_backend::Parallel;

use crate::axis::Axis;
use crate::simd::{Portable, Simd, Work};

/// Most elements of a padded image, a gibibyte of them: an image that fits memory cannot be made to
/// demand any amount of scratch by its padding alone.
const MAX_LEN: usize = 1 << 28;
/// Most taps of an axis that have planes of their own.
const MAX_SPLIT: usize = 16;
/// Most elements of a channel's planes whose masks are kept.
const MAX_SHIFTED: usize = 1 << 14;
/// Most elements from the first that a channel's planes read to the last.
const MAX_REACH: usize = 1 << 17;
/// Sums are computed in multiples of this, so that small maps have no rest that vectors do not cover.
const STEP: usize = 4;

/// How the planes of an image are laid out with their padding.
///
/// With stride 1 a plane is its rows, zeros between them, one after the other: tap `(ky, kx)` of the output at
/// `(y, x)` is then element `(y + ky) * pitch + x + kx`, a fixed distance from `y * pitch + x`. Rows share the
/// zeros that end one and begin the next. Larger strides first sort rows and columns into phases, one plane
/// each: those that a tap reads are then neighbours again.
#[derive(Clone, Debug)]
pub(crate) struct Planes {
    axes: [Axis; 2],
    /// The axes of which every tap has planes of its own.
    split: [bool; 2],
    channels: usize,
    /// Rows and columns modulo the stride that some tap reads.
    phases: [Vec<usize>; 2],
    /// Of each phase, the rows and columns of its plane that are not padding.
    inside: [Vec<Range<usize>>; 2],
    /// From one row to the next.
    pitch: usize,
    /// Elements of one phase of one channel.
    plane: usize,
    /// Elements from the first to the last output of a plane, at this pitch.
    sums: usize,
    /// Whether the image already is laid out so, and is not copied.
    in_place: bool,
    /// Where rows are as long as the image's: how the planes of a channel are copied.
    shifted: Option<Shifted>,
}

/// Planes whose rows are taken from the image as they stand, and made zero where they reach beyond it.
#[derive(Clone, Debug)]
pub(super) struct Shifted {
    /// What is read for a channel starts so far from its image: perhaps before it, for what is made zero.
    pub(super) first: isize,
    /// Elements from there to behind the last.
    pub(super) reach: usize,
    /// What the planes of a channel consist of, one after the other.
    pub(super) runs: Vec<Run>,
    /// Of each element of them, all bits or none.
    pub(super) masks: Vec<u32>,
}

/// Neighbours that are copied together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Where they start, from the first element that is read for the channel.
    pub(super) from: usize,
    pub(super) len: usize,
}

impl Planes {
    /// The layout for a window of these axes; `None` if it would be too large.
    pub(crate) fn new(axes: [Axis; 2], channels: usize) -> Option<Self> {
        Self::split(axes, channels, [false; 2])
    }

    /// As [`new`](Self::new), but with a plane for each tap of the axes that are `split`: then outputs need no
    /// padding between rows (where columns are split) and lie where vectors begin, and the copy takes as many
    /// times the memory.
    pub(crate) fn split(axes: [Axis; 2], channels: usize, split: [bool; 2]) -> Option<Self> {
        // What a tap of a split axis has to itself are the inputs from its own shift on.
        let split = [0, 1].map(|axis: usize| split[axis] && axes[axis].kernel <= MAX_SPLIT);
        let places = [0, 1].map(|axis: usize| {
            let Axis { kernel, stride, .. } = axes[axis];
            let taps = if split[axis] { kernel } else { kernel.min(stride) };
            (0..taps).map(move |tap| place(&axes[axis], split[axis], tap).0)
        });
        let phases = places.map(|places| {
            let mut phases: Vec<usize> = places.collect();
            phases.sort_unstable();
            phases.dedup();
            phases
        });
        let reach = [0, 1].map(|axis: usize| place(&axes[axis], split[axis], axes[axis].kernel - 1).1);
        let extents = [axes[0].output + reach[0], axes[1].output + reach[1]];
        let inside = [0, 1].map(|axis: usize| {
            phases[axis].iter().map(|&phase| axes[axis].positions(phase, extents[axis])).collect::<Vec<_>>()
        });
        let columns = extents[1];
        let margins = |of: fn(Range<usize>, usize) -> usize| {
            inside[1].iter().map(|inside| of(inside.clone(), columns)).min().unwrap_or(0)
        };
        let shared = margins(|inside, _| inside.start).min(margins(|inside, columns| columns - inside.end));
        let pitch = columns - shared;
        let in_place =
            axes.iter().all(|axis| axis.stride == 1 && axis.before == 0) && extents == axes.map(|axis| axis.input);
        // Of a split axis that has several taps, each has its own copy.
        let in_place = in_place && phases.iter().all(|phases| phases.len() == 1);
        let sums = (axes[0].output - 1).checked_mul(pitch)?.checked_add(axes[1].output)?;
        let last = reach[0].checked_mul(pitch)?.checked_add(reach[1])?;
        let sums = if in_place { sums } else { sums.next_multiple_of(STEP) };
        let plane = last.checked_add(sums)?;
        let len = plane.checked_mul(phases[0].len())?.checked_mul(phases[1].len())?.checked_mul(channels)?;
        let mut planes = Self { axes, split, channels, phases, inside, pitch, plane, sums, in_place, shifted: None };
        planes.shifted = planes.as_shifted();
        (len <= MAX_LEN).then_some(planes)
    }

    fn as_shifted(&self) -> Option<Shifted> {
        let [rows, columns] = &self.axes;
        let in_line = self.pitch == columns.output && columns.stride <= 2;
        // Padding, strides and windows that no layer has, but a stranger's file may.
        let small = |axis: &Axis| {
            let reach = axis.kernel.saturating_mul(axis.dilation).max(axis.stride).max(axis.before);
            reach.max(axis.input) <= MAX_SHIFTED
        };
        if !in_line || self.in_place || self.channel() > MAX_SHIFTED || !self.axes.iter().all(small) {
            return None;
        }
        // Where nothing is skipped a plane is one run.
        let dense = rows.stride == 1 && columns.stride == 1 && self.pitch == columns.input;
        let run = if dense { self.plane } else { self.pitch };
        let (mut starts, mut masks) = (Vec::new(), vec![0; self.channel()]);
        for (index, masks) in masks.chunks_mut(self.plane).enumerate() {
            let [_, row_phase, column_phase] = self.phase_of(0, index);
            let [first, x] = [self.phases[0][row_phase], self.phases[1][column_phase]].map(usize::cast_signed);
            for begin in (0..self.plane).step_by(run) {
                let y = (begin / self.pitch * rows.stride).cast_signed() + first - rows.before.cast_signed();
                let from = y * columns.input.cast_signed() + x - columns.before.cast_signed();
                starts.push((from, run.min(self.plane - begin)));
            }
            for row in self.inside[0][row_phase].clone() {
                masks[row * self.pitch..][self.inside[1][column_phase].clone()].fill(u32::MAX);
            }
        }
        let first = starts.iter().map(|&(from, _)| from).min()?;
        let runs: Vec<Run> = starts.iter().map(|&(from, len)| Run { from: from.abs_diff(first), len }).collect();
        let reach = runs.iter().map(|run| run.from + run.len * columns.stride).max()?;
        (reach <= MAX_REACH).then_some(Shifted { first, reach, runs, masks })
    }

    /// Elements of one image of the input.
    pub(crate) fn image_len(&self) -> usize {
        self.channels * self.axes[0].input * self.axes[1].input
    }

    /// Pixels of one plane of the output.
    pub(crate) fn pixels(&self) -> usize {
        self.axes[0].output * self.axes[1].output
    }

    /// Elements of one padded image, 0 where the image is used as it is.
    pub(crate) fn scratch_len(&self) -> usize {
        if self.in_place { 0 } else { self.channels * self.channel() }
    }

    /// Elements of the sums of one plane of the output.
    pub(crate) fn sum_len(&self) -> usize {
        self.sums
    }

    /// From one row of a plane to the next.
    pub(crate) fn pitch(&self) -> usize {
        self.pitch
    }

    /// Elements from the first to the last output of a plane.
    pub(crate) fn positions(&self) -> usize {
        (self.axes[0].output - 1) * self.pitch + self.axes[1].output
    }

    /// Elements of the image laid out so, whether or not it already is.
    pub(crate) fn padded_len(&self) -> usize {
        self.channels * self.channel()
    }

    /// Elements of one channel that this many neighbouring outputs read, at most.
    pub(crate) fn read_of_channel(&self, outputs: usize) -> usize {
        self.plane.min(self.plane - self.sums + outputs) * self.phases[0].len() * self.phases[1].len()
    }

    /// Whether the image already is laid out so.
    pub(crate) fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Elements of all phases of one channel.
    fn channel(&self) -> usize {
        self.plane * self.phases[0].len() * self.phases[1].len()
    }

    /// Where these channels lie.
    pub(crate) fn channels(&self, channels: Range<usize>) -> Range<usize> {
        channels.start * self.channel()..channels.end * self.channel()
    }

    /// Where each tap of each of `channels` channels finds the input of the first output, channel by channel.
    pub(crate) fn offsets(&self, channels: usize) -> Vec<usize> {
        let [rows, columns] = &self.axes;
        let index = |axis: usize, phase: usize| self.phases[axis].iter().take_while(|&&p| p != phase).count();
        let mut offsets = Vec::with_capacity(channels * rows.kernel * columns.kernel);
        for channel in 0..channels {
            for ky in 0..rows.kernel {
                for kx in 0..columns.kernel {
                    let ((row_phase, y), (column_phase, x)) =
                        (place(rows, self.split[0], ky), place(columns, self.split[1], kx));
                    let plane = index(0, row_phase) * self.phases[1].len() + index(1, column_phase);
                    offsets.push(channel * self.channel() + plane * self.plane + y * self.pitch + x);
                }
            }
        }
        offsets
    }

    /// The image laid out in `padded`, or the image itself where nothing is to be done.
    pub(crate) fn fill<'a>(
        &self,
        simd: impl Simd,
        image: &'a [f32],
        padded: &'a mut [f32],
        parallel: Parallel<'_>,
    ) -> &'a [f32] {
        if self.in_place {
            return image;
        }
        parallel.for_each_row(padded, self.channel(), |_, first, channels| {
            simd.vectorize(Fill { planes: self, image, first, channels });
        });
        padded
    }

    /// Copies one plane of one channel, where it is not as the image's but for a distance.
    #[inline(always)]
    fn fill_plane(&self, image: &[f32], [channel, row_phase, column_phase]: [usize; 3], plane: &mut [f32]) {
        let [rows, columns] = &self.axes;
        let (inside, inside_rows) = (self.inside[1][column_phase].clone(), self.inside[0][row_phase].clone());
        let (row_phase, column_phase) = (self.phases[0][row_phase], self.phases[1][column_phase]);
        let image = &image[channel * rows.input * columns.input..][..rows.input * columns.input];
        plane.fill(0.0);
        if inside.is_empty() {
            return;
        }
        let left = inside.start * columns.stride + column_phase - columns.before;
        for row in inside_rows {
            let y = row * rows.stride + row_phase - rows.before;
            let from = &image[y * columns.input + left..(y + 1) * columns.input];
            let to = &mut plane[row * self.pitch..][inside.clone()];
            take_every(from, columns.stride, to);
        }
    }

    /// The channel of the plane of this index, counted from those of channel `first`, and its phases' indices.
    fn phase_of(&self, first: usize, index: usize) -> [usize; 3] {
        let [rows, columns] = [self.phases[0].len(), self.phases[1].len()];
        [first + index / (rows * columns), index / columns % rows, index % columns]
    }

    /// Lays out images side by side: at each place the `count` images' elements are neighbours, zeros where
    /// there are fewer images.
    pub(crate) fn interleave(&self, images: &[f32], count: usize, padded: &mut [f32], parallel: Parallel<'_>) {
        let [rows, columns] = &self.axes;
        parallel.for_each_row(padded, self.channel() * count, |_, first, channels| {
            channels.fill(0.0);
            for (index, plane) in channels.chunks_mut(self.plane * count).enumerate() {
                let [channel, row_phase, column_phase] = self.phase_of(first, index);
                let (inside, inside_rows) = (self.inside[1][column_phase].clone(), self.inside[0][row_phase].clone());
                let (row_phase, column_phase) = (self.phases[0][row_phase], self.phases[1][column_phase]);
                for row in inside_rows {
                    let y = row * rows.stride + row_phase - rows.before;
                    for column in inside.clone() {
                        let x = column * columns.stride + column_phase - columns.before;
                        let from = (channel * rows.input + y) * columns.input + x;
                        let to = &mut plane[(row * self.pitch + column) * count..][..count];
                        let images = images.chunks(self.image_len());
                        to.iter_mut().zip(images).for_each(|(to, image)| *to = image[from]);
                    }
                }
            }
        });
    }

    /// Copies the outputs of a plane from among its sums.
    pub(crate) fn extract(&self, sums: &[f32], plane: &mut [f32]) {
        let width = self.axes[1].output;
        for (row, to) in plane.chunks_mut(width).enumerate() {
            to.copy_from_slice(&sums[row * self.pitch..][..width]);
        }
    }
}

/// Takes the first of `from` and every `stride`th after it, and zeros behind them.
#[inline(always)]
pub(super) fn take_every(from: &[f32], stride: usize, to: &mut [f32]) {
    let taken = 0..from.len().div_ceil(stride).min(to.len());
    to[taken.end..].fill(0.0);
    let to = &mut to[taken];
    match stride {
        1 => to.copy_from_slice(&from[..to.len()]),
        2 => {
            // A constant, and whole pairs, for which the compiler has instructions.
            let (pairs, rest) = from.as_chunks::<2>();
            to.iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[0]);
            if let (Some(to), [last]) = (to.get_mut(pairs.len()), rest) {
                *to = *last;
            }
        }
        _ => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, &from)| *to = from),
    }
}

/// Channels to be laid out.
struct Fill<'a> {
    planes: &'a Planes,
    image: &'a [f32],
    first: usize,
    channels: &'a mut [f32],
}

impl Work for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { planes, image, first, channels } = self;
        let pixels = planes.axes[0].input * planes.axes[1].input;
        for (channel, to) in (first..).zip(channels.chunks_exact_mut(planes.channel())) {
            // What the first channels' and the last ones' planes would read lies outside of the image.
            let shifted = planes.shifted.as_ref().and_then(|shifted| {
                let start = (channel * pixels).wrapping_add_signed(shifted.first);
                Some((shifted, image.get(start..start.wrapping_add(shifted.reach))?))
            });
            if let Some((shifted, from)) = shifted {
                shifted.fill(simd, planes.axes[1].stride, from, to);
                continue;
            }
            for (index, plane) in to.chunks_exact_mut(planes.plane).enumerate() {
                planes.fill_plane(image, planes.phase_of(channel, index), plane);
            }
        }
    }
}

impl Shifted {
    /// Copies the planes of a channel from the `reach` elements that they read, `stride` of which are a step.
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, stride: usize, from: &[f32], to: &mut [f32]) {
        assert!(stride <= 2 && self.masks.len() == to.len() && from.len() == self.reach, "one channel");
        let mut begin = 0;
        for run in &self.runs {
            // SAFETY: the runs are as long as the planes of a channel together, as `masks` and `to` are, and none
            // reads further than `reach`.
            unsafe {
                let from = from.as_ptr().add(run.from);
                let (masks, to) = (self.masks.as_ptr().add(begin), to.as_mut_ptr().add(begin));
                let done = masked(simd, 0, run.len, stride, from, masks, to);
                let done = masked(Portable, done, run.len, stride, from, masks, to);
                for lane in done..run.len {
                    let bits = (*from.add(lane * stride)).to_bits() & *masks.add(lane);
                    *to.add(lane) = f32::from_bits(bits);
                }
            }
            begin += run.len;
        }
    }
}

/// Copies whole vectors from place `done` on, of elements `stride` (1 or 2) apart, and zeros where the masks are.
/// Returns where the rest begins.
///
/// # Safety
///
/// `len * stride` elements must be readable at `from`, `len` numbers at `masks`, and `len` elements writable at `to`.
#[inline(always)]
unsafe fn masked<S: Simd>(
    simd: S,
    done: usize,
    len: usize,
    stride: usize,
    from: *const f32,
    masks: *const u32,
    to: *mut f32,
) -> usize {
    let mut at = done;
    while at + S::LANES <= len {
        // SAFETY: by the caller's promise.
        unsafe {
            let elements = if stride == 1 { simd.load(from.add(at)) } else { simd.load_even(from.add(2 * at)) };
            simd.store(to.add(at), simd.and(elements, masks.add(at)));
        }
        at += S::LANES;
    }
    at
}

/// Of the input that a tap of the first output reads: its phase, and its position among those of its phase.
fn place(axis: &Axis, split: bool, tap: usize) -> (usize, usize) {
    let shift = tap * axis.dilation;
    if split { (shift, 0) } else { (shift % axis.stride, shift / axis.stride) }
}
