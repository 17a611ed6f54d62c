//! Concatenation along the channels.

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch, Support,
};
use dlis_hw::Hardware;

use crate::accepts::{self, Accepts};
use crate::blocks::{BLOCK, for_each_block};
use crate::fold::{Order, folded};

/// `concat/f32/none/copy/portable`.
#[derive(Debug)]
struct Concat;

impl Kernel for Concat {
    fn id(&self) -> KernelId {
        KernelId::new("concat", "f32", "none", "copy", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Concat = op.operation else { return accepts::another_operation() };
        Accepts::ANY_LAYOUT.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.5
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match (folded(op), self.support(op, hw)) {
            (Some((order, folded)), Support::Yes) => {
                let channels = folded.inputs.iter().map(|input| input.channels).collect();
                Ok(Box::new(PreparedConcat { order, channels, pixels: op.output.pixels() }))
            }
            (_, support) => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedConcat {
    order: Order,
    /// Channels of each input.
    channels: Vec<usize>,
    pixels: usize,
}

impl Prepared for PreparedConcat {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let mut places = Places::new(self.order, self.pixels, self.channels.iter().sum());
        for (index, &channels) in self.channels.iter().enumerate() {
            let input = io.input(index).f32();
            places.fill(channels, input, io.output().f32(), parallel, |from, to| to.copy_from_slice(from));
        }
    }
}

/// Where the inputs of a concatenation go in its output, one after another.
#[derive(Debug)]
pub(crate) struct Places {
    order: Order,
    pixels: usize,
    /// Channels of the output.
    total: usize,
    /// The channel at which the next input begins.
    start: usize,
}

impl Places {
    pub(crate) fn new(order: Order, pixels: usize, total: usize) -> Self {
        Self { order, pixels, total, start: 0 }
    }

    /// Brings the next input, of so many channels, to its place by `copy(from, to)`.
    pub(crate) fn fill<T: Copy + Send + Sync>(
        &mut self,
        channels: usize,
        input: &[T],
        output: &mut [T],
        parallel: Parallel<'_>,
        copy: impl Fn(&[T], &mut [T]) + Sync,
    ) {
        let Self { order, pixels, total, start } = *self;
        match order {
            // An input's planes of one image stay together.
            Order::Planes => {
                let (len, start) = (channels * pixels, start * pixels);
                for (input, output) in input.chunks(len).zip(output.chunks_mut(total * pixels)) {
                    for_each_block(parallel, &mut output[start..start + len], BLOCK, |elements, output| {
                        copy(&input[elements], output);
                    });
                }
            }
            // A pixel's channels are gathered from all inputs. Looking an input up costs, so one is copied at a
            // time; a worker's pixels stay in its cache from one to the next.
            Order::Pixels => parallel.for_each_row(output, total, |_, first, output| {
                let inputs = input[first * channels..].chunks(channels);
                for (pixel, input) in output.chunks_mut(total).zip(inputs) {
                    copy(input, &mut pixel[start..start + channels]);
                }
            }),
        }
        self.start += channels;
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[&Concat];

#[cfg(test)]
mod tests {
    use dlis_backend::{Epilogue, Layout, TensorSpec};

    use super::*;
    use crate::testing::{at, batch_of, build, integers, run};

    #[test]
    fn channels_follow_one_another_in_every_layout() {
        for layout in Layout::ALL {
            for [height, width] in [[1, 1], [3, 5], [70, 80]] {
                let specs =
                    [3, 1, 8].map(|channels| TensorSpec::f32(batch_of(layout), [channels, height, width], layout));
                let output = TensorSpec { channels: 12, ..specs[0] };
                let (operation, epilogue) = (Operation::Concat, Epilogue::NONE);
                let op = OpSpec { operation, inputs: specs.to_vec(), output, epilogue, weight: None };
                let data = [1, 2, 3].map(|i| integers(specs[i - 1].elements(), u32::try_from(i).unwrap()));
                let expected = build(&output, |[n, c, y, x]| {
                    let (input, c) = match c {
                        0..3 => (0, c),
                        3 => (1, 0),
                        _ => (2, c - 4),
                    };
                    at(&specs[input], &data[input], [n, c, y, x])
                });
                let inputs = [&data[0][..], &data[1], &data[2]];
                assert_eq!(run(&Concat, &op, OpWeights::default(), &inputs, None), expected, "{op} {layout}");
            }
        }
    }
}
