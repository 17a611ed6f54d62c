//! Which levels a quantised kernel is instantiated for.

/// The kernels of these arguments, each at every level of the target, the preferred first: of kernels that expect to be
/// equally fast the planner takes the first.
macro_rules! at_every_level {
    ($($kernel:ident ($($argument:expr),*)),+ $(,)?) => {
        &[$(
            #[cfg(target_arch = "x86_64")]
            &$kernel::<$crate::quantized::simd::Avx512Vnni>::new($($argument),*),
            #[cfg(target_arch = "x86_64")]
            &$kernel::<$crate::quantized::simd::AvxVnni>::new($($argument),*),
            #[cfg(target_arch = "x86_64")]
            &$kernel::<$crate::quantized::simd::Avx2>::new($($argument),*),
            #[cfg(target_arch = "aarch64")]
            &$kernel::<$crate::quantized::simd::NeonDotprod>::new($($argument),*),
            #[cfg(target_arch = "aarch64")]
            &$kernel::<$crate::quantized::simd::Neon>::new($($argument),*),
            &$kernel::<$crate::quantized::simd::Portable>::new($($argument),*),
        )+]
    };
}
pub(crate) use at_every_level;
