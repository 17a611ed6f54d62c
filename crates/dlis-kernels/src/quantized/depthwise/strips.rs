//! Windows of three by three on small maps, by products of 16 bits: two rows of outputs together, a column at a time, so
//! that where they begin and what their weights are is found out once for both, and one is summed while sums of the other
//! are under way. (Four rows have more sums than there are registers.) Maps so small have many channels, which are what
//! workers share.

use std::ops::Range;

use dlis_backend::{Parallel, TensorSpec};
use dlis_model::Conv2d;

use super::super::output::Tensors;
use super::super::simd::{Dot, DotWork};
use super::columns::{Waiting, weights_of};
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
        let place = self.prepared.place_of(self.first);
        for channel in self.channels.clone().step_by(D::LANES) {
            self.vector(d, channel, place);
        }
    }
}

impl<P: Dot> Strip<'_, P> {
    /// Computes one vector of channels of the rows, of which the first is at this place in an image.
    #[inline(always)]
    fn vector<D: Dot>(&self, d: D, channel: usize, [image, y]: [usize; 2]) {
        let Self { prepared, input, first, .. } = *self;
        let to = &prepared.to;
        let weights = weights_of(d, prepared, channel);
        let mut waiting: [Waiting<'_, D>; ROWS] = [
            Waiting::new(d, prepared, input, channel, [image, y]),
            Waiting::new(d, prepared, input, channel, [image, y + 1]),
        ];
        // Sums wait for those of their row: neighbours are finished together.
        let mut done = [[[d.splat_int(0)]; MAX_WIDTH]; ROWS];
        // SAFETY: each line has the columns of a row, of whole vectors of channels, and the padding one such.
        unsafe {
            for _ in 1..SIDE {
                for waiting in &mut waiting {
                    waiting.take::<1>(d, &weights);
                }
            }
            for x in 0..to.width.min(MAX_WIDTH) {
                for (waiting, done) in waiting.iter_mut().zip(&mut done) {
                    done[x] = [waiting.take::<1>(d, &weights)];
                }
            }
        }
        for (row, done) in (first..).zip(&done) {
            let at = row * to.width * to.channels + channel;
            match done[..to.width] {
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
