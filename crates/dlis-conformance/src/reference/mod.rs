//! What every operation means: plain loops straight from the definition, in f64.
//!
//! Written to be read, not to be fast. Besides its value, each element of the result carries what a
//! fair comparison needs: a bound on the rounding error that *any* order of the same f32 additions and
//! multiplications can make.
//!
//! For a sum of `k` products the error of f32 arithmetic, in whatever order and with or without fused
//! multiply-add, is at most `(k + 1) * u / (1 - (k + 1) * u)` times the sum of the absolute products,
//! `u` being half of `f32::EPSILON` (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
//! section 3.1). Bounds here are counted in `f32::EPSILON`, which leaves a factor of two; a bias and a
//! residual are terms like any other. Each term may besides underflow: subnormal results may be flushed
//! to zero, as GPUs do. Operations that only move or select values have a bound of zero.
//!
//! NaN goes where the definition takes it: also through a maximum and through every activation. The
//! padding of a convolution contributes nothing (not zero times the weight). Of a weight of zero in a format that
//! is sparse, [`Element::or_nan`].

mod channels;
pub(crate) mod window;

use dlis_backend::Operation;
use dlis_model::Activation;

use crate::case::Case;
use crate::formats::leaves_zeros_out;
use crate::tensor::{Tensor, indices};

/// One element of a reference result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Element {
    /// The result.
    pub value: f64,
    /// The rounding error that f32 arithmetic may make, in units of [`f32::EPSILON`].
    pub bound: f64,
    /// What coarser arithmetic loses a share of: the sum of the absolute terms, and of the result.
    pub magnitude: f64,
    /// Whether the result before the activation is infinite or NaN.
    pub special: bool,
    /// Whether NaN is right besides: a weight of zero meets an infinity or NaN, and the format lets kernels
    /// leave zeros out. The value is that without them.
    pub or_nan: bool,
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Extents, `[n, c, h, w]`.
    pub dims: [usize; 4],
    /// The elements, NCHW.
    pub elements: Vec<Element>,
}

/// A sum in the making.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    value: f64,
    /// Sum of the absolute terms.
    magnitude: f64,
    /// Rounding operations; none for a value that is only moved.
    roundings: usize,
    /// Whether products of zero and an infinity or NaN were left out.
    left_out: bool,
}

/// Smallest normal f32 in units of its epsilon: what a term may lose by underflow.
const UNDERFLOW: f64 = f32::MIN_POSITIVE as f64 / f32::EPSILON as f64;

impl Sum {
    fn exactly(value: f64) -> Self {
        Self { value, magnitude: value.abs(), roundings: 0, left_out: false }
    }

    fn add(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
        self.roundings += 1;
    }

    /// A product with a weight, which is left out where the weight is zero and may be.
    fn add_product(&mut self, x: f64, weight: f64, sparse: bool) {
        if sparse && weight == 0.0 && !x.is_finite() {
            self.left_out = true;
        } else {
            self.add(x * weight);
        }
    }

    fn divided_by(self, count: usize) -> Self {
        let count = count as f64;
        Self { value: self.value / count, magnitude: self.magnitude / count, roundings: self.roundings + 1, ..self }
    }

    fn element(self) -> Element {
        let bound = match self.roundings {
            0 => 0.0,
            roundings => (roundings + 1) as f64 * (self.magnitude + UNDERFLOW),
        };
        let special = !self.value.is_finite();
        Element { value: self.value, bound, magnitude: self.magnitude, special, or_nan: self.left_out }
    }
}

