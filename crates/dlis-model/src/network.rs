//! A graph with its weights.

use std::collections::{BTreeMap, HashSet};

use dlis_formats::{Quantization, Weight};
use ndarray::ArrayD;

use crate::error::{QuantizationError, WeightError};
use crate::graph::{Graph, Value};

/// A [`Graph`] with a valid weight for each of its parameters.
///
/// Weights are named `{layer}.{parameter}` as in PyTorch's state dictionaries: `conv1.weight`,
/// `bn1.running_mean`.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    graph: Graph,
    weights: BTreeMap<String, Weight>,
    quantization: BTreeMap<Value, Quantization>,
}

impl Network {
    /// Checks that `weights` are those of the graph: none missing, none more, shapes as declared, every
    /// value finite, variances not negative.
    ///
    /// # Errors
    ///
    /// [`WeightError`] naming the first weight that does not fit.
    pub fn new(graph: Graph, weights: BTreeMap<String, Weight>) -> Result<Self, WeightError> {
        let mut known = HashSet::with_capacity(weights.len());
        for layer in graph.layers() {
            for parameter in layer.op.parameters() {
                let name = format!("{}.{}", layer.name, parameter.name);
                let Some(weight) = weights.get(&name) else {
                    return Err(WeightError::Missing { name, expected: parameter.dims });
                };
                if weight.dims() != parameter.dims {
                    return Err(WeightError::Shape { name, expected: parameter.dims, found: weight.dims().to_vec() });
                }
                let variance = parameter.name == "running_var";
                // Not through `to_f32`: a packed weight may stand for far more elements than it has bytes.
                let wrong = match variance {
                    true => weight.find(|value| !(value.is_finite() && value >= 0.0)),
                    false => weight.find(|value| !value.is_finite()),
                };
                if let Some((index, value)) = wrong {
                    return Err(WeightError::Value { name, index, value, variance });
                }
                known.insert(name);
            }
        }
        if let Some(name) = weights.keys().find(|&name| !known.contains(name)) {
            return Err(WeightError::Unknown { name: name.clone(), graph: graph.name().to_owned() });
        }
        Ok(Self { graph, weights, quantization: BTreeMap::new() })
    }

    /// The same network with these quantisations of tensors instead of any that it has: of its input and of
    /// the outputs of layers. A tensor without one is f32.
    ///
    /// # Errors
    ///
    /// [`QuantizationError`] if a tensor is the output of no layer.
    pub fn with_quantization(self, quantization: BTreeMap<Value, Quantization>) -> Result<Self, QuantizationError> {
        let layers = self.graph.layers().len();
        let beyond = |value: &Value| match *value {
            Value::Layer(index) if index >= layers => Some(index),
            _ => None,
        };
        match quantization.keys().find_map(beyond) {
            Some(layer) => Err(QuantizationError { graph: self.graph.name().to_owned(), layer, layers }),
            None => Ok(Self { quantization, ..self }),
        }
    }

    /// The same network with some weights replaced; quantisations stay.
    ///
    /// # Errors
    ///
    /// [`WeightError`] naming the first weight that does not fit.
    pub fn with_weights(self, changed: impl IntoIterator<Item = (String, Weight)>) -> Result<Self, WeightError> {
        let Self { graph, mut weights, quantization } = self;
        weights.extend(changed);
        Ok(Self { quantization, ..Self::new(graph, weights)? })
    }

