//! The definition of every operation, one output element at a time in f64: what folding and compression must
//! preserve, for tests. Behind the feature `interpreter`.

use ndarray::{Array3, Axis};

use crate::{Activation, Conv2d, Network, Op, Pool, Value, Window};

/// The network's result for one image of `[channels, height, width]`.
///
/// # Panics
///
/// If the image is not of the network's input shape.
pub fn evaluate(network: &Network, image: &Array3<f64>) -> Array3<f64> {
    let mut outputs: Vec<Array3<f64>> = Vec::new();
    for (index, layer) in network.graph().layers().iter().enumerate() {
        let inputs: Vec<&Array3<f64>> = layer.inputs.iter().map(|&value| tensor(value, image, &outputs)).collect();
        let shape = network.graph().shape(Value::Layer(index));
        let mut y = Array3::zeros([shape.channels, shape.height, shape.width]);
        let parameter = |name: &str| -> Vec<f64> {
            let weight = network.weight(&layer.name, name);
            weight.map(|weight| weight.to_f32().iter().copied().map(f64::from).collect()).unwrap_or_default()
        };
        apply(&layer.op, &inputs, &parameter, &mut y);
        outputs.push(y);
    }
    tensor(network.graph().output(), image, &outputs).clone()
}

fn tensor<'a>(value: Value, image: &'a Array3<f64>, outputs: &'a [Array3<f64>]) -> &'a Array3<f64> {
    match value {
        Value::Input => image,
        Value::Layer(index) => &outputs[index],
    }
}

fn apply(op: &Op, inputs: &[&Array3<f64>], parameter: &dyn Fn(&str) -> Vec<f64>, y: &mut Array3<f64>) {
    let x = inputs[0];
    match *op {
        Op::Conv2d(conv) => convolve(conv, x, &parameter("weight"), &parameter("bias"), y),
        Op::Linear(linear) => {
            let (weight, bias) = (parameter("weight"), parameter("bias"));
            for (o, y) in y.iter_mut().enumerate() {
                let row = &weight[o * linear.in_features..][..linear.in_features];
                *y = bias.get(o).copied().unwrap_or(0.0) + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            }
        }
        Op::BatchNorm { eps, .. } => {
            let [gamma, beta, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(parameter);
            for ((c, h, w), y) in y.indexed_iter_mut() {
                *y = (x[[c, h, w]] - mean[c]) / (variance[c] + f64::from(eps)).sqrt() * gamma[c] + beta[c];
            }
        }
        Op::Activation { function } => y.zip_mut_with(x, |y, &x| {
            *y = match function {
                Activation::Relu => x.max(0.0),
                Activation::Relu6 => x.clamp(0.0, 6.0),
                Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            };
        }),
        Op::MaxPool(pool) => pooled(pool, x, y, |seen, _| seen.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        Op::AvgPool(pool) => pooled(pool, x, y, |seen, taps| seen.iter().sum::<f64>() / taps as f64),
        Op::GlobalAvgPool => {
            for (c, y) in y.iter_mut().enumerate() {
                *y = x.index_axis(Axis(0), c).mean().unwrap();
            }
        }
        Op::Add => *y = x + inputs[1],
        Op::Concat => {
            let views: Vec<_> = inputs.iter().map(|input| input.view()).collect();
            *y = ndarray::concatenate(Axis(0), &views).unwrap();
        }
        Op::Flatten => y.iter_mut().zip(x).for_each(|(y, &x)| *y = x),
        Op::Softmax => {
            let sums = x.mapv(f64::exp).sum_axis(Axis(0));
            for ((c, h, w), y) in y.indexed_iter_mut() {
                *y = x[[c, h, w]].exp() / sums[[h, w]];
            }
        }
        Op::Scale => {
            for ((c, h, w), y) in y.indexed_iter_mut() {
                *y = x[[c, h, w]] * inputs[1][[c, 0, 0]];
            }
        }
    }
}

/// The input element under a tap, unless the tap lies in the padding.
fn under(window: Window, extents: [usize; 2], output: [usize; 2], tap: [usize; 2]) -> Option<[usize; 2]> {
    let axis = |i: usize| {
        let at = (output[i] * window.stride[i] + tap[i] * window.dilation[i]).checked_sub(window.padding[i])?;
        (at < extents[i]).then_some(at)
    };
    Some([axis(0)?, axis(1)?])
}

fn convolve(conv: Conv2d, x: &Array3<f64>, weight: &[f64], bias: &[f64], y: &mut Array3<f64>) {
    let [out, per_group, kh, kw] = conv.weight_dims();
    let extents = [x.dim().1, x.dim().2];
    for ((o, h, w), y) in y.indexed_iter_mut() {
        let group = o / (out / conv.groups);
        *y = bias.get(o).copied().unwrap_or(0.0);
        for c in 0..per_group {
            for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                if let Some([row, column]) = under(conv.window, extents, [h, w], [i, j]) {
                    let weight = weight[((o * per_group + c) * kh + i) * kw + j];
                    *y += weight * x[[group * per_group + c, row, column]];
                }
            }
        }
    }
}

fn pooled(pool: Pool, x: &Array3<f64>, y: &mut Array3<f64>, reduce: impl Fn(&[f64], usize) -> f64) {
    let [kh, kw] = pool.window.kernel;
    let extents = [x.dim().1, x.dim().2];
    for ((c, h, w), y) in y.indexed_iter_mut() {
        let taps = (0..kh).flat_map(|i| (0..kw).map(move |j| [i, j]));
        let seen: Vec<f64> = taps
            .filter_map(|tap| under(pool.window, extents, [h, w], tap))
            .map(|[row, column]| x[[c, row, column]])
            .collect();
        *y = reduce(&seen, if pool.include_padding { kh * kw } else { seen.len() });
    }
}
