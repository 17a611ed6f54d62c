//! The description of a machine, and its fingerprint.

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::human_bytes;
use crate::facts::{Facts, tidy_name};
use crate::{Cache, SimdLevel, isa, linux, macos};

/// What machine this is, as far as this process may use it.
///
/// It is plain data that goes into records and comes back from them: it may describe another machine.
/// Call [`detect`](Self::detect) before threads are pinned: on Linux the main thread's affinity counts, as it is at the
/// first call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// The processor's name, such as `Intel(R) Core(TM) i7-8700`.
    pub cpu_model: Option<String>,
    /// Architecture as Rust names it: `x86_64`, `aarch64`, ...
    pub arch: String,
    /// Operating system as Rust names it: `linux`, `macos`, ...
    pub os: String,
    /// Logical cores this process may run on, at least 1: its affinity and the quota of its control group
    /// are respected.
    pub logical_cores: usize,
    /// Physical cores among them.
    pub physical_cores: Option<usize>,
    /// First-level data cache.
    pub l1d: Option<Cache>,
    /// Second-level cache.
    pub l2: Option<Cache>,
    /// Third-level cache.
    pub l3: Option<Cache>,
    /// Bytes of a cache line.
    pub line_bytes: Option<usize>,
    /// Main memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The SIMD levels kernels may use, ascending, with [`SimdLevel::Portable`] first.
    pub simd_levels: Vec<SimdLevel>,
    /// Other instruction-set extensions of interest, as Linux names them: `fma`, `avx512_vnni`, ...
    pub isa_flags: Vec<String>,
}

impl Hardware {
    /// Describes the machine this runs on, looked at once a process. Never fails: what cannot be found out is `None`.
    pub fn detect() -> Self {
        static MACHINE: OnceLock<Hardware> = OnceLock::new();
        MACHINE.get_or_init(Self::look).clone()
    }

    fn look() -> Self {
        let facts = if cfg!(any(target_os = "linux", target_os = "android")) {
            linux::read(Path::new("/"))
        } else if cfg!(target_os = "macos") {
            macos::read()
        } else {
            Facts {
                // Windows sets this for every process; elsewhere it is absent.
                cpu_model: std::env::var("PROCESSOR_IDENTIFIER").ok().as_deref().and_then(tidy_name),
                ..Facts::default()
            }
        };
        Self::from_facts(facts)
    }