    /// A network of this graph with deterministic pseudo-random weights (He et al. 2015: variance
    /// `2 / fan-in`), for timing and for tests: the time of a dense layer does not depend on its values.
    pub fn random(graph: Graph, seed: u64) -> Self {
        let mut state = seed ^ 0x9E37_79B9_7F4A_7C15;
        let mut uniform = move || {
            // SplitMix64 (Steele et al. 2014); the upper 24 bits make a float in [-1, 1).
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut weights = BTreeMap::new();
        for layer in graph.layers() {
            for parameter in layer.op.parameters() {
                let fan_in = parameter.dims.iter().skip(1).product::<usize>().max(1);
                // A uniform variable in [-a, a) has the variance a^2 / 3.
                let amplitude = (6.0 / fan_in as f32).sqrt();
                let mut value = || match (parameter.name, parameter.dims.len()) {
                    ("weight", 2..) => uniform() * amplitude,
                    ("weight" | "running_var", _) => 1.0 + 0.2 * uniform(),
                    _ => 0.1 * uniform(),
                };
                let array = ArrayD::from_shape_simple_fn(parameter.dims.clone(), &mut value);
                weights.insert(format!("{}.{}", layer.name, parameter.name), Weight::F32(array));
            }
        }
        Self { graph, weights, quantization: BTreeMap::new() }
    }

    /// The same network with every weight as dense f32, which changes no value.
    #[must_use]
    pub fn to_f32(self) -> Self {
        let dense = |weight: Weight| match weight {
            Weight::F32(_) => weight,
            other => Weight::F32(other.to_f32().into_owned()),
        };
        let weights = self.weights.into_iter().map(|(name, weight)| (name, dense(weight))).collect();
        Self { weights, ..self }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// All weights by full name.
    pub fn weights(&self) -> &BTreeMap<String, Weight> {
        &self.weights
    }

    /// The weight `{layer}.{parameter}`, where the layer has such a parameter.
    pub fn weight(&self, layer: &str, parameter: &str) -> Option<&Weight> {
        self.weights.get(&format!("{layer}.{parameter}"))
    }

    /// Bytes of all weights in the formats they are in.
    pub fn weight_bytes(&self) -> usize {
        self.weights.values().map(Weight::bytes).sum()
    }

    /// How a tensor is quantised, if it is.
    pub fn quantization(&self, value: Value) -> Option<Quantization> {
        self.quantization.get(&value).copied()
    }

    /// How each tensor that is quantised is.
    pub fn quantizations(&self) -> &BTreeMap<Value, Quantization> {
        &self.quantization
    }

    /// Graph and weights apart, to build another network of them. Quantisations, which belong to the tensors
    /// of this graph, are left out: see [`quantizations`](Self::quantizations).
    pub fn into_parts(self) -> (Graph, BTreeMap<String, Weight>) {
        (self.graph, self.weights)
    }
}

#[cfg(test)]
mod tests {
    use dlis_formats::Format;
    use half::f16;
    use ndarray::arr1;

    use super::*;
    use crate::{Shape, Window};

    fn graph() -> Graph {
        let mut graph = Graph::builder("g", Shape::new(2, 4, 4));
        let x = graph.conv("conv", Value::Input, 3, Window::square(3));
        let x = graph.batch_norm("bn", x);
        graph.finish(x).unwrap()
    }

    /// The error after one change to valid weights.
    fn error(change: impl FnOnce(&mut BTreeMap<String, Weight>)) -> WeightError {
        let (graph, mut weights) = Network::random(graph(), 0).into_parts();
        change(&mut weights);
        Network::new(graph, weights).unwrap_err()
    }

    #[test]
    fn weights_that_do_not_fit_are_named() {
        let vector = |values: &[f32]| Weight::F32(arr1(values).into_dyn());
        let set = |name: &'static str, weight| error(|weights| drop(weights.insert(name.to_owned(), weight)));
        let messages = [
            set("bn.running_var", vector(&[1.0, -1.0, 1.0])),
            set("bn.running_mean", vector(&[f32::NAN, -1.0, 1.0])),
            set("bn.bias", vector(&[0.0; 4])),
            set("conv.bias", vector(&[0.0; 3])),
            error(|weights| drop(weights.remove("conv.weight"))),
        ]
        .map(|error| error.to_string());
        insta::assert_snapshot!(messages.join("\n"), @r"
        weight `bn.running_var`: element 1 is -1, expected a finite number that is not negative
        weight `bn.running_mean`: element 0 is NaN, expected a finite number
        weight `bn.bias`: expected shape [3], found [4]
        weight `conv.bias` belongs to no layer of `g`
        weight `conv.weight` is missing: expected [3, 2, 3, 3]
        ");
    }

    #[test]
    fn random_weights_are_a_valid_network_that_the_seed_decides() {
        let network = Network::random(graph(), 7);
        let (graph, weights) = network.clone().into_parts();
        assert_eq!(Network::new(graph.clone(), weights).unwrap(), network);
        assert_eq!(Network::random(graph.clone(), 7), network);
        assert_ne!(Network::random(graph, 8), network);
    }

    #[test]
    fn replaced_weights_are_checked_and_quantisations_stay() {
        let quantization = BTreeMap::from([(Value::Layer(0), Quantization::new(0.5, 3).unwrap())]);
        let network = Network::random(graph(), 0).with_quantization(quantization.clone()).unwrap();
        let zeros = |len| ("bn.bias".to_owned(), Weight::F32(arr1(&vec![0.0; len]).into_dyn()));
        let replaced = network.clone().with_weights([zeros(3)]).unwrap();
        assert_eq!(replaced.quantizations(), &quantization);
        assert_ne!(replaced.weights()["bn.bias"], network.weights()["bn.bias"]);
        assert!(matches!(network.with_weights([zeros(4)]), Err(WeightError::Shape { .. })));
    }

    #[test]
    fn converting_to_f32_changes_no_value() {
        let (graph, weights) = Network::random(graph(), 0).into_parts();
        let half = |weight: Weight| Weight::F16(weight.to_f32().mapv(f16::from_f32));
        let weights = weights.into_iter().map(|(name, weight)| (name, half(weight))).collect();
        let network = Network::new(graph, weights).unwrap();
        let dense = network.clone().to_f32();
        assert_eq!(dense.weight_bytes(), 2 * network.weight_bytes());
        for (name, weight) in dense.weights() {
            assert_eq!(weight.convert(Format::DenseF16).as_ref(), Ok(&network.weights()[name]));
        }
    }
}
