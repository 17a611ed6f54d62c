//! The levels of x86-64: AVX2 with FMA (and F16C, which no processor has them without), vectors of eight; AVX-512 (F, BW, DQ and VL, as on every server since
//! 2017), vectors of sixteen.

use std::arch::x86_64::*;

use dlis_hw::{Hardware, SimdLevel};

use super::{Simd, Work};

/// Defines the token of a level: its instructions differ in name and width alone.
macro_rules! level {
    (
        $name:ident, $vector:ident, $lanes:literal of $registers:literal, $features:literal = $($feature:tt)&&+,
        $set1:ident $fmadd:ident $add:ident $sub:ident $max:ident $min:ident $loadu:ident $storeu:ident,
        $load_halves:ident $widen:ident $extend:ident $multiply:ident $splat_int:ident $store_ints:ident,
        $and:ident $load_even:ident $quads:ident $fourfold:ident $load_where:ident $load_even_where:ident,
        $shift_up:ident $shift_down:ident $even_of_two:ident $odd_of_two:ident $permute:ident $splat_half:ident $or_nan:ident
    ) => {
        #[doc = concat!("Proof that the machine has ", $features, ".")]
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name(());

        impl Simd for $name {
            const LEVEL: SimdLevel = SimdLevel::$name;
            const LANES: usize = $lanes;
            const REGISTERS: usize = $registers;
            type Vector = $vector;

            fn new(hw: &Hardware) -> Option<Self> {
                // `hw` may limit the levels, but it is plain data that a caller can fill in: the proof is the
                // processor's own word.
                let present = $(is_x86_feature_detected!($feature))&&+;
                (present && hw.supports(Self::LEVEL)).then_some(Self(()))
            }

            fn vectorize<W: Work>(self, work: W) -> W::Output {
                #[target_feature(enable = $features)]
                fn enter<W: Work>(simd: $name, work: W) -> W::Output {
                    work.run(simd)
                }
                // SAFETY: `self` proves that the machine has these features.
                unsafe { enter(self, work) }
            }

            #[inline(always)]
            fn splat(self, x: f32) -> $vector {
                // SAFETY: `self` proves the features.
                unsafe { $set1(x) }
            }

            #[inline(always)]
            fn splat_half(self, half: u16) -> $vector {
                // SAFETY: `self` proves the features.
                unsafe { $widen($splat_half(half.cast_signed())) }
            }

            #[inline(always)]
            fn mul_add(self, a: $vector, b: $vector, c: $vector) -> $vector {
                // SAFETY: `self` proves the features.
                unsafe { $fmadd(a, b, c) }
            }

            #[inline(always)]
            fn add(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: `self` proves the features.
                unsafe { $add(a, b) }
            }

            #[inline(always)]
            fn sub(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: `self` proves the features.
                unsafe { $sub(a, b) }
            }

            #[inline(always)]
            fn at_least(self, x: $vector, bound: $vector) -> $vector {
                // SAFETY: `self` proves the features. The instruction returns its second operand if either is NaN.
                unsafe { $max(bound, x) }
            }

            #[inline(always)]
            fn at_most(self, x: $vector, bound: $vector) -> $vector {
                // SAFETY: `self` proves the features. The instruction returns its second operand if either is NaN.
                unsafe { $min(bound, x) }
            }

            #[inline(always)]
            fn greater(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: `self` proves the features. As above, so that only NaN of `a` is lost.
                unsafe { $or_nan($max(a, b), a) }
            }

            #[inline(always)]
            fn prefetch(self, at: *const f32) {
                // SAFETY: a hint that faults on no address; part of the baseline.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
            }

            #[inline(always)]
            fn prefetch_far(self, at: *const u8) {
                // SAFETY: as above.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
            }

            #[inline(always)]
            unsafe fn load(self, from: *const f32) -> $vector {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { $loadu(from) }
            }

            #[inline(always)]
            unsafe fn load_half(self, from: *const u16) -> $vector {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { $widen($load_halves(from.cast())) }
            }

            #[inline(always)]
            unsafe fn scale_u16(self, from: *const u16, factor: u32, to: *mut u32) {
                // SAFETY: `self` proves the features; readable and writable by the caller's promise.
                unsafe {
                    let numbers = $extend($load_halves(from.cast()));
                    $store_ints(to.cast(), $multiply(numbers, $splat_int(factor.cast_signed())));
                }
            }

            #[inline(always)]
            unsafe fn load_even(self, from: *const f32) -> $vector {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { $load_even(from) }
            }

            #[inline(always)]
            fn shift_up(self, before: $vector, x: $vector) -> $vector {
                // SAFETY: `self` proves the features.
                unsafe { $shift_up(before, x) }
            }

            #[inline(always)]
            fn shift_down(self, x: $vector, after: $vector) -> $vector {
                // SAFETY: `self` proves the features.
                unsafe { $shift_down(x, after) }
            }

            #[inline(always)]
            fn unzip(self, low: $vector, high: $vector) -> ($vector, $vector) {
                // SAFETY: `self` proves the features.
                unsafe { ($even_of_two(low, high), $odd_of_two(low, high)) }
            }

            #[inline(always)]
            unsafe fn permute(self, x: $vector, places: *const u32) -> $vector {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { $permute(x, places) }
            }

            #[inline(always)]
            unsafe fn load_where(self, from: *const f32, which: u32) -> $vector {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { $load_where(from, which) }
            }

            #[inline(always)]
            unsafe fn load_even_where(self, from: *const f32, which: u32) -> $vector {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { $load_even_where(from, which) }
            }

            #[inline(always)]
            unsafe fn and(self, x: $vector, masks: *const u32) -> $vector {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { $and(x, $loadu(masks.cast())) }
            }

            #[inline(always)]
            unsafe fn load_quads(self, from: *const f32, places: *const u16) -> $vector {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { $quads(from, places) }
            }

            #[inline(always)]
            unsafe fn load_fourfold(self, from: *const f32) -> $vector {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { $fourfold(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32, x: $vector) {
                // SAFETY: `self` proves the features; writable by the caller's promise.
                unsafe { $storeu(to, x) }
            }
        }
    };
}

/// Every second of the sixteen elements at `from`.
///
/// # Safety
///
/// The machine has AVX2, and the elements are readable.
#[inline(always)]
unsafe fn even_of_sixteen(from: *const f32) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe { even_of_two_eights(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
}

/// Every second element of two vectors.
///
/// # Safety
///
/// The machine has AVX2.
#[inline(always)]
unsafe fn even_of_two_eights(low: __m256, high: __m256) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe {
        // Pairs of two of each, by halves: the middle two of the four change places.
        let pairs = _mm256_shuffle_ps::<0b10_00_10_00>(low, high);
        _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(pairs)))
    }
}

