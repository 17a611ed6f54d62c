//! The SIMD levels kernels are written for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A level of SIMD support that kernels are written for. The order is that of preference on a machine
/// that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SimdLevel {
    /// Plain Rust, whatever the compiler makes of it for the baseline target.
    Portable,
    /// aarch64 Advanced SIMD, 128-bit.
    Neon,
    /// x86-64 AVX2 with FMA, 256-bit.
    Avx2,
    /// x86-64 AVX-512 F, BW, DQ and VL, 512-bit.
    Avx512,
}

impl SimdLevel {
    /// Every level, lowest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// The name used on the command line and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Bytes of one vector register. [`SimdLevel::Portable`] answers 16, the register of the baseline of
    /// both x86-64 and aarch64, which is what its loops should be shaped for.
    pub const fn vector_bytes(self) -> usize {
        match self {
            Self::Portable | Self::Neon => 16,
            Self::Avx2 => 32,
            Self::Avx512 => 64,
        }
    }

    /// Whether the processor and operating system this code runs on have this level.
    ///
    /// This asks the processor (the standard library remembers the answer), so it is what a call of a
    /// `#[target_feature]` function may rest on. [`Hardware::supports`](crate::Hardware::supports) is a
    /// matter of choice, and of data that may have been read from a file: it proves nothing.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
            }
            // The levels of other architectures.
            #[allow(unreachable_patterns, reason = "which levels are left depends on the target")]
            _ => false,
        }
    }
}

impl fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no [`SimdLevel`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown SIMD level `{0}`, expected one of portable, neon, avx2, avx512")]
pub struct UnknownSimdLevel(String);

impl FromStr for SimdLevel {
    type Err = UnknownSimdLevel;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| UnknownSimdLevel(name.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_agree_with_serde() {
        for level in SimdLevel::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{level}\""));
        }
        let error = "AVX2".parse::<SimdLevel>().unwrap_err();
        assert!(error.to_string().contains("`AVX2`") && error.to_string().contains("avx512"));
        assert!("".parse::<SimdLevel>().is_err());
    }

    #[test]
    fn order_is_that_of_width() {
        assert!(SimdLevel::ALL.windows(2).all(|w| w[0] < w[1] && w[0].vector_bytes() <= w[1].vector_bytes()));
    }

    #[test]
    fn availability_is_consistent() {
        assert!(SimdLevel::Portable.is_available());
        assert!(!SimdLevel::Avx512.is_available() || SimdLevel::Avx2.is_available());
        assert!(!(SimdLevel::Neon.is_available() && SimdLevel::Avx2.is_available()));
        assert_eq!(SimdLevel::Neon.is_available(), cfg!(target_arch = "aarch64"));
    }
}
