//! A network computed layer by layer as its definition says: nothing folded, fused, reordered or reused.
#![expect(clippy::cast_possible_truncation, reason = "every layer's result is rounded to f32, as a session's is")]

use dlis_backend::Operation;
use dlis_conformance::{Case, Tensor, reference};
use dlis_model::{Network, Op, Value};

/// The result of a network on a batch of NCHW images.
pub(crate) fn evaluate(network: &Network, batch: usize, input: &[f32]) -> Vec<f32> {
    let output = network.graph().output();
    layers(network, batch, input).into_iter().find(|(value, _)| *value == output).unwrap().1
}

/// The network's input and the result of every layer.
pub(crate) fn layers(network: &Network, batch: usize, input: &[f32]) -> Vec<(Value, Vec<f32>)> {
    let graph = network.graph();
    let shape = graph.input_shape();
    let input = Tensor::new([batch, shape.channels, shape.height, shape.width], input.to_vec());
    let mut results: Vec<Tensor> = Vec::new();
    for layer in graph.layers() {
        let inputs: Vec<Tensor> = layer.inputs.iter().map(|&value| get(&input, &results, value).clone()).collect();
        let parameter = |name: &str| {
            network.weight(&layer.name, name).map(|weight| weight.to_f32().iter().copied().collect::<Vec<f32>>())
        };
        results.push(compute(layer.op, inputs, &parameter));
    }
    let values = std::iter::once(Value::Input).chain((0..results.len()).map(Value::Layer));
    values
        .zip(std::iter::once(&input).chain(&results))
        .map(|(value, tensor)| (value, tensor.values().to_vec()))
        .collect()
}

fn get<'a>(input: &'a Tensor, results: &'a [Tensor], value: Value) -> &'a Tensor {
    match value {
        Value::Input => input,
        Value::Layer(index) => &results[index],
    }
}

fn compute(op: Op, inputs: Vec<Tensor>, parameter: &impl Fn(&str) -> Option<Vec<f32>>) -> Tensor {
    let operation = match op {
        Op::Flatten => {
            let [n, c, h, w] = inputs[0].dims();
            return Tensor::new([n, c * h * w, 1, 1], inputs[0].values().to_vec());
        }
        Op::BatchNorm { eps, .. } => return batch_norm(&inputs[0], eps, parameter),
        Op::Conv2d(conv) => Operation::Conv2d(conv),
        Op::Linear(linear) => Operation::Linear(linear),
        Op::Activation { function } => Operation::Activation(function),
        Op::MaxPool(pool) => Operation::MaxPool(pool),
        Op::AvgPool(pool) => Operation::AvgPool(pool),
        Op::GlobalAvgPool => Operation::GlobalAvgPool,
        Op::Add => Operation::Add,
        Op::Concat => Operation::Concat,
        Op::Softmax => Operation::Softmax,
        Op::Scale => Operation::Scale,
    };
    let dims: Vec<[usize; 4]> = inputs.iter().map(Tensor::dims).collect();
    let mut case = Case::new("layer", operation, &dims).unwrap();
    case.inputs = inputs;
    case.weight = case.weight.map(|weight| Tensor::new(weight.dims(), parameter("weight").unwrap()));
    case.bias = case.bias.map(|_| parameter("bias").unwrap());
    let expected = reference(&case);
    Tensor::new(expected.dims, expected.elements.iter().map(|element| element.value as f32).collect())
}

fn batch_norm(x: &Tensor, eps: f32, parameter: &impl Fn(&str) -> Option<Vec<f32>>) -> Tensor {
    let get = |name| parameter(name).unwrap();
    let (gamma, beta, mean, variance) = (get("weight"), get("bias"), get("running_mean"), get("running_var"));
    let [n, c, h, w] = x.dims();
    let mut out = Vec::with_capacity(x.values().len());
    for (plane, values) in x.values().chunks(h * w).enumerate() {
        let channel = plane % c;
        let [gamma, beta, mean, variance] =
            [&gamma, &beta, &mean, &variance].map(|parameter| f64::from(parameter[channel]));
        out.extend(
            values
                .iter()
                .map(|&value| ((f64::from(value) - mean) / (variance + f64::from(eps)).sqrt() * gamma + beta) as f32),
        );
    }
    Tensor::new([n, c, h, w], out)
}
