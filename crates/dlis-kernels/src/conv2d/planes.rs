//! An image laid out so that every tap of a window reads it in one straight run.

use std::ops::Range;

use dlis_backend::Parallel;

use crate::axis::Axis;

/// Most elements of a padded image, a gibibyte of them: an image that fits memory cannot be made to
/// demand any amount of scratch by its padding alone.
const MAX_LEN: usize = 1 << 28;
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
    channels: usize,
    /// Rows and columns of a plane that some output reads.
    extents: [usize; 2],
    /// Rows and columns modulo the stride that some tap reads.
    phases: [Vec<usize>; 2],
    /// From one row to the next.
    pitch: usize,
    /// Elements of one phase of one channel.
    plane: usize,
    /// Elements from the first to the last output of a plane, at this pitch.
    sums: usize,
    /// Whether the image already is laid out so, and is not copied.
    in_place: bool,
}

impl Planes {
    /// The layout for a window of these axes; `None` if it would be too large.
    pub(crate) fn new(axes: [Axis; 2], channels: usize) -> Option<Self> {
        let phases = axes.map(|axis| {
            let mut phases: Vec<usize> = (0..axis.kernel.min(axis.stride)).map(|tap| phase(&axis, tap).0).collect();
            phases.sort_unstable();
            phases.dedup();
            phases
        });
        let extents = axes.map(|axis| axis.output + phase(&axis, axis.kernel - 1).1);
        let columns = extents[1];
        let margins = |of: fn(Range<usize>, usize) -> usize| {
            phases[1].iter().map(|&p| of(axes[1].positions(p, columns), columns)).min().unwrap_or(0)
        };
        let shared = margins(|inside, _| inside.start).min(margins(|inside, columns| columns - inside.end));
        let pitch = columns - shared;
        let in_place =
            axes.iter().all(|axis| axis.stride == 1 && axis.before == 0) && extents == axes.map(|axis| axis.input);
        let sums = (axes[0].output - 1).checked_mul(pitch)?.checked_add(axes[1].output)?;
        let last = phase(&axes[0], axes[0].kernel - 1).1.checked_mul(pitch)? + phase(&axes[1], axes[1].kernel - 1).1;
        let sums = if in_place { sums } else { sums.next_multiple_of(STEP) };
        let plane = last.checked_add(sums)?;
        let len = plane.checked_mul(phases[0].len())?.checked_mul(phases[1].len())?.checked_mul(channels)?;
        (len <= MAX_LEN).then_some(Self { axes, channels, extents, phases, pitch, plane, sums, in_place })
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
        let place = |axis: usize, phase: usize| self.phases[axis].iter().take_while(|&&p| p != phase).count();
        let mut offsets = Vec::with_capacity(channels * rows.kernel * columns.kernel);
        for channel in 0..channels {
            for ky in 0..rows.kernel {
                for kx in 0..columns.kernel {
                    let ((row_phase, y), (column_phase, x)) = (phase(rows, ky), phase(columns, kx));
                    let plane = place(0, row_phase) * self.phases[1].len() + place(1, column_phase);
                    offsets.push(channel * self.channel() + plane * self.plane + y * self.pitch + x);
                }
            }
        }
        offsets
    }

    /// The image laid out in `padded`, or the image itself where nothing is to be done.
    pub(crate) fn fill<'a>(&self, image: &'a [f32], padded: &'a mut [f32], parallel: Parallel<'_>) -> &'a [f32] {
        if self.in_place {
            return image;
        }
        let [rows, columns] = &self.axes;
        let [row_phases, column_phases] = &self.phases;
        parallel.for_each_row(padded, self.channel(), |_, first, channels| {
            channels.fill(0.0);
            for (index, plane) in channels.chunks_mut(self.plane).enumerate() {
                let column_phase = column_phases[index % column_phases.len()];
                let index = index / column_phases.len();
                let row_phase = row_phases[index % row_phases.len()];
                let channel = first + index / row_phases.len();
                let image = &image[channel * rows.input * columns.input..][..rows.input * columns.input];
                let inside = columns.positions(column_phase, self.extents[1]);
                if inside.is_empty() {
                    continue;
                }
                let left = inside.start * columns.stride + column_phase - columns.before;
                for row in rows.positions(row_phase, self.extents[0]) {
                    let y = row * rows.stride + row_phase - rows.before;
                    let from = &image[y * columns.input + left..(y + 1) * columns.input];
                    let to = &mut plane[row * self.pitch..][inside.clone()];
                    if columns.stride == 1 {
                        to.copy_from_slice(&from[..to.len()]);
                    } else {
                        to.iter_mut().zip(from.iter().step_by(columns.stride)).for_each(|(to, &from)| *to = from);
                    }
                }
            }
        });
        padded
    }

    /// Lays out images side by side: at each place the `count` images' elements are neighbours, zeros where
    /// there are fewer images.
    pub(crate) fn interleave(&self, images: &[f32], count: usize, padded: &mut [f32], parallel: Parallel<'_>) {
        let [rows, columns] = &self.axes;
        let phases = [self.phases[0].len(), self.phases[1].len()];
        parallel.for_each_row(padded, self.channel() * count, |_, first, channels| {
            channels.fill(0.0);
            for (index, plane) in channels.chunks_mut(self.plane * count).enumerate() {
                let (row_phase, column_phase) =
                    (self.phases[0][index / phases[1] % phases[0]], self.phases[1][index % phases[1]]);
                let channel = first + index / (phases[0] * phases[1]);
                let inside = columns.positions(column_phase, self.extents[1]);
                for row in rows.positions(row_phase, self.extents[0]) {
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

/// Of the input that a tap of the first output reads: its phase, and its position among those of its phase.
fn phase(axis: &Axis, tap: usize) -> (usize, usize) {
    let shift = tap * axis.dilation;
    (shift % axis.stride, shift / axis.stride)
}
