//! A program of u8 tensors, run step by step by the definition of its operations: every bit is prescribed.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the definition rounds to f32, and to u8 after clamping; extents are small"
)]

use std::collections::HashMap;

use dlis_backend::{OpQuantization, OpWeights, Operation, SlotId, TensorSpec};
use dlis_formats::{DType, Quantization, Weight};
use dlis_model::{Activation, Conv2d, Pool, Window};
use dlis_runtime::Plan;

/// A tensor in NCHW order, whatever its layout in the program.
#[derive(Clone, Debug, PartialEq)]
enum Tensor {
    F32(Vec<f32>),
    U8(Vec<u8>),
}

/// Whether no step computes in f32: then every bit of the result is prescribed.
pub(crate) fn is_exact(plan: &Plan) -> bool {
    plan.program().steps.iter().all(|step| {
        // An exponential is not prescribed to the bit.
        step.op.epilogue.activation != Some(Activation::Sigmoid)
            && (step.op.dtype() == Some(DType::U8)
                || matches!(step.op.operation, Operation::Quantize | Operation::Reorder))
    })
}

/// The result of a plan whose steps are u8 but for conversions.
pub(crate) fn evaluate(plan: &Plan, input: &[f32]) -> Vec<f32> {
    let program = plan.program();
    let mut tensors: HashMap<SlotId, Tensor> = HashMap::new();
    // The slot that was written last at each place: others there are the same bytes under another name.
    let mut latest: HashMap<usize, SlotId> = HashMap::new();
    let offset = |slot: SlotId| program.slots[slot.0].offset;
    latest.insert(offset(program.input), program.input);
    tensors.insert(program.input, Tensor::F32(input.to_vec()));
    for (step, weights) in program.steps.iter().zip(plan.weights()) {
        let read = |slot: &SlotId| &tensors[&latest[&offset(*slot)]];
        let inputs: Vec<(&Tensor, TensorSpec)> =
            step.inputs.iter().map(read).zip(step.op.inputs.iter().copied()).collect();
        let residual = step.residual.as_ref().map(read);
        let scheme = Scheme { quantization: weights.quantization, activation: step.op.epilogue.activation, residual };
        let result = compute(step.op.operation, &inputs, step.op.output, weights, scheme);
        latest.insert(offset(step.output), step.output);
        tensors.insert(step.output, result);
    }
    match &tensors[&latest[&offset(program.output)]] {
        Tensor::F32(values) => values.clone(),
        Tensor::U8(_) => panic!("a result in u8"),
    }
}

#[derive(Clone, Copy)]
struct Scheme<'a> {
    quantization: OpQuantization<'a>,
    activation: Option<Activation>,
    residual: Option<&'a Tensor>,
}

impl Scheme<'_> {
    /// Stores a value in units of the output's scale.
    fn store(&self, mut v: f32, index: usize) -> u8 {
        let output = self.quantization.output.unwrap();
        if let (Some(Tensor::U8(residual)), Some(of)) = (self.residual, self.quantization.residual) {
            let factor = (f64::from(of.scale()) / f64::from(output.scale())) as f32;
            v += (i32::from(residual[index]) - i32::from(of.zero_point())) as f32 * factor;
        }
        v = match self.activation {
            None => v,
            Some(Activation::Relu) => {
                if v < 0.0 {
                    0.0
                } else {
                    v
                }
            }
            Some(Activation::Relu6) => (if v < 0.0 { 0.0 } else { v }).min((6.0 / f64::from(output.scale())) as f32),
            Some(other) => panic!("{other:?} in u8"),
        };
        (v.round_ties_even() as i32 + i32::from(output.zero_point())).clamp(0, 255) as u8
    }

    fn store_f32(&self, v: f32, index: usize) -> f32 {
        let v = match self.residual {
            Some(Tensor::F32(residual)) => v + residual[index],
            _ => v,
        };
        match self.activation {
            None => v,
            Some(Activation::Relu) => v.max(0.0),
            Some(Activation::Relu6) => v.clamp(0.0, 6.0),
            Some(other) => panic!("{other:?} in u8"),
        }
    }
}

