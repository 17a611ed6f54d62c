//! Windows of three by three without gaps, at stride 1 or 2, on whole vectors of channels: what such layers nearly
//! always are.
//!
//! A row of the output is computed a vector of channels at a time, whose nine weights stay in registers, column by column of
//! the input: each is loaded once and multiplied for the up to three windows it lies in, whose sums wait for the columns to
//! come. Rows and columns in the padding are left out. Long rows are walked in strips.

use dlis_backend::TensorSpec;
use dlis_model::Conv2d;

use super::Row;
use crate::axis::Axis;
use crate::simd::Simd;

/// Taps of an axis.
const TAPS: usize = 3;
/// Bytes of the input that are walked for one vector of channels after the other: so few that they come into the
/// first-level cache but once. And least outputs, however many bytes those read.
const STRIP_BYTES: usize = 16 << 10;
const MIN_STRIP: usize = 16;

/// The two axes of such a window.
#[derive(Clone, Debug)]
pub(super) struct Three {
    axes: [Axis; 2],
}

impl Three {
    /// The walk for vectors of this level, if the window is of that kind.
    pub(super) fn of<S: Simd>(conv: &Conv2d, input: &TensorSpec, output: &TensorSpec) -> Option<Self> {
        let axes = Axis::both(&conv.window, input, output);
        let stride = axes[0].stride;
        let fits = |axis: &Axis| axis.kernel == TAPS && axis.dilation == 1 && axis.stride == stride;
        let whole = output.channels.is_multiple_of(S::LANES) && input.channels == output.channels;
        (axes.iter().all(fits) && stride <= 2 && whole).then_some(Self { axes })
    }

    /// Of both axes.
    pub(super) fn stride(&self) -> usize {
        self.axes[0].stride
    }
}

impl<P: Simd> Row<'_, P> {
    /// Computes the row.
    #[inline(always)]
    pub(super) fn three<S: Simd, const STRIDE: usize>(&mut self, simd: S, three: &Three) {
        let (image, y) = (self.row / self.prepared.output.height, self.row % self.prepared.output.height);
        let taken = three.axes[0].taps(y);
        let from = if taken.is_empty() { 0 } else { three.axes[0].source(y, taken.start) };
        let first = image * self.prepared.input.height + from;
        match taken.len() {
            3 => self.of_rows::<S, STRIDE, 3>(simd, three, first, taken.start),
            2 => self.of_rows::<S, STRIDE, 2>(simd, three, first, taken.start),
            1 => self.of_rows::<S, STRIDE, 1>(simd, three, first, taken.start),
            _ => self.of_rows::<S, STRIDE, 0>(simd, three, first, taken.start),
        }
        self.finish_sigmoid();
    }

    /// Computes it of `ROWS` rows of the input, of which the first has this index over the whole batch and meets this row of
    /// the window.
    #[inline(always)]
    fn of_rows<S: Simd, const STRIDE: usize, const ROWS: usize>(
        &mut self,
        simd: S,
        three: &Three,
        first: usize,
        tap: usize,
    ) {
        let (input, width, channels) = (self.input, self.prepared.output.width, self.prepared.output.channels);
        let axis = &three.axes[1];
        let pitch = axis.input * channels;
        assert!((first + ROWS) * pitch <= input.len(), "rows of the input");
        assert!(self.weights.len() >= channels * TAPS * TAPS && self.prepared.bias.f32().len() >= channels);
        let strip = (STRIP_BYTES / (TAPS * STRIDE * channels * size_of::<f32>())).max(MIN_STRIP);
        for start in (0..width).step_by(strip) {
            for channel in (0..channels).step_by(S::LANES) {
                let mut weights = [[simd.splat(0.0); TAPS]; ROWS];
                for (row, weights) in weights.iter_mut().enumerate() {
                    for (column, weight) in weights.iter_mut().enumerate() {
                        let at = channel * TAPS * TAPS + ((tap + row) * TAPS + column) * S::LANES;
                        // SAFETY: nine vectors for each of channels, as was checked; `tap + ROWS` is at most `TAPS`.
                        *weight = unsafe { simd.load(self.weights.as_ptr().add(at)) };
                    }
                }
                // SAFETY: checked above.
                let bias = unsafe { simd.load(self.prepared.bias.f32().as_ptr().add(channel)) };
                let from = input.as_ptr().wrapping_add(first * pitch + channel);
                let columns = Columns { from, pitch, channels, axis, weights, bias };
                // Of the window whose last column is next, and of the one after it; at stride 2 of the former alone.
                let mut waiting = [bias; 2];
                for column in 0..TAPS - STRIDE {
                    columns.take::<S, STRIDE>(simd, start * STRIDE + column, &mut waiting);
                }
                for x in start..width.min(start + strip) {
                    if STRIDE == 2 {
                        columns.take_middle(simd, x * STRIDE + 1, &mut waiting[0]);
                    }
                    let sum = columns.take::<S, STRIDE>(simd, x * STRIDE + TAPS - 1, &mut waiting);
                    self.put(simd, x * channels + channel, [sum]);
                }
            }
        }
    }
}

/// What a row of windows reads of a vector of channels, and their weights.
struct Columns<'a, V, const ROWS: usize> {
    /// The first column of the first row.
    from: *const f32,
    /// Elements from one row to the next, and one column to the next.
    pitch: usize,
    channels: usize,
    axis: &'a Axis,
    weights: [[V; TAPS]; ROWS],
    bias: V,
}

impl<V: Copy, const ROWS: usize> Columns<'_, V, ROWS> {
    /// Takes in a column, counted from the first of the padding, that is the last of one window and the first of another, and
    /// at stride 1 the middle one of a third. Returns the sums of the first.
    #[inline(always)]
    fn take<S: Simd<Vector = V>, const STRIDE: usize>(&self, simd: S, column: usize, waiting: &mut [V; 2]) -> V {
        let ([mut done, mut middle], mut begun) = (*waiting, self.bias);
        if let Some(inputs) = self.inputs(simd, column) {
            for (&x, &[first, second, last]) in inputs.iter().zip(&self.weights) {
                done = simd.mul_add(x, last, done);
                begun = simd.mul_add(x, first, begun);
                if STRIDE == 1 {
                    middle = simd.mul_add(x, second, middle);
                }
            }
        }
        *waiting = if STRIDE == 1 { [middle, begun] } else { [begun; 2] };
        done
    }

    /// Takes in the middle column of one window, at stride 2.
    #[inline(always)]
    fn take_middle<S: Simd<Vector = V>>(&self, simd: S, column: usize, waiting: &mut V) {
        if let Some(inputs) = self.inputs(simd, column) {
            for (&x, &[_, second, _]) in inputs.iter().zip(&self.weights) {
                *waiting = simd.mul_add(x, second, *waiting);
            }
        }
    }

    /// A column of the input, unless it lies in the padding.
    #[inline(always)]
    fn inputs<S: Simd<Vector = V>>(&self, simd: S, column: usize) -> Option<[V; ROWS]> {
        // In the padding the difference wraps to a huge number.
        let column = column.wrapping_sub(self.axis.before);
        if column >= self.axis.input {
            return None;
        }
        let mut inputs = [simd.splat(0.0); ROWS];
        for (row, x) in inputs.iter_mut().enumerate() {
            // SAFETY: a vector of one of the columns of `ROWS` rows, all of which lie in the input.
            *x = unsafe { simd.load(self.from.add(row * self.pitch + column * self.channels)) };
        }
        Some(inputs)
    }
}
