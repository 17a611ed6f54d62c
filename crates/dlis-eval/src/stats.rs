//! The statistics the protocol needs: order statistics, bootstrap intervals, Wilson intervals.
//!
//! Everything is deterministic: resampling takes a seed, and sorting uses the total order of
//! floats. Functions of samples return `None` where there are none; NaN in samples is a caller's
//! mistake that shows up as NaN in the result's upper percentiles, never as a panic.

use serde::{Deserialize, Serialize};

/// A range that a quantity is believed to lie in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in the range, ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// High minus low.
    pub fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// The `SplitMix64` generator (Steele, Lea, Flood, *Fast Splittable Pseudorandom Number Generators*, 2014): small,
/// fast, and good enough to resample and shuffle with.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator whose numbers depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0 where `bound` is 0. The bias is below 2^-32 for any bound
    /// that fits in memory.
    pub fn below(&mut self, bound: usize) -> usize {
        let scaled = (u128::from(self.next_u64()) * bound as u128) >> 64;
        usize::try_from(scaled).unwrap_or_default() // always fits: it is below `bound`
    }

    /// Brings `items` into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The value `fraction` of the way through `sorted`, which must be ascending.
///
/// Linear interpolation between the two nearest order statistics at rank `fraction * (n - 1)`
/// (type 7 of Hyndman and Fan, *Sample Quantiles in Statistical Packages*, 1996; NumPy's default).
/// A fraction outside 0..=1 is clamped; NaN counts as 0.
pub fn percentile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
    let rank = fraction * last as f64;
    #[expect(clippy::cast_possible_truncation, reason = "0 <= rank <= last")]
    let below = (rank as usize).min(last);
    let above = (below + 1).min(last);
    let weight = rank - below as f64;
    let (low, high) = (sorted[below], sorted[above]);
    // At the ends and between equals no arithmetic, which would turn infinities into NaN.
    Some(if weight == 0.0 || low == high { low } else { low + (high - low) * weight })
}

/// The median of samples in any order; the mean of the middle two where their number is even.
pub fn median(samples: &[f64]) -> Option<f64> {
    percentile(&sorted(samples), 0.5)
}

/// The samples in ascending order.
pub fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// The arithmetic mean.
pub fn mean(samples: &[f64]) -> Option<f64> {
    if samples.is_empty() {
        return None;
    }
    Some(samples.iter().sum::<f64>() / samples.len() as f64)
}

/// Median absolute deviation from the median: a spread that outliers cannot move.
///
/// Not scaled; for normal noise the standard deviation is 1.4826 times this.
pub fn median_absolute_deviation(samples: &[f64]) -> Option<f64> {
    let centre = median(samples)?;
    let deviations: Vec<f64> = samples.iter().map(|sample| (sample - centre).abs()).collect();
    median(&deviations)
}

/// Percentile bootstrap interval of the median of independent samples.
///
/// Draws `resamples` samples of the same size with replacement, and takes the middle `confidence`
/// of their medians (Efron, *Bootstrap Methods: Another Look at the Jackknife*, 1979).
pub fn bootstrap_median(samples: &[f64], resamples: u32, confidence: f64, seed: u64) -> Option<Interval> {
    let groups: Vec<&[f64]> = samples.chunks(1).collect();
    bootstrap_grouped_median(&groups, resamples, confidence, seed)
}

