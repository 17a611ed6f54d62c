//! What the examples that time layers share: shapes, and interleaved runs.

use std::time::Instant;

use dlis_backend::{Io, OpSpec, Operation, Parallel, Prepared, Schedule, Scratch, Serial, View, ViewMut};
use dlis_model::{Conv2d, Linear, Window};

/// A layer's name, operation, and extents of input and output.
pub(crate) type Shape = (&'static str, Operation, [usize; 3], [usize; 3]);

/// A window that keeps height and width at stride 1.
pub(crate) fn same(kernel: usize) -> Window {
    Window::square(kernel).with_padding(kernel / 2)
}

/// A convolution of square maps of `size` pixels a side.
pub(crate) fn conv(
    name: &'static str,
    inputs: usize,
    outputs: usize,
    size: usize,
    window: Window,
    groups: usize,
) -> Shape {
    let conv = Conv2d { in_channels: inputs, out_channels: outputs, groups, window, bias: false };
    let to = size / window.stride[0];
    (name, Operation::Conv2d(conv), [inputs, size, size], [outputs, to, to])
}

/// A linear layer.
pub(crate) fn linear(name: &'static str, inputs: usize, outputs: usize) -> Shape {
    let linear = Linear { in_features: inputs, out_features: outputs, bias: false };
    (name, Operation::Linear(linear), [inputs, 1, 1], [outputs, 1, 1])
}

/// Numbers of at least 0, below 1: those of a linear congruential generator.
pub(crate) fn random() -> impl FnMut() -> f64 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    }
}

/// Seconds of one run on one thread.
pub(crate) fn time(
    op: &OpSpec,
    prepared: &dyn Prepared,
    input: &[u8],
    output: &mut [u8],
    [shared, worker]: [&mut [u8]; 2],
) -> f64 {
    let start = Instant::now();
    let inputs = [View::new(op.inputs[0], input)];
    let mut io = Io::new(&inputs, None, ViewMut::new(op.output, output));
    prepared.run(&mut io, &mut Scratch::new(shared, worker, 1), Parallel::new(&Serial, Schedule::Static));
    start.elapsed().as_secs_f64()
}

/// Median seconds of each layer's runs, which take turns for about so many seconds, `most` times at most.
pub(crate) fn medians<L>(layers: &mut [L], run: fn(&mut L) -> f64, seconds: f64, most: f64) -> Vec<f64> {
    let once = layers.iter_mut().map(run).sum::<f64>() + layers.iter_mut().map(run).sum::<f64>();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of repetitions")]
    let count = (seconds / once).clamp(15.0, most) as usize;
    let mut times = vec![Vec::with_capacity(count); layers.len()];
    for _ in 0..count {
        layers.iter_mut().zip(&mut times).for_each(|(layer, times)| times.push(run(layer)));
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.into_iter().map(median).collect()
}
