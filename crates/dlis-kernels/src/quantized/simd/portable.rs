//! Plain Rust: arrays that the compiler vectorises for the baseline target.

use dlis_hw::Hardware;

use super::{Dot, DotWork, Ends};

/// The level that every machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

const LANES: usize = 4;

/// Adding it to a float of at most 2^22 leaves no bits for a fraction, so that the sum is rounded to a whole
/// number as all sums are, ties to even: one addition, where `round_ties_even` may be a library's function.
const WHOLE: f32 = 12_582_912.0;

/// Two words as a lane, the first in the lower half.
#[inline(always)]
fn lane([low, high]: [i16; 2]) -> i32 {
    i32::from(low.cast_unsigned()) | i32::from(high) << 16
}

/// `f` of every two words at one place.
#[inline(always)]
fn each_word(a: [i32; LANES], b: [i32; LANES], f: impl Fn(i16, i16) -> i16) -> [i32; LANES] {
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
    let words = |x: i32| [x as i16, (x >> 16) as i16];
    std::array::from_fn(|at| {
        let ([a, b], [c, d]) = (words(a[at]), words(b[at]));
        lane([f(a, c), f(b, d)])
    })
}

impl Dot for Portable {
    const NAME: &'static str = "portable";
    const LANES: usize = LANES;
    const ROWS: usize = 4;
    const PAIR_ROWS: usize = 4;
    const OFFSET: i32 = 0;
    const SHARED_OFFSET: i32 = 0;
    const NEEDS_LIGHT: bool = false;
    const PAIRS: bool = false;
    type Ints = [i32; LANES];
    type Floats = [f32; LANES];
    // Of 16 bits, whose products a baseline can sum in pairs.
    type Quads = [[i16; 4]; LANES];
    type Shared = [[i16; 4]; LANES];
    type Weights = [[i16; 4]; LANES];
    type Codes = [[u8; 4]; LANES];
    type Tables = [[u8; 4]; LANES];

    fn new(_hw: &Hardware) -> Option<Self> {
        Some(Self)
    }

    fn vectorize<W: DotWork>(self, work: W) -> W::Output {
        work.run(self)
    }

    #[inline(always)]
    fn dot(self, mut sums: [i32; LANES], x: [[i16; 4]; LANES], w: [[i16; 4]; LANES]) -> [i32; LANES] {
        for lane in 0..LANES {
            let product = |i: usize| i32::from(x[lane][i]) * i32::from(w[lane][i]);
            // Four products of a byte with a byte are far from the ends of an i32.
            sums[lane] = sums[lane].wrapping_add((product(0) + product(1)) + (product(2) + product(3)));
        }
        sums
    }

    #[inline(always)]
    fn dot_shared(self, sums: [i32; LANES], x: [[i16; 4]; LANES], w: [[i16; 4]; LANES]) -> [i32; LANES] {
        self.dot(sums, x, w)
    }

    #[inline(always)]
    fn prefetch(self, _at: *const i8) {}

    #[inline(always)]
    fn quads(self, bytes: [i32; LANES]) -> [[i16; 4]; LANES] {
        bytes.map(|lane| lane.to_le_bytes().map(i16::from))
    }

    #[inline(always)]
    fn push(self, mut bytes: [i32; LANES], next: [i32; LANES]) -> [i32; LANES] {
        for (bytes, next) in bytes.iter_mut().zip(next) {
            *bytes = (bytes.cast_unsigned() >> 8 | next.cast_unsigned() << 24).cast_signed();
        }
        bytes
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const u8) -> [[i16; 4]; LANES] {
        // SAFETY: four bytes are readable, by the caller's promise.
        let bytes = unsafe { from.cast::<[u8; 4]>().read() };
        [bytes.map(i16::from); LANES]
    }

    #[inline(always)]
    unsafe fn interleave(self, from: [*const u8; 4]) -> [[i16; 4]; LANES] {
        let mut quads = [[0; 4]; LANES];
        for (place, from) in from.into_iter().enumerate() {
            // SAFETY: as many bytes as lanes are readable, by the caller's promise.
            let bytes = unsafe { from.cast::<[u8; LANES]>().read() };
            for (quad, byte) in quads.iter_mut().zip(bytes) {
                quad[place] = i16::from(byte);
            }
        }
        quads
    }

