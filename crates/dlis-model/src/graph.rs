//! The graph of a network: layers in an order in which they can be executed.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{GraphError, LayerError};
use crate::op::{Activation, Conv2d, Linear, Op, Pool};

/// Largest number of elements of any one tensor that a graph may describe (4 Gi): beyond it byte
/// counts would leave the range that files and allocators can honour.
pub const MAX_ELEMENTS: usize = 1 << 32;
/// Largest number of layers a graph may have.
pub const MAX_LAYERS: usize = 1 << 16;

/// Extents of one image's activation: channels, height, width. The batch is a session's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "[usize; 3]", into = "[usize; 3]")]
pub struct Shape {
    /// Channels, or features of a linear layer.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
    /// Channels, height, width.
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// Elements of one image; saturates for a shape that no graph would accept.
    pub const fn elements(&self) -> usize {
        self.channels.saturating_mul(self.height).saturating_mul(self.width)
    }

    /// Height and width.
    pub const fn plane(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    fn checked(channels: usize, [height, width]: [usize; 2]) -> Option<Self> {
        let elements = channels.checked_mul(height)?.checked_mul(width)?;
        (1..=MAX_ELEMENTS).contains(&elements).then_some(Self { channels, height, width })
    }
}

impl From<[usize; 3]> for Shape {
    fn from([channels, height, width]: [usize; 3]) -> Self {
        Self { channels, height, width }
    }
}

impl From<Shape> for [usize; 3] {
    fn from(shape: Shape) -> Self {
        [shape.channels, shape.height, shape.width]
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// A tensor in a graph: its input, or the output of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// The network's input.
    Input,
    /// The output of the layer with this index.
    Layer(usize),
}

/// One layer: a name, what it computes, and of what.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Unique in the graph; `{name}.weight` names its weight.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Its inputs.
    pub inputs: Vec<Value>,
}

/// A valid graph with one input and one output, its layers in execution order and its shapes inferred.
///
/// Build one with [`GraphBuilder`]; every `Graph` in existence has passed validation.
///
/// ```
/// use dlis_model::{Graph, Shape, Window};
///
/// let mut graph = Graph::builder("tiny", Shape::new(3, 32, 32));
/// let x = graph.input();
/// let x = graph.conv("conv1", x, 16, Window::square(3).with_padding(1));
/// let x = graph.batch_norm("bn1", x);
/// let x = graph.relu("relu1", x);
/// let x = graph.global_avg_pool("pool", x);
/// let x = graph.linear("fc", x, 10);
/// let graph = graph.finish(x)?;
/// assert_eq!(graph.output_shape(), Shape::new(10, 1, 1));
/// assert_eq!(graph.macs(), 16 * 27 * 32 * 32 + 16 * 10);
/// assert_eq!(graph.trainable_parameters(), 16 * 27 + 2 * 16 + 16 * 10 + 10);
/// # Ok::<(), dlis_model::GraphError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    name: String,
    input: Shape,
    layers: Vec<Layer>,
    shapes: Vec<Shape>,
    output: Value,
}

impl Graph {
    /// Starts a graph of this name and input shape.
    pub fn builder(name: impl Into<String>, input: Shape) -> GraphBuilder {
        GraphBuilder { name: name.into(), input, layers: Vec::new(), shapes: Vec::new(), error: None }
    }