fn compute(
    operation: Operation,
    inputs: &[(&Tensor, TensorSpec)],
    output: TensorSpec,
    weights: OpWeights<'_>,
    scheme: Scheme<'_>,
) -> Tensor {
    let quantization = scheme.quantization;
    let (first, spec) = inputs[0];
    let bytes = || match first {
        Tensor::U8(values) => values,
        Tensor::F32(_) => panic!("{operation:?} of f32"),
    };
    let of = |index: usize| quantization.inputs[index];
    // An element of an input in units of the output's scale.
    let rescaled = |index: usize, q: u8| {
        let factor = (f64::from(of(index).scale()) / f64::from(quantization.output.unwrap().scale())) as f32;
        (i32::from(q) - i32::from(of(index).zero_point())) as f32 * factor
    };
    match operation {
        Operation::Reorder => first.clone(),
        Operation::Quantize => match first {
            Tensor::F32(values) => {
                Tensor::U8(values.iter().map(|&v| quantization.output.unwrap().quantize(v)).collect())
            }
            Tensor::U8(_) => panic!("quantised twice"),
        },
        Operation::Dequantize => Tensor::F32(bytes().iter().map(|&q| of(0).dequantize(q)).collect()),
        Operation::Conv2d(conv) => convolve(conv, bytes(), spec, output, weights, scheme),
        Operation::Linear(linear) => {
            let (window, bias) = (Window::square(1), linear.bias);
            let conv =
                Conv2d { in_channels: linear.in_features, out_channels: linear.out_features, groups: 1, window, bias };
            convolve(conv, bytes(), spec, output, weights, scheme)
        }
        Operation::Activation(function) => {
            let scheme = Scheme { activation: Some(function), ..scheme };
            Tensor::U8(bytes().iter().enumerate().map(|(at, &q)| scheme.store(rescaled(0, q), at)).collect())
        }
        Operation::Add => {
            let (Tensor::U8(a), Tensor::U8(b)) = (first, inputs[1].0) else { panic!("a sum of f32") };
            let sum = |(at, (&a, &b))| scheme.store(rescaled(0, a) + rescaled(1, b), at);
            Tensor::U8(a.iter().zip(b).enumerate().map(sum).collect())
        }
        Operation::Concat => {
            let mut values = Vec::new();
            for image in 0..output.batch {
                for (index, (tensor, spec)) in inputs.iter().enumerate() {
                    let Tensor::U8(tensor) = tensor else { panic!("a concatenation of f32") };
                    let len = spec.channels * spec.pixels();
                    let part = &tensor[image * len..][..len];
                    values.extend(part.iter().map(|&q| scheme.store(rescaled(index, q), 0)));
                }
            }
            Tensor::U8(values)
        }
        Operation::MaxPool(pool) => pooled(pool, bytes(), spec, output, |window, _| window.max().unwrap()),
        Operation::AvgPool(pool) => mean(pool, bytes(), spec, output, of(0), scheme),
        Operation::GlobalAvgPool => {
            let window = Window { kernel: [spec.height, spec.width], ..Window::square(1) };
            mean(Pool { window, include_padding: false }, bytes(), spec, output, of(0), scheme)
        }
        other => panic!("{other:?} in u8"),
    }
}

/// Every pixel of the output and the pixels of the input below its window: image, channel, window.
fn windows(window: Window, input: TensorSpec, output: TensorSpec) -> impl Iterator<Item = [usize; 4]> {
    assert!(window.output([input.height, input.width]) == Some([output.height, output.width]));
    let per_image = output.channels * output.pixels();
    (0..output.batch * per_image).map(move |at| {
        let pixel = at % output.pixels();
        [at / per_image, at % per_image / output.pixels(), pixel / output.width, pixel % output.width]
    })
}

/// The place in an input plane of a tap, if it is not padding.
fn tap(window: Window, input: TensorSpec, [y, x]: [usize; 2], [ky, kx]: [usize; 2]) -> Option<usize> {
    let [top, left, ..] = window.padding;
    let row = (y * window.stride[0] + ky * window.dilation[0]).checked_sub(top).filter(|&row| row < input.height)?;
    let column =
        (x * window.stride[1] + kx * window.dilation[1]).checked_sub(left).filter(|&column| column < input.width)?;
    Some(row * input.width + column)
}

