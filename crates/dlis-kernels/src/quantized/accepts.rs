//! What the quantised kernels take, and the constants that they are prepared from.

use dlis_backend::{Kernel, Layout, OpSpec, OpWeights, PrepareError, Support};
use dlis_formats::{DType, Format, Quantization, Weight};
use dlis_model::Activation;

use crate::support;

/// The types, layouts and epilogue that a kernel is written for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepts {
    /// Types of the output, of which the inputs are u8.
    pub(super) outputs: &'static [DType],
    /// Layouts of the activations; all tensors of one operation must be of the same one.
    pub(super) layouts: &'static [Layout],
    /// Format of the weight.
    pub(super) weight: Option<Format>,
    /// Whether it adds a residual.
    pub(super) residual: bool,
    /// Whether it applies an activation.
    pub(super) activation: bool,
}

impl Accepts {
    /// u8 to u8 in the strided layouts, no weight, no epilogue.
    pub(super) const PLAIN: Self =
        Self { outputs: &[DType::U8], layouts: &Layout::STRIDED, weight: None, residual: false, activation: false };

    /// Of a convolution or linear layer with a weight of this format.
    pub(super) const fn weighted(format: Format) -> Self {
        Self {
            outputs: &[DType::U8, DType::F32],
            layouts: &[Layout::Nhwc],
            weight: Some(format),
            residual: true,
            activation: true,
        }
    }

    /// Checks everything but the operation's kind.
    pub(super) fn check(&self, op: &OpSpec) -> Support {
        let u8_inputs = op.dtype() == Some(DType::U8);
        let sigmoid = op.epilogue.activation == Some(Activation::Sigmoid) && op.output.dtype == DType::U8;
        Support::when(u8_inputs, "it computes on u8 activations only")
            .and(|| Support::when(self.outputs.contains(&op.output.dtype), "it does not make that element type"))
            .and(|| Support::when(op.weight == self.weight, "it executes another weight format"))
            .and(|| Support::when(self.residual || !op.epilogue.residual, "it adds no residual"))
            .and(|| {
                let none = op.epilogue.activation.is_none();
                Support::when(self.activation || none, "it applies no further activation")
            })
            .and(|| Support::when(!sigmoid, "a sigmoid is not computed in u8"))
            .and(|| support::layouts(op, self.layouts))
            .and(|| Support::when(op.extents_agree(), "the extents of its tensors do not fit together"))
    }
}

/// Whether a sum of this many products of a byte and a weight fits 32 bits.
pub(super) fn sum_fits(terms: usize) -> Support {
    let fits = terms.checked_mul(255 * 127).is_some_and(|most| i32::try_from(most).is_ok());
    Support::when(fits, "its sums could exceed 32 bits")
}

/// The quantisation of an input.
pub(super) fn input(kernel: &dyn Kernel, weights: OpWeights<'_>, index: usize) -> Result<Quantization, PrepareError> {
    weights.quantization.inputs.get(index).copied().ok_or_else(|| missing(kernel, "inputs"))
}

/// The quantisation of the output, which is u8.
pub(super) fn output(kernel: &dyn Kernel, weights: OpWeights<'_>) -> Result<Quantization, PrepareError> {
    weights.quantization.output.ok_or_else(|| missing(kernel, "output"))
}

/// That a u8 tensor has no quantisation.
pub(super) fn missing(kernel: &dyn Kernel, tensor: &'static str) -> PrepareError {
    let (expected, found) = ("one".to_owned(), "none".to_owned());
    PrepareError::Quantization { kernel: Box::new(kernel.id()), tensor, expected, found }
}

/// A weight in whole numbers.
#[derive(Debug)]
pub(super) struct Integers {
    /// One a byte, in row-major order.
    pub(super) values: Vec<i8>,
    /// One a row.
    pub(super) scales: Vec<f32>,
    /// What codes 1 and 2 stand for in each row of a ternary weight, which has no other values but 0.
    pub(super) codes: Vec<[i8; 2]>,
}

/// The integers of a weight of one of their formats, or the steps of a ternary one ([`dlis_formats::Ternary::steps`]).
pub(super) fn integers(
    kernel: &dyn Kernel,
    weights: OpWeights<'_>,
    format: Format,
    dims: &[usize],
) -> Result<Integers, PrepareError> {
    let fits = |weight: &&Weight| weight.format() == format && weight.dims() == dims;
    match weights.weight.filter(fits) {
        Some(Weight::Int8(weight)) => {
            Ok(Integers { values: weight.values().to_vec(), scales: weight.scales().to_vec(), codes: Vec::new() })
        }
        Some(Weight::Int4(weight)) => {
            let columns: usize = dims[1..].iter().product();
            let rows = weight.packed().chunks(columns.div_ceil(2).max(1));
            let values = rows.flat_map(|row| (0..columns).map(|column| nibble(row[column / 2], column % 2)));
            Ok(Integers { values: values.collect(), scales: weight.scales().to_vec(), codes: Vec::new() })
        }
        Some(Weight::Ternary(weight)) => {
            let (scales, codes): (Vec<f32>, Vec<[i8; 2]>) = (0..weight.rows()).map(|row| weight.steps(row)).unzip();
            let mut values = Vec::with_capacity(weight.rows() * weight.columns());
            for (row, &[one, two]) in codes.iter().enumerate() {
                let value = |column| [0, one, two][usize::from(weight.code(row, column))];
                values.extend((0..weight.columns()).map(value));
            }
            Ok(Integers { values, scales, codes })
        }
        _ => Err(PrepareError::Weight {
            kernel: Box::new(kernel.id()),
            expected: format!("{format} {dims:?}"),
            found: weights
                .weight
                .map_or_else(|| "none".to_owned(), |weight| format!("{} {:?}", weight.format(), weight.dims())),
        }),
    }
}

/// The low (0) or high (1) half of a byte, a number in two's complement.
pub(super) const fn nibble(byte: u8, which: usize) -> i8 {
    if which == 0 { (byte << 4).cast_signed() >> 4 } else { byte.cast_signed() >> 4 }
}