    fn from_facts(facts: Facts) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "this is the one place that finds the core count for everybody else"
        )]
        let parallelism = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            cpu_model: facts.cpu_model,
            arch: std::env::consts::ARCH.to_owned(),
            os: std::env::consts::OS.to_owned(),
            logical_cores: facts.logical_cores.filter(|&n| n > 0).unwrap_or_else(parallelism),
            physical_cores: facts.physical_cores,
            l1d: facts.l1d,
            l2: facts.l2,
            l3: facts.l3,
            line_bytes: facts.line_bytes,
            memory_bytes: facts.memory_bytes,
            simd_levels: SimdLevel::ALL.into_iter().filter(|level| level.is_available()).collect(),
            isa_flags: isa::detected(),
        }
    }

    /// The best SIMD level that may be used.
    pub fn simd(&self) -> SimdLevel {
        self.simd_levels.iter().copied().max().unwrap_or(SimdLevel::Portable)
    }

    /// Whether kernels of `level` may be used; [`SimdLevel::Portable`] always may.
    ///
    /// This is a matter of choice (see [`Hardware::with_simd`]); code that calls instructions rests on
    /// [`SimdLevel::is_available`].
    pub fn supports(&self, level: SimdLevel) -> bool {
        level == SimdLevel::Portable || self.simd_levels.contains(&level)
    }

    /// Whether the extension `flag` (as in [`Hardware::isa_flags`]) may be used.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.isa_flags.iter().any(|f| f == flag)
    }

    /// Whether code named `isa` may be used: a [`SimdLevel`]'s name, or that and an extension, as in
    /// `avx512-vnni` (the flag `avx512_vnni`), `avx2-vnni` (`avx_vnni`) or `neon-dotprod` (`asimddp`). Other
    /// names, such as a library's, always may.
    ///
    /// ```
    /// let hw = dlis_hw::Hardware::detect().with_simd(dlis_hw::SimdLevel::Portable);
    /// assert!(hw.has_isa("portable") && !hw.has_isa("avx2") && !hw.has_isa("avx512-vnni"));
    /// ```
    pub fn has_isa(&self, isa: &str) -> bool {
        let (level, extension) = isa.split_once('-').map_or((isa, None), |(level, rest)| (level, Some(rest)));
        let Ok(level) = level.parse::<SimdLevel>() else { return true };
        let flag = |extension| match (level, extension) {
            (SimdLevel::Neon, "dotprod") => "asimddp".to_owned(),
            (SimdLevel::Avx2, extension) => format!("avx_{extension}"),
            (level, extension) => format!("{level}_{extension}"),
        };
        self.supports(level) && extension.is_none_or(|extension| self.has_flag(&flag(extension)))
    }

    /// The same machine limited to SIMD levels up to `level`, and to the extensions that belong to them:
    /// forces the lower kernels. It never adds a level, so `Avx2` on an aarch64 machine leaves NEON.
    ///
    /// The [fingerprint](Hardware::fingerprint) changes with the levels that are left.
    #[must_use]
    pub fn with_simd(&self, level: SimdLevel) -> Self {
        let mut limited = self.clone();
        limited.simd_levels.retain(|&l| l <= level);
        limited.isa_flags.retain(|flag| isa::allowed_at(flag, level));
        limited
    }

    /// 16 hexadecimal digits (the first 64 bits of a SHA-256) of what determines performance: processor,
    /// architecture, instruction sets, caches and cores. Runs on one machine agree; memory size and
    /// operating system, which updates change, take no part.
    pub fn fingerprint(&self) -> String {
        // Every line is labelled and Debug-quoted, so no two machines share a text.
        let text = format!(
            "dlis-hw 1\nmodel {:?}\narch {:?}\nlogical {:?}\nphysical {:?}\nl1d {:?}\nl2 {:?}\nl3 {:?}\nline {:?}\nsimd {:?}\nflags {:?}\n",
            self.cpu_model,
            self.arch,
            self.logical_cores,
            self.physical_cores,
            cache_key(self.l1d),
            cache_key(self.l2),
            cache_key(self.l3),
            self.line_bytes,
            self.simd_levels.iter().map(|l| l.name()).collect::<Vec<_>>(),
            self.isa_flags,
        );
        Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn cache_key(cache: Option<Cache>) -> Option<(u64, usize)> {
    cache.map(|c| (c.bytes, c.shared_by))
}

/// A summary in a few lines, without a final line break.
impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cpu          {} ({}, {})", self.cpu_model.as_deref().unwrap_or("unknown"), self.arch, self.os)?;
        write!(f, "cores        {} logical", self.logical_cores)?;
        match self.physical_cores {
            Some(n) => writeln!(f, ", {n} physical")?,
            None => writeln!(f)?,
        }
        let levels: Vec<&str> = self.simd_levels.iter().map(|l| l.name()).collect();
        writeln!(f, "simd         {} (of {})", self.simd(), levels.join(", "))?;
        writeln!(
            f,
            "isa          {}",
            if self.isa_flags.is_empty() { "-".to_owned() } else { self.isa_flags.join(" ") }
        )?;
        let caches: Vec<String> = [("L1d", self.l1d), ("L2", self.l2), ("L3", self.l3)]
            .into_iter()
            .filter_map(|(name, cache)| {
                let Cache { bytes, shared_by } = cache?;
                let shared = if shared_by > 1 { format!(" shared by {shared_by}") } else { String::new() };
                Some(format!("{name} {}{shared}", human_bytes(bytes)))
            })
            .collect();
        write!(f, "caches       {}", if caches.is_empty() { "unknown".to_owned() } else { caches.join(", ") })?;
        match self.line_bytes {
            Some(n) => writeln!(f, "; lines of {n} B")?,
            None => writeln!(f)?,
        }
        writeln!(f, "memory       {}", self.memory_bytes.map_or_else(|| "unknown".to_owned(), human_bytes))?;
        write!(f, "fingerprint  {}", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_found_by_the_names_of_kernels() {
        let mut hw = Hardware::detect();
        hw.simd_levels = SimdLevel::ALL.to_vec();
        for (isa, flag) in [("avx512-vnni", "avx512_vnni"), ("avx2-vnni", "avx_vnni"), ("neon-dotprod", "asimddp")] {
            hw.isa_flags = vec![flag.to_owned()];
            assert!(hw.has_isa(isa), "{isa}");
            hw.isa_flags.clear();
            assert!(!hw.has_isa(isa), "{isa}");
        }
    }

    #[test]
    fn a_machine_that_tells_nothing_still_has_a_core() {
        let hw = Hardware::from_facts(Facts::default());
        assert!(hw.logical_cores >= 1);
        assert_eq!(hw.simd_levels.first(), Some(&SimdLevel::Portable));
        assert!(hw.to_string().contains("unknown"));
        assert_eq!(Hardware::from_facts(Facts { logical_cores: Some(0), ..Facts::default() }), hw);
    }
}