/// Computes a case.
pub fn reference(case: &Case) -> Expected {
    let weight = || case.weight.as_ref().expect("a case has the weight its operation needs");
    let at = |index| case.inputs[0].at(index);
    let dims = case.output_dims();
    let sparse = leaves_zeros_out(case.op.weight);
    let compute = |index: [usize; 4]| -> Element {
        let [n, c, y, x] = index;
        let bias = case.bias.as_ref().map(|bias| f64::from(bias[c]));
        let mut sum = match case.op.operation {
            Operation::Conv2d(conv) => window::convolution(&conv, &case.inputs[0], (weight(), sparse), bias, index),
            Operation::Linear(_) => channels::linear(&case.inputs[0], (weight(), sparse), bias, index),
            Operation::MaxPool(pool) => window::max_pool(&pool, &case.inputs[0], index),
            Operation::AvgPool(pool) => window::avg_pool(&pool, &case.inputs[0], index),
            Operation::GlobalAvgPool => window::global_avg_pool(&case.inputs[0], index),
            Operation::Affine => {
                let mut sum = Sum::default();
                sum.add(at(index) * weight().at([c, 0, 0, 0]));
                sum.add(bias.unwrap_or(0.0));
                sum
            }
            Operation::Add => {
                let mut sum = Sum::exactly(at(index));
                sum.add(case.inputs[1].at(index));
                sum
            }
            Operation::Scale => {
                let mut sum = Sum::default();
                sum.add(at(index) * case.inputs[1].at([n, c, 0, 0]));
                sum
            }
            Operation::Concat => channels::concat(&case.inputs, index),
            // In real numbers all of them change nothing.
            Operation::Reorder | Operation::Quantize | Operation::Dequantize => Sum::exactly(at(index)),
            Operation::Activation(function) => {
                return residual_and(case, index, activate(function, Sum::exactly(at(index)).element()));
            }
            Operation::Softmax => return residual_and(case, index, channels::softmax(&case.inputs[0], [n, c, y, x])),
        };
        if let Some(residual) = &case.residual {
            sum.add(residual.at(index));
        }
        epilogue(case, sum.element())
    };
    Expected { dims, elements: indices(dims).map(compute).collect() }
}

/// The epilogue of an operation whose result is not a plain sum.
fn residual_and(case: &Case, index: [usize; 4], element: Element) -> Element {
    let Some(residual) = &case.residual else { return epilogue(case, element) };
    let residual = residual.at(index);
    let value = element.value + residual;
    let bound = element.bound + 2.0 * (element.value.abs() + residual.abs() + UNDERFLOW);
    let magnitude = element.magnitude + residual.abs();
    epilogue(case, Element { value, bound, magnitude, special: !value.is_finite(), or_nan: element.or_nan })
}

fn epilogue(case: &Case, element: Element) -> Element {
    match case.op.epilogue.activation {
        Some(function) => activate(function, element),
        None => element,
    }
}

/// What a fast exponential may lose, in units of epsilon relative to the result.
const EXP: f64 = 8.0;

/// A non-linearity, and what it makes of the error before it: its steepest slope times that, and for a
/// sigmoid its own.
fn activate(function: Activation, before: Element) -> Element {
    let x = before.value;
    // An infinity has no rounding error, and what becomes of it is finite and exact.
    let incoming = if before.special { 0.0 } else { before.bound };
    // A sigmoid is the flatter the farther out, so that a quarter is no less than what comes through, and its own
    // result is rounded besides.
    let mut magnitude = if before.special { 0.0 } else { before.magnitude };
    let (value, bound) = match function {
        Activation::Relu => (if x < 0.0 { 0.0 } else { x }, incoming),
        // Keeps a NaN, as `max` and `min` would not.
        Activation::Relu6 => (x.clamp(0.0, 6.0), incoming),
        Activation::Sigmoid => {
            let value = 1.0 / (1.0 + (-x).exp());
            magnitude = magnitude / 4.0 + value;
            (value, incoming / 4.0 + EXP * (value + UNDERFLOW))
        }
    };
    Element { value, bound, magnitude, special: before.special, or_nan: before.or_nan }
}

impl Expected {
    /// The values rounded to f32.
    pub fn values(&self) -> Tensor {
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
        let values = self.elements.iter().map(|element| element.value as f32).collect();
        Tensor::new(self.dims, values)
    }
}

#[cfg(test)]
mod tests;
