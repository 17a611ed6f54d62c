//! A convolution that knows no other layout than that of images as lanes, and a backend that has it besides all others.

use std::sync::Arc;

use dlis_backend::{
    Footprint, HostBackend, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel, PrepareError,
    Prepared, Schedule, Scratch, Serial, Support,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::Conv2d;

/// As its definition says, by [`dlis_backend::TensorSpec::offset`] alone.
#[derive(Debug)]
struct Definition;

#[derive(Debug)]
struct Ready {
    op: OpSpec,
    conv: Conv2d,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Kernel for Definition {
    fn id(&self) -> KernelId {
        KernelId::new("conv2d", "f32", "dense", "definition", "portable")
    }

    fn support(&self, op: &OpSpec, _: &Hardware) -> Support {
        let lanes = op.inputs.iter().chain([&op.output]).all(|tensor| tensor.layout == Layout::Nhwc16n);
        Support::when(matches!(op.operation, Operation::Conv2d(_)), "it convolves")
            .and(|| Support::when(lanes && op.extents_agree(), "images must be lanes"))
            .and(|| Support::when(op.weight == Some(Format::DenseF32) && !op.is_quantized(), "it is for f32"))
    }

    fn efficiency(&self, _: &OpSpec) -> f32 {
        1.0
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, _: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let (Operation::Conv2d(conv), Some(weight)) = (op.operation, weights.weight) else { unreachable!() };
        let bias = weights.bias.map_or_else(|| vec![0.0; conv.out_channels], <[f32]>::to_vec);
        Ok(Box::new(Ready { op: op.clone(), conv, weight: weight.to_f32().iter().copied().collect(), bias }))
    }
}

impl Ready {
    fn sum(&self, input: &[f32], [n, out, y, x]: [usize; 4]) -> f32 {
        let (spec, Conv2d { window, groups, in_channels, out_channels, .. }) = (self.op.inputs[0], self.conv);
        let per_group = in_channels / groups;
        let first = out / (out_channels / groups) * per_group;
        let mut sum = self.bias[out];
        for c in 0..per_group {
            for ky in 0..window.kernel[0] {
                for kx in 0..window.kernel[1] {
                    let y = (y * window.stride[0] + ky * window.dilation[0]).wrapping_sub(window.padding[0]);
                    let x = (x * window.stride[1] + kx * window.dilation[1]).wrapping_sub(window.padding[1]);
                    if y < spec.height && x < spec.width {
                        let tap = ((out * per_group + c) * window.kernel[0] + ky) * window.kernel[1] + kx;
                        sum += self.weight[tap] * input[spec.offset([n, first + c, y, x])];
                    }
                }
            }
        }
        sum
    }
}

impl Prepared for Ready {
    fn footprint(&self, _: usize) -> Footprint {
        Footprint { weight_bytes: 4 * self.weight.len(), ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _: &mut Scratch<'_>, _: Parallel<'_>) {
        let (spec, epilogue) = (self.op.output, self.op.epilogue);
        let (input, residual) = (io.input(0).f32(), io.residual());
        let output = io.output().f32();
        for index in 0..output.len() {
            let pixel = index % spec.pixels();
            let plane = index / spec.pixels();
            let place = [plane / spec.channels, plane % spec.channels, pixel / spec.width, pixel % spec.width];
            let at = spec.offset(place);
            let sum = self.sum(input, place) + residual.map_or(0.0, |residual| residual.f32()[at]);
            output[at] = epilogue.activation.map_or(sum, |function| function.apply(sum));
        }
    }
}

/// The backend, on one thread.
pub(crate) fn backend() -> HostBackend {
    let kernels = dlis_kernels::kernels().iter().copied().chain([&Definition as &dyn Kernel]);
    let kernels: &'static [&'static dyn Kernel] = kernels.collect::<Vec<_>>().leak();
    HostBackend::new("lanes", kernels, Arc::new(Serial), Schedule::Static)
}
