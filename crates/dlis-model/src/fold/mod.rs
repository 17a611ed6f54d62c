//! Folding batch-norm into the layer before it.

use std::collections::BTreeMap;

use dlis_formats::{ScaledF16, Weight};
use ndarray::{Array1, ArrayD, Axis};

use crate::{Conv2d, Graph, GraphError, Layer, Linear, Network, Op, QuantizationError, Value, WeightError};

/// What can prevent folding.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// A batch-norm divides by zero.
    #[error("batch-norm `{layer}`: channel {channel} has a variance of 0 and the epsilon is 0: it divides by zero")]
    ZeroVariance {
        /// Name of the batch-norm.
        layer: String,
        /// Index of the channel.
        channel: usize,
    },
    /// A folded weight is too large for f32: statistics and weights are far out of proportion.
    #[error("batch-norm `{layer}` cannot be folded: {source}")]
    Overflow {
        /// Name of the last batch-norm folded into the layer.
        layer: String,
        /// The weight that would not be finite.
        source: WeightError,
    },
    /// A weight is not there or the graph is ill-formed, which no valid network leads to.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// As above.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// As above.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
}

/// The network with every batch-norm folded into the convolution or linear layer whose output it alone
/// reads: `y = s (W x + b - mean) + bias` with `s = weight / sqrt(running_var + eps)` is a layer of the
/// weight `s W` and the bias `s (b - mean) + bias` (Jacob et al. 2018, section 3.2).
///
/// The layer keeps its name and gains a bias; the batch-norm is gone. A batch-norm stays where it cannot
/// be folded: it comes before its convolution, or something else (another layer, the network's result)
/// uses what it normalises. Folding twice changes nothing.
///
/// Packed weights keep their format ([`Weight::scale_rows`]), each row times `s` as f32. Of dense ones, those of f16
/// keep their values and gain `s` as scales ([`ScaledF16`]), so that they stay as small; those of f32
/// remain f32, each element rounded once from f64, as are biases.
///
/// The layer's output is now what the batch-norm's was, and so is its quantisation, if the batch-norm's output
/// had one; else it keeps its own. All other tensors keep theirs.
///
/// ```
/// use dlis_model::{Network, fold_batch_norm, zoo};
///
/// let network = Network::random(zoo::mobilenet_cifar10(), 0);
/// let folded = fold_batch_norm(network)?;
/// assert!(folded.graph().layers().iter().all(|layer| layer.op.name() != "batch_norm"));
/// assert_eq!(folded.weight("conv1", "bias").unwrap().dims(), [32]);
/// # Ok::<(), dlis_model::FoldError>(())
/// ```
///
/// # Errors
///
/// [`FoldError::ZeroVariance`] where a batch-norm divides by zero, [`FoldError::Overflow`] where a weight
/// would not be finite.
pub fn fold_batch_norm(network: Network) -> Result<Network, FoldError> {
    let quantizations = network.quantizations().clone();
    let (graph, weights) = network.into_parts();
    let mut weights = Weights(weights);
    let uses = graph.uses();
    // Where each layer's output is found in the folded graph; a folded batch-norm's is its producer's.
    let mut moved: Vec<usize> = Vec::with_capacity(graph.layers().len());
    let mut layers: Vec<Layer> = Vec::with_capacity(graph.layers().len());
    for layer in graph.layers() {
        let resolve = |value: &Value| match *value {
            Value::Input => Value::Input,
            Value::Layer(index) => Value::Layer(moved[index]),
        };
        if let (Op::BatchNorm { eps, .. }, [Value::Layer(from)]) = (layer.op, &layer.inputs[..])
            && uses[*from] == 1
            && let Some(op) = with_bias(&layers[moved[*from]].op)
        {
            let target = &mut layers[moved[*from]];
            weights.fold(&target.name, &layer.name, eps)?;
            target.op = op;
            moved.push(moved[*from]);
        } else {
            let inputs = layer.inputs.iter().map(resolve).collect();
            moved.push(layers.len());
            layers.push(Layer { name: layer.name.clone(), op: layer.op, inputs });
        }
    }
    // In execution order, so that a batch-norm's comes after that of the layer it was folded into.
    let moved_to = |value: Value| match value {
        Value::Input => Value::Input,
        Value::Layer(index) => Value::Layer(moved[index]),
    };
    let mut quantization = BTreeMap::new();
    for value in std::iter::once(Value::Input).chain((0..moved.len()).map(Value::Layer)) {
        if let Some(&of) = quantizations.get(&value) {
            quantization.insert(moved_to(value), of);
        }
    }
    let output = moved_to(graph.output());
    let graph = Graph::new(graph.name().to_owned(), graph.input_shape(), layers, output)?;
    Ok(Network::new(graph, weights.0)?.with_quantization(quantization)?)
}

