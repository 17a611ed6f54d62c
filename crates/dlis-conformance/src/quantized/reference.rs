//! What every quantised operation means, to the bit. Written to be read, not to be fast.

use dlis_backend::Operation;
use dlis_formats::{DType, Quantization};
use dlis_model::{Activation, Window};

use super::case::{Elements, QuantizedCase};
use crate::reference::window::positions;
use crate::tensor::indices;

/// An input by its indices.
struct Input<'a> {
    bytes: &'a [u8],
    dims: [usize; 4],
    quantization: Quantization,
}

impl Input<'_> {
    fn byte(&self, [n, c, y, x]: [usize; 4]) -> u8 {
        let [_, channels, height, width] = self.dims;
        self.bytes[((n * channels + c) * height + y) * width + x]
    }

    /// How many steps from zero an element is.
    fn steps(&self, index: [usize; 4]) -> i64 {
        i64::from(self.byte(index)) - i64::from(self.quantization.zero_point())
    }

    fn scale(&self) -> f64 {
        f64::from(self.quantization.scale())
    }

    /// The elements that the window of an output sees, by their indices; there are none in the padding.
    fn window(&self, window: Window, [n, c, y, x]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
        positions(window, self.dims, [y, x]).map(move |(_, [y, x])| [n, c, y, x])
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
fn narrow(x: f64) -> f32 {
    x as f32
}

/// A result in units of `scale` after the activation.
fn activate(v: f32, function: Option<Activation>, scale: f64) -> f32 {
    match function {
        None => v,
        Some(Activation::Relu) => {
            if v < 0.0 {
                0.0
            } else {
                v
            }
        }
        Some(Activation::Relu6) => {
            let v = if v < 0.0 { 0.0 } else { v };
            let six = narrow(6.0 / scale);
            if v > six { six } else { v }
        }
        Some(Activation::Sigmoid) => unreachable!("no sigmoid is computed in u8"),
    }
}

/// The byte nearest to a number of steps.
fn round(v: f32, output: Quantization) -> u8 {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and makes NaN zero, as the definition wants")]
    let whole = v.round_ties_even() as i32;
    let byte = whole.saturating_add(i32::from(output.zero_point())).clamp(0, 255);
    u8::try_from(byte).unwrap_or(u8::MAX)
}

/// Computes a case.
///
/// # Panics
///
/// If the case lacks what its operation needs: [`QuantizedCase::of`] makes none such.
pub fn quantized_reference(case: &QuantizedCase) -> Elements {
    let dims = case.output_dims();
    match case.op.output.dtype {
        DType::U8 => Elements::Bytes(indices(dims).map(|index| byte(case, index)).collect()),
        _ => Elements::Floats(indices(dims).map(|index| float(case, index)).collect()),
    }
}

fn input(case: &QuantizedCase, which: usize) -> Input<'_> {
    let (Elements::Bytes(bytes), spec) = (&case.inputs[which], case.op.inputs[which]) else {
        unreachable!("inputs are u8 but for those of a quantisation")
    };
    let dims = [spec.batch, spec.channels, spec.height, spec.width];
    Input { bytes, dims, quantization: case.input_quantization[which] }
}

/// `sum of (x - zero_point) * w` over what an output sees, of a convolution or linear layer.
fn sum(case: &QuantizedCase, [n, out, y, x]: [usize; 4]) -> f32 {
    let (input, weight) = (input(case, 0), case.weight.as_ref().expect("a weight"));
    let mut sum = 0;
    match case.op.operation {
        Operation::Conv2d(conv) => {
            let in_group = conv.in_channels / conv.groups;
            let group = out / (conv.out_channels / conv.groups);
            let [kernel_height, kernel_width] = conv.window.kernel;
            for channel in 0..in_group {
                for ([ky, kx], [iy, ix]) in positions(conv.window, input.dims, [y, x]) {
                    let w = weight[((out * in_group + channel) * kernel_height + ky) * kernel_width + kx];
                    sum += input.steps([n, group * in_group + channel, iy, ix]) * i64::from(w);
                }
            }
        }
        _ => {
            for feature in 0..input.dims[1] {
                sum += input.steps([n, feature, 0, 0]) * i64::from(weight[out * input.dims[1] + feature]);
            }
        }
    }
    i32::try_from(sum).expect("sums fit 32 bits") as f32
}

