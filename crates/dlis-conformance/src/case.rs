//! One operation with its operands.

use std::fmt;

use dlis_backend::{Epilogue, Layout, OpSpec, Operation};
use dlis_formats::Format;
use dlis_model::{Activation, Window};

use crate::tensor::{Tensor, spec};
use crate::values::Values;

/// Why there is no such case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("case `{case}`: {operation} of {inputs:?}: {what}")]
pub struct InvalidCase {
    case: String,
    operation: &'static str,
    inputs: Vec<[usize; 4]>,
    what: &'static str,
}

/// One operation with its operands. The tensors are NCHW and so is [`op`](Self::op), with a weight in
/// dense f32; [`variants`](Self::variants) are the same operation in every layout and format.
#[derive(Clone, PartialEq)]
pub struct Case {
    /// What reports call it.
    pub name: String,
    /// What is computed.
    pub op: OpSpec,
    /// The inputs.
    pub inputs: Vec<Tensor>,
    /// What is added before the activation, where the epilogue says so.
    pub residual: Option<Tensor>,
    /// The weight, where the operation has one.
    pub weight: Option<Tensor>,
    /// One value a channel of the output, where the operation has them.
    pub bias: Option<Vec<f32>>,
}

impl Case {
    /// An operation on inputs of these extents (`[n, c, h, w]`), its operands filled with numbers that
    /// depend on the name alone.
    ///
    /// ```
    /// use dlis_backend::Operation;
    /// use dlis_conformance::Case;
    /// use dlis_model::{Activation, Conv2d, Window};
    ///
    /// let window = Window::square(3).with_padding(1);
    /// let conv = Conv2d { in_channels: 3, out_channels: 5, groups: 1, window, bias: true };
    /// let case = Case::new("first layer", Operation::Conv2d(conv), &[[1, 3, 8, 8]])?.with_activation(Activation::Relu);
    /// assert_eq!(case.output_dims(), [1, 5, 8, 8]);
    /// # Ok::<(), dlis_conformance::InvalidCase>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidCase`] if a valid graph could not have such a layer.
    pub fn new(name: impl Into<String>, operation: Operation, inputs: &[[usize; 4]]) -> Result<Self, InvalidCase> {
        let name = name.into();
        let output = output_dims(&operation, inputs).map_err(|what| InvalidCase {
            case: name.clone(),
            operation: operation.name(),
            inputs: inputs.to_vec(),
            what,
        })?;
        let mut values = Values::named(&name);
        let mut tensor =
            |dims: [usize; 4]| Tensor::new(dims, (0..dims.iter().product::<usize>()).map(|_| values.unit()).collect());
        let inputs: Vec<Tensor> = inputs.iter().map(|&dims| tensor(dims)).collect();
        let (weight_dims, bias) = match operation {
            Operation::Conv2d(conv) => (Some(conv.weight_dims()), conv.bias),
            Operation::Linear(linear) => (Some([linear.out_features, linear.in_features, 1, 1]), linear.bias),
            Operation::Affine => (Some([output[1], 1, 1, 1]), true),
            _ => (None, false),
        };
        let weight = weight_dims
            .map(|dims| Tensor::new(dims, (0..dims.iter().product::<usize>()).map(|_| values.coarse()).collect()));
        let bias = bias.then(|| (0..output[1]).map(|_| values.unit()).collect());
        let op = OpSpec {
            operation,
            inputs: inputs.iter().map(|input| input.spec(Layout::Nchw)).collect(),
            output: spec(output, Layout::Nchw),
            epilogue: Epilogue::NONE,
            weight: weight.as_ref().map(|_| Format::DenseF32),
        };
        Ok(Self { name, op, inputs, residual: None, weight, bias })
    }

    /// The same case with a tensor added before the activation.
    #[must_use]
    pub fn with_residual(mut self) -> Self {
        let mut values = Values::named(&format!("{} residual", self.name));
        let dims = self.output_dims();
        self.residual = Some(Tensor::new(dims, (0..self.op.output.elements()).map(|_| values.unit()).collect()));
        self.op.epilogue.residual = true;
        self
    }

    /// The same case with a non-linearity applied last.
    #[must_use]
    pub fn with_activation(mut self, function: Activation) -> Self {
        self.op.epilogue.activation = Some(function);
        self
    }

