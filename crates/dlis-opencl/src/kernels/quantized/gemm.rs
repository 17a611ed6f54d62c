//! Convolutions and linear layers on u8 for processors, channels last, as a matrix product whose left matrix is never
//! built: four neighbouring inputs are multiplied with four weights of each of 16 channels in a few instructions.

use dlis_backend::{KernelId, OpSpec, OpWeights, Support};
use dlis_formats::Format;

use super::accepts;
use super::constants::{self, RESCALE, Weighted};
use super::direct::{args, terms};
use super::tiles::Tiles;
use crate::device::{Arg, Device, DeviceKind, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::direct::window;
use crate::kernels::{geometry, support};
use crate::precision::Precision;

const SOURCE: &str = include_str!("gemm.cl");

/// `conv2d/u8/*/implicit-gemm/opencl` and `linear/u8/*/implicit-gemm/opencl`, of a weight format.
pub(crate) struct Gemm {
    pub(crate) op: &'static str,
    pub(crate) format: Format,
}

impl DeviceKernel for Gemm {
    fn runs_on(&self, device: &Device) -> Support {
        Support::when(device.info().kind == DeviceKind::Cpu, "it is written for processors")
    }

    fn id(&self, _: Precision) -> KernelId {
        KernelId::new(self.op, "u8", self.format.name(), "implicit-gemm", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        let Some((window, groups)) = window(op).filter(|_| op.operation.name() == self.op) else {
            return support::another_operation();
        };
        let nhwc = op.common_layout() == Some(dlis_backend::Layout::Nhwc);
        accepts::weighted(op, self.format, terms(op, window, groups))
            .and(|| Support::when(nhwc, "it computes on nhwc activations only"))
            .and(|| Support::when(geometry::fits(window), "its window is larger than programs can count"))
    }

    fn efficiency(&self, op: &OpSpec, _: &Device) -> f32 {
        let Some(tiles) = Tiles::in_registers(op) else { return 0.01 };
        let filled = tiles.per_group as f32 / (tiles.blocks() * tiles.block) as f32;
        let rows = tiles.rows as f32 / 8.0;
        let deep = if tiles.depth.is_multiple_of(4) { 1.0 } else { 0.5 };
        (0.8 * filled * deep * rows.max(0.3)).max(0.01)
    }

    fn stage(&self, stage: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let (op, device) = (stage.op, stage.device);
        let ((window, groups), tiles) =
            window(op).zip(Tiles::in_registers(op)).expect("support has checked the operation");
        let source = format!("{}{RESCALE}{SOURCE}", geometry::definitions());
        let options = constants::options(stage, self.format);
        let options = format!("{options} -DROWS={} -DCOLUMNS={}", tiles.rows, tiles.block / 16);
        let program = stage.program("gemm_u8", &source, &options)?;
        let extents = geometry::upload(device, op, window, groups)?;
        let (values, scales) = constants::integers(weights);
        let weight = device.upload(&tiles.pack(&values, self.format))?;
        let constants = Weighted::upload(stage, weights, scales, tiles.slots(), |channel| tiles.slot(channel))?;
        let zero_point = constants::input(weights, 0).zero_point();
        let corrections = constants::corrections(&values, scales.len(), zero_point);
        let corrections = device.upload(&tiles.scatter(&corrections))?;
        let padding = device.upload(&vec![zero_point; tiles.depth.next_multiple_of(8)])?;
        let mut args = args(stage, &extents, &constants, &weight);
        args.extend([
            Arg::Buffer(&corrections),
            Arg::Buffer(&padding),
            Arg::int(tiles.blocks()),
            Arg::int(tiles.pixels),
        ]);
        let global = [tiles.pixels.div_ceil(tiles.rows), tiles.groups * tiles.blocks(), 1];
        let launch = Launch::new(&program, "gemm", &args, global, Some([1, 1, 1]))?;
        let weight_bytes = weight.bytes() + constants.bytes() + corrections.bytes() + padding.bytes();
        Ok(Staged { launches: vec![launch], weight_bytes })
    }
}
