//! An image as whole lines of vectors, and by how much the sums of each tap are off.

use dlis_backend::{OpSpec, Parallel};
use dlis_model::Conv2d;

use super::super::planes::take_every;
use super::super::sparse::QUAD;
use crate::axis::Axis;
use crate::simd::{MOST_LANES, Simd, Work};

/// Columns by which sums are moved, at most: one after the other.
const MOST_COLUMNS: isize = 3;
/// Most taps of a window, each of which is looked up: no layer has more, but a stranger's file may.
const MOST_TAPS: usize = 1 << 10;
/// Most elements of a channel's planes: places within them are stored in 16 bits.
const MAX_CHANNEL: usize = 1 << 16;
/// Most vectors of a plane whose rows are moved: sums are found in any of them.
pub(super) const MOST_MOVED: usize = 2;
/// Most lanes of such a plane times the vectors that each may take its sum from.
const MOST_SOURCES: usize = MOST_LANES * MOST_MOVED;
/// Most elements of all planes: an image that fits memory cannot be made to demand any amount of scratch by its padding.
pub(super) const MAX_LEN: usize = 1 << 28;

/// Where a tap finds the input of the output at 0: `input[output * stride + phase]`, were the output `shift` further on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tap {
    phase: usize,
    shift: isize,
}

impl Tap {
    /// `None` if it is further off than any layer's, but maybe not than a stranger's.
    fn of(axis: &Axis, tap: usize) -> Option<Self> {
        let at =
            isize::try_from(tap.checked_mul(axis.dilation)?).ok()?.checked_sub(isize::try_from(axis.before).ok()?)?;
        let stride = isize::try_from(axis.stride).ok()?;
        Some(Self { phase: at.rem_euclid(stride).unsigned_abs(), shift: at.div_euclid(stride) })
    }

    fn all(axis: &Axis) -> Option<Vec<Self>> {
        (0..axis.kernel).map(|tap| Self::of(axis, tap)).collect()
    }
}

/// How the sums of some taps become those of the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    /// Each is that of the output so many columns before it on its line; what comes from beyond the line is zero.
    Columns(isize),
    /// `[vector][vector that it takes sums from][lane]`: each lane is the lane of this number; from the number of lanes on,
    /// zero. Of several vectors that it may take its sum from, at most one has it.
    Lanes([u32; MOST_SOURCES]),
}

/// The lines of an image's planes. Each is as long as a line of outputs and consists of whole vectors, so that these lie
/// within cache lines: no padding comes between lines. Above and below are lines of zeros.
///
/// Or a plane is one vector, or two of at most eight lanes, or four elements, without any padding: then rows are moved as
/// columns are. Or windows are of one pixel, and lines have no meaning.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    axes: [Axis; 2],
    channels: usize,
    /// Rows and columns modulo the stride that some tap reads: a plane each.
    phases: [Vec<usize>; 2],
    /// Lines of zeros before the first of a plane.
    above: usize,
    /// Lines of a plane, those of zeros among them.
    lines: usize,
    /// Elements of a line.
    width: usize,
    /// Whether the image is laid out so already.
    in_place: bool,
    /// Vectors of a line; 1 where lines have no meaning.
    pub(super) of_line: usize,
    /// Vectors of the sums of a plane of outputs.
    pub(super) vectors: usize,
    /// Entries whose sums a vector holds side by side: 1, or where planes are of four outputs as many as have room.
    pub(super) abreast: usize,
    /// Of the taps that are summed together: how their sums become the outputs'.
    pub(super) shifts: Vec<Shift>,
    /// Of each tap of a window: which of those, and its place within the planes of a channel.
    pub(super) taps: Vec<(usize, usize)>,
}

