//! The learning rate over a run.

/// Share of the peak that a run begins with.
const START: f64 = 0.1;

/// One-cycle schedule (Smith and Topin 2017): the rate rises linearly from a tenth of the peak over the warm-up,
/// then falls along half a cosine to 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneCycle {
    pub(crate) peak: f64,
    /// Share of the steps in which the rate rises.
    pub(crate) warmup: f64,
    pub(crate) steps: usize,
}

impl OneCycle {
    /// The rate of a step, counted from 0.
    pub(crate) fn rate(&self, step: usize) -> f64 {
        let position = (step as f64 + 0.5) / self.steps.max(1) as f64;
        if position < self.warmup {
            self.peak * (START + (1.0 - START) * position / self.warmup)
        } else {
            let fallen = ((position - self.warmup) / (1.0 - self.warmup).max(f64::EPSILON)).min(1.0);
            self.peak * 0.5 * (1.0 + (std::f64::consts::PI * fallen).cos())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_to_the_peak_and_falls_to_nothing() {
        let cycle = OneCycle { peak: 2.0, warmup: 0.2, steps: 100 };
        assert!(cycle.rate(0) > 0.2 && cycle.rate(0) < 0.25);
        assert!((cycle.rate(20) - 2.0).abs() < 1e-2);
        assert!(cycle.rate(99) < 1e-3);
        let rates: Vec<f64> = (0..100).map(|step| cycle.rate(step)).collect();
        assert!(rates[..20].is_sorted() && rates[20..].iter().rev().is_sorted());
        let flat = OneCycle { peak: 1.0, warmup: 1.0, steps: 1 };
        assert!(flat.rate(0) > 0.0 && flat.rate(0) <= 1.0);
    }
}
