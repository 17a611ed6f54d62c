//! Pooling by its definition.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_model::{Pool, Window};

use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::geometry::{self, OUTPUT_PLACE};
use crate::kernels::support;
use crate::precision::Precision;

const SOURCE: &str = include_str!("pool.cl");

/// `max_pool/*/none/direct/opencl`
pub(crate) struct MaxPool;

/// `avg_pool/*/none/direct/opencl`
pub(crate) struct AvgPool;

/// `global_avg_pool/*/none/direct/opencl`
pub(crate) struct GlobalAvgPool;

/// Whether it is a pooling of floats whose window programs can count.
pub(crate) fn supports(op: &OpSpec, window: Window) -> Support {
    support::floats(op)
        .and(|| support::no_residual(op))
        .and(|| Support::when(geometry::fits(window), "its window is larger than programs can count"))
}

fn stage(stage: &Stage<'_>, name: &'static str, pool: Pool) -> Result<Staged, OpenClError> {
    let op = stage.op;
    let source = format!("{}{OUTPUT_PLACE}{SOURCE}", geometry::definitions());
    let program = stage.program("pool", &source, &support::epilogue_options(op.epilogue))?;
    let extents = geometry::upload(stage.device, op, pool.window, 1)?;
    let (x, y) = (&stage.operands.inputs[0], &stage.operands.output);
    let mut args = vec![
        Arg::Buffer(&extents),
        Arg::Buffer(&x.buffer),
        Arg::int(x.offset),
        Arg::Buffer(&y.buffer),
        Arg::int(y.offset),
    ];
    if name == "avg_pool" {
        args.push(Arg::I32(i32::from(pool.include_padding)));
    }
    let launch = Launch::new(&program, name, &args, [op.output.elements(), 1, 1], None)?;
    Ok(Staged { launches: vec![launch], weight_bytes: 0 })
}

/// The whole image as a window.
pub(crate) fn global(op: &OpSpec) -> Pool {
    let kernel = [op.inputs[0].height, op.inputs[0].width];
    Pool { window: Window { kernel, ..Window::square(1) }, include_padding: false }
}

impl DeviceKernel for MaxPool {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("max_pool", precision.name(), "none", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::MaxPool(pool) => supports(op, pool.window),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.3
    }

    fn stage(&self, to: &Stage<'_>, _: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let Operation::MaxPool(pool) = to.op.operation else { unreachable!("support has checked it") };
        stage(to, "max_pool", pool)
    }
}

impl DeviceKernel for AvgPool {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("avg_pool", precision.name(), "none", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::AvgPool(pool) => supports(op, pool.window),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.3
    }

    fn stage(&self, to: &Stage<'_>, _: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let Operation::AvgPool(pool) = to.op.operation else { unreachable!("support has checked it") };
        stage(to, "avg_pool", pool)
    }
}

impl DeviceKernel for GlobalAvgPool {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("global_avg_pool", precision.name(), "none", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::GlobalAvgPool => supports(op, global(op).window),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.3
    }

    fn stage(&self, to: &Stage<'_>, _: OpWeights<'_>) -> Result<Staged, OpenClError> {
        stage(to, "avg_pool", global(to.op))
    }
}
