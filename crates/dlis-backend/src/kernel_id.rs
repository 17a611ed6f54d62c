//! Names of kernels.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a kernel: `op/dtype/format/algorithm/isa`, as in `conv2d/f32/dense/direct/portable`.
///
/// - `op` as in [`Operation::name`](crate::Operation::name);
/// - `dtype`: the type it computes in;
/// - `format`: the weight format it executes, `none` where the operation has no weight;
/// - `algorithm`: how;
/// - `isa`: the SIMD level, or the library that does the work.
///
/// ```
/// use dlis_backend::KernelId;
/// let id: KernelId = "conv2d/f32/dense/direct/portable".parse()?;
/// assert_eq!(id.algorithm(), "direct");
/// assert_eq!(id.to_string(), "conv2d/f32/dense/direct/portable");
/// # Ok::<(), dlis_backend::ParseKernelIdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelId([Cow<'static, str>; 5]);

impl KernelId {
    /// A name of these parts, each of which must be made of lower-case letters, digits, `-` and `_`.
    pub const fn new(
        op: &'static str,
        dtype: &'static str,
        format: &'static str,
        algorithm: &'static str,
        isa: &'static str,
    ) -> Self {
        Self([
            Cow::Borrowed(op),
            Cow::Borrowed(dtype),
            Cow::Borrowed(format),
            Cow::Borrowed(algorithm),
            Cow::Borrowed(isa),
        ])
    }

    /// The operation.
    pub fn op(&self) -> &str {
        &self.0[0]
    }

    /// The type it computes in.
    pub fn dtype(&self) -> &str {
        &self.0[1]
    }

    /// The weight format.
    pub fn format(&self) -> &str {
        &self.0[2]
    }

    /// The algorithm.
    pub fn algorithm(&self) -> &str {
        &self.0[3]
    }

    /// The SIMD level or library.
    pub fn isa(&self) -> &str {
        &self.0[4]
    }
}

impl fmt::Display for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// A text that is no [`KernelId`] or [`KernelPattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a kernel {expected}")]
pub struct ParseKernelIdError {
    text: String,
    expected: &'static str,
}

fn is_part(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

impl FromStr for KernelId {
    type Err = ParseKernelIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseKernelIdError {
            text: text.to_owned(),
            expected: "id: expected `op/dtype/format/algorithm/isa`, as in `conv2d/f32/dense/direct/portable`",
        };
        let mut parts = text.split('/');
        let mut next =
            || parts.next().filter(|part| is_part(part)).map(|part| Cow::Owned(part.to_owned())).ok_or_else(error);
        let id = Self([next()?, next()?, next()?, next()?, next()?]);
        if parts.next().is_some() { Err(error()) } else { Ok(id) }
    }
}

impl TryFrom<String> for KernelId {
    type Error = ParseKernelIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KernelId> for String {
    fn from(id: KernelId) -> Self {
        id.to_string()
    }
}

/// A kernel id in which any part may be `*`; a pattern without `/` is an algorithm.
///
/// ```
/// use dlis_backend::{KernelId, KernelPattern};
/// let id: KernelId = "conv2d/f32/dense/direct/portable".parse()?;
/// assert!("direct".parse::<KernelPattern>()?.matches(&id));
/// assert!("conv2d/*/dense/*/*".parse::<KernelPattern>()?.matches(&id));
/// assert!(!"linear/*/*/*/*".parse::<KernelPattern>()?.matches(&id));
/// # Ok::<(), dlis_backend::ParseKernelIdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelPattern(String);

impl KernelPattern {
    /// Whether a kernel's name fits.
    pub fn matches(&self, id: &KernelId) -> bool {
        if self.0.contains('/') {
            self.0.split('/').zip(&id.0).all(|(pattern, part)| pattern == "*" || pattern == part)
        } else {
            self.0 == id.algorithm()
        }
    }
}

impl KernelPattern {
    /// As [`matches`](Self::matches), whatever the SIMD level or library.
    pub fn matches_on_any_isa(&self, id: &KernelId) -> bool {
        let isa = self.0.rsplit_once('/').map_or(id.isa(), |(_, isa)| if isa == "*" { id.isa() } else { isa });
        let mut id = id.clone();
        id.0[4] = Cow::Owned(isa.to_owned());
        self.matches(&id)
    }
}

impl fmt::Display for KernelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KernelPattern {
    type Err = ParseKernelIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        if matches!(parts.len(), 1 | 5) && parts.iter().all(|&part| (part == "*" && parts.len() == 5) || is_part(part))
        {
            return Ok(Self(text.to_owned()));
        }
        let expected =
            "pattern: expected an algorithm, as in `direct`, or `op/dtype/format/algorithm/isa` with any part `*`";
        Err(ParseKernelIdError { text: text.to_owned(), expected })
    }
}

impl TryFrom<String> for KernelPattern {
    type Error = ParseKernelIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KernelPattern> for String {
    fn from(pattern: KernelPattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_names_are_refused() {
        for text in ["", "conv2d", "a/b/c/d", "a/b/c/d/e/f", "a//c/d/e", "A/b/c/d/e", "a/b/c/d/*", "a/b/c/d/e "] {
            assert!(text.parse::<KernelId>().is_err(), "{text}");
        }
        for text in ["", "*", "a/*", "a/b/c/d/*/f", "Direct"] {
            assert!(text.parse::<KernelPattern>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip_through_text(text in "[a-z0-9_-]{1,8}(/[a-z0-9_-]{1,8}){4}") {
            prop_assert_eq!(text.parse::<KernelId>().unwrap().to_string(), text);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = text.parse::<KernelId>();
            let _ = text.parse::<KernelPattern>();
        }
    }
}
