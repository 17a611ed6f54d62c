//! Vectors of bytes and what is made of them, so that a quantised kernel is written once for every level.
//!
//! The heart is [`Dot::dot`]: to each 32-bit lane, four products of an unsigned byte with a signed one are
//! added, without saturation anywhere. [`Dot::dot_shared`] is the same where all lanes share their four bytes, and faster
//! at levels that can do so with light weights only ([`LIGHT`]). As for [`Simd`](crate::simd::Simd), a value is a token that only a
//! machine with the instructions can make, and methods are fast only inside [`Dot::vectorize`].

use std::fmt::Debug;

use dlis_hw::Hardware;

#[cfg(target_arch = "x86_64")]
mod avx512;
mod levels;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
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

    /// Writes `round(clamp(x, low, high)) + zero_point` as bytes, ties to even, NaN counting as 0.
    ///
    /// # Safety
    ///
    /// `LANES` bytes must be writable at `to`, and the results must lie in `0..=255`.
    unsafe fn store_bytes(self, to: *mut u8, x: Self::Floats, bounds: [Self::Floats; 2], zero_point: Self::Ints);

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

#[cfg(test)]
mod tests {
    use super::*;

    struct Check;

    impl DotWork for Check {
        type Output = ();

        #[inline(always)]
        fn run<D: Dot>(self, d: D) {
            let lanes = D::LANES;
            // Every extreme: 0, 255 and the offset itself, with -127 and 127.
            let x: Vec<u8> = (0..4 * lanes).map(|i| [0, 255, 128, 127, 1, 255, 254, 0, 129][i % 9]).collect();
            let w: Vec<i8> = (0..4 * lanes).map(|i| [127, -127, 127, 127, -1, 0, -127][i % 7]).collect();
            let product = |x: u8, w: i8| (i32::from(x) - D::OFFSET) * i32::from(w);
            let read = |sums: D::Ints| {
                let mut floats = vec![0.0; lanes];
                // SAFETY: it holds `LANES` elements.
                unsafe { d.store_floats(floats.as_mut_ptr(), d.float(sums)) };
                floats
            };
            let expect = |of: &dyn Fn(usize) -> i32| (0..lanes).map(|lane| of(lane) as f32).collect::<Vec<_>>();
            // SAFETY: every pointer is to as many elements as its method asks for.
            unsafe {
                let weights = d.weights(w.as_ptr());
                let words: Vec<i32> =
                    x.chunks_exact(4).map(|x| i32::from_le_bytes(x.try_into().expect("four bytes"))).collect();
                let sums = d.dot(d.splat_int(5), d.quads(d.ints(words.as_ptr())), weights);
                let one = |lane: usize| (0..4).map(|i| product(x[4 * lane + i], w[4 * lane + i])).sum::<i32>();
                assert_eq!(read(sums), expect(&|lane| 5 + one(lane)));
                let sums = d.dot(d.splat_int(0), d.quads(d.splat_int(-1)), weights);
                assert_eq!(read(sums), expect(&|lane| (0..4).map(|i| product(255, w[4 * lane + i])).sum::<i32>()));

                let places = [0, 1, 2, 3].map(|row| x[row * lanes..].as_ptr());
                let sums = d.dot(d.splat_int(0), d.interleave(places), weights);
                let of_rows = |lane: usize| (0..4).map(|i| product(x[i * lanes + lane], w[4 * lane + i])).sum::<i32>();
                assert_eq!(read(sums), expect(&of_rows));

                // Five bytes pushed: the first is gone.
                let pushed = (0..5).fold(d.splat_int(0), |bytes, row| {
                    let next = x[row * lanes / 2..].as_ptr();
                    d.push(bytes, d.bytes(next))
                });
                let sums = d.dot(d.splat_int(0), d.quads(pushed), weights);
                let one =
                    |lane: usize| (0..4).map(|i| product(x[(i + 1) * lanes / 2 + lane], w[4 * lane + i])).sum::<i32>();
                assert_eq!(read(sums), expect(&one));

                // Of the second with 255 and -127 each.
                let halves: Vec<i32> = (0..lanes).map(|lane| i32::from(w[lane]) & 0xffff | -127 << 16).collect();
                let highest = [255; 16];
                let pairs = d.pairs([x.as_ptr(), highest.as_ptr()]);
                let of_pairs = |lane: usize| 3 + i32::from(x[lane]) * i32::from(w[lane]) - 255 * 127;
                assert_eq!(read(d.dot_pairs(d.splat_int(3), pairs, d.ints(halves.as_ptr()))), expect(&of_pairs));

                let words = |ints: D::Ints| {
                    let mut words = vec![0i32; lanes];
                    d.store_ints(words.as_mut_ptr(), ints);
                    words
                };
                #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
                let split = |ints: D::Ints| {
                    words(ints).into_iter().flat_map(|x| [x as i16, (x >> 16) as i16]).collect::<Vec<_>>()
                };
                let both = |of: &dyn Fn(usize) -> i16| (0..2 * lanes).map(of).collect::<Vec<_>>();
                let bytes = d.words(x.as_ptr());
                assert_eq!(split(bytes), both(&|i| i16::from(x[i])));
                let [first, second] = d.halves(weights);
                let at = |i: usize, odd: usize| i16::from(w[i / 2 * 4 + i % 2 * 2 + odd]);
                assert_eq!(split(first), both(&|i| at(i, 0)));
                assert_eq!(split(second), both(&|i| at(i, 1)));
                // Beyond 16 bits, and 32.
                let large = d.shift_words::<3>(d.shift_words::<3>(d.shift_words::<1>(bytes)));
                assert_eq!(split(large), both(&|i| i16::from(x[i]) << 7));
                assert_eq!(
                    split(d.add_words(large, d.shift_words::<2>(large))),
                    both(&|i| (i16::from(x[i]) << 7).wrapping_mul(5))
                );
                assert_eq!(split(d.sub_words(first, large)), both(&|i| at(i, 0).wrapping_sub(i16::from(x[i]) << 7)));
                let some = d.ints(halves.as_ptr());
                let each = |of: &dyn Fn(i32) -> i32| halves.iter().map(|&x| of(x)).collect::<Vec<_>>();
                assert_eq!(words(d.add_ints(some, d.splat_int(i32::MIN))), each(&|x| x.wrapping_add(i32::MIN)));
                assert_eq!(words(d.mul_ints(some, d.splat_int(954_437_177))), each(&|x| x.wrapping_mul(954_437_177)));
                assert_eq!(words(d.part_64(some)), each(&|x| (x.cast_unsigned() / 64).cast_signed()));
                assert_eq!(words(d.shift_ints::<1>(some)), each(&|x| x << 1));
                assert_eq!(words(d.shift_ints::<2>(some)), each(&|x| x << 2));
                assert_eq!(words(d.shift_ints::<3>(some)), each(&|x| x << 3));
                assert_eq!(words(d.shift_ints::<4>(some)), each(&|x| x << 4));

                for some in 0..=lanes {
                    let few = w[..4 * some].to_vec();
                    let sums = d.dot(d.splat_int(1), d.interleave(places), d.some_weights(few.as_ptr(), some));
                    assert_eq!(read(sums), expect(&|lane| 1 + if lane < some { of_rows(lane) } else { 0 }));
                }
                assert_eq!(read(d.sub(d.bytes(x.as_ptr()), d.splat_int(7))), expect(&|lane| i32::from(x[lane]) - 7));
            }
        }
    }

