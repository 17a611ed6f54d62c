//! The element type of every tensor: f32, or u8 where the network says what its elements stand for.

use dlis_backend::{Backend, Operation, OwnedQuantization};
use dlis_formats::{DType, Format, Quantization, Weight};

use crate::lower::{Lowered, LoweredOp, Source};

/// Element types of an operation: its inputs are all of one, its residual is of that of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types {
    /// Of the inputs.
    pub inputs: DType,
    /// Of the output.
    pub output: DType,
}

impl Types {
    /// All f32.
    pub const F32: Self = Self { inputs: DType::F32, output: DType::F32 };

    /// The operation that moves a tensor from the one type to the other, or to another layout.
    pub(crate) const fn conversion(self) -> Operation {
        match (self.inputs, self.output) {
            (DType::F32, DType::U8) => Operation::Quantize,
            (DType::U8, DType::F32) => Operation::Dequantize,
            _ => Operation::Reorder,
        }
    }
}

/// What the tensors of a conversion of a tensor of this quantisation stand for.
pub(crate) fn quantization_of_conversion(types: Types, quantization: Option<Quantization>) -> OwnedQuantization {
    let input = quantization.filter(|_| types.inputs == DType::U8);
    let output = quantization.filter(|_| types.output == DType::U8);
    OwnedQuantization { inputs: input.into_iter().collect(), residual: None, output }
}

/// Decides the element types of every operation, and expands weights in formats that no kernel executes.
///
/// - A convolution or linear layer runs in u8 if its weight is of integers or ternary and its input has a quantisation;
///   its output is then u8 if that, and its residual, has one too. Otherwise its activations are f32, whatever
///   the format of its weight.
/// - A pooling, sum, concatenation or activation runs in u8 if all its inputs are made as u8 and its output has
///   a quantisation; a max-pooling only moves elements, so that both must be the same, and its output has its
///   input's where the network gives it none.
/// - Everything else is f32.
///
/// Few f16 weights are expanded to f32 to begin with. Of these types the first is taken that some kernel of the backend
/// executes in some layout; failing all, with the weight expanded to dense f32. Where `integers` is false, u8 is tried last.
pub(crate) fn assign_types(lowered: &mut Lowered, backend: &dyn Backend, batch: usize, integers: bool) {
    for index in 0..lowered.ops.len() {
        expand_if_few(&mut lowered.ops[index]);
        if let Operation::MaxPool(_) = lowered.ops[index].operation {
            let input = lowered.ops[index].inputs[0].tensor();
            if lowered.made_as(input) == DType::U8 {
                lowered.quantization[index + 1] = lowered.quantization[index + 1].or(lowered.quantization[input]);
            }
        }
        let mut wishes = wishes(lowered, index);
        if !integers {
            wishes.reverse();
        }
        let quantization = std::mem::take(&mut lowered.quantization);
        let op = &mut lowered.ops[index];
        let mut assigned = wishes.into_iter().any(|types| {
            op.types = types;
            executable(op, backend, batch)
        });
        if let Some(weight) = op.weight.take_if(|weight| !assigned && weight.format() != Format::DenseF32) {
            op.expanded = Some(weight.format());
            op.weight = Some(Weight::F32(weight.to_f32().into_owned()));
            op.types = Types::F32;
            assigned = executable(op, backend, batch);
            if !assigned {
                // What is reported is the network's own format.
                op.expanded = None;
                op.weight = Some(weight);
            }
        }
        let of = |source: Source, dtype: DType| quantization[source.tensor()].filter(|_| dtype == DType::U8);
        op.quantization = OwnedQuantization {
            inputs: op.inputs.iter().filter_map(|&source| of(source, op.types.inputs)).collect(),
            residual: op.residual.and_then(|source| of(source, op.types.output)),
            output: of(Source::Op(index), op.types.output),
        };
        lowered.quantization = quantization;
    }
}

/// Most weights of a layer that are executed in f32 where they are stored in f16: a first layer's, whose bytes are
/// nothing to a network's, and whose decoding would take longer than its arithmetic.
const FEW_WEIGHTS: usize = 1 << 11;

fn expand_if_few(op: &mut LoweredOp) {
    if let Some(weight) = &op.weight
        && weight.format().is_dense()
        && weight.elements() <= FEW_WEIGHTS
    {
        op.expand();
    }
}

/// The element types that an operation may have, best first.
fn wishes(lowered: &Lowered, index: usize) -> Vec<Types> {
    let op = &lowered.ops[index];
    let quantization = |source: Source| lowered.quantization[source.tensor()];
    let (output, residual) = (quantization(Source::Op(index)), op.residual.map(quantization));
    let integers = |weight: &Weight| {
        matches!(weight.format(), Format::Int8 | Format::Int4 | Format::Ternary2Bit | Format::Ternary5In8)
    };
    let inputs = |holds: &dyn Fn(Source) -> bool| op.inputs.iter().all(|&source| holds(source));
    let mut wishes = Vec::with_capacity(3);
    match op.operation {
        Operation::Conv2d(_) | Operation::Linear(_)
            if op.weight.as_ref().is_some_and(integers) && inputs(&|source| quantization(source).is_some()) =>
        {
            if output.is_some() && residual.is_none_or(|residual| residual.is_some()) {
                wishes.push(Types { inputs: DType::U8, output: DType::U8 });
            }
            wishes.push(Types { inputs: DType::U8, output: DType::F32 });
        }
        Operation::MaxPool(_)
        | Operation::AvgPool(_)
        | Operation::GlobalAvgPool
        | Operation::Add
        | Operation::Concat
        | Operation::Activation(_) => {
            let same = |source| quantization(source) == output;
            let fits = !matches!(op.operation, Operation::MaxPool(_)) || inputs(&same);
            if output.is_some() && fits && inputs(&|source| lowered.made_as(source.tensor()) == DType::U8) {
                wishes.push(Types { inputs: DType::U8, output: DType::U8 });
            }
        }
        _ => {}
    }
    wishes.push(Types::F32);
    wishes
}

/// Whether some kernel executes the operation in some layout.
fn executable(op: &LoweredOp, backend: &dyn Backend, batch: usize) -> bool {
    let kernels = || backend.kernels().iter().filter(|kernel| kernel.id().op() == op.operation.name());
    op.layouts(batch).any(|layout| {
        let spec = op.spec(batch, layout);
        kernels().any(|kernel| kernel.support(&spec, backend.hardware()).is_yes())
    })
}
