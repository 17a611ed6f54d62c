//! Measured peaks: the floating-point rate and the bandwidth no kernel can beat.

mod kernels;
mod ladder;
mod team;

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cache::human_bytes;
use crate::{Hardware, SimdLevel};
use kernels::Kernels;
use team::{Job, Team};

/// The measured peaks of a machine: what [`Roofline`](crate::Roofline) is made of and what kernels are
/// held against.
///
/// ```no_run
/// use dlis_hw::Peaks;
///
/// let peaks = Peaks::measure(&[1, 2], Peaks::DEFAULT_BUDGET);
/// let vgg_weights = 60_000_000;
/// let bytes_per_s = peaks.read_bytes_per_s(2, vgg_weights).expect("two threads were measured");
/// assert!(bytes_per_s > 1e9);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// [`Hardware::fingerprint`] of the machine they were measured on.
    pub fingerprint: String,
    /// Floating-point rates, per SIMD level and thread count.
    pub compute: Vec<ComputePeak>,
    /// Bandwidths at the best SIMD level, per thread count and working set, working sets ascending.
    pub bandwidth: Vec<BandwidthPeak>,
}

/// The rate of independent f32 multiply-adds that stay in registers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComputePeak {
    /// Level of the instructions. [`SimdLevel::Portable`] multiplies, then adds: the baseline of x86-64
    /// has no fused instruction.
    pub simd: SimdLevel,
    /// Threads that ran at once.
    pub threads: usize,
    /// Operations per second over all threads; a multiply-add is two.
    pub flops: Rate,
}

/// The rate of streaming through a working set again and again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BandwidthPeak {
    /// Threads that ran at once, each on its own part of the working set.
    pub threads: usize,
    /// Bytes of all parts together.
    pub working_set_bytes: u64,
    /// Bytes read per second, nothing written.
    pub read_bytes: Rate,
    /// Bytes read and written per second by `c[i] = a[i] + 3 b[i]`, counted as STREAM counts: two reads
    /// and a write, not the read that fetches the line to be written.
    pub triad_bytes: Rate,
}

/// A rate from several repeats, in whole units per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Median of the repeats.
    pub per_s: f64,
    /// The fastest repeat: far from the median where something else used the machine.
    pub best_per_s: f64,
    /// Number of repeats.
    pub samples: usize,
}

/// Thread counts above this are not measured.
const MAX_THREADS: usize = 1024;
/// Repeats taken of each quantity while the budget lasts.
const MIN_SAMPLES: usize = 3;
const MAX_SAMPLES: usize = 9;
/// Length of a repeat: long enough that starting threads together does not count, short enough for a budget.
const MIN_SAMPLE: Duration = Duration::from_millis(1);
const MAX_SAMPLE: Duration = Duration::from_millis(5);

impl Peaks {
    /// A time in which two thread counts are measured with several repeats each.
    pub const DEFAULT_BUDGET: Duration = Duration::from_secs(2);

    /// Measures this machine for each of the thread counts, in about `budget` altogether.
    ///
    /// Counts of 0, repeated ones and those above 1024 are left out, as are those the operating system
    /// has no threads for. Bandwidth is measured from half the first-level cache up to four times the
    /// last-level one, but at most 256 MiB, a quarter of memory, and what the budget can pay for
    /// ([`BandwidthPeak::working_set_bytes`] says what was used). One repeat of everything is
    /// made even if the budget is spent.
    pub fn measure(threads: &[usize], budget: Duration) -> Self {
        Self::measure_on(&Hardware::detect(), threads, budget)
    }

