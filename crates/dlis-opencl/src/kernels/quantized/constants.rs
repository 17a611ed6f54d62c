//! The numbers that quantised operations are computed with: divided and rounded here, once.

use dlis_backend::OpWeights;
use dlis_formats::{DType, Format, Quantization, Weight};
use dlis_model::Activation;

use crate::device::Buffer;
use crate::error::OpenClError;
use crate::kernel::Stage;

/// What the programs of this folder share.
pub(super) const RESCALE: &str = include_str!("rescale.cl");

/// The nearest float.
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
pub(super) fn narrow(x: f64) -> f32 {
    x as f32
}

/// What an element is multiplied with on its way from one quantisation to another.
pub(super) fn multiplier(from: Quantization, to: Quantization) -> f32 {
    narrow(f64::from(from.scale()) / f64::from(to.scale()))
}

/// The quantisation of an input.
pub(super) fn input(weights: OpWeights<'_>, index: usize) -> Quantization {
    weights.quantization.inputs[index]
}

/// The quantisation of the output, which is u8.
pub(super) fn output(weights: OpWeights<'_>) -> Quantization {
    weights.quantization.output.expect("a u8 output has a quantisation: it has been checked")
}

/// How a result in units of the output's scale becomes a byte: its least and greatest value, where the activation or
/// the byte ends, and the byte that stands for 0.
///
/// Rounding keeps order and the ends of a byte are whole, so that clamping before it changes nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounding {
    pub(super) low: f32,
    pub(super) high: f32,
    pub(super) zero_point: u8,
}

impl Rounding {
    pub(super) fn new(output: Quantization, activation: Option<Activation>) -> Self {
        let zero_point = output.zero_point();
        let (low, high) = (-f32::from(zero_point), 255.0 - f32::from(zero_point));
        let six = narrow(6.0 / f64::from(output.scale()));
        match activation {
            Some(Activation::Relu) => Self { low: 0.0, high, zero_point },
            Some(Activation::Relu6) => Self { low: 0.0, high: high.min(six), zero_point },
            None | Some(Activation::Sigmoid) => Self { low, high, zero_point },
        }
    }

    /// The byte that the steps of another quantisation, multiplied, are.
    fn round(self, v: f32) -> u8 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
        let byte = (v.clamp(self.low, self.high).round_ties_even() as i32 + i32::from(self.zero_point)) as u8;
        byte
    }

    /// What every byte of one quantisation is in another, after an activation.
    pub(super) fn table(from: Quantization, to: Quantization, activation: Option<Activation>) -> [u8; 256] {
        let (multiplier, rounding) = (multiplier(from, to), Self::new(to, activation));
        let mut bytes = 0..=u8::MAX;
        std::array::from_fn(|_| {
            let steps = i16::from(bytes.next().unwrap_or_default()) - i16::from(from.zero_point());
            rounding.round(f32::from(steps) * multiplier)
        })
    }
}

/// The constants of a convolution or linear layer in the device's memory.
#[derive(Debug)]
pub(super) struct Weighted {
    /// What `rescale.cl` calls `q`.
    pub(super) rounding: Buffer,
    /// A multiplier a channel.
    pub(super) multipliers: Buffer,
    /// A bias a channel, in units of the output's scale.
    pub(super) biases: Buffer,
}

