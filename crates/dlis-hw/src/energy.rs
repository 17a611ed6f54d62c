//! Energy counters of the processor.
//!
//! Linux shows the RAPL counters of Intel and AMD processors below `/sys/class/powercap`: per package a
//! directory `intel-rapl:N` with a running total in microjoules (`energy_uj`) that starts over after
//! `max_energy_range_uj`. Since Linux 5.10 only root may read them, and virtual machines seldom have any:
//! absence is the usual case and [`EnergyUnavailable`] says why.
//!
//! ```
//! match dlis_hw::energy::EnergyMeter::open() {
//!     Ok(mut meter) => assert!(meter.joules().unwrap() >= 0.0),
//!     Err(reason) => assert!(!reason.to_string().is_empty()),
//! }
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why energy cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum EnergyUnavailable {
    /// The directory of counters is missing or holds no package counter.
    #[error("no RAPL package counter below {}: not Linux, not an x86 processor, or a virtual machine", root.display())]
    NoCounters {
        /// Directory that was searched.
        root: PathBuf,
    },
    /// A counter exists and cannot be read.
    #[error("cannot read {}: {source} (since Linux 5.10 the counters are for root unless made readable)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A counter's file holds something else than a whole number in its range.
    #[error("{}: expected {expected}, found `{found}`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
        /// The start of what is there.
        found: String,
    },
}

/// Joules used since it was opened, by all packages and, where they are counted apart, their memory.
#[derive(Debug)]
pub struct EnergyMeter {
    zones: Vec<Zone>,
}

#[derive(Debug)]
struct Zone {
    name: String,
    energy: PathBuf,
    range_uj: u64,
    last_uj: u64,
    total_uj: u64,
}

/// Most directories looked at below the root.
const MAX_ENTRIES: usize = 4096;

impl EnergyMeter {
    /// Opens the counters of this machine.
    ///
    /// # Errors
    /// [`EnergyUnavailable`], with the reason, where there are none or they cannot be read.
    pub fn open() -> Result<Self, EnergyUnavailable> {
        Self::open_at(Path::new("/sys/class/powercap"))
    }

    /// Opens the counters below `root`, which is laid out like `/sys/class/powercap`.
    ///
    /// # Errors
    /// As [`EnergyMeter::open`].
    pub fn open_at(root: &Path) -> Result<Self, EnergyUnavailable> {
        let none = || EnergyUnavailable::NoCounters { root: root.to_owned() };
        let mut directories: Vec<PathBuf> =
            fs::read_dir(root).map_err(|_| none())?.take(MAX_ENTRIES).flatten().map(|entry| entry.path()).collect();
        directories.sort();
        let mut zones = Vec::new();
        for directory in directories {
            let Some(depth) = zone_depth(&directory) else { continue };
            let name = read_file(&directory.join("name"))?;
            // A package includes its cores and graphics but not its memory; `psys` includes the packages.
            if (depth == 1 && name.starts_with("package")) || (depth == 2 && name == "dram") {
                zones.push(Zone::open(&directory, name)?);
            }
        }
        if zones.is_empty() { Err(none()) } else { Ok(Self { zones }) }
    }

    /// Names of the counters that are added up, such as `package-0` and `dram`.
    pub fn zones(&self) -> impl Iterator<Item = &str> {
        self.zones.iter().map(|zone| zone.name.as_str())
    }

    /// Joules used since the meter was opened. A counter that started over once since the last reading is
    /// accounted for; to miss none, read more often than it can (minutes at full load).
    ///
    /// # Errors
    /// [`EnergyUnavailable`] if a counter can no longer be read.
    pub fn joules(&mut self) -> Result<f64, EnergyUnavailable> {
        let mut total_uj = 0.0;
        for zone in &mut self.zones {
            zone.update()?;
            total_uj += zone.total_uj as f64;
        }
        Ok(total_uj * 1e-6)
    }
}

impl Zone {
    fn open(directory: &Path, name: String) -> Result<Self, EnergyUnavailable> {
        let range = directory.join("max_energy_range_uj");
        let range_uj = parse_counter(&range, &read_file(&range)?, u64::MAX)?;
        let energy = directory.join("energy_uj");
        let last_uj = parse_counter(&energy, &read_file(&energy)?, range_uj)?;
        Ok(Self { name, energy, range_uj, last_uj, total_uj: 0 })
    }

