//! A tensor in another layout: a transposition of channels and pixels, image by image, or of a group of images and
//! what they consist of.

mod lanes;
mod square;

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch,
    Support,
};
use dlis_hw::Hardware;
use lanes::Lanes;
use square::{Element, SQUARE};

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
        let extents = || Support::when(op.extents_agree(), "the extents of its tensors do not fit together");
        support::f32_tensors(op).and(extents).and(|| Accepts::ANY_LAYOUT.check(&alike(op)))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match self.support(op, hw) {
            Support::Yes => Ok(Box::new(match lanes(op) {
                Some(lanes) => PreparedReorder::Lanes(lanes),
                None => PreparedReorder::Images(Transposition::of(op, TILE)),
            })),
            no => Err(accepts::unsupported(self, op, no)),
        }
    }
}

/// Between which layouts a tensor moves.
#[derive(Debug)]
enum PreparedReorder {
    /// Two in which images keep to themselves, or two that are the same bytes.
    Images(Transposition),
    /// From or to that of images as lanes.
    Lanes(Lanes),
}

/// How images become lanes or cease to be, if they do.
fn lanes(op: &OpSpec) -> Option<Lanes> {
    op.common_layout().map_or_else(|| Lanes::of(&op.inputs[0], &op.output), |_| None)
}

impl Prepared for PreparedReorder {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).f32();
        match self {
            Self::Images(images) => images.run(input, io.output().f32(), parallel),
            Self::Lanes(lanes) => lanes.run(input, io.output().f32(), parallel),
        }
    }
}

/// The operation as one of tensors in one layout: a reorder's differ in it by nature, and all else must be as for
/// any other operation.
pub(crate) fn alike(op: &OpSpec) -> OpSpec {
    let mut alike = op.clone();
    alike.inputs.iter_mut().for_each(|input| input.layout = op.output.layout);
    alike
}

/// How elements move from one strided layout to the other.
#[derive(Debug)]
pub(crate) struct Transposition {
    /// Rows and columns of an image of the output; `None` where both layouts are the same bytes.
    shape: Option<[usize; 2]>,
    /// Rows and columns transposed together.
    tile: usize,
}

impl Transposition {
    pub(crate) fn of(op: &OpSpec, tile: usize) -> Self {
        let (channels, pixels) = (op.output.channels, op.output.pixels());
        let shape = match op.output.layout {
            _ if op.common_layout().is_some() => None,
            Layout::Nhwc => Some([pixels, channels]),
            Layout::Nchw => Some([channels, pixels]),
            Layout::Nhwc16n => unreachable!("support, or whoever asked for it, has ruled lanes out"),
        };
        Self { shape, tile }
    }

    pub(crate) fn run<T: Element>(&self, input: &[T], output: &mut [T], parallel: Parallel<'_>) {
        let Some([rows, columns]) = self.shape else {
            for_each_block(parallel, output, BLOCK, |elements, output| output.copy_from_slice(&input[elements]));
            return;
        };
        // Of few columns there is nothing to turn in squares.
        let together = if columns < SQUARE { BLOCK / columns } else { self.tile };
        for (input, output) in input.chunks(rows * columns).zip(output.chunks_mut(rows * columns)) {
            for_each_block(parallel, output, together * columns, |elements, output| {
                let first = elements.start / columns;
                match columns {
                    2 => return interleave::<T, 2>(input, rows, first, output),
                    3 => return interleave::<T, 3>(input, rows, first, output),
                    _ => {}
                }
                for left in (0..columns).step_by(self.tile) {
                    let tile = left..columns.min(left + self.tile);
                    let mut row = first;
                    for output in output.chunks_mut(SQUARE * columns) {
                        transpose_lines(&input[row..], rows, output, columns, tile.clone());
                        row += SQUARE;
                    }
                }
            });
        }
    }
}

/// Makes rows of the output, from `first` on, of columns that lie `rows` elements apart: so few that their places are
/// constants.
fn interleave<T: Copy, const COLUMNS: usize>(input: &[T], rows: usize, first: usize, output: &mut [T]) {
    let (lines, _) = output.as_chunks_mut::<COLUMNS>();
    let mut columns = [&input[..0]; COLUMNS];
    for (index, column) in columns.iter_mut().enumerate() {
        *column = &input[index * rows + first..][..lines.len()];
    }
    for (row, line) in lines.iter_mut().enumerate() {
        for (to, column) in line.iter_mut().zip(&columns) {
            *to = column[row];
        }
    }
}

/// Fills these columns of a few rows of the output. Rows of the input lie `rows` elements apart.
#[inline(always)]
fn transpose_lines<T: Element>(
    input: &[T],
    rows: usize,
    output: &mut [T],
    columns: usize,
    tile: std::ops::Range<usize>,
) {
    let mut column = tile.start;
    if output.len() == SQUARE * columns {
        // Squares, which have a way of their own.
        while column + SQUARE <= tile.end {
            let Some(from) = square(input, column, rows) else { break };
            for (line, turned) in T::columns(from).into_iter().enumerate() {
                output[line * columns + column..][..SQUARE].copy_from_slice(&turned);
            }
            column += SQUARE;
        }
    }
    for (line, output) in output.chunks_mut(columns).enumerate() {
        for column in column..tile.end {
            output[column] = input[column * rows + line];
        }
    }
}

/// The elements that a square of the output is made of.
#[inline(always)]
fn square<T: Copy>(input: &[T], column: usize, rows: usize) -> Option<[[T; SQUARE]; SQUARE]> {
    let line = |line: usize| input.get((column + line) * rows..)?.first_chunk::<SQUARE>().copied();
    Some([line(0)?, line(1)?, line(2)?, line(3)?])
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[&Reorder];

#[cfg(test)]
mod tests {
    use dlis_backend::{Epilogue, TensorSpec};

    use super::*;
    use crate::testing::{at, batch_of, build, integers, run};

    #[test]
    fn elements_keep_their_places() {
        for from in Layout::ALL {
            for to in Layout::ALL {
                for extents in [
                    [1, 1, 1],
                    [7, 1, 1],
                    [1, 5, 5],
                    [3, 32, 32],
                    [16, 4, 4],
                    [33, 3, 17],
                    [3, 40, 41],
                    [2, 50, 50],
                    [1500, 1, 3],
                ] {
                    let input = TensorSpec::f32(batch_of(from).max(batch_of(to)), extents, from);
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

    #[test]
    fn part_of_a_group_of_images_is_refused() {
        let hw = Hardware::detect();
        for (from, to) in [(Layout::Nchw, Layout::Nhwc16n), (Layout::Nhwc16n, Layout::Nhwc)] {
            for batch in [8, 16, 24, 32] {
                let input = TensorSpec::f32(batch, [3, 4, 4], from);
                let (operation, output, epilogue) = (Operation::Reorder, input.with_layout(to), Epilogue::NONE);
                let op = OpSpec { operation, inputs: vec![input], output, epilogue, weight: None };
                assert_eq!(Reorder.support(&op, &hw).is_yes(), batch % 16 == 0, "{op} {from} {to}");
            }
        }
    }
}
