//! A u8 tensor in another layout: a transposition of channels and pixels, image by image.

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch,
    Support,
};
use dlis_hw::Hardware;

use super::accepts::Accepts;
use crate::accepts;
use crate::blocks::{BLOCK, for_each_block};

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
        // Its tensors differ in layout by nature; all else must be as for any other operation.
        let mut alike = op.clone();
        alike.inputs.iter_mut().for_each(|input| input.layout = op.output.layout);
        Accepts::PLAIN.check(&alike)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.2
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match self.support(op, hw) {
            Support::Yes => {
                let (channels, pixels) = (op.output.channels, op.output.pixels());
                let shape = match op.output.layout {
                    _ if accepts::common_layout(op).is_some() => None,
                    Layout::Nhwc => Some([pixels, channels]),
                    Layout::Nchw => Some([channels, pixels]),
                };
                Ok(Box::new(PreparedReorder { shape }))
            }
            no => Err(accepts::unsupported(self, op, no)),
        }
    }
}

#[derive(Debug)]
struct PreparedReorder {
    /// Rows and columns of an image of the output; `None` where both layouts are the same bytes.
    shape: Option<[usize; 2]>,
}

impl Prepared for PreparedReorder {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).u8();
        let output = io.output().u8();
        let Some([rows, columns]) = self.shape else {
            for_each_block(parallel, output, BLOCK, |elements, output| output.copy_from_slice(&input[elements]));
            return;
        };
        for (input, output) in input.chunks(rows * columns).zip(output.chunks_mut(rows * columns)) {
            for_each_block(parallel, output, TILE * columns, |elements, output| {
                let first = elements.start / columns;
                for left in (0..columns).step_by(TILE) {
                    let tile = left..columns.min(left + TILE);
                    for (row, output) in (first..).zip(output.chunks_mut(columns)) {
                        let from = input[tile.start * rows + row..].iter().step_by(rows);
                        output[tile.clone()].iter_mut().zip(from).for_each(|(to, &from)| *to = from);
                    }
                }
            });
        }
    }
}

pub(super) static KERNELS: &[&dyn Kernel] = &[&Reorder];
