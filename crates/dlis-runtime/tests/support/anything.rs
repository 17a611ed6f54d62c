//! A backend that can plan whatever there is, and execute nothing.

use std::sync::Arc;

use dlis_backend::{
    HostBackend, Kernel, KernelId, OpSpec, OpWeights, Operation, PrepareError, Prepared, Schedule, Serial, Support,
};
use dlis_hw::Hardware;

#[derive(Debug)]
struct Anything(&'static str);

impl Kernel for Anything {
    fn id(&self) -> KernelId {
        KernelId::new(self.0, "any", "any", "imagined", "none")
    }

    fn support(&self, op: &OpSpec, _: &Hardware) -> Support {
        let layouts = op.inputs.iter().all(|input| input.layout == op.output.layout);
        let moves = op.operation == Operation::Reorder;
        Support::when(layouts != moves, "the layouts are not those of the operation")
            .and(|| Support::when(op.dtype().is_some(), "inputs of several types"))
    }

    fn efficiency(&self, _: &OpSpec) -> f32 {
        1.0
    }

    fn prepare(&self, op: &OpSpec, _: OpWeights<'_>, _: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let reason = "it is imagined".to_owned();
        Err(PrepareError::Unsupported { kernel: Box::new(self.id()), op: op.to_string(), reason })
    }
}

/// A kernel for every operation, in every type, format and layout.
const KERNELS: [&dyn Kernel; 14] = [
    &Anything("conv2d"),
    &Anything("linear"),
    &Anything("affine"),
    &Anything("activation"),
    &Anything("max_pool"),
    &Anything("avg_pool"),
    &Anything("global_avg_pool"),
    &Anything("add"),
    &Anything("concat"),
    &Anything("softmax"),
    &Anything("scale"),
    &Anything("reorder"),
    &Anything("quantize"),
    &Anything("dequantize"),
];

/// The backend, without the kernels of these operations.
pub(crate) fn without(operations: &[&str]) -> HostBackend {
    let kernels = KERNELS.into_iter().filter(|kernel| !operations.contains(&kernel.id().op()));
    let kernels: &'static [&'static dyn Kernel] = kernels.collect::<Vec<_>>().leak();
    HostBackend::new("imagined", kernels, Arc::new(Serial), Schedule::Static)
}
