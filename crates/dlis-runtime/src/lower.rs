//! From a graph to operations: batch-norms folded, activations and residual additions fused.

use dlis_backend::{Epilogue, Layout, OpSpec, Operation, OwnedQuantization, TensorSpec};
use dlis_formats::{DType, Format, Quantization, Weight};
use dlis_model::{Network, Op, Shape, Value, fold_batch_norm};

use crate::error::PlanError;
use crate::types::{Types, quantization_of_conversion};

/// Where an operand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The network's input.
    Input,
    /// The result of the operation with this index.
    Op(usize),
    /// The elements of the result of another operand, in NCHW order, as features: operand and features.
    Flat {
        /// The operation whose result is flattened; `None` for the network's input.
        of: Option<usize>,
        /// Elements of one image.
        features: usize,
    },
}

impl Source {
    /// The tensor whose elements it has: 0 for the network's input, then the operations' results.
    pub(crate) const fn tensor(self) -> usize {
        match self {
            Self::Input | Self::Flat { of: None, .. } => 0,
            Self::Op(op) | Self::Flat { of: Some(op), .. } => op + 1,
        }
    }
}

/// One operation of a lowered network.
#[derive(Clone, Debug)]
pub struct LoweredOp {
    /// The layer that it executes, the first where several were fused.
    pub layer: String,
    /// Whose result its output is: of the last layer where several were fused. A value of the network with
    /// its batch-norms folded.
    pub value: Value,
    /// What is computed.
    pub operation: Operation,
    /// Of what.
    pub inputs: Vec<Source>,
    /// What is added before the activation.
    pub residual: Option<Source>,
    /// What follows.
    pub epilogue: Epilogue,
    /// Shapes of the inputs, per image.
    pub input_shapes: Vec<Shape>,
    /// Shape of the output, per image.
    pub output_shape: Shape,
    /// The weight, where there is one, in the format that is executed.
    pub weight: Option<Weight>,
    /// The format that the weight had, its batch-norm folded, where it is executed as dense f32: no kernel executes that
    /// format, or one for f32 is faster.
    pub expanded: Option<Format>,
    /// The bias, where there is one.
    pub bias: Option<Vec<f32>>,
    /// Element types of inputs and output.
    pub types: Types,
    /// What the elements of u8 tensors stand for.
    pub quantization: OwnedQuantization,
}

impl LoweredOp {
    /// What a kernel is asked to execute, for a batch, with all tensors in one layout and the weight as it is.
    pub fn spec(&self, batch: usize, layout: Layout) -> OpSpec {
        let tensor = |shape: &Shape, dtype| {
            TensorSpec::f32(batch, [shape.channels, shape.height, shape.width], layout).with_dtype(dtype)
        };
        OpSpec {
            operation: self.operation,
            inputs: self.input_shapes.iter().map(|shape| tensor(shape, self.types.inputs)).collect(),
            output: tensor(&self.output_shape, self.types.output),
            epilogue: self.epilogue,
            weight: self.weight.as_ref().map(Weight::format),
        }
    }

    /// The formats in which its weight may be executed: as it is, and dense f16, with a scale or without, also as f32,
    /// which is the same numbers. Half the bytes are faster to read, but some algorithms transform what they read, and
    /// are faster still.
    pub(crate) fn formats(&self) -> impl Iterator<Item = Option<Format>> + use<> {
        let format = self.weight.as_ref().map(Weight::format);
        [format]
            .into_iter()
            .chain(format.filter(|&of| of.is_dense() && of != Format::DenseF32).map(|_| Some(Format::DenseF32)))
    }

    /// The weight in one of [`formats`](Self::formats), where that is not its own.
    pub(crate) fn converted(&self, format: Option<Format>) -> Option<Weight> {
        let weight = self.weight.as_ref().filter(|weight| Some(weight.format()) != format)?;
        Some(Weight::F32(weight.to_f32().into_owned()))
    }

    /// Makes the weight dense f32.
    pub(crate) fn expand(&mut self) {
        if let Some(weight) = self.weight.take_if(|weight| weight.format() != Format::DenseF32) {
            self.expanded = Some(weight.format());
            self.weight = Some(Weight::F32(weight.to_f32().into_owned()));
        }
    }

    /// Bytes of the weight in one of [`formats`](Self::formats).
    pub(crate) fn weight_bytes_in(&self, format: Option<Format>) -> usize {
        let Some(weight) = &self.weight else { return 0 };
        let as_it_is = Some(weight.format()) == format;
        if as_it_is { weight.bytes() } else { weight.elements() * DType::F32.bytes() }
    }

