//! The memory of a stack point: four numbers that are predicted, and what was seen of them.
//!
//! The prediction comes from the formats and the memory plan. It is checked against a counting
//! allocator where there is one ([`MemoryCheck`]), and [`peak_resident_bytes`] says what the
//! system saw of the process as a whole.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The four memory numbers, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Memory {
    /// The artefact on disk.
    pub disk_bytes: u64,
    /// Weights resident while running, in the formats and packings the kernels use.
    pub weight_bytes: u64,
    /// Activations: the size of the planned arena, not the sum over layers.
    pub activation_bytes: u64,
    /// Scratch of the kernels over all threads, such as im2col buffers.
    pub scratch_bytes: u64,
}

impl Memory {
    /// Bytes resident while running: weights, activations and scratch.
    ///
    /// Saturates, so that a made-up record cannot wrap around to a small number.
    pub fn resident_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.activation_bytes).saturating_add(self.scratch_bytes)
    }
}

/// A predicted number of bytes beside the one a counting allocator saw.
///
/// ```
/// use dlis_eval::memory::{MemoryCheck, Tolerance};
///
/// let check = MemoryCheck { predicted_bytes: 1_000_000, counted_bytes: 1_004_096 };
/// assert!(check.within(Tolerance { fraction: 0.01, bytes: 0 }));
/// assert!(!check.within(Tolerance::EXACT));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryCheck {
    /// What the plan said.
    pub predicted_bytes: u64,
    /// What was allocated.
    pub counted_bytes: u64,
}

impl MemoryCheck {
    /// Whether the two differ by no more than the tolerance.
    pub fn within(&self, tolerance: Tolerance) -> bool {
        let relative = tolerance.fraction * self.predicted_bytes as f64;
        let difference = self.predicted_bytes.abs_diff(self.counted_bytes);
        difference <= tolerance.bytes || difference as f64 <= relative
    }
}

impl fmt::Display for MemoryCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "predicted {} bytes, counted {}", self.predicted_bytes, self.counted_bytes)
    }
}

/// How far a count may be from its prediction. Either allowance suffices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// As a fraction of the prediction, for headers and alignment of many blocks.
    pub fraction: f64,
    /// In bytes, for fixed costs such as the structures around the tensors.
    pub bytes: u64,
}

impl Tolerance {
    /// To the byte.
    pub const EXACT: Self = Self { fraction: 0.0, bytes: 0 };
}

impl Default for Tolerance {
    /// 1 %, or 64 KiB.
    fn default() -> Self {
        Self { fraction: 0.01, bytes: 64 << 10 }
    }
}

/// The most memory this process has had resident so far, or `None` where the system does not say
/// (it does on Linux, as `VmHWM`).
///
/// It covers the whole process and never falls, so it bounds a single point only in a process of
/// its own.
pub fn peak_resident_bytes() -> Option<u64> {
    status_bytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// A memory field of the text of `/proc/<pid>/status`, whose unit is always kB of 1,024 bytes.
fn status_bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let (number, unit) = line.trim().split_once(char::is_whitespace)?;
    if unit.trim() != "kB" {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_adds_up_and_saturates() {
        let memory = Memory { disk_bytes: 1, weight_bytes: 2, activation_bytes: 4, scratch_bytes: 8 };
        assert_eq!(memory.resident_bytes(), 14);
        assert_eq!(Memory { weight_bytes: u64::MAX, ..memory }.resident_bytes(), u64::MAX);
        let json = serde_json::to_string(&memory).unwrap();
        assert_eq!(json, r#"{"disk_bytes":1,"weight_bytes":2,"activation_bytes":4,"scratch_bytes":8}"#);
        assert_eq!(serde_json::from_str::<Memory>(&json).unwrap(), memory);
    }

    #[test]
    fn either_tolerance_suffices_in_both_directions() {
        let check = |counted_bytes| MemoryCheck { predicted_bytes: 1000, counted_bytes };
        let tolerance = Tolerance { fraction: 0.1, bytes: 20 };
        for (counted, within) in [(1000, true), (1100, true), (900, true), (1101, false), (899, false)] {
            assert_eq!(check(counted).within(tolerance), within, "{counted}");
        }
        assert!(check(1020).within(Tolerance { fraction: 0.0, bytes: 20 }));
        assert!(!check(1021).within(Tolerance { fraction: f64::NAN, bytes: 20 }));
        assert!(check(1000).within(Tolerance::EXACT) && !check(1001).within(Tolerance::EXACT));
        assert_eq!(check(7).to_string(), "predicted 1000 bytes, counted 7");
    }

    #[test]
    fn status_lines_are_read_with_their_unit() {
        let status = "Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t   1234 kB\nVmHWMx:\t5 kB\n";
        assert_eq!(status_bytes(status, "VmHWM"), Some(1234 * 1024));
        for broken in ["", "VmHWM:", "VmHWM:\t12", "VmHWM:\t12 MB", "VmHWM:\t-1 kB", "VmHWM:\t99999999999999999999 kB"]
        {
            assert_eq!(status_bytes(broken, "VmHWM"), None, "{broken:?}");
        }
        assert_eq!(status_bytes(&format!("VmHWM: {} kB", u64::MAX), "VmHWM"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_grows_with_what_is_touched() {
        let before = peak_resident_bytes().unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = peak_resident_bytes().unwrap();
        assert!(after >= before && after >= 64 << 20, "{before} {after}");
        assert_eq!(block[block.len() - 1], 1);
    }
}
