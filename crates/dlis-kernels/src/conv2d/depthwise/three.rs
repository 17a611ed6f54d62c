//! Windows of three by three without gaps, at stride 1 or 2, on whole vectors of channels: what such layers nearly
//! always are.
//!
//! Away from the borders no tap reads padding, so that nothing is looked up: neighbouring outputs share the vectors
//! of the input that lie in both their windows. At the borders the taps in the padding are left out.

use std::ops::Range;

use dlis_backend::TensorSpec;
use dlis_model::Conv2d;

use super::Row;
use crate::axis::Axis;
use crate::simd::Simd;

/// Taps of an axis.
const TAPS: usize = 3;

/// The two axes of such a window.
#[derive(Clone, Debug)]
pub(super) struct Three {
    axes: [Axis; 2],
    /// The columns of the output that read no padding.
    inside: Range<usize>,
}

impl Three {
    /// The walk for vectors of this level, if the window is of that kind.
    pub(super) fn of<S: Simd>(conv: &Conv2d, input: &TensorSpec, output: &TensorSpec) -> Option<Self> {
        let axes = Axis::both(&conv.window, input, output);
        let stride = axes[0].stride;
        let fits = |axis: &Axis| axis.kernel == TAPS && axis.dilation == 1 && axis.stride == stride;
        let whole = output.channels.is_multiple_of(S::LANES) && input.channels == output.channels;
        if !(axes.iter().all(fits) && stride <= 2 && whole) {
            return None;
        }
        let inside = axes[1].inside();
        Some(Self { axes, inside })
    }

    /// Of both axes.
    pub(super) fn stride(&self) -> usize {
        self.axes[0].stride
    }
}

/// Neighbouring outputs of a row, and what they read.
struct Run {
    /// The first output's column.
    x: usize,
    /// Where the first tap finds its input.
    from: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<P: Simd> Row<'_, P> {
    /// Computes the row.
    #[inline(always)]
    pub(super) fn three<S: Simd, const STRIDE: usize>(&mut self, simd: S, three: &Three) {
        let output = &self.prepared.output;
        let (image, y) = (self.row / output.height, self.row % output.height);
        let [rows, columns] = &three.axes;
        let taken = rows.taps(y);
        let mut x = 0;
        while x < output.width {
            let taps = columns.taps(x);
            let mut from = 0;
            if !(taken.is_empty() || taps.is_empty()) {
                let (y, x) = (rows.source(y, taken.start), columns.source(x, taps.start));
                from = ((image * rows.input + y) * columns.input + x) * output.channels;
            }
            let run = Run { x, from, rows: taken.clone(), columns: taps };
            let left = if three.inside.contains(&x) { three.inside.end - x } else { 0 };
            // As many sums and inputs as there are registers for.
            x += match left {
                0 => self.edge(simd, &run),
                8.. if S::REGISTERS >= 32 => self.inside::<S, STRIDE, 8>(simd, &run),
                4.. => self.inside::<S, STRIDE, 4>(simd, &run),
                2.. => self.inside::<S, STRIDE, 2>(simd, &run),
                _ => self.inside::<S, STRIDE, 1>(simd, &run),
            };
        }
        self.finish_sigmoid();
    }

    /// `N` outputs that read no padding left or right. Returns how many those are.
    #[inline(always)]
    fn inside<S: Simd, const STRIDE: usize, const N: usize>(&mut self, simd: S, run: &Run) -> usize {
        let channels = self.prepared.output.channels;
        let pitch = self.prepared.input.width * channels;
        let last = ((N - 1) * STRIDE + TAPS - 1) * channels;
        let rows = run.rows.len();
        assert!(rows == 0 || run.from + (rows - 1) * pitch + last + channels <= self.input.len(), "rows of the input");
        assert!(self.weights.len() >= channels * TAPS * TAPS && self.prepared.bias.f32().len() >= channels);
        for channel in (0..channels).step_by(S::LANES) {
            // SAFETY: `channel + LANES <= channels`, so all reads are below what was just checked.
            let sums = unsafe {
                let mut sums = [simd.load(self.prepared.bias.f32().as_ptr().add(channel)); N];
                let mut from = self.input.as_ptr().wrapping_add(run.from + channel);
                for tap_y in run.rows.clone() {
                    let weights = self.weights.as_ptr().add((channel * TAPS + tap_y * S::LANES) * TAPS);
                    let weights = [0, 1, 2].map(|tap: usize| simd.load(weights.add(tap * S::LANES)));
                    for (pixel, sum) in sums.iter_mut().enumerate() {
                        for (tap_x, &weight) in weights.iter().enumerate() {
                            let x = simd.load(from.add((pixel * STRIDE + tap_x) * channels));
                            *sum = simd.mul_add(x, weight, *sum);
                        }
                    }
                    from = from.wrapping_add(pitch);
                }
                sums
            };
            self.put(simd, run.x * channels + channel, sums);
        }
        N
    }

    /// One output that reads padding. Returns that it is one.
    #[inline(always)]
    fn edge<S: Simd>(&mut self, simd: S, run: &Run) -> usize {
        let channels = self.prepared.output.channels;
        let pitch = self.prepared.input.width * channels;
        for channel in (0..channels).step_by(S::LANES) {
            // SAFETY: `channel + LANES <= channels`, of which bias and each pixel of the input have as many.
            let mut sum = unsafe { simd.load(self.prepared.bias.f32()[channel..channel + S::LANES].as_ptr()) };
            for (line, tap_y) in run.rows.clone().enumerate() {
                for (pixel, tap_x) in run.columns.clone().enumerate() {
                    let from = run.from + line * pitch + pixel * channels + channel;
                    let weight = channel * TAPS * TAPS + (tap_y * TAPS + tap_x) * S::LANES;
                    // SAFETY: each slice is one vector.
                    sum = unsafe {
                        let weight = simd.load(self.weights[weight..weight + S::LANES].as_ptr());
                        simd.mul_add(simd.load(self.input[from..from + S::LANES].as_ptr()), weight, sum)
                    };
                }
            }
            self.put(simd, run.x * channels + channel, [sum]);
        }
        1
    }
}
