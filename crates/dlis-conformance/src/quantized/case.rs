//! One quantised operation with its operands.

use std::fmt;

use dlis_backend::{Layout, OpQuantization, OpSpec, OpWeights, Operation};
use dlis_formats::{DType, Format, Int4, Int8, Quantization, Ternary, TernaryPacking, Weight};
use dlis_model::Activation;

use crate::case::Case;
use crate::case::pairs_of_layouts;
use crate::tensor::{indices, spec};
use crate::values::Values;

/// The elements of a tensor, NCHW.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Of u8.
    Bytes(Vec<u8>),
    /// Of f32.
    Floats(Vec<f32>),
}

impl Elements {
    /// The bytes of the elements of a tensor of these extents, in the order of a layout.
    pub fn in_layout(&self, dims: [usize; 4], layout: Layout) -> Vec<u8> {
        let spec = spec(dims, layout);
        let places = indices(dims).map(|index| spec.offset(index));
        match self {
            Self::Bytes(values) => {
                let mut bytes = vec![0; values.len()];
                places.zip(values).for_each(|(place, &value)| bytes[place] = value);
                bytes
            }
            Self::Floats(values) => {
                let mut floats = vec![0.0; values.len()];
                places.zip(values).for_each(|(place, &value)| floats[place] = value);
                floats.into_iter().flat_map(f32::to_ne_bytes).collect()
            }
        }
    }
}

/// What the operands of a quantised case are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// All bytes, all weights, results over most of a byte.
    Plain,
    /// Weights of four bits.
    FourBits,
    /// Weights of three values a row, in every ratio; many bytes of 0 and 255.
    Ternary,
    /// Bytes of 0 and 255, weights of -127 and 127, so that partial sums are as large as they get.
    Extreme,
    /// Results far beyond both ends of a byte.
    Saturating,
    /// Scales that are powers of two, so that many results lie exactly between two bytes.
    Halves,
}

/// One quantised operation with its operands. The tensors are NCHW and so is [`op`](Self::op).
#[derive(Clone, PartialEq)]
pub struct QuantizedCase {
    /// What reports call it.
    pub name: String,
    /// What is computed, a weight being of [`Format::Int8`].
    pub op: OpSpec,
    /// The inputs.
    pub inputs: Vec<Elements>,
    /// What is added, where the epilogue says so.
    pub residual: Option<Elements>,
    /// The weight's integers, row-major, where the operation has one.
    pub weight: Option<Vec<i8>>,
    /// The weight's scales, one a row.
    pub scales: Vec<f32>,
    /// One value a channel of the output, where the operation has them.
    pub bias: Option<Vec<f32>>,
    /// One for each u8 input.
    pub input_quantization: Vec<Quantization>,
    /// That of a u8 residual.
    pub residual_quantization: Option<Quantization>,
    /// That of a u8 output.
    pub output_quantization: Option<Quantization>,
}

/// Zero points: the ends, odd ones, and those that kernels like to shift by.
const ZERO_POINTS: [u8; 8] = [0, 255, 128, 127, 1, 254, 77, 13];

