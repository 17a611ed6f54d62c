//! A graph as operations of libtorch.

use dlis_model::{Activation, Conv2d, Graph, Layer, Op, Pool, Value, Window};
use tch::{Kind, Tensor};

use crate::error::{TrainError, extent};
use crate::parameters::{Parameters, Views};

/// Share of a batch's statistics in the running ones, as PyTorch has it.
const MOMENTUM: f64 = 0.1;

/// What is done with a layer's output before other layers see it.
pub(crate) type After<'a> = dyn FnMut(Value, Tensor) -> Result<Tensor, TrainError> + 'a;

/// One way of running a network.
#[derive(Debug)]
pub(crate) struct Forward<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) parameters: &'a Parameters,
    pub(crate) views: &'a Views,
    /// Whether batch-norm uses and updates the batch's statistics rather than the running ones.
    pub(crate) training: bool,
    /// The type of activations.
    pub(crate) kind: Kind,
}

impl Forward<'_> {
    /// The network's output as f32, `[n, channels]`. `after` sees the input and every layer's output.
    pub(crate) fn run(&self, images: Tensor, after: &mut After<'_>) -> Result<Tensor, TrainError> {
        let layers = self.graph.layers();
        // After which layer each value is no longer needed; the result is needed to the end.
        let mut last = vec![0; layers.len()];
        for (index, layer) in layers.iter().enumerate() {
            for value in &layer.inputs {
                if let Value::Layer(from) = *value {
                    last[from] = index;
                }
            }
        }
        let input = after(Value::Input, images)?;
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            let find = |value: &Value| match *value {
                Value::Input => Some(&input),
                Value::Layer(from) => values[from].as_ref(),
            };
            let inputs: Vec<&Tensor> = layer.inputs.iter().filter_map(find).collect();
            let output = self.layer(layer, &inputs)?;
            values.push(Some(after(Value::Layer(index), output)?));
            for value in &layer.inputs {
                if let Value::Layer(from) = *value
                    && last[from] == index
                    && self.graph.output() != *value
                {
                    values[from] = None;
                }
            }
        }
        let output = match self.graph.output() {
            Value::Layer(index) => values[index].as_ref().unwrap_or(&input),
            Value::Input => &input,
        };
        Ok(output.f_flatten(1, -1)?.f_to_kind(Kind::Float)?)
    }

    fn layer(&self, layer: &Layer, inputs: &[&Tensor]) -> Result<Tensor, TrainError> {
        let x = inputs[0];
        Ok(match layer.op {
            Op::Conv2d(conv) => self.convolution(layer, &conv, x)?,
            Op::Linear(_) => {
                let bias = self.bias(layer)?;
                x.f_flatten(1, -1)?.f_linear(self.weight(layer), bias.as_ref())?.f_unsqueeze(-1)?.f_unsqueeze(-1)?
            }
            Op::BatchNorm { eps, .. } => {
                let vector = |name| self.parameters.vector(&full(layer, name)).map(|at| &self.views.vectors[at]);
                let running =
                    |name| self.parameters.statistic(&full(layer, name)).map(|at| &self.parameters.running[at]);
                x.f_batch_norm(
                    vector("weight"),
                    vector("bias"),
                    running("running_mean"),
                    running("running_var"),
                    self.training,
                    MOMENTUM,
                    f64::from(eps),
                    true,
                )?
            }
            Op::Activation { function: Activation::Relu } => x.f_relu()?,
            Op::Activation { function: Activation::Relu6 } => x.f_relu6()?,
            Op::Activation { function: Activation::Sigmoid } => x.f_sigmoid()?,
            Op::MaxPool(pool) => max_pool(x, &pool)?,
            Op::AvgPool(pool) => avg_pool(x, &pool)?,
            Op::GlobalAvgPool => x.f_mean_dim(&[2_i64, 3][..], true, None::<Kind>)?,
            Op::Add => x.f_add(inputs[1])?,
            Op::Concat => Tensor::f_cat(inputs, 1)?,
            Op::Flatten => x.f_flatten(1, -1)?.f_unsqueeze(-1)?.f_unsqueeze(-1)?,
            Op::Softmax => x.f_softmax(1, None::<Kind>)?,
            Op::Scale => x.f_mul(inputs[1])?,
        })
    }

    fn convolution(&self, layer: &Layer, conv: &Conv2d, x: &Tensor) -> Result<Tensor, TrainError> {
        let window = &conv.window;
        let (padded, padding) = match symmetric(window) {
            Some(padding) => (None, padding),
            None => (Some(pad(x, window, 0.0)?), [0; 2]),
        };
        let x = padded.as_ref().unwrap_or(x);
        let bias = self.bias(layer)?;
        Ok(x.f_conv2d(
            self.weight(layer),
            bias.as_ref(),
            window.stride.map(extent),
            padding,
            window.dilation.map(extent),
            extent(conv.groups),
        )?)
    }

    fn weight(&self, layer: &Layer) -> &Tensor {
        // Every convolution and linear layer has one: `Parameters` were made of this graph.
        let at = self.parameters.weight(&full(layer, "weight")).unwrap_or_default();
        &self.views.weights[at]
    }

    fn bias(&self, layer: &Layer) -> Result<Option<Tensor>, TrainError> {
        let bias = self.parameters.vector(&full(layer, "bias")).map(|at| &self.views.vectors[at]);
        Ok(bias.map(|bias| bias.f_to_kind(self.kind)).transpose()?)
    }
}