    struct Shares;

    impl DotWork for Shares {
        type Output = ();

        #[inline(always)]
        fn run<D: Dot>(self, d: D) {
            // As far from zero as light weights go, to either side, alone and together.
            let lights: [[i8; 4]; 6] =
                [[127, 1, 64, 64], [-127, -1, -64, -64], [127, -127, 1, 127], [0; 4], [-128 + 5, -5, 100, 28], [3; 4]];
            for x in [[255u8; 4], [255, 0, 0, 255], [128, 127, 1, 254], [0; 4]] {
                let of = |x: [u8; 4], w: [i8; 4]| {
                    x.into_iter().zip(w).map(|(x, w)| (i32::from(x) - D::SHARED_OFFSET) * i32::from(w)).sum::<i32>()
                };
                let light = |lane: usize| lights[lane % lights.len()];
                let w: Vec<i8> = (0..D::LANES).flat_map(light).collect();
                let mut found = vec![0.0; D::LANES];
                // SAFETY: every pointer is to as many elements as its method asks for.
                unsafe {
                    let sums = d.dot_shared(d.splat_int(5), d.broadcast(x.as_ptr()), d.weights(w.as_ptr()));
                    d.store_floats(found.as_mut_ptr(), d.float(sums));
                }
                let one = |lane| (5 + of(x, light(lane))) as f32;
                assert_eq!(found, (0..D::LANES).map(one).collect::<Vec<_>>(), "{x:?}");
            }
            // Together as light as they may be, to either side: the limit of 16 bits.
            let sets: [[[i8; 4]; 4]; 2] = [
                [[126, -60, 1, 0], [0, -60, -127, 64], [1, -8, 0, 60], [1, 0, -1, 3]],
                [[126, 0, -1, -100], [0, -1, -23, 127], [1, 0, 0, -1], [1, -127, -3, 1]],
            ];
            let bytes = [[255u8, 0, 255, 0], [9; 4], [0, 255, 0, 255], [255; 4]].concat();
            for (set, places) in sets.into_iter().flat_map(|set| [0, 2, 3].map(|place| (set, [place; 4]))) {
                let weights = set.map(|w| w.repeat(D::LANES));
                let of_some = |some: usize| {
                    let product = |i: usize, byte: usize| {
                        (i32::from(bytes[4 * places[i] + byte]) - D::SHARED_OFFSET) * i32::from(set[i][byte])
                    };
                    let of = |i: usize| (0..4).map(|byte| product(i, byte)).sum::<i32>();
                    vec![((0..some).map(of).sum::<i32>() - 9) as f32; D::LANES]
                };
                let mut found = vec![0.0; D::LANES];
                // SAFETY: as above, and there are four times four bytes.
                unsafe {
                    let [a, b, c, e] = [0, 1, 2, 3].map(|i| d.weights(weights[i].as_ptr()));
                    let sums = d.dot_set(d.splat_int(-9), bytes.as_ptr(), [places[0], places[1]], [a, b]);
                    d.store_floats(found.as_mut_ptr(), d.float(sums));
                    assert_eq!(found, of_some(2), "{set:?} {places:?}");
                    for columns in [
                        d.dot_twice([d.splat_int(-9); 1], bytes.as_ptr(), [places[0], places[1]], [[a], [b]]).to_vec(),
                        d.dot_twice([d.splat_int(-9); 2], bytes.as_ptr(), [places[0], places[1]], [[a; 2], [b; 2]])
                            .to_vec(),
                    ] {
                        for sums in columns {
                            d.store_floats(found.as_mut_ptr(), d.float(sums));
                            assert_eq!(found, of_some(2), "{set:?} {places:?}");
                        }
                    }
                    let sums =
                        d.dot_twice([d.splat_int(-9); 2], bytes.as_ptr(), [places[0], places[1]], [[c, a], [e, b]]);
                    d.store_floats(found.as_mut_ptr(), d.float(sums[1]));
                    assert_eq!(found, of_some(2), "{set:?} {places:?}");
                    let sums = d.dot_set(d.splat_int(-9), bytes.as_ptr(), places, [a, b, c, e]);
                    d.store_floats(found.as_mut_ptr(), d.float(sums));
                    assert_eq!(found, of_some(4), "{set:?} {places:?}");
                }
            }
        }
    }

