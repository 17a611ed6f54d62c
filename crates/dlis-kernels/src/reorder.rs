//! A tensor in another layout: a transposition of channels and pixels, image by image.

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch,
    Support,
};
use dlis_hw::Hardware;

use crate::accepts::{self, Accepts};
use crate::blocks::{BLOCK, for_each_block};
use crate::support;

/// Rows and columns transposed together: one cache line of floats, so that every line that is read or
/// written is used up while it is in the first-level cache.
const TILE: usize = 16;

/// `reorder/f32/none/transpose/portable`.
#[derive(Debug)]
struct Reorder;

impl Kernel for Reorder {
    fn id(&self) -> KernelId {
        KernelId::new("reorder", "f32", "none", "transpose", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Reorder = op.operation else { return accepts::another_operation() };
        // Its tensors differ in layout by nature; all else must be as for any other operation.
        let mut alike = op.clone();
        alike.inputs.iter_mut().for_each(|input| input.layout = op.output.layout);
        support::f32_tensors(op).and(|| Accepts::PLAIN.check(&alike))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match self.support(op, hw) {
            Support::Yes => {
                let (channels, pixels) = (op.output.channels, op.output.pixels());
                let copy = accepts::common_layout(op).is_some();
                let [rows, columns] = match op.output.layout {
                    _ if copy => [0, 0],
                    Layout::Nhwc => [pixels, channels],
                    Layout::Nchw => [channels, pixels],
                };
                Ok(Box::new(PreparedReorder { copy, rows, columns }))
            }
            no => Err(accepts::unsupported(self, op, no)),
        }
    }
}

#[derive(Debug)]
struct PreparedReorder {
    /// Whether both layouts are the same bytes.
    copy: bool,
    /// Rows of the output, columns of the input.
    rows: usize,
    /// Columns of the output, rows of the input.
    columns: usize,
}

impl Prepared for PreparedReorder {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).f32();
        let output = io.output().f32();
        if self.copy {
            for_each_block(parallel, output, BLOCK, |elements, output| output.copy_from_slice(&input[elements]));
            return;
        }
        let (rows, columns) = (self.rows, self.columns);
        for (input, output) in input.chunks(rows * columns).zip(output.chunks_mut(rows * columns)) {
            for_each_block(parallel, output, TILE * columns, |elements, output| {
                let first = elements.start / columns;
                for left in (0..columns).step_by(TILE) {
                    let tile = left..columns.min(left + TILE);
                    for (row, output) in (first..).zip(output.chunks_mut(columns)) {
                        for column in tile.clone() {
                            output[column] = input[column * rows + row];
                        }
                    }
                }
            });
        }
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[&Reorder];

#[cfg(test)]
mod tests {
    use dlis_backend::{Epilogue, TensorSpec};

    use super::*;
    use crate::testing::{at, build, integers, run};

    #[test]
    fn elements_keep_their_places() {
        for from in Layout::ALL {
            for to in Layout::ALL {
                for extents in [[1, 1, 1], [7, 1, 1], [1, 5, 5], [3, 32, 32], [16, 4, 4], [33, 3, 17]] {
                    let input = TensorSpec::f32(2, extents, from);
                    let output = input.with_layout(to);
                    let (operation, epilogue) = (Operation::Reorder, Epilogue::NONE);
                    let op = OpSpec { operation, inputs: vec![input], output, epilogue, weight: None };
                    let data = integers(input.elements(), 1);
                    let expected = build(&output, |place| at(&input, &data, place));
                    let found = run(&Reorder, &op, OpWeights::default(), &[&data], None);
                    assert_eq!(found, expected, "{op} {from} {to}");
                }
            }
        }
    }
}
