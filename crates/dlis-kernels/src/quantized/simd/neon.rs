//! The levels of aarch64: Advanced SIMD by pairs of 16-bit products, and its extension for dot products by the
//! instruction for the purpose.
//!
//! Instructions multiply bytes that are both signed or both unsigned. So an unsigned byte is taken less 128.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use dlis_hw::{Hardware, SimdLevel};

use super::{Dot, DotWork, Ends};

/// Defines the token of a level: they differ in how they multiply alone.
macro_rules! level {
    (
        $(#[$doc:meta])* $name:ident, $isa:literal, $features:literal = $($feature:tt)&&+, $flag:expr, dot $dot:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name(());

        impl Dot for $name {
            const NAME: &'static str = $isa;
            const LANES: usize = 4;
            // Sixteen sums, two vectors each of weights, codes and tables, a broadcast and products: of 32 registers.
            const ROWS: usize = 8;
            const PAIR_ROWS: usize = 8;
            const OFFSET: i32 = 128;
            const SHARED_OFFSET: i32 = 128;
            const NEEDS_LIGHT: bool = false;
            const PAIRS: bool = false;
            type Ints = int32x4_t;
            type Floats = float32x4_t;
            // Less 128.
            type Quads = int8x16_t;
            type Shared = int8x16_t;
            type Weights = int8x16_t;
            type Codes = uint8x16_t;
            type Tables = uint8x16_t;

            fn new(hw: &Hardware) -> Option<Self> {
                // `hw` is a matter of choice; the proof is the processor's own word.
                let present = $(is_aarch64_feature_detected!($feature))&&+;
                let flag: Option<&str> = $flag;
                let wanted = hw.supports(SimdLevel::Neon) && flag.is_none_or(|flag| hw.has_flag(flag));
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
            fn dot(self, sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { $dot(sums, x, w) }
            }

            #[inline(always)]
            fn dot_shared(self, sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
                self.dot(sums, x, w)
            }

            #[inline(always)]
            fn prefetch(self, at: *const i8) {
                // In assembly, as the intrinsic is not stable yet.
                // SAFETY: a hint that faults on no address and changes neither memory nor registers; part of the
                // baseline.
                unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at.addr(), options(nomem, nostack, preserves_flags)) };
            }

            #[inline(always)]
            fn quads(self, bytes: int32x4_t) -> int8x16_t {
                // SAFETY: `self` proves the features.
                unsafe { signed(vreinterpretq_u8_s32(bytes)) }
            }

            #[inline(always)]
            fn push(self, bytes: int32x4_t, next: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe {
                    let rest = vshrq_n_u32::<8>(vreinterpretq_u32_s32(bytes));
                    vreinterpretq_s32_u32(vorrq_u32(rest, vshlq_n_u32::<24>(vreinterpretq_u32_s32(next))))
                }
            }

            #[inline(always)]
            unsafe fn broadcast(self, from: *const u8) -> int8x16_t {
                // SAFETY: `self` proves the features; four bytes are readable by the caller's promise.
                unsafe { signed(vreinterpretq_u8_u32(vdupq_n_u32(from.cast::<u32>().read_unaligned()))) }
            }

            #[inline(always)]
            unsafe fn interleave(self, from: [*const u8; 4]) -> int8x16_t {
                // SAFETY: `self` proves the features; four bytes are readable at each by the caller's promise.
                unsafe {
                    let [a, b, c, d] = from.map(|from| from.cast::<u32>().read_unaligned());
                    let rows = vsetq_lane_u32::<1>(b, vdupq_n_u32(a));
                    let rows = vsetq_lane_u32::<3>(d, vsetq_lane_u32::<2>(c, rows));
                    let transpose = vld1q_u8([0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15].as_ptr());
                    signed(vqtbl1q_u8(vreinterpretq_u8_u32(rows), transpose))
                }
            }

            #[inline(always)]
            unsafe fn weights(self, from: *const i8) -> int8x16_t {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { vld1q_s8(from) }
            }

            #[inline(always)]
            unsafe fn lone_weights(self, from: *const i8) -> int8x16_t {
                // SAFETY: passed on, and `self` proves the features. Widening puts the zeros there.
                unsafe { vreinterpretq_s8_s32(self.bytes(from.cast())) }
            }

            #[inline(always)]
            unsafe fn some_weights(self, from: *const i8, lanes: usize) -> int8x16_t {
                // SAFETY: passed on, and `self` proves the features.
                unsafe { vreinterpretq_s8_u8(self.some_codes(from.cast(), lanes)) }
            }

            #[inline(always)]
            unsafe fn codes(self, from: *const u8) -> uint8x16_t {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { vld1q_u8(from) }
            }

            #[inline(always)]
            unsafe fn some_codes(self, from: *const u8, lanes: usize) -> uint8x16_t {
                // SAFETY: `self` proves the features; lanes below `lanes` are readable by the caller's promise.
                unsafe {
                    let lane = |index: usize| from.cast::<u32>().add(index).read_unaligned();
                    let mut some = vdupq_n_u32(0);
                    if lanes > 0 {
                        some = vsetq_lane_u32::<0>(lane(0), some);
                    }
                    if lanes > 1 {
                        some = vsetq_lane_u32::<1>(lane(1), some);
                    }
                    if lanes > 2 {
                        some = vsetq_lane_u32::<2>(lane(2), some);
                    }
                    if lanes > 3 {
                        some = vsetq_lane_u32::<3>(lane(3), some);
                    }
                    vreinterpretq_u8_u32(some)
                }
            }

            #[inline(always)]
            unsafe fn tables(self, from: *const u8) -> uint8x16_t {
                // SAFETY: passed on.
                unsafe { self.codes(from) }
            }

            #[inline(always)]
            unsafe fn store_weights(self, to: *mut i8, weights: int8x16_t) {
                // SAFETY: `self` proves the features; writable by the caller's promise.
                unsafe { vst1q_s8(to, weights) }
            }

            #[inline(always)]
            fn decode<const PLACE: usize>(self, codes: uint8x16_t, tables: uint8x16_t) -> int8x16_t {
                // SAFETY: `self` proves the features.
                unsafe { decode::<PLACE>(codes, tables) }
            }

            #[inline(always)]
            unsafe fn pairs(self, from: [*const u8; 2]) -> int32x4_t {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { vorrq_s32(self.bytes(from[0]), vshlq_n_s32::<16>(self.bytes(from[1]))) }
            }

            #[inline(always)]
            fn dot_pairs(self, sums: int32x4_t, x: int32x4_t, w: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe {
                    let (x, w) = (vreinterpretq_s16_s32(x), vreinterpretq_s16_s32(w));
                    let low = vmull_s16(vget_low_s16(x), vget_low_s16(w));
                    vaddq_s32(sums, vpaddq_s32(low, vmull_high_s16(x, w)))
                }
            }

            #[inline(always)]
            unsafe fn words(self, from: *const u8) -> int32x4_t {
                // SAFETY: `self` proves the features; eight bytes are readable by the caller's promise.
                unsafe { vreinterpretq_s32_u16(vmovl_u8(vld1_u8(from))) }
            }

            #[inline(always)]
            fn halves(self, weights: int8x16_t) -> [int32x4_t; 2] {
                // SAFETY: `self` proves the features.
                unsafe {
                    let words = vreinterpretq_s16_s8(weights);
                    let even = vshrq_n_s16::<8>(vshlq_n_s16::<8>(words));
                    [vreinterpretq_s32_s16(even), vreinterpretq_s32_s16(vshrq_n_s16::<8>(words))]
                }
            }

            #[inline(always)]
            fn add_words(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b))) }
            }

            #[inline(always)]
            fn sub_words(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b))) }
            }

            #[inline(always)]
            fn shift_words<const N: i32>(self, x: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vreinterpretq_s32_s16(vshlq_n_s16::<N>(vreinterpretq_s16_s32(x))) }
            }

            #[inline(always)]
            unsafe fn ints(self, from: *const i32) -> int32x4_t {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { vld1q_s32(from) }
            }

            #[inline(always)]
            unsafe fn bytes(self, from: *const u8) -> int32x4_t {
                // SAFETY: `self` proves the features; four bytes are readable by the caller's promise.
                unsafe {
                    let bytes = vreinterpret_u8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
                    vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
                }
            }

            #[inline(always)]
            unsafe fn floats(self, from: *const f32) -> float32x4_t {
                // SAFETY: `self` proves the features; readable by the caller's promise.
                unsafe { vld1q_f32(from) }
            }

            #[inline(always)]
            unsafe fn store_floats(self, to: *mut f32, x: float32x4_t) {
                // SAFETY: `self` proves the features; writable by the caller's promise.
                unsafe { vst1q_f32(to, x) }
            }

            #[inline(always)]
            unsafe fn store_bytes(self, to: *mut u8, x: float32x4_t, ends: &Ends<Self>) {
                let Ends { bounds: [low, high], zero_point, .. } = *ends;
                // SAFETY: `self` proves the features; four bytes are writable by the caller's promise.
                unsafe {
                    let x = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vceqq_f32(x, x)));
                    let x = vminq_f32(vmaxq_f32(x, low), high);
                    let words = vmovn_s32(vaddq_s32(vcvtnq_s32_f32(x), zero_point));
                    let bytes = vmovn_s16(vcombine_s16(words, words));
                    to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_s8(bytes)));
                }
            }

            #[inline(always)]
            unsafe fn store_ints(self, to: *mut i32, x: int32x4_t) {
                // SAFETY: `self` proves the features; writable by the caller's promise.
                unsafe { vst1q_s32(to, x) }
            }

            #[inline(always)]
            fn splat_int(self, x: i32) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vdupq_n_s32(x) }
            }

            #[inline(always)]
            fn splat(self, x: f32) -> float32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vdupq_n_f32(x) }
            }

            #[inline(always)]
            fn sub(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vsubq_s32(a, b) }
            }

            #[inline(always)]
            fn add_ints(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vaddq_s32(a, b) }
            }

            #[inline(always)]
            fn mul_ints(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vmulq_s32(a, b) }
            }

            #[inline(always)]
            fn shift_ints<const N: i32>(self, x: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vshlq_n_s32::<N>(x) }
            }

            #[inline(always)]
            fn part_64(self, x: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vreinterpretq_s32_u32(vshrq_n_u32::<6>(vreinterpretq_u32_s32(x))) }
            }

            #[inline(always)]
            fn float(self, x: int32x4_t) -> float32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vcvtq_f32_s32(x) }
            }

            #[inline(always)]
            fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vmulq_f32(a, b) }
            }

            #[inline(always)]
            fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
                // SAFETY: `self` proves the features.
                unsafe { vaddq_f32(a, b) }
            }

            #[inline(always)]
            fn at_least(self, x: float32x4_t, bound: float32x4_t) -> float32x4_t {
                // SAFETY: `self` proves the features. The instruction returns NaN if either is.
                unsafe { vmaxq_f32(x, bound) }
            }

            #[inline(always)]
            fn at_most(self, x: float32x4_t, bound: float32x4_t) -> float32x4_t {
                // SAFETY: `self` proves the features. The instruction returns NaN if either is.
                unsafe { vminq_f32(x, bound) }
            }
        }
    };
}

