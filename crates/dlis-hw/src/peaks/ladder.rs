//! The working sets at which bandwidth is measured.

use std::time::Duration;

use super::kernels::BLOCK;
use crate::Hardware;

const MIB: u64 = 1 << 20;
/// Largest working set: where a virtual machine sees its host's L3 it may still lie within it.
const MAX_BYTES: u64 = 256 * MIB;
/// What the largest working set is without word of an L3 or memory.
const DEFAULT_BYTES: u64 = 64 * MIB;
/// Floats of a thread's part are a multiple of this: each third of a triad is made of whole blocks.
const UNIT: usize = 3 * BLOCK;
/// Neighbouring rungs are at least this factor (in eighths) apart.
const MIN_STEP_EIGHTHS: usize = 12;

/// Floats per thread at each point, ascending: working sets of half of each cache, and of the sizes that
/// networks' weights have. Not empty.
pub(super) fn floats_per_thread(hw: &Hardware, threads: usize, budget: Duration) -> Vec<usize> {
    let threads_u64 = threads as u64;
    // Half of a private cache per thread: the other half is left to whoever else uses it.
    let private = |cache: Option<crate::Cache>| {
        cache.map(|c| (c.bytes / 2 / c.shared_by.max(1) as u64).saturating_mul(threads_u64))
    };
    let l3 = hw.l3.map(|c| c.bytes);
    // First touch and repeats of a byte take a few nanoseconds on a slow machine.
    let affordable = u64::try_from(budget.as_nanos() * 3 / 8).unwrap_or(u64::MAX);
    let top = l3
        .map_or(DEFAULT_BYTES, |bytes| bytes.saturating_mul(4))
        .clamp(DEFAULT_BYTES, MAX_BYTES)
        .min(hw.memory_bytes.map_or(DEFAULT_BYTES, |bytes| bytes / 4))
        .min(affordable.max(MIB));
    let mut sets = vec![top, 4 * MIB, 16 * MIB, 64 * MIB];
    sets.extend([private(hw.l1d), private(hw.l2), l3.map(|bytes| bytes / 2)].into_iter().flatten());
    sets.retain(|&bytes| bytes <= top);

    let mut floats: Vec<usize> = sets
        .into_iter()
        .map(|bytes| usize::try_from(bytes / 4 / threads_u64).unwrap_or(UNIT))
        .map(|n| (n / UNIT).max(1) * UNIT)
        .collect();
    floats.sort_unstable_by(|a, b| b.cmp(a));
    floats.dedup_by(|smaller, larger| *smaller * MIN_STEP_EIGHTHS / 8 > *larger);
    floats.reverse();
    floats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;

    fn machine(l1d: u64, l2: u64, l3: Option<u64>, memory: Option<u64>) -> Hardware {
        Hardware {
            l1d: Some(Cache { bytes: l1d, shared_by: 1 }),
            l2: Some(Cache { bytes: l2, shared_by: 1 }),
            l3: l3.map(|bytes| Cache { bytes, shared_by: 4 }),
            memory_bytes: memory,
            ..Hardware::detect()
        }
    }

    fn mebibytes(hw: &Hardware, threads: usize, budget: Duration) -> Vec<f64> {
        floats_per_thread(hw, threads, budget).into_iter().map(|n| (n * 4 * threads) as f64 / MIB as f64).collect()
    }

    #[test]
    fn a_desktop() {
        let sets = mebibytes(&machine(32 << 10, 256 << 10, Some(8 * MIB), Some(8 << 30)), 2, Duration::from_secs(1));
        let expected = [0.03, 0.25, 4.0, 16.0, 64.0];
        assert_eq!(sets.len(), expected.len(), "{sets:?}");
        assert!(sets.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.05 * b), "{sets:?}");
    }

    #[test]
    fn caches_of_a_host_are_capped() {
        let sets = mebibytes(&machine(48 << 10, 2 * MIB, Some(260 * MIB), Some(24 << 30)), 1, Duration::from_secs(1));
        assert!((255.0..=256.0).contains(sets.last().unwrap()), "{sets:?}");
    }

    #[test]
    fn little_memory_little_time_or_many_threads() {
        let whole = machine(u64::MAX, u64::MAX, Some(u64::MAX), Some(u64::MAX));
        assert!(mebibytes(&whole, 1, Duration::MAX).iter().all(|&m| m <= 256.0));
        for hw in [whole, machine(0, 0, Some(0), Some(0)), machine(1, 1, None, None)] {
            for (threads, budget) in [(1, Duration::ZERO), (1024, Duration::from_millis(10)), (3, Duration::MAX)] {
                let floats = floats_per_thread(&hw, threads, budget);
                assert!(!floats.is_empty() && floats.windows(2).all(|w| w[0] < w[1]), "{floats:?}");
                assert!(floats.iter().all(|n| *n > 0 && n % UNIT == 0), "{floats:?}");
            }
        }
    }
}
