//! The loops whose speed is a machine's peak: register-only multiply-adds, a sum, and a triad, once per SIMD
//! level. This is the crate's only unsafe code.
//!
//! Twelve independent accumulators hide the latency of a multiply-add (4 or 5 cycles, 2 per cycle on x86-64;
//! the NEON level has 24 because there are cores with 4 per cycle). They are named variables, not an array,
//! so that they stay in registers even in builds that barely optimise.

#![allow(unsafe_code, reason = "vector intrinsics; every block argues its safety")]

use std::hint::black_box;

use crate::SimdLevel;

/// Lengths of `read` and `triad` should be a multiple of this; the rest is left out.
pub(super) const BLOCK: usize = 8 * 16;

/// The loops of one level. That a value exists proves that the processor has the level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels {
    fma: unsafe fn(u64) -> f32,
    read: unsafe fn(&[f32]) -> f32,
    triad: unsafe fn(&mut [f32], &[f32], &[f32]),
    flops_per_iteration: usize,
}

impl Kernels {
    /// `None` where the processor lacks the level.
    pub(super) fn new(level: SimdLevel) -> Option<Self> {
        if !level.is_available() {
            return None;
        }
        match level {
            SimdLevel::Portable => Some(portable::KERNELS),
            #[cfg(target_arch = "aarch64")]
            SimdLevel::Neon => Some(neon::KERNELS),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => Some(avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => Some(avx512::KERNELS),
            #[allow(unreachable_patterns, reason = "which levels are left depends on the target")]
            _ => None,
        }
    }

    /// Operations of one iteration of [`Kernels::fma`].
    pub(super) fn flops_per_iteration(&self) -> usize {
        self.flops_per_iteration
    }

    /// Runs `iterations` rounds of multiply-adds, and answers something that depends on all of them.
    pub(super) fn fma(&self, iterations: u64) -> f32 {
        // SAFETY: `new` found the level these functions are compiled for.
        unsafe { (self.fma)(iterations) }
    }

    /// The sum of `data`.
    pub(super) fn read(&self, data: &[f32]) -> f32 {
        // SAFETY: `new` found the level these functions are compiled for.
        unsafe { (self.read)(data) }
    }

    /// `c[i] = a[i] + 3 b[i]`, as far as the shortest goes.
    pub(super) fn triad(&self, c: &mut [f32], a: &[f32], b: &[f32]) {
        // SAFETY: `new` found the level these functions are compiled for.
        unsafe { (self.triad)(c, a, b) }
    }
}

/// The three loops, from a module's vector type `V` of `LANES` floats and its `splat`, `load`, `store`, `add`,
/// `mul_add` and `step`, the multiply-add of a register.
macro_rules! loops {
    ($(#[$enable:meta])? accumulators: $($acc:ident)+) => {
        pub(super) const KERNELS: super::Kernels = super::Kernels {
            fma,
            read,
            triad,
            flops_per_iteration: [$(stringify!($acc)),+].len() * LANES * 2,
        };

        $(#[$enable])?
        fn fma(iterations: u64) -> f32 {
            // Stays between 0.1 and 4: neither denormal nor infinite, whose arithmetic may be slower.
            let (factor, term) = (splat(super::black_box(0.999_999)), splat(super::black_box(1e-7)));
            $(let mut $acc = splat(super::black_box(0.5));)+
            for _ in 0..iterations {
                $($acc = step($acc, factor, term);)+
            }
            let mut sum = splat(0.0);
            $(sum = add(sum, $acc);)+
            total(sum)
        }

        $(#[$enable])?
        fn read(data: &[f32]) -> f32 {
            let zero = splat(0.0);
            let [mut s0, mut s1, mut s2, mut s3] = [zero; 4];
            let [mut s4, mut s5, mut s6, mut s7] = [zero; 4];
            for [v0, v1, v2, v3, v4, v5, v6, v7] in data.as_chunks::<LANES>().0.as_chunks::<8>().0 {
                s0 = add(s0, load(v0));
                s1 = add(s1, load(v1));
                s2 = add(s2, load(v2));
                s3 = add(s3, load(v3));
                s4 = add(s4, load(v4));
                s5 = add(s5, load(v5));
                s6 = add(s6, load(v6));
                s7 = add(s7, load(v7));
            }
            total(add(add(add(s0, s1), add(s2, s3)), add(add(s4, s5), add(s6, s7))))
        }

        $(#[$enable])?
        fn triad(c: &mut [f32], a: &[f32], b: &[f32]) {
            let three = splat(super::black_box(3.0));
            let c = c.as_chunks_mut::<LANES>().0.as_chunks_mut::<4>().0;
            let (a, b) = (a.as_chunks::<LANES>().0.as_chunks::<4>().0, b.as_chunks::<LANES>().0.as_chunks::<4>().0);
            for (([c0, c1, c2, c3], [a0, a1, a2, a3]), [b0, b1, b2, b3]) in c.iter_mut().zip(a).zip(b) {
                store(c0, mul_add(load(b0), three, load(a0)));
                store(c1, mul_add(load(b1), three, load(a1)));
                store(c2, mul_add(load(b2), three, load(a2)));
                store(c3, mul_add(load(b3), three, load(a3)));
            }
        }

        $(#[$enable])?
        fn total(v: V) -> f32 {
            let mut lanes = [0.0; LANES];
            store(&mut lanes, v);
            lanes.iter().sum()
        }
    };
}

mod portable {
    //! The baseline: arrays as wide as its vectors, which the compiler turns into them.

    const LANES: usize = 4;
    type V = [f32; LANES];

    #[inline(always)]
    fn splat(x: f32) -> V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> V {
        *from
    }

    #[inline(always)]
    fn store(to: &mut [f32; LANES], v: V) {
        *to = v;
    }

    #[inline(always)]
    fn add(a: V, b: V) -> V {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }

    /// Not `f32::mul_add`, which calls a library where the baseline has no instruction for it.
    #[inline(always)]
    fn mul_add(a: V, b: V, c: V) -> V {
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }

    /// Unlike the others it multiplies the accumulator: the product of two constants would be hoisted.
    #[inline(always)]
    fn step(accumulator: V, factor: V, term: V) -> V {
        mul_add(accumulator, factor, term)
    }

    // Eight: with more, the compiler runs out of the 16 registers of baseline x86-64.
    loops!(accumulators: a0 a1 a2 a3 a4 a5 a6 a7);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps,
    };

    const LANES: usize = 8;
    type V = __m256;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn splat(x: f32) -> V {
        _mm256_set1_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(from: &[f32; LANES]) -> V {
        // SAFETY: the array has the eight floats that are read; no alignment is asked for.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn store(to: &mut [f32; LANES], v: V) {
        // SAFETY: the array has room for the eight floats; no alignment is asked for.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn add(a: V, b: V) -> V {
        _mm256_add_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn mul_add(a: V, b: V, c: V) -> V {
        _mm256_fmadd_ps(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn step(accumulator: V, factor: V, term: V) -> V {
        mul_add(factor, term, accumulator)
    }

    loops!(#[target_feature(enable = "avx2,fma")] accumulators: a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11);
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    const LANES: usize = 16;
    type V = __m512;

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn splat(x: f32) -> V {
        _mm512_set1_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(from: &[f32; LANES]) -> V {
        // SAFETY: the array has the sixteen floats that are read; no alignment is asked for.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(to: &mut [f32; LANES], v: V) {
        // SAFETY: the array has room for the sixteen floats; no alignment is asked for.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(a: V, b: V) -> V {
        _mm512_add_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn mul_add(a: V, b: V, c: V) -> V {
        _mm512_fmadd_ps(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn step(accumulator: V, factor: V, term: V) -> V {
        mul_add(factor, term, accumulator)
    }

    loops!(#[target_feature(enable = "avx512f")] accumulators: a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11);
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::{float32x4_t, vaddq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vst1q_f32};

    const LANES: usize = 4;
    type V = float32x4_t;

    #[inline]
    #[target_feature(enable = "neon")]
    fn splat(x: f32) -> V {
        vdupq_n_f32(x)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn load(from: &[f32; LANES]) -> V {
        // SAFETY: the array has the four floats that are read.
        unsafe { vld1q_f32(from.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn store(to: &mut [f32; LANES], v: V) {
        // SAFETY: the array has room for the four floats.
        unsafe { vst1q_f32(to.as_mut_ptr(), v) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn add(a: V, b: V) -> V {
        vaddq_f32(a, b)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn mul_add(a: V, b: V, c: V) -> V {
        vfmaq_f32(c, a, b)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn step(accumulator: V, factor: V, term: V) -> V {
        mul_add(factor, term, accumulator)
    }

    loops!(#[target_feature(enable = "neon")] accumulators: a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11 b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 b10 b11);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_computes_what_it_says() {
        let n = 2 * BLOCK;
        let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
        for level in SimdLevel::ALL {
            let Some(kernels) = Kernels::new(level) else {
                assert!(!level.is_available());
                continue;
            };
            assert_eq!(kernels.read(&a), (n * (n - 1) / 2) as f32, "{level}");
            let mut c = vec![0.0; n];
            kernels.triad(&mut c, &a, &b);
            assert!((0..n).all(|i| c[i] == a[i] + 3.0 * b[i]), "{level}");
            let accumulators = kernels.flops_per_iteration() / 2;
            let (first, last) = (kernels.fma(0), kernels.fma(100_000));
            assert!((first / accumulators as f32 - 0.5).abs() < 1e-3, "{level}: {first}");
            let mean = last / accumulators as f32;
            assert!((0.4..0.6).contains(&mean) && first != last, "{level}: {last}");
        }
    }

    #[test]
    fn short_and_uneven_slices_are_no_error() {
        for kernels in SimdLevel::ALL.into_iter().filter_map(Kernels::new) {
            assert_eq!(kernels.read(&[]), 0.0);
            kernels.triad(&mut [1.0; 3], &[1.0; 500], &[]);
        }
    }
}