    /// The same case under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same case with the value at each (NCHW) index of each input changed.
    #[must_use]
    pub fn map_inputs(mut self, change: impl Fn(usize, f32) -> f32) -> Self {
        for input in &mut self.inputs {
            for (index, value) in input.values_mut().iter_mut().enumerate() {
                *value = change(index, *value);
            }
        }
        self
    }

    /// The same case over small whole numbers, on which f32 arithmetic is exact.
    #[must_use]
    pub fn over_whole_numbers(mut self) -> Self {
        let mut values = Values::named(&format!("{} whole", self.name));
        let tensors = self.inputs.iter_mut().chain(&mut self.residual).chain(&mut self.weight);
        for value in tensors.flat_map(|tensor| tensor.values_mut()).chain(self.bias.iter_mut().flatten()) {
            *value = values.whole();
        }
        self
    }

    /// Extents of the output, `[n, c, h, w]`.
    pub fn output_dims(&self) -> [usize; 4] {
        let output = self.op.output;
        [output.batch, output.channels, output.height, output.width]
    }

    /// The operation in these layouts and with its weight in this format.
    pub fn spec(&self, input: Layout, output: Layout, format: Format) -> OpSpec {
        OpSpec {
            inputs: self.op.inputs.iter().map(|spec| spec.with_layout(input)).collect(),
            output: self.op.output.with_layout(output),
            weight: self.op.weight.map(|_| format),
            ..self.op.clone()
        }
    }

    /// The operation in every pair of layouts that its batch can be in and, where it has a weight, every format that a weight
    /// of it can be had in ([`weight_in`](Self::weight_in)).
    pub fn variants(&self) -> Vec<OpSpec> {
        let formats: Vec<Format> = match &self.weight {
            None => vec![Format::DenseF32],
            Some(_) => Format::ALL.into_iter().filter(|&format| self.has_format(format)).collect(),
        };
        let pairs = pairs_of_layouts(self.op.output.batch);
        pairs.flat_map(|(input, output)| formats.iter().map(move |&format| self.spec(input, output, format))).collect()
    }

    /// Whether an operand is infinite or NaN.
    pub fn has_specials(&self) -> bool {
        let tensors = self.inputs.iter().chain(&self.residual).chain(&self.weight);
        tensors.flat_map(Tensor::values).chain(self.bias.iter().flatten()).any(|value| !value.is_finite())
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case `{}`: {} ({:?})", self.name, self.op, self.op.operation)
    }
}

/// The layouts that inputs and output of this batch can be in.
pub(crate) fn pairs_of_layouts(batch: usize) -> impl Iterator<Item = (Layout, Layout)> {
    let layouts = move || Layout::ALL.into_iter().filter(move |layout| layout.takes(batch));
    layouts().flat_map(move |input| layouts().map(move |output| (input, output)))
}

/// Extents of the output.
fn output_dims(operation: &Operation, inputs: &[[usize; 4]]) -> Result<[usize; 4], &'static str> {
    let wanted = match operation {
        Operation::Add | Operation::Scale => 2,
        Operation::Concat => inputs.len().max(1),
        _ => 1,
    };
    if inputs.len() != wanted {
        return Err("wrong number of inputs");
    }
    if inputs.iter().flatten().any(|&extent| extent == 0) {
        return Err("an extent is zero");
    }
    let first = inputs[0];
    let [n, c, h, w] = first;
    match operation {
        Operation::Conv2d(conv) => {
            let divides = |channels: usize| conv.groups > 0 && channels > 0 && channels.is_multiple_of(conv.groups);
            if conv.in_channels != c || !divides(conv.in_channels) || !divides(conv.out_channels) {
                return Err("channels or groups do not fit");
            }
            let [h, w] = conv.window.output([h, w]).ok_or("the window does not fit")?;
            Ok([n, conv.out_channels, h, w])
        }
        Operation::Linear(linear) => {
            let fits = linear.in_features == c && linear.out_features > 0 && h * w == 1;
            if fits { Ok([n, linear.out_features, 1, 1]) } else { Err("features do not fit") }
        }
        Operation::MaxPool(pool) | Operation::AvgPool(pool) => {
            let [out_h, out_w] = pool.window.output([h, w]).ok_or("the window does not fit")?;
            let sees = |axis, input, outputs| (0..outputs).all(|output| sees_input(&pool.window, axis, input, output));
            if !sees(0, h, out_h) || !sees(1, w, out_w) {
                return Err("a window lies in the padding altogether");
            }
            Ok([n, c, out_h, out_w])
        }
        Operation::GlobalAvgPool => Ok([n, c, 1, 1]),
        Operation::Add if inputs[1] != first => Err("the inputs differ in shape"),
        Operation::Scale if inputs[1] != [n, c, 1, 1] => Err("the factors are not one a channel"),
        Operation::Concat => {
            if inputs.iter().any(|&[batch, _, height, width]| [batch, height, width] != [n, h, w]) {
                return Err("the inputs differ in more than channels");
            }
            Ok([n, inputs.iter().map(|input| input[1]).sum(), h, w])
        }
        _ => Ok(first),
    }
}

