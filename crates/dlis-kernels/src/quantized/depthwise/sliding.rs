//! Windows of three by three that slide along a row: a lane holds the last four bytes of its channel in each of the three
//! rows, so that one load a row brings the next column, and one step takes a row's three taps.

use std::ops::Range;

use dlis_backend::TensorSpec;
use dlis_model::Conv2d;

use super::super::output::Tensors;
use super::super::simd::{Dot, DotWork};
use super::PreparedDepthwise;
use super::lines::{self, Lines, SIDE};

/// Bytes of the weights of a channel: a row's taps are the last of a lane's four bytes.
pub(super) const BYTES: usize = 4 * SIDE;
/// Pixels finished together.
const PIXELS: usize = 4;
/// Least columns of an output. With fewer, what the first pixel needs outweighs the others' gain, and the weights, which
/// take a third more, count: such layers have many channels.
const MIN_WIDTH: usize = 8;

/// Whether a layer's windows slide.
pub(super) fn slides<D: Dot>(conv: &Conv2d, from: &TensorSpec, to: &TensorSpec) -> bool {
    lines::suits::<D>(conv, from) && to.width >= MIN_WIDTH
}

/// Where the weight of a tap of a channel lies.
pub(super) fn place<D: Dot>(channel: usize, tap: usize) -> usize {
    let (vector, lane) = (channel / D::LANES, channel % D::LANES);
    ((vector * SIDE + tap / SIDE) * D::LANES + lane) * 4 + 1 + tap % SIDE
}

/// Rows of output pixels, counted over the whole batch.
pub(super) struct Rows<'a, D> {
    pub(super) prepared: &'a PreparedDepthwise<D>,
    pub(super) input: &'a [u8],
    pub(super) tensors: &'a Tensors<'a>,
    pub(super) rows: Range<usize>,
}

impl<P: Dot> DotWork for Rows<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let PreparedDepthwise { conv, from, to, .. } = self.prepared;
        let expected = from.batch * from.height * from.width * to.channels;
        assert_eq!(self.input.len(), expected, "input of the operation");
        for channel in (0..to.channels).step_by(D::LANES) {
            for row in self.rows.clone() {
                match conv.window.stride[1] {
                    1 => self.row::<D, 1>(d, channel, row),
                    _ => self.row::<D, 2>(d, channel, row),
                }
            }
        }
    }
}

impl<P: Dot> Rows<'_, P> {
    /// Computes one vector of channels of a row.
    #[inline(always)]
    fn row<D: Dot, const STRIDE: usize>(&self, d: D, channel: usize, row: usize) {
        let PreparedDepthwise { to, weights, .. } = self.prepared;
        let of_vector = &weights.as_slice()[channel * BYTES..][..D::LANES * BYTES];
        // SAFETY: a vector of channels has the weights of three rows.
        let weights = unsafe {
            let first = of_vector.as_ptr().cast::<i8>();
            [d.weights(first), d.weights(first.add(4 * D::LANES)), d.weights(first.add(8 * D::LANES))]
        };
        let lines = Lines::new(self.prepared, self.input, (channel, D::LANES), self.prepared.place_of(row));
        let mut slide = Slide { lines, bytes: [d.splat_int(0); SIDE] };
        // SAFETY: each line has the columns of a row, of whole vectors of channels, and the padding one such.
        unsafe {
            for _ in STRIDE..SIDE {
                slide.push(d);
            }
            let mut x = 0;
            while x + PIXELS <= to.width {
                self.pixels::<D, STRIDE, PIXELS>(d, channel, row * to.width + x, &weights, &mut slide);
                x += PIXELS;
            }
            while x < to.width {
                self.pixels::<D, STRIDE, 1>(d, channel, row * to.width + x, &weights, &mut slide);
                x += 1;
            }
        }
    }

    /// Computes the next pixels, of which the first has this index over the whole batch.
    ///
    /// # Safety
    ///
    /// As [`Slide::push`].
    #[inline(always)]
    unsafe fn pixels<D: Dot, const STRIDE: usize, const N: usize>(
        &self,
        d: D,
        channel: usize,
        pixel: usize,
        weights: &[D::Weights; SIDE],
        slide: &mut Slide<'_, D>,
    ) {
        let PreparedDepthwise { to, output, .. } = self.prepared;
        // SAFETY: there are constants for each channel, and these are whole vectors.
        let mut sums = [[unsafe { output.start(d, channel) }]; N];
        for [sum] in &mut sums {
            for _ in 0..STRIDE {
                // SAFETY: passed on.
                unsafe { slide.push(d) };
            }
            for (bytes, &weights) in slide.bytes.iter().zip(weights) {
                *sum = d.dot(*sum, d.quads(*bytes), weights);
            }
        }
        // SAFETY: as above; rows of the output belong to one task each.
        unsafe { output.store(d, self.tensors, sums, channel, pixel * to.channels + channel, to.channels, D::LANES) };
    }
}

/// What a window has come to see of a vector of channels.
struct Slide<'a, D: Dot> {
    lines: Lines<'a>,
    /// The last four columns of each row, the oldest in the lowest byte.
    bytes: [D::Ints; SIDE],
}

impl<D: Dot> Slide<'_, D> {
    /// Takes in the next column.
    ///
    /// # Safety
    ///
    /// A vector must be readable at each of the columns of each line, and in the padding.
    #[inline(always)]
    unsafe fn push(&mut self, d: D) {
        for (place, bytes) in self.lines.next().into_iter().zip(&mut self.bytes) {
            // SAFETY: by the caller's promise.
            *bytes = d.push(*bytes, unsafe { d.bytes(place) });
        }
    }
}