/// The elements of the eight at `from` whose bits are set; zeros elsewhere.
///
/// # Safety
///
/// The machine has AVX2, and those elements are readable.
#[inline(always)]
unsafe fn some_of_eight(from: *const f32, which: u32) -> __m256 {
    // SAFETY: by the caller's promise; what is masked is not read.
    unsafe {
        let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        let set = _mm256_and_si256(_mm256_set1_epi32(which.cast_signed()), bits);
        _mm256_maskload_ps(from, _mm256_cmpeq_epi32(set, bits))
    }
}

/// Every second of the sixteen elements at `from` of those whose bits are set; zeros elsewhere.
///
/// # Safety
///
/// The machine has AVX2, and those elements are readable.
#[inline(always)]
unsafe fn even_of_some_of_sixteen(from: *const f32, which: u32) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe { even_of_two_eights(some_of_eight(from, which), some_of_eight(from.wrapping_add(8), which >> 8)) }
}

/// The other elements of two vectors.
///
/// # Safety
///
/// The machine has AVX2.
#[inline(always)]
unsafe fn odd_of_two_eights(low: __m256, high: __m256) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe {
        let pairs = _mm256_shuffle_ps::<0b11_01_11_01>(low, high);
        _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(pairs)))
    }
}

/// The last element of one vector, then all but the last of another.
///
/// # Safety
///
/// The machine has AVX2.
#[inline(always)]
unsafe fn eight_shifted_up(before: __m256, x: __m256) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe {
        // The upper half of the one and the lower of the other, which come before the halves of the other.
        let behind = _mm256_castps_si256(_mm256_permute2f128_ps::<0x21>(before, x));
        _mm256_castsi256_ps(_mm256_alignr_epi8::<12>(_mm256_castps_si256(x), behind))
    }
}

