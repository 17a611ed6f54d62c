//! Taking weights out of a network.

use dlis_model::{Graph, Network, WeightError};
use ndarray::ArrayD;

/// Full name of a layer's weight.
pub(crate) fn weight_name(graph: &Graph, layer: usize) -> String {
    format!("{}.weight", graph.layers()[layer].name)
}

/// These weights as dense f32 in row-major order.
pub(crate) fn dense(network: &Network, names: &[String]) -> Result<Vec<ArrayD<f32>>, WeightError> {
    names
        .iter()
        .map(|name| match network.weights().get(name) {
            Some(weight) => Ok(weight.to_f32().as_standard_layout().into_owned()),
            None => Err(WeightError::Missing { name: name.clone(), expected: Vec::new() }),
        })
        .collect()
}
