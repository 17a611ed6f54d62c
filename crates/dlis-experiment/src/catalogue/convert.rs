//! Weights in other formats, where that changes no value.

use std::collections::BTreeSet;

use dlis_formats::{Format, Weight};
use dlis_model::{Network, Op};

/// Share of zeros from which a dense weight counts as pruned.
const PRUNED: f64 = 0.5;

/// Names of the weights of convolutions and linear layers.
pub(super) fn layer_weights(network: &Network) -> impl Iterator<Item = String> + '_ {
    let weighted = |op: &Op| matches!(op, Op::Conv2d(_) | Op::Linear(_));
    network
        .graph()
        .layers()
        .iter()
        .filter(move |layer| weighted(&layer.op))
        .map(|layer| format!("{}.weight", layer.name))
}

/// Elements that are zero, and all, over the weights of convolutions and linear layers.
pub(super) fn zeros(network: &Network) -> (u64, u64) {
    let weights = layer_weights(network).filter_map(|name| network.weights().get(&name));
    weights.fold((0, 0), |(zeros, all), weight| (zeros + zeros_of(weight), all + weight.elements() as u64))
}

fn zeros_of(weight: &Weight) -> u64 {
    weight.zeros() as u64
}

/// Whether a recipe compressed this weight: it is in no dense format, or at least half of it is zero.
fn is_compressed(weight: &Weight) -> bool {
    !weight.format().is_dense() || zeros_of(weight) as f64 >= PRUNED * weight.elements().max(1) as f64
}

/// The network with its compressed layers in this format. `dense-f32` makes every weight dense, so that the same
/// kernels run as without compression.
///
/// # Errors
///
/// A clause that says which layer cannot be converted, and why.
pub(super) fn convert(network: Network, format: Format) -> Result<Network, String> {
    if format == Format::DenseF32 {
        return Ok(network.to_f32());
    }
    let compressed: BTreeSet<String> =
        layer_weights(&network).filter(|name| network.weights().get(name).is_some_and(is_compressed)).collect();
    if compressed.is_empty() {
        return Err("no layer of it is compressed: expected `stored` or `dense-f32`".to_owned());
    }
    let mut converted = Vec::with_capacity(compressed.len());
    for name in compressed {
        let Some(weight) = network.weights().get(&name) else { continue };
        let weight =
            weight.convert(format).map_err(|error| format!("weight `{name}` is {}: {error}", weight.format()))?;
        converted.push((name, weight));
    }
    network.with_weights(converted).map_err(|error| error.to_string())
}