    struct Decodes;

    impl DotWork for Decodes {
        type Output = ();

        #[inline(always)]
        fn run<D: Dot>(self, d: D) {
            let lanes = D::LANES;
            let x = [1u8, 255, 0, 130];
            // Every lane has values of its own.
            let table: Vec<u8> = (0..lanes)
                .flat_map(|lane| {
                    let [one, two] = [127 - 8 * i32::try_from(lane).unwrap(), 3 * i32::try_from(lane).unwrap() - 127];
                    [0, one, two, 0].map(|value| i8::try_from(value).unwrap().cast_unsigned())
                })
                .collect();
            let codes: Vec<u8> = (0..4 * lanes)
                .map(|i| {
                    (0..4).map(|place| u8::try_from((i * 7 + place * 5 + i / 3) % 3).unwrap() << (2 * place)).sum()
                })
                .collect();
            let check = |place: usize, some: usize, weights: D::Weights| {
                let one = |lane: usize| {
                    let of = |i: usize| {
                        let code = if lane < some { codes[4 * lane + i] >> (2 * place) & 3 } else { 0 };
                        let value = table[4 * lane + usize::from(code)].cast_signed();
                        (i32::from(x[i]) - D::OFFSET) * i32::from(value)
                    };
                    (0..4).map(of).sum::<i32>() as f32
                };
                let mut found = vec![0.0; lanes];
                // SAFETY: four bytes are readable, and it holds `LANES` elements.
                unsafe {
                    let sums = d.dot(d.splat_int(0), d.quads(d.splat_int(i32::from_le_bytes(x))), weights);
                    d.store_floats(found.as_mut_ptr(), d.float(sums));
                }
                assert_eq!(found, (0..lanes).map(one).collect::<Vec<_>>(), "place {place}, {some} lanes");
            };
            for some in 0..=lanes {
                let few = codes[..4 * some].to_vec();
                // SAFETY: both have four bytes for each lane that is read.
                let (codes, table) = unsafe { (d.some_codes(few.as_ptr(), some), d.tables(table.as_ptr())) };
                check(0, some, d.decode::<0>(codes, table));
                check(1, some, d.decode::<1>(codes, table));
                check(2, some, d.decode::<2>(codes, table));
                check(3, some, d.decode::<3>(codes, table));
            }
            // SAFETY: both have four bytes a lane.
            let (codes, table) = unsafe { (d.codes(codes.as_ptr()), d.tables(table.as_ptr())) };
            check(3, lanes, d.decode::<3>(codes, table));
        }
    }

