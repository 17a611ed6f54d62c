//! The level of x86-64 with vectors of 512 bits, by its instruction for the purpose.

use std::arch::x86_64::*;

use dlis_hw::{Hardware, SimdLevel};

use super::{Dot, DotWork, Ends};

/// Proof that the machine has AVX-512 (F, BW, DQ and VL) and its VNNI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Vnni(());

impl Dot for Avx512Vnni {
    const NAME: &'static str = "avx512-vnni";
    const LANES: usize = 16;
    const ROWS: usize = 8;
    const PAIR_ROWS: usize = 8;
    const OFFSET: i32 = 0;
    const SHARED_OFFSET: i32 = 0;
    const NEEDS_LIGHT: bool = false;
    const PAIRS: bool = false;
    type Ints = __m512i;
    type Floats = __m512;
    type Quads = __m512i;
    type Shared = __m512i;
    type Weights = __m512i;
    type Codes = __m512i;
    // Of every four lanes lane by lane, and code by code.
    type Tables = [__m512i; 2];

    fn new(hw: &Hardware) -> Option<Self> {
        // `hw` is a matter of choice; the proof is the processor's own word.
        let present = SimdLevel::Avx512.is_available() && is_x86_feature_detected!("avx512vnni");
        (present && hw.supports(SimdLevel::Avx512) && hw.has_flag("avx512_vnni")).then_some(Self(()))
    }

