//! What the unit tests of the kernels share: small integers, on which f32 arithmetic is exact, and an
//! executor that deals iterations out in the most inconvenient way.

use std::num::NonZeroUsize;
use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Executor, Io, Kernel, Layout, OpSpec, OpWeights, Parallel, Schedule, Scratch, Serial, TensorSpec,
    View, ViewMut,
};
use dlis_hw::Hardware;

/// Three workers, one after another on the calling thread: ranges of one iteration, last first.
#[derive(Debug)]
pub(crate) struct Backwards;

// SAFETY: every index is passed once, in ranges of one, on the calling thread, as one of three workers.
unsafe impl Executor for Backwards {
    fn threads(&self) -> NonZeroUsize {
        const { NonZeroUsize::new(3).unwrap() }
    }

    fn for_each(&self, n: usize, _schedule: Schedule, body: &(dyn Fn(usize, Range<usize>) + Sync)) {
        (0..n).rev().for_each(|index| body(index % 3, index..index + 1));
    }
}

/// Integers from -4 to 4, each seed others.
pub(crate) fn integers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        // xorshift32 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(i8::try_from(state % 9).unwrap_or(0) - 4)
    };
    (0..len).map(|_| next()).collect()
}

/// Images of a small batch that can be in a layout.
pub(crate) fn batch_of(layout: Layout) -> usize {
    match layout {
        Layout::Nchw | Layout::Nhwc => 2,
        Layout::Nhwc16n => 2 * Layout::LANES,
    }
}

/// The element of a tensor at image, channel, row and column.
pub(crate) fn at(spec: &TensorSpec, data: &[f32], place: [usize; 4]) -> f32 {
    data[spec.offset(place)]
}

/// A tensor whose elements are a function of image, channel, row and column.
pub(crate) fn build(spec: &TensorSpec, of: impl Fn([usize; 4]) -> f32) -> Vec<f32> {
    let mut data = vec![0.0; spec.elements()];
    for n in 0..spec.batch {
        for c in 0..spec.channels {
            for y in 0..spec.height {
                for x in 0..spec.width {
                    data[spec.offset([n, c, y, x])] = of([n, c, y, x]);
                }
            }
        }
    }
    data
}

/// Runs a kernel, all memory that it has to write beforehand full of NaN, and checks that the way in which
/// the work is dealt out makes no difference.
pub(crate) fn run(
    kernel: &dyn Kernel,
    op: &OpSpec,
    weights: OpWeights<'_>,
    inputs: &[&[f32]],
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let prepared = kernel.prepare_checked(op, weights, &Hardware::detect()).unwrap();
    let run = |executor: &dyn Executor| {
        let threads = executor.threads().get();
        let footprint = prepared.footprint(threads);
        let poisoned = |bytes: usize| AlignedBytes::from_f32(&vec![f32::NAN; bytes.div_ceil(4)]);
        let mut shared = poisoned(footprint.scratch_bytes);
        let mut workers = poisoned(AlignedBytes::round_up(footprint.worker_scratch_bytes) * threads);
        let mut output = vec![f32::NAN; op.output.elements()];
        let views: Vec<View<'_>> = op.inputs.iter().zip(inputs).map(|(&spec, data)| View::of(spec, data)).collect();
        let residual = residual.map(|data| View::of(op.output, data));
        let mut io = Io::new(&views, residual, ViewMut::of(op.output, &mut output));
        let mut scratch = Scratch::new(shared.as_mut_slice(), workers.as_mut_slice(), threads);
        prepared.run(&mut io, &mut scratch, Parallel::new(executor, Schedule::Static));
        output
    };
    let output = run(&Serial);
    let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&output), bits(&run(&Backwards)), "{op} depends on the executor");
    output
}