/// Whether, along one axis, a tap of this output's window lies within the input.
fn sees_input(window: &Window, axis: usize, input: usize, output: usize) -> bool {
    (0..window.kernel[axis]).any(|tap| {
        let padded = output * window.stride[axis] + tap * window.dilation[axis];
        padded.checked_sub(window.padding[axis]).is_some_and(|at| at < input)
    })
}

#[cfg(test)]
mod tests {
    use dlis_model::{Conv2d, Linear, Pool};

    use super::*;

    #[test]
    fn impossible_cases_are_refused() {
        let refused = |operation, inputs: &[[usize; 4]]| Case::new("x", operation, inputs).is_err();
        let conv = Conv2d { in_channels: 4, out_channels: 6, groups: 2, window: Window::square(3), bias: false };
        assert!(!refused(Operation::Conv2d(conv), &[[1, 4, 3, 3]]));
        assert!(refused(Operation::Conv2d(conv), &[[1, 4, 2, 3]]));
        assert!(refused(Operation::Conv2d(conv), &[[1, 6, 3, 3]]));
        assert!(refused(Operation::Conv2d(Conv2d { groups: 4, ..conv }), &[[1, 4, 3, 3]]));
        assert!(refused(Operation::Conv2d(Conv2d { groups: 0, ..conv }), &[[1, 4, 3, 3]]));
        assert!(refused(Operation::Linear(Linear { in_features: 4, out_features: 1, bias: false }), &[[1, 4, 1, 2]]));
        let pool = Pool { window: Window::square(2).with_padding(2), include_padding: false };
        assert!(refused(Operation::MaxPool(pool), &[[1, 1, 4, 4]]));
        // Every tap falls beside the one pixel, though the padding is smaller than the window.
        let window = Window { dilation: [2, 2], ..Window::square(2).with_padding(1) };
        assert!(refused(Operation::MaxPool(Pool { window, include_padding: false }), &[[1, 1, 1, 1]]));
        assert!(refused(Operation::Add, &[[1, 2, 3, 4]]));
        assert!(refused(Operation::Add, &[[1, 2, 3, 4], [1, 2, 4, 3]]));
        assert!(refused(Operation::Scale, &[[1, 2, 3, 4], [1, 2, 3, 4]]));
        assert!(refused(Operation::Concat, &[]));
        assert!(refused(Operation::Softmax, &[[1, 0, 1, 1]]));
    }

    #[test]
    fn a_case_with_a_weight_comes_in_every_layout_and_format() {
        let linear = Linear { in_features: 3, out_features: 2, bias: true };
        let case = Case::new("x", Operation::Linear(linear), &[[1, 3, 1, 1]]).unwrap();
        let holding = |case: &Case| Format::ALL.iter().filter(|&&format| case.weight_in(format).is_some()).count();
        assert!(holding(&case) >= 2);
        assert_eq!(case.variants().len(), Layout::STRIDED.len().pow(2) * holding(&case));
        let mut rounded = case.clone();
        rounded.weight.as_mut().unwrap().values_mut()[0] = 0.1;
        assert!(rounded.weight_in(Format::DenseF16).is_none() && holding(&rounded) < holding(&case));
        assert_eq!(rounded.variants().len(), Layout::STRIDED.len().pow(2) * holding(&rounded));
        assert_eq!(Case::new("y", Operation::Reorder, &[[1, 3, 2, 2]]).unwrap().variants().len(), 4);
        assert_eq!(Case::new("y", Operation::Reorder, &[[32, 3, 2, 2]]).unwrap().variants().len(), 9);
    }

    #[test]
    fn operands_depend_on_the_name_alone() {
        let case = |name| Case::new(name, Operation::Add, &[[1, 2, 2, 2]; 2]).unwrap();
        assert_eq!(case("a"), case("a"));
        assert_ne!(case("a").inputs, case("b").inputs);
        assert_ne!(case("a").inputs[0], case("a").inputs[1]);
    }
}
