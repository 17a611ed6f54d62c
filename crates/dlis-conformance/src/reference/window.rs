//! Operations that slide a window.

use dlis_model::{Conv2d, Pool, Window};

use super::Sum;
use crate::tensor::Tensor;

/// The input position along each axis that a tap sees, or `None` in the padding.
fn position(window: &Window, dims: [usize; 4], output: [usize; 2], tap: [usize; 2]) -> Option<[usize; 2]> {
    let axis = |i: usize| {
        let padded = output[i] * window.stride[i] + tap[i] * window.dilation[i];
        padded.checked_sub(window.padding[i]).filter(|&at| at < dims[2 + i])
    };
    Some([axis(0)?, axis(1)?])
}

/// The input positions that the window of one output sees, with their taps.
pub(crate) fn positions(
    window: Window,
    dims: [usize; 4],
    output: [usize; 2],
) -> impl Iterator<Item = ([usize; 2], [usize; 2])> {
    let taps = (0..window.kernel[0]).flat_map(move |y| (0..window.kernel[1]).map(move |x| [y, x]));
    taps.filter_map(move |tap| Some((tap, position(&window, dims, output, tap)?)))
}

/// `sum over i, ky, kx of input[n, i, y * stride + ky * dilation - padding, ...] * weight[o, i, ky, kx]`, plus bias.
pub(super) fn convolution(
    conv: &Conv2d,
    input: &Tensor,
    (weight, sparse): (&Tensor, bool),
    bias: Option<f64>,
    [n, out, y, x]: [usize; 4],
) -> Sum {
    let in_group = conv.in_channels / conv.groups;
    let group = out / (conv.out_channels / conv.groups);
    let mut sum = Sum::default();
    for channel in 0..in_group {
        for ([ky, kx], [iy, ix]) in positions(conv.window, input.dims(), [y, x]) {
            let x = input.at([n, group * in_group + channel, iy, ix]);
            sum.add_product(x, weight.at([out, channel, ky, kx]), sparse);
        }
    }
    if let Some(bias) = bias {
        sum.add(bias);
    }
    sum
}

/// The greatest input that the window sees; NaN if it sees one.
pub(super) fn max_pool(pool: &Pool, input: &Tensor, [n, c, y, x]: [usize; 4]) -> Sum {
    let seen = positions(pool.window, input.dims(), [y, x]).map(|(_, [iy, ix])| input.at([n, c, iy, ix]));
    Sum::exactly(seen.fold(f64::NEG_INFINITY, |most, x| if x > most || x.is_nan() { x } else { most }))
}

/// The mean of the inputs that the window sees; with `include_padding` the divisor is the number of taps.
pub(super) fn avg_pool(pool: &Pool, input: &Tensor, [n, c, y, x]: [usize; 4]) -> Sum {
    let mut sum = Sum::default();
    for (_, [iy, ix]) in positions(pool.window, input.dims(), [y, x]) {
        sum.add(input.at([n, c, iy, ix]));
    }
    sum.divided_by(if pool.include_padding { pool.window.taps() } else { sum.roundings })
}

/// The mean of a channel.
pub(super) fn global_avg_pool(input: &Tensor, [n, c, _, _]: [usize; 4]) -> Sum {
    let [_, _, height, width] = input.dims();
    let mut sum = Sum::default();
    for y in 0..height {
        for x in 0..width {
            sum.add(input.at([n, c, y, x]));
        }
    }
    sum.divided_by(height * width)
}
