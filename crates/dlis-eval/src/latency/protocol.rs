//! The numbers of the protocol.

use serde::{Deserialize, Serialize};

/// How long to warm up, how to take turns, when to stop, and what counts as noisy.
///
/// Records keep it beside the figures it gave. Counts below one count as one.
///
/// ```
/// use dlis_eval::latency::Protocol;
///
/// let protocol = Protocol { rounds: 30, ..Protocol::default() };
/// assert!(protocol.budget_ns >= protocol.warmup_max_ns);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Protocol {
    /// Warm-up runs at least, unless they take longer than `warmup_max_ns`.
    pub warmup_min_runs: u32,
    /// Warm-up runs at most.
    pub warmup_max_runs: u32,
    /// Warm-up time at least.
    pub warmup_min_ns: u64,
    /// Warm-up time at most; the run in progress is finished.
    pub warmup_max_ns: u64,
    /// A warm-up window is at least this many runs,
    pub warmup_window_runs: u32,
    /// and at least this long.
    pub warmup_window_ns: u64,
    /// The warm-up is over when the medians of this many windows in a row agree,
    pub warmup_windows: u32,
    /// which means that the largest is at most this fraction above the smallest.
    pub warmup_tolerance: f64,
    /// Rounds; in each, every point gets one slice.
    pub rounds: u32,
    /// Samples a point needs; rounds are added until all have them or are out of budget.
    pub min_samples: u32,
    /// At the head of a slice, runs are dropped for this long: at least one.
    pub settle_ns: u64,
    /// Length of a slice, counted after the dropped runs. The run in progress is
    /// finished, so there is one sample at least.
    pub slice_ns: u64,
    /// Samples of one slice at most.
    pub max_slice_samples: u32,
    /// Time a point may take in all, warm-up and dropped runs included. A point over its budget
    /// gets no further round, but always its first.
    pub budget_ns: u64,
    /// Bootstrap resamples for the interval of the median.
    pub resamples: u32,
    /// Seed of the order of turns and of the bootstrap.
    pub seed: u64,
    /// Noisy if the 95 % interval of the median is wider than this fraction of the median.
    pub max_interval: f64,
    /// Noisy if the median absolute deviation is above this fraction of the median.
    pub max_spread: f64,
    /// Noisy if the medians of the first and the last third of the rounds differ by more than
    /// this fraction.
    pub max_drift: f64,
}

impl Default for Protocol {
    /// For figures that are reported: from 1.3 s a point for fast networks, 20 s at most but for
    /// a single run that takes longer.
    fn default() -> Self {
        Self {
            warmup_min_runs: 3,
            warmup_max_runs: 100_000,
            warmup_min_ns: 100_000_000,
            warmup_max_ns: 2_000_000_000,
            warmup_window_runs: 5,
            warmup_window_ns: 20_000_000,
            warmup_windows: 3,
            warmup_tolerance: 0.02,
            rounds: 12,
            min_samples: 60,
            settle_ns: 10_000_000,
            slice_ns: 100_000_000,
            max_slice_samples: 1_000,
            budget_ns: 20_000_000_000,
            resamples: 1_000,
            seed: 0x0d11_5eed,
            max_interval: 0.05,
            max_spread: 0.10,
            max_drift: 0.05,
        }
    }
}

impl Protocol {
    /// For a first look and for searches: about a third of a second a point, wider intervals.
    pub fn quick() -> Self {
        Self {
            warmup_min_ns: 20_000_000,
            warmup_max_ns: 300_000_000,
            warmup_window_runs: 3,
            warmup_window_ns: 5_000_000,
            rounds: 5,
            min_samples: 10,
            slice_ns: 40_000_000,
            budget_ns: 3_000_000_000,
            ..Self::default()
        }
    }
}
