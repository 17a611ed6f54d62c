//! The machine as Linux shows it in procfs and sysfs. Everything starts from a root directory and every
//! parser takes text, so that other machines and broken files can be tested.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use crate::Cache;
use crate::cache::parse_size;
use crate::facts::{Facts, tidy_name};

/// Most bytes read of one file: `/proc/cpuinfo` of a thousand cores has less.
const MAX_FILE: u64 = 8 << 20;
/// Highest core number believed in; Linux builds end at 8192.
const MAX_CPUS: usize = 1 << 16;
/// Cache indices looked at below `cpuN/cache`.
const MAX_CACHES: usize = 16;

/// What the files below `root` (`/` on a running machine) say.
pub(crate) fn read(root: &Path) -> Facts {
    let text = |path: &str| read_text(&root.join(path));
    let cpuinfo = text("proc/cpuinfo").unwrap_or_default();
    let allowed =
        text("proc/self/status").and_then(|s| parse_cpu_list(field(&s, "Cpus_allowed_list")?)).unwrap_or_default();
    let first = allowed.first().copied().unwrap_or(0);
    let caches = read_caches(&root.join(format!("sys/devices/system/cpu/cpu{first}/cache")));
    let level = |n| caches.iter().find(|c| c.level == n).map(|c| c.cache);
    let logical = (!allowed.is_empty()).then_some(allowed.len());
    Facts {
        cpu_model: cpu_model(&cpuinfo),
        logical_cores: logical.map(|n| cpu_quota(root).map_or(n, |quota| n.min(quota))),
        physical_cores: sysfs_cores(root, &allowed).or_else(|| cpuinfo_cores(&cpuinfo, &allowed)),
        l1d: level(1),
        l2: level(2),
        l3: level(3),
        line_bytes: caches.first().and_then(|c| c.line_bytes),
        memory_bytes: text("proc/meminfo").and_then(|t| meminfo_total(&t)),
    }
}