    /// The layouts that all its tensors can be in, for a batch. Flattened operands come in NCHW order, so that images
    /// of theirs are no lanes.
    pub(crate) fn layouts(&self, batch: usize) -> impl Iterator<Item = Layout> + use<> {
        let is_flat = |source: Source| matches!(source, Source::Flat { .. });
        let flat = |shape: &Shape| TensorSpec::f32(batch, [shape.channels, shape.height, shape.width], Layout::Nchw);
        let inputs = self.inputs.iter().zip(&self.input_shapes).map(|(&source, shape)| (source, shape));
        let operands = inputs.chain(self.residual.map(|source| (source, &self.output_shape)));
        let flats: Vec<TensorSpec> =
            operands.filter(|&(source, _)| is_flat(source)).map(|(_, shape)| flat(shape)).collect();
        let takes = move |layout: &Layout| layout.takes(batch) && flats.iter().all(|flat| flat.is_in(*layout));
        Layout::ALL.into_iter().filter(takes)
    }

    /// The moving of a tensor to another layout or element type, for whoever measures it.
    pub(crate) fn conversion(layer: &str, shape: Shape, types: Types, quantization: Option<Quantization>) -> Self {
        Self {
            layer: layer.to_owned(),
            value: Value::Input,
            operation: types.conversion(),
            inputs: vec![Source::Input],
            residual: None,
            epilogue: Epilogue::NONE,
            input_shapes: vec![shape],
            output_shape: shape,
            weight: None,
            expanded: None,
            bias: None,
            types,
            quantization: quantization_of_conversion(types, quantization),
        }
    }

    /// All operands, the residual last.
    pub fn operands(&self) -> impl Iterator<Item = Source> + '_ {
        self.inputs.iter().copied().chain(self.residual)
    }

    /// All operands with the element types in which they are wanted, the residual last.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (Source, DType)> + '_ {
        let inputs = self.inputs.iter().map(|&source| (source, self.types.inputs));
        inputs.chain(self.residual.map(|source| (source, self.types.output)))
    }
}

/// A lowered network: its operations in order, and which operand is its result.
#[derive(Clone, Debug)]
pub(crate) struct Lowered {
    pub(crate) name: String,
    pub(crate) input: Shape,
    pub(crate) ops: Vec<LoweredOp>,
    pub(crate) output: Source,
    /// What the elements of each tensor stand for when it is u8: the network's input, then the operations'
    /// results. `None` for what is f32 only.
    pub(crate) quantization: Vec<Option<Quantization>>,
}

impl Lowered {
    /// The element type in which a tensor is made.
    pub(crate) fn made_as(&self, tensor: usize) -> DType {
        tensor.checked_sub(1).map_or(DType::F32, |op| self.ops[op].types.output)
    }

    /// Name and shape of a tensor.
    pub(crate) fn tensor(&self, tensor: usize) -> (&str, Shape) {
        match tensor.checked_sub(1).map(|op| &self.ops[op]) {
            None => ("input", self.input),
            Some(op) => (&op.layer, op.output_shape),
        }
    }
}

/// How much of a network is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fusion {
    /// Batch-norms are folded, activations and residual additions fused: for running.
    Full,
    /// Every layer but a flatten is an operation in f32: for looking at its result.
    None,
}

