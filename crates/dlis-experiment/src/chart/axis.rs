//! Axes with round ticks; times and sizes on a logarithmic scale.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

use crate::quantity;

/// What an axis measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 0 to 1, shown as a percentage.
    Share,
    /// Nanoseconds.
    Time,
    /// Bytes.
    Size,
    /// How many times something; shown as `2x`.
    Factor,
    /// A plain number.
    Number,
}

impl Kind {
    /// Whether equal ratios of it are equal distances.
    const fn is_log(self) -> bool {
        matches!(self, Self::Time | Self::Size | Self::Factor)
    }
}

/// The axis of a quantity. Positions on it are logarithms where the scale is logarithmic.
#[derive(Debug)]
pub(crate) struct Axis {
    kind: Kind,
    log: bool,
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis for these values and a margin around them.
    pub(crate) fn new(kind: Kind, values: impl Iterator<Item = f64>) -> Self {
        let log = kind.is_log();
        let axis = Self { kind, log, range: 0.0..1.0, ticks: Vec::new() };
        let positions: Vec<f64> = values.map(|value| axis.at(value)).filter(|at| at.is_finite()).collect();
        let low = positions.iter().copied().reduce(f64::min).unwrap_or(0.0);
        let high = positions.iter().copied().reduce(f64::max).unwrap_or(1.0);
        let margin = ((high - low) * 0.06).max(if log { 0.04 } else { 0.005 });
        let range = low - margin..high + margin;
        let ticks = if log { log_ticks(&range) } else { linear_ticks(&range) };
        Self { range, ticks, ..axis }
    }

    /// A linear axis from 0, for bars, whose lengths are compared.
    pub(crate) fn from_zero(kind: Kind, values: impl Iterator<Item = f64>) -> Self {
        let high = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let range = 0.0..if high > 0.0 { high * 1.08 } else { 1.0 };
        let ticks = linear_ticks(&range);
        Self { kind, log: false, range, ticks }
    }

    /// Where a value is.
    pub(crate) fn at(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }

    /// The positions it begins and ends at.
    pub(crate) fn scale_ends(&self) -> (f64, f64) {
        (self.range.start, self.range.end)
    }

    pub(crate) fn scale(&self) -> Scale {
        Scale { inner: self.range.clone().into(), ticks: self.ticks.clone() }
    }

    /// The label of a position.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a label of a size drawn to scale")]
    pub(crate) fn label(&self, at: f64) -> String {
        let value = if self.log { 10_f64.powf(at) } else { at };
        match self.kind {
            Kind::Share => quantity::share(value).to_string(),
            Kind::Time => plain(quantity::time(value).to_string()),
            Kind::Size => plain(quantity::bytes(value.round() as u64).to_string()),
            Kind::Factor => format!("{}x", trimmed(value)),
            Kind::Number => trimmed(value),
        }
    }
}

/// With at most three digits after the point.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A linear scale with ticks of our own choice.
pub(crate) struct Scale {
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
    /// Steps of a decade, and the ticks that they must give to be taken.
    const STEPS: [(&[f64], usize); 5] = [
        (&[1.0], 4),
        (&[1.0, 3.0], 4),
        (&[1.0, 2.0, 5.0], 4),
        (&[1.0, 2.0, 3.0, 5.0], 3),
        (&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0], 0),
    ];
    let mut ticks = Vec::new();
    for (steps, enough) in STEPS {
        ticks.clear();
        let mut power = range.start.floor();
        while power <= range.end {
            ticks.extend(steps.iter().map(|step| power + step.log10()).filter(|tick| range.contains(tick)));
            power += 1.0;
        }
        if ticks.len() >= enough {
            break;
        }
    }
    ticks
}

/// Multiples of 1, 2, 2.5 or 5 times a power of ten, 4 to 8 of them.
fn linear_ticks(range: &Range<f64>) -> Vec<f64> {
    let rough = (range.end - range.start) / 7.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(power * 10.0);
    let first = (range.start / step).ceil();
    (0_u8..12).map(|i| (first + f64::from(i)) * step).take_while(|tick| *tick <= range.end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(kind: Kind, values: &[f64]) -> Vec<String> {
        let axis = Axis::new(kind, values.iter().copied());
        axis.ticks.iter().map(|tick| axis.label(*tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_within_the_values() {
        assert_eq!(labels(Kind::Time, &[1.1e6, 230e6]), ["1 ms", "3 ms", "10 ms", "30 ms", "100 ms", "300 ms"]);
        assert_eq!(labels(Kind::Size, &[18.7e6, 62.9e6]), ["20 MB", "30 MB", "50 MB"]);
        assert_eq!(labels(Kind::Share, &[0.92, 0.95]), ["92.0 %", "93.0 %", "94.0 %", "95.0 %"]);
    }

    #[test]
    fn bars_start_at_zero_and_factors_are_logarithmic() {
        let axis = Axis::from_zero(Kind::Time, [8e6, 21e6].into_iter());
        assert_eq!((axis.range.start, axis.at(5.0)), (0.0, 5.0));
        assert_eq!(axis.label(10e6), "10 ms");
        assert!(axis.range.end > 21e6 && Axis::from_zero(Kind::Time, [].into_iter()).range.end > 0.0);
        assert_eq!(labels(Kind::Factor, &[0.04, 22.0])[3], "1x");
        assert_eq!(labels(Kind::Number, &[0.0, 0.2])[1], "0.05");
    }

    #[test]
    fn one_value_or_none_makes_an_axis() {
        for values in [&[][..], &[1e6][..]] {
            let axis = Axis::new(Kind::Time, values.iter().copied());
            assert!(axis.range.start < axis.range.end);
        }
        assert!(!labels(Kind::Share, &[0.93]).is_empty());
    }
}