impl Lines {
    /// For vectors of so many lanes, of which a tile has so many at most, and entries abreast if that is wanted.
    ///
    /// # Errors
    ///
    /// Why there are no such lines.
    pub(super) fn new(
        op: &OpSpec,
        conv: &Conv2d,
        (lanes, most): (usize, usize),
        abreast: bool,
    ) -> Result<Self, &'static str> {
        const FAR: &str = "its window reaches too far";
        let axes = Axis::both(&conv.window, &op.inputs[0], &op.output);
        let [rows, columns] = axes;
        if rows.kernel.checked_mul(columns.kernel).is_none_or(|taps| taps > MOST_TAPS) {
            return Err(FAR);
        }
        let (Some(row_taps), Some(column_taps)) = (Tap::all(&rows), Tap::all(&columns)) else { return Err(FAR) };
        let same = axes.iter().all(|axis| axis.stride == 1 && axis.input == axis.output);
        let pixels = op.output.pixels();
        let flat = conv.window.is_pointwise() && same && pixels.is_multiple_of(lanes);
        let whole = columns.output.is_multiple_of(lanes) && matches!(columns.output / lanes, 1 | 2 | 4 | 8);
        let whole = whole && columns.output / lanes <= most;
        let abreast = if pixels == QUAD && abreast { lanes / QUAD } else { 1 };
        let moved = pixels * abreast;
        let two = moved == 2 * lanes && moved * MOST_MOVED <= MOST_SOURCES && most >= MOST_MOVED;
        if !flat && !whole && moved != lanes && !two {
            return Err(
                "its lines are not one, two, four or eight vectors, nor its planes one or two, or four elements",
            );
        }
        // What lies behind a plane's last column, or row where rows are moved as well, must be padding.
        let ends = |axis: &Axis, taps: &[Tap]| {
            taps.iter().all(|tap| tap.shift <= 0 || axis.output.saturating_mul(axis.stride) + tap.phase >= axis.input)
        };
        if !ends(&columns, &column_taps) || !(whole || ends(&rows, &row_taps)) {
            return Err("it reads input behind that of its last output");
        }
        let phases = [&row_taps, &column_taps].map(|taps| {
            let mut phases: Vec<usize> = taps.iter().map(|tap| tap.phase).collect();
            phases.sort_unstable();
            phases.dedup();
            phases
        });
        // Rows are found at another place where lines are whole vectors.
        let moves_rows = !flat && !whole;
        let reach =
            |of: fn(isize) -> isize| row_taps.iter().map(|tap| of(tap.shift)).max().unwrap_or(0).max(0).unsigned_abs();
        let (above, below) = if moves_rows { (0, 0) } else { (reach(|shift| -shift), reach(|shift| shift)) };
        let lines = rows.output.checked_add(above).and_then(|lines| lines.checked_add(below)).ok_or(FAR)?;
        let plane = lines.checked_mul(columns.output).ok_or(FAR)?;
        let channel = plane.checked_mul(phases[0].len()).and_then(|all| all.checked_mul(phases[1].len())).ok_or(FAR)?;
        let len = channel.checked_mul(conv.in_channels).filter(|&len| channel <= MAX_CHANNEL && len <= MAX_LEN);
        // Entries that fill a vector up read the zeros behind the last channel.
        let len = len.filter(|len| abreast == 1 || len + QUAD <= MAX_CHANNEL);
        if len.is_none() || column_taps.iter().any(|tap| whole && tap.shift.abs() > MOST_COLUMNS) {
            return Err(FAR);
        }
        let mut shifts = Vec::new();
        let mut taps = Vec::with_capacity(row_taps.len() * column_taps.len());
        for row in &row_taps {
            for column in &column_taps {
                let shift = if moves_rows && (row.shift, column.shift) != (0, 0) {
                    Shift::Lanes(lanes_from([rows.output, columns.output], [row.shift, column.shift], lanes))
                } else {
                    Shift::Columns(column.shift)
                };
                let class = shifts.iter().position(|&other| other == shift).unwrap_or_else(|| {
                    shifts.push(shift);
                    shifts.len() - 1
                });
                let index = |axis: usize, phase| phases[axis].iter().take_while(|&&other| other != phase).count();
                let line = if moves_rows { 0 } else { above.saturating_add_signed(row.shift) };
                let phase = index(0, row.phase) * phases[1].len() + index(1, column.phase);
                taps.push((class, phase * plane + line * columns.output));
            }
        }
        Ok(Self {
            axes,
            channels: conv.in_channels,
            phases,
            above,
            lines,
            width: columns.output,
            in_place: same && above + below == 0 && abreast == 1,
            of_line: if whole && !flat { columns.output / lanes } else { 1 },
            vectors: (pixels / lanes).max(1),
            abreast,
            shifts,
            taps,
        })
    }

    /// Elements of the planes of a channel.
    pub(super) fn channel(&self) -> usize {
        self.lines * self.width * self.phases[0].len() * self.phases[1].len()
    }

    /// Elements of a channel that a tile of so many vectors of these lanes reads.
    pub(super) fn read_of_channel(&self, vectors: usize, lanes: usize) -> usize {
        let padding = self.lines - self.axes[0].output;
        (vectors * lanes + padding * self.width).min(self.lines * self.width) * self.channel()
            / (self.lines * self.width)
    }

    /// Elements of one image.
    pub(super) fn image_len(&self) -> usize {
        self.channels * self.axes[0].input * self.axes[1].input
    }

    /// Elements of all planes.
    pub(super) fn planes_len(&self) -> usize {
        self.channels * self.channel()
    }

    /// Elements of all planes and the zeros behind them; 0 where the image is used as it is.
    pub(super) fn scratch_len(&self) -> usize {
        let zeros = if self.abreast > 1 { QUAD } else { 0 };
        if self.in_place { 0 } else { self.planes_len() + zeros }
    }

    /// The image laid out in `planes`, or the image itself where it is already; `parallel` shares the work where it is given.
    pub(super) fn lay_out<'a>(
        &self,
        simd: impl Simd,
        image: &'a [f32],
        planes: &'a mut [f32],
        parallel: Option<Parallel<'_>>,
    ) -> &'a [f32] {
        if self.in_place {
            return image;
        }
        let (channels, zeros) = planes.split_at_mut(self.planes_len());
        zeros.fill(0.0);
        match parallel {
            None => simd.vectorize(LayOut { lines: self, image, first: 0, channels }),
            Some(parallel) => parallel.for_each_row(channels, self.channel(), |_, first, channels| {
                simd.vectorize(LayOut { lines: self, image, first, channels });
            }),
        }
        planes
    }
}

