//! Points of accuracy curves that were measured once and are kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::lines::{self, Line, LinesError};
use crate::{InvalidField, Technique};

/// Bytes a recipe's name may take.
const MAX_RECIPE_BYTES: usize = 256;

/// A compressed network: how accurate it is and what it takes.
///
/// ```
/// use dlis_experiment::paper::parse_curves;
/// let line = r#"{"network":"vgg16-cifar10","technique":"weight-pruning","level":0.9,"accuracy":0.935,"images":10000,
///     "disk_bytes":9000000,"weight_bytes":9500000,"macs":313463808,"sparsity":0.9,"recipe":"magnitude-90"}"#.replace('\n', "");
/// assert_eq!(parse_curves("curves.jsonl", &line).unwrap()[0].level, 0.9);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// The network of the zoo that was compressed.
    pub network: String,
    /// How.
    pub technique: Technique,
    /// The technique's own measure of how far: the share of weights pruned (weight pruning), the share of
    /// multiply-accumulates left (channel pruning, combined), the threshold (ternary), the bits a weight (int8, int4),
    /// 0 (plain).
    pub level: f64,
    /// Top-1 accuracy, 0 to 1.
    pub accuracy: f64,
    /// The images it was measured on, of CIFAR-10's test set.
    pub images: u64,
    /// Bytes of the artefact.
    pub disk_bytes: u64,
    /// Bytes of its weights as kernels hold them.
    pub weight_bytes: u64,
    /// Multiply-accumulates of one image, as its graph counts them.
    pub macs: u64,
    /// Share of the dense network's weights that are zero or gone, 0 to 1.
    pub sparsity: f64,
    /// The recipe that made it.
    pub recipe: String,
}

impl CurvePoint {
    /// 1 - bytes on disk / bytes of the dense network's parameters as f32; negative if the artefact is larger.
    pub fn compression_rate(&self) -> f64 {
        // A valid point's network is of the zoo.
        f32_bytes(&self.network).map_or(0.0, |whole| 1.0 - self.disk_bytes as f64 / whole as f64)
    }
}

impl Line for CurvePoint {
    fn validate(&self) -> Result<(), InvalidField> {
        let Some(whole) = f32_bytes(&self.network) else {
            let name: String = self.network.chars().take(64).collect();
            return Err(InvalidField::new("network", "a network of the zoo", format!("{name:?}")));
        };
        for (field, value) in [("accuracy", self.accuracy), ("sparsity", self.sparsity)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(InvalidField::new(field, "0 to 1", value));
            }
        }
        let (range, expected) = match self.technique {
            Technique::Plain => (0.0..=0.0, "0 for a plain network"),
            Technique::WeightPruning | Technique::ChannelPruning | Technique::Ternary | Technique::Combined => {
                (0.0..=1.0, "0 to 1")
            }
            Technique::Int8 => (8.0..=8.0, "8 for int8"),
            Technique::Int4 => (4.0..=4.0, "4 for int4"),
        };
        if !range.contains(&self.level) {
            return Err(InvalidField::new("level", expected, self.level));
        }
        let counts = [
            ("images", self.images, 1_000_000),
            // Formats for sparse weights may take more than the dense ones where there are few zeros.
            ("disk_bytes", self.disk_bytes, whole.saturating_mul(16)),
            ("weight_bytes", self.weight_bytes, whole.saturating_mul(16)),
            ("macs", self.macs, 1 << 50),
        ];
        for (field, count, most) in counts {
            if !(1..=most).contains(&count) {
                return Err(InvalidField::new(field, format!("1 to {most}"), count));
            }
        }
        let recipe = &self.recipe;
        if recipe.is_empty() || recipe.len() > MAX_RECIPE_BYTES || recipe.chars().any(char::is_control) {
            let expected = format!("a name of 1 to {MAX_RECIPE_BYTES} bytes without control characters");
            return Err(InvalidField::new("recipe", expected, format!("{} bytes", recipe.len())));
        }
        Ok(())
    }
}

/// Bytes of all parameters of a network of the zoo as f32.
pub(crate) fn f32_bytes(network: &str) -> Option<u64> {
    static BYTES: LazyLock<BTreeMap<&str, u64>> = LazyLock::new(|| {
        let bytes = |entry: &dlis_model::zoo::Entry| 4 * entry.graph().trainable_parameters();
        dlis_model::zoo::ENTRIES.iter().map(|entry| (entry.name, bytes(entry))).collect()
    });
    BYTES.get(network).copied()
}

/// Share of the dense network's weights that are zero or gone in a record; `None` where the network is not of
/// the zoo, so that what it had is not known.
pub(crate) fn sparsity(record: &crate::Record) -> Option<f64> {
    if Technique::of(record) == Technique::Plain {
        return Some(0.0);
    }
    let whole = f32_bytes(&record.point.network)? as f64 / 4.0;
    let left = record.compression.weights as f64 * (1.0 - record.compression.sparsity);
    // Folding batch-norms away changes the count a little.
    Some((1.0 - left / whole).max(0.0))
}