/// An element of a u8 result.
fn byte(case: &QuantizedCase, index: [usize; 4]) -> u8 {
    let [n, c, y, x] = index;
    let output = case.output_quantization.expect("a u8 output has a quantisation");
    let scale = f64::from(output.scale());
    // An input's steps in units of the output's.
    let rescaled = |input: &Input<'_>, index| input.steps(index) as f32 * narrow(input.scale() / scale);
    let epilogue = case.op.epilogue.activation;
    match case.op.operation {
        Operation::Conv2d(_) | Operation::Linear(_) => {
            let input = input(case, 0);
            let multiplier = narrow(input.scale() * f64::from(case.scales[c]) / scale);
            let bias = case.bias.as_ref().map_or(0.0, |bias| narrow(f64::from(bias[c]) / scale));
            let mut v = sum(case, index) * multiplier + bias;
            if let (Some(Elements::Bytes(bytes)), Some(quantization)) = (&case.residual, case.residual_quantization) {
                v += rescaled(&Input { bytes, dims: case.output_dims(), quantization }, index);
            }
            round(activate(v, epilogue, scale), output)
        }
        Operation::MaxPool(pool) => {
            let input = input(case, 0);
            input.window(pool.window, index).map(|at| input.byte(at)).max().expect("a window sees something")
        }
        Operation::AvgPool(pool) => {
            let input = input(case, 0);
            let seen = input.window(pool.window, index).count();
            let count = if pool.include_padding { pool.window.taps() } else { seen };
            let sum: i64 = input.window(pool.window, index).map(|at| input.steps(at)).sum();
            round(sum as f32 * narrow(input.scale() / (count as f64 * scale)), output)
        }
        Operation::GlobalAvgPool => {
            let input = input(case, 0);
            let [_, _, height, width] = input.dims;
            let sum: i64 =
                (0..height).flat_map(|y| (0..width).map(move |x| [n, c, y, x])).map(|at| input.steps(at)).sum();
            round(sum as f32 * narrow(input.scale() / ((height * width) as f64 * scale)), output)
        }
        Operation::Add => {
            let v = rescaled(&input(case, 0), index) + rescaled(&input(case, 1), index);
            round(activate(v, epilogue, scale), output)
        }
        Operation::Activation(function) => {
            round(activate(rescaled(&input(case, 0), index), Some(function), scale), output)
        }
        Operation::Concat => {
            let mut channel = c;
            for which in 0..case.inputs.len() {
                let input = input(case, which);
                if channel < input.dims[1] {
                    return round(rescaled(&input, [n, channel, y, x]), output);
                }
                channel -= input.dims[1];
            }
            unreachable!("the output has as many channels as the inputs together")
        }
        Operation::Reorder => input(case, 0).byte(index),
        Operation::Quantize => {
            let Elements::Floats(floats) = &case.inputs[0] else { unreachable!("f32 is quantised") };
            let [_, channels, height, width] = case.output_dims();
            round(floats[((n * channels + c) * height + y) * width + x] / output.scale(), output)
        }
        Operation::Dequantize | Operation::Affine | Operation::Softmax | Operation::Scale => {
            unreachable!("not computed in u8")
        }
    }
}

/// An element of an f32 result.
fn float(case: &QuantizedCase, index: [usize; 4]) -> f32 {
    let input = input(case, 0);
    if case.op.operation == Operation::Dequantize {
        return input.steps(index) as f32 * input.quantization.scale();
    }
    let [n, c, y, x] = index;
    let multiplier = narrow(input.scale() * f64::from(case.scales[c]));
    let mut v = sum(case, index) * multiplier + case.bias.as_ref().map_or(0.0, |bias| bias[c]);
    if let Some(Elements::Floats(residual)) = &case.residual {
        let [_, channels, height, width] = case.output_dims();
        v += residual[((n * channels + c) * height + y) * width + x];
    }
    case.op.epilogue.activation.map_or(v, |function| function.apply(v))
}

#[cfg(test)]
mod tests {
    use dlis_model::{Conv2d, Pool};

    use super::*;
    use crate::case::Case;
    use crate::quantized::Flavour;

    fn of(scale: f32, zero_point: u8) -> Quantization {
        Quantization::new(scale, zero_point).unwrap()
    }

    /// Worked by hand: zero point 10, weights 1 and -2, padding counts as zero.
    #[test]
    fn a_convolution_is_what_paper_and_pencil_say() {
        let window = Window { kernel: [1, 2], stride: [1, 1], padding: [0, 1, 0, 0], dilation: [1, 1] };
        let conv = Conv2d { in_channels: 1, out_channels: 1, groups: 1, window, bias: true };
        let case = Case::new("by hand", Operation::Conv2d(conv), &[[1, 1, 1, 3]]).unwrap();
        let mut case = QuantizedCase::of(&case, DType::U8, Flavour::Plain).unwrap();
        case.inputs = vec![Elements::Bytes(vec![13, 10, 255])];
        (case.weight, case.scales, case.bias) = (Some(vec![1, -2]), vec![0.5], Some(vec![0.75]));
        (case.input_quantization, case.output_quantization) = (vec![of(2.0, 10)], Some(of(1.0, 100)));
        // Steps 3, 0, 245; sums -6, 3, -490; values -6 + 0.75, 3.75 and -489.25.
        assert_eq!(quantized_reference(&case), Elements::Bytes(vec![95, 104, 0]));
        // Half a step is rounded to the even byte: 0.5 and 1.5 steps.
        case.bias = Some(vec![0.0]);
        case.inputs = vec![Elements::Bytes(vec![10, 10, 10])];
        for (bias, byte) in [(0.5, 100), (1.5, 102), (-0.5, 100), (-1.5, 98), (1e9, 255), (-1e9, 0)] {
            case.bias = Some(vec![bias]);
            assert_eq!(quantized_reference(&case), Elements::Bytes(vec![byte; 3]), "{bias}");
        }
        let mut floats = case.clone();
        floats.op.output.dtype = DType::F32;
        (floats.inputs, floats.bias) = (vec![Elements::Bytes(vec![13, 10, 255])], Some(vec![0.75]));
        assert_eq!(quantized_reference(&floats), Elements::Floats(vec![-5.25, 3.75, -489.25]));
    }

    #[test]
    fn a_mean_leaves_the_padding_out_or_counts_it_as_zero() {
        let window = Window { padding: [0, 1, 0, 0], ..Window::square(1) };
        let window = Window { kernel: [1, 2], ..window };
        for (include_padding, first) in [(false, 24), (true, 14)] {
            let pool = Operation::AvgPool(Pool { window, include_padding });
            let case = Case::new("mean", pool, &[[1, 1, 1, 2]]).unwrap();
            let mut case = QuantizedCase::of(&case, DType::U8, Flavour::Plain).unwrap();
            case.inputs = vec![Elements::Bytes(vec![30, 16])];
            (case.input_quantization, case.output_quantization) = (vec![of(1.0, 10)], Some(of(1.0, 4)));
            assert_eq!(quantized_reference(&case), Elements::Bytes(vec![first, 17]));
        }
    }
}
