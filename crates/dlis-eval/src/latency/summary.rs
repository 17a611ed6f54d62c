//! From samples to the figures of a record.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Protocol;
use crate::stats::{self, Interval};

/// Rounds below which whole rounds are too few to draw from.
const MIN_GROUPS: usize = 3;
/// Rounds below which there is no telling a drift.
const MIN_DRIFT_ROUNDS: usize = 6;

/// The latency of one point, as a record keeps it. All times are of a single run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Name of the point.
    pub name: String,
    /// Runs the figures come from.
    pub samples: u64,
    /// Runs before those, whose times were only used to see them settle.
    pub warmup_runs: u64,
    /// Median.
    pub median_ns: f64,
    /// Fastest tenth.
    pub p10_ns: f64,
    /// Slowest tenth.
    pub p90_ns: f64,
    /// Arithmetic mean.
    pub mean_ns: f64,
    /// Fastest run.
    pub min_ns: f64,
    /// Lower end of the 95 % interval of the median.
    pub ci_low_ns: f64,
    /// Upper end of the 95 % interval of the median.
    pub ci_high_ns: f64,
    /// Whether the figures deserve little trust,
    pub noisy: bool,
    /// and why.
    pub noise: Vec<Noise>,
    /// The median of each round, `None` for a round this point was left out of. Points measured
    /// together share the rounds, so these can be compared pairwise: see
    /// [`paired_ratio`](super::paired_ratio).
    pub round_medians_ns: Vec<Option<f64>>,
}

impl Latency {
    /// Summarises the samples of each round, in nanoseconds; `None` if there are none at all.
    ///
    /// Also serves times that come from elsewhere, such as the event timers of a device. The
    /// interval is a bootstrap over whole rounds, because runs of one round resemble each other
    /// more than those of another; with fewer than three rounds it is over single runs, and too
    /// narrow.
    pub fn from_rounds(name: impl Into<String>, rounds: &[Vec<f64>], protocol: &Protocol) -> Option<Self> {
        let all = stats::sorted(&rounds.concat());
        let median_ns = stats::percentile(&all, 0.5)?;
        let filled: Vec<&[f64]> = rounds.iter().map(Vec::as_slice).filter(|round| !round.is_empty()).collect();
        let (resamples, seed) = (protocol.resamples.max(1), protocol.seed);
        let interval = if filled.len() < MIN_GROUPS {
            stats::bootstrap_median(&all, resamples, 0.95, seed)
        } else {
            stats::bootstrap_grouped_median(&filled, resamples, 0.95, seed)
        }?;
        let round_medians_ns: Vec<Option<f64>> = rounds.iter().map(|round| stats::median(round)).collect();
        let noise = judge(&all, median_ns, interval, &round_medians_ns, protocol);
        Some(Self {
            name: name.into(),
            samples: all.len() as u64,
            warmup_runs: 0,
            median_ns,
            p10_ns: stats::percentile(&all, 0.1)?,
            p90_ns: stats::percentile(&all, 0.9)?,
            mean_ns: stats::mean(&all)?,
            min_ns: all[0],
            ci_low_ns: interval.low,
            ci_high_ns: interval.high,
            noisy: !noise.is_empty(),
            noise,
            round_medians_ns,
        })
    }

    pub(super) fn add_noise(&mut self, noise: Noise) {
        self.noisy = true;
        self.noise.push(noise);
    }
}

/// A reason not to trust a latency. Values are fractions of the median unless named otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Noise {
    /// The budget ran out before there were enough samples.
    FewSamples {
        /// Samples taken.
        samples: u64,
        /// Samples the protocol asks for.
        wanted: u64,
    },
    /// The interval of the median is wide.
    WideInterval {
        /// Its width.
        width: f64,
        /// The protocol's limit.
        limit: f64,
    },
    /// The runs differ from each other.
    Spread {
        /// Median absolute deviation.
        deviation: f64,
        /// The protocol's limit.
        limit: f64,
    },
    /// Later rounds were slower, or faster, than earlier ones.
    Drift {
        /// Change of the median from the first to the last third of the rounds, signed.
        change: f64,
        /// The protocol's limit.
        limit: f64,
    },
    /// The warm-up ended by its time limit, with its windows still apart.
    UnstableWarmup {
        /// How far apart, as a fraction of the smallest window median.
        spread: f64,
        /// The protocol's limit.
        limit: f64,
    },
    /// Some runs took no time that the clock could see.
    BelowClock,
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |fraction: f64| fraction * 100.0;
        match *self {
            Self::FewSamples { samples, wanted } => {
                write!(f, "only {samples} of {wanted} samples within the time budget")
            }
            Self::WideInterval { width, limit } => {
                let (width, limit) = (percent(width), percent(limit));
                write!(f, "interval of the median is {width:.1} % wide (limit {limit:.1} %)")
            }
            Self::Spread { deviation, limit } => {
                let (deviation, limit) = (percent(deviation), percent(limit));
                write!(f, "runs deviate by {deviation:.1} % (limit {limit:.1} %)")
            }
            Self::Drift { change, limit } => {
                let (change, limit) = (percent(change), percent(limit));
                write!(f, "median drifted by {change:+.1} % (limit {limit:.1} %)")
            }
            Self::UnstableWarmup { spread, limit } => {
                let (spread, limit) = (percent(spread), percent(limit));
                write!(f, "warm-up ended {spread:.1} % apart (limit {limit:.1} %)")
            }
            Self::BelowClock => write!(f, "runs are too short for the clock"),
        }
    }
}

