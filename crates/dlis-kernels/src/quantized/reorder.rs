//! A u8 tensor in another layout: a transposition of channels and pixels, image by image.

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch,
    Support,
};
use dlis_hw::Hardware;

use super::accepts::Accepts;
use crate::reorder::{Transposition, alike};
use crate::{accepts, support};

/// Rows and columns transposed together: a tile of either side fits the first-level cache many times over.
const TILE: usize = 64;

/// `reorder/u8/none/transpose/portable`.
#[derive(Debug)]
struct Reorder;

impl Kernel for Reorder {
    fn id(&self) -> KernelId {
        KernelId::new("reorder", "u8", "none", "transpose", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Reorder = op.operation else { return accepts::another_operation() };
        support::each_in(op, &Layout::STRIDED).and(|| Accepts::PLAIN.check(&alike(op)))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.2
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match self.support(op, hw) {
            Support::Yes => Ok(Box::new(PreparedReorder(Transposition::of(op, TILE)))),
            no => Err(accepts::unsupported(self, op, no)),
        }
    }
}

#[derive(Debug)]
struct PreparedReorder(Transposition);

impl Prepared for PreparedReorder {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        self.0.run(io.input(0).u8(), io.output().u8(), parallel);
    }
}

pub(super) static KERNELS: &[&dyn Kernel] = &[&Reorder];
