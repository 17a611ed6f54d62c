//! Three values a row.

use ndarray::ArrayD;

use crate::error::{check_finite, check_length};
use crate::extents::Extents;
use crate::{ConvertError, Format, FormatError};

/// How the codes of a [`Ternary`] weight fill bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TernaryPacking {
    /// Two bits a code, the first in the low bits: four codes a byte.
    TwoBit,
    /// Digits of base 3, the first least significant: five codes a byte, which is then below 243.
    FiveInEight,
}

impl TernaryPacking {
    /// Codes of one byte.
    pub const fn per_byte(self) -> usize {
        match self {
            Self::TwoBit => 4,
            Self::FiveInEight => 5,
        }
    }

    /// The format with this packing.
    pub const fn format(self) -> Format {
        match self {
            Self::TwoBit => Format::Ternary2Bit,
            Self::FiveInEight => Format::Ternary5In8,
        }
    }

    /// One code of a byte; `place` is below [`Self::per_byte`].
    pub const fn unpack(self, byte: u8, place: usize) -> u8 {
        match self {
            Self::TwoBit => byte >> (2 * (place & 3)) & 3,
            Self::FiveInEight => byte / POWERS[place] % 3,
        }
    }

    /// What a code adds to its byte.
    const fn pack(self, code: u8, place: usize) -> u8 {
        match self {
            Self::TwoBit => code << (2 * place),
            Self::FiveInEight => code * POWERS[place],
        }
    }
}

/// Weights of the digits of base 3.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Weights that are `positive`, 0 or `-negative` of their row: those of trained ternary quantisation (Zhu et
/// al., *Trained Ternary Quantization*, ICLR 2017), with a pair of magnitudes for each output channel.
///
/// Each element has a code: 0 for 0, 1 for `positive[row]`, 2 for `-negative[row]`. Codes are in the order of
/// [`Csr`](crate::Csr)'s columns, and each row starts on a byte. Magnitudes are finite and of any sign:
/// folding a batch-norm may multiply a row by a negative number.
///
/// ```
/// use dlis_formats::{Ternary, TernaryPacking};
/// use ndarray::arr2;
///
/// let dense = arr2(&[[0.5, 0.0, -0.25, 0.5, 0.0], [0.0; 5]]).into_dyn();
/// let ternary = Ternary::from_dense(&dense, TernaryPacking::FiveInEight)?;
/// assert_eq!((ternary.positive(), ternary.negative()), (&[0.5, 0.0][..], &[0.25, 0.0][..]));
/// // 1 + 0 * 3 + 2 * 9 + 1 * 27 + 0 * 81, then a row of zeros.
/// assert_eq!(ternary.codes(), [46, 0]);
/// assert_eq!(ternary.bytes(), 2 + 2 * (4 + 4));
/// # Ok::<(), dlis_formats::ConvertError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Ternary {
    extents: Extents,
    packing: TernaryPacking,
    positive: Vec<f32>,
    negative: Vec<f32>,
    codes: Vec<u8>,
}

impl Ternary {
    /// Most steps that a code stands for. Four of them times bytes of up to 255 fit 16 bits together, in which the
    /// instructions of many processors sum products.
    pub const MOST_STEPS: i8 = 32;

    /// Of its parts: two magnitudes a row, and the packed codes.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if a part has another length than the extents call for, if a magnitude is not finite,
    /// if a code is above 2 (a byte above 242, in base 3), or if a row's last byte holds more than the row.
    pub fn new(
        dims: Vec<usize>,
        packing: TernaryPacking,
        positive: Vec<f32>,
        negative: Vec<f32>,
        codes: Vec<u8>,
    ) -> Result<Self, FormatError> {
        let ternary = Self { extents: Extents::new(dims)?, packing, positive, negative, codes };
        let (rows, columns, row_bytes) = (ternary.rows(), ternary.columns(), ternary.row_bytes());
        check_length("positive", ternary.positive.len(), rows)?;
        check_length("negative", ternary.negative.len(), rows)?;
        check_length("codes", ternary.codes.len(), rows * row_bytes)?;
        check_finite("positive", &ternary.positive)?;
        check_finite("negative", &ternary.negative)?;
        let (legal, expected): (fn(u8) -> bool, _) = match packing {
            // A code is 3 where both of its bits are set.
            TernaryPacking::TwoBit => (|byte| byte & byte >> 1 & 0x55 == 0, "codes of 0 to 2, two bits each"),
            TernaryPacking::FiveInEight => (|byte| byte < 243, "five digits of base 3, at most 242"),
        };
        if let Some(index) = ternary.codes.iter().position(|&byte| !legal(byte)) {
            return Err(FormatError::Code { field: "codes", index, found: i32::from(ternary.codes[index]), expected });
        }
        let used = columns % packing.per_byte();
        if used != 0 {
            let last = (row_bytes - 1..ternary.codes.len()).step_by(row_bytes);
            let holds_more =
                |&at: &usize| (used..packing.per_byte()).any(|place| packing.unpack(ternary.codes[at], place) != 0);
            if let Some(index) = last.into_iter().find(holds_more) {
                return Err(FormatError::Padding { field: "codes", index });
            }
        }
        Ok(ternary)
    }

