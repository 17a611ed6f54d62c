//! The sparse convolution of Turner et al. 2018, with a sparse matrix for each pair of channels: to compare with, not
//! to use. A header's worth of indices is read for nine elements or fewer, and again for every pixel.

use dlis_backend::{KernelId, OpSpec, OpWeights, Support};
use dlis_formats::{Format, Weight};

use crate::device::{Arg, Buffer, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{direct, geometry, support};
use crate::precision::Precision;

const SOURCE: &str = concat!(include_str!("../epilogue.cl"), include_str!("paper.cl"));

/// `{conv2d,linear}/*/filter-csr/paper/opencl`: of the operation that it names.
pub(crate) struct Paper(pub(crate) &'static str);

impl DeviceKernel for Paper {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new(self.0, precision.name(), Format::FilterCsr.name(), "paper", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        if op.operation.name() != self.0 {
            return support::another_operation();
        }
        let fits = direct::window(op).is_some_and(|(window, _)| geometry::fits(window));
        support::floats(op)
            .and(|| support::format(op, Format::FilterCsr))
            .and(|| Support::when(fits, "its window is larger than programs can count"))
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.01
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let op = to.op;
        let (window, groups) = direct::window(op).expect("support has checked the operation");
        let Some(Weight::FilterCsr(sparse)) = weights.weight else {
            unreachable!("the weight is of the format that it is declared to be of")
        };
        let source = format!("{}{SOURCE}", geometry::definitions());
        let program = to.program("paper", &source, "")?;
        let extents = geometry::upload(to.device, op, window, groups)?;
        let mut entries = 0;
        let firsts: Vec<u32> = (0..sparse.filters())
            .map(|filter| {
                let first = entries;
                entries += sparse.filter(filter).row_starts.last().copied().unwrap_or(0);
                first
            })
            .collect();
        let device = to.device;
        let parts = [
            device.upload(&firsts)?,
            device.upload(sparse.row_starts())?,
            device.upload(sparse.column_indices())?,
            device.upload(sparse.values())?,
            to.upload_bias(weights.bias)?,
        ];
        let operands = to.operands;
        let (x, y) = (&operands.inputs[0], &operands.output);
        let residual = operands.residual.as_ref().unwrap_or(y);
        let mut args = vec![Arg::Buffer(&extents), Arg::Buffer(&x.buffer), Arg::int(x.offset)];
        args.extend(parts.iter().map(Arg::Buffer));
        args.extend([
            Arg::Buffer(&residual.buffer),
            Arg::int(residual.offset),
            Arg::Buffer(&y.buffer),
            Arg::int(y.offset),
            support::epilogue(op.epilogue),
            Arg::int(op.output.elements()),
        ]);
        let (global, local) = support::in_groups([op.output.elements(), 1, 1]);
        let launch = Launch::new(&program, self.0, &args, global, local)?;
        Ok(Staged { launches: vec![launch], weight_bytes: parts.iter().map(Buffer::bytes).sum() })
    }
}
