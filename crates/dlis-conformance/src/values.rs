//! Numbers that look random and are the same everywhere.

/// The `SplitMix64` generator (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub(crate) struct Values(u64);

impl Values {
    /// A stream of its own for every text: FNV-1a of its bytes is the seed.
    pub(crate) fn named(name: &str) -> Self {
        Self(
            name.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)),
        )
    }

    fn next(&mut self, bits: u32) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> (64 - bits)
    }

    /// A number in [-1, 1) with every bit of the mantissa in use.
    pub(crate) fn unit(&mut self) -> f32 {
        self.next(24) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A multiple of 1/64 in [-1, 1), which f16 represents exactly.
    pub(crate) fn coarse(&mut self) -> f32 {
        self.next(7) as f32 / 64.0 - 1.0
    }

    /// A whole number from -4 to 3.
    pub(crate) fn whole(&mut self) -> f32 {
        self.next(3) as f32 - 4.0
    }
}
