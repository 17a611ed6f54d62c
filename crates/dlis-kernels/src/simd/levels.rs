//! Which levels a kernel is instantiated for.

/// The kernels of these arguments, each at every level of the target, the preferred first: of kernels that expect to be
/// equally fast the planner takes the first. Numbers in `<>` are constants of the kernel's type.
macro_rules! at_every_level {
    ($($kernel:ident $(<$constant:literal>)? ($($argument:expr),*)),+ $(,)?) => {
        &[$(
            #[cfg(target_arch = "x86_64")]
            &$kernel::<$crate::simd::Avx512 $(, $constant)?>::new($($argument),*),
            #[cfg(target_arch = "x86_64")]
            &$kernel::<$crate::simd::Avx2 $(, $constant)?>::new($($argument),*),
            #[cfg(target_arch = "aarch64")]
            &$kernel::<$crate::simd::Neon $(, $constant)?>::new($($argument),*),
            &$kernel::<$crate::simd::Portable $(, $constant)?>::new($($argument),*),
        )+]
    };
}
pub(crate) use at_every_level;
