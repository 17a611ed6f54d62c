//! The names of the formats.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the elements of a weight tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Format {
    /// Every element, in row-major order, as f32.
    DenseF32,
    /// Every element, in row-major order, as f16.
    DenseF16,
    /// Every element, in row-major order, as f16, and a scale a row: [`ScaledF16`](crate::ScaledF16).
    ScaledF16,
    /// Compressed sparse rows, values as f32: [`Csr`](crate::Csr).
    CsrF32,
    /// Compressed sparse rows, values as f16: [`Csr`](crate::Csr).
    CsrF16,
    /// Compressed sparse blocks of 1 row and 4 columns: [`Bsr`](crate::Bsr).
    Bsr1x4,
    /// Compressed sparse blocks of 4 rows and 1 column: [`Bsr`](crate::Bsr).
    Bsr4x1,
    /// Compressed sparse blocks of 8 rows and 1 column: [`Bsr`](crate::Bsr).
    Bsr8x1,
    /// Compressed sparse blocks of 16 rows and 1 column: [`Bsr`](crate::Bsr).
    Bsr16x1,
    /// At most two of four consecutive input channels: [`TwoFour`](crate::TwoFour).
    TwoFour,
    /// Three values a row, two bits an element: [`Ternary`](crate::Ternary).
    Ternary2Bit,
    /// Three values a row, five elements a byte: [`Ternary`](crate::Ternary).
    Ternary5In8,
    /// A byte an element and a scale a row: [`Int8`](crate::Int8).
    Int8,
    /// Four bits an element and a scale a row: [`Int4`](crate::Int4).
    Int4,
    /// One compressed sparse matrix a filter: [`FilterCsr`](crate::FilterCsr).
    FilterCsr,
}

impl Format {
    /// Every format, in the order in which they are listed to users.
    pub const ALL: [Self; 15] = [
        Self::DenseF32,
        Self::DenseF16,
        Self::ScaledF16,
        Self::CsrF32,
        Self::CsrF16,
        Self::Bsr1x4,
        Self::Bsr4x1,
        Self::Bsr8x1,
        Self::Bsr16x1,
        Self::TwoFour,
        Self::Ternary2Bit,
        Self::Ternary5In8,
        Self::Int8,
        Self::Int4,
        Self::FilterCsr,
    ];

    /// The name used in files and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DenseF32 => "dense-f32",
            Self::DenseF16 => "dense-f16",
            Self::ScaledF16 => "scaled-f16",
            Self::CsrF32 => "csr-f32",
            Self::CsrF16 => "csr-f16",
            Self::Bsr1x4 => "bsr-1x4",
            Self::Bsr4x1 => "bsr-4x1",
            Self::Bsr8x1 => "bsr-8x1",
            Self::Bsr16x1 => "bsr-16x1",
            Self::TwoFour => "two-four",
            Self::Ternary2Bit => "ternary-2bit",
            Self::Ternary5In8 => "ternary-5in8",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::FilterCsr => "filter-csr",
        }
    }

    /// Whether every element is stored as a real number, zeros as well.
    pub const fn is_dense(self) -> bool {
        matches!(self, Self::DenseF32 | Self::DenseF16 | Self::ScaledF16)
    }

    /// Whether zeros are stored, or multiplied, as any other element: of dense formats and those of whole numbers.
    pub const fn keeps_zeros(self) -> bool {
        self.is_dense() || matches!(self, Self::Int8 | Self::Int4)
    }

    /// Rows and columns of a block, of the formats that store blocks.
    pub const fn block(self) -> Option<[usize; 2]> {
        match self {
            Self::Bsr1x4 => Some([1, 4]),
            Self::Bsr4x1 => Some([4, 1]),
            Self::Bsr8x1 => Some([8, 1]),
            Self::Bsr16x1 => Some([16, 1]),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no [`Format`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a weight format: expected one of {names}", names = Format::ALL.map(Format::name).join(", "))]
pub struct ParseFormatError(String);

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| ParseFormatError(text.to_owned()))
    }
}

impl TryFrom<String> for Format {
    type Error = ParseFormatError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Format> for String {
    fn from(format: Format) -> Self {
        format.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        let error = "dense".parse::<Format>().unwrap_err().to_string();
        assert!(error.contains("`dense`") && error.contains("dense-f32, dense-f16, scaled-f16"), "{error}");
    }
}
