//! At most two of four.

use ndarray::ArrayD;

use crate::extents::Extents;
use crate::{ConvertError, Format, FormatError};

/// At most two values that are not zero among each four consecutive input channels of one place of the
/// window: the 2:4 pattern of Mishra et al., *Accelerating Sparse Deep Neural Networks*, 2021.
///
/// The groups of an output channel are in order `[tap][ceil(in / 4)]`, `tap = y * width + x`: consecutive
/// input channels lie side by side as in an NHWC activation. A group has two values and two places, first
/// place in the low two bits of its four, second in the high two, the first smaller than the second. Groups
/// fill bytes low nibble first, and each output channel starts on a byte. A group with fewer than two values
/// has zeros. Where four does not divide the input channels, a place of the last group may lie **beyond the
/// last channel**; its value is then zero, and whoever computes with it must not read that channel.
///
/// ```
/// use dlis_formats::TwoFour;
/// use ndarray::arr2;
///
/// let dense = arr2(&[[0.0, 5.0, 0.0, 7.0]]).into_dyn();
/// let packed = TwoFour::from_dense(&dense)?;
/// assert_eq!(packed.values(), [5.0, 7.0]);
/// assert_eq!(packed.positions(), [0b11_01]);
/// assert_eq!(packed.places(0, 0), [1, 3]);
/// # Ok::<(), dlis_formats::ConvertError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TwoFour {
    extents: Extents,
    positions: Vec<u8>,
    values: Vec<f32>,
}

impl TwoFour {
    /// Of its parts: four bits of places and two values a group.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if a part has another length than the extents call for, if the places of a group do
    /// not increase, or if something is stored where there is no group or no channel.
    pub fn new(dims: Vec<usize>, positions: Vec<u8>, values: Vec<f32>) -> Result<Self, FormatError> {
        let packed = Self { extents: Extents::new(dims)?, positions, values };
        let (rows, groups) = (packed.rows(), packed.row_groups());
        crate::error::check_length("positions", packed.positions.len(), rows * packed.row_bytes())?;
        crate::error::check_length("values", packed.values.len(), rows * groups * 2)?;
        for row in 0..rows {
            for group in 0..groups {
                let [first, second] = packed.places(row, group);
                if first >= second {
                    return Err(FormatError::Code {
                        field: "positions",
                        index: row * packed.row_bytes() + group / 2,
                        found: i32::from(packed.positions[row * packed.row_bytes() + group / 2]),
                        expected: "two places a group, the first before the second",
                    });
                }
                let at = (row * groups + group) * 2;
                let channel = group % packed.channel_groups() * 4;
                for (index, place) in [(at, first), (at + 1, second)] {
                    if channel + place >= packed.extents.inputs() && packed.values[index] != 0.0 {
                        return Err(FormatError::Padding { field: "values", index });
                    }
                }
            }
            let last = (row + 1) * packed.row_bytes();
            if groups % 2 == 1 && packed.positions[last - 1] >> 4 != 0 {
                return Err(FormatError::Padding { field: "positions", index: last - 1 });
            }
        }
        Ok(packed)
    }

    /// The elements of a dense tensor, of which at most two of each group are not zero.
    ///
    /// # Errors
    ///
    /// [`ConvertError::Value`] with the third of a group, or [`ConvertError::Tensor`] if the tensor is too
    /// large.
    pub fn from_dense(dense: &ArrayD<f32>) -> Result<Self, ConvertError> {
        Self::from_elements(dense.shape(), &dense.as_standard_layout().into_iter().collect::<Vec<_>>())
    }

    pub(crate) fn from_elements(dims: &[usize], elements: &[f32]) -> Result<Self, ConvertError> {
        let format = Format::TwoFour;
        let extents = Extents::new(dims.to_vec()).map_err(|source| ConvertError::Tensor { format, source })?;
        let mut packed = Self { extents, positions: Vec::new(), values: Vec::new() };
        let (groups, inputs, taps) = (packed.row_groups(), packed.extents.inputs(), packed.extents.taps());
        packed.positions = vec![0; packed.rows() * packed.row_bytes()];
        packed.values.reserve_exact(packed.rows() * groups * 2);
        for row in 0..packed.rows() {
            for group in 0..groups {
                let (tap, channel) = (group / packed.channel_groups(), group % packed.channel_groups() * 4);
                let mut kept = [(4, 0.0); 2];
                let mut count = 0;
                for place in 0..4.min(inputs - channel) {
                    let index = (row * inputs + channel + place) * taps + tap;
                    let value = elements[index];
                    if value == 0.0 {
                        continue;
                    }
                    let Some(slot) = kept.get_mut(count) else {
                        return Err(ConvertError::Value { index, value, format });
                    };
                    *slot = (place, value);
                    count += 1;
                }
                // What is missing becomes a zero at the first place that keeps the two in order.
                if count == 1 {
                    kept = if kept[0].0 == 3 { [(2, 0.0), kept[0]] } else { [kept[0], (kept[0].0 + 1, 0.0)] };
                } else if count == 0 {
                    kept = [(0, 0.0), (1, 0.0)];
                }
                let [(first, a), (second, b)] = kept;
                packed.values.extend([a, b]);
                let bits = u8::try_from(first | second << 2).expect("places are below four");
                let at = row * packed.row_bytes() + group / 2;
                packed.positions[at] |= bits << (group % 2 * 4);
            }
        }
        Ok(packed)
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

    /// Groups of one place of the window: `ceil(in / 4)`.
    pub fn channel_groups(&self) -> usize {
        self.extents.inputs().div_ceil(4)
    }

    /// Groups of one output channel: `taps * ceil(in / 4)`.
    pub fn row_groups(&self) -> usize {
        self.extents.taps() * self.channel_groups()
    }

    /// Bytes of the positions of one output channel.
    pub fn row_bytes(&self) -> usize {
        self.row_groups().div_ceil(2)
    }

    /// The places, four bits a group.
    pub fn positions(&self) -> &[u8] {
        &self.positions
    }

    /// The values, two a group.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The two places (0 to 3) of one group of one output channel.
    ///
    /// # Panics
    ///
    /// If there is no such group.
    pub fn places(&self, row: usize, group: usize) -> [usize; 2] {
        let byte = self.positions[row * self.row_bytes() + group / 2];
        let bits = usize::from(byte >> (group % 2 * 4));
        [bits & 3, bits >> 2 & 3]
    }

    /// Bytes of places and values.
    pub fn bytes(&self) -> usize {
        self.positions.len() + self.values.len() * 4
    }

    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        let (groups, inputs, taps) = (self.row_groups(), self.extents.inputs(), self.extents.taps());
        for group in 0..groups {
            let (tap, channel) = (group / self.channel_groups(), group % self.channel_groups() * 4);
            for (half, place) in self.places(row, group).into_iter().enumerate() {
                if channel + place < inputs {
                    out[(channel + place) * taps + tap] = self.values[(row * groups + group) * 2 + half];
                }
            }
        }
    }

    /// Each row times a factor. A factor that is not finite leaves zeros alone.
    pub(crate) fn scale_rows(mut self, factors: &[f32]) -> Self {
        let stored = self.row_groups() * 2;
        for (row, factor) in (0..self.rows()).zip(factors) {
            let values = &mut self.values[row * stored..][..stored];
            values.iter_mut().filter(|value| **value != 0.0).for_each(|value| *value *= factor);
        }
        self
    }
}