impl Weighted {
    /// Of a layer whose weights have these scales; of `slots` slots, a channel has the one that `slot` says.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device has not the memory.
    pub(super) fn upload(
        stage: &Stage<'_>,
        weights: OpWeights<'_>,
        scales: &[f32],
        slots: usize,
        slot: impl Fn(usize) -> usize,
    ) -> Result<Self, OpenClError> {
        let (op, input) = (stage.op, input(weights, 0));
        let mut constants = [0.0; 8];
        let activation = op.epilogue.activation;
        let mut scale = 1.0;
        if op.output.dtype == DType::U8 {
            let output = output(weights);
            let rounding = Rounding::new(output, activation);
            scale = f64::from(output.scale());
            constants[..3].copy_from_slice(&[rounding.low, rounding.high, f32::from(rounding.zero_point)]);
            if let Some(residual) = weights.quantization.residual {
                constants[3..5].copy_from_slice(&[multiplier(residual, output), f32::from(residual.zero_point())]);
            }
        } else {
            constants[..2].copy_from_slice(&match activation {
                None | Some(Activation::Sigmoid) => [f32::NEG_INFINITY, f32::INFINITY],
                Some(Activation::Relu) => [0.0, f32::INFINITY],
                Some(Activation::Relu6) => [0.0, 6.0],
            });
        }
        constants[5] = f32::from(input.zero_point());
        constants[6] = f32::from(u8::from(op.epilogue.residual));
        constants[7] = f32::from(u8::from(activation == Some(Activation::Sigmoid)));
        let (mut multipliers, mut biases) = (vec![0.0; slots], vec![0.0; slots]);
        for (channel, &of_weight) in scales.iter().enumerate() {
            multipliers[slot(channel)] = narrow(f64::from(input.scale()) * f64::from(of_weight) / scale);
            let bias = weights.bias.and_then(|bias| bias.get(channel)).copied().unwrap_or(0.0);
            biases[slot(channel)] = narrow(f64::from(bias) / scale);
        }
        let device = stage.device;
        Ok(Self {
            rounding: device.upload(&constants)?,
            multipliers: device.upload(&multipliers)?,
            biases: device.upload(&biases)?,
        })
    }

    /// Bytes in the device's memory.
    pub(super) fn bytes(&self) -> usize {
        self.rounding.bytes() + self.multipliers.bytes() + self.biases.bytes()
    }
}

/// The compiler's options for a layer with weights. What follows the layer is told at run time.
pub(super) fn options(stage: &Stage<'_>, format: Format) -> String {
    let made = if stage.op.output.dtype == DType::U8 { " -DBYTES" } else { "" };
    let bits = if format == Format::Int4 { " -DFOUR_BITS" } else { "" };
    format!("{}{made}{bits}", ptx(stage))
}

/// The integers of an int8 or int4 weight as they are stored, row-major, and its scales, one a row. Rows of four-bit
/// integers begin with a byte of their own.
pub(super) fn stored(weights: OpWeights<'_>) -> (Vec<u8>, &[f32]) {
    match weights.weight {
        Some(Weight::Int8(weight)) => (bytemuck::cast_slice(weight.values()).to_vec(), weight.scales()),
        Some(Weight::Int4(weight)) => (weight.packed().to_vec(), weight.scales()),
        _ => unreachable!("the weight's format has been checked"),
    }
}

/// The integers of an int8 or int4 weight in row-major order, and its scales, one a row.
pub(super) fn integers(weights: OpWeights<'_>) -> (Vec<i8>, &[f32]) {
    match weights.weight {
        Some(Weight::Int8(weight)) => (weight.values().to_vec(), weight.scales()),
        Some(whole @ Weight::Int4(weight)) => match whole.convert(Format::Int8) {
            Ok(Weight::Int8(wide)) => (wide.values().to_vec(), weight.scales()),
            _ => unreachable!("int8 holds every int4"),
        },
        _ => unreachable!("the weight's format has been checked"),
    }
}

/// The compiler's options where nothing but the device matters.
pub(super) fn ptx(stage: &Stage<'_>) -> &'static str {
    if stage.device.info().has_tensor_cores() { "-DPTX" } else { "" }
}

/// What the sum of each row's products with plain bytes, zero points in the padding, starts from to be that of steps
/// from the zero point.
pub(super) fn corrections(values: &[i8], rows: usize, zero_point: u8) -> Vec<i32> {
    let sum = |row: &[i8]| row.iter().map(|&value| i32::from(value)).sum::<i32>();
    values.chunks((values.len() / rows).max(1)).map(|row| -i32::from(zero_point) * sum(row)).collect()
}
