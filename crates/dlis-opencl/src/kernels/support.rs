//! What kernels take of an operation besides its kind, and what they share when they are staged.

use dlis_backend::{Epilogue, Layout, OpSpec, OpWeights, Support};
use dlis_formats::{DType, Format};
use dlis_model::{Activation, Window};

use crate::device::{Arg, Buffer, Device};
use crate::error::OpenClError;
use crate::kernel::Stage;
use crate::precision::Precision;

/// The answer to an operation of another kind.
pub(crate) fn another_operation() -> Support {
    Support::No("it executes another operation".into())
}

/// Whether all tensors are floats.
pub(crate) fn floats(op: &OpSpec) -> Support {
    let all = op.inputs.iter().chain([&op.output]).all(|tensor| tensor.dtype == DType::F32);
    Support::when(all, "its tensors are floats")
}

/// Whether the weight is stored densely, as f32 or f16.
pub(crate) fn dense(op: &OpSpec) -> Support {
    let dense = matches!(op.weight, Some(Format::DenseF32 | Format::DenseF16));
    Support::when(dense, "it executes dense weights only")
}

/// Whether the weight is dense, or of a format that is unpacked when it is staged: where arithmetic is so fast that
/// small batches wait for latencies, and large ones for activations, fewer bytes of weights would save no time. Devices
/// that emulate the kernel take dense weights only, as the others tell nothing new there.
pub(crate) fn unpacked(op: &OpSpec, device: &Device) -> Support {
    if device.info().has_tensor_cores() { Support::Yes } else { dense(op) }
}

/// Whether the weight is stored in this format.
pub(crate) fn format(op: &OpSpec, format: Format) -> Support {
    match op.weight {
        Some(found) if found == format => Support::Yes,
        _ => Support::No(format!("it executes {format} weights only").into()),
    }
}

/// Whether nothing but an activation follows.
pub(crate) fn no_residual(op: &OpSpec) -> Support {
    Support::when(!op.epilogue.residual, "it adds no residual")
}

/// Whether nothing follows.
pub(crate) fn no_epilogue(op: &OpSpec) -> Support {
    Support::when(op.epilogue == Epilogue::NONE, "it applies nothing to its result")
}

/// Whether all tensors are of one layout.
pub(crate) fn one_layout(op: &OpSpec) -> Support {
    Support::when(op.common_layout().is_some(), "its tensors must be of one layout")
}

/// Whether the channels of a pixel are neighbours in all tensors.
pub(crate) fn channels_last(op: &OpSpec) -> Support {
    Support::when(op.common_layout() == Some(Layout::Nhwc), "it executes NHWC tensors only")
}

/// The number of the activation that follows an operation, as in `common.cl`.
pub(crate) fn activation_number(epilogue: Epilogue) -> i32 {
    match epilogue.activation {
        None => 0,
        Some(Activation::Relu) => 1,
        Some(Activation::Relu6) => 2,
        Some(Activation::Sigmoid) => 3,
    }
}

/// The compiler's options for what follows an operation.
pub(crate) fn epilogue_options(epilogue: Epilogue) -> String {
    let residual = if epilogue.residual { " -DRESIDUAL" } else { "" };
    format!("-DACTIVATION={}{residual}", activation_number(epilogue))
}

/// The compiler's options that define these names.
pub(crate) fn definitions(values: &[(&str, usize)]) -> String {
    values.iter().map(|(name, value)| format!(" -D{name}={value}")).collect()
}

/// Work-items of a group where a kernel does not say: fewer kinds of groups are fewer compilations.
const GROUP: usize = 64;

/// The work of `count` work-items in a row and more in other dimensions, in groups of [`GROUP`]: those behind the last
/// are for the kernel to send home.
pub(crate) fn in_groups([count, second, third]: [usize; 3]) -> ([usize; 3], Option<[usize; 3]>) {
    ([count.next_multiple_of(GROUP), second, third], Some([GROUP, 1, 1]))
}

/// What follows an operation, as `epilogue.cl` takes it.
pub(crate) fn epilogue(epilogue: Epilogue) -> Arg<'static> {
    Arg::I32(activation_number(epilogue) + if epilogue.residual { 4 } else { 0 })
}

/// The elements of an operation's weight in row-major order, whatever its format; none where it has no weight.
pub(crate) fn elements(weights: OpWeights<'_>) -> Vec<f32> {
    weights.weight.map(|weight| weight.to_f32().iter().copied().collect()).unwrap_or_default()
}

/// The compiler's options that define the extents of input and output, for programs that are compiled for one shape.
pub(crate) fn extents(op: &OpSpec) -> String {
    let (x, y) = (op.inputs[0], op.output);
    definitions(&[
        ("BATCH", x.batch),
        ("HEIGHT", x.height),
        ("WIDTH", x.width),
        ("CHANNELS", x.channels),
        ("OUT_HEIGHT", y.height),
        ("OUT_WIDTH", y.width),
    ])
}

/// The compiler's options that define a window, likewise.
pub(crate) fn window(window: Window) -> String {
    let Window { kernel, stride, padding, dilation } = window;
    definitions(&[
        ("KERNEL_H", kernel[0]),
        ("KERNEL_W", kernel[1]),
        ("STRIDE_H", stride[0]),
        ("STRIDE_W", stride[1]),
        ("DILATION_H", dilation[0]),
        ("DILATION_W", dilation[1]),
        ("PAD_TOP", padding[0]),
        ("PAD_LEFT", padding[1]),
    ])
}

impl Stage<'_> {
    /// Values as the precision stores them.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device has not the memory.
    pub fn upload_real(&self, values: &[f32]) -> Result<Buffer, OpenClError> {
        match self.precision {
            Precision::F32 | Precision::Tf32 => self.device.upload(values),
            Precision::F16 => {
                let halves: Vec<half::f16> = values.iter().map(|&value| half::f16::from_f32(value)).collect();
                self.device.upload(&halves)
            }
        }
    }

    /// One f32 a channel of the output: the bias, zeros where there is none.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device has not the memory.
    pub fn upload_bias(&self, bias: Option<&[f32]>) -> Result<Buffer, OpenClError> {
        match bias {
            Some(bias) => self.device.upload(bias),
            None => self.device.upload(&vec![0.0_f32; self.op.output.channels]),
        }
    }
}
