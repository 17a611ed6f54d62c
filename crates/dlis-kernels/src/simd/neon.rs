//! The level of aarch64: Advanced SIMD, vectors of four.

use std::arch::aarch64::*;
use std::arch::asm;

use dlis_hw::{Hardware, SimdLevel};

use super::{Simd, Work};

/// Proof that the machine has Advanced SIMD.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Simd for Neon {
    const LEVEL: SimdLevel = SimdLevel::Neon;
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    type Vector = float32x4_t;

    fn new(hw: &Hardware) -> Option<Self> {
        // `hw` may limit the levels, but it is plain data that a caller can fill in: the proof is the processor's
        // own word.
        (Self::LEVEL.is_available() && hw.supports(Self::LEVEL)).then_some(Self(()))
    }

    fn vectorize<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "neon")]
        fn enter<W: Work>(simd: Neon, work: W) -> W::Output {
            work.run(simd)
        }
        // SAFETY: `self` proves that the machine has Advanced SIMD.
        unsafe { enter(self, work) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        // SAFETY: `self` proves the feature.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the feature.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the feature.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the feature.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn at_least(self, x: float32x4_t, bound: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the feature. The instruction returns NaN if either is.
        unsafe { vmaxq_f32(x, bound) }
    }

    #[inline(always)]
    fn at_most(self, x: float32x4_t, bound: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the feature. The instruction returns NaN if either is.
        unsafe { vminq_f32(x, bound) }
    }

    #[inline(always)]
    fn greater(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the feature. The instruction returns NaN if either is.
        unsafe { vmaxq_f32(a, b) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const f32) {
        // In assembly, as the intrinsic is not stable yet.
        // SAFETY: a hint that faults on no address and changes neither memory nor registers; part of the baseline.
        unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at.addr(), options(nomem, nostack, preserves_flags)) };
    }

    #[inline(always)]
    fn prefetch_far(self, at: *const u8) {
        // SAFETY: as above.
        unsafe { asm!("prfm pldl2keep, [{at}]", at = in(reg) at.addr(), options(nomem, nostack, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> float32x4_t {
        // SAFETY: `self` proves the feature; readable by the caller's promise.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn load_half(self, from: *const u16) -> float32x4_t {
        // SAFETY: `self` proves the feature; readable by the caller's promise.
        unsafe { widen(vld1_u16(from)) }
    }

    #[inline(always)]
    unsafe fn scale_u16(self, from: *const u16, factor: u32, to: *mut u32) {
        // SAFETY: `self` proves the feature; readable and writable by the caller's promise.
        unsafe { vst1q_u32(to, vmulq_n_u32(vmovl_u16(vld1_u16(from)), factor)) }
    }

    #[inline(always)]
    unsafe fn load_even(self, from: *const f32) -> float32x4_t {
        // SAFETY: `self` proves the feature; eight elements are readable by the caller's promise.
        unsafe { vuzp1q_f32(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }

    #[inline(always)]
    fn shift_up(self, before: float32x4_t, x: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the feature.
        unsafe { vextq_f32::<3>(before, x) }
    }

    #[inline(always)]
    fn shift_down(self, x: float32x4_t, after: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the feature.
        unsafe { vextq_f32::<1>(x, after) }
    }

    #[inline(always)]
    fn unzip(self, low: float32x4_t, high: float32x4_t) -> (float32x4_t, float32x4_t) {
        // SAFETY: `self` proves the feature.
        unsafe { (vuzp1q_f32(low, high), vuzp2q_f32(low, high)) }
    }

    #[inline(always)]
    unsafe fn permute(self, x: float32x4_t, places: *const u32) -> float32x4_t {
        // The bytes of each place; those beyond the vector's are zeros by the instruction's own rule.
        // SAFETY: `self` proves the feature; readable by the caller's promise.
        unsafe {
            let first = vmulq_n_u32(vld1q_u32(places), 0x0404_0404);
            let bytes = vreinterpretq_u8_u32(vaddq_u32(first, vdupq_n_u32(0x0302_0100)));
            vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(x), bytes))
        }
    }

    #[inline(always)]
    unsafe fn and(self, x: float32x4_t, masks: *const u32) -> float32x4_t {
        // SAFETY: `self` proves the feature; readable by the caller's promise.
        unsafe { vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vld1q_u32(masks))) }
    }

    #[inline(always)]
    unsafe fn load_quads(self, from: *const f32, places: *const u16) -> float32x4_t {
        // SAFETY: `self` proves the feature; place and elements are readable by the caller's promise.
        unsafe { vld1q_f32(from.add(usize::from(*places))) }
    }

    #[inline(always)]
    unsafe fn load_fourfold(self, from: *const f32) -> float32x4_t {
        // SAFETY: `self` proves the feature; readable by the caller's promise.
        unsafe { vld1q_dup_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: float32x4_t) {
        // SAFETY: `self` proves the feature; writable by the caller's promise.
        unsafe { vst1q_f32(to, x) }
    }
}

/// The f32 of four f16, exactly. In assembly, as the intrinsic is younger than the oldest compiler that is supported.
///
/// # Safety
///
/// The machine has Advanced SIMD, which includes this conversion; arithmetic in f16 is an extension.
#[inline(always)]
unsafe fn widen(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: the instruction is there by the caller's promise, and touches nothing but these registers.
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {halves:v}.4h",
            wide = lateout(vreg) wide,
            halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    wide
}