fn judge(
    all: &[f64],
    median: f64,
    interval: Interval,
    round_medians: &[Option<f64>],
    protocol: &Protocol,
) -> Vec<Noise> {
    let mut noise = Vec::new();
    let (samples, wanted) = (all.len() as u64, u64::from(protocol.min_samples));
    if samples < wanted {
        noise.push(Noise::FewSamples { samples, wanted });
    }
    if all[0] <= 0.0 {
        noise.push(Noise::BelowClock);
    }
    // Against a median of zero nothing can be put in proportion; `BelowClock` has said it.
    if median > 0.0 {
        let (width, limit) = (interval.width() / median, protocol.max_interval);
        if width > limit {
            noise.push(Noise::WideInterval { width, limit });
        }
        let deviation = stats::median_absolute_deviation(all).unwrap_or_default() / median;
        let limit = protocol.max_spread;
        if deviation > limit {
            noise.push(Noise::Spread { deviation, limit });
        }
        let rounds: Vec<f64> = round_medians.iter().copied().flatten().collect();
        let third = rounds.len() / 3;
        if rounds.len() >= MIN_DRIFT_ROUNDS
            && let Some(first) = stats::median(&rounds[..third])
            && let Some(last) = stats::median(&rounds[rounds.len() - third..])
        {
            let (change, limit) = ((last - first) / median, protocol.max_drift);
            if change.abs() > limit {
                noise.push(Noise::Drift { change, limit });
            }
        }
    }
    noise
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(rounds: &[Vec<f64>]) -> Latency {
        Latency::from_rounds("x", rounds, &Protocol { min_samples: 4, ..Protocol::default() }).unwrap()
    }

    #[test]
    fn figures_are_those_of_the_pooled_samples() {
        let rounds = [vec![10.0, 30.0], vec![], vec![20.0, 40.0, 50.0]];
        let latency = summary(&rounds);
        assert_eq!(latency.samples, 5);
        assert_eq!((latency.median_ns, latency.min_ns, latency.mean_ns), (30.0, 10.0, 30.0));
        assert_eq!((latency.p10_ns, latency.p90_ns), (14.0, 46.0));
        assert_eq!(latency.round_medians_ns, [Some(20.0), None, Some(40.0)]);
        assert!(latency.ci_low_ns <= 30.0 && 30.0 <= latency.ci_high_ns);
        assert_eq!(Latency::from_rounds("x", &[vec![]], &Protocol::default()), None);
    }

    #[test]
    fn quiet_samples_are_not_noisy() {
        let rounds: Vec<Vec<f64>> = (0..9).map(|r| vec![1000.0 + f64::from(r % 3); 10]).collect();
        let latency = summary(&rounds);
        assert!(!latency.noisy, "{:?}", latency.noise);
    }

    #[test]
    fn each_kind_of_noise_is_told() {
        let kinds = |rounds: &[Vec<f64>]| summary(rounds).noise;
        let few = kinds(&[vec![5.0; 3]]);
        assert_eq!(few, [Noise::FewSamples { samples: 3, wanted: 4 }]);
        let drift = kinds(&(0..9).map(|r| vec![1000.0 + 10.0 * f64::from(r); 10]).collect::<Vec<_>>());
        assert!(drift.iter().any(|n| matches!(n, Noise::Drift { change, .. } if *change > 0.05)), "{drift:?}");
        let spread = kinds(&vec![vec![50.0, 100.0, 150.0, 100.0, 60.0, 140.0]; 9]);
        assert!(spread.iter().any(|n| matches!(n, Noise::Spread { .. })), "{spread:?}");
        let wide = kinds(&[vec![100.0; 9], vec![120.0; 9], vec![90.0; 9]]);
        assert!(wide.iter().any(|n| matches!(n, Noise::WideInterval { .. })), "{wide:?}");
        assert_eq!(kinds(&vec![vec![0.0; 9]; 9]), [Noise::BelowClock]);
    }

    #[test]
    fn noise_reads_well_and_round_trips() {
        let noise = Noise::Drift { change: -0.123, limit: 0.05 };
        assert_eq!(noise.to_string(), "median drifted by -12.3 % (limit 5.0 %)");
        let latency = summary(&[vec![8.0; 3]]);
        let json = serde_json::to_string(&latency).unwrap();
        assert!(json.contains(r#""kind":"few_samples""#), "{json}");
        assert_eq!(serde_json::from_str::<Latency>(&json).unwrap(), latency);
    }
}