/// Where each lane of planes of these extents, one or several in a vector, or one in two, takes its sum from, so many rows
/// and columns further on, as [`Shift::Lanes`] says.
fn lanes_from(extents: [usize; 2], shift: [isize; 2], lanes: usize) -> [u32; MOST_SOURCES] {
    let [height, width] = extents;
    let vectors = (height * width).div_ceil(lanes);
    std::array::from_fn(|index| {
        let (to, of, lane) = (index / (lanes * vectors), index / lanes % vectors, index % lanes);
        let output = to * lanes + lane;
        let plane = output / (height * width) * (height * width);
        let row = (output % (height * width) / width).checked_add_signed(shift[0]).filter(|&row| row < height);
        let column = (output % width).checked_add_signed(shift[1]).filter(|&column| column < width);
        let from = row.zip(column).map(|(row, column)| plane + row * width + column);
        let from = from.filter(|from| from / lanes == of).map_or(lanes, |from| from % lanes);
        // Vectors that there are not are not read.
        u32::try_from(from).unwrap_or(0)
    })
}

/// Channels to be laid out.
struct LayOut<'a> {
    lines: &'a Lines,
    image: &'a [f32],
    first: usize,
    channels: &'a mut [f32],
}

impl Work for LayOut<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let Self { lines, image, first, channels } = self;
        let Lines { axes: [rows, columns], phases, above, width, .. } = lines;
        let pixels = rows.input * columns.input;
        for (channel, planes) in (first..).zip(channels.chunks_exact_mut(lines.channel())) {
            let image = &image[channel * pixels..][..pixels];
            let each = phases[0].iter().flat_map(|row| phases[1].iter().map(move |column| (*row, *column)));
            for ((row, column), plane) in each.zip(planes.chunks_exact_mut(lines.lines * width)) {
                // The lines that are not of zeros.
                let count = rows.input.saturating_sub(row).div_ceil(rows.stride);
                let inside = *above..(above + count).min(lines.lines);
                plane[..above * width].fill(0.0);
                plane[inside.end * width..].fill(0.0);
                if rows.stride == 1 && columns.stride == 1 && columns.input == *width {
                    plane[inside.start * width..inside.end * width].copy_from_slice(&image[..inside.len() * width]);
                    continue;
                }
                let lines = plane[inside.start * width..inside.end * width].chunks_exact_mut(*width);
                for (line, to) in lines.enumerate() {
                    let from = &image[(line * rows.stride + row) * columns.input..][..columns.input];
                    take_every(from.get(column..).unwrap_or(&[]), columns.stride, to);
                }
            }
        }
    }
}