/// The points kept with the program; none, if none have been measured yet.
///
/// # Errors
///
/// Never in a program whose tests pass.
pub fn kept_curves() -> Result<Vec<CurvePoint>, LinesError> {
    parse_curves("data/curves.jsonl", include_str!("../../data/curves.jsonl"))
}

/// Reads points from a file of JSON Lines of at most [`MAX_LINES_BYTES`](crate::lines::MAX_LINES_BYTES).
///
/// # Errors
///
/// [`LinesError`] naming line and field.
pub fn read_curves(path: impl AsRef<Path>) -> Result<Vec<CurvePoint>, LinesError> {
    lines::read(path.as_ref())
}

/// Reads points from JSON Lines; empty lines are passed over. `file` is what errors call the text.
///
/// # Errors
///
/// [`LinesError`] naming line and field.
pub fn parse_curves(file: &str, text: &str) -> Result<Vec<CurvePoint>, LinesError> {
    lines::parse(file, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::{MAX_LINES_BYTES, MAX_LINES_LINE_BYTES};

    const LINE: &str = r#"{"network":"vgg16-cifar10","technique":"weight-pruning","level":0.9,"accuracy":0.935,"images":10000,"disk_bytes":6000000,"weight_bytes":9500000,"macs":313463808,"sparsity":0.9,"recipe":"magnitude-90"}"#;

    fn refused(from: &str, to: &str) -> String {
        let changed = LINE.replace(from, to);
        assert_ne!(changed, LINE, "`{from}` is not there to be changed");
        parse_curves("c.jsonl", &format!("{LINE}\n\n{changed}\n")).unwrap_err().to_string()
    }

    #[test]
    fn points_round_trip_and_the_kept_ones_are_valid() {
        let points = parse_curves("c", &format!("\n{LINE}\n{LINE}\r\n")).unwrap();
        assert_eq!(points.len(), 2);
        assert_eq!(serde_json::to_string(&points[0]).unwrap(), LINE);
        // 15.0 M parameters of 4 bytes.
        assert!((points[0].compression_rate() - 0.9).abs() < 0.005, "{}", points[0].compression_rate());
        assert!(parse_curves("c", "").unwrap().is_empty());
        kept_curves().unwrap();
    }

    #[test]
    fn hostile_lines_are_refused_by_line_and_field() {
        for (from, to, expected) in [
            ("vgg16-cifar10", "vgg", "c.jsonl:3: `network`"),
            ("\"level\":0.9", "\"level\":1.5", "c.jsonl:3: `level`"),
            ("\"level\":0.9", "\"level\":-0.1", "`level`"),
            ("0.935", "1e999", "c.jsonl:3: field `accuracy`"),
            ("0.935", "93.5", "`accuracy` is 93.5"),
            ("0.935", "null", "field `accuracy`"),
            ("\"sparsity\":0.9", "\"sparsity\":2", "`sparsity`"),
            ("10000,", "0,", "`images`"),
            ("6000000", "0", "`disk_bytes`"),
            ("6000000", "-6", "field `disk_bytes`"),
            ("6000000", "18446744073709551615", "`disk_bytes`"),
            ("9500000", "99999999999999999999999", "field `weight_bytes`"),
            ("313463808", "18446744073709551615", "`macs`"),
            ("magnitude-90", "", "`recipe`"),
            ("magnitude-90", "a\\u0000b", "`recipe`"),
            ("weight-pruning", "magic", "field `technique`"),
            ("weight-pruning", "plain", "`level`"),
            ("\"recipe\"", "\"colour\":1,\"recipe\"", "colour"),
            (",\"images\":10000", "", "images"),
            ("}", "", "c.jsonl:3"),
            ("}", "} {}", "field `.`"),
            ("{", "[[[[", "c.jsonl:3"),
        ] {
            let error = refused(from, to);
            assert!(error.contains(expected), "{from} -> {to}: {error}");
        }
        let long = format!("{{\"network\":\"{}\"}}", "x".repeat(MAX_LINES_LINE_BYTES));
        assert!(matches!(parse_curves("c", &long), Err(LinesError::TooLong { line: 1, .. })));
        // An error does not repeat a name of any length.
        let name = "x".repeat(1000);
        assert!(refused("vgg16-cifar10", &name).len() < 300);
    }

    #[test]
    fn files_are_bounded_and_must_be_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curves.jsonl");
        assert!(matches!(read_curves(&path), Err(LinesError::Io { .. })));
        std::fs::write(&path, [0xff, 0xfe, b'\n']).unwrap();
        assert!(matches!(read_curves(&path), Err(LinesError::Io { .. })));
        std::fs::write(&path, LINE).unwrap();
        assert_eq!(read_curves(&path).unwrap().len(), 1);
        std::fs::File::create(&path).unwrap().set_len(MAX_LINES_BYTES + 1).unwrap();
        assert!(matches!(read_curves(&path), Err(LinesError::TooLarge { .. })));
    }
}
