//! Windows of three by three, a column at a time, by products of 16 bits: for levels that multiply bytes by several
//! instructions.
//!
//! A column's upper two rows are a pair of 16 bits in each lane, the lower row the half of one. They are made once and
//! multiplied for each of the up to three windows that the column lies in, whose sums wait for the columns to come.

use std::ops::Range;

use dlis_backend::TensorSpec;
use dlis_model::Conv2d;

use super::super::output::Tensors;
use super::super::simd::{Dot, DotWork};
use super::PreparedDepthwise;
use super::lines::{Lines, SIDE};

/// Bytes of the weights of a channel: a pair and the half of one for each column.
pub(super) const BYTES: usize = 8 * SIDE;
/// Pixels finished together.
const PIXELS: usize = 4;

/// Whether a layer is computed so.
pub(super) fn suits<D: Dot>(conv: &Conv2d, from: &TensorSpec) -> bool {
    D::PAIRS && super::lines::suits::<D>(conv, from)
}

/// Where the weight of a tap of a channel lies, a number of 16 bits.
pub(super) fn place<D: Dot>(channel: usize, tap: usize) -> usize {
    let (vector, lane, row, column) = (channel / D::LANES, channel % D::LANES, tap / SIDE, tap % SIDE);
    // In the order of bytes that makes the first of a pair the lower half of its lane.
    let of_pair = if cfg!(target_endian = "little") { row % 2 } else { 1 - row % 2 };
    (((vector * SIDE + column) * 2 + row / 2) * D::LANES + lane) * 2 + of_pair
}

/// Rows of output pixels, counted over the whole batch.
pub(super) struct Rows<'a, D> {
    pub(super) prepared: &'a PreparedDepthwise<D>,
    pub(super) input: &'a [u8],
    pub(super) tensors: &'a Tensors<'a>,
    pub(super) rows: Range<usize>,
}

/// The weights of a vector of channels: of each column the pair and the half of one.
pub(super) type Weights<D> = [[<D as Dot>::Ints; 2]; SIDE];

/// Those of the channels from this one on, a whole vector.
#[inline(always)]
pub(super) fn weights_of<D: Dot, P>(d: D, prepared: &PreparedDepthwise<P>, channel: usize) -> Weights<D> {
    let of_vector = &prepared.weights.as_slice()[channel * BYTES..][..D::LANES * BYTES];
    let mut weights: Weights<D> = [[d.splat_int(0); 2]; SIDE];
    for (index, weights) in weights.as_flattened_mut().iter_mut().enumerate() {
        // SAFETY: a vector of channels has six vectors of weights.
        *weights = unsafe { d.ints(of_vector.as_ptr().cast::<i32>().add(index * D::LANES)) };
    }
    weights
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
        let PreparedDepthwise { to, .. } = self.prepared;
        let weights = weights_of(d, self.prepared, channel);
        let mut waiting = Waiting::new(d, self.prepared, self.input, channel, self.prepared.place_of(row));
        // SAFETY: each line has the columns of a row, of whole vectors of channels, and the padding one such.
        unsafe {
            for _ in STRIDE..SIDE {
                waiting.take::<STRIDE>(d, &weights);
            }
            let mut x = 0;
            while x + PIXELS <= to.width {
                self.pixels::<D, STRIDE, PIXELS>(d, channel, row * to.width + x, &weights, &mut waiting);
                x += PIXELS;
            }
            while x < to.width {
                self.pixels::<D, STRIDE, 1>(d, channel, row * to.width + x, &weights, &mut waiting);
                x += 1;
            }
        }
    }

    /// Computes the next pixels, of which the first has this index over the whole batch.
    ///
    /// # Safety
    ///
    /// As [`Waiting::take`].
    #[inline(always)]
    unsafe fn pixels<D: Dot, const STRIDE: usize, const N: usize>(
        &self,
        d: D,
        channel: usize,
        pixel: usize,
        weights: &Weights<D>,
        waiting: &mut Waiting<'_, D>,
    ) {
        let PreparedDepthwise { to, output, .. } = self.prepared;
        let mut sums = [[d.splat_int(0)]; N];
        for [sum] in &mut sums {
            if STRIDE == 2 {
                // SAFETY: passed on.
                unsafe { waiting.take_middle(d, weights) };
            }
            // SAFETY: passed on.
            *sum = unsafe { waiting.take::<STRIDE>(d, weights) };
        }
        // SAFETY: there are constants for each channel, and these are whole vectors; rows of the output belong to one task
        // each.
        unsafe { output.store(d, self.tensors, sums, channel, pixel * to.channels + channel, to.channels, D::LANES) };
    }
}

/// Windows that have not seen all of their columns.
pub(super) struct Waiting<'a, D: Dot> {
    lines: Lines<'a>,
    /// What every sum begins with.
    start: D::Ints,
    /// Of the window whose last column is next, and of the one after it; at stride 2 of the former alone.
    sums: [D::Ints; 2],
}

impl<'a, D: Dot> Waiting<'a, D> {
    /// Those of a row of outputs, its image and its place within that, and the vector of channels from `channel` on.
    #[inline(always)]
    pub(super) fn new<P>(
        d: D,
        prepared: &'a PreparedDepthwise<P>,
        input: &[u8],
        channel: usize,
        place: [usize; 2],
    ) -> Self {
        // SAFETY: there are constants for each channel, and these are whole vectors.
        let start = unsafe { prepared.output.start(d, channel) };
        Self { lines: Lines::new(prepared, input, (channel, D::LANES), place), start, sums: [d.splat_int(0); 2] }
    }

    /// Takes in a column that is the last of one window and the first of another, and at stride 1 the middle one of a third.
    /// Returns the sums of the first.
    ///
    /// # Safety
    ///
    /// A vector must be readable at each of the columns of each line, and in the padding.
    #[inline(always)]
    pub(super) unsafe fn take<const STRIDE: usize>(&mut self, d: D, weights: &Weights<D>) -> D::Ints {
        // SAFETY: passed on.
        let column = unsafe { self.column(d) };
        let done = dot(d, self.sums[0], column, weights[2]);
        let begun = dot(d, self.start, column, weights[0]);
        self.sums = if STRIDE == 1 { [dot(d, self.sums[1], column, weights[1]), begun] } else { [begun; 2] };
        done
    }

    /// Takes in the middle column of one window, at stride 2.
    ///
    /// # Safety
    ///
    /// As of [`take`](Self::take).
    #[inline(always)]
    unsafe fn take_middle(&mut self, d: D, weights: &Weights<D>) {
        // SAFETY: passed on.
        let column = unsafe { self.column(d) };
        self.sums[0] = dot(d, self.sums[0], column, weights[1]);
    }

    /// The next column: the pair of its upper rows and the lower row.
    ///
    /// # Safety
    ///
    /// As of [`take`](Self::take).
    #[inline(always)]
    unsafe fn column(&mut self, d: D) -> [D::Ints; 2] {
        let [upper, middle, lower] = self.lines.next();
        // SAFETY: the caller's.
        unsafe { [d.pairs([upper, middle]), d.bytes(lower)] }
    }
}

/// `sums` and a column's products.
#[inline(always)]
fn dot<D: Dot>(d: D, sums: D::Ints, [pair, lone]: [D::Ints; 2], weights: [D::Ints; 2]) -> D::Ints {
    d.dot_pairs(d.dot_pairs(sums, pair, weights[0]), lone, weights[1])
}