impl QuantizedCase {
    /// The operation of an f32 case with quantised operands, which depend on the case's name and the flavour
    /// alone; `output` is the type made. `None` where that is not computed on u8.
    ///
    /// ```
    /// use dlis_backend::Operation;
    /// use dlis_conformance::{Case, Flavour, QuantizedCase};
    /// use dlis_formats::DType;
    ///
    /// let add = Case::new("sum", Operation::Add, &[[1, 3, 4, 4]; 2])?;
    /// assert!(QuantizedCase::of(&add, DType::U8, Flavour::Plain).is_some());
    /// let softmax = Case::new("softmax", Operation::Softmax, &[[1, 3, 1, 1]])?;
    /// assert!(QuantizedCase::of(&softmax, DType::U8, Flavour::Plain).is_none());
    /// # Ok::<(), dlis_conformance::InvalidCase>(())
    /// ```
    pub fn of(case: &Case, output: DType, flavour: Flavour) -> Option<Self> {
        let name = format!("{}, {flavour:?} to {output}", case.name).to_lowercase();
        let weighted = matches!(case.op.operation, Operation::Conv2d(_) | Operation::Linear(_));
        let function = match case.op.operation {
            Operation::Activation(function) => Some(function),
            Operation::Affine | Operation::Softmax | Operation::Scale => return None,
            _ => case.op.epilogue.activation,
        };
        let possible = match output {
            DType::U8 => function != Some(Activation::Sigmoid) && case.op.operation != Operation::Dequantize,
            DType::F32 => weighted || case.op.operation == Operation::Dequantize,
            DType::F16 => false,
        };
        if !possible {
            return None;
        }
        let mut values = Values::named(&name);
        let input_type = if case.op.operation == Operation::Quantize { DType::F32 } else { DType::U8 };
        let mut op = case.op.clone();
        op.inputs.iter_mut().for_each(|input| input.dtype = input_type);
        op.output.dtype = output;
        op.weight = weighted.then_some(Format::Int8);
        let inputs: Vec<Elements> = case
            .inputs
            .iter()
            .map(|input| match input_type {
                // Hundreds of steps, and now and then exactly between two.
                DType::F32 => Elements::Floats(input.values().iter().map(|&x| (x * 2048.0).round() / 64.0).collect()),
                _ => Elements::Bytes(input.values().iter().map(|_| byte(&mut values, flavour)).collect()),
            })
            .collect();
        let moves = matches!(op.operation, Operation::MaxPool(_) | Operation::Reorder);
        let input_quantization: Vec<Quantization> = match input_type {
            DType::U8 => case.inputs.iter().map(|_| quantization(&mut values, 0.05, flavour)).collect(),
            _ => Vec::new(),
        };
        let rows = op.output.channels;
        let elements = case.weight.as_ref().filter(|_| weighted).map(|weight| weight.values().len());
        let (weight, scales): (Option<Vec<i8>>, Vec<f32>) = match elements {
            Some(elements) if flavour == Flavour::Ternary => {
                let (weight, scales) = ternary(&mut values, rows, elements / rows);
                (Some(weight), scales)
            }
            _ => {
                let weight = elements.map(|elements| (0..elements).map(|_| integer(&mut values, flavour)).collect());
                let mut scale = || if flavour == Flavour::Halves { 1.0 / 128.0 } else { 0.01 + 0.005 * values.unit() };
                let scales = weight.iter().flat_map(|_: &Vec<i8>| 0..rows).map(|_| scale()).collect();
                (weight, scales)
            }
        };
        let columns = weight.as_ref().map_or(1, |weight| weight.len() / rows);
        // About a third of the bytes' range for the spread of the sums.
        let steps = if weighted {
            (columns as f32).sqrt() * if matches!(flavour, Flavour::FourBits | Flavour::Halves) { 6.0 } else { 90.0 }
        } else {
            1.0
        };
        let wide = if flavour == Flavour::Saturating { 0.01 } else { 1.0 };
        let of_scales = if weighted { 0.05 * 0.01 * steps } else { 0.06 };
        let output_quantization = (output == DType::U8).then(|| match input_quantization.first() {
            Some(&input) if moves => input,
            _ => quantization(&mut values, of_scales * wide, flavour),
        });
        let residual = case.residual.as_ref().filter(|_| weighted).map(|residual| match output {
            DType::U8 => Elements::Bytes(residual.values().iter().map(|_| byte(&mut values, flavour)).collect()),
            _ => Elements::Floats(residual.values().to_vec()),
        });
        op.epilogue.residual = residual.is_some();
        let bias = case.bias.as_ref().filter(|_| weighted);
        let step = output_quantization.map_or(of_scales, Quantization::scale);
        let whole = |steps: f32| if flavour == Flavour::Halves { steps.round() } else { steps };
        let bias = bias.map(|bias| bias.iter().map(|b| whole(b * 40.0) * step).collect());
        Some(Self {
            residual_quantization: (op.epilogue.residual && output == DType::U8)
                .then(|| quantization(&mut values, of_scales, flavour)),
            name,
            op,
            inputs,
            residual,
            weight,
            scales,
            bias,
            input_quantization,
            output_quantization,
        })
    }