    struct Rounds;

    impl DotWork for Rounds {
        type Output = ();

        #[inline(always)]
        fn run<D: Dot>(self, d: D) {
            let values = [
                (0.5, 100),
                (1.5, 102),
                (-0.5, 100),
                (-2.5, 98),
                (2.501, 103),
                (f32::NAN, 100),
                (1e30, 255),
                (-1e30, 0),
                (f32::INFINITY, 255),
                (f32::NEG_INFINITY, 0),
                (154.5, 254),
                (-99.6, 0),
                (-0.0, 100),
            ];
            for window in values.windows(1).chain(values.windows(2)).chain(values.windows(5)) {
                let lane = |i: usize| window[i % window.len()];
                let x: Vec<f32> = (0..D::LANES).map(|i| lane(i).0).collect();
                let mut out = vec![7u8; D::LANES];
                // SAFETY: both hold `LANES` elements.
                unsafe {
                    let bounds = [d.splat(-100.0), d.splat(155.0)];
                    d.store_bytes(out.as_mut_ptr(), d.floats(x.as_ptr()), bounds, d.splat_int(100));
                }
                assert_eq!(out, (0..D::LANES).map(|i| lane(i).1).collect::<Vec<_>>(), "{x:?}");
            }
        }
    }

    fn check<D: Dot>(hw: &Hardware) {
        match D::new(hw) {
            Some(dot) => {
                dot.vectorize(Check);
                dot.vectorize(Shares);
                dot.vectorize(Decodes);
                dot.vectorize(Rounds);
            }
            None => eprintln!("skipped: this machine has no {}", std::any::type_name::<D>()),
        }
    }

    #[test]
    fn every_level_is_exact() {
        let hw = Hardware::detect();
        check::<Portable>(&hw);
        #[cfg(target_arch = "x86_64")]
        {
            check::<Avx2>(&hw);
            check::<AvxVnni>(&hw);
            check::<Avx512Vnni>(&hw);
        }
        #[cfg(target_arch = "aarch64")]
        {
            check::<Neon>(&hw);
            check::<NeonDotprod>(&hw);
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn levels_and_extensions_can_be_withheld() {
        use dlis_hw::SimdLevel;
        let hw = Hardware::detect();
        let portable = hw.with_simd(SimdLevel::Portable);
        assert!(Avx2::new(&portable).is_none() && AvxVnni::new(&portable).is_none());
        assert!(Avx512Vnni::new(&hw.with_simd(SimdLevel::Avx2)).is_none());
        let mut plain = hw;
        plain.isa_flags.retain(|flag| !flag.contains("vnni"));
        assert!(AvxVnni::new(&plain).is_none() && Avx512Vnni::new(&plain).is_none());
    }

    #[test]
    #[cfg(target_arch = "aarch64")]
    fn levels_and_extensions_can_be_withheld() {
        use dlis_hw::SimdLevel;
        let hw = Hardware::detect();
        let portable = hw.with_simd(SimdLevel::Portable);
        assert!(Neon::new(&portable).is_none() && NeonDotprod::new(&portable).is_none());
        let mut plain = hw;
        plain.isa_flags.retain(|flag| flag != "asimddp");
        assert!(Neon::new(&plain).is_some() && NeonDotprod::new(&plain).is_none());
    }
}
