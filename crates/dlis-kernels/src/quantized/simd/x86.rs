//! The levels of x86-64 with vectors of 256 bits: AVX2 by sums of two products in 16 bits, AVX-VNNI by its instruction for
//! the purpose.

use std::arch::x86_64::*;

use dlis_hw::{Hardware, SimdLevel};

use super::sets::{dot_lanes_light, dot_set_light, dot_twice_light};
use super::{Dot, DotWork, Ends};

/// What the two levels of 256 bits share.
macro_rules! half {
    (
        $(#[$doc:meta])* $name:ident, $isa:literal, $features:literal = $($feature:tt)&&+, $flag:expr, offset $offset:literal,
        quads $quads:ty, prepare $prepare:ident, dot $dot:ident,
        needs light $needs_light:literal, pairs $pairs:literal $of_pairs:ident, shared $shared:ident $(, set $set:ident, twice $twice:ident, lanes $lanes:ident)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name(());

        impl Dot for $name {
            const NAME: &'static str = $isa;
            const LANES: usize = 8;
            const ROWS: usize = 4;
            const PAIR_ROWS: usize = 6;
            const OFFSET: i32 = $offset;
            const SHARED_OFFSET: i32 = 0;
            const NEEDS_LIGHT: bool = $needs_light;
            const PAIRS: bool = $pairs;
            type Ints = __m256i;
            type Floats = __m256;
            type Quads = $quads;
            type Shared = __m256i;
            type Weights = __m256i;
            type Codes = __m256i;
            type Tables = __m256i;

            fn new(hw: &Hardware) -> Option<Self> {
                // `hw` is a matter of choice; the proof is the processor's own word.
                let present = $(is_x86_feature_detected!($feature))&&+;
                let flag: Option<&str> = $flag;
                let wanted = hw.supports(SimdLevel::Avx2) && flag.is_none_or(|flag| hw.has_flag(flag));
                (present && wanted).then_some(Self(()))
            }

            fn vectorize<W: DotWork>(self, work: W) -> W::Output {
                #[target_feature(enable = $features)]
                fn enter<W: DotWork>(dot: $name, work: W) -> W::Output {
                    work.run(dot)
                }
                // SAFETY: `self` proves that the machine has these features.
                unsafe { enter(self, work) }
            }

            #[inline(always)]
            fn dot(self, sums: __m256i, x: $quads, w: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { $dot(sums, x, w) }
            }

            #[inline(always)]
            fn dot_shared(self, sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { $shared(sums, x, w) }
            }

            $(
                #[inline(always)]
                unsafe fn dot_set<const N: usize>(
                    self,
                    sums: __m256i,
                    from: *const u8,
                    places: [usize; N],
                    weights: [__m256i; N],
                ) -> __m256i {
                    // SAFETY: `self` proves the features; four bytes are readable at each place by the caller's promise.
                    unsafe { $set(sums, from, places, weights) }
                }

                #[inline(always)]
                unsafe fn dot_set_of_lanes<const N: usize>(
                    self,
                    sums: __m256i,
                    from: *const u8,
                    places: [usize; N],
                    weights: [__m256i; N],
                ) -> __m256i {
                    // SAFETY: `self` proves the features; a vector is readable at each place by the caller's promise.
                    unsafe { $lanes(sums, from, places, weights) }
                }

                #[inline(always)]
                unsafe fn dot_twice<const COLUMNS: usize>(
                    self,
                    sums: [__m256i; COLUMNS],
                    from: *const u8,
                    places: [usize; 2],
                    weights: [[__m256i; COLUMNS]; 2],
                ) -> [__m256i; COLUMNS] {
                    // SAFETY: as above.
                    unsafe { $twice(sums, from, places, weights) }
                }
            )?

            #[inline(always)]
            fn prefetch(self, at: *const i8) {
                // SAFETY: a hint that faults on no address; part of the baseline.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
            }

            #[inline(always)]
            fn quads(self, bytes: __m256i) -> $quads {
                // SAFETY: `self` proves the features.
                unsafe { $prepare(bytes) }
            }

            #[inline(always)]
            fn push(self, bytes: __m256i, next: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_or_si256(_mm256_srli_epi32::<8>(bytes), _mm256_slli_epi32::<24>(next)) }
            }

            #[inline(always)]
            unsafe fn broadcast(self, from: *const u8) -> __m256i {
                // SAFETY: `self` proves the features; four bytes are readable by the caller's promise.
                unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
            }

            #[inline(always)]
            unsafe fn interleave(self, from: [*const u8; 4]) -> $quads {
                // SAFETY: `self` proves the features; eight bytes are readable at each by the caller's promise.
                unsafe {
                    let [a, b, c, d] = from.map(|from| _mm_loadl_epi64(from.cast()));
                    let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
                    $prepare(_mm256_set_m128i(_mm_unpackhi_epi16(ab, cd), _mm_unpacklo_epi16(ab, cd)))
                }
            }

            #[inline(always)]
            unsafe fn weights(self, from: *const i8) -> __m256i {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }

            #[inline(always)]
            unsafe fn weights_of_all(self, from: *const i8) -> __m256i {
                // SAFETY: passed on.
                unsafe { self.broadcast(from.cast()) }
            }

            #[inline(always)]
            unsafe fn transpose(self, from: &[*const u8], offset: usize, to: *mut u8, stride: usize) {
                // SAFETY: `self` proves the features; readable and writable by the caller's promise.
                unsafe { transpose(from, offset, to, stride) }
            }

            #[inline(always)]
            unsafe fn lone_weights(self, from: *const i8) -> __m256i {
                // SAFETY: passed on. Widening puts the zeros there.
                unsafe { self.bytes(from.cast()) }
            }

            #[inline(always)]
            unsafe fn some_weights(self, from: *const i8, lanes: usize) -> __m256i {
                // SAFETY: `self` proves the features; the first lanes are readable by the caller's promise, and
                // lanes whose mask is zero are not read.
                unsafe {
                    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                    let count = _mm256_set1_epi32(i32::try_from(lanes).unwrap_or(0));
                    _mm256_maskload_epi32(from.cast(), _mm256_cmpgt_epi32(count, lane))
                }
            }

            #[inline(always)]
            unsafe fn codes(self, from: *const u8) -> __m256i {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }

            #[inline(always)]
            unsafe fn some_codes(self, from: *const u8, lanes: usize) -> __m256i {
                // SAFETY: passed on.
                unsafe { self.some_weights(from.cast(), lanes) }
            }

            #[inline(always)]
            unsafe fn tables(self, from: *const u8) -> __m256i {
                // SAFETY: passed on.
                unsafe { self.codes(from) }
            }

            #[inline(always)]
            unsafe fn store_weights(self, to: *mut i8, weights: __m256i) {
                // SAFETY: `self` proves the features; writable by the caller's promise.
                unsafe { _mm256_storeu_si256(to.cast(), weights) }
            }

            #[inline(always)]
            fn decode<const PLACE: usize>(self, codes: __m256i, tables: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { decode::<PLACE>(codes, tables) }
            }

            #[inline(always)]
            unsafe fn pairs(self, from: [*const u8; 2]) -> __m256i {
                // SAFETY: `self` proves the features; eight bytes are readable at both by the caller's promise.
                unsafe {
                    let [low, high] = from.map(|from| _mm_loadl_epi64(from.cast()));
                    _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(low, high))
                }
            }

            #[inline(always)]
            fn dot_pairs(self, sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { $of_pairs(sums, x, w) }
            }

            #[inline(always)]
            unsafe fn words(self, from: *const u8) -> __m256i {
                // SAFETY: `self` proves the features; sixteen bytes are readable by the caller's promise.
                unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) }
            }

            #[inline(always)]
            fn halves(self, weights: __m256i) -> [__m256i; 2] {
                // SAFETY: `self` proves the features.
                unsafe {
                    let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights));
                    [even, _mm256_srai_epi16::<8>(weights)]
                }
            }

            #[inline(always)]
            fn add_words(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_add_epi16(a, b) }
            }

            #[inline(always)]
            fn sub_words(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_sub_epi16(a, b) }
            }

            #[inline(always)]
            fn shift_words<const N: i32>(self, x: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_slli_epi16::<N>(x) }
            }

            #[inline(always)]
            unsafe fn ints(self, from: *const i32) -> __m256i {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { _mm256_loadu_si256(from.cast()) }
            }

            #[inline(always)]
            unsafe fn bytes(self, from: *const u8) -> __m256i {
                // SAFETY: `self` proves the features; eight bytes are readable by the caller's promise.
                unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())) }
            }

            #[inline(always)]
            unsafe fn floats(self, from: *const f32) -> __m256 {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { _mm256_loadu_ps(from) }
            }

            #[inline(always)]
            unsafe fn store_floats(self, to: *mut f32, x: __m256) {
                // SAFETY: `self` proves the features; writable by the caller's promise.
                unsafe { _mm256_storeu_ps(to, x) }
            }

            #[inline(always)]
            unsafe fn store_bytes(self, to: *mut u8, x: __m256, ends: &Ends<Self>) {
                let Ends { bounds: [low, high], zero_point, .. } = *ends;
                // SAFETY: `self` proves the features; eight bytes are writable by the caller's promise.
                unsafe {
                    let x = _mm256_and_ps(x, _mm256_cmp_ps::<_CMP_ORD_Q>(x, x));
                    let x = _mm256_min_ps(_mm256_max_ps(x, low), high);
                    let whole = _mm256_add_epi32(_mm256_cvtps_epi32(x), zero_point);
                    let (first, last) = (_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
                    let words = _mm_packs_epi32(first, last);
                    _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words));
                }
            }

            #[inline(always)]
            unsafe fn store_four(self, [to_0, to_1, to_2, to_3]: [*mut u8; 4], x: [__m256; 4], ends: &Ends<Self>) {
                // SAFETY: `self` proves the features; eight bytes are writable at each by the caller's promise.
                unsafe {
                    let bytes = pack(x, ends.packed);
                    let (first, last) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
                    let (low, high) = (_mm_unpacklo_epi32(first, last), _mm_unpackhi_epi32(first, last));
                    _mm_storel_epi64(to_0.cast(), low);
                    store_upper(to_1, low);
                    _mm_storel_epi64(to_2.cast(), high);
                    store_upper(to_3, high);
                }
            }

            #[inline(always)]
            fn side_by_side(self, x: [__m256; 4], ends: &Ends<Self>) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe {
                    let order = _mm256_setr_epi8(
                        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3,
                        7, 11, 15,
                    );
                    _mm256_shuffle_epi8(pack(x, ends.packed), order)
                }
            }

            #[inline(always)]
            unsafe fn store_ints(self, to: *mut i32, x: __m256i) {
                // SAFETY: `self` proves the features; writable by the caller's promise.
                unsafe { _mm256_storeu_si256(to.cast(), x) }
            }

            #[inline(always)]
            fn splat_int(self, x: i32) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_set1_epi32(x) }
            }

            #[inline(always)]
            fn splat(self, x: f32) -> __m256 {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_set1_ps(x) }
            }

            #[inline(always)]
            fn sub(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_sub_epi32(a, b) }
            }

            #[inline(always)]
            fn add_ints(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_add_epi32(a, b) }
            }

            #[inline(always)]
            fn mul_ints(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_mullo_epi32(a, b) }
            }

            #[inline(always)]
            fn shift_ints<const N: i32>(self, x: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_slli_epi32::<N>(x) }
            }

            #[inline(always)]
            fn part_64(self, x: __m256i) -> __m256i {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_srli_epi32::<6>(x) }
            }

            #[inline(always)]
            fn float(self, x: __m256i) -> __m256 {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_cvtepi32_ps(x) }
            }

            #[inline(always)]
            fn mul(self, a: __m256, b: __m256) -> __m256 {
                // SAFETY: `self` proves the features.
                unsafe { _mm256_mul_ps(a, b) }
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
        }
    };
}