    /// Extents of the output, `[n, c, h, w]`.
    pub fn output_dims(&self) -> [usize; 4] {
        let output = self.op.output;
        [output.batch, output.channels, output.height, output.width]
    }

    /// The weight as a kernel gets it; `None` where there is none, or the format cannot hold it.
    pub fn weight_in(&self, format: Format) -> Option<Weight> {
        let values = self.weight.as_ref()?;
        let dims = match self.op.operation {
            Operation::Conv2d(conv) => conv.weight_dims().to_vec(),
            Operation::Linear(linear) => vec![linear.out_features, linear.in_features],
            _ => return None,
        };
        match format {
            Format::Int8 => Int8::new(dims, values.clone(), self.scales.clone()).ok().map(Weight::Int8),
            Format::Int4 => {
                if values.iter().any(|value| !(-7..=7).contains(value)) {
                    return None;
                }
                let low = |value: i8| value.cast_unsigned() & 0x0f;
                let rows = values.chunks(values.len() / dims[0]);
                let packed = rows.flat_map(|row| {
                    row.chunks(2).map(|pair| low(pair[0]) | low(pair.get(1).copied().unwrap_or(0)) << 4)
                });
                Int4::new(dims, packed.collect(), self.scales.clone()).ok().map(Weight::Int4)
            }
            Format::Ternary2Bit => self.ternary(dims, TernaryPacking::TwoBit),
            Format::Ternary5In8 => self.ternary(dims, TernaryPacking::FiveInEight),
            _ => None,
        }
    }

    /// The weight of three values a row; `None` if it has others, or if its integers are not those that such a weight
    /// stands for.
    fn ternary(&self, dims: Vec<usize>, packing: TernaryPacking) -> Option<Weight> {
        let values = self.weight.as_ref()?;
        let columns = values.len() / dims[0];
        let (mut counts, mut signs) = (Vec::with_capacity(dims[0]), Vec::with_capacity(values.len()));
        for (index, row) in values.chunks(columns).enumerate() {
            // A magnitude may be negative: in odd rows code 1 stands for what is below zero.
            let sign = if index % 2 == 0 { 1 } else { -1 };
            let of = |sign: i8| row.iter().copied().find(|value| value.signum() == sign).unwrap_or(0);
            counts.push([of(sign), of(-sign)]);
            signs.extend(row.iter().map(|value| value.signum() * sign));
        }
        let magnitudes = |code: usize, sign: f32| {
            counts.iter().zip(&self.scales).map(|(of, scale)| sign * f32::from(of[code]) * scale).collect()
        };
        let weight = Ternary::from_signs(dims, packing, magnitudes(0, 1.0), magnitudes(1, -1.0), &signs).ok()?;
        let same = |row: usize| {
            let (scale, [one, two]) = weight.steps(row);
            let row_values = &values[row * columns..][..columns];
            let value = |column: usize| [0, one, two][usize::from(weight.code(row, column))];
            let zeros = row_values.iter().all(|&value| value == 0);
            zeros || scale == self.scales[row] && row_values.iter().enumerate().all(|(c, &v)| v == value(c))
        };
        (0..weight.rows()).all(same).then_some(Weight::Ternary(weight))
    }

