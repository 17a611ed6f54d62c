//! The roofline model.

use std::time::Duration;

use crate::Peaks;

/// The least time work can take on a machine with these [`Peaks`]: the roofline of Williams, Waterman and
/// Patterson, "Roofline: an insightful visual performance model for multicore architectures" (2009).
///
/// Work of `flops` operations that moves `bytes` to and from memory takes at least
/// `max(flops / peak rate, bytes / bandwidth)`, compute and transfers overlapping perfectly. The bandwidth is
/// that of the cache (or memory) that holds the working set, so a network whose weights stay in L3 is
/// not held against main memory.
///
/// ```
/// use dlis_hw::Peaks;
/// # use dlis_hw::{BandwidthPeak, ComputePeak, Rate, SimdLevel};
/// # let rate = |per_s| Rate { per_s, best_per_s: per_s, samples: 1 };
/// # let peaks = Peaks { fingerprint: String::new(),
/// #     compute: vec![ComputePeak { simd: SimdLevel::Avx2, threads: 1, flops: rate(100e9) }],
/// #     bandwidth: vec![BandwidthPeak { threads: 1, working_set_bytes: 1 << 20, read_bytes: rate(10e9), triad_bytes: rate(8e9) }] };
/// // A machine of 100 GFLOP/s and 10 GB/s:
/// let roofline = peaks.roofline(1).expect("one thread was measured");
/// assert_eq!(roofline.time(1e9, 1e6, 1 << 20).as_millis(), 10); // compute-bound
/// assert_eq!(roofline.time(1e6, 1e9, 1 << 20).as_millis(), 100); // memory-bound
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Roofline {
    flops_per_s: f64,
    /// (working set, bytes per second), ascending, not empty.
    bandwidth: Vec<(u64, f64)>,
}

/// Which of the two roofs limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The floating-point rate.
    Compute,
    /// The bandwidth.
    Memory,
}

impl Peaks {
    /// The roofline of `threads` threads at the best SIMD level measured; `None` if nothing was measured.
    /// A thread count that was not measured is answered as in [`Peaks::read_bytes_per_s`].
    pub fn roofline(&self, threads: usize) -> Option<Roofline> {
        let flops_per_s = self.flops_per_s(threads)?;
        let bandwidth: Vec<(u64, f64)> = self.read_points(threads).collect();
        (!bandwidth.is_empty()).then_some(Roofline { flops_per_s, bandwidth })
    }
}

impl Roofline {
    /// Two roofs, whatever the working set: of a device whose peaks were measured elsewhere.
    ///
    /// ```
    /// let roofline = dlis_hw::Roofline::flat(100e9, 10e9);
    /// assert_eq!(roofline.time(1e9, 1e6, 1 << 40).as_millis(), 10);
    /// ```
    pub fn flat(flops_per_s: f64, bytes_per_s: f64) -> Self {
        Self { flops_per_s, bandwidth: vec![(u64::MAX, bytes_per_s)] }
    }

    /// The least time of `flops` operations and `bytes` moved within a working set of `working_set_bytes`,
    /// to the nanosecond. See [`Roofline::seconds`] for sums of small pieces.
    pub fn time(&self, flops: f64, bytes: f64, working_set_bytes: u64) -> Duration {
        let seconds = self.seconds(flops, bytes, working_set_bytes);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// As [`Roofline::time`], in seconds. Negative amounts and NaN count as none.
    pub fn seconds(&self, flops: f64, bytes: f64, working_set_bytes: u64) -> f64 {
        let (compute, memory) = self.roofs(flops, bytes, working_set_bytes);
        compute.max(memory)
    }

    /// Which roof limits such work; at the ridge, the floating-point rate.
    pub fn bound(&self, flops: f64, bytes: f64, working_set_bytes: u64) -> Bound {
        let (compute, memory) = self.roofs(flops, bytes, working_set_bytes);
        if compute >= memory { Bound::Compute } else { Bound::Memory }
    }

    /// Operations per byte at which both roofs meet for such a working set.
    pub fn ridge(&self, working_set_bytes: u64) -> f64 {
        self.flops_per_s / self.bytes_per_s(working_set_bytes)
    }

    /// The floating-point roof, operations per second.
    pub fn flops_per_s(&self) -> f64 {
        self.flops_per_s
    }

    /// The bandwidth roof for such a working set, bytes per second.
    pub fn bytes_per_s(&self, working_set_bytes: u64) -> f64 {
        let above = self.bandwidth.iter().find(|(bytes, _)| *bytes >= working_set_bytes);
        above.or(self.bandwidth.last()).map_or(f64::INFINITY, |point| point.1)
    }

    fn roofs(&self, flops: f64, bytes: f64, working_set_bytes: u64) -> (f64, f64) {
        // `f64::max` drops a NaN.
        (flops.max(0.0) / self.flops_per_s, bytes.max(0.0) / self.bytes_per_s(working_set_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roofline() -> Roofline {
        Roofline { flops_per_s: 100e9, bandwidth: vec![(1 << 20, 50e9), (64 << 20, 10e9)] }
    }

    #[test]
    fn the_slower_roof_counts() {
        let r = roofline();
        assert_eq!(r.time(1e9, 0.0, 0), Duration::from_millis(10));
        assert_eq!(r.time(0.0, 1e9, 1 << 20), Duration::from_millis(20));
        assert_eq!(r.time(0.0, 1e9, (1 << 20) + 1), Duration::from_millis(100));
        assert_eq!(r.time(0.0, 1e9, u64::MAX), Duration::from_millis(100));
        assert_eq!(r.time(1e9, 1e9, 64 << 20), Duration::from_millis(100));
        assert_eq!(r.ridge(1), 2.0);
        assert_eq!(r.bound(2.0, 1.0, 1), Bound::Compute);
        assert_eq!(r.bound(1.9, 1.0, 1), Bound::Memory);
    }

    #[test]
    fn odd_amounts_do_not_panic() {
        let r = roofline();
        assert_eq!(r.time(f64::NAN, -1.0, 0), Duration::ZERO);
        assert_eq!(r.time(f64::INFINITY, 0.0, 0), Duration::MAX);
    }
}
