//! Convolutions and linear layers on u8 for graphics processors, channels last, as a matrix product whose left matrix is
//! never built: work-groups share tiles of words of four inputs and four weights, which are multiplied in one step
//! where the device can.

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

/// What both ways of cutting a layer up share.
const WORDS: &str = include_str!("words.cl");

/// Pixels of a work-group of `sliced.cl`.
const PIXELS: usize = 8;

/// Work-items that share a sum: as many as the device's work-groups have room for, up to what is of use.
fn slices(device: &Device) -> usize {
    if device.info().max_work_group >= 512 { 16 } else { 8 }
}

/// `conv2d/u8/*/tiled-gemm/opencl` and `linear/u8/*/tiled-gemm/opencl`, of a weight format, and the same of
/// `sliced-gemm`.
pub(crate) struct Tiled {
    pub(crate) op: &'static str,
    pub(crate) format: Format,
    /// Whether several work-items share a sum: where pixels are too few to give each its own.
    pub(crate) slices: bool,
}

impl Tiled {
    fn tiles(&self, op: &OpSpec, device: &Device) -> Option<Tiles> {
        if self.slices { Tiles::of_slices(op, PIXELS) } else { Tiles::of_work_groups(op, device.info().compute_units) }
    }
}

impl DeviceKernel for Tiled {
    fn id(&self, _: Precision) -> KernelId {
        KernelId::new(
            self.op,
            "u8",
            self.format.name(),
            if self.slices { "sliced-gemm" } else { "tiled-gemm" },
            "opencl",
        )
    }

    fn support(&self, op: &OpSpec, device: &Device, _: Precision) -> Support {
        let Some((window, groups)) = window(op).filter(|_| op.operation.name() == self.op) else {
            return support::another_operation();
        };
        let nhwc = op.common_layout() == Some(dlis_backend::Layout::Nhwc);
        let room = device.info().max_work_group >= 256 && device.info().local_bytes >= 20 << 10;
        Support::when(room, "its work-groups are larger than the device's")
            .and(|| accepts::weighted(op, self.format, terms(op, window, groups)))
            .and(|| Support::when(nhwc, "it computes on nhwc activations only"))
            .and(|| Support::when(geometry::fits(window), "its window is larger than programs can count"))
    }

    fn efficiency(&self, op: &OpSpec, device: &Device) -> f32 {
        let info = device.info();
        let Some(tiles) = self.tiles(op, device) else { return 0.01 };
        let columns = tiles.groups * tiles.blocks();
        let filled = tiles.per_group as f32 / (tiles.blocks() * tiles.block) as f32
            * (tiles.pixels as f32 / tiles.pixels.next_multiple_of(tiles.rows) as f32);
        // Each multiprocessor takes a work-group at least.
        let busy = (columns * tiles.pixels.div_ceil(tiles.rows)) as f32 / info.compute_units as f32;
        match info.kind {
            // A processor has no use for local memory.
            DeviceKind::Cpu => 0.001,
            DeviceKind::Gpu => (if self.slices { 0.2 } else { 0.4 } * filled * busy.min(1.0)).max(0.004),
        }
    }

    fn stage(&self, stage: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let (op, device) = (stage.op, stage.device);
        let ((window, groups), tiles) =
            window(op).zip(self.tiles(op, device)).expect("support has checked the operation");
        let kernel = if self.slices { include_str!("sliced.cl") } else { include_str!("tile.cl") };
        let source = format!("{}{RESCALE}{WORDS}{kernel}", geometry::definitions());
        let options = constants::options(stage, self.format);
        let options = format!("{options} -DBLOCK={} -DSLICES={}", tiles.block, slices(device));
        let program = stage.program("tile_u8", &source, &options)?;
        let extents = geometry::upload(device, op, window, groups)?;
        let (values, scales) = constants::integers(weights);
        let weight = device.upload(&tiles.pack(&values, self.format))?;
        let constants = Weighted::upload(stage, weights, scales, tiles.slots(), |channel| tiles.slot(channel))?;
        let zero_point = constants::input(weights, 0).zero_point();
        let corrections = constants::corrections(&values, scales.len(), zero_point);
        let corrections = device.upload(&tiles.scatter(&corrections))?;
        let x = &stage.operands.inputs[0];
        let aligned = [tiles.depth, op.inputs[0].channels, x.offset].iter().all(|at| at.is_multiple_of(4));
        let mut args = args(stage, &extents, &constants, &weight);
        args.extend([
            Arg::Buffer(&corrections),
            Arg::int(tiles.blocks()),
            Arg::int(tiles.pixels),
            Arg::I32(i32::from(aligned)),
        ]);
        let local = if self.slices { [tiles.block, slices(device), 1] } else { [tiles.block / 4, tiles.block / 4, 1] };
        let groups = [tiles.pixels.div_ceil(tiles.rows), tiles.groups * tiles.blocks(), 1];
        let global = [0, 1, 2].map(|axis| groups[axis] * local[axis]);
        let launch = Launch::new(&program, "gemm", &args, global, Some(local))?;
        let weight_bytes = weight.bytes() + constants.bytes() + corrections.bytes();
        Ok(Staged { launches: vec![launch], weight_bytes })
    }
}
