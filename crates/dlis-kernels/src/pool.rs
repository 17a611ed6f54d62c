//! Pooling over windows and over whole maps, in every layout.
//!
//! A tensor is taken as `[outer, height, width, inner]`: planes of single values in NCHW, images of vectors of
//! channels in NHWC, groups of images of such vectors where images are lanes. One loop nest then serves all.

use std::marker::PhantomData;

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch, Support,
};
use dlis_hw::Hardware;
use dlis_model::Window;

use crate::accepts::{self, Accepts};
use crate::axis::Axis;
use crate::blocks::for_each_block;
use crate::fold::{Order, folded};
use crate::simd::{Simd, Work, at_every_level};

/// What is made of the elements of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reduction {
    Max,
    Mean { include_padding: bool },
}

impl Reduction {
    /// That of an operation over windows, and the windows; `None` of any other.
    fn of(operation: Operation) -> Option<(Self, Window)> {
        match operation {
            Operation::MaxPool(pool) => Some((Self::Max, pool.window)),
            Operation::AvgPool(pool) => Some((Self::Mean { include_padding: pool.include_padding }, pool.window)),
            _ => None,
        }
    }
}

/// `max_pool/f32/none/direct`: NaN where the window has one, else the maximum of what is not padding. And
/// `avg_pool/f32/none/direct`: the mean with or without the padding; 0 over nothing but padding.
#[derive(Debug)]
struct WindowPool<S> {
    id: KernelId,
    level: PhantomData<S>,
}

impl<S: Simd> WindowPool<S> {
    /// `op` is `max_pool` or `avg_pool`.
    const fn new(op: &'static str) -> Self {
        Self { id: KernelId::new(op, "f32", "none", "direct", S::LEVEL.name()), level: PhantomData }
    }
}

impl<S: Simd> Kernel for WindowPool<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        if op.operation.name() != self.id.op() {
            return accepts::another_operation();
        }
        Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level").and(|| Accepts::ANY_LAYOUT.check(op))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3 + 0.02 * S::LANES as f32
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        match (Reduction::of(op.operation), folded(op), S::new(hw)) {
            (Some((reduction, window)), Some((order, folded)), Some(simd)) if support.is_yes() => {
                let axes = Axis::both(&window, &op.inputs[0], &op.output);
                let inner = order.inner(folded.output.channels);
                Ok(Box::new(PreparedPool { simd, axes, inner, reduction }))
            }
            _ => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedPool<S> {
    simd: S,
    axes: [Axis; 2],
    inner: usize,
    reduction: Reduction,
}

impl<S: Simd> Prepared for PreparedPool<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).f32();
        let row = self.axes[1].output * self.inner;
        parallel.for_each_row(io.output().f32(), row, |_, first, outputs| {
            self.simd.vectorize(Rows { pool: self, input, first, outputs });
        });
    }
}

/// Neighbouring rows of the output, counted over all planes or images.
struct Rows<'a, S> {
    pool: &'a PreparedPool<S>,
    input: &'a [f32],
    first: usize,
    outputs: &'a mut [f32],
}

impl<P: Simd> Work for Rows<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { pool: PreparedPool { axes: axes @ [rows, columns], inner, reduction, .. }, input, first, outputs } =
            self;
        let (row_in, row_out) = (columns.input * inner, columns.output * inner);
        let halves = *reduction == Reduction::Max && *inner == 1 && axes.iter().all(is_halving);
        for (index, output) in (first..).zip(outputs.chunks_exact_mut(row_out)) {
            let (outer, y) = (index / rows.output, index % rows.output);
            if halves {
                let pair = &input[(outer * rows.input + 2 * y) * row_in..][..2 * row_in];
                max_of_squares(simd, pair.split_at(row_in), output);
                continue;
            }
            output.fill(if *reduction == Reduction::Max { f32::NEG_INFINITY } else { 0.0 });
            for ky in rows.taps(y) {
                let from = &input[(outer * rows.input + rows.source(y, ky)) * row_in..][..row_in];
                for kx in 0..columns.kernel {
                    match reduction {
                        Reduction::Max if *inner >= S::LANES => max_tap(simd, columns, *inner, kx, from, output),
                        Reduction::Max => add_tap(columns, *inner, kx, from, output, max),
                        Reduction::Mean { .. } => add_tap(columns, *inner, kx, from, output, add),
                    }
                }
            }
            if let Reduction::Mean { include_padding } = reduction {
                for (x, pixel) in output.chunks_mut(*inner).enumerate() {
                    let taps = if *include_padding {
                        rows.kernel * columns.kernel
                    } else {
                        (rows.taps(y).len() * columns.taps(x).len()).max(1)
                    };
                    pixel.iter_mut().for_each(|sum| *sum /= taps as f32);
                }
            }
        }
    }
}

