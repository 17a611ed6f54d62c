//! The instruction-set extensions that kernels, or readers of a record, may care about.

use crate::SimdLevel;

/// An extension: its name as Linux spells it, and the level below which its use would break the promise
/// of [`Hardware::with_simd`](crate::Hardware::with_simd).
struct Extension {
    name: &'static str,
    level: SimdLevel,
    present: fn() -> bool,
}

macro_rules! extensions {
    ($detect:ident: $($name:literal = $feature:tt @ $level:ident),+ $(,)?) => {
        &[$(Extension {
            name: $name,
            level: SimdLevel::$level,
            present: || std::arch::$detect!($feature),
        }),+]
    };
}

#[cfg(target_arch = "x86_64")]
const EXTENSIONS: &[Extension] = extensions!(is_x86_feature_detected:
    "sse4_2" = "sse4.2" @ Portable,
    "popcnt" = "popcnt" @ Portable,
    "bmi2" = "bmi2" @ Portable,
    "avx" = "avx" @ Avx2,
    "avx2" = "avx2" @ Avx2,
    "fma" = "fma" @ Avx2,
    "f16c" = "f16c" @ Avx2,
    "avx_vnni" = "avxvnni" @ Avx2,
    "avx512f" = "avx512f" @ Avx512,
    "avx512bw" = "avx512bw" @ Avx512,
    "avx512cd" = "avx512cd" @ Avx512,
    "avx512dq" = "avx512dq" @ Avx512,
    "avx512vl" = "avx512vl" @ Avx512,
    "avx512_vnni" = "avx512vnni" @ Avx512,
    "avx512vbmi" = "avx512vbmi" @ Avx512,
    "avx512_vbmi2" = "avx512vbmi2" @ Avx512,
    "avx512_bf16" = "avx512bf16" @ Avx512,
    "avx512_fp16" = "avx512fp16" @ Avx512,
);

#[cfg(target_arch = "aarch64")]
const EXTENSIONS: &[Extension] = extensions!(is_aarch64_feature_detected:
    "asimd" = "neon" @ Neon,
    "asimddp" = "dotprod" @ Neon,
    "asimdhp" = "fp16" @ Neon,
    "i8mm" = "i8mm" @ Neon,
    "bf16" = "bf16" @ Neon,
    "sve" = "sve" @ Neon,
    "sve2" = "sve2" @ Neon,
);

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const EXTENSIONS: &[Extension] = &[];

/// Names of the extensions this processor has, in the order of the table.
pub(crate) fn detected() -> Vec<String> {
    EXTENSIONS.iter().filter(|e| (e.present)()).map(|e| e.name.to_owned()).collect()
}

/// Whether code limited to `level` may use the extension `name`. Names of another architecture (a record
/// of another machine) are judged by their prefix.
pub(crate) fn allowed_at(name: &str, level: SimdLevel) -> bool {
    let needs = match EXTENSIONS.iter().find(|e| e.name == name) {
        Some(extension) => extension.level,
        None if name.starts_with("avx512") => SimdLevel::Avx512,
        None if name.starts_with("avx") || name == "fma" || name == "f16c" => SimdLevel::Avx2,
        None if name.starts_with("asimd") || name.starts_with("sve") || name == "i8mm" || name == "bf16" => {
            SimdLevel::Neon
        }
        None => SimdLevel::Portable,
    };
    needs <= level
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_agree_with_levels() {
        let found = detected();
        let has = |name: &str| found.iter().any(|f| f == name);
        if SimdLevel::Avx512.is_available() {
            assert!(has("avx512f") && has("avx512vl"));
        }
        if SimdLevel::Avx2.is_available() {
            assert!(has("avx2") && has("fma"));
        }
        if SimdLevel::Neon.is_available() {
            assert!(has("asimd"));
        }
    }

    #[test]
    fn levels_hide_extensions() {
        assert!(allowed_at("avx512_vnni", SimdLevel::Avx512));
        assert!(!allowed_at("avx512_vnni", SimdLevel::Avx2));
        assert!(allowed_at("avx_vnni", SimdLevel::Avx2));
        assert!(!allowed_at("fma", SimdLevel::Portable));
        assert!(!allowed_at("asimddp", SimdLevel::Portable));
        assert!(allowed_at("popcnt", SimdLevel::Portable));
    }
}
