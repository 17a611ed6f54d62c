//! Amounts as people write them: `20ms`, `28MiB`, `93%`; and back.

use std::fmt;

/// A text that is no amount of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseQuantityError {
    text: String,
    expected: &'static str,
}

const TIME: [(&str, f64); 5] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
const SIZE: [(&str, f64); 9] = [
    ("B", 1.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TB", 1e12),
];

/// Nanoseconds of `250us`, `20ms`, `1.5s`.
///
/// # Errors
///
/// If there is no number, no unit, or the time is not above 0.
///
/// ```
/// # use dlis_experiment::quantity::parse_time_ns;
/// assert_eq!(parse_time_ns("1.5 s"), Ok(1.5e9));
/// assert!(parse_time_ns("20").is_err());
/// ```
pub fn parse_time_ns(text: &str) -> Result<f64, ParseQuantityError> {
    const EXPECTED: &str = "a time: expected a number above 0 and `ns`, `us`, `ms` or `s`, as in `20ms`";
    with_unit(text, &TIME).filter(|&ns| ns > 0.0).ok_or_else(|| refuse(text, EXPECTED))
}

/// Bytes of `4096B`, `30MB` (millions), `28MiB` (2^20).
///
/// # Errors
///
/// If there is no number, no unit, or it is not between 0 and 2^53.
///
/// ```
/// # use dlis_experiment::quantity::parse_bytes;
/// assert_eq!(parse_bytes("30MB"), Ok(30_000_000));
/// assert_eq!(parse_bytes("28MiB"), Ok(28 << 20));
/// ```
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie within 0..=2^53")]
pub fn parse_bytes(text: &str) -> Result<u64, ParseQuantityError> {
    const EXPECTED: &str = "a size: expected a number and `B`, `kB`, `MB`, `GB`, `KiB`, `MiB` or `GiB`, as in `30MB`";
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    let bytes = with_unit(text, &SIZE).filter(|bytes| (0.0..=LIMIT).contains(bytes));
    bytes.map(|bytes| bytes.round() as u64).ok_or_else(|| refuse(text, EXPECTED))
}

/// The share `0.93` or `93%`, 0 to 1.
///
/// # Errors
///
/// If it is no number, or not within 0 to 1.
///
/// ```
/// # use dlis_experiment::quantity::parse_share;
/// assert_eq!(parse_share("93%"), Ok(0.93));
/// assert!(parse_share("93").is_err());
/// ```
pub fn parse_share(text: &str) -> Result<f64, ParseQuantityError> {
    const EXPECTED: &str = "a share: expected 0 to 1, as in `0.93`, or a percentage, as in `93%`";
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => number(percent).map(|value| value / 100.0),
        None => number(text),
    };
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| refuse(text, EXPECTED))
}

/// The rate `150`: a number per second, not negative.
///
/// # Errors
///
/// If it is no such number.
///
/// ```
/// # use dlis_experiment::quantity::parse_rate;
/// assert_eq!(parse_rate("150"), Ok(150.0));
/// assert!(parse_rate("-1").is_err() && parse_rate("NaN").is_err());
/// ```
pub fn parse_rate(text: &str) -> Result<f64, ParseQuantityError> {
    number(text).filter(|rate| rate.is_finite()).ok_or_else(|| refuse(text, "a rate: expected a number, as in `150`"))
}

fn refuse(text: &str, expected: &'static str) -> ParseQuantityError {
    // An error message is no place for a novel.
    ParseQuantityError { text: text.chars().take(64).collect(), expected }
}

fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let start = text.find(|c: char| c.is_alphabetic())?;
    let (value, unit) = text.split_at(start);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number(value)? * factor).filter(|value| value.is_finite())
}

/// Digits with at most one point: no sign, exponent, `inf` or `nan`.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { text.parse().ok() } else { None }
}

/// A time in the unit that suits it, with three digits: `812 ns`, `20.3 ms`.
pub fn time(ns: f64) -> impl fmt::Display {
    scaled(ns, &[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")])
}

/// A size in the decimal unit that suits it, with three digits: `59.9 MB`.
#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
pub fn bytes(bytes: u64) -> impl fmt::Display {
    scaled(bytes as f64, &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")])
}

/// A share as a percentage: `93.5 %`.
pub fn share(share: f64) -> impl fmt::Display {
    let mut text = format!("{:.2}", share * 100.0);
    if text.ends_with('0') {
        text.pop();
    }
    text + " %"
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let last = units.len() - 1;
    // 0.9995 of the next unit would be shown as 1000 of this one.
    let index = units.iter().position(|(factor, _)| value >= factor * 0.9995).unwrap_or(last);
    let (factor, unit) = units[index];
    let value = value / factor;
    let digits = if index == last && value.fract() == 0.0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_parsed_as_written() {
        assert_eq!(parse_time_ns("20ms"), Ok(20e6));
        assert_eq!(parse_time_ns("250us"), Ok(250e3));
        assert_eq!(parse_time_ns("250µs"), Ok(250e3));
        assert_eq!(parse_bytes("12.8 kB"), Ok(12_800));
        assert_eq!(parse_bytes("0B"), Ok(0));
        assert_eq!(parse_share(" 0.93 "), Ok(0.93));
        assert_eq!(parse_share("92.5 %"), Ok(0.925));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "ms", "20", "-1ms", "0ms", "1e3ms", "infs", "nans", "20 m s", "1.2.3s", "20msec", "20MB"] {
            assert!(parse_time_ns(text).is_err(), "{text}");
        }
        for text in ["", "30", "30mb", "30M", "-1B", "99999999TB", "1s"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        for text in ["", "%", "1.01", "101%", "-0.1", "nan", "inf", "93 percent"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_with_three_digits() {
        let times: Vec<String> =
            [0.0, 812.0, 999.9, 20.34e6, 999.99e6, 1.5e9, 1234e9].map(|ns| time(ns).to_string()).into();
        assert_eq!(times, ["0 ns", "812 ns", "1.00 us", "20.3 ms", "1.00 s", "1.50 s", "1234 s"]);
        assert_eq!(bytes(59_910_912).to_string(), "59.9 MB");
        assert_eq!(bytes(17).to_string(), "17 B");
        assert_eq!(share(0.9353).to_string(), "93.53 %");
        assert_eq!(share(0.93).to_string(), "93.0 %");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,20}|[0-9.]{0,12} ?[a-zA-Zµ%]{0,4}") {
            let ns = parse_time_ns(&text);
            prop_assert!(ns.is_err() || ns.is_ok_and(|ns| ns.is_finite() && ns > 0.0));
            let part = parse_share(&text);
            prop_assert!(part.is_err() || part.is_ok_and(|part| (0.0..=1.0).contains(&part)));
            let _ = parse_bytes(&text);
        }

        #[test]
        fn what_is_shown_is_parsed_to_within_its_digits(ns in 1.0_f64..1e13, size in 1_u64..1 << 50) {
            let read = parse_time_ns(&time(ns).to_string()).unwrap();
            prop_assert!((read / ns - 1.0).abs() < 0.006, "{ns}: {}", time(ns));
            let read = parse_bytes(&bytes(size).to_string()).unwrap();
            prop_assert!(read.abs_diff(size) <= size / 150, "{size}: {}", bytes(size));
        }
    }
}