    fn update(&mut self) -> Result<(), EnergyUnavailable> {
        let now_uj = parse_counter(&self.energy, &read_file(&self.energy)?, self.range_uj)?;
        self.total_uj = self.total_uj.saturating_add(used_between(self.last_uj, now_uj, self.range_uj));
        self.last_uj = now_uj;
        Ok(())
    }
}

/// 1 for `intel-rapl:0`, 2 for `intel-rapl:0:1`, `None` for anything else: the control type itself, and
/// `intel-rapl-mmio:0`, a second view of the same package.
fn zone_depth(directory: &Path) -> Option<usize> {
    let numbers = directory.file_name()?.to_str()?.strip_prefix("intel-rapl:")?;
    numbers
        .split(':')
        .all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        .then(|| numbers.split(':').count())
}

/// Microjoules between two readings of a counter that runs from 0 to `range` and starts over.
fn used_between(last: u64, now: u64, range: u64) -> u64 {
    if now >= last { now - last } else { (range - last).saturating_add(now) }
}

fn read_file(path: &Path) -> Result<String, EnergyUnavailable> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(256).read_to_end(&mut bytes))
        .map_err(|source| EnergyUnavailable::Unreadable { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn parse_counter(path: &Path, text: &str, most: u64) -> Result<u64, EnergyUnavailable> {
    text.parse::<u64>().ok().filter(|&n| n <= most).ok_or_else(|| EnergyUnavailable::Malformed {
        path: path.to_owned(),
        expected: "a whole number of microjoules, at most max_energy_range_uj",
        found: text.chars().take(40).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(root: &Path, directory: &str, name: &str, energy: &str) {
        let path = root.join(directory);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("name"), format!("{name}\n")).unwrap();
        fs::write(path.join("max_energy_range_uj"), "10000000\n").unwrap();
        fs::write(path.join("energy_uj"), energy).unwrap();
    }

    #[test]
    fn counts_packages_and_memory_once_and_across_a_wrap() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        zone(root, "intel-rapl:0", "package-0", "9000000\n");
        zone(root, "intel-rapl:0:0", "core", "1\n");
        zone(root, "intel-rapl:0:1", "dram", "500\n");
        zone(root, "intel-rapl:1", "psys", "1\n");
        zone(root, "intel-rapl-mmio:0", "package-0", "1\n");
        fs::create_dir_all(root.join("intel-rapl")).unwrap();
        let mut meter = EnergyMeter::open_at(root).unwrap();
        assert_eq!(meter.zones().collect::<Vec<_>>(), ["package-0", "dram"]);
        assert_eq!(meter.joules().unwrap(), 0.0);
        zone(root, "intel-rapl:0", "package-0", "2000000\n"); // 1 J to the end of the range, 2 J after it
        zone(root, "intel-rapl:0:1", "dram", "500500\n");
        assert!((meter.joules().unwrap() - 3.5).abs() < 1e-9);
        zone(root, "intel-rapl:0", "package-0", "2000001\n");
        assert!((meter.joules().unwrap() - 3.500_001).abs() < 1e-9);
    }

    #[test]
    fn reasons() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert!(matches!(EnergyMeter::open_at(&root.join("none")), Err(EnergyUnavailable::NoCounters { .. })));
        assert!(matches!(EnergyMeter::open_at(root), Err(EnergyUnavailable::NoCounters { .. })));
        for bad in ["", "x", "-1", "10000001", "99999999999999999999999"] {
            zone(root, "intel-rapl:0", "package-0", bad);
            let error = EnergyMeter::open_at(root).unwrap_err();
            assert!(matches!(error, EnergyUnavailable::Malformed { .. }), "{bad:?}: {error}");
            assert!(error.to_string().contains("energy_uj"));
        }
        fs::remove_file(root.join("intel-rapl:0/energy_uj")).unwrap();
        let error = EnergyMeter::open_at(root).unwrap_err();
        assert!(matches!(error, EnergyUnavailable::Unreadable { .. }), "{error}");
    }

    #[test]
    fn a_counter_that_goes_bad_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        zone(root.path(), "intel-rapl:0", "package-0", "5\n");
        let mut meter = EnergyMeter::open_at(root.path()).unwrap();
        zone(root.path(), "intel-rapl:0", "package-0", "five\n");
        assert!(meter.joules().is_err());
    }

    #[test]
    fn wraps() {
        assert_eq!(used_between(3, 10, 100), 7);
        assert_eq!(used_between(90, 5, 100), 15);
        assert_eq!(used_between(0, 0, 0), 0);
        assert_eq!(used_between(u64::MAX, u64::MAX - 1, u64::MAX), u64::MAX - 1);
    }
}
