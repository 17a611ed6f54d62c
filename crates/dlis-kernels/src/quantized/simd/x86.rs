//! The levels of x86-64 with vectors of 256 bits: AVX2 by sums of two products in 16 bits, AVX-VNNI by its instruction for
//! the purpose.

use std::arch::asm;
use std::arch::x86_64::*;

use dlis_hw::{Hardware, SimdLevel};

use super::{Dot, DotWork};

/// What the two levels of 256 bits share.
macro_rules! half {
    (
        $(#[$doc:meta])* $name:ident, $isa:literal, $features:literal = $($feature:tt)&&+, $flag:expr, offset $offset:literal,
        quads $quads:ty, prepare $prepare:ident, dot $dot:ident,
        needs light $needs_light:literal, pairs $pairs:literal $of_pairs:ident, shared $shared:ident $(, set $set:ident, twice $twice:ident)?
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
            unsafe fn store_bytes(self, to: *mut u8, x: __m256, [low, high]: [__m256; 2], zero_point: __m256i) {
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
    needs light true, pairs true dot_pairs, shared dot_light, set dot_set_light, twice dot_twice_light
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

/// Of weights that are light together, all products of a place fit 16 bits together, and are widened once.
///
/// In assembly, as the compiler moves the loads of all pixels before their arithmetic and runs out of registers.
///
/// # Safety
///
/// Four bytes must be readable at four times each of `places` from `from` on.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn dot_set_light<const N: usize>(
    mut sums: __m256i,
    from: *const u8,
    places: [usize; N],
    weights: [__m256i; N],
) -> __m256i {
    const { assert!(N == 2 || N == 4, "sets are of two or four") };
    match (places.as_slice(), weights.as_slice()) {
        // SAFETY: each reads the bytes promised and writes registers alone.
        (&[a, b], &[w_a, w_b]) => unsafe {
            asm!(
                "vpbroadcastd {x}, dword ptr [{from} + 4 * {a}]",
                "vpbroadcastd {y}, dword ptr [{from} + 4 * {b}]",
                "vpmaddubsw {x}, {x}, {w_a}",
                "vpmaddubsw {y}, {y}, {w_b}",
                "vpaddw {x}, {x}, {y}",
                "vpmaddwd {x}, {x}, {ones}",
                "vpaddd {sums}, {sums}, {x}",
                x = out(ymm_reg) _,
                y = out(ymm_reg) _,
                sums = inout(ymm_reg) sums,
                from = in(reg) from,
                a = in(reg) a,
                b = in(reg) b,
                w_a = in(ymm_reg) w_a,
                w_b = in(ymm_reg) w_b,
                ones = in(ymm_reg) _mm256_set1_epi16(1),
                options(pure, readonly, nostack, preserves_flags)
            );
        },
        // SAFETY: as above.
        (&[a, b, c, d], &[w_a, w_b, w_c, w_d]) => unsafe {
            asm!(
                "vpbroadcastd {x}, dword ptr [{from} + 4 * {a}]",
                "vpbroadcastd {y}, dword ptr [{from} + 4 * {b}]",
                "vpmaddubsw {x}, {x}, {w_a}",
                "vpmaddubsw {y}, {y}, {w_b}",
                "vpaddw {x}, {x}, {y}",
                "vpbroadcastd {y}, dword ptr [{from} + 4 * {c}]",
                "vpmaddubsw {y}, {y}, {w_c}",
                "vpaddw {x}, {x}, {y}",
                "vpbroadcastd {y}, dword ptr [{from} + 4 * {d}]",
                "vpmaddubsw {y}, {y}, {w_d}",
                "vpaddw {x}, {x}, {y}",
                "vpmaddwd {x}, {x}, {ones}",
                "vpaddd {sums}, {sums}, {x}",
                x = out(ymm_reg) _,
                y = out(ymm_reg) _,
                sums = inout(ymm_reg) sums,
                from = in(reg) from,
                a = in(reg) a,
                b = in(reg) b,
                c = in(reg) c,
                d = in(reg) d,
                w_a = in(ymm_reg) w_a,
                w_b = in(ymm_reg) w_b,
                w_c = in(ymm_reg) w_c,
                w_d = in(ymm_reg) w_d,
                ones = in(ymm_reg) _mm256_set1_epi16(1),
                options(pure, readonly, nostack, preserves_flags)
            );
        },
        _ => unreachable!("sets are of two or four"),
    }
    sums
}

/// The same of two places, the inputs of both columns loaded once. Eight sums of four pixels, four vectors of weights, two inputs and two products fill the
/// registers, so that the ones are read where they lie.
///
/// # Safety
///
/// As of [`dot_set_light`].
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn dot_twice_light<const COLUMNS: usize>(
    mut sums: [__m256i; COLUMNS],
    from: *const u8,
    places: [usize; 2],
    [first, second]: [[__m256i; COLUMNS]; 2],
) -> [__m256i; COLUMNS] {
    static ONES: [i16; 16] = [1; 16];
    if let (&[sum_0, sum_1], &[a_0, a_1], &[b_0, b_1]) = (sums.as_slice(), first.as_slice(), second.as_slice()) {
        let (mut sum_0, mut sum_1) = (sum_0, sum_1);
        // SAFETY: reads the bytes promised and a vector of ones, and writes registers alone.
        unsafe {
            asm!(
                "vpbroadcastd {x}, dword ptr [{from} + 4 * {a}]",
                "vpbroadcastd {y}, dword ptr [{from} + 4 * {b}]",
                "vpmaddubsw {t}, {x}, {a_0}",
                "vpmaddubsw {u}, {y}, {b_0}",
                "vpaddw {t}, {t}, {u}",
                "vpmaddwd {t}, {t}, ymmword ptr [{ones}]",
                "vpaddd {sum_0}, {sum_0}, {t}",
                "vpmaddubsw {x}, {x}, {a_1}",
                "vpmaddubsw {y}, {y}, {b_1}",
                "vpaddw {x}, {x}, {y}",
                "vpmaddwd {x}, {x}, ymmword ptr [{ones}]",
                "vpaddd {sum_1}, {sum_1}, {x}",
                x = out(ymm_reg) _,
                y = out(ymm_reg) _,
                t = out(ymm_reg) _,
                u = out(ymm_reg) _,
                sum_0 = inout(ymm_reg) sum_0,
                sum_1 = inout(ymm_reg) sum_1,
                from = in(reg) from,
                a = in(reg) places[0],
                b = in(reg) places[1],
                a_0 = in(ymm_reg) a_0,
                a_1 = in(ymm_reg) a_1,
                b_0 = in(ymm_reg) b_0,
                b_1 = in(ymm_reg) b_1,
                ones = in(reg) &raw const ONES,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        sums[0] = sum_0;
        sums[1] = sum_1;
        return sums;
    }
    for (sum, (first, second)) in sums.iter_mut().zip(first.into_iter().zip(second)) {
        // SAFETY: as promised.
        *sum = unsafe { dot_set_light(*sum, from, places, [first, second]) };
    }
    sums
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
