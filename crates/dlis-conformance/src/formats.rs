//! A case's weight as each format holds it: made sparse, ternary or a multiple of a scale, as the format
//! asks for.

use std::cell::OnceCell;

use dlis_backend::Operation;
use dlis_formats::{Format, Int4, Int8, ScaledF16, Weight};
use half::f16;
use ndarray::{ArrayD, IxDyn};

use crate::case::Case;
use crate::reference::{Expected, reference};
use crate::tensor::Tensor;

/// Whether kernels of this format may leave a weight of zero out, and with it an infinity or a NaN that it meets.
pub(crate) fn leaves_zeros_out(format: Option<Format>) -> bool {
    format.is_some_and(|format| !format.keeps_zeros())
}

/// A number that looks random, of `index` alone.
fn hash(index: usize) -> u32 {
    let z = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from(z >> 32).unwrap_or(0)
}

/// Whether a row of (blocks of) weights is all zeros.
fn is_empty(row: usize) -> bool {
    row % 7 == 1
}

impl Case {
    /// Whether a weight of this case can be had in this format.
    pub(crate) fn has_format(&self, format: Format) -> bool {
        let Some(weight) = &self.weight else { return false };
        let lossless = matches!(self.op.operation, Operation::Conv2d(_) | Operation::Linear(_))
            && !matches!(format, Format::DenseF16 | Format::CsrF16)
            && weight.values().iter().all(|value| value.is_finite());
        lossless || self.dense().is_some_and(|dense| dense.convert(format).is_ok())
    }

    /// The weight as a kernel gets it. Dense formats hold it as it is, or rounded to f16 times a scale; of the others, each holds what it can of
    /// it: sparse formats a quarter of the elements, or of the blocks, and nothing of some rows; ternary ones the
    /// signs of those that are not small; integers the nearest multiples of their scale. `None` where there is no
    /// weight, or where it is neither of a convolution nor of a linear layer and the format would change it.
    pub fn weight_in(&self, format: Format) -> Option<Weight> {
        if !self.has_format(format) {
            return None;
        }
        let dense = self.dense()?;
        let Weight::F32(mut array) = dense else { return None };
        if !matches!(self.op.operation, Operation::Conv2d(_) | Operation::Linear(_)) {
            return Weight::F32(array).convert(format).ok();
        }
        let (rows, taps) = (array.shape()[0], array.shape()[2..].iter().product::<usize>().max(1));
        let columns = array.len() / rows;
        let mut keep = |kept: &dyn Fn(usize, usize) -> bool| {
            for (index, value) in array.iter_mut().enumerate() {
                let (row, column) = (index / columns, index % columns);
                if !kept(row, column) {
                    *value = 0.0;
                }
            }
        };
        match format {
            Format::DenseF32 | Format::DenseF16 => {}
            Format::CsrF32 | Format::CsrF16 | Format::FilterCsr => {
                keep(&|row, column| !is_empty(row) && hash(row * columns + column).is_multiple_of(4));
            }
            Format::Bsr1x4 | Format::Bsr4x1 | Format::Bsr8x1 | Format::Bsr16x1 => {
                let [height, width] = format.block()?;
                keep(&|row, column| {
                    let (row, column) = (row / height, column / width);
                    !is_empty(row) && hash(row * columns + column).is_multiple_of(4)
                });
            }
            Format::TwoFour => keep(&|row, column| {
                let (channel, tap) = (column / taps, column % taps);
                let group = hash((row * taps + tap) * columns + channel / 4);
                // One of the six pairs of four, or of the fours with one or none.
                [0b0011, 0b0101, 0b1001, 0b0110, 0b1010, 0b1100, 0b0001, 0b1000][group as usize % 8] >> (channel % 4)
                    & 1
                    == 1
            }),
            Format::Ternary2Bit | Format::Ternary5In8 => {
                for (index, value) in array.iter_mut().enumerate() {
                    let row = index / columns;
                    let sign = if *value > 0.25 {
                        1.0
                    } else if *value < -0.25 {
                        -0.5
                    } else {
                        0.0
                    };
                    *value = if is_empty(row) { 0.0 } else { sign * (1 + row % 5) as f32 / 4.0 };
                }
            }
            Format::ScaledF16 => {
                // One that makes a row of zeros, and one by which values are subnormal f16.
                let scales: Vec<f32> = (0..rows).map(|row| [0.3, -1.7, 1.0, 4096.0, 0.0][row % 5]).collect();
                let half = |(index, &value): (usize, &f32)| {
                    let scale = scales[index / columns];
                    f16::from_f32(if scale == 0.0 { value } else { value / scale })
                };
                let values = array.iter().enumerate().map(half).collect();
                return ScaledF16::new(array.shape().to_vec(), values, scales).ok().map(Weight::ScaledF16);
            }
            Format::Int8 => return Int8::quantize(&array, scales(rows, 64.0)).ok().map(Weight::Int8),
            Format::Int4 => return Int4::quantize(&array, scales(rows, 8.0)).ok().map(Weight::Int4),
        }
        Weight::F32(array).convert(format).ok()
    }