/// The operation with a bias, if it is one that a batch-norm can be folded into.
fn with_bias(op: &Op) -> Option<Op> {
    match *op {
        Op::Conv2d(conv) => Some(Op::Conv2d(Conv2d { bias: true, ..conv })),
        Op::Linear(linear) => Some(Op::Linear(Linear { bias: true, ..linear })),
        _ => None,
    }
}

/// The weights of the network that is being folded.
struct Weights(BTreeMap<String, Weight>);

impl Weights {
    /// Folds the batch-norm into the weight and bias of the layer `target`.
    fn fold(&mut self, target: &str, batch_norm: &str, eps: f32) -> Result<(), FoldError> {
        let gamma = self.take(batch_norm, "weight")?;
        let beta = self.take(batch_norm, "bias")?;
        let mean = self.take(batch_norm, "running_mean")?;
        let variance = self.take(batch_norm, "running_var")?;
        let variance = variance.mapv(|variance| variance + f64::from(eps));
        if let Some(channel) = variance.iter().position(|&variance| variance <= 0.0) {
            return Err(FoldError::ZeroVariance { layer: batch_norm.to_owned(), channel });
        }
        let scale = gamma / variance.mapv(f64::sqrt);
        let bias = match self.0.contains_key(&format!("{target}.bias")) {
            true => self.take(target, "bias")?,
            false => Array1::zeros(scale.len()),
        };
        let bias = (bias - mean) * &scale + beta;
        let name = format!("{target}.weight");
        let Some(weight) = self.0.remove(&name) else {
            return Err(WeightError::Missing { name, expected: Vec::new() }.into());
        };
        let weight = match weight {
            Weight::F32(weight) => scaled(weight, &scale),
            Weight::F16(halves) => match ScaledF16::from_f16(halves, rounded(&scale)) {
                Ok(folded) => Weight::ScaledF16(folded),
                Err(halves) => scaled(Weight::F16(halves).to_f32().into_owned(), &scale),
            },
            packed => packed.scale_rows(&rounded(&scale)),
        };
        let bias = Weight::F32(bias.mapv(round).into_dyn());
        for (parameter, weight) in [("weight", weight), ("bias", bias)] {
            let name = format!("{target}.{parameter}");
            if let Some((index, value)) = weight.find(|value| !value.is_finite()) {
                let source = WeightError::Value { name, index, value, variance: false };
                return Err(FoldError::Overflow { layer: batch_norm.to_owned(), source });
            }
            self.0.insert(name, weight);
        }
        Ok(())
    }

    /// Removes a vector, as f64.
    fn take(&mut self, layer: &str, parameter: &str) -> Result<Array1<f64>, WeightError> {
        let name = format!("{layer}.{parameter}");
        match self.0.remove(&name) {
            Some(weight) => Ok(weight.to_f32().iter().copied().map(f64::from).collect()),
            None => Err(WeightError::Missing { name, expected: Vec::new() }),
        }
    }
}

fn rounded(values: &Array1<f64>) -> Vec<f32> {
    values.iter().copied().map(round).collect()
}

/// Each filter times its factor, in place.
fn scaled(mut weight: ArrayD<f32>, factors: &Array1<f64>) -> Weight {
    for (mut filter, &factor) in weight.axis_iter_mut(Axis(0)).zip(factors) {
        filter.mapv_inplace(|value| round(f64::from(value) * factor));
    }
    Weight::F32(weight)
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is meant; the result is checked")]
fn round(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests;