half!(
    /// Proof that the machine has AVX2.
    Avx2, "avx2", "avx2,fma" = "avx2" && "fma", None, offset 128,
    quads (__m256i, __m256i), prepare magnitudes, dot dot_by_magnitudes,
    needs light true, pairs true dot_pairs, shared dot_light, set dot_set_light, twice dot_twice_light, lanes dot_lanes_light
);
half!(
    /// Proof that the machine has AVX-VNNI, the instruction of AVX-512 VNNI for vectors of 256 bits.
    AvxVnni, "avx2-vnni", "avx2,fma,avxvnni" = "avx2" && "fma" && "avxvnni", Some("avx_vnni"), offset 0,
    quads __m256i, prepare as_is, dot dot_vnni,
    needs light false, pairs false dot_pairs_vnni, shared dot_vnni
);

/// `x - 128`, a signed byte, and its absolute value.
#[target_feature(enable = "avx2")]
#[inline]
fn magnitudes(x: __m256i) -> (__m256i, __m256i) {
    let signed = _mm256_xor_si256(x, _mm256_set1_epi8(-128));
    (signed, _mm256_abs_epi8(signed))
}

/// The instruction that multiplies bytes saturates at 16 bits, which two products of a byte up to 255 exceed.
/// So the byte is taken less 128, and its sign moved over to the weight: magnitudes are at most 128, the
/// weights' 127, and two products at most 32512.
#[target_feature(enable = "avx2")]
#[inline]
fn dot_by_magnitudes(sums: __m256i, (signed, magnitude): (__m256i, __m256i), w: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, signed));
    _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// Of light weights, no two products saturate.
