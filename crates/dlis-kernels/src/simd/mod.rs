//! One abstraction over vectors of f32, so that a kernel is written once for every SIMD level.
//!
//! A [`Simd`] value is a token: it can be had only on a machine that has the instructions, so its methods
//! are safe to call. They are `#[inline(always)]` and compile to single instructions only inside
//! [`Simd::vectorize`], which enters a function compiled for the level; outside they work, slowly.

use std::fmt::Debug;

use dlis_hw::{Hardware, SimdLevel};

use crate::half::widen;

mod levels;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use levels::at_every_level;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Lanes of the widest vectors of any level.
pub(crate) const MOST_LANES: usize = 16;

/// Proof that this machine has a SIMD level, and the operations of that level.
pub(crate) trait Simd: Copy + Debug + Send + Sync + 'static {
    /// The level.
    const LEVEL: SimdLevel;
    /// Elements of a vector.
    const LANES: usize;
    /// Registers that hold a vector, which bound how many sums a tile has.
    const REGISTERS: usize;
    /// A vector of `LANES` f32.
    type Vector: Copy + Debug;

    /// The token, where `hw` has the level.
    fn new(hw: &Hardware) -> Option<Self>;

    /// Calls `work` in a function compiled for this level.
    fn vectorize<W: Work>(self, work: W) -> W::Output;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::Vector;
    /// All lanes the f16 with these bits.
    #[inline(always)]
    fn splat_half(self, half: u16) -> Self::Vector {
        self.splat(widen(half))
    }
    /// `a * b + c`, rounded once where the level has fused multiply-add.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger of `x` and `bound`, and `x` where it is NaN.
    fn at_least(self, x: Self::Vector, bound: Self::Vector) -> Self::Vector;
    /// The smaller of `x` and `bound`, and `x` where it is NaN.
    fn at_most(self, x: Self::Vector, bound: Self::Vector) -> Self::Vector;
    /// The larger of both, NaN where either is.
    fn greater(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Hints that the line at `at` will be read soon. `at` need not be readable.
    fn prefetch(self, at: *const f32);

    /// The same, into the second-level cache: what is read too late for the first to keep it.
    fn prefetch_far(self, at: *const u8);

    /// The vector at `from`.
    ///
    /// # Safety
    ///
    /// `LANES` elements must be readable there.
    unsafe fn load(self, from: *const f32) -> Self::Vector;
    /// The vector of the f16 whose bits are at `from`, exactly.
    ///
    /// # Safety
    ///
    /// `LANES` elements must be readable there.
    unsafe fn load_half(self, from: *const u16) -> Self::Vector;
    /// Every second element from `from` on.
    ///
    /// # Safety
    ///
    /// `2 * LANES` elements must be readable there.
    unsafe fn load_even(self, from: *const f32) -> Self::Vector;
    /// The elements from `from` on whose bits are set in `which`, the first's being the lowest; zeros elsewhere.
    ///
    /// # Safety
    ///
    /// Those elements must be readable. The others are not read.
    #[inline(always)]
    unsafe fn load_where(self, from: *const f32, which: u32) -> Self::Vector {
        let all = u32::MAX >> (32 - Self::LANES);
        if which & all == all {
            // SAFETY: all are readable, by the caller's promise.
            return unsafe { self.load(from) };
        }
        let mut elements = [0.0; MOST_LANES];
        for (lane, element) in elements[..Self::LANES].iter_mut().enumerate() {
            if which >> lane & 1 == 1 {
                // SAFETY: by the caller's promise.
                *element = unsafe { *from.add(lane) };
            }
        }
        // SAFETY: there are as many as the widest vector has.
        unsafe { self.load(elements.as_ptr()) }
    }
    /// Every second of the `2 * LANES` elements from `from` on whose bits are set in `which`; zeros elsewhere.
    ///
    /// # Safety
    ///
    /// As for [`load_where`](Self::load_where).
    #[inline(always)]
    unsafe fn load_even_where(self, from: *const f32, which: u32) -> Self::Vector {
        let mut elements = [0.0; MOST_LANES];
        for (lane, element) in elements[..Self::LANES].iter_mut().enumerate() {
            if which >> (2 * lane) & 1 == 1 {
                // SAFETY: by the caller's promise.
                *element = unsafe { *from.add(2 * lane) };
            }
        }
        // SAFETY: there are as many as the widest vector has.
        unsafe { self.load(elements.as_ptr()) }
    }
    /// The last element of `before`, then all of `x` but its last.
    fn shift_up(self, before: Self::Vector, x: Self::Vector) -> Self::Vector;
    /// All of `x` but its first, then the first element of `after`.
    fn shift_down(self, x: Self::Vector, after: Self::Vector) -> Self::Vector;
    /// Every second element of two vectors, from the first one on, and the others.
    fn unzip(self, low: Self::Vector, high: Self::Vector) -> (Self::Vector, Self::Vector);
    /// The elements of `x` in these places; zeros for places from `LANES` to `2 * LANES - 1`.
    ///
    /// # Safety
    ///
    /// `LANES` places must be readable there.
    unsafe fn permute(self, x: Self::Vector, places: *const u32) -> Self::Vector;
    /// The bits of `x` that are set in the numbers at `masks`, too.
    ///
    /// # Safety
    ///
    /// `LANES` numbers must be readable there.
    unsafe fn and(self, x: Self::Vector, masks: *const u32) -> Self::Vector;
    /// Four elements at each of these places from `from` on, one after the other.
    ///
    /// # Safety
    ///
    /// `LANES / 4` places must be readable, and four elements at each.
    unsafe fn load_quads(self, from: *const f32, places: *const u16) -> Self::Vector;
    /// Each of the elements at `from` four times.
    ///
    /// # Safety
    ///
    /// `LANES / 4` elements must be readable there.
    unsafe fn load_fourfold(self, from: *const f32) -> Self::Vector;
    /// Writes the vector to `to`.
    ///
    /// # Safety
    ///
    /// `LANES` elements must be writable there.
    unsafe fn store(self, to: *mut f32, x: Self::Vector);
    /// Writes `LANES` numbers at `from`, each times `factor`, to `to`; products wrap around.
    ///
    /// # Safety
    ///
    /// `LANES` elements must be readable at `from` and writable at `to`.
    unsafe fn scale_u16(self, from: *const u16, factor: u32, to: *mut u32);
}

