//! What can be wrong with a graph, with its weights, or with a file.

use crate::{Shape, Window};

/// What can be wrong with a graph.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The input has no elements, or too many.
    #[error("network `{graph}`: an input of {shape} has no elements or more than {}", crate::graph::MAX_ELEMENTS)]
    Input {
        /// Name of the network.
        graph: String,
        /// The shape given.
        shape: Shape,
    },
    /// No layers, or too many.
    #[error("network `{graph}`: {count} layers, expected 1 to {max}")]
    LayerCount {
        /// Name of the network.
        graph: String,
        /// Layers found.
        count: usize,
        /// Most layers allowed.
        max: usize,
    },
    /// The output names no layer.
    #[error("network `{graph}`: the output is not one of its layers")]
    Output {
        /// Name of the network.
        graph: String,
    },
    /// A layer is ill-formed or does not fit its inputs.
    #[error("network `{graph}`, layer `{layer}`: {source}")]
    Layer {
        /// Name of the network.
        graph: String,
        /// Name of the layer.
        layer: String,
        /// What is wrong with it.
        source: LayerError,
    },
}

/// What can be wrong with one layer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// Empty or taken.
    #[error("its name is empty or used by an earlier layer")]
    Name,
    /// An input is not an earlier layer.
    #[error("an input is not an earlier layer")]
    Order,
    /// Wrong number of inputs.
    #[error("{op} takes {expected} input(s), found {found}")]
    Arity {
        /// The operation.
        op: &'static str,
        /// Inputs it takes.
        expected: usize,
        /// Inputs it has.
        found: usize,
    },
    /// Wrong number of channels.
    #[error("{op} expects {expected} channels, its input has {found}")]
    Channels {
        /// The operation.
        op: &'static str,
        /// Channels it was declared with.
        expected: usize,
        /// Channels of its input.
        found: usize,
    },
    /// Groups do not divide the channels.
    #[error("{groups} groups do not divide {inputs} input and {outputs} output channels")]
    Groups {
        /// Groups.
        groups: usize,
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
    },
    /// The window has a zero extent, does not fit the padded input, or (pooling) sees padding alone.
    #[error("the window {window:?} is ill-formed or does not fit an input of {input}")]
    Window {
        /// The window; boxed, being by far the largest part of any error.
        window: Box<Window>,
        /// The input.
        input: Shape,
    },
    /// A linear layer's input is an image.
    #[error("a linear layer expects a flat input, found {found}: add a flatten or pooling layer before it")]
    NotFlat {
        /// The input.
        found: Shape,
    },
    /// Inputs that must agree do not.
    #[error("{op} cannot combine {first} with {other}")]
    Mismatch {
        /// The operation.
        op: &'static str,
        /// First input.
        first: Shape,
        /// The one that does not agree with it.
        other: Shape,
    },
    /// The epsilon of a batch-norm is negative or not finite.
    #[error("batch-norm epsilon must be finite and not negative, found {eps}")]
    Epsilon {
        /// The value found.
        eps: f32,
    },
    /// A tensor would have no elements or too many.
    #[error("a tensor would be empty or have more than {} elements", crate::graph::MAX_ELEMENTS)]
    TooLarge,
}

/// What can be wrong with the weights of a network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// A parameter is not there.
    #[error("weight `{name}` is missing: expected {expected:?}")]
    Missing {
        /// Full name, `{layer}.{parameter}`.
        name: String,
        /// Extents expected.
        expected: Vec<usize>,
    },
    /// A tensor belongs to no layer.
    #[error("weight `{name}` belongs to no layer of `{graph}`")]
    Unknown {
        /// Full name.
        name: String,
        /// Name of the network.
        graph: String,
    },
    /// A parameter has other extents.
    #[error("weight `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// Full name.
        name: String,
        /// Extents expected.
        expected: Vec<usize>,
        /// Extents found.
        found: Vec<usize>,
    },
    /// A parameter holds NaN or an infinity, or a variance is negative.
    #[error("weight `{name}`: element {index} is {value}, expected a finite number{}", if *.variance { " that is not negative" } else { "" })]
    Value {
        /// Full name.
        name: String,
        /// Row-major index of the first such element.
        index: usize,
        /// Its value.
        value: f32,
        /// Whether it is a variance.
        variance: bool,
    },
}

/// A quantisation of a tensor that the network does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("network `{graph}`: a quantisation is of the output of layer {layer}, expected a layer below {layers}")]
pub struct QuantizationError {
    /// Name of the network.
    pub graph: String,
    /// Index of the layer.
    pub layer: usize,
    /// Layers there are.
    pub layers: usize,
}
