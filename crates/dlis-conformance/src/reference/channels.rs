//! Operations along the channels.

use super::{EXP, Element, Sum, UNDERFLOW};
use crate::tensor::Tensor;

/// `sum over i of input[n, i] * weight[o, i]`, plus bias.
pub(super) fn linear(
    input: &Tensor,
    (weight, sparse): (&Tensor, bool),
    bias: Option<f64>,
    [n, out, _, _]: [usize; 4],
) -> Sum {
    let mut sum = Sum::default();
    for feature in 0..input.dims()[1] {
        sum.add_product(input.at([n, feature, 0, 0]), weight.at([out, feature, 0, 0]), sparse);
    }
    if let Some(bias) = bias {
        sum.add(bias);
    }
    sum
}

/// The channels of the first input, then those of the second, and so on.
pub(super) fn concat(inputs: &[Tensor], [n, c, y, x]: [usize; 4]) -> Sum {
    let mut channel = c;
    for input in inputs {
        let channels = input.dims()[1];
        if channel < channels {
            return Sum::exactly(input.at([n, channel, y, x]));
        }
        channel -= channels;
    }
    unreachable!("a case's output has as many channels as its inputs together")
}

/// `exp(x[c] - max) / sum over i of exp(x[i] - max)` at one pixel.
pub(super) fn softmax(input: &Tensor, [n, c, y, x]: [usize; 4]) -> Element {
    let channels = input.dims()[1];
    let at = |channel| input.at([n, channel, y, x]);
    // The shift changes nothing but keeps the exponentials finite. A NaN is no maximum, but makes the sum NaN.
    let most = (0..channels).map(at).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = (0..channels).map(|channel| (at(channel) - most).exp()).sum();
    let value = (at(c) - most).exp() / total;
    // Relative: rounding of the difference comes through the exponential as an absolute error of the
    // exponent, of this element and of those that make up the sum (weighted by their share of it);
    // then two exponentials, a sum and a division.
    let spread = |channel: usize| {
        let (share, distance) = ((at(channel) - most).exp() / total, most - at(channel));
        if share == 0.0 { 0.0 } else { share * distance }
    };
    let own = if value == 0.0 { 0.0 } else { most - at(c) };
    let relative = own + (0..channels).map(spread).sum::<f64>() + 2.0 * EXP + (channels + 1) as f64;
    let bound = relative * (value + UNDERFLOW);
    // An error of a logit, relative to its size, is one of the result as often its own size.
    let largest = (0..channels).map(|channel| at(channel).abs()).filter(|x| x.is_finite()).fold(1.0, f64::max);
    Element { value, bound, magnitude: 2.0 * largest * value, special: !value.is_finite(), or_nan: false }
}
