//! Counting what tensors hold, a part at a time.

use crate::{Observed, TrainerError};

/// Counts the values of a tensor that come in parts, in two passes: [`widen`](Self::widen) with all of them, then
/// [`settle`](Self::settle), then [`count`](Self::count) with all of them again.
///
/// ```
/// use dlis_compress::{Histogram, Observed};
///
/// let parts = [&[-1.0, 0.0][..], &[0.5, 4.0]];
/// let mut histogram = Histogram::default();
/// parts.iter().for_each(|part| histogram.widen(part));
/// histogram.settle();
/// parts.iter().for_each(|part| histogram.count(part));
/// assert_eq!(histogram.observed()?, Observed::of(&[-1.0, 0.0, 0.5, 4.0])?);
/// # Ok::<(), dlis_compress::TrainerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Histogram {
    min: f32,
    max: f32,
    is_number: bool,
    width: f64,
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            is_number: true,
            width: 0.0,
            counts: vec![0; Observed::BINS],
        }
    }
}

impl Histogram {
    /// Widens the range to hold these values.
    pub fn widen(&mut self, values: &[f32]) {
        for &value in values {
            // `f32::min` passes over NaN, which must come out.
            self.is_number &= !value.is_nan();
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
    }

    /// Ends widening: counting begins.
    pub fn settle(&mut self) {
        self.width = f64::from(self.min.abs().max(self.max.abs())) / self.counts.len() as f64;
    }

    /// Counts these values by their magnitudes.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 0; clamped from above")]
    pub fn count(&mut self, values: &[f32]) {
        let last = self.counts.len() - 1;
        for &value in values {
            let bin = if self.width > 0.0 { (f64::from(value.abs()) / self.width) as usize } else { 0 };
            self.counts[bin.min(last)] += 1;
        }
    }

    /// What was seen.
    ///
    /// # Errors
    ///
    /// [`TrainerError::Observation`] if there was no value or one is not finite.
    pub fn observed(self) -> Result<Observed, TrainerError> {
        Observed::new(if self.is_number { self.min } else { f32::NAN }, self.max, self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_those_of_all_values_at_once() {
        let values: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 1000) as f32 / 100.0 - 3.0).collect();
        let mut histogram = Histogram::default();
        values.chunks(37).for_each(|part| histogram.widen(part));
        histogram.settle();
        values.chunks(41).for_each(|part| histogram.count(part));
        assert_eq!(histogram.observed().unwrap(), Observed::of(&values).unwrap());
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let mut histogram = Histogram::default();
        histogram.widen(&[1.0, f32::NAN, 2.0]);
        histogram.settle();
        assert!(histogram.observed().is_err());
        assert!(Observed::of(&[1.0, f32::NAN, 2.0]).is_err());
    }
}