/// All but the first element of one vector, then the first of another.
///
/// # Safety
///
/// The machine has AVX2.
#[inline(always)]
unsafe fn eight_shifted_down(x: __m256, after: __m256) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe {
        let ahead = _mm256_castps_si256(_mm256_permute2f128_ps::<0x21>(x, after));
        _mm256_castsi256_ps(_mm256_alignr_epi8::<4>(ahead, _mm256_castps_si256(x)))
    }
}

/// The elements in these places, and zeros for those from eight on.
///
/// # Safety
///
/// The machine has AVX2, and the places are readable.
#[inline(always)]
unsafe fn permuted_eight(x: __m256, places: *const u32) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe {
        let places = _mm256_loadu_si256(places.cast());
        let there = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(8), places));
        _mm256_and_ps(_mm256_permutevar8x32_ps(x, places), there)
    }
}

/// As [`odd_of_two_eights`].
///
/// # Safety
///
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn odd_of_two_sixteens(low: __m512, high: __m512) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe {
        let places = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        _mm512_permutex2var_ps(low, places, high)
    }
}

/// As [`eight_shifted_up`].
///
/// # Safety
///
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn sixteen_shifted_up(before: __m512, x: __m512) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_castsi512_ps(_mm512_alignr_epi32::<15>(_mm512_castps_si512(x), _mm512_castps_si512(before))) }
}

/// As [`eight_shifted_down`].
///
/// # Safety
///
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn sixteen_shifted_down(x: __m512, after: __m512) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_castsi512_ps(_mm512_alignr_epi32::<1>(_mm512_castps_si512(after), _mm512_castps_si512(x))) }
}

/// The elements in these places, and zeros for those from sixteen on.
///
/// # Safety
///
/// The machine has AVX-512 F, and the places are readable.
#[inline(always)]
unsafe fn permuted_sixteen(x: __m512, places: *const u32) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_permutex2var_ps(x, _mm512_loadu_si512(places.cast()), _mm512_setzero_ps()) }
}

/// Four elements at each of two places.
///
/// # Safety
///
/// The machine has AVX2, and places and elements are readable.
#[inline(always)]
unsafe fn two_quads(from: *const f32, places: *const u16) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe {
        let quad = |index: usize| _mm_loadu_ps(from.add(usize::from(*places.add(index))));
        _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(quad(0)), quad(1))
    }
}

/// Each of two elements four times.
///
/// # Safety
///
/// The machine has AVX2, and the elements are readable.
#[inline(always)]
unsafe fn two_fourfold(from: *const f32) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe {
        let both = _mm256_castsi256_ps(_mm256_castsi128_si256(_mm_loadl_epi64(from.cast())));
        _mm256_permutevar8x32_ps(both, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))
    }
}

/// Four elements at each of four places.
///
/// # Safety
///
/// The machine has AVX-512 F and DQ, and places and elements are readable.
#[inline(always)]
unsafe fn four_quads(from: *const f32, places: *const u16) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe {
        let (low, high) = (two_quads(from, places), two_quads(from, places.add(2)));
        _mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high)
    }
}

