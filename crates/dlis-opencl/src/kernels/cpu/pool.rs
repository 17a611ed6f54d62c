//! Pooling by vectors of channels.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_model::Pool as Pooled;

use super::{pixels, processor};
use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{geometry, pool, support};
use crate::precision::Precision;

const SOURCE: &str = include_str!("pool.cl");

/// `*/*/none/vectors/opencl` of the three poolings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    Max,
    Average,
    GlobalAverage,
}

impl Pool {
    /// The window, if this is the operation.
    fn of(self, op: &OpSpec) -> Option<Pooled> {
        match (self, op.operation) {
            (Self::Max, Operation::MaxPool(pool)) | (Self::Average, Operation::AvgPool(pool)) => Some(pool),
            (Self::GlobalAverage, Operation::GlobalAvgPool) => Some(pool::global(op)),
            _ => None,
        }
    }
}

impl DeviceKernel for Pool {
    fn runs_on(&self, device: &Device) -> Support {
        processor(device)
    }

    fn id(&self, precision: Precision) -> KernelId {
        let op = match self {
            Self::Max => "max_pool",
            Self::Average => "avg_pool",
            Self::GlobalAverage => "global_avg_pool",
        };
        KernelId::new(op, precision.name(), "none", "vectors", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        let Some(pool) = self.of(op) else { return support::another_operation() };
        pool::supports(op, pool.window).and(|| support::channels_last(op))
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.5
    }

    fn stage(&self, to: &Stage<'_>, _: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let op = to.op;
        let pool = self.of(op).expect("support has checked the operation");
        let options = if *self == Self::Max { "-DVECTORS=1" } else { "-DVECTORS=1 -DAVERAGE" };
        let program = super::program(to, "pool", SOURCE, options)?;
        let geometry = geometry::upload(to.device, op, pool.window, 1)?;
        let (x, y) = (&to.operands.inputs[0], &to.operands.output);
        let args = [
            Arg::Buffer(&geometry),
            Arg::Buffer(&x.buffer),
            Arg::int(x.offset),
            Arg::Buffer(&y.buffer),
            Arg::int(y.offset),
            Arg::I32(i32::from(pool.include_padding)),
            Arg::I32(support::activation_number(op.epilogue)),
        ];
        let launch = Launch::new(&program, "pool", &args, [pixels(op), 1, 1], Some([1, 1, 1]))?;
        Ok(Staged { launches: vec![launch], weight_bytes: 0 })
    }
}
