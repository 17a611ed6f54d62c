//! The machine as macOS shows it through `sysctl`.

use std::process::{Command, Stdio};

use crate::Cache;
use crate::facts::{Facts, tidy_name};

/// What is asked for. `perflevel0` is the cluster of fast cores; Intel machines have only the plain names.
const NAMES: [&str; 11] = [
    "machdep.cpu.brand_string",
    "hw.logicalcpu",
    "hw.physicalcpu",
    "hw.cachelinesize",
    "hw.memsize",
    "hw.l1dcachesize",
    "hw.l2cachesize",
    "hw.l3cachesize",
    "hw.perflevel0.l1dcachesize",
    "hw.perflevel0.l2cachesize",
    "hw.perflevel0.cpusperl2",
];

/// Asks the system's `sysctl`. Names it does not know are left out of its answer, which is no error here.
pub(crate) fn read() -> Facts {
    let output = Command::new("/usr/sbin/sysctl").args(NAMES).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map_or_else(|_| Facts::default(), |o| parse(&String::from_utf8_lossy(&o.stdout)))
}

/// Reads `name: value` lines.
pub(crate) fn parse(text: &str) -> Facts {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name))
            .map(|(_, value)| value.trim())
    };
    let count = |name: &str| value(name).and_then(|v| v.parse::<usize>().ok()).filter(|&n| n > 0);
    let bytes = |name: &str| value(name).and_then(|v| v.parse::<u64>().ok()).filter(|&n| n > 0);
    let cache = |fast: &str, plain: &str, shared_by: usize| {
        bytes(fast).or_else(|| bytes(plain)).map(|bytes| Cache { bytes, shared_by })
    };
    Facts {
        cpu_model: value("machdep.cpu.brand_string").and_then(tidy_name),
        logical_cores: count("hw.logicalcpu"),
        physical_cores: count("hw.physicalcpu"),
        l1d: cache("hw.perflevel0.l1dcachesize", "hw.l1dcachesize", 1),
        l2: cache("hw.perflevel0.l2cachesize", "hw.l2cachesize", count("hw.perflevel0.cpusperl2").unwrap_or(1)),
        l3: cache("hw.l3cachesize", "hw.l3cachesize", count("hw.logicalcpu").unwrap_or(1)),
        line_bytes: count("hw.cachelinesize"),
        memory_bytes: bytes("hw.memsize"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_machine() {
        let facts = parse(
            "machdep.cpu.brand_string: Apple M1\nhw.logicalcpu: 8\nhw.physicalcpu: 8\nhw.cachelinesize: 128\nhw.memsize: 17179869184\n\
             hw.l1dcachesize: 65536\nhw.l2cachesize: 4194304\nhw.perflevel0.l1dcachesize: 131072\nhw.perflevel0.l2cachesize: 12582912\nhw.perflevel0.cpusperl2: 4\n",
        );
        assert_eq!(facts.cpu_model.as_deref(), Some("Apple M1"));
        assert_eq!((facts.logical_cores, facts.physical_cores, facts.line_bytes), (Some(8), Some(8), Some(128)));
        assert_eq!(facts.l1d, Some(Cache { bytes: 128 << 10, shared_by: 1 }));
        assert_eq!(facts.l2, Some(Cache { bytes: 12 << 20, shared_by: 4 }));
        assert_eq!((facts.l3, facts.memory_bytes), (None, Some(16 << 30)));
    }

    #[test]
    fn rubbish_is_unknown() {
        assert_eq!(parse(""), Facts::default());
        assert_eq!(parse("hw.memsize: -1\nhw.logicalcpu: 0\nhw.physicalcpu\n: \n"), Facts::default());
    }
}