    /// Of magnitudes and one sign an element, in row-major order: 1 for `positive`, -1 for `-negative`, 0 for
    /// 0. What a compressor that has trained them calls.
    ///
    /// # Errors
    ///
    /// [`FormatError`] as for [`Self::new`], or if a sign is another number.
    pub fn from_signs(
        dims: Vec<usize>,
        packing: TernaryPacking,
        positive: Vec<f32>,
        negative: Vec<f32>,
        signs: &[i8],
    ) -> Result<Self, FormatError> {
        let extents = Extents::new(dims)?;
        check_length("signs", signs.len(), extents.elements())?;
        if let Some(index) = signs.iter().position(|sign| !(-1..=1).contains(sign)) {
            let found = i32::from(signs[index]);
            return Err(FormatError::Code { field: "signs", index, found, expected: "-1, 0 or 1" });
        }
        let code = |index: usize| match signs[index] {
            0 => 0,
            1 => 1,
            _ => 2,
        };
        let codes = pack(&extents, packing, code);
        Self::new(extents.dims().to_vec(), packing, positive, negative, codes)
    }

    /// A dense tensor, each row of which has at most one positive and one negative value. A magnitude that a
    /// row does not use is 0.
    ///
    /// # Errors
    ///
    /// [`ConvertError::Value`] with the first value that is a second positive or negative one, NaN or
    /// infinite, or [`ConvertError::Tensor`] if the tensor is too large.
    pub fn from_dense(dense: &ArrayD<f32>, packing: TernaryPacking) -> Result<Self, ConvertError> {
        Self::from_elements(dense.shape(), &dense.as_standard_layout().into_iter().collect::<Vec<_>>(), packing)
    }

    pub(crate) fn from_elements(
        dims: &[usize],
        elements: &[f32],
        packing: TernaryPacking,
    ) -> Result<Self, ConvertError> {
        let format = packing.format();
        let extents = Extents::new(dims.to_vec()).map_err(|source| ConvertError::Tensor { format, source })?;
        let (rows, columns) = (extents.rows(), extents.columns());
        let (mut positive, mut negative) = (vec![0.0; rows], vec![0.0; rows]);
        for row in 0..rows {
            for (column, &value) in elements[row * columns..][..columns].iter().enumerate() {
                let magnitude: &mut f32 = if value < 0.0 { &mut negative[row] } else { &mut positive[row] };
                if value != 0.0 && *magnitude == 0.0 && value.is_finite() {
                    *magnitude = value.abs();
                } else if value != 0.0 && value.abs() != *magnitude {
                    return Err(ConvertError::Value { index: row * columns + column, value, format });
                }
            }
        }
        let code = |index: usize| match elements[index] {
            value if value > 0.0 => 1,
            value if value < 0.0 => 2,
            _ => 0,
        };
        let codes = pack(&extents, packing, code);
        Ok(Self { extents, packing, positive, negative, codes })
    }

    /// The same codes and magnitudes in another packing.
    pub(crate) fn repack(&self, packing: TernaryPacking) -> Self {
        let columns = self.columns();
        let codes = pack(&self.extents, packing, |index| self.code(index / columns, index % columns));
        Self { codes, packing, ..self.clone() }
    }

    /// The extents of the tensor, outermost first.
    pub fn dims(&self) -> &[usize] {
        self.extents.dims()
    }

    /// Output channels.
    pub fn rows(&self) -> usize {
        self.extents.rows()
    }

    /// Elements of one output channel, zeros included.
    pub fn columns(&self) -> usize {
        self.extents.columns()
    }

