//! Weights to begin training with.

use dlis_formats::Weight;
use dlis_model::{Graph, Network, Op, WeightError};
use ndarray::ArrayD;

/// A network of this graph as training begins: weights of variance `2 / fan-in` (He et al. 2015), biases 0,
/// batch-norms that do nothing yet.
///
/// # Errors
///
/// None that a valid graph leads to; the network is checked like any other.
pub fn initial(graph: Graph, seed: u64) -> Result<Network, WeightError> {
    let (graph, mut weights) = Network::random(graph, seed).into_parts();
    for layer in graph.layers() {
        for parameter in layer.op.parameters() {
            let batch_norm = matches!(layer.op, Op::BatchNorm { .. });
            let value = match parameter.name {
                "bias" | "running_mean" => 0.0,
                "weight" | "running_var" if batch_norm => 1.0,
                _ => continue,
            };
            let name = format!("{}.{}", layer.name, parameter.name);
            weights.insert(name, Weight::F32(ArrayD::from_elem(parameter.dims, value)));
        }
    }
    Network::new(graph, weights)
}
