//! Convolutions and linear layers on u8 by their definition: slow, and for every shape. What other kernels decline is
//! theirs.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_formats::Format;
use dlis_model::Window;

use super::accepts;
use super::constants::{self, RESCALE, Weighted};
use crate::device::{Arg, Buffer, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::direct::window;
use crate::kernels::geometry::{self, OUTPUT_PLACE};
use crate::kernels::support;
use crate::precision::Precision;

const SOURCE: &str = include_str!("direct.cl");

/// `conv2d/u8/*/direct/opencl`, of a weight format.
pub(crate) struct Conv(pub(crate) Format);

/// `linear/u8/*/direct/opencl`, of a weight format.
pub(crate) struct Linear(pub(crate) Format);

/// Products of a sum.
pub(super) fn terms(op: &OpSpec, window: Window, groups: usize) -> usize {
    op.inputs[0].channels / groups * window.taps()
}

fn supports(op: &OpSpec, format: Format) -> Support {
    let Some((window, groups)) = window(op) else { return support::another_operation() };
    accepts::weighted(op, format, terms(op, window, groups))
        .and(|| Support::when(geometry::fits(window), "its window is larger than programs can count"))
}

/// The arguments of all kernels of layers with weights.
pub(super) fn args<'a>(
    stage: &'a Stage<'_>,
    extents: &'a Buffer,
    constants: &'a Weighted,
    weight: &'a Buffer,
) -> Vec<Arg<'a>> {
    let (x, y) = (&stage.operands.inputs[0], &stage.operands.output);
    let residual = stage.operands.residual.as_ref().unwrap_or(y);
    vec![
        Arg::Buffer(extents),
        Arg::Buffer(&constants.rounding),
        Arg::Buffer(&x.buffer),
        Arg::int(x.offset),
        Arg::Buffer(weight),
        Arg::Buffer(&constants.multipliers),
        Arg::Buffer(&constants.biases),
        Arg::Buffer(&residual.buffer),
        Arg::int(residual.offset),
        Arg::Buffer(&y.buffer),
        Arg::int(y.offset),
    ]
}

fn stage(stage: &Stage<'_>, weights: OpWeights<'_>, format: Format) -> Result<Staged, OpenClError> {
    let op = stage.op;
    let (window, groups) = window(op).expect("support has checked the operation");
    let source = format!("{}{OUTPUT_PLACE}{RESCALE}{SOURCE}", geometry::definitions());
    let options = constants::options(stage, format);
    let program = stage.program("direct_u8", &source, &options)?;
    let extents = geometry::upload(stage.device, op, window, groups)?;
    let (bytes, scales) = constants::stored(weights);
    let weight = stage.device.upload(&bytes)?;
    let constants = Weighted::upload(stage, weights, scales, op.output.channels, |channel| channel)?;
    let args = args(stage, &extents, &constants, &weight);
    let launch = Launch::new(&program, "conv2d", &args, [op.output.elements(), 1, 1], None)?;
    Ok(Staged { launches: vec![launch], weight_bytes: weight.bytes() + constants.bytes() })
}

impl DeviceKernel for Conv {
    fn id(&self, _: Precision) -> KernelId {
        KernelId::new("conv2d", "u8", self.0.name(), "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::Conv2d(_) => supports(op, self.0),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.002
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        stage(to, weights, self.0)
    }
}

impl DeviceKernel for Linear {
    fn id(&self, _: Precision) -> KernelId {
        KernelId::new("linear", "u8", self.0.name(), "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::Linear(_) => supports(op, self.0),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.002
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        stage(to, weights, self.0)
    }
}