    /// The weight in dense f32.
    fn dense(&self) -> Option<Weight> {
        let weight = self.weight.as_ref()?;
        let dims = weight.dims();
        let rank = match self.op.operation {
            Operation::Conv2d(_) => 4,
            Operation::Linear(_) => 2,
            _ => 1,
        };
        ArrayD::from_shape_vec(IxDyn(&dims[..rank]), weight.values().to_vec()).ok().map(Weight::F32)
    }

    /// The same case with the weight that this format holds, for the reference; `None` as for
    /// [`weight_in`](Self::weight_in).
    pub fn in_format(&self, format: Format) -> Option<Self> {
        let weight = self.weight_in(format)?;
        let dims = self.weight.as_ref()?.dims();
        let values = weight.to_f32().iter().copied().collect();
        let mut case = self.clone();
        case.weight = Some(Tensor::new(dims, values));
        case.op.weight = Some(format);
        Some(case)
    }
}

/// A scale a row, each a power of two: 1 / `steps` and larger ones.
fn scales(rows: usize, steps: f32) -> Vec<f32> {
    (0..rows).map(|row| [1.0, 2.0, 4.0][row % 3] / steps).collect()
}

/// What the reference makes of a case in every format, computed where it is asked for.
#[derive(Debug)]
pub(crate) struct Expectations<'a> {
    case: &'a Case,
    plain: OnceCell<Expected>,
    formats: [OnceCell<Expected>; Format::ALL.len()],
}

impl<'a> Expectations<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        Self { case, plain: OnceCell::new(), formats: Default::default() }
    }

    /// The result with the weight that this format holds.
    pub(crate) fn of(&self, format: Option<Format>) -> &Expected {
        let place = format
            .filter(|format| !matches!(format, Format::DenseF32 | Format::DenseF16))
            .and_then(|format| Format::ALL.into_iter().position(|other| other == format).zip(Some(format)));
        match place {
            None => self.plain.get_or_init(|| reference(self.case)),
            Some((place, format)) => {
                self.formats[place].get_or_init(|| reference(self.case.in_format(format).as_ref().unwrap_or(self.case)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dlis_model::{Conv2d, Window};

    use super::*;

    #[test]
    fn every_format_holds_something_of_a_weight_but_not_all() {
        let window = Window::square(3).with_padding(1);
        let conv = Conv2d { in_channels: 17, out_channels: 40, groups: 1, window, bias: true };
        let case = Case::new("case", Operation::Conv2d(conv), &[[1, 17, 4, 4]]).unwrap();
        for format in Format::ALL {
            let weight = case.weight_in(format).unwrap();
            assert_eq!(weight.format(), format);
            let values = weight.to_f32();
            let zeros = values.iter().filter(|&&value| value == 0.0).count();
            let share = zeros as f64 / values.len() as f64;
            let expected = match format {
                Format::DenseF32 | Format::DenseF16 | Format::Int8 => 0.0..0.05,
                Format::ScaledF16 | Format::Int4 => 0.0..0.3,
                Format::TwoFour | Format::Ternary2Bit | Format::Ternary5In8 => 0.2..0.7,
                _ => 0.6..0.95,
            };
            assert!(expected.contains(&share), "{format}: {share} zeros");
            if leaves_zeros_out(Some(format)) && format != Format::TwoFour {
                let empty = values.outer_iter().any(|row| row.iter().all(|&value| value == 0.0));
                assert!(empty, "{format} has no row of zeros");
            }
        }
    }
}
