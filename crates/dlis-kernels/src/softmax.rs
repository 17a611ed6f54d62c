//! Softmax over the channels.

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch,
    Support,
};
use dlis_hw::Hardware;

use crate::accepts::{self, Accepts};

/// `softmax/f32/none/direct/portable`: with the maximum taken off first, so that no exponential
/// overflows. A pixel with a NaN or a positive infinity is NaN throughout, as in PyTorch.
#[derive(Debug)]
struct Softmax;

impl Kernel for Softmax {
    fn id(&self) -> KernelId {
        KernelId::new("softmax", "f32", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Softmax = op.operation else { return accepts::another_operation() };
        Accepts::ANY_LAYOUT.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.1
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match (op.common_layout(), self.support(op, hw)) {
            (Some(layout), Support::Yes) => {
                Ok(Box::new(PreparedSoftmax { layout, channels: op.output.channels, pixels: op.output.pixels() }))
            }
            (_, support) => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedSoftmax {
    layout: Layout,
    channels: usize,
    pixels: usize,
}

impl Prepared for PreparedSoftmax {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).f32();
        // The fewest elements that a pixel lies within: itself, or in planes the image.
        let (row, step) = match self.layout {
            Layout::Nhwc => (self.channels, 1),
            Layout::Nchw => (self.channels * self.pixels, self.pixels),
            // Those of a group of images, each to itself.
            Layout::Nhwc16n => (self.channels * Layout::LANES, Layout::LANES),
        };
        parallel.for_each_row(io.output().f32(), row, |_, first, outputs| {
            outputs.copy_from_slice(&input[first * row..][..outputs.len()]);
            for output in outputs.chunks_mut(row) {
                for pixel in 0..step {
                    softmax(&mut output[pixel..], step);
                }
            }
        });
    }
}

/// Softmax of every `step`-th element.
fn softmax(values: &mut [f32], step: usize) {
    let max = values.iter().step_by(step).fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let mut sum = 0.0;
    for x in values.iter_mut().step_by(step) {
        *x = (*x - max).exp();
        sum += *x;
    }
    values.iter_mut().step_by(step).for_each(|x| *x /= sum);
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[&Softmax];

#[cfg(test)]
mod tests {
    use dlis_backend::{Epilogue, TensorSpec};

    use super::*;
    use crate::testing::{at, batch_of, build, integers, run};

    fn spec(tensor: TensorSpec) -> OpSpec {
        let operation = Operation::Softmax;
        OpSpec { operation, inputs: vec![tensor], output: tensor, epilogue: Epilogue::NONE, weight: None }
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "the reference is rounded once, at the end")]
    fn each_pixel_gets_its_own_distribution() {
        for layout in Layout::ALL {
            for extents in [[10, 1, 1], [3, 2, 5], [1, 3, 3]] {
                let tensor = TensorSpec::f32(batch_of(layout), extents, layout);
                let x = integers(tensor.elements(), 1);
                let exp = |place| f64::from(at(&tensor, &x, place)).exp();
                let expected = build(&tensor, |[n, c, y, x]| {
                    let sum: f64 = (0..tensor.channels).map(|c| exp([n, c, y, x])).sum();
                    (exp([n, c, y, x]) / sum) as f32
                });
                let output = run(&Softmax, &spec(tensor), OpWeights::default(), &[&x], None);
                for (a, b) in output.iter().zip(&expected) {
                    assert!((a - b).abs() <= 4.0 * f32::EPSILON * b, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn large_values_do_not_overflow_and_infinite_ones_are_nan() {
        let op = spec(TensorSpec::f32(1, [3, 1, 1], Layout::Nchw));
        let softmax = |x: [f32; 3]| run(&Softmax, &op, OpWeights::default(), &[&x], None);
        assert_eq!(softmax([1e30, 1e30, -1e30]), [0.5, 0.5, 0.0]);
        assert_eq!(softmax([0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]), [1.0, 0.0, 0.0]);
        for x in [[f32::INFINITY, 0.0, 0.0], [f32::NAN, 0.0, 0.0], [f32::NEG_INFINITY; 3]] {
            assert!(softmax(x).iter().all(|x| x.is_nan()), "{x:?}");
        }
    }
}
