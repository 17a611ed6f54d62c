//! x86-64 AVX2 with FMA: vectors of eight.

use std::arch::x86_64::*;

use dlis_hw::{Hardware, SimdLevel};

use super::{Simd, Work};

/// Proof that the machine has Avx2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Simd for Avx2 {
    const LEVEL: SimdLevel = SimdLevel::Avx2;
    const LANES: usize = 8;
    type Vector = __m256;

    fn new(hw: &Hardware) -> Option<Self> {
        // `hw` may limit the levels, but it is plain data that a caller can fill in: the proof is the
        // processor's own word.
        let present = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        (present && hw.supports(Self::LEVEL)).then_some(Self(()))
    }

    fn vectorize<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "avx2,fma")]
        fn enter<W: Work>(simd: Avx2, work: W) -> W::Output {
            work.run(simd)
        }
        // SAFETY: `self` proves that the machine has these features.
        unsafe { enter(self, work) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn at_least(self, x: __m256, bound: __m256) -> __m256 {
        // SAFETY: `self` proves the features. The instruction returns its second operand if either is NaN.
        unsafe { _mm256_max_ps(bound, x) }
    }

    #[inline(always)]
    fn at_most(self, x: __m256, bound: __m256) -> __m256 {
        // SAFETY: `self` proves the features. The instruction returns its second operand if either is NaN.
        unsafe { _mm256_min_ps(bound, x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: `self` proves the features; readable by the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m256) {
        // SAFETY: `self` proves the features; writable by the caller's promise.
        unsafe { _mm256_storeu_ps(to, x) }
    }
}