    /// Validates layers given in execution order and infers their shapes.
    ///
    /// # Errors
    ///
    /// [`GraphError`] naming the layer: an empty graph, a name used twice, an input that comes later,
    /// or an operation that does not fit its inputs.
    pub fn new(name: String, input: Shape, layers: Vec<Layer>, output: Value) -> Result<Self, GraphError> {
        if Shape::checked(input.channels, input.plane()).is_none() {
            return Err(GraphError::Input { graph: name, shape: input });
        }
        if layers.is_empty() || layers.len() > MAX_LAYERS {
            return Err(GraphError::LayerCount { graph: name, count: layers.len(), max: MAX_LAYERS });
        }
        if matches!(output, Value::Layer(index) if index >= layers.len()) {
            return Err(GraphError::Output { graph: name });
        }
        let mut names = HashMap::with_capacity(layers.len());
        let mut shapes = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            let error = |source| GraphError::Layer { graph: name.clone(), layer: layer.name.clone(), source };
            if layer.name.is_empty() || names.insert(layer.name.as_str(), index).is_some() {
                return Err(error(LayerError::Name));
            }
            let mut inputs = Vec::with_capacity(layer.inputs.len());
            for &value in &layer.inputs {
                inputs.push(match value {
                    Value::Input => input,
                    Value::Layer(from) => *shapes.get(from).ok_or_else(|| error(LayerError::Order))?,
                });
            }
            shapes.push(infer(&layer.op, &inputs).map_err(error)?);
        }
        Ok(Self { name, input, layers, shapes, output })
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shape of one input image.
    pub fn input_shape(&self) -> Shape {
        self.input
    }

    /// The layers, in execution order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The tensor that is the network's result.
    pub fn output(&self) -> Value {
        self.output
    }

    /// Shape of a tensor.
    ///
    /// # Panics
    ///
    /// If the value is of another graph.
    pub fn shape(&self, value: Value) -> Shape {
        match value {
            Value::Input => self.input,
            Value::Layer(index) => self.shapes[index],
        }
    }

    /// Shape of the result.
    pub fn output_shape(&self) -> Shape {
        self.shape(self.output)
    }

    /// Shapes of a layer's inputs.
    pub fn input_shapes(&self, layer: usize) -> Vec<Shape> {
        self.layers[layer].inputs.iter().map(|&value| self.shape(value)).collect()
    }

    /// How often each layer's output is read: by the inputs of layers, and once as the network's result.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.layers.len()];
        let inputs = self.layers.iter().flat_map(|layer| layer.inputs.iter().copied());
        for value in inputs.chain([self.output]) {
            if let Value::Layer(index) = value {
                uses[index] += 1;
            }
        }
        uses
    }

    /// Multiply-accumulates of one layer for one image: those of convolutions and linear layers, padding
    /// counted as if it were data (the field's convention). Saturates at [`u64::MAX`].
    pub fn layer_macs(&self, layer: usize) -> u64 {
        match self.layers[layer].op {
            Op::Conv2d(conv) => {
                // Each factor is at most `MAX_ELEMENTS`, so that the product may just leave u64.
                let [_, per_group, height, width] = conv.weight_dims();
                (self.shapes[layer].elements() as u64).saturating_mul((per_group * height * width) as u64)
            }
            Op::Linear(linear) => linear.in_features as u64 * linear.out_features as u64,
            _ => 0,
        }
    }

    /// Multiply-accumulates of the network for one image. Saturates at [`u64::MAX`].
    pub fn macs(&self) -> u64 {
        (0..self.layers.len()).fold(0, |sum, layer| sum.saturating_add(self.layer_macs(layer)))
    }

    /// Trainable parameters of one layer (running statistics are not among them).
    pub fn layer_parameters(&self, layer: usize) -> u64 {
        let count = |dims: &[usize]| dims.iter().map(|&extent| extent as u64).product::<u64>();
        self.layers[layer].op.parameters().iter().filter(|parameter| parameter.trainable).map(|p| count(&p.dims)).sum()
    }

    /// Trainable parameters of the network.
    pub fn trainable_parameters(&self) -> u64 {
        (0..self.layers.len()).map(|layer| self.layer_parameters(layer)).sum()
    }
}