    /// As [`Peaks::measure`], limited to the SIMD levels that `hw`, a description of this machine, admits.
    pub fn measure_on(hw: &Hardware, threads: &[usize], budget: Duration) -> Self {
        let start = Instant::now();
        let mut counts: Vec<usize> = threads.iter().copied().filter(|n| (1..=MAX_THREADS).contains(n)).collect();
        counts.sort_unstable();
        counts.dedup();
        let kernels: Vec<(SimdLevel, Kernels)> = SimdLevel::ALL
            .into_iter()
            .filter(|&level| hw.supports(level))
            .filter_map(|level| Some((level, Kernels::new(level)?)))
            .collect();
        let mut peaks = Self { fingerprint: hw.fingerprint(), compute: Vec::new(), bandwidth: Vec::new() };
        for (done, &threads) in counts.iter().enumerate() {
            let left = budget.saturating_sub(start.elapsed());
            let share = left / u32::try_from(counts.len() - done).unwrap_or(u32::MAX);
            // A count without threads to run it on is left out.
            let _ = team::with_team(threads, |team| peaks.measure_count(hw, &kernels, team, share));
        }
        peaks
    }

    /// Everything for one thread count. `None` when a thread is lost.
    fn measure_count(
        &mut self,
        hw: &Hardware,
        kernels: &[(SimdLevel, Kernels)],
        team: &Team,
        share: Duration,
    ) -> Option<()> {
        let deadline = Instant::now() + share;
        let threads = team.threads();
        for &(simd, kernels) in kernels {
            let slice = share / 10;
            let flops = measure_rate(slice, deadline, |passes| {
                let iterations = passes.saturating_mul(1000);
                let flops = iterations as f64 * kernels.flops_per_iteration() as f64 * threads as f64;
                Some((flops, team.run(Job::Fma { kernels, iterations })?))
            })?;
            self.compute.push(ComputePeak { simd, threads, flops });
        }

        let kernels = kernels.last()?.1;
        let mut ladder = ladder::floats_per_thread(hw, threads, share);
        while !team.allocate(*ladder.last()?)? {
            ladder.pop();
        }
        for (done, &floats) in ladder.iter().enumerate() {
            let bytes = |passes: u64| passes as f64 * (floats * 4) as f64 * threads as f64;
            let phases = u32::try_from(2 * (ladder.len() - done)).unwrap_or(u32::MAX);
            let slice = deadline.saturating_duration_since(Instant::now()) / phases;
            let read_bytes = measure_rate(slice, deadline, |passes| {
                Some((bytes(passes), team.run(Job::Read { kernels, floats, passes })?))
            })?;
            let triad_bytes = measure_rate(slice, deadline, |passes| {
                Some((bytes(passes), team.run(Job::Triad { kernels, floats, passes })?))
            })?;
            self.bandwidth.push(BandwidthPeak {
                threads,
                working_set_bytes: (floats * 4 * threads) as u64,
                read_bytes,
                triad_bytes,
            });
        }
        Some(())
    }

    /// Operations per second of `threads` threads at the best SIMD level measured: the fastest repeat, since a
    /// peak is what the machine can do, and whatever disturbs a repeat only slows it. A count that was not
    /// measured is answered with the next lower one that was (or the lowest); `None` without any.
    pub fn flops_per_s(&self, threads: usize) -> Option<f64> {
        let simd = self.compute.iter().map(|p| p.simd).max()?;
        self.flops_per_s_at(simd, threads)
    }

    /// As [`Peaks::flops_per_s`] for one SIMD level.
    pub fn flops_per_s_at(&self, simd: SimdLevel, threads: usize) -> Option<f64> {
        let points = || self.compute.iter().filter(|p| p.simd == simd && p.flops.is_sane());
        let count = nearest_count(points().map(|p| p.threads), threads)?;
        points().find(|p| p.threads == count).map(|p| p.flops.best_per_s)
    }

    /// Bytes per second that `threads` threads together read from a working set of `working_set_bytes`, in the
    /// fastest repeat: the measured point with the nearest larger working set (the largest there is, beyond it), since a
    /// set that just outgrows a cache runs at the next one's speed. A thread count that was not measured is
    /// answered with the next lower one that was (or the lowest); `None` without any.
    pub fn read_bytes_per_s(&self, threads: usize, working_set_bytes: u64) -> Option<f64> {
        let points: Vec<(u64, f64)> = self.read_points(threads).collect();
        let above = points.iter().find(|(bytes, _)| *bytes >= working_set_bytes);
        above.or(points.last()).map(|point| point.1)
    }

