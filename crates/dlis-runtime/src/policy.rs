//! How kernels are chosen.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use dlis_backend::KernelPattern;
use serde::{Deserialize, Serialize};

/// How the planner chooses among the kernels that can execute a layer.
///
/// Printed and parsed as `fixed:PATTERN` (see [`KernelPattern`]), `heuristic` and `measured`.
///
/// ```
/// use dlis_runtime::Policy;
/// let policy: Policy = "fixed:im2col-gemm".parse()?;
/// assert_eq!(policy.to_string(), "fixed:im2col-gemm");
/// # Ok::<(), dlis_runtime::ParsePolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Policy {
    /// A kernel that matches, wherever one can execute the layer; elsewhere as [`Heuristic`](Self::Heuristic).
    Fixed(KernelPattern),
    /// The least time by the kernels' own rough estimates. Needs no measurement, so it is the same choice
    /// everywhere.
    Heuristic,
    /// The least time measured on this machine, layer by layer, reorders between layouts included.
    Measured,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(pattern) => write!(f, "fixed:{pattern}"),
            Self::Heuristic => f.write_str("heuristic"),
            Self::Measured => f.write_str("measured"),
        }
    }
}

/// By their texts.
impl Ord for Policy {
    fn cmp(&self, other: &Self) -> Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl PartialOrd for Policy {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A text that names no [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a policy: {expected}")]
pub struct ParsePolicyError {
    text: String,
    expected: String,
}

impl FromStr for Policy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |expected: String| ParsePolicyError { text: text.to_owned(), expected };
        match text.strip_prefix("fixed:") {
            Some(pattern) => pattern.parse().map(Self::Fixed).map_err(|source| error(format!("{source}"))),
            None => match text {
                "heuristic" => Ok(Self::Heuristic),
                "measured" => Ok(Self::Measured),
                _ => Err(error(
                    "expected `fixed:ALGORITHM`, `fixed:OP/DTYPE/FORMAT/ALGORITHM/ISA`, `heuristic` or `measured`"
                        .to_owned(),
                )),
            },
        }
    }
}

impl TryFrom<String> for Policy {
    type Error = ParsePolicyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_round_trip_through_text() {
        for text in ["heuristic", "measured", "fixed:direct", "fixed:conv2d/f32/dense/*/avx2"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        for text in ["", "fixed", "fixed:", "fixed:a/b", "fastest"] {
            assert!(text.parse::<Policy>().is_err(), "{text}");
        }
    }
}