/// The shape that `op` makes of its inputs.
fn infer(op: &Op, inputs: &[Shape]) -> Result<Shape, LayerError> {
    let arity = match op {
        Op::Add | Op::Scale => 2..=2,
        Op::Concat => 1..=inputs.len().max(1),
        _ => 1..=1,
    };
    if !arity.contains(&inputs.len()) {
        return Err(LayerError::Arity { op: op.name(), expected: *arity.start(), found: inputs.len() });
    }
    let x = inputs[0];
    let channels = |expected: usize| {
        if expected == x.channels {
            Ok(())
        } else {
            Err(LayerError::Channels { op: op.name(), expected, found: x.channels })
        }
    };
    let windowed = |window: crate::Window, out_channels| {
        let error = LayerError::Window { window: Box::new(window), input: x };
        let (Some(plane), Some(padded)) = (window.output(x.plane()), window.padded(x.plane())) else {
            return Err(error);
        };
        // Kernels index the padded input, so that its extents (and with them the window's) are bounded too.
        Shape::checked(x.channels, padded).ok_or(LayerError::TooLarge)?;
        Shape::checked(out_channels, plane).ok_or(LayerError::TooLarge)
    };
    match *op {
        Op::Conv2d(conv) => {
            channels(conv.in_channels)?;
            let divides = |n: usize| conv.groups > 0 && n > 0 && n.is_multiple_of(conv.groups);
            if !divides(conv.in_channels) || !divides(conv.out_channels) {
                return Err(LayerError::Groups {
                    groups: conv.groups,
                    inputs: conv.in_channels,
                    outputs: conv.out_channels,
                });
            }
            let weight = conv.weight_dims().into_iter().try_fold(1usize, usize::checked_mul);
            if weight.is_none_or(|elements| elements > MAX_ELEMENTS) {
                return Err(LayerError::TooLarge);
            }
            windowed(conv.window, conv.out_channels)
        }
        Op::Linear(linear) => {
            channels(linear.in_features)?;
            if x.plane() != [1, 1] {
                return Err(LayerError::NotFlat { found: x });
            }
            let weight = linear.in_features.checked_mul(linear.out_features);
            if !weight.is_some_and(|elements| (1..=MAX_ELEMENTS).contains(&elements)) {
                return Err(LayerError::TooLarge);
            }
            Ok(Shape::new(linear.out_features, 1, 1))
        }
        Op::BatchNorm { channels: expected, eps } => {
            channels(expected)?;
            if !(eps.is_finite() && eps >= 0.0) {
                return Err(LayerError::Epsilon { eps });
            }
            Ok(x)
        }
        Op::Activation { .. } | Op::Softmax => Ok(x),
        Op::MaxPool(pool) | Op::AvgPool(pool) => {
            // A window that lies in the padding altogether has no maximum and no mean.
            let Pool { window, .. } = pool;
            let reach = |axis: usize| window.padding[axis].max(window.padding[axis + 2]) < window.kernel[axis];
            if window.dilation != [1; 2] || !reach(0) || !reach(1) {
                return Err(LayerError::Window { window: Box::new(window), input: x });
            }
            windowed(window, x.channels)
        }
        Op::GlobalAvgPool => Ok(Shape::new(x.channels, 1, 1)),
        Op::Add => {
            if inputs[1] != x {
                return Err(LayerError::Mismatch { op: op.name(), first: x, other: inputs[1] });
            }
            Ok(x)
        }
        Op::Concat => {
            let mut sum = 0usize;
            for &other in inputs {
                if other.plane() != x.plane() {
                    return Err(LayerError::Mismatch { op: op.name(), first: x, other });
                }
                sum = sum.checked_add(other.channels).ok_or(LayerError::TooLarge)?;
            }
            Shape::checked(sum, x.plane()).ok_or(LayerError::TooLarge)
        }
        Op::Flatten => Shape::checked(x.elements(), [1, 1]).ok_or(LayerError::TooLarge),
        Op::Scale => {
            if inputs[1] != Shape::new(x.channels, 1, 1) {
                return Err(LayerError::Mismatch { op: op.name(), first: x, other: inputs[1] });
            }
            Ok(x)
        }
    }
}

/// Builds a [`Graph`] layer by layer. The first mistake is kept and reported by
/// [`finish`](Self::finish), so that a network reads as a list of layers.
#[derive(Clone, Debug)]
pub struct GraphBuilder {
    name: String,
    input: Shape,
    layers: Vec<Layer>,
    shapes: Vec<Shape>,
    error: Option<GraphError>,
}