/// Whether pairs, and nothing but pairs, are reduced.
fn is_halving(axis: &Axis) -> bool {
    axis.kernel == 2 && axis.stride == 2 && axis.dilation == 1 && axis.before == 0 && 2 * axis.output <= axis.input
}

/// The maxima of two by two elements of two rows.
#[inline(always)]
fn max_of_squares<S: Simd>(simd: S, (above, below): (&[f32], &[f32]), output: &mut [f32]) {
    let whole = output.len() - output.len() % S::LANES;
    assert!(above.len().min(below.len()) >= 2 * output.len(), "a pair for each output");
    for at in (0..whole).step_by(S::LANES) {
        // SAFETY: there are two vectors of each row for one of outputs.
        unsafe {
            let (above, below) = (above.as_ptr().add(2 * at), below.as_ptr().add(2 * at));
            let low = simd.greater(simd.load(above), simd.load(below));
            let high = simd.greater(simd.load(above.add(S::LANES)), simd.load(below.add(S::LANES)));
            let (even, odd) = simd.unzip(low, high);
            simd.store(output.as_mut_ptr().add(at), simd.greater(even, odd));
        }
    }
    let pairs = above[2 * whole..].chunks(2).zip(below[2 * whole..].chunks(2));
    for (to, (above, below)) in output[whole..].iter_mut().zip(pairs) {
        *to = max(max(above[0], above[1]), max(below[0], below[1]));
    }
}

/// Takes vectors of the elements that a tap reads into those of a row of the output, whose pixels are of `inner` elements.
#[inline(always)]
fn max_tap<S: Simd>(simd: S, columns: &Axis, inner: usize, kx: usize, from: &[f32], output: &mut [f32]) {
    let whole = inner - inner % S::LANES;
    for x in columns.outputs(kx) {
        let from = &from[columns.source(x, kx) * inner..][..inner];
        let to = &mut output[x * inner..][..inner];
        for at in (0..whole).step_by(S::LANES) {
            // SAFETY: both have whole vectors up to there.
            unsafe {
                let larger = simd.greater(simd.load(to.as_ptr().add(at)), simd.load(from.as_ptr().add(at)));
                simd.store(to.as_mut_ptr().add(at), larger);
            }
        }
        to[whole..].iter_mut().zip(&from[whole..]).for_each(|(to, &from)| *to = max(*to, from));
    }
}

/// The larger; NaN if either is, unlike `f32::max`.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// The sum.
#[inline(always)]
fn add(a: f32, b: f32) -> f32 {
    a + b
}

/// Takes what one tap of a row of the window reads into a row of the output, whose pixels are of `inner` elements.
#[inline(always)]
pub(crate) fn add_tap<T: Copy>(
    columns: &Axis,
    inner: usize,
    kx: usize,
    from: &[T],
    output: &mut [T],
    fold: impl Fn(T, T) -> T,
) {
    let inside = columns.outputs(kx);
    if inside.is_empty() {
        return;
    }
    let from = &from[columns.source(inside.start, kx) * inner..];
    let output = &mut output[inside.start * inner..inside.end * inner];
    if columns.stride == 1 {
        output.iter_mut().zip(from).for_each(|(to, &from)| *to = fold(*to, from));
    } else if inner == 1 {
        output.iter_mut().zip(from.iter().step_by(columns.stride)).for_each(|(to, &from)| *to = fold(*to, from));
    } else {
        for (output, from) in output.chunks_mut(inner).zip(from.chunks(columns.stride * inner)) {
            output.iter_mut().zip(from).for_each(|(to, &from)| *to = fold(*to, from));
        }
    }
}

