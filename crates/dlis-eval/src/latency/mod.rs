//! The latency protocol: how the time of one run is measured so that it can be compared.
//!
//! 1. **Warm-up.** Each point runs until its time has settled: the medians of the last few
//!    windows agree within a tolerance. Page faults, lazy initialisation, frequency ramps and
//!    branch predictors are then behind it. There is a time limit; a point that reaches it
//!    unsettled is measured all the same, and says so.
//! 2. **Rounds.** In each round every point gets a slice of time, in an order that is shuffled
//!    anew each round, from a seed. A slow drift of the machine (heat, other tenants) thus falls
//!    on all points alike, and none always follows the same other one.
//! 3. **Slices.** The first runs of a slice are dropped, for 10 ms and at least one: the caches still
//!    hold the data of the point before it, and its threads may still be polling for work. Every other run is one sample; a sample is one run, never an average.
//! 4. **Summary.** The median and its 95 % interval, from a bootstrap that draws whole rounds;
//!    tenth and ninetieth percentile, mean, minimum; flags with reasons where the samples are
//!    few, spread, or drifting.
//! 5. **Comparison.** Two points are compared by the ratio of their medians round by round,
//!    [`paired_ratio`], which the noise both share cannot touch.
//!
//! The steps follow Georges, Buytaert, Eeckhout, *Statistically Rigorous Java Performance
//! Evaluation* (2007), and Kalibera and Jones, *Rigorous Benchmarking in Reasonable Time* (2013).
//!
//! ```
//! use dlis_eval::latency::{Point, Protocol, measure_interleaved, paired_ratio};
//!
//! let protocol = Protocol { slice_ns: 1_000_000, warmup_max_ns: 5_000_000, ..Protocol::quick() };
//! let (mut small, mut large) = (vec![1.0_f32; 1 << 10], vec![1.0_f32; 1 << 16]);
//! let mut run_small = || small.iter_mut().for_each(|x| *x = x.sqrt());
//! let mut run_large = || large.iter_mut().for_each(|x| *x = x.sqrt());
//! let latencies = measure_interleaved(
//!     &mut [Point::new("small", &mut run_small), Point::new("large", &mut run_large)],
//!     &protocol,
//!     |_| (),
//! );
//! assert!(latencies[0].median_ns < latencies[1].median_ns);
//! let ratio = paired_ratio(&latencies[1], &latencies[0], &protocol).expect("they share rounds");
//! assert!(ratio.ratio > 1.0);
//! ```
//!
//! This module is the only place that reads the clock.

mod clock;
mod measure;
mod protocol;
mod ratio;
mod summary;

use std::fmt;

pub use clock::{Clock, Monotonic};
pub use measure::measure_interleaved_with;
pub use protocol::Protocol;
pub use ratio::{PairedRatio, paired_ratio};
pub use summary::{Latency, Noise};

/// Something to be timed.
pub struct Point<'a> {
    /// What progress and the [`Latency`] call it.
    pub name: String,
    /// One run. It must not end before its work has, also where that is done by other threads
    /// or a device.
    pub run: &'a mut dyn FnMut(),
    /// What is done before each run and not timed.
    pub before: Option<&'a dyn Fn()>,
}

impl<'a> Point<'a> {
    /// A point of that name.
    pub fn new(name: impl Into<String>, run: &'a mut dyn FnMut()) -> Self {
        Self { name: name.into(), run, before: None }
    }

    /// The same with something that is done before each run and not timed. It counts towards the budget.
    #[must_use]
    pub fn before(self, before: &'a dyn Fn()) -> Self {
        Self { before: Some(before), ..self }
    }
}

impl fmt::Debug for Point<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Point").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencyProgress<'a> {
    /// Name of the point.
    pub point: &'a str,
    /// What with it.
    pub step: Step,
}

/// The steps of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The point is warmed up.
    WarmUp,
    /// The point gets its slice of a round.
    Slice {
        /// Counted from zero.
        round: u32,
        /// Rounds planned; more follow where samples are still missing.
        rounds: u32,
    },
}

/// Measures `points` together, as the [module](self) describes, with the system's clock.
///
/// Returns one [`Latency`] per point, in their order. `progress` is called before each warm-up
/// and each slice, outside the timed part. Every point is run at least three times: warm-up,
/// dropped, sample.
pub fn measure_interleaved(
    points: &mut [Point<'_>],
    protocol: &Protocol,
    progress: impl FnMut(LatencyProgress<'_>),
) -> Vec<Latency> {
    measure_interleaved_with(&Monotonic::new(), points, protocol, progress)
}
