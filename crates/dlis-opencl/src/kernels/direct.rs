//! Convolutions and linear layers by their definition: slow, exact, and for every shape. What other kernels decline
//! is theirs.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_model::Window;

use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::geometry::{self, OUTPUT_PLACE};
use crate::kernels::support;
use crate::precision::Precision;

const SOURCE: &str = include_str!("direct.cl");

/// `conv2d/*/dense/direct/opencl`
pub(crate) struct Conv;

/// `linear/*/dense/direct/opencl`
pub(crate) struct Linear;

/// The window and the groups of a convolution, or of a linear layer, which is one of a single tap.
pub(crate) fn window(op: &OpSpec) -> Option<(Window, usize)> {
    match op.operation {
        Operation::Conv2d(conv) => Some((conv.window, conv.groups)),
        Operation::Linear(_) => Some((Window::square(1), 1)),
        _ => None,
    }
}

fn supports(op: &OpSpec) -> Support {
    let fits = window(op).is_some_and(|(window, _)| geometry::fits(window));
    support::floats(op)
        .and(|| support::dense(op))
        .and(|| Support::when(fits, "its window is larger than programs can count"))
}

fn stage(stage: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
    let op = stage.op;
    let (window, groups) = window(op).expect("support has checked the operation");
    let source = format!("{}{OUTPUT_PLACE}{SOURCE}", geometry::definitions());
    let program = stage.program("direct", &source, &support::epilogue_options(op.epilogue))?;
    let extents = geometry::upload(stage.device, op, window, groups)?;
    let dense = support::elements(weights);
    let (weight, bias) = (stage.upload_real(&dense)?, stage.upload_bias(weights.bias)?);
    let weight_bytes = weight.bytes() + bias.bytes();
    let operands = stage.operands;
    let (x, y) = (&operands.inputs[0], &operands.output);
    let residual = operands.residual.as_ref().unwrap_or(y);
    let args = [
        Arg::Buffer(&extents),
        Arg::Buffer(&x.buffer),
        Arg::int(x.offset),
        Arg::Buffer(&weight),
        Arg::Buffer(&bias),
        Arg::Buffer(&residual.buffer),
        Arg::int(residual.offset),
        Arg::Buffer(&y.buffer),
        Arg::int(y.offset),
    ];
    let launch = Launch::new(&program, "conv2d", &args, [op.output.elements(), 1, 1], None)?;
    Ok(Staged { launches: vec![launch], weight_bytes })
}

impl DeviceKernel for Conv {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("conv2d", precision.name(), "dense", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::Conv2d(_) => supports(op),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.02
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        stage(to, weights)
    }
}

impl DeviceKernel for Linear {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("linear", precision.name(), "dense", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::Linear(_) => supports(op),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.02
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        stage(to, weights)
    }
}