fn taps(window: Window) -> impl Iterator<Item = [usize; 2]> {
    let [height, width] = window.kernel;
    (0..height).flat_map(move |ky| (0..width).map(move |kx| [ky, kx]))
}

fn convolve(
    conv: Conv2d,
    x: &[u8],
    input: TensorSpec,
    output: TensorSpec,
    weights: OpWeights<'_>,
    scheme: Scheme<'_>,
) -> Tensor {
    let (values, scales) = integers(weights.weight.unwrap());
    let of = scheme.quantization.inputs[0];
    let per_group = conv.in_channels / conv.groups;
    let kernel = conv.window.kernel[0] * conv.window.kernel[1];
    let (mut bytes, mut floats) = (Vec::new(), Vec::new());
    for (index, [image, channel, row, column]) in windows(conv.window, input, output).enumerate() {
        let group = channel / (conv.out_channels / conv.groups);
        let mut acc = 0i32;
        for from in 0..per_group {
            let plane = &x[(image * input.channels + group * per_group + from) * input.pixels()..][..input.pixels()];
            for (place, offsets) in taps(conv.window).enumerate() {
                if let Some(at) = tap(conv.window, input, [row, column], offsets) {
                    let w = values[(channel * per_group + from) * kernel + place];
                    acc += (i32::from(plane[at]) - i32::from(of.zero_point())) * i32::from(w);
                }
            }
        }
        let product = f64::from(of.scale()) * f64::from(scales[channel]);
        let bias = weights.bias.map_or(0.0, |bias| bias[channel]);
        match scheme.quantization.output {
            Some(to) => {
                let factor = (product / f64::from(to.scale())) as f32;
                let shift = (f64::from(bias) / f64::from(to.scale())) as f32;
                bytes.push(scheme.store(acc as f32 * factor + shift, index));
            }
            None => floats.push(scheme.store_f32(acc as f32 * product as f32 + bias, index)),
        }
    }
    if scheme.quantization.output.is_some() { Tensor::U8(bytes) } else { Tensor::F32(floats) }
}

/// The whole numbers of a weight in row-major order, and its scales.
fn integers(weight: &Weight) -> (Vec<i8>, Vec<f32>) {
    match weight {
        Weight::Int8(weight) => (weight.values().to_vec(), weight.scales().to_vec()),
        Weight::Ternary(weight) => {
            let (scales, counts): (Vec<f32>, Vec<[i8; 2]>) = (0..weight.rows()).map(|row| weight.steps(row)).unzip();
            let value = |row: usize, column: usize| match weight.code(row, column) {
                0 => 0,
                code => counts[row][usize::from(code) - 1],
            };
            let rows = (0..weight.rows()).flat_map(|row| (0..weight.columns()).map(move |column| (row, column)));
            (rows.map(|(row, column)| value(row, column)).collect(), scales)
        }
        _ => panic!("a weight of another format"),
    }
}

fn pooled(
    pool: Pool,
    x: &[u8],
    input: TensorSpec,
    output: TensorSpec,
    of: impl Fn(&mut dyn Iterator<Item = u8>, usize) -> u8,
) -> Tensor {
    let value = |(index, [image, channel, row, column]): (usize, [usize; 4])| {
        let plane = &x[(image * input.channels + channel) * input.pixels()..][..input.pixels()];
        let mut window =
            taps(pool.window).filter_map(|offsets| tap(pool.window, input, [row, column], offsets)).map(|at| plane[at]);
        of(&mut window, index)
    };
    Tensor::U8(windows(pool.window, input, output).enumerate().map(value).collect())
}

fn mean(pool: Pool, x: &[u8], input: TensorSpec, output: TensorSpec, of: Quantization, scheme: Scheme<'_>) -> Tensor {
    let to = scheme.quantization.output.unwrap();
    pooled(pool, x, input, output, |window, index| {
        let (mut sum, mut count) = (0, 0);
        for q in window {
            sum += i32::from(q) - i32::from(of.zero_point());
            count += 1;
        }
        if pool.include_padding {
            count = (pool.window.kernel[0] * pool.window.kernel[1]) as i32;
        }
        let factor = (f64::from(of.scale()) / (f64::from(count) * f64::from(to.scale()))) as f32;
        scheme.store(sum as f32 * factor, index)
    })
}
