//! Operations on each channel by itself, of NHWC tensors, whose work-items compute vectors of channels: depthwise
//! convolutions and pooling. All take as long as the memory they touch.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_model::Window;

use crate::device::{Arg, Device, DeviceKind, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{direct, geometry, support};
use crate::nvidia::PTX;
use crate::precision::Precision;

const VECTOR: &str = include_str!("vector.cl");
const DEPTHWISE: &str = include_str!("depthwise.cl");
const POOL: &str = include_str!("vector_pool.cl");

/// Work-items of a work-group, where the device has so many.
const ITEMS: usize = 256;

/// Pixels that a work-item of a depthwise convolution computes: of 1, 2, 4 and 8 the best on an H200, where enough
/// work-items remain.
const RUN: usize = 4;

/// Programs are compiled for a window and unroll it.
const MOST_TAPS: usize = 64;

/// `conv2d/*/dense/depthwise-channels/opencl`
pub(crate) struct Depthwise;

/// `max_pool/*/none/channel-vectors/opencl`
pub(crate) struct MaxPool;

/// `global_avg_pool/*/none/channel-vectors/opencl`
pub(crate) struct GlobalAvgPool;

/// Channels of a vector: 16 bytes of them, or as many as divide all channels.
fn vector(op: &OpSpec, precision: Precision) -> usize {
    let channels = op.output.channels;
    let widest = 16 / precision.bytes();
    [8, 4, 2].into_iter().find(|&width| width <= widest && channels.is_multiple_of(width)).unwrap_or(1)
}

fn small(window: Window) -> Support {
    let small = geometry::fits(window)
        && window
            .kernel
            .iter()
            .try_fold(1_usize, |taps, &extent| taps.checked_mul(extent))
            .is_some_and(|n| n <= MOST_TAPS)
        && window.kernel.iter().zip(window.dilation).all(|(&taps, dilation)| taps * dilation <= MOST_TAPS)
        && window.stride.iter().all(|&stride| stride <= 8);
    Support::when(small, "its window has more than 64 taps, or is spread or moved too far to be unrolled")
}

/// The definitions that programs name at their head.
fn options(stage: &Stage<'_>, window: Option<Window>) -> String {
    let op = stage.op;
    let mut options = support::epilogue_options(op.epilogue) + &support::extents(op);
    options += &support::definitions(&[("VECTOR", vector(op, stage.precision))]);
    if let Some(window) = window {
        options += &support::window(window);
        options += &support::definitions(&[("RUN", run(op))]);
    }
    options
}

/// Pixels of a line that a work-item computes.
fn run(op: &OpSpec) -> usize {
    op.output.width.min(RUN)
}

/// A launch of at least so many work-items, of whole work-groups.
fn launch(
    stage: &Stage<'_>,
    [program, kernel]: [&'static str; 2],
    source: &str,
    window: Option<Window>,
    args: &[Arg<'_>],
    items: usize,
) -> Result<Launch, OpenClError> {
    let source = format!("{PTX}\n{VECTOR}\n{source}");
    let program = stage.program(program, &source, &options(stage, window))?;
    let local = ITEMS.min(stage.device.info().max_work_group);
    Launch::new(&program, kernel, args, [items.next_multiple_of(local), 1, 1], Some([local, 1, 1]))
}

/// On a CPU a work-item is no thread of its own, and vectors of 16 bytes are narrow.
fn efficiency(device: &Device) -> f32 {
    match device.info().kind {
        DeviceKind::Gpu => 0.6,
        DeviceKind::Cpu => 0.05,
    }
}

impl DeviceKernel for Depthwise {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("conv2d", precision.name(), "dense", "depthwise-channels", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        let Operation::Conv2d(conv) = op.operation else { return support::another_operation() };
        support::floats(op)
            .and(|| support::dense(op))
            .and(|| support::channels_last(op))
            .and(|| Support::when(conv.is_depthwise(), "it convolves every channel on its own"))
            .and(|| small(conv.window))
    }

    fn efficiency(&self, _: &OpSpec, device: &Device) -> f32 {
        efficiency(device)
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let (op, operands) = (to.op, to.operands);
        let (window, _) = direct::window(op).expect("support has checked the operation");
        let dense = support::elements(weights);
        let taps = window.kernel[0] * window.kernel[1];
        let by_tap: Vec<f32> = (0..taps).flat_map(|tap| dense.iter().skip(tap).step_by(taps).copied()).collect();
        let (weight, bias) = (to.upload_real(&by_tap)?, to.upload_bias(weights.bias)?);
        let (x, y) = (&operands.inputs[0], &operands.output);
        let mut args = vec![Arg::Buffer(&x.buffer), Arg::int(x.offset), Arg::Buffer(&weight), Arg::Buffer(&bias)];
        if let Some(residual) = &operands.residual {
            args.extend([Arg::Buffer(&residual.buffer), Arg::int(residual.offset)]);
        }
        args.extend([Arg::Buffer(&y.buffer), Arg::int(y.offset)]);
        let out = op.output;
        let vectors = out.channels / vector(op, to.precision);
        let items = out.batch * out.height * out.width.div_ceil(run(op)) * vectors;
        let launch = launch(to, ["depthwise", "depthwise"], DEPTHWISE, Some(window), &args, items)?;
        Ok(Staged { launches: vec![launch], weight_bytes: weight.bytes() + bias.bytes() })
    }
}

/// A launch of a work-item for every vector of the output.
fn pool(stage: &Stage<'_>, kernel: &'static str, window: Option<Window>) -> Result<Staged, OpenClError> {
    let (x, y) = (&stage.operands.inputs[0], &stage.operands.output);
    let args = [Arg::Buffer(&x.buffer), Arg::int(x.offset), Arg::Buffer(&y.buffer), Arg::int(y.offset)];
    let items = stage.op.output.elements() / vector(stage.op, stage.precision);
    let launch = launch(stage, ["vector_pool", kernel], POOL, window, &args, items)?;
    Ok(Staged { launches: vec![launch], weight_bytes: 0 })
}

impl DeviceKernel for MaxPool {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("max_pool", precision.name(), "none", "channel-vectors", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        let Operation::MaxPool(pool) = op.operation else { return support::another_operation() };
        support::floats(op)
            .and(|| support::channels_last(op))
            .and(|| support::no_residual(op))
            .and(|| small(pool.window))
    }

    fn efficiency(&self, _: &OpSpec, device: &Device) -> f32 {
        efficiency(device)
    }

    fn stage(&self, to: &Stage<'_>, _: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let Operation::MaxPool(of) = to.op.operation else { unreachable!("support has checked it") };
        pool(to, "max_pool", Some(of.window))
    }
}

impl DeviceKernel for GlobalAvgPool {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("global_avg_pool", precision.name(), "none", "channel-vectors", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::GlobalAvgPool => {
                support::floats(op).and(|| support::channels_last(op)).and(|| support::no_residual(op))
            }
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, device: &Device) -> f32 {
        efficiency(device)
    }

    fn stage(&self, to: &Stage<'_>, _: OpWeights<'_>) -> Result<Staged, OpenClError> {
        pool(to, "global_avg_pool", None)
    }
}