/// A piece of work that is generic over the SIMD level: a closure that [`Simd::vectorize`] can compile
/// for each. Implementations mark `run` `#[inline(always)]`.
pub(crate) trait Work {
    /// What it returns.
    type Output;

    /// The work.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Check;

    impl Work for Check {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let input: Vec<f32> =
                (0..S::LANES).map(|lane| if lane == 1 { f32::NAN } else { lane as f32 - 3.0 }).collect();
            let mut output = vec![0.0; S::LANES];
            // SAFETY: both hold `LANES` elements.
            unsafe {
                let x = simd.load(input.as_ptr());
                let y = simd.mul_add(x, simd.splat(2.0), simd.splat(1.0));
                let y = simd.at_most(simd.at_least(simd.add(y, simd.splat(1.0)), simd.splat(0.0)), simd.splat(6.0));
                simd.store(output.as_mut_ptr(), y);
            }
            let numbers = [0.0, -1.0, 7.5, f32::NEG_INFINITY, f32::INFINITY, f32::NAN];
            for a in numbers {
                for b in numbers {
                    let expected = if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) };
                    let mut greater = vec![0.0; S::LANES];
                    // SAFETY: it holds `LANES` elements.
                    unsafe { simd.store(greater.as_mut_ptr(), simd.greater(simd.splat(a), simd.splat(b))) };
                    let same = |x: &f32| *x == expected || (x.is_nan() && expected.is_nan());
                    assert!(greater.iter().all(same), "{a} and {b}: {greater:?}");
                }
            }
            // 1, -2, the least and the largest f16, infinity, NaN, 0 and -0.
            let halves: Vec<u16> = [0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x7e00, 0, 0x8000]
                .into_iter()
                .cycle()
                .take(S::LANES)
                .collect();
            let (mut widened, mut scaled) = (vec![0.0; S::LANES], vec![0; S::LANES]);
            // SAFETY: all hold `LANES` elements.
            unsafe {
                simd.store(widened.as_mut_ptr(), simd.load_half(halves.as_ptr()));
                simd.scale_u16(halves.as_ptr(), 3, scaled.as_mut_ptr());
            }
            for &half in &halves {
                let mut splat = vec![0.0; S::LANES];
                // SAFETY: it holds `LANES` elements.
                unsafe { simd.store(splat.as_mut_ptr(), simd.splat_half(half)) };
                let expected = half::f16::from_bits(half).to_f32();
                assert!(splat.iter().all(|x| x.to_bits() == expected.to_bits() || (x.is_nan() && expected.is_nan())));
            }
            let doubled: Vec<f32> = (0..2 * S::LANES).map(|index| index as f32).collect();
            let masks: Vec<u32> = (0..S::LANES).map(|lane| if lane % 3 == 0 { 0 } else { u32::MAX }).collect();
            let mut even = vec![0.0; S::LANES];
            // SAFETY: `doubled` holds twice `LANES` elements, the others `LANES`.
            unsafe { simd.store(even.as_mut_ptr(), simd.and(simd.load_even(doubled.as_ptr()), masks.as_ptr())) };
            for (lane, &even) in even.iter().enumerate() {
                assert_eq!(even, if lane % 3 == 0 { 0.0 } else { 2.0 * lane as f32 });
            }
            let which: u32 = 0b1011_0110_1101_1011 & (u32::MAX >> (32 - S::LANES));
            let which_even: u32 =
                (0..S::LANES).filter(|lane| which >> lane & 1 == 1).fold(0, |all, lane| all | 1 << (2 * lane));
            let (mut some, mut some_even) = (vec![1.0; S::LANES], vec![1.0; S::LANES]);
            // The first element is at the start of memory, and elements that are not wanted lie beyond its end.
            let end = doubled[..32 - which.leading_zeros() as usize].to_vec();
            let end_even = doubled[..32 - which_even.leading_zeros() as usize].to_vec();
            // SAFETY: the elements whose bits are set are there.
            unsafe {
                simd.store(some.as_mut_ptr(), simd.load_where(end.as_ptr(), which));
                simd.store(some_even.as_mut_ptr(), simd.load_even_where(end_even.as_ptr(), which_even));
                simd.store(even.as_mut_ptr(), simd.load_where(doubled.as_ptr(), u32::MAX >> (32 - S::LANES)));
            }
            for lane in 0..S::LANES {
                let there = if which >> lane & 1 == 1 { lane as f32 } else { 0.0 };
                assert_eq!([some[lane], some_even[lane], even[lane]], [there, 2.0 * there, lane as f32], "lane {lane}");
            }
            let mut moved = vec![vec![0.0; S::LANES]; 5];
            let backwards: Vec<u32> = (1..=16).rev().skip(16 - S::LANES).collect();
            // SAFETY: all hold `LANES` elements, `doubled` twice as many.
            unsafe {
                let (low, high) = (simd.load(doubled.as_ptr()), simd.load(doubled.as_ptr().add(S::LANES)));
                let (even, odd) = simd.unzip(low, high);
                let all = [
                    simd.shift_up(low, high),
                    simd.shift_down(low, high),
                    even,
                    odd,
                    simd.permute(low, backwards.as_ptr()),
                ];
                moved.iter_mut().zip(all).for_each(|(to, x)| simd.store(to.as_mut_ptr(), x));
            }
            for lane in 0..S::LANES {
                let found: Vec<f32> = moved.iter().map(|moved| moved[lane]).collect();
                let back = if lane == 0 { 0 } else { S::LANES - lane };
                let expected = [S::LANES + lane - 1, lane + 1, 2 * lane, 2 * lane + 1, back].map(|x: usize| x as f32);
                assert_eq!(found, expected, "lane {lane}");
            }
            let places: Vec<u16> = (0..4).map(|quad| (quad * 5 + 3) % 4).collect();
            let (mut quads, mut fourfold) = (vec![0.0; S::LANES], vec![0.0; S::LANES]);
            // SAFETY: four elements are at each place, `LANES / 4` of which are there, as are as many elements.
            unsafe {
                simd.store(quads.as_mut_ptr(), simd.load_quads(doubled.as_ptr(), places.as_ptr()));
                simd.store(fourfold.as_mut_ptr(), simd.load_fourfold(doubled.as_ptr()));
            }
            for lane in 0..S::LANES {
                assert_eq!(quads[lane], f32::from(places[lane / 4]) + (lane % 4) as f32, "lane {lane}");
                assert_eq!(fourfold[lane], (lane / 4) as f32);
            }
            for ((&half, &wide), &scaled) in halves.iter().zip(&widened).zip(&scaled) {
                let expected = half::f16::from_bits(half).to_f32();
                assert!(wide.to_bits() == expected.to_bits() || (wide.is_nan() && expected.is_nan()), "{half:#06x}");
                assert_eq!(scaled, 3 * u32::from(half));
            }
            for (lane, (&x, &y)) in input.iter().zip(&output).enumerate() {
                let expected = (2.0 * x + 2.0).clamp(0.0, 6.0);
                assert!(y == expected || (x.is_nan() && y.is_nan()), "lane {lane}: {x} became {y}, not {expected}");
            }
        }
    }

    fn check<S: Simd>(hw: &Hardware) {
        match S::new(hw) {
            Some(simd) => simd.vectorize(Check),
            None => eprintln!("skipped: this machine has no {:?}", S::LEVEL),
        }
    }

    #[test]
    fn every_level_computes_the_same() {
        let hw = Hardware::detect();
        check::<Portable>(&hw);
        #[cfg(target_arch = "x86_64")]
        {
            check::<Avx2>(&hw);
            check::<Avx512>(&hw);
        }
        #[cfg(target_arch = "aarch64")]
        check::<Neon>(&hw);
    }

    #[test]
    fn a_lower_level_can_be_forced() {
        let hw = Hardware::detect().with_simd(SimdLevel::Portable);
        assert!(Portable::new(&hw).is_some());
        #[cfg(target_arch = "x86_64")]
        assert!(Avx2::new(&hw).is_none() && Avx512::new(&hw).is_none());
        #[cfg(target_arch = "aarch64")]
        assert!(Neon::new(&hw).is_none());
    }
}
