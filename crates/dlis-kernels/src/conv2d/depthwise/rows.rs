//! Windows of three by three, padded by one, on planes whose rows are whole vectors, or that are a vector altogether:
//! what such layers nearly always are. Every input is loaded once, and what its neighbours read of it is moved in
//! registers.

use dlis_backend::TensorSpec;
use dlis_model::{Conv2d, Window};

use super::planes::Outputs;
use crate::simd::Simd;

/// Taps of an axis.
const TAPS: usize = 3;
/// Taps of the window.
pub(super) const ALL: usize = TAPS * TAPS;

/// How such a plane is walked.
#[derive(Clone, Debug)]
pub(super) enum Walk {
    /// Row by row, each of so many vectors of outputs.
    Rows { vectors: usize, stride: usize },
    /// As the one vector that it is. `[tap][lane]`: the lane that an output reads, or one that is not there.
    Whole { lanes: Vec<u32> },
}

impl Walk {
    /// That for vectors of this level, if there is one.
    pub(super) fn of<S: Simd>(conv: &Conv2d, input: &TensorSpec, output: &TensorSpec) -> Option<Self> {
        let stride = conv.window.stride[0];
        let usual = conv.window == Window::square(TAPS).with_padding(1).with_stride(stride);
        if !(usual && (1..=2).contains(&stride)) {
            return None;
        }
        if input.height != stride * output.height || input.width != stride * output.width {
            return None;
        }
        if stride == 1 && output.pixels() == S::LANES {
            let nowhere = S::LANES;
            let lane = |tap: usize, lane: usize| {
                let (y, x) = (lane / output.width + tap / TAPS, lane % output.width + tap % TAPS);
                let inside = (1..=output.height).contains(&y) && (1..=output.width).contains(&x);
                if inside { (y - 1) * output.width + x - 1 } else { nowhere }
            };
            let lanes = (0..ALL).flat_map(|tap| (0..S::LANES).map(move |at| lane(tap, at)));
            return Some(Self::Whole { lanes: lanes.map(|lane| u32::try_from(lane).unwrap_or(u32::MAX)).collect() });
        }
        let vectors = output.width / S::LANES;
        output.width.is_multiple_of(S::LANES).then_some(Self::Rows { vectors, stride })
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Rows { .. } => 0,
            Self::Whole { lanes } => size_of_val(&lanes[..]),
        }
    }
}

/// A plane, the window's weights, and what its sums start with.
pub(super) struct Plane<'a, V> {
    pub(super) input: &'a [f32],
    pub(super) weights: [V; ALL],
    pub(super) bias: V,
}

impl<V: Copy> Plane<'_, V> {
    /// Computes the outputs of a plane.
    #[inline(always)]
    pub(super) fn walk<S: Simd<Vector = V>>(&self, simd: S, walk: &Walk, to: &mut Outputs<'_>) {
        match walk {
            Walk::Whole { lanes } => to.put(simd, 0..S::LANES, self.whole(simd, lanes)),
            Walk::Rows { vectors, stride } => {
                for at in 0..*vectors {
                    if *stride == 1 {
                        self.rows(simd, *vectors, at, to);
                    } else {
                        self.halves(simd, *vectors, at, to);
                    }
                }
            }
        }
    }

    // Plain loops and methods throughout: closures are not always inlined, and compiled for the baseline if not.

    #[inline(always)]
    fn whole<S: Simd<Vector = V>>(&self, simd: S, lanes: &[u32]) -> V {
        assert!(self.input.len() == S::LANES && lanes.len() == ALL * S::LANES, "a plane of a vector");
        let mut sum = self.bias;
        // SAFETY: both have as many elements as was just checked.
        unsafe {
            let plane = simd.load(self.input.as_ptr());
            for (tap, &weight) in self.weights.iter().enumerate() {
                sum = simd.mul_add(simd.permute(plane, lanes.as_ptr().add(tap * S::LANES)), weight, sum);
            }
        }
        sum
    }

    /// A column of vectors. Each input row is the last of one output's window, the middle of the next's and the first of
    /// the one after.
    #[inline(always)]
    fn rows<S: Simd<Vector = V>>(&self, simd: S, vectors: usize, at: usize, to: &mut Outputs<'_>) {
        let width = vectors * S::LANES;
        let (mut above, mut here) = (self.bias, self.bias);
        for (y, row) in self.input.chunks_exact(width).enumerate() {
            let middle = vector(simd, row, at);
            let x = [
                simd.shift_up(vector(simd, row, at.wrapping_sub(1)), middle),
                middle,
                simd.shift_down(middle, vector(simd, row, at + 1)),
            ];
            let below = self.add(simd, 0, x, self.bias);
            here = self.add(simd, 1, x, here);
            above = self.add(simd, 2, x, above);
            if let Some(y) = y.checked_sub(1) {
                let first = y * width + at * S::LANES;
                to.put(simd, first..first + S::LANES, above);
            }
            (above, here) = (here, below);
        }
        let first = self.input.len() - width + at * S::LANES;
        to.put(simd, first..first + S::LANES, above);
    }

    /// As [`rows`](Self::rows) at stride 2: every second input row is the middle of a window, and those between belong to
    /// two.
    #[inline(always)]
    fn halves<S: Simd<Vector = V>>(&self, simd: S, vectors: usize, at: usize, to: &mut Outputs<'_>) {
        let width = vectors * S::LANES;
        let mut here = self.bias;
        for (y, rows) in self.input.chunks_exact(4 * width).enumerate() {
            let (middle, last) = rows.split_at(2 * width);
            here = self.add(simd, 1, taps_of_half(simd, middle, at), here);
            let last = taps_of_half(simd, last, at);
            here = self.add(simd, 2, last, here);
            let first = y * width + at * S::LANES;
            to.put(simd, first..first + S::LANES, here);
            here = self.add(simd, 0, last, self.bias);
        }
    }

    /// Adds what a row of the window contributes.
    #[inline(always)]
    fn add<S: Simd<Vector = V>>(&self, simd: S, row: usize, x: [V; TAPS], mut sum: V) -> V {
        for (tap, x) in x.into_iter().enumerate() {
            sum = simd.mul_add(x, self.weights[row * TAPS + tap], sum);
        }
        sum
    }
}

/// A vector of a row, of zeros where the row has no such.
#[inline(always)]
fn vector<S: Simd>(simd: S, row: &[f32], at: usize) -> S::Vector {
    match row.get(at.wrapping_mul(S::LANES)..).and_then(|rest| rest.get(..S::LANES)) {
        // SAFETY: it is a vector.
        Some(vector) => unsafe { simd.load(vector.as_ptr()) },
        None => simd.splat(0.0),
    }
}

/// What the taps of a row read for a vector of outputs at stride 2: odd columns, even ones and the odd ones behind.
#[inline(always)]
fn taps_of_half<S: Simd>(simd: S, row: &[f32], at: usize) -> [S::Vector; TAPS] {
    let (even, odd) = simd.unzip(vector(simd, row, 2 * at), vector(simd, row, 2 * at + 1));
    // Of what comes before, the last is wanted alone.
    [simd.shift_up(vector(simd, row, (2 * at).wrapping_sub(1)), odd), even, odd]
}
