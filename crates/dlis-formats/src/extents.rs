//! The extents of a packed tensor and its view as a matrix.

use crate::FormatError;

/// Most elements of a tensor in a packed format, so that each of its indices fits 32 bits.
pub const MAX_ELEMENTS: usize = u32::MAX as usize;

/// Extents, outermost first, whose product with zeros counted as ones is at most [`MAX_ELEMENTS`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Extents {
    dims: Vec<usize>,
}

impl Extents {
    pub(crate) fn new(dims: Vec<usize>) -> Result<Self, FormatError> {
        let product = dims.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent.max(1)));
        match product {
            Some(product) if product <= MAX_ELEMENTS && !dims.is_empty() => Ok(Self { dims }),
            _ => Err(FormatError::Dims { dims }),
        }
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Output channels.
    pub(crate) fn rows(&self) -> usize {
        self.dims[0]
    }

    /// Elements of one output channel.
    pub(crate) fn columns(&self) -> usize {
        self.dims[1..].iter().product()
    }

    pub(crate) fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Input channels of one group of a convolution.
    pub(crate) fn inputs(&self) -> usize {
        self.dims.get(1).copied().unwrap_or(1)
    }

    /// Places of the window of a convolution.
    pub(crate) fn taps(&self) -> usize {
        self.dims.iter().skip(2).product()
    }
}

/// An index of a tensor of [`Extents`], as stored.
pub(crate) fn index32(index: usize) -> u32 {
    u32::try_from(index).expect("extents are bounded by MAX_ELEMENTS")
}
