//! Operations on each u8 element by itself: sums, activations, concatenations, the ways into and out of u8, and the
//! change of layout.

use dlis_backend::{KernelId, Layout, OpSpec, OpWeights, Operation, Support};
use dlis_formats::DType;

use super::accepts;
use super::constants::{self, RESCALE, Rounding, multiplier};
use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Operand, Stage, Staged};
use crate::kernels::support;
use crate::precision::Precision;

const SOURCE: &str = include_str!("elementwise.cl");

/// Launches a kernel of the program over `elements` elements.
fn launch(stage: &Stage<'_>, name: &'static str, args: &[Arg<'_>], elements: usize) -> Result<Launch, OpenClError> {
    let program = stage.program("elementwise_u8", &format!("{RESCALE}{SOURCE}"), constants::ptx(stage))?;
    Launch::new(&program, name, args, [elements, 1, 1], None)
}

/// That, where there is but one launch, over the output's elements.
fn launch_one(stage: &Stage<'_>, name: &'static str, args: &[Arg<'_>]) -> Result<Staged, OpenClError> {
    let launch = launch(stage, name, args, stage.op.output.elements())?;
    Ok(Staged { launches: vec![launch], weight_bytes: 0 })
}

fn place(operand: &Operand) -> [Arg<'_>; 2] {
    [Arg::Buffer(&operand.buffer), Arg::int(operand.offset)]
}

/// The places of the one input and the output, and what follows.
fn unary<'a>(stage: &'a Stage<'_>, rest: &[Arg<'a>]) -> Vec<Arg<'a>> {
    let ends = [place(&stage.operands.inputs[0]), place(&stage.operands.output)];
    ends.as_flattened().iter().chain(rest).copied().collect()
}

/// What `support`, `id` and `efficiency` of all of them have in common.
macro_rules! element_wise {
    ($(#[$doc:meta])* $name:ident, $id:literal, $algorithm:literal, $dtype:expr, $pattern:pat, $support:expr, $stage:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl DeviceKernel for $name {
            fn id(&self, precision: Precision) -> KernelId {
                let dtype: fn(Precision) -> &'static str = $dtype;
                KernelId::new($id, dtype(precision), "none", $algorithm, "opencl")
            }

            fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
                let supports: fn(&OpSpec) -> Support = $support;
                match op.operation {
                    $pattern => supports(op),
                    _ => support::another_operation(),
                }
            }

            fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
                0.3
            }

            fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
                let staged: fn(&Stage<'_>, OpWeights<'_>) -> Result<Staged, OpenClError> = $stage;
                staged(to, weights)
            }
        }
    };
}

element_wise!(
    /// `quantize/*/none/direct/opencl`
    Quantize,
    "quantize",
    "direct",
    Precision::name,
    Operation::Quantize,
    |op| accepts::converts(op, DType::F32, DType::U8),
    |stage, weights| {
        let output = constants::output(weights);
        let (exponent, scale) = normalized(output.scale());
        let zero = Arg::I32(i32::from(output.zero_point()));
        let rest = [Arg::F32(scale), Arg::F32(scale.recip()), Arg::I32(exponent), zero];
        launch_one(stage, "quantize", &unary(stage, &rest))
    }
);

/// The power of two that brings a scale to between 1 and 2, and that number.
fn normalized(scale: f32) -> (i32, f32) {
    let wide = f64::from(scale);
    // No float is subnormal as an f64.
    let exponent = 1023 - i32::try_from(wide.to_bits() >> 52).unwrap_or(1023);
    (exponent, constants::narrow(wide * f64::from(exponent).exp2()))
}

element_wise!(
    /// `dequantize/u8/none/direct/opencl`
    Dequantize,
    "dequantize",
    "direct",
    |_| "u8",
    Operation::Dequantize,
    |op| accepts::converts(op, DType::U8, DType::F32),
    |stage, weights| {
        let input = constants::input(weights, 0);
        let rest = [Arg::F32(input.scale()), Arg::I32(i32::from(input.zero_point()))];
        launch_one(stage, "dequantize", &unary(stage, &rest))
    }
);

