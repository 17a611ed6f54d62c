//! Operations whose every output element depends on the inputs' elements at its place, and the change of layout.

use dlis_backend::{KernelId, Layout, OpSpec, OpWeights, Operation, Support};

use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::support;
use crate::precision::Precision;

const SOURCE: &str = include_str!("elementwise.cl");

/// Launches a kernel of the program over every element of the output.
fn launch(stage: &Stage<'_>, name: &'static str, args: &[Arg<'_>]) -> Result<Vec<Launch>, OpenClError> {
    let program = stage.program("elementwise", SOURCE, &support::epilogue_options(stage.op.epilogue))?;
    Ok(vec![Launch::new(&program, name, args, [stage.op.output.elements(), 1, 1], None)?])
}

/// Step from one channel to the next, and channels, of tensors of one layout.
fn channels(op: &OpSpec) -> [Arg<'static>; 2] {
    let step = match op.common_layout() {
        Some(Layout::Nchw) => op.output.pixels(),
        _ => 1,
    };
    [Arg::int(step), Arg::int(op.output.channels)]
}

/// What `support`, `id` and `efficiency` of all of them have in common.
macro_rules! element_wise {
    ($(#[$doc:meta])* $name:ident, $id:literal, $pattern:pat, $support:expr, $stage:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl DeviceKernel for $name {
            fn id(&self, precision: Precision) -> KernelId {
                KernelId::new($id, precision.name(), "none", "direct", "opencl")
            }

            fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
                let supports: fn(&OpSpec) -> Support = $support;
                match op.operation {
                    $pattern => support::floats(op).and(|| supports(op)),
                    _ => support::another_operation(),
                }
            }

            fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
                0.5
            }

            fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
                let staged: fn(&Stage<'_>, OpWeights<'_>) -> Result<Staged, OpenClError> = $stage;
                staged(to, weights)
            }
        }
    };
}

fn plain(op: &OpSpec) -> Support {
    support::one_layout(op).and(|| support::no_residual(op))
}

element_wise!(
    /// `affine/*/none/direct/opencl`
    Affine,
    "affine",
    Operation::Affine,
    |op| plain(op).and(|| support::dense(op)),
    |stage, weights| {
        let scale = support::elements(weights);
        let (scale, shift) = (stage.device.upload(&scale)?, stage.upload_bias(weights.bias)?);
        let (x, y) = (&stage.operands.inputs[0], &stage.operands.output);
        let [step, channels] = channels(stage.op);
        let args = [
            Arg::Buffer(&x.buffer),
            Arg::int(x.offset),
            Arg::Buffer(&scale),
            Arg::Buffer(&shift),
            Arg::Buffer(&y.buffer),
            Arg::int(y.offset),
            step,
            channels,
        ];
        let launches = launch(stage, "affine", &args)?;
        Ok(Staged { launches, weight_bytes: scale.bytes() + shift.bytes() })
    }
);

element_wise!(
    /// `activation/*/none/direct/opencl`
    Activate,
    "activation",
    Operation::Activation(_),
    |op| support::one_layout(op).and(|| support::no_epilogue(op)),
    |stage, _| {
        let Operation::Activation(function) = stage.op.operation else { unreachable!("support has checked it") };
        let epilogue = dlis_backend::Epilogue { residual: false, activation: Some(function) };
        let program = stage.program("elementwise", SOURCE, &support::epilogue_options(epilogue))?;
        let (x, y) = (&stage.operands.inputs[0], &stage.operands.output);
        let args = [Arg::Buffer(&x.buffer), Arg::int(x.offset), Arg::Buffer(&y.buffer), Arg::int(y.offset)];
        let launch = Launch::new(&program, "activate", &args, [stage.op.output.elements(), 1, 1], None)?;
        Ok(Staged { launches: vec![launch], weight_bytes: 0 })
    }
);

element_wise!(
    /// `add/*/none/direct/opencl`
    Add,
    "add",
    Operation::Add,
    plain,
    |stage, _| {
        let ([a, b], y) = ([&stage.operands.inputs[0], &stage.operands.inputs[1]], &stage.operands.output);
        let args = [a, b, y].map(|operand| [Arg::Buffer(&operand.buffer), Arg::int(operand.offset)]);
        Ok(Staged { launches: launch(stage, "add", args.as_flattened())?, weight_bytes: 0 })
    }
);

element_wise!(
    /// `scale/*/none/direct/opencl`
    Scale,
    "scale",
    Operation::Scale,
    plain,
    |stage, _| {
        let ([x, factors], y) = ([&stage.operands.inputs[0], &stage.operands.inputs[1]], &stage.operands.output);
        let [step, channels] = channels(stage.op);
        let places = [x, factors, y].map(|operand| [Arg::Buffer(&operand.buffer), Arg::int(operand.offset)]);
        let image = Arg::int(stage.op.output.one_image().elements());
        let args: Vec<Arg<'_>> = places.as_flattened().iter().copied().chain([step, channels, image]).collect();
        Ok(Staged { launches: launch(stage, "scale", &args)?, weight_bytes: 0 })
    }
);

element_wise!(
    /// `reorder/*/none/direct/opencl`
    Reorder,
    "reorder",
    Operation::Reorder,
    support::no_epilogue,
    |stage, _| {
        let (from, to) = (stage.op.inputs[0], stage.op.output);
        let (x, y) = (&stage.operands.inputs[0], &stage.operands.output);
        let (outer, inner) = match (from.layout, to.layout) {
            (Layout::Nhwc, Layout::Nchw) => (from.pixels(), from.channels),
            (Layout::Nchw, Layout::Nhwc) => (from.channels, from.pixels()),
            // The same layout is a copy.
            _ => (1, from.one_image().elements()),
        };
        let args = [
            Arg::Buffer(&x.buffer),
            Arg::int(x.offset),
            Arg::Buffer(&y.buffer),
            Arg::int(y.offset),
            Arg::int(outer),
            Arg::int(inner),
        ];
        Ok(Staged { launches: launch(stage, "reorder", &args)?, weight_bytes: 0 })
    }
);
