//! Conditions that several kernels put on an operation.

use dlis_backend::{Layout, OpSpec, Support};
use dlis_formats::DType;

/// All tensors are f32.
pub(crate) fn f32_tensors(op: &OpSpec) -> Support {
    let all = op.inputs.iter().chain([&op.output]).all(|tensor| tensor.dtype == DType::F32);
    Support::when(all, "it computes on f32 activations only")
}

/// All tensors are in this layout, or have none to speak of.
pub(crate) fn layout(op: &OpSpec, layout: Layout) -> Support {
    let fits = op.inputs.iter().chain([&op.output]).all(|tensor| tensor.layout == layout || tensor.is_layout_free());
    let otherwise = match layout {
        Layout::Nchw => "it computes on nchw activations only",
        Layout::Nhwc => "it computes on nhwc activations only",
    };
    Support::when(fits, otherwise)
}