#[target_feature(enable = "avx2")]
#[inline]
fn dot_light(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)))
}

/// The instruction looks bytes up among the sixteen of its own four lanes: a code is counted from its lane's first.
#[target_feature(enable = "avx2")]
#[inline]
fn decode<const PLACE: usize>(codes: __m256i, tables: __m256i) -> __m256i {
    // What comes from the byte beside is masked out.
    let codes = match PLACE {
        0 => codes,
        1 => _mm256_srli_epi16::<2>(codes),
        2 => _mm256_srli_epi16::<4>(codes),
        _ => _mm256_srli_epi16::<6>(codes),
    };
    let first = _mm256_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c, 0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
    _mm256_shuffle_epi8(tables, _mm256_or_si256(_mm256_and_si256(codes, _mm256_set1_epi8(3)), first))
}

/// Eight rows of eight words as columns. Halves of two rows are put together as they are read, which leaves less to shuffle.
///
/// # Safety
///
/// Of eight places, eight words at `offset` must be readable, and as many writable at each multiple of `stride`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn transpose(from: &[*const u8], offset: usize, to: *mut u8, stride: usize) {
    let rows = |first: usize, offset: usize| {
        // SAFETY: half a row of eight words, by the caller's promise.
        let half = |row: usize| unsafe { _mm_loadu_si128(from[row].add(offset).cast()) };
        _mm256_set_m128i(half(first + 4), half(first))
    };
    for half in 0..2 {
        let of = offset + 16 * half;
        let [a, b, c, d] = [rows(0, of), rows(1, of), rows(2, of), rows(3, of)];
        let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
        let columns = [
            _mm256_unpacklo_epi64(ab, cd),
            _mm256_unpackhi_epi64(ab, cd),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ];
        for (index, column) in columns.into_iter().enumerate() {
            // SAFETY: a column of eight words, by the caller's promise.
            unsafe { _mm256_storeu_si256(to.add((4 * half + index) * stride).cast(), column) };
        }
    }
}

