//! Convolution on u8 of every channel on its own, channels last: a vector of channels a work-item.

use dlis_backend::{KernelId, Layout, OpSpec, OpWeights, Operation, Support};
use dlis_formats::Format;

use super::accepts;
use super::constants::{self, RESCALE, Weighted};
use super::direct::args;
use crate::device::{Device, DeviceKind, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{geometry, support};
use crate::precision::Precision;

const SOURCE: &str = include_str!("depthwise.cl");

/// `conv2d/u8/int8/depthwise/opencl`
pub(crate) struct Depthwise;

/// Channels and pixels of a work-item: as many as a processor loads weights and constants for, or as few as keep a
/// graphics processor's threads many.
fn tile(device: &Device) -> [usize; 2] {
    match device.info().kind {
        DeviceKind::Cpu => [16, 4],
        DeviceKind::Gpu => [4, 1],
    }
}

impl DeviceKernel for Depthwise {
    fn id(&self, _: Precision) -> KernelId {
        KernelId::new("conv2d", "u8", "int8", "depthwise", "opencl")
    }

    fn support(&self, op: &OpSpec, device: &Device, _: Precision) -> Support {
        let Operation::Conv2d(conv) = op.operation else { return support::another_operation() };
        let nhwc = op.common_layout() == Some(Layout::Nhwc);
        Support::when(conv.is_depthwise(), "it convolves every channel on its own")
            .and(|| accepts::weighted(op, Format::Int8, conv.window.taps()))
            .and(|| Support::when(nhwc, "it computes on nhwc activations only"))
            .and(|| Support::when(op.output.channels >= tile(device)[0], "it has channels for no vector"))
            .and(|| Support::when(geometry::fits(conv.window), "its window is larger than programs can count"))
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.3
    }

    fn stage(&self, stage: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let (op, device) = (stage.op, stage.device);
        let Operation::Conv2d(conv) = op.operation else { unreachable!("support has checked it") };
        let source = format!("{}{RESCALE}{SOURCE}", geometry::definitions());
        let [lanes, pixels] = tile(device);
        let options = format!("{} -DLANES={lanes} -DPIXELS={pixels}", constants::options(stage, Format::Int8));
        let program = stage.program("depthwise_u8", &source, &options)?;
        let extents = geometry::upload(device, op, conv.window, conv.groups)?;
        let (values, scales) = constants::integers(weights);
        let (channels, taps) = (conv.out_channels, conv.window.taps());
        let packed: Vec<i8> = (0..taps).flat_map(|tap| values.iter().skip(tap).step_by(taps).copied()).collect();
        let weight = device.upload(&packed)?;
        let constants = Weighted::upload(stage, weights, scales, channels, |channel| channel)?;
        let args = args(stage, &extents, &constants, &weight);
        let runs = op.output.batch * op.output.height * op.output.width.div_ceil(pixels);
        let launch = Launch::new(&program, "depthwise", &args, [runs * channels.div_ceil(lanes), 1, 1], None)?;
        Ok(Staged { launches: vec![launch], weight_bytes: weight.bytes() + constants.bytes() })
    }
}