    fn vectorize<W: DotWork>(self, work: W) -> W::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
        fn enter<W: DotWork>(dot: Avx512Vnni, work: W) -> W::Output {
            work.run(dot)
        }
        // SAFETY: `self` proves that the machine has these features.
        unsafe { enter(self, work) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_dpbusd_epi32(sums, x, w) }
    }

    #[inline(always)]
    fn dot_shared(self, sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
        self.dot(sums, x, w)
    }

    #[inline(always)]
    fn prefetch(self, at: *const i8) {
        // SAFETY: a hint that faults on no address; part of the baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }

    #[inline(always)]
    fn quads(self, bytes: __m512i) -> __m512i {
        bytes
    }

    #[inline(always)]
    fn push(self, bytes: __m512i, next: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_or_si512(_mm512_srli_epi32::<8>(bytes), _mm512_slli_epi32::<24>(next)) }
    }

    #[inline(always)]
    unsafe fn broadcast(self, from: *const u8) -> __m512i {
        // SAFETY: `self` proves the features; four bytes are readable by the caller's promise.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn interleave(self, from: [*const u8; 4]) -> __m512i {
        // SAFETY: `self` proves the features; sixteen bytes are readable at each by the caller's promise.
        unsafe {
            let [a, b, c, d] = from.map(|from| _mm_loadu_si128(from.cast()));
            let ab = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
            let abcd = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(ab, c), d);
            // Four lanes' bytes of each into every quarter, and within each quarter its transpose.
            let quarters = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let transpose = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_shuffle_epi8(_mm512_permutexvar_epi32(quarters, abcd), _mm512_broadcast_i32x4(transpose))
        }
    }

    #[inline(always)]
    unsafe fn weights(self, from: *const i8) -> __m512i {
        // SAFETY: `self` proves the features; readable by the caller's promise.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn lone_weights(self, from: *const i8) -> __m512i {
        // SAFETY: passed on. Widening puts the zeros there.
        unsafe { self.bytes(from.cast()) }
    }

    #[inline(always)]
    unsafe fn some_weights(self, from: *const i8, lanes: usize) -> __m512i {
        #[expect(clippy::cast_possible_truncation, reason = "at most 16 bits are set")]
        let mask = ((1u32 << lanes) - 1) as __mmask16;
        // SAFETY: `self` proves the features; the lanes of the mask are readable by the caller's promise, and the
        // others are not read.
        unsafe { _mm512_maskz_loadu_epi32(mask, from.cast()) }
    }

    #[inline(always)]
    unsafe fn codes(self, from: *const u8) -> __m512i {
        // SAFETY: `self` proves the features; readable by the caller's promise.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn some_codes(self, from: *const u8, lanes: usize) -> __m512i {
        // SAFETY: passed on.
        unsafe { self.some_weights(from.cast(), lanes) }
    }

    #[inline(always)]
    unsafe fn tables(self, from: *const u8) -> [__m512i; 2] {
        // SAFETY: `self` proves the features; readable by the caller's promise.
        unsafe {
            let by_lane = _mm512_loadu_si512(from.cast());
            let transpose = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            [by_lane, _mm512_shuffle_epi8(by_lane, _mm512_broadcast_i32x4(transpose))]
        }
    }

    #[inline(always)]
    unsafe fn store_weights(self, to: *mut i8, weights: __m512i) {
        // SAFETY: `self` proves the features; writable by the caller's promise.
        unsafe { _mm512_storeu_si512(to.cast(), weights) }
    }

    #[inline(always)]
    fn decode<const PLACE: usize>(self, codes: __m512i, [by_lane, by_code]: [__m512i; 2]) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe {
            // What comes from the byte beside is masked out. One shift serves two places.
            let codes = if PLACE < 2 { codes } else { _mm512_srli_epi16::<4>(codes) };
            // Bytes are looked up among the sixteen of their own four lanes, by the lane of four and the code in the
            // order in which they need no further shift. The logic is `codes & mask | lane`.
            if PLACE.is_multiple_of(2) {
                let lane = _mm512_set4_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
                let places = _mm512_ternarylogic_epi32::<0xea>(codes, _mm512_set1_epi8(3), lane);
                _mm512_shuffle_epi8(by_lane, places)
            } else {
                let lane = _mm512_set4_epi32(0x0303_0303, 0x0202_0202, 0x0101_0101, 0);
                let places = _mm512_ternarylogic_epi32::<0xea>(codes, _mm512_set1_epi8(12), lane);
                _mm512_shuffle_epi8(by_code, places)
            }
        }
    }

    #[inline(always)]
    unsafe fn pairs(self, from: [*const u8; 2]) -> __m512i {
        // SAFETY: `self` proves the features; sixteen bytes are readable at both by the caller's promise.
        unsafe { _mm512_or_si512(self.bytes(from[0]), _mm512_slli_epi32::<16>(self.bytes(from[1]))) }
    }

    #[inline(always)]
    fn dot_pairs(self, sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_dpwssd_epi32(sums, x, w) }
    }

    #[inline(always)]
    unsafe fn words(self, from: *const u8) -> __m512i {
        // SAFETY: `self` proves the features; 32 bytes are readable by the caller's promise.
        unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    fn halves(self, weights: __m512i) -> [__m512i; 2] {
        // SAFETY: `self` proves the features.
        unsafe {
            let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(weights));
            [even, _mm512_srai_epi16::<8>(weights)]
        }
    }

    #[inline(always)]
    fn add_words(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_epi16(a, b) }
    }

    #[inline(always)]
    fn sub_words(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_sub_epi16(a, b) }
    }

    #[inline(always)]
    fn shift_words<const N: i32>(self, x: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe {
            const { assert!(N >= 1 && N <= 3, "up to three places") };
            match N {
                1 => _mm512_slli_epi16::<1>(x),
                2 => _mm512_slli_epi16::<2>(x),
                _ => _mm512_slli_epi16::<3>(x),
            }
        }
    }

    #[inline(always)]
    unsafe fn ints(self, from: *const i32) -> __m512i {
        // SAFETY: `self` proves the features; readable by the caller's promise.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> __m512i {
        // SAFETY: `self` proves the features; sixteen bytes are readable by the caller's promise.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn floats(self, from: *const f32) -> __m512 {
        // SAFETY: `self` proves the features; readable by the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_floats(self, to: *mut f32, x: __m512) {
        // SAFETY: `self` proves the features; writable by the caller's promise.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, x: __m512, ends: &Ends<Self>) {
        let Ends { bounds: [low, high], zero_point, .. } = *ends;
        // SAFETY: `self` proves the features; sixteen bytes are writable by the caller's promise.
        unsafe {
            let x = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x), x);
            let x = _mm512_min_ps(_mm512_max_ps(x, low), high);
            let whole = _mm512_add_epi32(_mm512_cvtps_epi32(x), zero_point);
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(whole));
        }
    }

    #[inline(always)]
    unsafe fn store_ints(self, to: *mut i32, x: __m512i) {
        // SAFETY: `self` proves the features; writable by the caller's promise.
        unsafe { _mm512_storeu_si512(to.cast(), x) }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn add_ints(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn mul_ints(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_mullo_epi32(a, b) }
    }

    #[inline(always)]
    fn shift_ints<const N: i32>(self, x: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe {
            const { assert!(N >= 1 && N <= 4, "up to four places") };
            match N {
                1 => _mm512_slli_epi32::<1>(x),
                2 => _mm512_slli_epi32::<2>(x),
                3 => _mm512_slli_epi32::<3>(x),
                _ => _mm512_slli_epi32::<4>(x),
            }
        }
    }

    #[inline(always)]
    fn part_64(self, x: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_srli_epi32::<6>(x) }
    }

    #[inline(always)]
    fn float(self, x: __m512i) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_mul_ps(a, b) }
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
}