/// Each of four elements four times.
///
/// # Safety
///
/// The machine has AVX-512 F, and the elements are readable.
#[inline(always)]
unsafe fn four_fourfold(from: *const f32) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe {
        let places = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        _mm512_permutexvar_ps(places, _mm512_castps128_ps512(_mm_loadu_ps(from)))
    }
}

/// Every second of the 32 elements at `from`.
///
/// # Safety
///
/// The machine has AVX-512 F, and the elements are readable.
#[inline(always)]
unsafe fn even_of_thirty_two(from: *const f32) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe { even_of_two_sixteens(_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))) }
}

/// Every second element of two vectors.
///
/// # Safety
///
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn even_of_two_sixteens(low: __m512, high: __m512) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe {
        let places = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        _mm512_permutex2var_ps(low, places, high)
    }
}

/// The elements of the sixteen at `from` whose bits are set; zeros elsewhere.
///
/// # Safety
///
/// The machine has AVX-512 F, and those elements are readable.
#[inline(always)]
unsafe fn some_of_sixteen(from: *const f32, which: u32) -> __m512 {
    // SAFETY: by the caller's promise; what is masked is not read.
    unsafe { _mm512_maskz_loadu_ps((which & 0xffff) as u16, from) }
}

/// Every second of the 32 elements at `from` of those whose bits are set; zeros elsewhere.
///
/// # Safety
///
/// The machine has AVX-512 F, and those elements are readable.
#[inline(always)]
unsafe fn even_of_some_of_thirty_two(from: *const f32, which: u32) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe { even_of_two_sixteens(some_of_sixteen(from, which), some_of_sixteen(from.wrapping_add(16), which >> 16)) }
}

/// `x`, and `y` where that is NaN.
///
/// # Safety
///
/// The machine has AVX2.
#[inline(always)]
unsafe fn eight_or_nan(x: __m256, y: __m256) -> __m256 {
    // SAFETY: by the caller's promise.
    unsafe { _mm256_blendv_ps(x, y, _mm256_cmp_ps::<_CMP_UNORD_Q>(y, y)) }
}

/// The same.
///
/// # Safety
///
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn sixteen_or_nan(x: __m512, y: __m512) -> __m512 {
    // SAFETY: by the caller's promise.
    unsafe { _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(y, y), y) }
}

level!(
    Avx2, __m256, 8 of 16, "avx2,fma,f16c" = "avx2" && "fma" && "f16c",
    _mm256_set1_ps _mm256_fmadd_ps _mm256_add_ps _mm256_sub_ps _mm256_max_ps _mm256_min_ps _mm256_loadu_ps _mm256_storeu_ps,
    _mm_loadu_si128 _mm256_cvtph_ps _mm256_cvtepu16_epi32 _mm256_mullo_epi32 _mm256_set1_epi32 _mm256_storeu_si256,
    _mm256_and_ps even_of_sixteen two_quads two_fourfold some_of_eight even_of_some_of_sixteen,
    eight_shifted_up eight_shifted_down even_of_two_eights odd_of_two_eights permuted_eight _mm_set1_epi16 eight_or_nan
);
level!(
    Avx512, __m512, 16 of 32,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma" = "avx512f" && "avx512bw" && "avx512dq" && "avx512vl" && "avx2" && "fma",
    _mm512_set1_ps _mm512_fmadd_ps _mm512_add_ps _mm512_sub_ps _mm512_max_ps _mm512_min_ps _mm512_loadu_ps _mm512_storeu_ps,
    _mm256_loadu_si256 _mm512_cvtph_ps _mm512_cvtepu16_epi32 _mm512_mullo_epi32 _mm512_set1_epi32 _mm512_storeu_si512,
    _mm512_and_ps even_of_thirty_two four_quads four_fourfold some_of_sixteen even_of_some_of_thirty_two,
    sixteen_shifted_up sixteen_shifted_down even_of_two_sixteens odd_of_two_sixteens permuted_sixteen _mm256_set1_epi16 sixteen_or_nan
);
