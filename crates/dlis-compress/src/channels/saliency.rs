//! How much channels matter.

use dlis_model::{Graph, Network, Op, Value};
use ndarray::Axis;

use super::dependencies::{Dependencies, Mixing};
use super::{Channels, Criterion};
use crate::selection::weighted;
use crate::{CompressError, Context};

/// The saliency of each unit: the sum of its channels'.
pub(super) fn of_units(
    channels: &Channels,
    network: &Network,
    dependencies: &Dependencies,
    context: &mut Context<'_>,
) -> Result<Vec<f64>, CompressError> {
    let graph = network.graph();
    let mut saliency = vec![0.0; dependencies.len()];
    let mut add = |value: Value, signal: &[f64]| {
        for (&unit, &signal) in dependencies.units(value).iter().zip(signal) {
            saliency[unit as usize] += signal;
        }
    };
    match channels.criterion {
        Criterion::Fisher => {
            let tensors = mixed(graph);
            let doing = "the Fisher signal".to_owned();
            let seed = context.seed();
            let signals = context.trainer().fisher(network, &tensors, channels.images, seed);
            let signals = signals.map_err(|source| CompressError::Trainer { doing: doing.clone(), source })?;
            let contract = |problem: String| CompressError::Contract { doing: doing.clone(), problem };
            if signals.len() != tensors.len() {
                return Err(contract(format!("{} vectors for {} tensors", signals.len(), tensors.len())));
            }
            for (&tensor, signal) in tensors.iter().zip(&signals) {
                let expected = graph.shape(tensor).channels;
                if signal.len() != expected {
                    return Err(contract(format!("{} numbers for {tensor:?} of {expected} channels", signal.len())));
                }
                if let Some(number) = signal.iter().find(|number| !(number.is_finite() && **number >= 0.0)) {
                    return Err(contract(format!("{number} for {tensor:?} is not a finite number of at least 0")));
                }
                add(tensor, signal);
            }
        }
        Criterion::L1 => {
            for index in weighted(graph) {
                let Some(weight) = network.weight(&graph.layers()[index].name, "weight") else { continue };
                let norm = |row: ndarray::ArrayViewD<'_, f32>| row.iter().map(|&v| f64::from(v.abs())).sum::<f64>();
                let norms: Vec<f64> = weight.to_f32().axis_iter(Axis(0)).map(norm).collect();
                let mean = norms.iter().sum::<f64>() / norms.len().max(1) as f64;
                let relative: Vec<f64> = norms.iter().map(|norm| if mean > 0.0 { norm / mean } else { 0.0 }).collect();
                add(Value::Layer(index), &relative);
            }
        }
        Criterion::BatchNorm => {
            let mut any = false;
            for (index, layer) in graph.layers().iter().enumerate() {
                if let (Op::BatchNorm { .. }, Some(scale)) = (layer.op, network.weight(&layer.name, "weight")) {
                    let magnitudes: Vec<f64> = scale.to_f32().iter().map(|&value| f64::from(value.abs())).collect();
                    add(Value::Layer(index), &magnitudes);
                    any = true;
                }
            }
            if !any {
                let problem = "the criterion `batch-norm` needs a network with batch-norm".to_owned();
                return Err(CompressError::Layer { layer: "(all)".to_owned(), problem });
            }
        }
    }
    Ok(saliency)
}

/// The tensors at which channels meet: what convolutions (depthwise ones excepted) and linear layers read, before any
/// flattening. Whatever a channel does to the loss, it does through one of them.
pub(super) fn mixed(graph: &Graph) -> Vec<Value> {
    let mut tensors: Vec<Value> = Vec::new();
    for index in weighted(graph) {
        let layer = &graph.layers()[index];
        if matches!(Mixing::of(&layer.op), Mixing::None) {
            continue;
        }
        let mut value = layer.inputs[0];
        while let Value::Layer(from) = value
            && graph.layers()[from].op == Op::Flatten
        {
            value = graph.layers()[from].inputs[0];
        }
        if value != Value::Input && !tensors.contains(&value) {
            tensors.push(value);
        }
    }
    tensors
}
