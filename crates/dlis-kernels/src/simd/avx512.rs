//! x86-64 AVX-512 (F, BW, DQ and VL, as on every server since 2017): vectors of sixteen.

use std::arch::x86_64::*;

use dlis_hw::{Hardware, SimdLevel};

use super::{Simd, Work};

/// Proof that the machine has Avx512.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Simd for Avx512 {
    const LEVEL: SimdLevel = SimdLevel::Avx512;
    const LANES: usize = 16;
    type Vector = __m512;

    fn new(hw: &Hardware) -> Option<Self> {
        // `hw` may limit the levels, but it is plain data that a caller can fill in: the proof is the
        // processor's own word.
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        (present && hw.supports(Self::LEVEL)).then_some(Self(()))
    }

    fn vectorize<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn enter<W: Work>(simd: Avx512, work: W) -> W::Output {
            work.run(simd)
        }
        // SAFETY: `self` proves that the machine has these features.
        unsafe { enter(self, work) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn at_least(self, x: __m512, bound: __m512) -> __m512 {
        // SAFETY: `self` proves the features. The instruction returns its second operand if either is NaN.
        unsafe { _mm512_max_ps(bound, x) }
    }

    #[inline(always)]
    fn at_most(self, x: __m512, bound: __m512) -> __m512 {
        // SAFETY: `self` proves the features. The instruction returns its second operand if either is NaN.
        unsafe { _mm512_min_ps(bound, x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: `self` proves the features; readable by the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m512) {
        // SAFETY: `self` proves the features; writable by the caller's promise.
        unsafe { _mm512_storeu_ps(to, x) }
    }
}