fn read_text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value of the first `name: value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    fields(text, name).next()
}

fn fields<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The cores of a list such as `0-3,8,10-11`, ascending. `None` for anything else, an empty list included.
pub(crate) fn parse_cpu_list(text: &str) -> Option<Vec<usize>> {
    let number = |t: &str| t.trim().parse::<usize>().ok().filter(|&n| n < MAX_CPUS);
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',') {
        let (low, high) = match part.split_once('-') {
            Some((low, high)) => (number(low)?, number(high)?),
            None => (number(part)?, number(part)?),
        };
        if low > high {
            return None;
        }
        cpus.extend(low..=high);
    }
    Some(cpus.into_iter().collect())
}

/// The processor's name. Arm kernels give none, so the distinct implementer and part numbers stand in for
/// it, in the order of the cores (both clusters of a big.LITTLE machine appear).
fn cpu_model(cpuinfo: &str) -> Option<String> {
    if let Some(name) = field(cpuinfo, "model name").and_then(tidy_name) {
        return Some(name);
    }
    let mut parts: Vec<String> = Vec::new();
    for (implementer, part) in fields(cpuinfo, "CPU implementer").zip(fields(cpuinfo, "CPU part")) {
        let name = format!("implementer {implementer} part {part}");
        if !parts.contains(&name) && parts.len() < 8 {
            parts.push(name);
        }
    }
    tidy_name(&parts.join(", "))
        .or_else(|| field(cpuinfo, "Model").and_then(tidy_name))
        .or_else(|| field(cpuinfo, "Hardware").and_then(tidy_name))
}

/// Distinct sets of hyperthread siblings among the allowed cores.
fn sysfs_cores(root: &Path, allowed: &[usize]) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for cpu in allowed {
        let topology = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
        // The older kernels' name of the same file comes second.
        let siblings = ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| parse_cpu_list(&read_text(&topology.join(name))?))?;
        cores.insert(siblings);
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// Distinct (`physical id`, `core id`) pairs among the allowed cores.
fn cpuinfo_cores(cpuinfo: &str, allowed: &[usize]) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for block in cpuinfo.split("\n\n") {
        let Some(cpu) = field(block, "processor").and_then(|n| n.parse::<usize>().ok()) else { continue };
        if allowed.contains(&cpu) {
            cores.insert((field(block, "physical id")?, field(block, "core id")?));
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

fn meminfo_total(meminfo: &str) -> Option<u64> {
    let kib = field(meminfo, "MemTotal")?.strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    kib.checked_mul(1024).filter(|&bytes| bytes > 0)
}

struct Level {
    level: u32,
    line_bytes: Option<usize>,
    cache: Cache,
}

/// The data and unified caches below `cpuN/cache`, in the kernel's order (nearest first).
fn read_caches(directory: &Path) -> Vec<Level> {
    (0..MAX_CACHES)
        .filter_map(|index| {
            let text = |name: &str| read_text(&directory.join(format!("index{index}/{name}")));
            if text("type")?.trim() == "Instruction" {
                return None;
            }
            let shared_by = text("shared_cpu_list").and_then(|t| parse_cpu_list(&t)).map_or(1, |cpus| cpus.len());
            Some(Level {
                level: text("level")?.trim().parse().ok()?,
                line_bytes: text("coherency_line_size").and_then(|t| t.trim().parse().ok()).filter(|&n| n > 0),
                cache: Cache { bytes: parse_size(&text("size")?)?, shared_by },
            })
        })
        .collect()
}

/// Whole cores that the control group (version 2) of this process and its ancestors grant, if they limit it.
fn cpu_quota(root: &Path) -> Option<usize> {
    let groups = read_text(&root.join("proc/self/cgroup"))?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let top = root.join("sys/fs/cgroup");
    let mut directory = top.clone();
    directory.extend(Path::new(group).components().filter(|c| matches!(c, Component::Normal(_))));
    let directories: Vec<PathBuf> =
        directory.ancestors().take_while(|d| d.starts_with(&top)).map(Path::to_path_buf).collect();
    directories.iter().filter_map(|d| parse_cpu_max(&read_text(&d.join("cpu.max"))?)).min()
}

/// Whole cores (at least 1) of a `cpu.max` file: `quota period` in microseconds, or `max period`.
fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let cores = quota.parse::<usize>().ok()?.checked_div(period.trim().parse().ok()?)?;
    Some(cores.max(1))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Two cores of two threads each, of which the process may use three logical ones.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const CPUINFO: &str = "processor\t: 0\nmodel name\t: Intel(R)  Core(TM) i7\nphysical id\t: 0\ncore id\t\t: 0\n\n\
                           processor\t: 1\nphysical id\t: 0\ncore id\t\t: 1\n\n\
                           processor\t: 2\nphysical id\t: 0\ncore id\t\t: 0\n\n\
                           processor\t: 3\nphysical id\t: 0\ncore id\t\t: 1\n";

    #[test]
    fn whole_machine() {
        let cache = "sys/devices/system/cpu/cpu1/cache";
        let mut files = vec![
            ("proc/cpuinfo".to_owned(), CPUINFO.to_owned()),
            ("proc/self/status".to_owned(), "Name:\tx\nCpus_allowed:\te\nCpus_allowed_list:\t1-3\n".to_owned()),
            ("proc/meminfo".to_owned(), "MemTotal:       24684084 kB\nMemFree: 1 kB\n".to_owned()),
        ];
        for (index, (level, kind, size, shared)) in [
            ("1", "Data", "32K", "1,3"),
            ("1", "Instruction", "64K", "1,3"),
            ("2", "Unified", "256K", "1,3"),
            ("3", "Unified", "8M", "0-3"),
        ]
        .into_iter()
        .enumerate()
        {
            for (name, value) in [
                ("level", level),
                ("type", kind),
                ("size", size),
                ("shared_cpu_list", shared),
                ("coherency_line_size", "64"),
            ] {
                files.push((format!("{cache}/index{index}/{name}"), format!("{value}\n")));
            }
        }
        for (cpu, siblings) in [(1, "1,3"), (2, "0,2"), (3, "1,3")] {
            files.push((format!("sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"), siblings.to_owned()));
        }
        let root = machine(&files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>());
        let facts = read(root.path());
        let expected = Facts {
            cpu_model: Some("Intel(R) Core(TM) i7".to_owned()),
            logical_cores: Some(3),
            physical_cores: Some(2),
            l1d: Some(Cache { bytes: 32 << 10, shared_by: 2 }),
            l2: Some(Cache { bytes: 256 << 10, shared_by: 2 }),
            l3: Some(Cache { bytes: 8 << 20, shared_by: 4 }),
            line_bytes: Some(64),
            memory_bytes: Some(24_684_084 * 1024),
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn nothing_and_rubbish_are_unknown() {
        assert_eq!(read(Path::new("no/such/directory")), Facts::default());
        let root = machine(&[
            ("proc/cpuinfo", "\u{0}: :\nmodel name\nprocessor: x\n\n\n"),
            ("proc/self/status", "Cpus_allowed_list:\t0-99999999999\n"),
            ("proc/meminfo", "MemTotal: 99999999999999999999 kB"),
            ("proc/self/cgroup", "0::/../../x\n"),
            ("sys/devices/system/cpu/cpu0/cache/index0/type", "Data"),
            ("sys/devices/system/cpu/cpu0/cache/index0/level", "one"),
            ("sys/devices/system/cpu/cpu0/cache/index0/size", "48K"),
        ]);
        assert_eq!(read(root.path()), Facts::default());
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-3,8, 10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse_cpu_list("5,5,4-5"), Some(vec![4, 5]));
        for bad in ["", ",", "1,", "3-1", "-", "1-", "a", "0-65536", "18446744073709551616", "1-2-3"] {
            assert_eq!(parse_cpu_list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn physical_cores_without_sysfs() {
        assert_eq!(cpuinfo_cores(CPUINFO, &[0, 1, 2, 3]), Some(2));
        assert_eq!(cpuinfo_cores(CPUINFO, &[0, 2]), Some(1));
        assert_eq!(cpuinfo_cores(CPUINFO, &[]), None);
        assert_eq!(cpuinfo_cores("processor: 0\n", &[0]), None);
    }

    #[test]
    fn arm_names() {
        let odroid = "processor: 0\nCPU implementer : 0x41\nCPU part : 0xc07\n\nprocessor: 1\nCPU implementer : 0x41\nCPU part : 0xc07\n\n\
                      processor: 4\nCPU implementer : 0x41\nCPU part : 0xc0f\n\nHardware : ODROID-XU4\n";
        assert_eq!(cpu_model(odroid).as_deref(), Some("implementer 0x41 part 0xc07, implementer 0x41 part 0xc0f"));
        assert_eq!(cpu_model("Hardware : ODROID-XU4\n").as_deref(), Some("ODROID-XU4"));
    }

    #[test]
    fn quotas() {
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("250000 100000\n"), Some(2));
        assert_eq!(parse_cpu_max("1000 100000"), Some(1));
        for bad in ["", "1", "1 0", "x 1", "-5 10"] {
            assert_eq!(parse_cpu_max(bad), None, "{bad:?}");
        }
        let root = machine(&[
            ("proc/self/status", "Cpus_allowed_list: 0-7\n"),
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/cpu.max", "300000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(read(root.path()).logical_cores, Some(3));
    }
}