element_wise!(
    /// `add/u8/none/direct/opencl`
    Add,
    "add",
    "direct",
    |_| "u8",
    Operation::Add,
    |op| {
        accepts::bytes(op)
            .and(|| support::one_layout(op))
            .and(|| support::no_residual(op))
            .and(|| accepts::activation(op.epilogue))
    },
    |stage, weights| {
        let ([a, b], y) = ([&stage.operands.inputs[0], &stage.operands.inputs[1]], &stage.operands.output);
        let ([of_a, of_b], to) = ([0, 1].map(|index| constants::input(weights, index)), constants::output(weights));
        let rounding = Rounding::new(to, stage.op.epilogue.activation);
        let rest = [
            Arg::I32(i32::from(of_a.zero_point())),
            Arg::I32(i32::from(of_b.zero_point())),
            Arg::F32(multiplier(of_a, to)),
            Arg::F32(multiplier(of_b, to)),
            Arg::F32(rounding.low),
            Arg::F32(rounding.high),
            Arg::I32(i32::from(rounding.zero_point)),
        ];
        let places = [a, b, y].map(place);
        let args: Vec<Arg<'_>> = places.as_flattened().iter().chain(&rest).copied().collect();
        launch_one(stage, "add", &args)
    }
);

element_wise!(
    /// `activation/u8/none/table/opencl`
    Activate,
    "activation",
    "table",
    |_| "u8",
    Operation::Activation(_),
    |op| {
        let sigmoid = op.operation == Operation::Activation(dlis_model::Activation::Sigmoid);
        Support::when(!sigmoid, "a sigmoid is not computed in u8")
            .and(|| accepts::bytes(op))
            .and(|| support::one_layout(op))
            .and(|| support::no_epilogue(op))
    },
    |stage, weights| {
        let Operation::Activation(function) = stage.op.operation else { unreachable!("support has checked it") };
        let table = Rounding::table(constants::input(weights, 0), constants::output(weights), Some(function));
        let table = stage.device.upload(&table)?;
        let run = Arg::int(stage.op.output.elements());
        let staged = launch_one(stage, "look_up", &unary(stage, &[Arg::Buffer(&table), run, run, Arg::I32(0)]))?;
        Ok(Staged { weight_bytes: table.bytes(), ..staged })
    }
);

element_wise!(
    /// `concat/u8/none/copy/opencl`: a launch an input, each brought to the output's quantisation.
    Concat,
    "concat",
    "copy",
    |_| "u8",
    Operation::Concat,
    |op| accepts::bytes(op).and(|| support::one_layout(op)).and(|| support::no_epilogue(op)),
    |stage, weights| {
        let (op, y) = (stage.op, &stage.operands.output);
        // A run of neighbours: the channels of a pixel, or all pixels of an image's channels.
        let inner = match op.common_layout() {
            Some(Layout::Nchw) => op.output.pixels(),
            _ => 1,
        };
        let mut first = 0;
        let mut staged = Staged::default();
        for (index, (spec, x)) in op.inputs.iter().zip(&stage.operands.inputs).enumerate() {
            let table = Rounding::table(constants::input(weights, index), constants::output(weights), None);
            let table = stage.device.upload(&table)?;
            let run = spec.channels * inner;
            let places = [place(x), place(y)];
            let rest =
                [Arg::Buffer(&table), Arg::int(run), Arg::int(op.output.channels * inner), Arg::int(first)];
            let args: Vec<Arg<'_>> = places.as_flattened().iter().chain(&rest).copied().collect();
            staged.launches.push(launch(stage, "look_up", &args, spec.elements())?);
            staged.weight_bytes += table.bytes();
            first += run;
        }
        Ok(staged)
    }
);

element_wise!(
    /// `reorder/u8/none/direct/opencl`
    Reorder,
    "reorder",
    "direct",
    |_| "u8",
    Operation::Reorder,
    |op| accepts::bytes(op).and(|| support::no_epilogue(op)),
    |stage, _| {
        let (from, to) = (stage.op.inputs[0], stage.op.output);
        let (outer, inner) = match (from.layout, to.layout) {
            (Layout::Nhwc, Layout::Nchw) => (from.pixels(), from.channels),
            (Layout::Nchw, Layout::Nhwc) => (from.channels, from.pixels()),
            // The same layout is a copy.
            _ => (1, from.one_image().elements()),
        };
        launch_one(stage, "reorder", &unary(stage, &[Arg::int(outer), Arg::int(inner)]))
    }
);
