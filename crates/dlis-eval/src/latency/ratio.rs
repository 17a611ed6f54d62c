//! Comparing two points that were measured together.

use serde::{Deserialize, Serialize};

use super::{Latency, Protocol};
use crate::stats::{self, Interval};

/// How many times as long one point takes as another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedRatio {
    /// Median over the rounds of the ratio of the two medians of the round.
    pub ratio: f64,
    /// 95 % bootstrap interval of that, over the rounds. With fewer than six rounds it is
    /// narrower than it should be.
    pub interval: Interval,
    /// Rounds in which both points ran.
    pub rounds: u32,
}

impl PairedRatio {
    /// Whether the interval leaves out 1, that is, whether one point is faster.
    pub fn is_significant(&self) -> bool {
        !self.interval.contains(1.0)
    }
}

/// The ratio `a / b`, round by round: above 1, `b` is the faster one.
///
/// Whatever slows the machine down for a second or a minute slows both points of a round and
/// cancels out, so this tells apart points whose own intervals overlap. The two must come from
/// the same call of [`measure_interleaved`](super::measure_interleaved). `None` if they share no
/// round, or `b` took no time.
pub fn paired_ratio(a: &Latency, b: &Latency, protocol: &Protocol) -> Option<PairedRatio> {
    let ratios: Vec<f64> = a
        .round_medians_ns
        .iter()
        .zip(&b.round_medians_ns)
        .filter_map(|pair| match pair {
            (Some(a), Some(b)) if *b > 0.0 => Some(a / b),
            _ => None,
        })
        .collect();
    Some(PairedRatio {
        ratio: stats::median(&ratios)?,
        interval: stats::bootstrap_median(&ratios, protocol.resamples.max(1), 0.95, protocol.seed)?,
        rounds: u32::try_from(ratios.len()).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_noise_cancels() {
        // Rounds differ by a factor of up to two, the points by 10 % within each.
        let protocol = Protocol::default();
        let pace = [1.0, 1.3, 2.0, 1.1, 1.7, 1.5, 1.2, 1.9];
        let rounds = |factor: f64| pace.map(|p| vec![p * factor * 1000.0; 5]).to_vec();
        let slow = Latency::from_rounds("slow", &rounds(1.1), &protocol).unwrap();
        let fast = Latency::from_rounds("fast", &rounds(1.0), &protocol).unwrap();
        assert!(fast.ci_high_ns > slow.ci_low_ns, "their own intervals overlap");
        let ratio = paired_ratio(&slow, &fast, &protocol).unwrap();
        assert!((ratio.ratio - 1.1).abs() < 1e-9 && ratio.interval.width() < 1e-9, "{ratio:?}");
        assert!(ratio.is_significant());
        assert_eq!(ratio.rounds, 8);
        assert!(!paired_ratio(&fast, &fast, &protocol).unwrap().is_significant());
    }

    #[test]
    fn only_shared_rounds_count() {
        let protocol = Protocol::default();
        let a = Latency::from_rounds("a", &[vec![2.0], vec![4.0], vec![]], &protocol).unwrap();
        let b = Latency::from_rounds("b", &[vec![], vec![1.0], vec![1.0]], &protocol).unwrap();
        let ratio = paired_ratio(&a, &b, &protocol).unwrap();
        assert_eq!((ratio.ratio, ratio.rounds), (4.0, 1));
        let c = Latency::from_rounds("c", &[vec![], vec![0.0], vec![1.0]], &protocol).unwrap();
        assert_eq!(paired_ratio(&a, &c, &protocol), None);
    }
}
