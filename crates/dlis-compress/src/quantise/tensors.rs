//! Which tensors of a network are worth rounding in quantisation-aware training.

use dlis_model::{Activation, Graph, Op, Value};

/// The tensors that integer inference writes to memory, and that are rounded there: all but the network's input and
/// output, those that the layer after them takes over before they are written (a convolution's before its
/// batch-norm, activation or residual addition), and those that only pass on what was rounded (maximum pooling,
/// flattening).
///
/// Where both inputs of an addition are convolutions, the later one takes the addition over.
///
/// ```
/// use dlis_compress::quantised_tensors;
/// use dlis_model::{Value, zoo};
///
/// let graph = zoo::mobilenet_cifar10();
/// let names: Vec<&str> = quantised_tensors(&graph)
///     .iter()
///     .map(|&value| match value {
///         Value::Input => "input",
///         Value::Layer(index) => graph.layers()[index].name.as_str(),
///     })
///     .collect();
/// assert_eq!(names[..3], ["relu", "layers.0.relu1", "layers.0.relu2"]);
/// assert_eq!(names.last(), Some(&"avgpool"));
/// ```
pub fn quantised_tensors(graph: &Graph) -> Vec<Value> {
    let layers = graph.layers();
    let uses = graph.uses();
    // A layer whose result is still in registers when the next one may take it over, and the convolution or linear
    // layer that it began with.
    let mut origin: Vec<Option<usize>> = Vec::with_capacity(layers.len());
    let mut inner = vec![false; layers.len()];
    for (index, layer) in layers.iter().enumerate() {
        let open = |value: &Value| match *value {
            Value::Layer(from) if uses[from] == 1 && graph.output() != Value::Layer(from) => {
                origin[from].map(|first| (first, from))
            }
            _ => None,
        };
        let taken = match layer.op {
            Op::Conv2d(_) | Op::Linear(_) => {
                origin.push(Some(index));
                continue;
            }
            Op::BatchNorm { .. } => open(&layer.inputs[0]),
            Op::Activation { function: Activation::Relu | Activation::Relu6 } => open(&layer.inputs[0]),
            Op::Add => layer.inputs.iter().filter_map(open).max(),
            _ => None,
        };
        if let Some((_, from)) = taken {
            inner[from] = true;
        }
        origin.push(taken.map(|(first, _)| first));
    }
    let listed = |&index: &usize| {
        let passes_on = matches!(layers[index].op, Op::MaxPool(_) | Op::Flatten);
        !inner[index] && !passes_on && graph.output() != Value::Layer(index)
    };
    (0..layers.len()).filter(listed).map(Value::Layer).collect()
}

#[cfg(test)]
mod tests {
    use dlis_model::zoo;

    use super::*;

    fn names(graph: &Graph) -> Vec<String> {
        let name = |value| match value {
            Value::Input => "input".to_owned(),
            Value::Layer(index) => graph.layers()[index].name.clone(),
        };
        quantised_tensors(graph).into_iter().map(name).collect()
    }

    #[test]
    fn a_residual_block_writes_its_inner_activation_its_shortcut_and_its_result() {
        let graph = zoo::resnet18_cifar10();
        let all = names(&graph);
        let of = |block: &str| -> Vec<&str> {
            all.iter().map(String::as_str).filter(|name| name.starts_with(block)).collect()
        };
        assert_eq!(of("layer1.0."), ["layer1.0.relu1", "layer1.0.relu2"]);
        assert_eq!(of("layer2.0."), ["layer2.0.relu1", "layer2.0.bn2", "layer2.0.relu2"]);
        assert_eq!(all.last().map(String::as_str), Some("avgpool"));
    }

    #[test]
    fn pooling_and_the_result_are_not_rounded_again() {
        let graph = zoo::vgg16_cifar10();
        let all = names(&graph);
        assert_eq!(all.len(), 14, "13 convolutions and the first linear layer: {all:?}");
    }
}