    /// Bytes per second of the triad from the largest working set measured, which is the usual figure for
    /// memory; thread counts as in [`Peaks::read_bytes_per_s`].
    pub fn triad_bytes_per_s(&self, threads: usize) -> Option<f64> {
        let points = || self.bandwidth.iter().filter(|p| p.triad_bytes.is_sane());
        let count = nearest_count(points().map(|p| p.threads), threads)?;
        points().filter(|p| p.threads == count).max_by_key(|p| p.working_set_bytes).map(|p| p.triad_bytes.best_per_s)
    }

    /// (working set, bytes read per second) for the measured count that stands for `threads`, ascending.
    pub(crate) fn read_points(&self, threads: usize) -> impl Iterator<Item = (u64, f64)> {
        let sane = || self.bandwidth.iter().filter(|p| p.read_bytes.is_sane());
        let count = nearest_count(sane().map(|p| p.threads), threads);
        let mut points: Vec<(u64, f64)> = sane()
            .filter(|p| Some(p.threads) == count)
            .map(|p| (p.working_set_bytes, p.read_bytes.best_per_s))
            .collect();
        points.sort_unstable_by_key(|point| point.0);
        points.into_iter()
    }
}

/// The largest of `counts` up to `threads`, or else the smallest.
fn nearest_count(counts: impl Iterator<Item = usize>, threads: usize) -> Option<usize> {
    counts.min_by_key(|&count| if count <= threads { (0, threads - count) } else { (1, count) })
}

impl Rate {
    fn of(mut rates: Vec<f64>) -> Option<Self> {
        rates.sort_unstable_by(f64::total_cmp);
        let (middle, samples) = (rates.len() / 2, rates.len());
        let median = if samples % 2 == 1 {
            *rates.get(middle)?
        } else {
            f64::midpoint(*rates.get(middle)?, *rates.get(middle.checked_sub(1)?)?)
        };
        // Fractions are noise, and whole numbers survive any text format.
        Some(Self { per_s: median.round(), best_per_s: rates.last()?.round(), samples })
    }

    /// Whether it can be divided by; one read from a file may be anything.
    fn is_sane(&self) -> bool {
        self.per_s.is_finite() && self.per_s > 0.0
    }
}

/// The rate of a piece of work that is repeated `passes` times per call and answers (units, time taken).
/// Calls get longer until they last a good part of a sample, which also warms caches and clocks up; then come
/// repeats for about `slice`. After the deadline the first call decides.
fn measure_rate(
    slice: Duration,
    deadline: Instant,
    mut work: impl FnMut(u64) -> Option<(f64, Duration)>,
) -> Option<Rate> {
    let rate = |(units, time): (f64, Duration)| units / time.as_secs_f64().max(1e-9);
    let end = (Instant::now() + slice).min(deadline);
    let target = (slice / 6).clamp(MIN_SAMPLE, MAX_SAMPLE);
    let mut passes = 1_u64;
    let mut first = work(passes)?;
    while first.1 < target / 2 {
        let more = target.as_nanos() / first.1.as_nanos().max(1);
        passes = passes.saturating_mul(u64::try_from(more).unwrap_or(u64::MAX).clamp(2, 100));
        first = work(passes)?;
    }
    let mut rates = Vec::new();
    while rates.len() < MAX_SAMPLES {
        let now = Instant::now();
        if now >= deadline || (now >= end && rates.len() >= MIN_SAMPLES) {
            break;
        }
        rates.push(rate(work(passes)?));
    }
    if rates.is_empty() {
        rates.push(rate(first));
    }
    Rate::of(rates)
}

