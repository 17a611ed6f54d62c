//! Axes with round ticks; times and sizes on a logarithmic scale.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

use super::Quantity;
use crate::quantity;

/// The axis of a quantity. Positions on it are logarithms where the scale is logarithmic.
#[derive(Debug)]
pub(super) struct Axis {
    quantity: Quantity,
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis for these values and a margin around them.
    pub(super) fn new(quantity: Quantity, values: impl Iterator<Item = f64>) -> Self {
        let axis = Self { quantity, range: 0.0..1.0, ticks: Vec::new() };
        let positions: Vec<f64> = values.map(|value| axis.at(value)).collect();
        let low = positions.iter().copied().reduce(f64::min).unwrap_or(0.0);
        let high = positions.iter().copied().reduce(f64::max).unwrap_or(1.0);
        let margin = ((high - low) * 0.06).max(if axis.is_log() { 0.04 } else { 0.005 });
        let range = low - margin..high + margin;
        let ticks = if axis.is_log() { log_ticks(&range) } else { linear_ticks(&range) };
        Self { quantity, range, ticks }
    }

    fn is_log(&self) -> bool {
        self.quantity != Quantity::Accuracy
    }

    /// Where a value is.
    pub(super) fn at(&self, value: f64) -> f64 {
        if self.is_log() { value.log10() } else { value }
    }

    pub(super) fn scale(&self) -> Scale {
        Scale { inner: self.range.clone().into(), ticks: self.ticks.clone() }
    }

    /// The label of a position.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a label of a size drawn to scale")]
    pub(super) fn label(&self, at: f64) -> String {
        match self.quantity {
            Quantity::Accuracy => quantity::share(at).to_string(),
            Quantity::Latency => plain(quantity::time(10_f64.powf(at)).to_string()),
            Quantity::Memory => plain(quantity::bytes(10_f64.powf(at).round() as u64).to_string()),
        }
    }
}

/// A linear scale with ticks of our own choice.
pub(super) struct Scale {
    inner: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.inner.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The light lines between the bold ones are asked for with another weight; there are none.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.inner.range()
    }
}

/// `2.00 ms` as `2 ms`: ticks are round.
fn plain(text: String) -> String {
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// Logarithms of powers of ten and, where these are few, of round numbers between.
fn log_ticks(range: &Range<f64>) -> Vec<f64> {
    const STEPS: [&[f64]; 4] = [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]];
    let mut ticks = Vec::new();
    for steps in STEPS {
        ticks.clear();
        let mut power = range.start.floor();
        while power <= range.end {
            ticks.extend(steps.iter().map(|step| power + step.log10()).filter(|tick| range.contains(tick)));
            power += 1.0;
        }
        if ticks.len() >= 4 {
            break;
        }
    }
    ticks
}

/// Multiples of 1, 2 or 5 times a power of ten, about 5 of them.
fn linear_ticks(range: &Range<f64>) -> Vec<f64> {
    let rough = (range.end - range.start) / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(power * 10.0);
    let first = (range.start / step).ceil();
    (0_u8..12).map(|i| (first + f64::from(i)) * step).take_while(|tick| *tick <= range.end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(quantity: Quantity, values: &[f64]) -> Vec<String> {
        let axis = Axis::new(quantity, values.iter().copied());
        axis.ticks.iter().map(|tick| axis.label(*tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_within_the_values() {
        assert_eq!(labels(Quantity::Latency, &[1.1e6, 230e6]), ["1 ms", "3 ms", "10 ms", "30 ms", "100 ms", "300 ms"]);
        assert_eq!(labels(Quantity::Memory, &[18.7e6, 62.9e6]), ["20 MB", "30 MB", "40 MB", "50 MB", "60 MB"]);
        assert_eq!(labels(Quantity::Accuracy, &[0.92, 0.95]), ["92.0 %", "93.0 %", "94.0 %", "95.0 %"]);
    }

    #[test]
    fn one_value_or_none_makes_an_axis() {
        for values in [&[][..], &[1e6][..]] {
            let axis = Axis::new(Quantity::Latency, values.iter().copied());
            assert!(axis.range.start < axis.range.end);
        }
        assert!(!labels(Quantity::Accuracy, &[0.93]).is_empty());
    }
}