impl GraphBuilder {
    /// The network's input.
    pub fn input(&self) -> Value {
        Value::Input
    }

    /// Shape of a tensor built so far.
    pub fn shape(&self, value: Value) -> Shape {
        match value {
            Value::Input => self.input,
            Value::Layer(index) => self.shapes.get(index).copied().unwrap_or(self.input),
        }
    }

    /// Appends a layer.
    pub fn add_layer(&mut self, name: impl Into<String>, op: Op, inputs: &[Value]) -> Value {
        let layer = Layer { name: name.into(), op, inputs: inputs.to_vec() };
        let shapes: Vec<Shape> = inputs.iter().map(|&value| self.shape(value)).collect();
        let shape = infer(&op, &shapes).unwrap_or_else(|source| {
            let error = GraphError::Layer { graph: self.name.clone(), layer: layer.name.clone(), source };
            self.error.get_or_insert(error);
            shapes.first().copied().unwrap_or(self.input)
        });
        self.layers.push(layer);
        self.shapes.push(shape);
        Value::Layer(self.layers.len() - 1)
    }

    /// A convolution without bias to `out_channels` (batch-norm follows in most networks).
    pub fn conv(&mut self, name: impl Into<String>, x: Value, out_channels: usize, window: crate::Window) -> Value {
        let in_channels = self.shape(x).channels;
        self.add_layer(name, Op::Conv2d(Conv2d { in_channels, out_channels, groups: 1, window, bias: false }), &[x])
    }

    /// A depthwise convolution without bias.
    pub fn depthwise(&mut self, name: impl Into<String>, x: Value, window: crate::Window) -> Value {
        let channels = self.shape(x).channels;
        let conv = Conv2d { in_channels: channels, out_channels: channels, groups: channels, window, bias: false };
        self.add_layer(name, Op::Conv2d(conv), &[x])
    }

    /// A fully connected layer with bias.
    pub fn linear(&mut self, name: impl Into<String>, x: Value, out_features: usize) -> Value {
        let in_features = self.shape(x).channels;
        self.add_layer(name, Op::Linear(Linear { in_features, out_features, bias: true }), &[x])
    }

    /// Batch-norm with PyTorch's epsilon.
    pub fn batch_norm(&mut self, name: impl Into<String>, x: Value) -> Value {
        let channels = self.shape(x).channels;
        self.add_layer(name, Op::BatchNorm { channels, eps: 1e-5 }, &[x])
    }

    /// A rectifier.
    pub fn relu(&mut self, name: impl Into<String>, x: Value) -> Value {
        self.add_layer(name, Op::Activation { function: Activation::Relu }, &[x])
    }

    /// Maximum pooling.
    pub fn max_pool(&mut self, name: impl Into<String>, x: Value, window: crate::Window) -> Value {
        self.add_layer(name, Op::MaxPool(Pool { window, include_padding: false }), &[x])
    }

    /// Global average pooling.
    pub fn global_avg_pool(&mut self, name: impl Into<String>, x: Value) -> Value {
        self.add_layer(name, Op::GlobalAvgPool, &[x])
    }

    /// Element-wise sum.
    pub fn add(&mut self, name: impl Into<String>, a: Value, b: Value) -> Value {
        self.add_layer(name, Op::Add, &[a, b])
    }

    /// Flattening to features.
    pub fn flatten(&mut self, name: impl Into<String>, x: Value) -> Value {
        self.add_layer(name, Op::Flatten, &[x])
    }

    /// Validates the whole.
    ///
    /// # Errors
    ///
    /// The first mistake made while building; see [`Graph::new`].
    pub fn finish(self, output: Value) -> Result<Graph, GraphError> {
        match self.error {
            Some(error) => Err(error),
            None => Graph::new(self.name, self.input, self.layers, output),
        }
    }
}

#[cfg(test)]
mod tests;
