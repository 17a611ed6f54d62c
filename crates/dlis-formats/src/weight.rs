//! The weight tensor of one layer in one format.

use std::fmt;
use std::str::FromStr;

use half::f16;
use ndarray::{ArrayD, CowArray, IxDyn};
use serde::{Deserialize, Serialize};

/// The type of one element of a tensor, of weights or of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// The name used in kernel ids, files and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the elements of a weight tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Format {
    /// Every element, in row-major order, as f32.
    DenseF32,
    /// Every element, in row-major order, as f16.
    DenseF16,
}

impl Format {
    /// Every format, in the order in which they are listed to users.
    pub const ALL: [Self; 2] = [Self::DenseF32, Self::DenseF16];

    /// The name used in files and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DenseF32 => "dense-f32",
            Self::DenseF16 => "dense-f16",
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
#[error("`{0}` is not a weight format: expected `dense-f32` or `dense-f16`")]
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

/// A conversion that would change a value.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("element {index} is {value}, which {format} cannot represent exactly")]
pub struct ConvertError {
    /// Row-major index of the first element that would change.
    pub index: usize,
    /// Its value.
    pub value: f32,
    /// The format asked for.
    pub format: Format,
}

/// The weight tensor of one layer (for a convolution `[out, in / groups, height, width]`, for a linear
/// layer `[out, in]`, for a vector of biases `[n]`), in one [`Format`].
#[derive(Clone, Debug, PartialEq)]
pub enum Weight {
    /// [`Format::DenseF32`].
    F32(ArrayD<f32>),
    /// [`Format::DenseF16`].
    F16(ArrayD<f16>),
}

impl Weight {
    /// The format it is stored in.
    pub fn format(&self) -> Format {
        match self {
            Self::F32(_) => Format::DenseF32,
            Self::F16(_) => Format::DenseF16,
        }
    }

    /// The extents of the tensor, outermost first.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::F32(array) => array.shape(),
            Self::F16(array) => array.shape(),
        }
    }

    /// The number of elements, zeros included.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// The bytes that the stored form takes, indices and scales included, headers not.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(array) => array.len() * DType::F32.bytes(),
            Self::F16(array) => array.len() * DType::F16.bytes(),
        }
    }

    /// The tensor as dense f32; borrowed where it is stored so.
    pub fn to_f32(&self) -> CowArray<'_, f32, IxDyn> {
        match self {
            Self::F32(array) => CowArray::from(array),
            Self::F16(array) => CowArray::from(array.mapv(f16::to_f32)),
        }
    }

    /// The same values in another format.
    ///
    /// # Errors
    ///
    /// [`ConvertError`] if a value would change: rounding is a compressor's business, not a format's.
    /// NaN stays NaN, whatever its payload.
    pub fn convert(&self, format: Format) -> Result<Self, ConvertError> {
        match (self, format) {
            (Self::F32(_), Format::DenseF32) | (Self::F16(_), Format::DenseF16) => Ok(self.clone()),
            (Self::F16(array), Format::DenseF32) => Ok(Self::F32(array.mapv(f16::to_f32))),
            (Self::F32(array), Format::DenseF16) => {
                let lost = |value: f32| f16::from_f32(value).to_f32() != value && !value.is_nan();
                match array.iter().position(|&value| lost(value)) {
                    Some(index) => {
                        let value = array.iter().nth(index).copied().unwrap_or_default();
                        Err(ConvertError { index, value, format })
                    }
                    None => Ok(Self::F16(array.mapv(f16::from_f32))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn format_names_round_trip() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        assert!("dense".parse::<Format>().is_err());
    }

    #[test]
    fn rounding_is_refused_and_located() {
        let weight = Weight::F32(ndarray::arr1(&[1.0, 0.1, 2.0]).into_dyn());
        let error = weight.convert(Format::DenseF16).unwrap_err();
        assert_eq!((error.index, error.value), (1, 0.1));
        let overflow = Weight::F32(ndarray::arr1(&[1e6]).into_dyn());
        assert!(overflow.convert(Format::DenseF16).is_err());
    }

    proptest! {
        /// Every f16 bit pattern, NaN and infinities among them, survives the way to f32 and back.
        #[test]
        fn f16_round_trips_through_f32(bits in proptest::collection::vec(any::<u16>(), 0..200)) {
            let values: Vec<f16> = bits.iter().copied().map(f16::from_bits).collect();
            let weight = Weight::F16(ArrayD::from_shape_vec(vec![values.len()], values).unwrap());
            let back = weight.convert(Format::DenseF32).unwrap().convert(Format::DenseF16).unwrap();
            prop_assert_eq!(back.bytes(), weight.bytes());
            let (Weight::F16(back), Weight::F16(weight)) = (back, weight) else { unreachable!() };
            for (a, b) in back.iter().zip(&weight) {
                prop_assert!(a == b || (a.is_nan() && b.is_nan()), "{} != {}", a, b);
            }
        }
    }
}