/// Lowers a network. All element types are f32 yet.
pub(crate) fn lower(network: Network, fusion: Fusion) -> Result<Lowered, PlanError> {
    let network = match fusion {
        Fusion::Full => fold_batch_norm(network)?,
        Fusion::None => network,
    };
    let quantization = |value| network.quantization(value).filter(|_| fusion == Fusion::Full);
    let of_layers: Vec<Option<Quantization>> =
        (0..network.graph().layers().len()).map(|layer| quantization(Value::Layer(layer))).collect();
    let of_input = quantization(Value::Input);
    let (graph, mut weights) = network.into_parts();
    let uses = graph.uses();
    let mut ops: Vec<LoweredOp> = Vec::new();
    // What each layer's result has become.
    let mut results: Vec<Source> = Vec::new();
    for (index, layer) in graph.layers().iter().enumerate() {
        let source = |value: &Value| match value {
            Value::Input => Source::Input,
            Value::Layer(from) => results[*from],
        };
        let inputs: Vec<Source> = layer.inputs.iter().map(source).collect();
        // The operation that makes an input, if nothing else uses it.
        let sole = |position: usize| match (layer.inputs[position], inputs[position]) {
            (Value::Layer(from), Source::Op(op)) if uses[from] == 1 && fusion == Fusion::Full => Some(op),
            _ => None,
        };
        // Taken, not copied: the weights of the largest networks are not held twice.
        let mut parameter = |name: &str| weights.remove(&format!("{}.{name}", layer.name));
        let values = |weight: Weight| weight.to_f32().iter().copied().collect::<Vec<f32>>();
        let mut weight = parameter("weight");
        let mut bias = parameter("bias").map(values);
        let operation = match layer.op {
            Op::Conv2d(conv) => Operation::Conv2d(conv),
            Op::Linear(linear) => Operation::Linear(linear),
            Op::BatchNorm { eps, .. } => {
                let mut statistics = |name| parameter(name).map(values).unwrap_or_default();
                let (mean, variance) = (statistics("running_mean"), statistics("running_var"));
                let gamma = weight.take().map(values).unwrap_or_default();
                let (scale, shift) = affine(eps, &gamma, &bias.take().unwrap_or_default(), &mean, &variance);
                weight = Some(Weight::F32(ndarray::Array1::from_vec(scale).into_dyn()));
                bias = Some(shift);
                Operation::Affine
            }
            Op::Activation { function } => {
                if let Some(op) = sole(0).filter(|&op| takes_activation(&ops[op])) {
                    ops[op].epilogue.activation = Some(function);
                    ops[op].value = Value::Layer(index);
                    results.push(Source::Op(op));
                    continue;
                }
                Operation::Activation(function)
            }
            Op::Flatten => {
                let features = graph.shape(Value::Layer(index)).channels;
                results.push(match inputs[0] {
                    Source::Input => Source::Flat { of: None, features },
                    Source::Op(op) => Source::Flat { of: Some(op), features },
                    flat @ Source::Flat { .. } => flat,
                });
                continue;
            }
            Op::Add => {
                // The later of the two operands adds the earlier as it is stored.
                let fused = [(0, 1), (1, 0)].into_iter().find_map(|(one, other)| {
                    let op = sole(one).filter(|&op| takes_residual(&ops[op]))?;
                    let earlier = match inputs[other] {
                        Source::Input => true,
                        Source::Op(of) => of < op,
                        Source::Flat { .. } => false,
                    };
                    earlier.then_some((op, inputs[other]))
                });
                if let Some((op, residual)) = fused {
                    ops[op].epilogue.residual = true;
                    ops[op].residual = Some(residual);
                    ops[op].value = Value::Layer(index);
                    results.push(Source::Op(op));
                    continue;
                }
                Operation::Add
            }
            Op::MaxPool(pool) => Operation::MaxPool(pool),
            Op::AvgPool(pool) => Operation::AvgPool(pool),
            Op::GlobalAvgPool => Operation::GlobalAvgPool,
            Op::Concat => Operation::Concat,
            Op::Softmax => Operation::Softmax,
            Op::Scale => Operation::Scale,
        };
        ops.push(LoweredOp {
            layer: layer.name.clone(),
            value: Value::Layer(index),
            operation,
            inputs,
            residual: None,
            epilogue: Epilogue::NONE,
            input_shapes: graph.input_shapes(index),
            output_shape: graph.shape(Value::Layer(index)),
            weight,
            expanded: None,
            bias,
            types: Types::F32,
            quantization: OwnedQuantization::default(),
        });
        results.push(Source::Op(ops.len() - 1));
    }
    let output = match graph.output() {
        Value::Input => Source::Input,
        Value::Layer(index) => results[index],
    };
    let of_op = |op: &LoweredOp| match op.value {
        Value::Input => None,
        Value::Layer(layer) => of_layers[layer],
    };
    let quantization = std::iter::once(of_input).chain(ops.iter().map(of_op)).collect();
    Ok(Lowered { name: graph.name().to_owned(), input: graph.input_shape(), ops, output, quantization })
}

/// Scale and shift of a batch-norm that could not be folded, computed in f64.
#[expect(clippy::cast_possible_truncation, reason = "rounded once, at the end")]
fn affine(eps: f32, gamma: &[f32], beta: &[f32], mean: &[f32], variance: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let scale: Vec<f64> = gamma
        .iter()
        .zip(variance)
        .map(|(&gamma, &variance)| f64::from(gamma) / (f64::from(variance) + f64::from(eps)).sqrt())
        .collect();
    let shift = beta
        .iter()
        .zip(mean)
        .zip(&scale)
        .map(|((&beta, &mean), scale)| (f64::from(beta) - f64::from(mean) * scale) as f32);
    let shift = shift.collect();
    (scale.into_iter().map(|scale| scale as f32).collect(), shift)
}

fn takes_activation(op: &LoweredOp) -> bool {
    matches!(op.operation, Operation::Conv2d(_) | Operation::Linear(_) | Operation::Add | Operation::Affine)
        && op.epilogue.activation.is_none()
}

fn takes_residual(op: &LoweredOp) -> bool {
    matches!(op.operation, Operation::Conv2d(_) | Operation::Linear(_)) && op.epilogue == Epilogue::NONE
}