/// A table of all points, without a final line break.
impl fmt::Display for Peaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peaks of {}", self.fingerprint)?;
        for p in &self.compute {
            write!(
                f,
                "\n{:>3} threads  {:<8}  {:8.1} GFLOP/s (best {:.1})",
                p.threads,
                p.simd,
                p.flops.per_s / 1e9,
                p.flops.best_per_s / 1e9
            )?;
        }
        for p in &self.bandwidth {
            write!(
                f,
                "\n{:>3} threads  {:>9}  read {:7.1} GB/s (best {:.1})  triad {:7.1} GB/s (best {:.1})",
                p.threads,
                human_bytes(p.working_set_bytes),
                p.read_bytes.per_s / 1e9,
                p.read_bytes.best_per_s / 1e9,
                p.triad_bytes.per_s / 1e9,
                p.triad_bytes.best_per_s / 1e9
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_s: f64) -> Rate {
        Rate { per_s, best_per_s: per_s, samples: 3 }
    }

    fn peaks() -> Peaks {
        let compute = |simd, threads, flops| ComputePeak { simd, threads, flops: rate(flops) };
        let bandwidth = |threads, working_set_bytes, read| BandwidthPeak {
            threads,
            working_set_bytes,
            read_bytes: rate(read),
            triad_bytes: rate(read / 2.0),
        };
        Peaks {
            fingerprint: "0123456789abcdef".to_owned(),
            compute: vec![
                compute(SimdLevel::Portable, 2, 20e9),
                compute(SimdLevel::Avx2, 2, 200e9),
                compute(SimdLevel::Avx2, 4, 400e9),
            ],
            bandwidth: vec![bandwidth(2, 100, 80e9), bandwidth(2, 1000, 40e9), bandwidth(4, 100, 160e9)],
        }
    }

    #[test]
    fn lookups_pick_the_point_that_stands_for_the_work() {
        let p = peaks();
        assert_eq!(p.flops_per_s(2), Some(200e9));
        assert_eq!(p.flops_per_s(3), Some(200e9));
        assert_eq!(p.flops_per_s(1), Some(200e9));
        assert_eq!(p.flops_per_s(64), Some(400e9));
        assert_eq!(p.flops_per_s_at(SimdLevel::Portable, 8), Some(20e9));
        assert_eq!(p.flops_per_s_at(SimdLevel::Neon, 8), None);
        assert_eq!(p.read_bytes_per_s(2, 0), Some(80e9));
        assert_eq!(p.read_bytes_per_s(2, 100), Some(80e9));
        assert_eq!(p.read_bytes_per_s(2, 101), Some(40e9));
        assert_eq!(p.read_bytes_per_s(2, 5000), Some(40e9));
        assert_eq!(p.read_bytes_per_s(4, 5000), Some(160e9));
        assert_eq!(p.triad_bytes_per_s(3), Some(20e9));
        assert_eq!(p.roofline(2).map(|r| r.ridge(1000)), Some(5.0));
    }

    #[test]
    fn rates_that_make_no_sense_are_passed_over() {
        let mut p = peaks();
        for point in &mut p.bandwidth {
            point.read_bytes.per_s = 0.0;
        }
        assert_eq!(p.read_bytes_per_s(2, 1), None);
        assert_eq!(p.roofline(2), None);
        p.compute.clear();
        assert_eq!(p.flops_per_s(1), None);
    }

    #[test]
    fn medians() {
        assert_eq!(Rate::of(vec![]), None);
        assert_eq!(Rate::of(vec![3.0, 1.0, 2.0]), Some(Rate { per_s: 2.0, best_per_s: 3.0, samples: 3 }));
        assert_eq!(Rate::of(vec![4.0, 1.0]), Some(Rate { per_s: 3.0, best_per_s: 4.0, samples: 2 }));
    }

    #[test]
    fn repeats_grow_until_they_last() {
        let mut longest = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        let rate = measure_rate(Duration::from_millis(12), deadline, |passes| {
            longest = longest.max(passes);
            Some((passes as f64, Duration::from_micros(10) * u32::try_from(passes).unwrap()))
        });
        assert_eq!(rate.map(|r| (r.per_s, r.samples)), Some((100_000.0, MAX_SAMPLES)));
        assert!((100..=400).contains(&longest), "{longest}");
    }

    #[test]
    fn a_lost_thread_is_no_rate() {
        assert_eq!(measure_rate(Duration::ZERO, Instant::now(), |_| None), None);
    }
}
