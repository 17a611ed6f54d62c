//! What a kernel takes of an operation besides its kind, as data.

use std::borrow::Cow;

use dlis_backend::{AlignedBytes, Kernel, Layout, OpSpec, OpWeights, PrepareError, Support};
use dlis_formats::{Format, Weight};
use half::slice::HalfFloatSliceExt as _;

use crate::support;

/// The format, layouts and epilogue that a kernel is written for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepts {
    /// Layouts of the activations; all tensors of one operation must be of the same one.
    pub(crate) layouts: &'static [Layout],
    /// Format of the weight.
    pub(crate) weight: Option<Format>,
    /// Whether it adds a residual.
    pub(crate) residual: bool,
    /// Whether it applies an activation.
    pub(crate) activation: bool,
}

impl Accepts {
    /// The strided layouts, no weight, no epilogue.
    pub(crate) const PLAIN: Self = Self { layouts: &Layout::STRIDED, weight: None, residual: false, activation: false };

    /// Every layout, no weight, no epilogue.
    pub(crate) const ANY_LAYOUT: Self = Self { layouts: &Layout::ALL, ..Self::PLAIN };

    /// Checks everything but the operation's kind.
    pub(crate) fn check(&self, op: &OpSpec) -> Support {
        Support::when(self.residual || !op.epilogue.residual, "it adds no residual")
            .and(|| {
                Support::when(self.activation || op.epilogue.activation.is_none(), "it applies no further activation")
            })
            .and(|| {
                if op.weight == self.weight {
                    return Support::Yes;
                }
                Support::No(match self.weight {
                    Some(Format::DenseF32) => "it executes dense f32 weights only".into(),
                    Some(format) => format!("it executes {format} weights only").into(),
                    None => "it has no weight".into(),
                })
            })
            .and(|| support::f32_tensors(op))
            .and(|| support::layouts(op, self.layouts))
            .and(|| Support::when(op.extents_agree(), "the extents of its tensors do not fit together"))
    }
}

/// What the names of kernels call a format of weights.
pub(crate) const fn format_name(format: Format) -> &'static str {
    match format {
        Format::DenseF32 => "dense",
        format => format.name(),
    }
}

/// The answer to an operation of another kind.
pub(crate) fn another_operation() -> Support {
    Support::No("it executes another operation".into())
}

/// What `prepare` answers where `support` would have said no.
pub(crate) fn unsupported(kernel: &dyn Kernel, op: &OpSpec, support: Support) -> PrepareError {
    let reason = match support {
        Support::No(reason) => reason.into_owned(),
        Support::Yes => "its scratch would be too large".to_owned(),
    };
    PrepareError::Unsupported { kernel: Box::new(kernel.id()), op: op.to_string(), reason }
}

/// The values of a dense f32 weight of these extents, in row-major order.
pub(crate) fn dense_f32<'a>(
    kernel: &dyn Kernel,
    weights: OpWeights<'a>,
    dims: &[usize],
) -> Result<Cow<'a, [f32]>, PrepareError> {
    match weights.weight {
        Some(Weight::F32(array)) if array.shape() == dims => Ok(match array.as_slice() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(array.iter().copied().collect()),
        }),
        _ => Err(wrong_weight(kernel, weights, Format::DenseF32, dims)),
    }
}

/// The weight, which must be of this format and these extents.
pub(crate) fn weight<'a>(
    kernel: &dyn Kernel,
    weights: OpWeights<'a>,
    format: Format,
    dims: &[usize],
) -> Result<&'a Weight, PrepareError> {
    weights
        .weight
        .filter(|weight| weight.format() == format && weight.dims() == dims)
        .ok_or_else(|| wrong_weight(kernel, weights, format, dims))
}

/// A weight of f16.
pub(crate) struct Halves<'a> {
    /// The bits of its values, in row-major order.
    pub(crate) bits: Cow<'a, [u16]>,
    /// What those of each output channel are multiplied by, where they are scaled.
    pub(crate) scales: Option<&'a [f32]>,
}

/// A weight of these extents in one of the formats of f16, `dense-f16` and `scaled-f16`.
pub(crate) fn halves<'a>(
    kernel: &dyn Kernel,
    weights: OpWeights<'a>,
    format: Format,
    dims: &[usize],
) -> Result<Halves<'a>, PrepareError> {
    match weight(kernel, weights, format, dims)? {
        Weight::F16(array) => {
            let bits = match array.as_slice() {
                Some(values) => Cow::Borrowed(values.reinterpret_cast()),
                None => Cow::Owned(array.iter().map(|value| value.to_bits()).collect()),
            };
            Ok(Halves { bits, scales: None })
        }
        Weight::ScaledF16(weight) => {
            Ok(Halves { bits: Cow::Borrowed(weight.values().reinterpret_cast()), scales: Some(weight.scales()) })
        }
        _ => Err(wrong_weight(kernel, weights, format, dims)),
    }
}

/// What `prepare` answers to a weight that is not of the format and extents that the operation declares.
pub(crate) fn wrong_weight(
    kernel: &dyn Kernel,
    weights: OpWeights<'_>,
    format: Format,
    dims: &[usize],
) -> PrepareError {
    let describe = |weight: &Weight| format!("{} {:?}", weight.format(), weight.dims());
    PrepareError::Weight {
        kernel: Box::new(kernel.id()),
        expected: format!("{format} {dims:?}"),
        found: weights.weight.map_or_else(|| "none".to_owned(), describe),
    }
}

/// The bias, of `channels` values, or of none where the operation has none.
pub(crate) fn bias(kernel: &dyn Kernel, weights: OpWeights<'_>, channels: usize) -> Result<AlignedBytes, PrepareError> {
    let bias = weights.bias.unwrap_or_default();
    if bias.len() != channels {
        return Err(PrepareError::Bias { kernel: Box::new(kernel.id()), expected: channels, found: bias.len() });
    }
    Ok(AlignedBytes::from_f32(bias))
}
