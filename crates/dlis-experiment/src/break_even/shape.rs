//! The distinct layers of a network.

use std::fmt;

use dlis_model::{Graph, GraphError, Op, Shape};
use serde::{Deserialize, Serialize};

use crate::InvalidField;

/// Extent that no channel count, height or width of a measured layer exceeds.
const MAX_EXTENT: usize = 1 << 16;
/// Weights of a layer from which they are put out of the caches before every run: a mebibyte of f32, which is as much as
/// a second-level cache holds.
const COLD_WEIGHTS: usize = 1 << 18;
/// Weights that no measured layer exceeds.
const MAX_WEIGHTS: usize = 1 << 28;

/// A convolution or linear layer with the shape of its input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerShape {
    /// Channels, height, width of the input.
    pub input: [usize; 3],
    /// What it computes; always with a bias, as a folded batch-norm leaves one.
    pub layer: Op,
}

/// A shape and the layers of a network that have it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedShape {
    /// The shape.
    pub shape: LayerShape,
    /// The layers' names, in the order of the network.
    pub layers: Vec<String>,
}

impl LayerShape {
    /// The network of this layer alone.
    ///
    /// # Errors
    ///
    /// If the layer does not fit its input.
    pub fn graph(&self) -> Result<Graph, GraphError> {
        let [channels, height, width] = self.input;
        let mut graph = Graph::builder("layer", Shape::new(channels, height, width));
        let input = graph.input();
        let output = graph.add_layer("layer", self.layer, &[input]);
        graph.finish(output)
    }

    /// Checks that the extents are of a layer that may be measured.
    pub(super) fn validate(&self) -> Result<(), InvalidField> {
        let refuse =
            |found: String| InvalidField::new("shape", "a convolution or linear layer that fits its input", found);
        if self.input.iter().any(|extent| !(1..=MAX_EXTENT).contains(extent)) {
            return Err(refuse(format!("an input of {:?}", self.input)));
        }
        let dims = self.weight_dims().ok_or_else(|| refuse(format!("a layer of {}", self.layer.name())))?;
        let weights = dims.iter().try_fold(1_usize, |product, extent| product.checked_mul(*extent));
        if weights.is_none_or(|weights| !(1..=MAX_WEIGHTS).contains(&weights)) {
            return Err(refuse(format!("weights of {dims:?}")));
        }
        self.graph().map(|_| ()).map_err(|error| refuse(error.to_string()))
    }

    /// The extents of the weight; `None` if the layer has none, or groups that do not divide its channels.
    pub(super) fn weight_dims(&self) -> Option<Vec<usize>> {
        match &self.layer {
            Op::Conv2d(conv) if conv.groups == 0 => None,
            Op::Conv2d(conv) => Some(conv.weight_dims().to_vec()),
            Op::Linear(linear) => Some(vec![linear.out_features, linear.in_features]),
            _ => None,
        }
    }

    /// Whether it is measured with its weights out of the caches. So large a layer reads them from memory in a network
    /// whose weights do not fit the caches; alone, run after run, it would find them there.
    pub fn is_cold(&self) -> bool {
        let weights =
            self.weight_dims().map_or(0, |dims| dims.iter().fold(1, |product, &extent| extent.saturating_mul(product)));
        weights >= COLD_WEIGHTS
    }

    /// Multiply-accumulates of one image, zeros counted.
    pub fn macs(&self) -> u64 {
        self.graph().map_or(0, |graph| graph.macs())
    }
}

/// `conv2d 3x3 64->128 /2 on 16x16`
impl fmt::Display for LayerShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.layer {
            Op::Conv2d(conv) => {
                let [height, width] = conv.window.kernel;
                write!(f, "conv2d {height}x{width} {}->{}", conv.in_channels, conv.out_channels)?;
                if conv.groups > 1 {
                    write!(f, " in {} groups", conv.groups)?;
                }
                if conv.window.stride != [1, 1] {
                    write!(f, " /{}", conv.window.stride[0])?;
                }
                write!(f, " on {}x{}", self.input[1], self.input[2])
            }
            Op::Linear(linear) => write!(f, "linear {}->{}", linear.in_features, linear.out_features),
            other => f.write_str(other.name()),
        }
    }
}

/// The distinct convolutions and linear layers of a graph, in the order of their first; without depthwise
/// ones. `only` keeps the layers whose name contains one of its texts; all, if it is empty.
pub fn shapes(graph: &Graph, only: &[String]) -> Vec<NamedShape> {
    let mut shapes: Vec<NamedShape> = Vec::new();
    for (index, layer) in graph.layers().iter().enumerate() {
        let op = match &layer.op {
            Op::Conv2d(conv) if !conv.is_depthwise() => Op::Conv2d(dlis_model::Conv2d { bias: true, ..*conv }),
            Op::Linear(linear) => Op::Linear(dlis_model::Linear { bias: true, ..*linear }),
            _ => continue,
        };
        if !only.is_empty() && !only.iter().any(|text| layer.name.contains(text.as_str())) {
            continue;
        }
        let Some(&input) = graph.input_shapes(index).first() else { continue };
        let shape = LayerShape { input: [input.channels, input.height, input.width], layer: op };
        match shapes.iter_mut().find(|named| named.shape == shape) {
            Some(named) => named.layers.push(layer.name.clone()),
            None => shapes.push(NamedShape { shape, layers: vec![layer.name.clone()] }),
        }
    }
    shapes
}

/// The [`shapes`] of a network of the zoo, by its name; `None` if there is none of this name.
///
/// ```
/// use dlis_experiment::break_even::shapes_of;
/// assert_eq!(shapes_of("vgg16-cifar10").unwrap()[0].layers, ["features.0"]);
/// assert!(shapes_of("results/my.safetensors").is_none());
/// ```
pub fn shapes_of(network: &str) -> Option<Vec<NamedShape>> {
    dlis_model::zoo::graph(network).ok().map(|graph| shapes(&graph, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_layers_are_one_shape_and_depthwise_ones_none() {
        let vgg = shapes(&dlis_model::zoo::vgg16_cifar10(), &[]);
        let layers: usize = vgg.iter().map(|named| named.layers.len()).sum();
        // 13 convolutions and 2 linear layers: the three of 512 channels on 2x2 are one shape.
        assert_eq!(layers, 15);
        assert!(vgg.len() < layers && vgg.iter().any(|named| named.layers.len() == 3));
        assert_eq!(vgg[0].shape.to_string(), "conv2d 3x3 3->64 on 32x32");
        let macs: u64 = vgg.iter().map(|named| named.shape.macs() * named.layers.len() as u64).sum();
        assert_eq!(macs, dlis_model::zoo::vgg16_cifar10().macs());

        let mobile = shapes(&dlis_model::zoo::mobilenet_cifar10(), &[]);
        assert!(mobile.iter().all(|named| !named.shape.to_string().contains("groups")));
        assert!(mobile.iter().all(|named| named.shape.validate().is_ok()));
    }

    #[test]
    fn layers_are_chosen_by_parts_of_their_names() {
        let graph = dlis_model::zoo::resnet18_cifar10();
        let some = shapes(&graph, &["layer4".to_owned()]);
        assert!(!some.is_empty() && some.iter().flat_map(|named| &named.layers).all(|name| name.contains("layer4")));
        assert!(shapes(&graph, &["nowhere".to_owned()]).is_empty());
    }
}