/// Percentile bootstrap interval of the median of samples that come in groups.
///
/// Whole groups are drawn, so that samples within a group may depend on each other, as those
/// taken one right after another do; drawing them one by one would give an interval that is far
/// too narrow. `None` where there is no sample, or no resample asked for.
pub fn bootstrap_grouped_median(groups: &[&[f64]], resamples: u32, confidence: f64, seed: u64) -> Option<Interval> {
    let groups: Vec<&[f64]> = groups.iter().copied().filter(|group| !group.is_empty()).collect();
    let mut ordered: Vec<(f64, usize)> = Vec::with_capacity(groups.iter().map(|group| group.len()).sum());
    for (group, samples) in groups.iter().enumerate() {
        ordered.extend(samples.iter().map(|&sample| (sample, group)));
    }
    if ordered.is_empty() || resamples == 0 {
        return None;
    }
    ordered.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut rng = SplitMix64::new(seed);
    let mut drawn = vec![0_usize; groups.len()];
    let mut medians: Vec<f64> = (0..resamples)
        .map(|_| {
            drawn.fill(0);
            let mut total = 0;
            for _ in 0..groups.len() {
                let group = rng.below(groups.len());
                drawn[group] += 1;
                total += groups[group].len();
            }
            median_of_drawn(&ordered, &drawn, total)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { low: percentile(&medians, tail)?, high: percentile(&medians, 1.0 - tail)? })
}

/// The median of `ordered`, each sample taken as often as its group was drawn, `total` in all.
fn median_of_drawn(ordered: &[(f64, usize)], drawn: &[usize], total: usize) -> f64 {
    let (lower, upper) = ((total - 1) / 2, total / 2);
    let mut passed = 0;
    let mut low = None;
    for &(sample, group) in ordered {
        passed += drawn[group];
        if low.is_none() && passed > lower {
            low = Some(sample);
        }
        if let Some(low) = low
            && passed > upper
        {
            return if low == sample { low } else { low + (sample - low) / 2.0 };
        }
    }
    low.unwrap_or(f64::NAN) // the counts add up to `total`, so this is never reached
}

/// 95 % score interval of a fraction of `count` trials (Wilson, *Probable Inference, the Law of
/// Succession, and Statistical Inference*, 1927); 0 to 1 where nothing was tried.
///
/// Unlike the normal approximation it stays within 0..=1 and is sound near the ends.
pub fn wilson_95(fraction: f64, count: u64) -> Interval {
    const Z: f64 = 1.959_963_984_540_054;
    if count == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = count as f64;
    let scale = 1.0 + Z * Z / n;
    let centre = (fraction + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (fraction * (1.0 - fraction) / n + Z * Z / (4.0 * n * n)).sqrt();
    Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_interpolate_as_documented() {
        let samples = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(percentile(&samples, 0.0), Some(1.0));
        assert_eq!(percentile(&samples, 0.5), Some(2.5));
        assert_eq!(percentile(&samples, 0.1), Some(1.3));
        assert_eq!(percentile(&samples, 1.0), Some(4.0));
        assert_eq!(percentile(&samples, 7.0), Some(4.0));
        assert_eq!(percentile(&samples, f64::NAN), Some(1.0));
        assert_eq!(percentile(&[f64::INFINITY; 3], 0.3), Some(f64::INFINITY));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn medians_and_spread() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(median_absolute_deviation(&[1.0, 2.0, 3.0, 4.0, 1e9]), Some(1.0));
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn splitmix_gives_the_published_numbers() {
        let mut rng = SplitMix64::new(1_234_567);
        let first = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert_eq!(rng.below(0), 0);
        assert!((0..1000).all(|_| rng.below(7) < 7));
    }

    #[test]
    fn shuffling_keeps_all_items_and_follows_the_seed() {
        let shuffled = |seed| {
            let mut items: Vec<usize> = (0..50).collect();
            SplitMix64::new(seed).shuffle(&mut items);
            items
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        assert_eq!(sorted(&shuffled(1).iter().map(|&i| i as f64).collect::<Vec<_>>())[49], 49.0);
    }

    #[test]
    fn wilson_matches_published_values() {
        let close = |a: f64, b: f64| (a - b).abs() < 5e-5;
        // Newcombe, "Two-sided confidence intervals for the single proportion", 1998, method 3.
        for (hits, count, low, high) in [
            (81_u32, 263_u32, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let interval = wilson_95(f64::from(hits) / f64::from(count), u64::from(count));
            assert!(close(interval.low, low) && close(interval.high, high), "{hits}/{count}: {interval:?}");
        }
        assert_eq!(wilson_95(0.5, 0), Interval { low: 0.0, high: 1.0 });
    }

    /// The interval must hold the true median about as often as it claims.
    #[test]
    fn bootstrap_covers_the_true_median() {
        let mut rng = SplitMix64::new(9);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let trials: u32 = 400;
        let hits = (0..trials)
            .filter(|&trial| {
                let samples: Vec<f64> = (0..41).map(|_| uniform()).collect();
                bootstrap_median(&samples, 300, 0.95, u64::from(trial)).unwrap().contains(0.5)
            })
            .count();
        let coverage = hits as f64 / f64::from(trials);
        assert!((0.90..=0.99).contains(&coverage), "{coverage}");
    }

    #[test]
    fn grouped_interval_is_wide_where_groups_differ() {
        let groups: Vec<Vec<f64>> = (0..8).map(|g| vec![f64::from(g); 100]).collect();
        let groups: Vec<&[f64]> = groups.iter().map(Vec::as_slice).collect();
        let grouped = bootstrap_grouped_median(&groups, 1000, 0.95, 3).unwrap();
        let naive = bootstrap_median(&groups.concat(), 1000, 0.95, 3).unwrap();
        assert!(grouped.width() > 2.0 * naive.width(), "{grouped:?} {naive:?}");
        assert_eq!(bootstrap_grouped_median(&[&[], &[]], 10, 0.95, 3), None);
        assert_eq!(bootstrap_median(&[1.0], 0, 0.95, 3), None);
        assert_eq!(bootstrap_median(&[1.0], 10, 0.95, 3), Some(Interval { low: 1.0, high: 1.0 }));
    }

    proptest! {
        #[test]
        fn drawn_median_equals_the_median_of_the_drawn_samples(
            groups in proptest::collection::vec(proptest::collection::vec(-50_i32..50, 1..5), 1..6),
            counts in proptest::collection::vec(0_usize..4, 6),
        ) {
            let mut ordered = Vec::new();
            let mut pool = Vec::new();
            for (index, group) in groups.iter().enumerate() {
                for &sample in group {
                    ordered.push((f64::from(sample), index));
                    pool.extend(std::iter::repeat_n(f64::from(sample), counts[index]));
                }
            }
            ordered.sort_by(|a, b| a.0.total_cmp(&b.0));
            prop_assume!(!pool.is_empty());
            prop_assert_eq!(median_of_drawn(&ordered, &counts, pool.len()), median(&pool).unwrap());
        }

        #[test]
        fn percentile_is_monotonic_and_within_the_samples(
            samples in proptest::collection::vec(-1e6_f64..1e6, 1..40),
            a in 0.0_f64..=1.0,
            b in 0.0_f64..=1.0,
        ) {
            let ordered = sorted(&samples);
            let (low, high) = (percentile(&ordered, a.min(b)).unwrap(), percentile(&ordered, a.max(b)).unwrap());
            prop_assert!(low <= high);
            prop_assert!(ordered[0] <= low && high <= ordered[ordered.len() - 1]);
        }
    }
}
