//! What the quantised kernels take.

use dlis_backend::{Epilogue, OpSpec, Support};
use dlis_formats::{DType, Format};
use dlis_model::Activation;

use crate::kernels::support;

/// Whether inputs and output are u8.
pub(super) fn bytes(op: &OpSpec) -> Support {
    let all = op.inputs.iter().chain([&op.output]).all(|tensor| tensor.dtype == DType::U8);
    Support::when(all, "its tensors are u8")
}

/// Whether inputs are of the one type and the output of the other, in one layout, and nothing follows.
pub(super) fn converts(op: &OpSpec, from: DType, to: DType) -> Support {
    let types = op.dtype() == Some(from) && op.output.dtype == to;
    Support::when(types, "it converts between other element types")
        .and(|| support::one_layout(op))
        .and(|| support::no_epilogue(op))
}

/// Whether an activation that makes u8 follows, or none.
pub(super) fn activation(epilogue: Epilogue) -> Support {
    let sigmoid = epilogue.activation == Some(Activation::Sigmoid);
    Support::when(!sigmoid, "a sigmoid is not computed in u8")
}

/// Whether it is a convolution or linear layer of u8 inputs with weights of this format, of `terms` products a sum.
pub(super) fn weighted(op: &OpSpec, format: Format, terms: usize) -> Support {
    Support::when(op.dtype() == Some(DType::U8), "it computes on u8 activations only")
        .and(|| Support::when(op.weight == Some(format), "it executes another weight format"))
        .and(|| if op.output.dtype == DType::U8 { activation(op.epilogue) } else { Support::Yes })
        .and(|| sum_fits(terms))
}

/// Whether a sum of this many products of a byte and a weight fits 32 bits.
pub(super) fn sum_fits(terms: usize) -> Support {
    let fits = terms.checked_mul(255 * 127).is_some_and(|most| i32::try_from(most).is_ok());
    Support::when(fits, "its sums could exceed 32 bits")
}
