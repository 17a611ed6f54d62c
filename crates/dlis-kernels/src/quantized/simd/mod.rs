//! Vectors of bytes and what is made of them, so that a quantised kernel is written once for every level.
//!
//! The heart is [`Dot::dot`]: to each 32-bit lane, four products of an unsigned byte with a signed one are
//! added, without saturation anywhere. [`Dot::dot_shared`] is the same where all lanes share their four bytes, and faster
//! at levels that can do so with light weights only ([`LIGHT`]). As for [`Simd`](crate::simd::Simd), a value is a token that only a
//! machine with the instructions can make, and methods are fast only inside [`Dot::vectorize`].

use std::fmt::Debug;

use dlis_hw::Hardware;

use super::rescale::Rounding;

#[cfg(target_arch = "x86_64")]
mod avx512;
mod levels;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod sets;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512Vnni;
pub(crate) use levels::at_every_level;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Neon, NeonDotprod};
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, AvxVnni};

/// Weights are light if of any two that lie side by side in a lane, those above zero add up to at most as much as this, and
/// those below zero too. Two products with bytes of up to 255 then fit 16 bits, sum and all.
pub(crate) const LIGHT: u8 = 128;

/// How far ahead of their use weights are prefetched: a page, as the processor's own prefetchers stop at the end of
/// one, and a layer of few pixels does little else than read weights.
pub(crate) const AHEAD: usize = 4096;

/// Elements of the widest vector of any level.
pub(crate) const MAX_LANES: usize = 16;

/// The ends of a byte, or those of an activation, and what stands for zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<D: Dot> {
    /// Least and greatest result before the zero point is added.
    bounds: [D::Floats; 2],
    zero_point: D::Ints,
    /// Least and greatest byte, in every byte of a vector, and the zero point in 16 bits each.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "levels of x86-64 pack vectors together"))]
    packed: [D::Ints; 3],
}

impl<D: Dot> Ends<D> {
    /// Of results from `low` to `high`, which with `zero_point` round to a byte.
    #[inline(always)]
    pub(crate) fn new(d: D, Rounding { low, high, zero_point, packed }: Rounding) -> Self {
        let [low_bytes, high_bytes, zero_points] = packed;
        Self {
            bounds: [d.splat(low), d.splat(high)],
            zero_point: d.splat_int(zero_point),
            packed: [d.splat_int(low_bytes), d.splat_int(high_bytes), d.splat_int(zero_points)],
        }
    }
}