level!(
    /// Proof that the machine has Advanced SIMD.
    Neon, "neon", "neon" = "neon", None, dot dot_by_pairs
);
level!(
    /// Proof that the machine has the dot products of Advanced SIMD.
    NeonDotprod, "neon-dotprod", "neon,dotprod" = "neon" && "dotprod", Some("asimddp"), dot dot_product
);

/// `x - 128`.
#[target_feature(enable = "neon")]
#[inline]
fn signed(x: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(0x80)))
}

/// Magnitudes of bytes are at most 128, the weights' 127, and two products at most 32512, which 16 bits hold.
#[target_feature(enable = "neon")]
#[inline]
fn dot_by_pairs(sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(x), vget_low_s8(w));
    vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(x, w)))
}

/// In assembly, as the intrinsic is not stable yet.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot_product(mut sums: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: this function is compiled for the feature, and the instruction touches nothing but these registers.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {x:v}.16b, {w:v}.16b",
            sums = inlateout(vreg) sums,
            x = in(vreg) x,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// The instruction looks bytes up among the sixteen of all lanes: a code is counted from its lane's first.
#[target_feature(enable = "neon")]
#[inline]
fn decode<const PLACE: usize>(codes: uint8x16_t, tables: uint8x16_t) -> int8x16_t {
    let codes = match PLACE {
        0 => codes,
        1 => vshrq_n_u8::<2>(codes),
        2 => vshrq_n_u8::<4>(codes),
        _ => vshrq_n_u8::<6>(codes),
    };
    let first =
        vreinterpretq_u8_u32(vcombine_u32(vcreate_u32(0x0404_0404_0000_0000), vcreate_u32(0x0c0c_0c0c_0808_0808)));
    let places = vorrq_u8(vandq_u8(codes, vdupq_n_u8(3)), first);
    vreinterpretq_s8_u8(vqtbl1q_u8(tables, places))
}
