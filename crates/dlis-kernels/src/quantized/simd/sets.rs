//! What AVX2 makes of weights that are light together.

use std::arch::asm;
use std::arch::x86_64::*;

/// Of weights that are light together, all products of a lane fit 16 bits together, and are widened once.
///
/// In assembly, as the compiler moves the loads of all pixels before their arithmetic and runs out of registers.
macro_rules! light_set {
    ($(#[$doc:meta])* $name:ident loads by $load:literal of $size:literal) => {
        $(#[$doc])*
        #[target_feature(enable = "avx2")]
        #[inline]
        pub(super) unsafe fn $name<const N: usize>(
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
                        concat!($load, " {x}, ", $size, " ptr [{from} + 4 * {a}]"),
                        concat!($load, " {y}, ", $size, " ptr [{from} + 4 * {b}]"),
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
                        concat!($load, " {x}, ", $size, " ptr [{from} + 4 * {a}]"),
                        concat!($load, " {y}, ", $size, " ptr [{from} + 4 * {b}]"),
                        "vpmaddubsw {x}, {x}, {w_a}",
                        "vpmaddubsw {y}, {y}, {w_b}",
                        "vpaddw {x}, {x}, {y}",
                        concat!($load, " {y}, ", $size, " ptr [{from} + 4 * {c}]"),
                        "vpmaddubsw {y}, {y}, {w_c}",
                        "vpaddw {x}, {x}, {y}",
                        concat!($load, " {y}, ", $size, " ptr [{from} + 4 * {d}]"),
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
    };
}

light_set!(
    /// Of inputs that all lanes share.
    ///
    /// # Safety
    ///
    /// Four bytes must be readable at four times each of `places` from `from` on.
    dot_set_light loads by "vpbroadcastd" of "dword"
);
light_set!(
    /// Of inputs of each lane's own.
    ///
    /// # Safety
    ///
    /// A vector must be readable at four times each of `places` from `from` on.
    dot_lanes_light loads by "vmovdqu" of "ymmword"
);

/// The same of two places, the inputs of both columns loaded once. Eight sums of four pixels, four vectors of weights, two inputs and two products fill the
/// registers, so that the ones are read where they lie.
///
/// # Safety
///
/// As of [`dot_set_light`].
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn dot_twice_light<const COLUMNS: usize>(
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