/// Proof that this machine has a level, and the operations of that level.
pub(crate) trait Dot: Copy + Debug + Send + Sync + 'static {
    /// The name of the level in the ids of kernels.
    const NAME: &'static str;
    /// 32-bit lanes of a vector.
    const LANES: usize;
    /// Rows of a full tile of two vectors a row: as many as there are registers for.
    const ROWS: usize;
    /// The same of a tile that [`dot_pairs`](Self::dot_pairs) computes.
    const PAIR_ROWS: usize;
    /// What [`dot`](Self::dot) takes off every unsigned byte before it multiplies.
    const OFFSET: i32;
    /// What [`dot_shared`](Self::dot_shared) takes off.
    const SHARED_OFFSET: i32;
    /// Whether [`dot_shared`](Self::dot_shared) asks for light weights.
    const NEEDS_LIGHT: bool;
    /// Whether products of 16 bits by [`dot_pairs`](Self::dot_pairs) take less time than [`dot`](Self::dot), which needs
    /// several instructions then.
    const PAIRS: bool;
    /// `LANES` i32.
    type Ints: Copy + Debug;
    /// `LANES` f32.
    type Floats: Copy + Debug;
    /// Four unsigned bytes a lane.
    type Quads: Copy + Debug;
    /// The same four unsigned bytes in every lane.
    type Shared: Copy + Debug;
    /// Four signed bytes a lane.
    type Weights: Copy + Debug;
    /// Four bytes a lane, each of four codes of two bits.
    type Codes: Copy + Debug;
    /// What codes stand for in each lane.
    type Tables: Copy + Debug;

    /// The token, where `hw` has the level.
    fn new(hw: &Hardware) -> Option<Self>;

    /// Calls `work` in a function compiled for this level.
    fn vectorize<W: DotWork>(self, work: W) -> W::Output;

    /// `sums + (x[0] - OFFSET) * w[0] + ... + (x[3] - OFFSET) * w[3]` in every lane, wrapping around; the weights
    /// are above -128.
    fn dot(self, sums: Self::Ints, x: Self::Quads, w: Self::Weights) -> Self::Ints;

    /// As [`dot`](Self::dot), of the same bytes in every lane less `SHARED_OFFSET`. Where `NEEDS_LIGHT`, the weights must
    /// be light.
    fn dot_shared(self, sums: Self::Ints, x: Self::Shared, w: Self::Weights) -> Self::Ints;

    /// `N` times [`dot_shared`](Self::dot_shared), two or four, of the bytes at four times each of `places` from `from` on. Where
    /// `NEEDS_LIGHT`, the weights of a lane's place must be light together.
    ///
    /// # Safety
    ///
    /// Four bytes must be readable at each.
    #[inline(always)]
    unsafe fn dot_set<const N: usize>(
        self,
        mut sums: Self::Ints,
        from: *const u8,
        places: [usize; N],
        weights: [Self::Weights; N],
    ) -> Self::Ints {
        for (place, weights) in places.into_iter().zip(weights) {
            // SAFETY: as promised.
            sums = self.dot_shared(sums, unsafe { self.broadcast(from.add(4 * place)) }, weights);
        }
        sums
    }

    /// [`dot_set`](Self::dot_set) of two places, for columns of sums that share their inputs.
    ///
    /// # Safety
    ///
    /// Four bytes must be readable at each place.
    #[inline(always)]
    unsafe fn dot_twice<const COLUMNS: usize>(
        self,
        mut sums: [Self::Ints; COLUMNS],
        from: *const u8,
        places: [usize; 2],
        [first, second]: [[Self::Weights; COLUMNS]; 2],
    ) -> [Self::Ints; COLUMNS] {
        for (sum, (first, second)) in sums.iter_mut().zip(first.into_iter().zip(second)) {
            // SAFETY: as promised.
            *sum = unsafe { self.dot_set(*sum, from, places, [first, second]) };
        }
        sums
    }

    /// As [`dot_set`](Self::dot_set), of bytes of each lane's own: a vector of them at each place, and the same weights in
    /// all lanes.
    ///
    /// # Safety
    ///
    /// A vector must be readable at each.
    #[inline(always)]
    unsafe fn dot_set_of_lanes<const N: usize>(
        self,
        mut sums: Self::Ints,
        from: *const u8,
        places: [usize; N],
        weights: [Self::Weights; N],
    ) -> Self::Ints {
        const { assert!(Self::OFFSET == Self::SHARED_OFFSET, "a level with two offsets has a way of its own") };
        for (place, weights) in places.into_iter().zip(weights) {
            // SAFETY: as promised.
            sums = self.dot(sums, self.quads(unsafe { self.ints(from.add(4 * place).cast()) }), weights);
        }
        sums
    }

    /// Hints that the line at `at` will be read soon. `at` need not be readable.
    fn prefetch(self, at: *const i8);

    /// The same four bytes in every lane.
    ///
    /// # Safety
    ///
    /// Four bytes must be readable at `from`.
    unsafe fn broadcast(self, from: *const u8) -> Self::Shared;

    /// The bytes of every lane.
    fn quads(self, bytes: Self::Ints) -> Self::Quads;

    /// The bytes of every lane without the lowest, and a byte of `next` above the others.
    fn push(self, bytes: Self::Ints, next: Self::Ints) -> Self::Ints;

    /// In every lane, one byte from each place: lane `i` has those at `i`.
    ///
    /// # Safety
    ///
    /// `LANES` bytes must be readable at each.
    unsafe fn interleave(self, from: [*const u8; 4]) -> Self::Quads;

    /// Four weights a lane.
    ///
    /// # Safety
    ///
    /// `4 * LANES` bytes must be readable at `from`.
    unsafe fn weights(self, from: *const i8) -> Self::Weights;

    /// The same four weights in every lane.
    ///
    /// # Safety
    ///
    /// Four bytes must be readable at `from`.
    #[inline(always)]
    unsafe fn weights_of_all(self, from: *const i8) -> Self::Weights {
        // SAFETY: as promised; the array has room for the widest vector.
        unsafe {
            let all = [from.cast::<[i8; 4]>().read(); MAX_LANES];
            self.weights(all.as_ptr().cast())
        }
    }

    /// Turns a square of 32-bit words around: of `LANES` rows, each of as many words at `offset` from its place on, the
    /// columns, `stride` bytes from one to the next.
    ///
    /// # Safety
    ///
    /// There must be `LANES` places, and as many words be readable at each and writable for each column.
    #[inline(always)]
    unsafe fn transpose(self, from: &[*const u8], offset: usize, to: *mut u8, stride: usize) {
        for column in 0..Self::LANES {
            for (row, from) in from.iter().enumerate().take(Self::LANES) {
                // SAFETY: as promised.
                unsafe {
                    let word = from.add(offset + 4 * column).cast::<[u8; 4]>().read();
                    to.add(column * stride + 4 * row).cast::<[u8; 4]>().write(word);
                }
            }
        }
    }

    /// One weight a lane, and three zeros after it.
    ///
    /// # Safety
    ///
    /// `LANES` bytes must be readable at `from`.
    unsafe fn lone_weights(self, from: *const i8) -> Self::Weights;

    /// As [`weights`](Self::weights) in the first lanes, zeros in the others.
    ///
    /// # Safety
    ///
    /// `4 * lanes` bytes must be readable at `from`, and `lanes` be at most `LANES`.
    unsafe fn some_weights(self, from: *const i8, lanes: usize) -> Self::Weights;

    /// Four bytes of codes a lane.
    ///
    /// # Safety
    ///
    /// `4 * LANES` bytes must be readable at `from`.
    unsafe fn codes(self, from: *const u8) -> Self::Codes;

    /// As [`codes`](Self::codes) in the first lanes, codes of 0 in the others.
    ///
    /// # Safety
    ///
    /// `4 * lanes` bytes must be readable at `from`, and `lanes` be at most `LANES`.
    unsafe fn some_codes(self, from: *const u8, lanes: usize) -> Self::Codes;

    /// Four signed bytes a lane: what the codes 0, which is 0, 1 and 2 stand for, and one more.
    ///
    /// # Safety
    ///
    /// `4 * LANES` bytes must be readable at `from`.
    unsafe fn tables(self, from: *const u8) -> Self::Tables;

    /// Writes four weights a lane.
    ///
    /// # Safety
    ///
    /// `4 * LANES` bytes must be writable at `to`.
    unsafe fn store_weights(self, to: *mut i8, weights: Self::Weights);

    /// What the codes in the bits `2 * PLACE` and `2 * PLACE + 1` of every byte stand for. None is 3.
    fn decode<const PLACE: usize>(self, codes: Self::Codes, tables: Self::Tables) -> Self::Weights;

    /// In every lane one byte from each place, of 16 bits each, the first in the lower half.
    ///
    /// # Safety
    ///
    /// `LANES` bytes must be readable at each.
    unsafe fn pairs(self, from: [*const u8; 2]) -> Self::Ints;

    /// `sums` and of both halves of every lane, which are signed, the product, wrapping around.
    fn dot_pairs(self, sums: Self::Ints, x: Self::Ints, w: Self::Ints) -> Self::Ints;

    /// Two bytes a lane, widened to 16 bits each.
    ///
    /// # Safety
    ///
    /// `2 * LANES` bytes must be readable at `from`.
    unsafe fn words(self, from: *const u8) -> Self::Ints;

    /// The first and the third weight of every lane, widened to 16 bits each, then the second and the fourth.
    fn halves(self, weights: Self::Weights) -> [Self::Ints; 2];

    /// `a + b` of 16 bits each, wrapping around.
    fn add_words(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `a - b` of 16 bits each, wrapping around.
    fn sub_words(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `x << N` of 16 bits each, of up to three places.
    fn shift_words<const N: i32>(self, x: Self::Ints) -> Self::Ints;

    /// The vector at `from`.
    ///
    /// # Safety
    ///
    /// `LANES` elements must be readable there.
    unsafe fn ints(self, from: *const i32) -> Self::Ints;

    /// Bytes, widened.
    ///
    /// # Safety
    ///
    /// `LANES` bytes must be readable at `from`.
    unsafe fn bytes(self, from: *const u8) -> Self::Ints;

    /// The vector at `from`.
    ///
    /// # Safety
    ///
    /// `LANES` elements must be readable there.
    unsafe fn floats(self, from: *const f32) -> Self::Floats;

    /// Writes a vector.
    ///
    /// # Safety
    ///
    /// `LANES` elements must be writable at `to`.
    unsafe fn store_floats(self, to: *mut f32, x: Self::Floats);

    /// Writes `round(x) + zero_point` as bytes, within the ends, ties to even, NaN counting as 0.
    ///
    /// # Safety
    ///
    /// `LANES` bytes must be writable at `to`.
    unsafe fn store_bytes(self, to: *mut u8, x: Self::Floats, ends: &Ends<Self>);

    /// [`store_bytes`](Self::store_bytes) of four vectors, whose elements are neither NaN nor as far from zero as 2^31.
    ///
    /// # Safety
    ///
    /// As of [`store_bytes`](Self::store_bytes), at each place.
    #[inline(always)]
    unsafe fn store_four(self, to: [*mut u8; 4], x: [Self::Floats; 4], ends: &Ends<Self>) {
        for (to, x) in to.into_iter().zip(x) {
            // SAFETY: as promised.
            unsafe { self.store_bytes(to, x, ends) };
        }
    }

    /// The bytes that [`store_four`](Self::store_four) writes, in every lane its four side by side, the first in the lowest
    /// bits.
    #[inline(always)]
    fn side_by_side(self, x: [Self::Floats; 4], ends: &Ends<Self>) -> Self::Ints {
        let mut planes = [[0; MAX_LANES]; 4];
        let mut lanes = [0i32; MAX_LANES];
        // SAFETY: the arrays have room for the widest vector.
        unsafe {
            let [a, b, c, d] = &mut planes;
            self.store_four([a, b, c, d].map(|plane| plane.as_mut_ptr()), x, ends);
            for (index, lane) in lanes.iter_mut().enumerate() {
                *lane = i32::from_le_bytes(planes.map(|plane| plane[index]));
            }
            self.ints(lanes.as_ptr())
        }
    }

    /// Writes a vector.
    ///
    /// # Safety
    ///
    /// `LANES` elements must be writable at `to`.
    unsafe fn store_ints(self, to: *mut i32, x: Self::Ints);

    /// All lanes `x`.
    fn splat_int(self, x: i32) -> Self::Ints;
    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::Floats;
    /// `a - b`, wrapping around.
    fn sub(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `a + b`, wrapping around.
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `a * b`, wrapping around.
    fn mul_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `x << N`, of up to four places.
    fn shift_ints<const N: i32>(self, x: Self::Ints) -> Self::Ints;
    /// `x / 64`, rounded down, of a number without a sign.
    fn part_64(self, x: Self::Ints) -> Self::Ints;
    /// The nearest floats, ties to even.
    fn float(self, x: Self::Ints) -> Self::Floats;
    /// `a * b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a + b`.
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The larger of `x` and `bound`, and `x` where it is NaN.
    fn at_least(self, x: Self::Floats, bound: Self::Floats) -> Self::Floats;
    /// The smaller of `x` and `bound`, and `x` where it is NaN.
    fn at_most(self, x: Self::Floats, bound: Self::Floats) -> Self::Floats;
}

/// A piece of work that is generic over the level. Implementations mark `run` `#[inline(always)]`.
pub(crate) trait DotWork {
    /// What it returns.
    type Output;

    /// The work.
    fn run<D: Dot>(self, dot: D) -> Self::Output;
}