/// `global_avg_pool/f32/none/direct/portable`.
#[derive(Debug)]
struct GlobalAvgPool;

/// Channels averaged together where they are neighbours: as many sums as registers hold.
const CHANNELS: usize = 16;

impl Kernel for GlobalAvgPool {
    fn id(&self) -> KernelId {
        KernelId::new("global_avg_pool", "f32", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::GlobalAvgPool = op.operation else { return accepts::another_operation() };
        Accepts::ANY_LAYOUT.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        match folded(op) {
            Some((order, folded)) if support.is_yes() => {
                let (pixels, channels) = (op.inputs[0].pixels(), folded.output.channels);
                Ok(Box::new(PreparedGlobal { pixels, channels, order }))
            }
            _ => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedGlobal {
    pixels: usize,
    channels: usize,
    order: Order,
}

impl Prepared for PreparedGlobal {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).f32();
        let output = io.output().f32();
        let pixels = self.pixels as f32;
        match self.order {
            Order::Planes => parallel.for_each_row(output, 1, |_, first, means| {
                for (mean, plane) in means.iter_mut().zip(input[first * self.pixels..].chunks(self.pixels)) {
                    let (blocks, rest) = plane.as_chunks::<CHANNELS>();
                    let mut sums = [0.0; CHANNELS];
                    for block in blocks {
                        sums.iter_mut().zip(block).for_each(|(sum, x)| *sum += x);
                    }
                    *mean = (sums.iter().sum::<f32>() + rest.iter().sum::<f32>()) / pixels;
                }
            }),
            Order::Pixels => {
                for (input, output) in input.chunks(self.pixels * self.channels).zip(output.chunks_mut(self.channels)) {
                    for_each_block(parallel, output, CHANNELS, |channels, means| {
                        means.fill(0.0);
                        for pixel in input.chunks(self.channels) {
                            means.iter_mut().zip(&pixel[channels.clone()]).for_each(|(sum, x)| *sum += x);
                        }
                        means.iter_mut().for_each(|sum| *sum /= pixels);
                    });
                }
            }
        }
    }
}

/// Those of windows, at every level, then that of whole maps.
pub(crate) static KERNELS: &[&[&dyn Kernel]] =
    &[at_every_level!(WindowPool("max_pool"), WindowPool("avg_pool")), &[&GlobalAvgPool]];

#[cfg(test)]
mod tests {
    use dlis_backend::{Epilogue, Layout, TensorSpec};
    use dlis_model::Pool;

    use super::*;
    use crate::testing::{at, batch_of, build, integers, run};

    /// Checks the result at every level that the machine has.
    fn check(op: &OpSpec, data: &[f32], expected: &[f32]) {
        let hw = Hardware::detect();
        for kernel in KERNELS.concat().iter().filter(|kernel| kernel.support(op, &hw).is_yes()) {
            let found = run(*kernel, op, OpWeights::default(), &[data], None);
            let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
            let differs = found.iter().zip(expected).position(|pair| !same(pair));
            assert_eq!(differs, None, "{}: {op}: {found:?} and not {expected:?}", kernel.id());
        }
    }

    fn spec(operation: Operation, input: TensorSpec, [height, width]: [usize; 2]) -> OpSpec {
        let output = TensorSpec { height, width, ..input };
        OpSpec { operation, inputs: vec![input], output, epilogue: Epilogue::NONE, weight: None }
    }

    /// The values that a window holds, padding left out.
    fn window_of(input: &TensorSpec, data: &[f32], window: Window, [n, c, y, x]: [usize; 4]) -> Vec<f32> {
        let mut values = Vec::new();
        for ky in 0..window.kernel[0] {
            for kx in 0..window.kernel[1] {
                let y = (y * window.stride[0] + ky * window.dilation[0]).wrapping_sub(window.padding[0]);
                let x = (x * window.stride[1] + kx * window.dilation[1]).wrapping_sub(window.padding[1]);
                if y < input.height && x < input.width {
                    values.push(at(input, data, [n, c, y, x]));
                }
            }
        }
        values
    }

    #[test]
    fn every_window_gives_the_definition_in_every_layout() {
        let windows = [
            Window::square(2).with_stride(2),
            Window::square(3).with_stride(2).with_padding(1),
            Window::square(3).with_padding(1),
            Window { kernel: [2, 3], stride: [1, 3], padding: [1, 0, 0, 2], dilation: [1, 1] },
            Window { dilation: [2, 2], ..Window::square(3).with_padding(2) },
            Window::square(1),
        ];
        for layout in Layout::ALL {
            for window in windows {
                for [channels, height, width] in [[3, 4, 4], [1, 5, 7], [9, 8, 3], [2, 1, 1], [2, 4, 71], [35, 2, 2]] {
                    let input = TensorSpec::f32(batch_of(layout), [channels, height, width], layout);
                    let Some(plane) = window.output([height, width]) else { continue };
                    let data = integers(input.elements(), 1);
                    let pool = Pool { window, include_padding: false };
                    let op = spec(Operation::MaxPool(pool), input, plane);
                    let max = |values: Vec<f32>| match values.iter().find(|x| x.is_nan()) {
                        Some(&nan) => nan,
                        None => values.into_iter().fold(f32::NEG_INFINITY, f32::max),
                    };
                    let special = |(index, &x): (usize, &f32)| match index % 13 {
                        3 => f32::NAN,
                        7 => f32::INFINITY,
                        8 => f32::NEG_INFINITY,
                        _ => x,
                    };
                    let specials: Vec<f32> = data.iter().enumerate().map(special).collect();
                    for data in [&data, &specials] {
                        let expected = build(&op.output, |place| max(window_of(&input, data, window, place)));
                        check(&op, data, &expected);
                    }

                    for include_padding in [false, true] {
                        let op = spec(Operation::AvgPool(Pool { window, include_padding }), input, plane);
                        let expected = build(&op.output, |place| {
                            let values = window_of(&input, &data, window, place);
                            let count = if include_padding { window.taps() } else { values.len().max(1) };
                            values.iter().sum::<f32>() / count as f32
                        });
                        check(&op, &data, &expected);
                    }
                }
            }
        }
    }

    #[test]
    fn padding_never_wins_and_nan_always_does() {
        let window = Window::square(3).with_padding(1).with_stride(2);
        let pool = Pool { window, include_padding: false };
        for layout in Layout::ALL {
            let batch = if layout == Layout::Nhwc16n { Layout::LANES } else { 1 };
            let input = TensorSpec::f32(batch, [1, 4, 4], layout);
            let op = spec(Operation::MaxPool(pool), input, [2, 2]);
            let max_is = |image: &[f32], expected: [f32; 4]| {
                let data = build(&input, |[_, _, y, x]| image[y * 4 + x]);
                check(&op, &data, &build(&op.output, |[_, _, y, x]| expected[y * 2 + x]));
            };
            let mut data = [-5.0; 16];
            max_is(&data, [-5.0; 4]);
            data[0] = f32::NEG_INFINITY;
            data[15] = f32::INFINITY;
            max_is(&data, [-5.0, -5.0, -5.0, f32::INFINITY]);
            data[0] = f32::NAN;
            max_is(&data, [f32::NAN, -5.0, -5.0, f32::INFINITY]);
        }
    }

    #[test]
    fn means_of_maps_are_exact_in_every_layout() {
        for layout in Layout::ALL {
            for [channels, height, width] in [[1, 1, 1], [5, 4, 4], [17, 1, 8], [40, 8, 8], [3, 5, 7]] {
                let input = TensorSpec::f32(batch_of(layout), [channels, height, width], layout);
                let data = integers(input.elements(), 1);
                let op = spec(Operation::GlobalAvgPool, input, [1, 1]);
                let expected = build(&op.output, |[n, c, ..]| {
                    let pixels = (0..height * width).map(|i| at(&input, &data, [n, c, i / width, i % width]));
                    pixels.sum::<f32>() / (height * width) as f32
                });
                assert_eq!(run(&GlobalAvgPool, &op, OpWeights::default(), &[&data], None), expected, "{op} {layout}");
            }
        }
    }
}
