//! Softmax over the channels: a work-item a pixel.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};

use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::support;
use crate::precision::Precision;

/// The largest element is subtracted first, so that no exponential overflows.
const SOURCE: &str = "
__kernel void softmax(__global const real *x, int x_at, __global real *y, int y_at, int channels, int step,
                      int pixels, int image) {
  int i = get_global_id(0), at = i / pixels * image + i % pixels * (step == 1 ? channels : 1);
  x += x_at + at, y += y_at + at;
  float most = -INFINITY;
  for (int c = 0; c < channels; c++) {
    float value = LOAD(x, c * step);
    most = value > most || value != value ? value : most;
  }
  float sum = 0;
  for (int c = 0; c < channels; c++) sum += exp(LOAD(x, c * step) - most);
  for (int c = 0; c < channels; c++) STORE(exp(LOAD(x, c * step) - most) / sum, y, c * step);
}
";

/// `softmax/*/none/direct/opencl`
pub(crate) struct Softmax;

impl DeviceKernel for Softmax {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("softmax", precision.name(), "none", "direct", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::Softmax => support::floats(op).and(|| support::one_layout(op)).and(|| support::no_epilogue(op)),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.3
    }

    fn stage(&self, to: &Stage<'_>, _: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let program = to.program("softmax", SOURCE, "")?;
        let spec = to.op.output;
        let (x, y) = (&to.operands.inputs[0], &to.operands.output);
        // One channel has neighbouring pixels in either layout.
        let step = match to.op.common_layout() {
            Some(dlis_backend::Layout::Nchw) => spec.pixels(),
            _ => 1,
        };
        let args = [
            Arg::Buffer(&x.buffer),
            Arg::int(x.offset),
            Arg::Buffer(&y.buffer),
            Arg::int(y.offset),
            Arg::int(spec.channels),
            Arg::int(step),
            Arg::int(spec.pixels()),
            Arg::int(spec.one_image().elements()),
        ];
        let launch = Launch::new(&program, "softmax", &args, [spec.batch * spec.pixels(), 1, 1], None)?;
        Ok(Staged { launches: vec![launch], weight_bytes: 0 })
    }
}