    /// The operation in every pair of layouts and, where it has a weight, every format that can hold it.
    pub fn variants(&self) -> Vec<OpSpec> {
        let formats: Vec<Option<Format>> = match self.weight {
            None => vec![None],
            Some(_) => [Format::Int8, Format::Int4, Format::Ternary2Bit, Format::Ternary5In8]
                .into_iter()
                .filter(|&format| self.weight_in(format).is_some())
                .map(Some)
                .collect(),
        };
        pairs_of_layouts(self.op.output.batch)
            .flat_map(|(input, output)| {
                formats.iter().map(move |&weight| OpSpec {
                    inputs: self.op.inputs.iter().map(|spec| spec.with_layout(input)).collect(),
                    output: self.op.output.with_layout(output),
                    weight,
                    ..self.op.clone()
                })
            })
            .collect()
    }

    /// What a kernel is prepared with.
    pub fn weights<'a>(&'a self, weight: Option<&'a Weight>) -> OpWeights<'a> {
        let quantization = OpQuantization {
            inputs: &self.input_quantization,
            residual: self.residual_quantization,
            output: self.output_quantization,
        };
        OpWeights { weight, bias: self.bias.as_deref(), quantization }
    }
}

impl fmt::Debug for QuantizedCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, op, input_quantization, output_quantization, .. } = self;
        write!(f, "QuantizedCase `{name}`: {op} ({:?}) {input_quantization:?} {output_quantization:?}", op.operation)
    }
}

/// A whole number from 0 on, below `limit`, which is at most 256.
fn below(values: &mut Values, limit: u16) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the limit")]
    let number = ((f64::from(values.unit()) + 1.0) / 2.0 * f64::from(limit)) as u16;
    number.min(limit - 1)
}

fn byte(values: &mut Values, flavour: Flavour) -> u8 {
    let number = below(values, 256);
    let number = match flavour {
        Flavour::Extreme => 255 * (number % 2),
        Flavour::Ternary if number.is_multiple_of(4) => 255 * (number / 4 % 2),
        _ => number,
    };
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn integer(values: &mut Values, flavour: Flavour) -> i8 {
    let number = match flavour {
        // Mostly of one sign, so that sums grow.
        Flavour::Extreme if below(values, 16) == 0 => 0,
        Flavour::Extreme => 254,
        Flavour::FourBits | Flavour::Halves => 120 + below(values, 15),
        _ => below(values, 255),
    };
    i8::try_from(i32::from(number) - 127).unwrap_or(0)
}

/// Steps of two magnitudes of a row, which have no common divisor: equal ones, one alone, and the ends.
const PAIRS: [[i8; 2]; 10] =
    [[1, -1], [32, -31], [31, -32], [23, -22], [3, -2], [1, 0], [0, -1], [32, -1], [1, -32], [5, -8]];

/// Integers of three values a row, and the step of each row: with few digits, so that multiples of it are exact.
fn ternary(values: &mut Values, rows: usize, columns: usize) -> (Vec<i8>, Vec<f32>) {
    let mut integers = Vec::with_capacity(rows * columns);
    let scales = (0..rows).map(|_| {
        let [positive, negative] = PAIRS[usize::from(below(values, 10))];
        // Both occur, where there is room: a ratio is told by what it is of.
        let first = [positive, negative];
        let any = |values: &mut Values| [positive, negative, 0][usize::from(below(values, 3))];
        integers.extend((0..columns).map(|column| first.get(column).copied().unwrap_or_else(|| any(values))));
        let largest = f32::from(positive.max(-negative));
        ((0.64 + 0.32 * values.unit()) / largest * 1_048_576.0).round() / 1_048_576.0
    });
    let scales = scales.collect();
    (integers, scales)
}

/// A scale around `around`, and one of the zero points.
fn quantization(values: &mut Values, around: f32, flavour: Flavour) -> Quantization {
    let zero_point = ZERO_POINTS[usize::from(below(values, 8))];
    let scale = match flavour {
        Flavour::Halves => around.log2().round().exp2(),
        _ => around * (1.0 + values.unit() / 4.0),
    };
    Quantization::new(scale, zero_point).unwrap_or_else(|error| panic!("scales are positive: {error}"))
}
