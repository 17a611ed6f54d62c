//! The range of a tensor, from what it was seen to hold.

use super::Calibration;
use crate::Observed;

/// Ranges that the search for the least squared error tries.
const CANDIDATES: usize = 200;
/// Steps of an 8-bit activation.
const STEPS: f64 = 255.0;

impl Calibration {
    /// The ends of the range: what was observed, cut off at one magnitude on both sides.
    pub(super) fn range(self, observed: &Observed) -> [f32; 2] {
        let most = f64::from(observed.magnitude());
        let magnitude = match self {
            Self::MinMax => most,
            Self::Percentile(share) => percentile(observed, share),
            Self::Mse => least_error(observed),
        };
        #[expect(clippy::cast_possible_truncation, reason = "at most the largest f32 that was seen")]
        let magnitude = magnitude.min(most) as f32;
        [observed.min().max(-magnitude), observed.max().min(magnitude)]
    }
}

/// Width of a bin.
fn width(observed: &Observed) -> f64 {
    f64::from(observed.magnitude()) / observed.counts().len() as f64
}

fn total(observed: &Observed) -> f64 {
    observed.counts().iter().map(|&count| count as f64).sum()
}

/// The upper end of the first bin up to which this share of the values lies.
fn percentile(observed: &Observed, share: f64) -> f64 {
    let target = share * total(observed);
    let mut seen = 0.0;
    let reached = observed.counts().iter().position(|&count| {
        seen += count as f64;
        seen >= target
    });
    let bins = reached.map_or(observed.counts().len(), |bin| bin + 1);
    bins as f64 * width(observed)
}

/// The magnitude of the least expected squared error: that of rounding, a twelfth of the squared step for every value
/// inside, and that of clipping, taken at the middles of the bins outside.
fn least_error(observed: &Observed) -> f64 {
    let most = f64::from(observed.magnitude());
    let width = width(observed);
    let error = |magnitude: f64| {
        let low = f64::from(observed.min()).max(-magnitude).min(0.0);
        let high = f64::from(observed.max()).min(magnitude).max(0.0);
        let rounding = ((high - low) / STEPS).powi(2) / 12.0;
        let of_bin = |(bin, &count): (usize, &u64)| {
            let beyond = (bin as f64 + 0.5) * width - magnitude;
            count as f64 * if beyond > 0.0 { beyond * beyond } else { rounding }
        };
        observed.counts().iter().enumerate().map(of_bin).sum::<f64>()
    };
    let candidates = (1..=CANDIDATES).map(|candidate| most * candidate as f64 / CANDIDATES as f64);
    let best = candidates.map(|magnitude| (magnitude, error(magnitude))).min_by(|a, b| a.1.total_cmp(&b.1));
    best.map_or(most, |(magnitude, _)| magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand values up to 1 and one of 100.
    fn outlier() -> Observed {
        let mut values: Vec<f32> = (0..10_000u16).map(|value| f32::from(value) / 10_000.0).collect();
        values.push(100.0);
        values.push(-0.5);
        Observed::of(&values).unwrap()
    }

    #[test]
    fn minima_and_maxima_keep_outliers() {
        assert_eq!(Calibration::MinMax.range(&outlier()), [-0.5, 100.0]);
    }

    #[test]
    fn percentiles_cut_them_off() {
        let [low, high] = Calibration::Percentile(0.999).range(&outlier());
        assert!(low == -0.5 && (0.99..1.1).contains(&high), "{low} {high}");
        assert_eq!(Calibration::Percentile(1.0).range(&outlier())[1], 100.0);
    }

    #[test]
    fn the_least_error_lies_between() {
        // With many values inside, a far one is worth less than their steps.
        let mut values: Vec<f32> = (0..1_000_000u32).map(|value| (value % 1000) as f32 / 1000.0).collect();
        values.push(20.0);
        let [low, high] = Calibration::Mse.range(&Observed::of(&values).unwrap());
        assert!(low == 0.0 && (1.0..19.0).contains(&high), "{high}");
        let even = Observed::of(&values[..1000]).unwrap();
        assert!(Calibration::Mse.range(&even)[1] > 0.98);
    }

    #[test]
    fn a_tensor_of_zeros_has_a_range() {
        let zeros = Observed::of(&[0.0; 10]).unwrap();
        for calibration in [Calibration::MinMax, Calibration::Percentile(0.9), Calibration::Mse] {
            assert_eq!(calibration.range(&zeros), [0.0, 0.0]);
        }
    }
}