    /// How the codes fill bytes.
    pub fn packing(&self) -> TernaryPacking {
        self.packing
    }

    /// What code 1 stands for, in each row.
    pub fn positive(&self) -> &[f32] {
        &self.positive
    }

    /// Minus what code 2 stands for, in each row.
    pub fn negative(&self) -> &[f32] {
        &self.negative
    }

    /// The packed codes.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// Bytes of the codes of one row.
    pub fn row_bytes(&self) -> usize {
        self.columns().div_ceil(self.packing.per_byte())
    }

    /// The code of one element: 0, 1 or 2.
    ///
    /// # Panics
    ///
    /// If there is no such element.
    pub fn code(&self, row: usize, column: usize) -> u8 {
        let per_byte = self.packing.per_byte();
        self.packing.unpack(self.codes[row * self.row_bytes() + column / per_byte], column % per_byte)
    }

    /// A row in whole numbers, for integer arithmetic: what a step is, and how many steps codes 1 and 2 stand for,
    /// at most [`MOST_STEPS`](Self::MOST_STEPS) either way.
    ///
    /// Two magnitudes are in general no multiples of one step. Of all ratios of whole numbers up to 32 that
    /// nearest to theirs is taken, of equal ones that of the smallest numbers, and the step makes the larger
    /// magnitude right. So the smaller is off by at most 1/64 of the larger, the half step of a weight of six bits;
    /// unless their ratio is within a thirtieth of 0, of 1 or of another simple one, by far less.
    ///
    /// ```
    /// use dlis_formats::{Ternary, TernaryPacking};
    ///
    /// let (positive, negative) = (vec![0.5, 0.3, 0.0], vec![0.5, -0.1, 0.25]);
    /// let ternary = Ternary::from_signs(vec![3, 1], TernaryPacking::TwoBit, positive, negative, &[1, -1, 0])?;
    /// assert_eq!(ternary.steps(0), (0.5, [1, -1]));
    /// assert_eq!(ternary.steps(1), (0.1, [3, 1]));
    /// assert_eq!(ternary.steps(2), (0.25, [0, -1]));
    /// # Ok::<(), dlis_formats::FormatError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn steps(&self, row: usize) -> (f32, [i8; 2]) {
        let values = [f64::from(self.positive[row]), -f64::from(self.negative[row])];
        let largest = values[0].abs().max(values[1].abs());
        if largest == 0.0 {
            return (0.0, [0; 2]);
        }
        let ratio = values[0].abs().min(values[1].abs()) / largest;
        let (mut most, mut error) = (1.0, f64::INFINITY);
        for steps in (1..=Self::MOST_STEPS).map(f64::from) {
            let off = ((ratio * steps).round() / steps - ratio).abs();
            if off < error {
                (most, error) = (steps, off);
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole, and at most `MOST_STEPS` either way")]
        let counts = values.map(|value| (value / largest * most).round() as i8);
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
        let step = (largest / most) as f32;
        (step, counts)
    }

    /// Bytes of codes and magnitudes.
    pub fn bytes(&self) -> usize {
        self.codes.len() + (self.positive.len() + self.negative.len()) * 4
    }

    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        let values = [0.0, self.positive[row], -self.negative[row]];
        let codes = &self.codes[row * self.row_bytes()..];
        for (out, &byte) in out.chunks_mut(self.packing.per_byte()).zip(codes) {
            for (place, out) in out.iter_mut().enumerate() {
                *out = values[usize::from(self.packing.unpack(byte, place))];
            }
        }
    }

    /// Each row times a factor; `None` if a magnitude would not be finite.
    pub(crate) fn scale_rows(&self, factors: &[f32]) -> Option<Self> {
        let positive = crate::scales::product(&self.positive, factors)?;
        let negative = crate::scales::product(&self.negative, factors)?;
        Some(Self { positive, negative, ..self.clone() })
    }
}

/// The packed codes of all elements.
fn pack(extents: &Extents, packing: TernaryPacking, code: impl Fn(usize) -> u8) -> Vec<u8> {
    let (columns, per_byte) = (extents.columns(), packing.per_byte());
    let row_bytes = columns.div_ceil(per_byte);
    let mut codes = vec![0; extents.rows() * row_bytes];
    for row in 0..extents.rows() {
        for column in 0..columns {
            codes[row * row_bytes + column / per_byte] += packing.pack(code(row * columns + column), column % per_byte);
        }
    }
    codes
}
