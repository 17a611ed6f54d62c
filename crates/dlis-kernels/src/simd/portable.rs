//! Plain Rust: arrays that the compiler vectorises for the baseline target.

use dlis_hw::{Hardware, SimdLevel};

use super::{Simd, Work};
use crate::half::widen;

/// The level that every machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Simd for Portable {
    const LEVEL: SimdLevel = SimdLevel::Portable;
    // The width of SSE2 and NEON, the baselines of the 64-bit targets.
    const LANES: usize = 4;
    // Of x86-64, which has the fewest.
    const REGISTERS: usize = 16;
    type Vector = [f32; 4];

    fn new(_hw: &Hardware) -> Option<Self> {
        Some(Self)
    }

    fn vectorize<W: Work>(self, work: W) -> W::Output {
        work.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 4] {
        [x; 4]
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // Not `f32::mul_add`, which is a library call where the target has no such instruction.
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn at_least(self, x: [f32; 4], bound: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| if x[lane] < bound[lane] { bound[lane] } else { x[lane] })
    }

    #[inline(always)]
    fn at_most(self, x: [f32; 4], bound: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| if x[lane] > bound[lane] { bound[lane] } else { x[lane] })
    }

    #[inline(always)]
    fn greater(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| if b[lane] > a[lane] || b[lane].is_nan() { b[lane] } else { a[lane] })
    }

    #[inline(always)]
    fn prefetch(self, _at: *const f32) {}

    #[inline(always)]
    fn prefetch_far(self, _at: *const u8) {}

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; 4] {
        // SAFETY: four elements are readable, by the caller's promise; an array is no more aligned than
        // its elements.
        unsafe { from.cast::<[f32; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn load_half(self, from: *const u16) -> [f32; 4] {
        // SAFETY: four elements are readable, by the caller's promise.
        let halves = unsafe { from.cast::<[u16; 4]>().read() };
        std::array::from_fn(|lane| widen(halves[lane]))
    }

    #[inline(always)]
    unsafe fn scale_u16(self, from: *const u16, factor: u32, to: *mut u32) {
        // SAFETY: four elements are readable and writable, by the caller's promise.
        unsafe {
            let numbers = from.cast::<[u16; 4]>().read();
            let products: [u32; 4] = std::array::from_fn(|lane| u32::from(numbers[lane]).wrapping_mul(factor));
            to.cast::<[u32; 4]>().write(products);
        }
    }

    #[inline(always)]
    unsafe fn load_even(self, from: *const f32) -> [f32; 4] {
        // SAFETY: eight elements are readable, by the caller's promise.
        let [a, _, b, _, c, _, d, _] = unsafe { from.cast::<[f32; 8]>().read() };
        [a, b, c, d]
    }

    #[inline(always)]
    fn shift_up(self, before: [f32; 4], x: [f32; 4]) -> [f32; 4] {
        [before[3], x[0], x[1], x[2]]
    }

    #[inline(always)]
    fn shift_down(self, x: [f32; 4], after: [f32; 4]) -> [f32; 4] {
        [x[1], x[2], x[3], after[0]]
    }

    #[inline(always)]
    fn unzip(self, low: [f32; 4], high: [f32; 4]) -> ([f32; 4], [f32; 4]) {
        ([low[0], low[2], high[0], high[2]], [low[1], low[3], high[1], high[3]])
    }

    #[inline(always)]
    unsafe fn permute(self, x: [f32; 4], places: *const u32) -> [f32; 4] {
        // SAFETY: four places are readable, by the caller's promise.
        let places = unsafe { places.cast::<[u32; 4]>().read() };
        places.map(|place| x.get(place as usize).copied().unwrap_or(0.0))
    }

    #[inline(always)]
    unsafe fn and(self, x: [f32; 4], masks: *const u32) -> [f32; 4] {
        // SAFETY: four numbers are readable, by the caller's promise.
        let masks = unsafe { masks.cast::<[u32; 4]>().read() };
        std::array::from_fn(|lane| f32::from_bits(x[lane].to_bits() & masks[lane]))
    }

    #[inline(always)]
    unsafe fn load_quads(self, from: *const f32, places: *const u16) -> [f32; 4] {
        // SAFETY: by the caller's promise.
        unsafe { self.load(from.add(usize::from(*places))) }
    }

    #[inline(always)]
    unsafe fn load_fourfold(self, from: *const f32) -> [f32; 4] {
        // SAFETY: by the caller's promise.
        self.splat(unsafe { *from })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: [f32; 4]) {
        // SAFETY: four elements are writable, by the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write(x) }
    }
}
