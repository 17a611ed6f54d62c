//! What a compression did, in numbers.

use dlis_formats::Weight;
use dlis_model::{Network, Value};
use serde::Serialize;

use crate::selection::weighted;

/// Counts over a layer or a network. Those of a network are over convolutions' and linear layers' weights, but
/// for `bytes`, which are of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Elements of weights.
    pub weights: u64,
    /// Those that are not zero.
    pub non_zeros: u64,
    /// Multiply-accumulates for one image if every weight counts.
    pub macs: u64,
    /// Multiply-accumulates for one image if only non-zero weights count.
    pub non_zero_macs: u64,
    /// Bytes of the weights as they are stored.
    pub bytes: u64,
}

impl Counts {
    /// The sums over a network.
    pub fn of(network: &Network) -> Self {
        let mut sum = Self::default();
        for layer in weighted(network.graph()) {
            let counts = Self::of_layer(network, layer);
            sum.weights += counts.weights;
            sum.non_zeros += counts.non_zeros;
            sum.macs = sum.macs.saturating_add(counts.macs);
            sum.non_zero_macs = sum.non_zero_macs.saturating_add(counts.non_zero_macs);
        }
        sum.bytes = network.weight_bytes() as u64;
        sum
    }

    /// The counts of one layer's weight; all 0 for a layer without.
    fn of_layer(network: &Network, layer: usize) -> Self {
        let graph = network.graph();
        let Some(weight) = network.weight(&graph.layers()[layer].name, "weight") else { return Self::default() };
        let non_zeros = non_zeros(weight);
        let [height, width] = graph.shape(Value::Layer(layer)).plane();
        Self {
            weights: weight.elements() as u64,
            non_zeros,
            macs: graph.layer_macs(layer),
            non_zero_macs: non_zeros.saturating_mul((height * width) as u64),
            bytes: weight.bytes() as u64,
        }
    }

    /// Share of the weights that are zero.
    pub fn sparsity(&self) -> f64 {
        if self.weights == 0 { 0.0 } else { 1.0 - self.non_zeros as f64 / self.weights as f64 }
    }
}

/// Elements that are not zero.
pub(crate) fn non_zeros(weight: &Weight) -> u64 {
    weight.to_f32().iter().filter(|&&value| value != 0.0).count() as u64
}

/// One convolution or linear layer before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerReport {
    /// Its name.
    pub layer: String,
    /// Before.
    pub before: Counts,
    /// After.
    pub after: Counts,
    /// The format that its weight has after.
    pub format: String,
}

/// A network before and after a step, or a whole recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// The step, as in `prune-90/0-magnitude`; `store` for the conversion at the end.
    pub step: String,
    /// Sums before.
    pub before: Counts,
    /// Sums after.
    pub after: Counts,
    /// Convolutions and linear layers, in execution order.
    pub layers: Vec<LayerReport>,
    /// Share of test images classified correctly after the step, if it was measured.
    pub accuracy: Option<f64>,
}

impl StepReport {
    /// Compares networks whose layers have the same names.
    pub fn new(step: impl Into<String>, before: &Network, after: &Network, accuracy: Option<f64>) -> Self {
        let index_before = |name: &str| before.graph().layers().iter().position(|layer| layer.name == name);
        let layers = weighted(after.graph()).map(|index| {
            let layer = after.graph().layers()[index].name.clone();
            LayerReport {
                before: index_before(&layer).map_or_else(Counts::default, |index| Counts::of_layer(before, index)),
                after: Counts::of_layer(after, index),
                format: after.weight(&layer, "weight").map_or_else(String::new, |weight| weight.format().to_string()),
                layer,
            }
        });
        let layers = layers.collect();
        Self { step: step.into(), before: Counts::of(before), after: Counts::of(after), layers, accuracy }
    }
}

/// What a recipe did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the recipe.
    pub recipe: String,
    /// Name of the network.
    pub network: String,
    /// Every step, those of the recipes it is based on first, the conversion to stored formats last.
    pub steps: Vec<StepReport>,
}

impl Report {
    /// The last accuracy that was measured.
    pub fn accuracy(&self) -> Option<f64> {
        self.steps.iter().rev().find_map(|step| step.accuracy)
    }
}

/// A compressed network and how it came to be.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// The network to deploy: batch-norm folded, weights in their formats.
    pub network: Network,
    /// The network as its last step left it, before folding and conversion: what other recipes go on from.
    pub trained: Network,
    /// What was done.
    pub report: Report,
}