fn full(layer: &Layer, parameter: &str) -> String {
    format!("{}.{parameter}", layer.name)
}

/// The padding along height and width if both sides have the same.
fn symmetric(window: &Window) -> Option<[i64; 2]> {
    let [top, left, bottom, right] = window.padding;
    (top == bottom && left == right).then(|| [extent(top), extent(left)])
}

fn pad(x: &Tensor, window: &Window, value: f64) -> Result<Tensor, TrainError> {
    let [top, left, bottom, right] = window.padding.map(extent);
    Ok(x.f_pad([left, right, top, bottom], "constant", value)?)
}

/// The padding that libtorch's pooling takes itself: at most half the kernel, the same on both sides.
fn pooled(window: &Window) -> Option<[i64; 2]> {
    symmetric(window).filter(|_| (0..2).all(|axis| 2 * window.padding[axis] <= window.kernel[axis]))
}

fn max_pool(x: &Tensor, pool: &Pool) -> Result<Tensor, TrainError> {
    let window = &pool.window;
    let (kernel, stride) = (window.kernel.map(extent), window.stride.map(extent));
    Ok(match pooled(window) {
        Some(padding) => x.f_max_pool2d(kernel, stride, padding, [1, 1], false)?,
        None => pad(x, window, f64::NEG_INFINITY)?.f_max_pool2d(kernel, stride, [0, 0], [1, 1], false)?,
    })
}

fn avg_pool(x: &Tensor, pool: &Pool) -> Result<Tensor, TrainError> {
    let window = &pool.window;
    let (kernel, stride) = (window.kernel.map(extent), window.stride.map(extent));
    if let Some(padding) = pooled(window) {
        return Ok(x.f_avg_pool2d(kernel, stride, padding, false, pool.include_padding, None)?);
    }
    let mean = |x: &Tensor| {
        pad(x, window, 0.0)?.f_avg_pool2d(kernel, stride, [0, 0], false, true, None).map_err(TrainError::from)
    };
    let sum = mean(x)?;
    if pool.include_padding {
        return Ok(sum);
    }
    let ones = tch::no_grad(|| x.f_narrow(0, 0, 1)?.f_narrow(1, 0, 1)?.f_ones_like())?;
    Ok(sum.f_div(&mean(&ones)?)?)
}
