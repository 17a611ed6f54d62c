//! Windows of three by three on small maps, by products of 16 bits: two rows of outputs together, a column at a time, so
//! that where they begin and what their weights are is found out once for both, and one is summed while sums of the other
//! are under way. (Four rows have more sums than there are registers.) Maps so small have many channels, which are what
//! workers share.

use std::ops::Range;

use dlis_backend::{Parallel, TensorSpec};
use dlis_model::Conv2d;

use super::super::output::Tensors;
use super::super::simd::{Dot, DotWork};
use super::columns::{dot, weights_of};
use super::lines::SIDE;
use super::{PreparedDepthwise, columns};

/// Columns of a map, at most: of more, its rows are long enough by themselves.
const MAX_WIDTH: usize = 4;
/// Rows of a strip.
const ROWS: usize = 2;
/// Vectors of channels of a task.
const VECTORS: usize = 8;

/// Whether a layer is computed so.
pub(super) fn suits<D: Dot>(conv: &Conv2d, from: &TensorSpec, to: &TensorSpec) -> bool {
    let same = conv.window.stride == [1; 2] && conv.window.padding == [1; 4];
    same && columns::suits::<D>(conv, from) && to.width <= MAX_WIDTH && to.height.is_multiple_of(ROWS)
}

/// Runs a layer that [`suits`].
pub(super) fn run<D: Dot>(
    prepared: &PreparedDepthwise<D>,
    input: &[u8],
    tensors: &Tensors<'_>,
    parallel: Parallel<'_>,
) {
    let (to, each) = (&prepared.to, VECTORS * D::LANES);
    let blocks = to.channels.div_ceil(each);
    parallel.for_each(to.batch * to.height / ROWS * blocks, |_, tasks| {
        for task in tasks {
            let channels = task % blocks * each..to.channels.min((task % blocks + 1) * each);
            let first = task / blocks * ROWS;
            prepared.dot.vectorize(Strip { prepared, input, tensors, first, channels });
        }
    });
}

/// Some channels of a few rows of outputs.
struct Strip<'a, D> {
    prepared: &'a PreparedDepthwise<D>,
    input: &'a [u8],
    tensors: &'a Tensors<'a>,
    /// The first row, counted over the whole batch.
    first: usize,
    channels: Range<usize>,
}

impl<P: Dot> DotWork for Strip<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let PreparedDepthwise { from, to, .. } = self.prepared;
        let expected = from.batch * from.height * from.width * to.channels;
        assert_eq!(self.input.len(), expected, "input of the operation");
        for channel in self.channels.clone().step_by(D::LANES) {
            self.vector(d, channel);
        }
    }
}

impl<P: Dot> Strip<'_, P> {
    /// Computes one vector of channels of the rows.
    #[inline(always)]
    fn vector<D: Dot>(&self, d: D, channel: usize) {
        let PreparedDepthwise { from, to, output, padding, .. } = self.prepared;
        let weights = weights_of(d, self.prepared, channel);
        let (image, y) = (self.first / to.height, self.first % to.height);
        let outside = padding.as_slice()[channel..][..D::LANES].as_ptr();
        // Of the rows that the strip's windows read, where the next column is and how far the one after it: a row in the
        // padding is the same throughout.
        let mut lines = [(outside, 0); ROWS + SIDE - 1];
        for (tap, line) in lines.iter_mut().enumerate() {
            // Above the map the difference wraps to a huge number, which the comparison rules out.
            let row = (y + tap).wrapping_sub(1);
            if row < from.height {
                let at = (image * from.height + row) * from.width * to.channels + channel;
                *line = (self.input[at..].as_ptr(), to.channels);
            }
        }
        // SAFETY: there are constants for each channel, and these are whole vectors.
        let start = unsafe { output.start(d, channel) };
        // Of each row the sums of the window whose last column is next, and of the one after it.
        let mut waiting = [[start; 2]; ROWS];
        // The column before the first, which is padding in all rows.
        // SAFETY: the padding has a vector of channels from there on.
        let edge = unsafe { [d.pairs([outside; 2]), d.bytes(outside)] };
        for waiting in &mut waiting {
            waiting[1] = dot(d, start, edge, weights[0]);
        }
        // Sums wait for those of their row: neighbours are finished together.
        let mut done = [[[start]; MAX_WIDTH + 1]; ROWS];
        for x in 0..=to.width.min(MAX_WIDTH) {
            for (row, (waiting, done)) in waiting.iter_mut().zip(&mut done).enumerate() {
                let mut column = edge;
                if x < to.width {
                    let [(upper, _), (middle, _), (lower, _)] = [lines[row], lines[row + 1], lines[row + 2]];
                    // SAFETY: each line has the columns of a row, of whole vectors of channels, and the padding one such.
                    column = unsafe { [d.pairs([upper, middle]), d.bytes(lower)] };
                }
                done[x] = [dot(d, waiting[0], column, weights[2])];
                *waiting = [dot(d, waiting[1], column, weights[1]), dot(d, start, column, weights[0])];
            }
            for (next, step) in &mut lines {
                *next = next.wrapping_add(*step);
            }
        }
        for (row, done) in (self.first..).zip(&done) {
            let at = row * to.width * to.channels + channel;
            // The first is of a window before the map.
            match done[1..=to.width] {
                [a, b, c, e] => self.store(d, [a, b, c, e], channel, at),
                [a, b, c] => self.store(d, [a, b, c], channel, at),
                [a, b] => self.store(d, [a, b], channel, at),
                [a] => self.store(d, [a], channel, at),
                _ => unreachable!("maps are of {MAX_WIDTH} columns at most"),
            }
        }
    }

    /// Finishes neighbouring pixels of a vector of channels, the first at `at`.
    #[inline(always)]
    fn store<D: Dot, const N: usize>(&self, d: D, sums: [[D::Ints; 1]; N], channel: usize, at: usize) {
        let PreparedDepthwise { to, output, .. } = self.prepared;
        // SAFETY: there are constants for each channel, and these are whole vectors; rows and channels of the output belong
        // to one task each.
        unsafe { output.store(d, self.tensors, sums, channel, at, to.channels, D::LANES) };
    }
}