/// Writes the upper eight bytes, wherever: the intrinsic for the purpose asks for the alignment of a number.
///
/// # Safety
///
/// Eight bytes must be writable.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store_upper(to: *mut u8, bytes: __m128i) {
    // SAFETY: by the caller's promise.
    unsafe { to.cast::<i64>().write_unaligned(_mm_extract_epi64::<1>(bytes)) }
}

/// Numbers within 32 bits as bytes: of each half of the four vectors the four in their order. Packing saturates, so that
/// what is left to do at the ends is done for all of them at once.
#[target_feature(enable = "avx2")]
#[inline]
fn pack([a, b, c, d]: [__m256; 4], [low, high, zero_point]: [__m256i; 3]) -> __m256i {
    let ab = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
    let cd = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
    let (ab, cd) = (_mm256_adds_epi16(ab, zero_point), _mm256_adds_epi16(cd, zero_point));
    _mm256_min_epu8(_mm256_max_epu8(_mm256_packus_epi16(ab, cd), low), high)
}

#[target_feature(enable = "avx2")]
#[inline]
fn as_is(x: __m256i) -> __m256i {
    x
}

#[target_feature(enable = "avx2")]
#[inline]
fn dot_pairs(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(x, w))
}

#[target_feature(enable = "avx2,avxvnni")]
#[inline]
fn dot_pairs_vnni(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
    _mm256_dpwssd_avx_epi32(sums, x, w)
}

#[target_feature(enable = "avx2,avxvnni")]
#[inline]
fn dot_vnni(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
    _mm256_dpbusd_avx_epi32(sums, x, w)
}
