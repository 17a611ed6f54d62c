//! Conditions that several kernels put on an operation.

use dlis_backend::{Layout, OpSpec, Support, TensorSpec};
use dlis_formats::DType;

/// All tensors are f32.
pub(crate) fn f32_tensors(op: &OpSpec) -> Support {
    let all = op.inputs.iter().chain([&op.output]).all(|tensor| tensor.dtype == DType::F32);
    Support::when(all, "it computes on f32 activations only")
}

/// Every tensor is in one of these layouts, each in its own.
pub(crate) fn each_in(op: &OpSpec, layouts: &[Layout]) -> Support {
    let one_of = |tensor: &TensorSpec| layouts.iter().any(|&layout| tensor.is_in(layout));
    Support::when(op.inputs.iter().chain([&op.output]).all(one_of), "its tensors are of a layout that it does not have")
}

/// All tensors are in one of these layouts, all in the same.
pub(crate) fn layouts(op: &OpSpec, layouts: &[Layout]) -> Support {
    let is_in = |&layout: &Layout| op.inputs.iter().chain([&op.output]).all(|tensor| tensor.is_in(layout));
    if layouts.iter().any(is_in) {
        return Support::Yes;
    }
    Support::No(match layouts {
        [Layout::Nchw] => "it computes on nchw activations only".into(),
        [Layout::Nhwc] => "it computes on nhwc activations only".into(),
        [Layout::Nhwc16n] => "it computes on nhwc16n activations only".into(),
        _ if op.common_layout().is_none() => "its tensors must be of one layout".into(),
        _ => format!(
            "it computes on {} activations only",
            layouts.iter().map(|layout| layout.name()).collect::<Vec<_>>().join(" or ")
        )
        .into(),
    })
}
