//! Depthwise convolution: vectors of channels, a few pixels at a time.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};

use super::{LANES, Tile, processor, supports};
use crate::device::Device;
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{geometry, support};
use crate::precision::Precision;
use crate::tune;

const SOURCE: &str = include_str!("depthwise.cl");

/// `conv2d/*/dense/depthwise-vectors/opencl`
pub(crate) struct Depthwise;

/// Tiles by vectors of channels: finding the pixels under a tap costs as much as multiplying a few vectors, so many
/// vectors are good, if so many channels there are.
fn tiles(op: &OpSpec) -> Vec<Tile> {
    let vectors = op.output.channels.div_ceil(LANES);
    match vectors {
        0 | 1 => vec![Tile::new(4, 1)],
        2 | 3 => vec![Tile::new(4, 2)],
        _ => vec![Tile::new(4, 4), Tile::new(2, 4), Tile::new(4, 2)],
    }
}

fn stage_as(stage: &Stage<'_>, weights: OpWeights<'_>, tile: Tile) -> Result<Staged, OpenClError> {
    let op = stage.op;
    let Operation::Conv2d(conv) = op.operation else { unreachable!("support has checked it") };
    let program = super::program(stage, "depthwise", SOURCE, &tile.to_string())?;
    let geometry = geometry::upload(stage.device, op, conv.window, conv.groups)?;
    let (taps, channels) = (conv.window.taps(), op.output.channels);
    let padded = channels.next_multiple_of(tile.block());
    let mut packed = vec![0.0; taps * padded];
    let dense = weights.weight.map(|weight| weight.to_f32());
    for (index, &value) in dense.iter().flat_map(|dense| dense.iter()).enumerate() {
        packed[index % taps * padded + index / taps] = value;
    }
    let (weight, bias) = (stage.upload_real(&packed)?, super::upload_bias(stage, weights.bias, tile)?);
    let zeros = stage.upload_real(&vec![0.0; tile.block()])?;
    let weight_bytes = weight.bytes() + bias.bytes();
    let launch = super::launch(stage, &program, "depthwise", [&geometry, &weight, &bias, &zeros], tile)?;
    Ok(Staged { launches: vec![launch], weight_bytes })
}

impl DeviceKernel for Depthwise {
    fn runs_on(&self, device: &Device) -> Support {
        processor(device)
    }

    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("conv2d", precision.name(), "dense", "depthwise-vectors", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        let Operation::Conv2d(conv) = op.operation else { return support::another_operation() };
        Support::when(conv.is_depthwise(), "it convolves every channel on its own").and(|| supports(op, conv.window))
    }

    fn efficiency(&self, _: &OpSpec, _: &Device) -> f32 {
        0.5
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        tune::fastest(to, &self.id(to.precision), &tiles(to.op), |&tile| stage_as(to, weights, tile))
    }
}
