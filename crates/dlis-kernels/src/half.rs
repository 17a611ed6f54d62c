//! Widening f16 to f32 in plain integer arithmetic, so that the compiler vectorises it at every SIMD level.

/// The f32 of these f16 bits, exactly: subnormal numbers, infinities and NaN included.
///
/// Subnormal f16 are put behind a leading one and that one is subtracted again (Giesen 2012, "Half to float
/// done quick"): no step meets a subnormal f32, on which processors stumble.
#[inline(always)]
pub(crate) fn widen(half: u16) -> f32 {
    const EXPONENT: u32 = 0x7c00 << 13;
    /// From the bias of f16 to that of f32.
    const REBIAS: u32 = 112 << 23;
    let magnitude = (u32::from(half) & 0x7fff) << 13;
    let exponent = magnitude & EXPONENT;
    let normal = magnitude + REBIAS;
    let one = f32::from_bits(REBIAS + (1 << 23));
    let subnormal = (f32::from_bits(normal + (1 << 23)) - one).to_bits();
    let special = normal + REBIAS;
    let bits = if exponent == EXPONENT { special } else { normal };
    let bits = if exponent == 0 { subnormal } else { bits };
    f32::from_bits(bits | (u32::from(half) & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (widen(bits), half::f16::from_bits(bits).to_f32());
            assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{bits:#06x}");
        }
    }
}
