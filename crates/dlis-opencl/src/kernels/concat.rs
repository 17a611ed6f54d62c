//! Concatenation along the channels: a launch an input.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};

use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::support;
use crate::precision::Precision;

/// `channels` of an input's images become the output's from `first` on; `inner` elements of a channel are neighbours
/// in NCHW, one in NHWC.
const SOURCE: &str = "
__kernel void part(__global const bits *x, int x_at, __global bits *y, int y_at, int run, int y_run, int first) {
  int i = get_global_id(0);
  y[y_at + i / run * y_run + first + i % run] = x[x_at + i];
}
";

/// `concat/*/none/direct/opencl`
pub(crate) struct Concat;

impl DeviceKernel for Concat {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("concat", precision.name(), "none", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::Concat => support::floats(op).and(|| support::one_layout(op)).and(|| support::no_epilogue(op)),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.5
    }

    fn stage(&self, to: &Stage<'_>, _: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let program = to.program("concat", SOURCE, "")?;
        let y = &to.operands.output;
        // A run of neighbours: the channels of a pixel, or all pixels of an image's channels.
        let inner = match to.op.common_layout() {
            Some(dlis_backend::Layout::Nchw) => to.op.output.pixels(),
            _ => 1,
        };
        let mut first = 0;
        let mut launches = Vec::with_capacity(to.op.inputs.len());
        for (spec, x) in to.op.inputs.iter().zip(&to.operands.inputs) {
            let run = spec.channels * inner;
            let args = [
                Arg::Buffer(&x.buffer),
                Arg::int(x.offset),
                Arg::Buffer(&y.buffer),
                Arg::int(y.offset),
                Arg::int(run),
                Arg::int(to.op.output.channels * inner),
                Arg::int(first),
            ];
            launches.push(Launch::new(&program, "part", &args, [spec.elements(), 1, 1], None)?);
            first += run;
        }
        Ok(Staged { launches, weight_bytes: 0 })
    }
}
