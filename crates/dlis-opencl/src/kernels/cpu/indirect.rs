//! Convolutions and linear layers as matrix products without the matrix (Dukhan 2019, "The Indirect Convolution
//! Algorithm"): each pixel of a tile has a pointer to the input channels under the tap at hand, or to zeros in the
//! padding, and the sums of a tile stay in registers until all taps and channels are done.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};

use super::{Tile, pixels, processor, supports};
use crate::device::Device;
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{direct, geometry, support};
use crate::precision::Precision;
use crate::tune;

const SOURCE: &str = include_str!("indirect.cl");

/// `conv2d/*/dense/indirect-gemm/opencl`
pub(crate) struct Conv;

/// `linear/*/dense/indirect-gemm/opencl`
pub(crate) struct Linear;

/// The weight as `[block of channels][tap][input channel][block]`, zeros beyond the last channel.
fn pack(weights: OpWeights<'_>, taps: usize, inputs: usize, outputs: usize, block: usize) -> Vec<f32> {
    let mut packed = vec![0.0; outputs.next_multiple_of(block) * taps * inputs];
    let dense = weights.weight.map(|weight| weight.to_f32());
    let dense = dense.iter().flat_map(|dense| dense.iter());
    for (index, &value) in dense.enumerate() {
        let (tap, input, output) = (index % taps, index / taps % inputs, index / taps / inputs);
        packed[((output / block * taps + tap) * inputs + input) * block + output % block] = value;
    }
    packed
}

fn stage_as(stage: &Stage<'_>, weights: OpWeights<'_>, tile: Tile) -> Result<Staged, OpenClError> {
    let op = stage.op;
    let (window, groups) = direct::window(op).expect("support has checked the operation");
    let program = super::program(stage, "indirect", SOURCE, &tile.to_string())?;
    let geometry = geometry::upload(stage.device, op, window, groups)?;
    let inputs = op.inputs[0].channels;
    let weight = stage.upload_real(&pack(weights, window.taps(), inputs, op.output.channels, tile.block()))?;
    let bias = super::upload_bias(stage, weights.bias, tile)?;
    let zeros = stage.upload_real(&vec![0.0; inputs])?;
    let weight_bytes = weight.bytes() + bias.bytes();
    let launch = super::launch(stage, &program, "conv2d", [&geometry, &weight, &bias, &zeros], tile)?;
    Ok(Staged { launches: vec![launch], weight_bytes })
}

fn stage(kernel: &KernelId, stage: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
    tune::fastest(stage, kernel, &super::tiles(pixels(stage.op), stage.op.output.channels, 1, stage.device), |&tile| {
        stage_as(stage, weights, tile)
    })
}

fn supports_window(op: &OpSpec) -> Support {
    match direct::window(op) {
        Some((window, groups)) => supports(op, window).and(|| Support::when(groups == 1, "it convolves one group")),
        None => support::another_operation(),
    }
}

impl DeviceKernel for Conv {
    fn runs_on(&self, device: &Device) -> Support {
        processor(device)
    }

    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("conv2d", precision.name(), "dense", "indirect-gemm", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::Conv2d(_) => supports_window(op),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.4
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        stage(&self.id(to.precision), to, weights)
    }
}

impl DeviceKernel for Linear {
    fn runs_on(&self, device: &Device) -> Support {
        processor(device)
    }

    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("linear", precision.name(), "dense", "indirect-gemm", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        match op.operation {
            Operation::Linear(_) => supports_window(op),
            _ => support::another_operation(),
        }
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.4
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        stage(&self.id(to.precision), to, weights)
    }
}
