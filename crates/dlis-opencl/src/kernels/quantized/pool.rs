//! Pooling of u8 by its definition, over windows and over whole images.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_model::{Pool, Window};

use super::accepts;
use super::constants::{self, RESCALE, narrow};
use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::geometry::{self, OUTPUT_PLACE};
use crate::kernels::pool::global;
use crate::kernels::support;
use crate::precision::Precision;

const SOURCE: &str = include_str!("pool.cl");

/// `max_pool/u8/none/direct/opencl`: order is the same in bytes.
pub(crate) struct MaxPool;

/// `avg_pool/u8/none/direct/opencl`
pub(crate) struct AvgPool;

/// `global_avg_pool/u8/none/direct/opencl`
pub(crate) struct GlobalAvgPool;

fn supports(op: &OpSpec, window: Window) -> Support {
    accepts::bytes(op)
        .and(|| support::no_epilogue(op))
        .and(|| accepts::sum_fits(window.taps()))
        .and(|| Support::when(geometry::fits(window), "its window is larger than programs can count"))
}

fn stage(stage: &Stage<'_>, name: &'static str, pool: Pool, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
    let op = stage.op;
    let source = format!("{}{OUTPUT_PLACE}{RESCALE}{SOURCE}", geometry::definitions());
    let program = stage.program("pool_u8", &source, constants::ptx(stage))?;
    let extents = geometry::upload(stage.device, op, pool.window, 1)?;
    let (x, y) = (&stage.operands.inputs[0], &stage.operands.output);
    let mut args = vec![
        Arg::Buffer(&extents),
        Arg::Buffer(&x.buffer),
        Arg::int(x.offset),
        Arg::Buffer(&y.buffer),
        Arg::int(y.offset),
    ];
    let multipliers;
    if name == "avg_pool" {
        let (input, output, taps) = (constants::input(weights, 0), constants::output(weights), pool.window.taps());
        // A mean of nothing is 0, whatever it is multiplied with.
        let over = |count: usize| narrow(f64::from(input.scale()) / (count.max(1) as f64 * f64::from(output.scale())));
        multipliers = stage.device.upload(&(0..=taps).map(over).collect::<Vec<f32>>())?;
        args.extend([
            Arg::Buffer(&multipliers),
            Arg::int(if pool.include_padding { taps } else { 0 }),
            Arg::I32(i32::from(input.zero_point())),
            Arg::I32(i32::from(output.zero_point())),
        ]);
    }
    let launch = Launch::new(&program, name, &args, [op.output.elements(), 1, 1], None)?;
    Ok(Staged { launches: vec![launch], weight_bytes: 0 })
}

impl DeviceKernel for MaxPool {
    fn id(&self, _: Precision) -> KernelId {
        KernelId::new("max_pool", "u8", "none", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::MaxPool(pool) => supports(op, pool.window),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.2
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let Operation::MaxPool(pool) = to.op.operation else { unreachable!("support has checked it") };
        stage(to, "max_pool", pool, weights)
    }
}

impl DeviceKernel for AvgPool {
    fn id(&self, _: Precision) -> KernelId {
        KernelId::new("avg_pool", "u8", "none", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::AvgPool(pool) => supports(op, pool.window),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.2
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let Operation::AvgPool(pool) = to.op.operation else { unreachable!("support has checked it") };
        stage(to, "avg_pool", pool, weights)
    }
}

impl DeviceKernel for GlobalAvgPool {
    fn id(&self, _: Precision) -> KernelId {
        KernelId::new("global_avg_pool", "u8", "none", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::GlobalAvgPool => supports(op, global(op).window),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.2
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        stage(to, "avg_pool", global(to.op), weights)
    }
}
