//! From a graph to operations: batch-norms folded, activations and residual additions fused.

use dlis_backend::{Epilogue, OpSpec, Operation, TensorSpec};
use dlis_formats::Weight;
use dlis_model::{Network, Op, Shape, Value, fold_batch_norm};

use crate::error::PlanError;

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

/// One operation of a lowered network.
#[derive(Clone, Debug)]
pub struct LoweredOp {
    /// The layer that it executes, the first where several were fused.
    pub layer: String,
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
    /// The weight, where there is one.
    pub weight: Option<Weight>,
    /// The bias, where there is one.
    pub bias: Option<Vec<f32>>,
}

impl LoweredOp {
    /// What a kernel is asked to execute, for a batch and with all tensors in one layout.
    pub fn spec(&self, batch: usize, layout: dlis_backend::Layout) -> OpSpec {
        let tensor = |shape: &Shape| TensorSpec::f32(batch, [shape.channels, shape.height, shape.width], layout);
        OpSpec {
            operation: self.operation,
            inputs: self.input_shapes.iter().map(tensor).collect(),
            output: tensor(&self.output_shape),
            epilogue: self.epilogue,
            weight: self.weight.as_ref().map(Weight::format),
        }
    }

    /// The reordering of a tensor, for whoever measures it.
    pub(crate) fn reorder(layer: &str, shape: Shape) -> Self {
        Self {
            layer: layer.to_owned(),
            operation: Operation::Reorder,
            inputs: vec![Source::Input],
            residual: None,
            epilogue: Epilogue::NONE,
            input_shapes: vec![shape],
            output_shape: shape,
            weight: None,
            bias: None,
        }
    }

    /// All operands, the residual last.
    pub fn operands(&self) -> impl Iterator<Item = Source> + '_ {
        self.inputs.iter().copied().chain(self.residual)
    }
}

/// A lowered network: its operations in order, and which operand is its result.
#[derive(Clone, Debug)]
pub(crate) struct Lowered {
    pub(crate) name: String,
    pub(crate) input: Shape,
    pub(crate) ops: Vec<LoweredOp>,
    pub(crate) output: Source,
}

/// Lowers a network.
pub(crate) fn lower(network: &Network) -> Result<Lowered, PlanError> {
    let (graph, mut weights) = fold_batch_norm(network.clone())?.into_parts();
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
            (Value::Layer(from), Source::Op(op)) if uses[from] == 1 => Some(op),
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
            operation,
            inputs,
            residual: None,
            epilogue: Epilogue::NONE,
            input_shapes: graph.input_shapes(index),
            output_shape: graph.shape(Value::Layer(index)),
            weight,
            bias,
        });
        results.push(Source::Op(ops.len() - 1));
    }
    let output = match graph.output() {
        Value::Input => Source::Input,
        Value::Layer(index) => results[index],
    };
    Ok(Lowered { name: graph.name().to_owned(), input: graph.input_shape(), ops, output })
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