    #[inline(always)]
    unsafe fn weights(self, from: *const i8) -> [[i16; 4]; LANES] {
        // SAFETY: four bytes a lane are readable, by the caller's promise.
        unsafe { from.cast::<[[i8; 4]; LANES]>().read() }.map(|quad| quad.map(i16::from))
    }

    #[inline(always)]
    unsafe fn lone_weights(self, from: *const i8) -> [[i16; 4]; LANES] {
        // SAFETY: a byte a lane is readable, by the caller's promise.
        unsafe { from.cast::<[i8; LANES]>().read() }.map(|weight| [i16::from(weight), 0, 0, 0])
    }

    #[inline(always)]
    unsafe fn some_weights(self, from: *const i8, lanes: usize) -> [[i16; 4]; LANES] {
        let mut quads = [[0; 4]; LANES];
        for (lane, quad) in quads.iter_mut().enumerate().take(lanes) {
            // SAFETY: `lane` is below `lanes`, by the caller's promise.
            *quad = unsafe { from.cast::<[i8; 4]>().add(lane).read() }.map(i16::from);
        }
        quads
    }

    #[inline(always)]
    unsafe fn codes(self, from: *const u8) -> [[u8; 4]; LANES] {
        // SAFETY: four bytes a lane are readable, by the caller's promise.
        unsafe { from.cast::<[[u8; 4]; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn some_codes(self, from: *const u8, lanes: usize) -> [[u8; 4]; LANES] {
        let mut codes = [[0; 4]; LANES];
        for (lane, codes) in codes.iter_mut().enumerate().take(lanes) {
            // SAFETY: `lane` is below `lanes`, by the caller's promise.
            *codes = unsafe { from.cast::<[u8; 4]>().add(lane).read() };
        }
        codes
    }

    #[inline(always)]
    unsafe fn tables(self, from: *const u8) -> [[u8; 4]; LANES] {
        // SAFETY: passed on.
        unsafe { self.codes(from) }
    }

    #[inline(always)]
    unsafe fn store_weights(self, to: *mut i8, weights: [[i16; 4]; LANES]) {
        #[expect(clippy::cast_possible_truncation, reason = "they were widened from bytes")]
        let bytes = weights.map(|quad| quad.map(|weight| weight as i8));
        // SAFETY: writable by the caller's promise.
        unsafe { to.cast::<[[i8; 4]; LANES]>().write(bytes) }
    }

    #[inline(always)]
    fn decode<const PLACE: usize>(self, codes: [[u8; 4]; LANES], tables: [[u8; 4]; LANES]) -> [[i16; 4]; LANES] {
        let mut weights = [[0; 4]; LANES];
        for lane in 0..LANES {
            let [_, one, two, _] = tables[lane].map(|value| i16::from(value.cast_signed()));
            // Masks, where a table's look-up would keep the compiler from vectorising.
            weights[lane] = codes[lane].map(|codes| {
                let code = i16::from(codes >> (2 * PLACE));
                (one & -(code & 1)) | (two & -(code >> 1 & 1))
            });
        }
        weights
    }

    #[inline(always)]
    unsafe fn pairs(self, from: [*const u8; 2]) -> [i32; LANES] {
        // SAFETY: as many bytes as lanes are readable at both, by the caller's promise.
        let [low, high] = from.map(|from| unsafe { from.cast::<[u8; LANES]>().read() });
        std::array::from_fn(|lane| i32::from(low[lane]) | i32::from(high[lane]) << 16)
    }

    #[inline(always)]
    fn dot_pairs(self, mut sums: [i32; LANES], x: [i32; LANES], w: [i32; LANES]) -> [i32; LANES] {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let low = |x: i32| i32::from(x as i16);
        for (sum, (x, w)) in sums.iter_mut().zip(x.into_iter().zip(w)) {
            *sum = sum.wrapping_add((low(x) * low(w)).wrapping_add((x >> 16) * (w >> 16)));
        }
        sums
    }

    #[inline(always)]
    unsafe fn words(self, from: *const u8) -> [i32; LANES] {
        // SAFETY: two bytes a lane are readable, by the caller's promise.
        let bytes = unsafe { from.cast::<[[u8; 2]; LANES]>().read() };
        bytes.map(|[low, high]| i32::from(low) | i32::from(high) << 16)
    }

    #[inline(always)]
    fn halves(self, weights: [[i16; 4]; LANES]) -> [[i32; LANES]; 2] {
        [weights.map(|[a, _, c, _]| lane([a, c])), weights.map(|[_, b, _, d]| lane([b, d]))]
    }

    #[inline(always)]
    fn add_words(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        each_word(a, b, i16::wrapping_add)
    }

    #[inline(always)]
    fn sub_words(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        each_word(a, b, i16::wrapping_sub)
    }

    #[inline(always)]
    fn shift_words<const N: i32>(self, x: [i32; LANES]) -> [i32; LANES] {
        each_word(x, x, |word, _| word << N)
    }

    #[inline(always)]
    unsafe fn ints(self, from: *const i32) -> [i32; LANES] {
        // SAFETY: readable by the caller's promise; an array is no more aligned than its elements.
        unsafe { from.cast::<[i32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> [i32; LANES] {
        // SAFETY: readable by the caller's promise.
        unsafe { from.cast::<[u8; LANES]>().read() }.map(i32::from)
    }

    #[inline(always)]
    unsafe fn floats(self, from: *const f32) -> [f32; LANES] {
        // SAFETY: readable by the caller's promise.
        unsafe { from.cast::<[f32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn store_floats(self, to: *mut f32, x: [f32; LANES]) {
        // SAFETY: writable by the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write(x) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, x: [f32; LANES], ends: &Ends<Self>) {
        let Ends { bounds: [low, high], zero_point, .. } = *ends;
        let mut bytes = [0; LANES];
        for lane in 0..LANES {
            let x = if x[lane].is_nan() { 0.0 } else { x[lane] };
            let x = self.at_most(self.at_least([x; LANES], low), high)[lane];
            let whole = (x + WHOLE) - WHOLE;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in 0..=255, as promised")]
            let byte = (whole as i32 + zero_point[lane]) as u8;
            bytes[lane] = byte;
        }
        // SAFETY: writable by the caller's promise.
        unsafe { to.cast::<[u8; LANES]>().write(bytes) }
    }

    #[inline(always)]
    unsafe fn store_ints(self, to: *mut i32, x: [i32; LANES]) {
        // SAFETY: writable by the caller's promise.
        unsafe { to.cast::<[i32; LANES]>().write(x) }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> [i32; LANES] {
        [x; LANES]
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; LANES] {
        [x; LANES]
    }

    #[inline(always)]
    fn sub(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| a[lane].wrapping_sub(b[lane]))
    }

    #[inline(always)]
    fn add_ints(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| a[lane].wrapping_add(b[lane]))
    }

    #[inline(always)]
    fn mul_ints(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| a[lane].wrapping_mul(b[lane]))
    }

    #[inline(always)]
    fn shift_ints<const N: i32>(self, x: [i32; LANES]) -> [i32; LANES] {
        x.map(|x| x << N)
    }

    #[inline(always)]
    fn part_64(self, x: [i32; LANES]) -> [i32; LANES] {
        x.map(|x| (x.cast_unsigned() >> 6).cast_signed())
    }

    #[inline(always)]
    fn float(self, x: [i32; LANES]) -> [f32; LANES] {
        x.map(|x| x as f32)
    }

    #[inline(always)]
    fn mul(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn at_least(self, x: [f32; LANES], bound: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| if x[lane] < bound[lane] { bound[lane] } else { x[lane] })
    }

    #[inline(always)]
    fn at_most(self, x: [f32; LANES], bound: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| if x[lane] > bound[lane] { bound[lane] } else { x[lane] })
    }
}
