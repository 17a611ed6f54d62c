//! Sparse weights executed as they are stored: each weight that is not zero is added to all outputs that it reaches.
//!
//! The paper's sparse kernels walk through all indices again for every pixel. Here a work-item walks through those of
//! one output channel for several neighbouring outputs at once, and the work-items beside it for theirs, so that the
//! indices come from a cache and the inputs are read in order. Where there are few outputs several work-items share
//! the weights of a row.

mod entries;
mod paper;
mod planes;

use dlis_backend::{KernelId, OpSpec, OpWeights, Support};
use dlis_formats::Format;

use self::entries::{Entries, Meeting};
use self::planes::Planes;
use crate::device::{Arg, Buffer, Device, DeviceKind, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{direct, geometry, support};
use crate::precision::Precision;

pub(crate) use paper::Paper;

const SOURCE: &str = concat!(include_str!("../epilogue.cl"), include_str!("sparse.cl"));

/// Work-items that keep one compute unit of a GPU busy.
const BUSY: usize = 1024;
/// Most work-items of a group.
const GROUP: usize = 256;
/// Most floats of local memory that sums take: an eighth of what every GPU has.
const LOCAL_FLOATS: usize = 4096;

/// `{conv2d,linear}/*/{csr,bsr}-…/direct-sparse/opencl`: of the operation and the format that it names.
pub(crate) struct DirectSparse(pub(crate) &'static str, pub(crate) Format);

/// How the work is divided.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// Lanes of a vector.
    width: usize,
    /// Vectors of a work-item.
    vectors: usize,
    /// Work-items of a group beside each other.
    lanes: usize,
    /// Work-items that share a row.
    split: usize,
    /// Whether neighbouring work-items have neighbouring rows.
    by_rows: bool,
}

impl Tile {
    fn new(device: &Device, planes: &Planes, entries: &Entries) -> Self {
        let (lanes, rows) = (planes.lanes, entries.starts.len() - 1);
        let info = device.info();
        if info.kind == DeviceKind::Cpu {
            // Registers hold the sums: vectors as wide as there are lanes, and several where blocks are low.
            let width = if lanes > 8 { 16 } else { if lanes > 1 { 4 } else { 1 } };
            let most = (8 / entries.height).clamp(1, 4);
            let vectors = if lanes > width { most } else { 1 };
            return Self { width, vectors, lanes: 1, split: 1, by_rows: true };
        }
        let wanted = info.compute_units * BUSY;
        let items = |width: usize| lanes.div_ceil(width) * planes.outer * rows;
        let width = [4, 2].into_iter().find(|&width| items(width) >= wanted && width * entries.height <= 32);
        let width = width.unwrap_or(1);
        let beside = lanes.div_ceil(width).next_power_of_two().min(64);
        let mut split = 1;
        let of_row = entries.places.len() / rows.max(1);
        while items(width) * split < wanted
            && of_row >= 8 * split
            && 2 * split * beside <= GROUP.min(info.max_work_group)
            && 2 * split * beside * width * entries.height <= LOCAL_FLOATS
        {
            split *= 2;
        }
        Self { width, vectors: 1, lanes: beside, split, by_rows: false }
    }

    fn options(&self, entries: &Entries, halves: bool) -> String {
        let Self { width, vectors, lanes, split, by_rows } = self;
        let height = entries.height;
        let mut options =
            format!("-DWIDTH={width} -DVECTORS={vectors} -DLANES={lanes} -DSPLIT={split} -DHEIGHT={height}");
        for (is_set, option) in [
            (*by_rows, " -DBY_ROWS"),
            (!entries.columns.is_empty(), " -DWIDE"),
            (entries.is_short(), " -DPLACE_SHORT"),
            (halves, " -DVALUE_HALF"),
        ] {
            if is_set {
                options.push_str(option);
            }
        }
        options
    }
}

/// Entries in the device's memory.
struct Uploaded {
    starts: Buffer,
    places: Buffer,
    values: Buffer,
    columns: Buffer,
}

impl Uploaded {
    fn new(stage: &Stage<'_>, entries: &Entries, halves: bool) -> Result<Self, OpenClError> {
        let device = stage.device;
        let values = if halves {
            let halves: Vec<half::f16> = entries.values.iter().map(|&value| half::f16::from_f32(value)).collect();
            device.upload(&halves)?
        } else {
            device.upload(&entries.values)?
        };
        let places = if entries.is_short() {
            let shorts: Vec<u16> = entries.places.iter().filter_map(|&place| u16::try_from(place).ok()).collect();
            device.upload(&shorts)?
        } else {
            device.upload(&entries.places)?
        };
        Ok(Self { starts: device.upload(&entries.starts)?, places, values, columns: device.upload(&entries.columns)? })
    }

    fn bytes(&self) -> usize {
        [&self.starts, &self.places, &self.values, &self.columns].map(Buffer::bytes).iter().sum()
    }
}

impl DeviceKernel for DirectSparse {
    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new(self.0, precision.name(), self.1.name(), "direct-sparse", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        if op.operation.name() != self.0 {
            return support::another_operation();
        }
        support::floats(op).and(|| support::format(op, self.1)).and(|| {
            let fits = direct::window(op)
                .is_some_and(|(window, _)| geometry::fits(window) && Planes::new(op, window).is_some());
            Support::when(fits, "its padded input would be too large")
        })
    }

    fn efficiency(&self, _: &OpSpec, device: &Device) -> f32 {
        // Of the dense operation's multiply-adds, most of which it does not do.
        match device.info().kind {
            DeviceKind::Cpu => 0.2,
            DeviceKind::Gpu => 0.3,
        }
    }

    fn scratch_bytes(&self, op: &OpSpec, _: &Device, precision: Precision) -> usize {
        let planes = direct::window(op).and_then(|(window, _)| Planes::new(op, window));
        planes.map_or(0, |planes| planes.len() * precision.bytes())
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let op = to.op;
        let (window, groups) = direct::window(op).expect("support has checked the operation");
        let planes = Planes::new(op, window).expect("support has checked the planes");
        let depth = op.inputs[0].channels / groups;
        let meeting = Meeting { planes: &planes, groups, depth, taps: window.taps() };
        let entries = weights.weight.and_then(|weight| Entries::new(weight, &meeting));
        let entries = entries.expect("the weight is of the format that it is declared to be of");
        let halves = self.1 == Format::CsrF16 || to.precision == Precision::F16;
        let tile = Tile::new(to.device, &planes, &entries);
        let source = format!("{}{SOURCE}", geometry::definitions());
        let options = tile.options(&entries, halves);
        let program = to.program("sparse", &source, &options)?;
        let extents = geometry::upload(to.device, op, window, groups)?;
        let uploaded = Uploaded::new(to, &entries, halves)?;
        let bias = to.upload_bias(weights.bias)?;
        let weight_bytes = uploaded.bytes() + bias.bytes();
        let operands = to.operands;
        let (x, y) = (&operands.inputs[0], &operands.output);
        let residual = operands.residual.as_ref().unwrap_or(y);
        let mut launches = Vec::new();
        let (mut input, mut input_at) = (&x.buffer, x.offset);
        if !planes.is_input(tile.width * tile.vectors) {
            let scratch = operands.scratch.as_ref().unwrap_or(&y.buffer);
            let all = planes.outer * planes.image_len();
            let args = [
                Arg::Buffer(&extents),
                Arg::Buffer(&x.buffer),
                Arg::int(x.offset),
                Arg::Buffer(scratch),
                Arg::int(planes.phases[0]),
                Arg::int(planes.phases[1]),
                Arg::int(planes.plane[0]),
                Arg::int(planes.plane[1]),
                Arg::int(planes.inner),
                Arg::int(all),
            ];
            let (global, local) = support::in_groups([all, 1, 1]);
            launches.push(Launch::new(&program, "lay_out", &args, global, local)?);
            (input, input_at) = (scratch, 0);
        }
        let args = [
            Arg::Buffer(&extents),
            Arg::Buffer(input),
            Arg::int(input_at),
            Arg::int(planes.image_len()),
            Arg::int(depth * planes.channel_len()),
            Arg::int(planes.plane[1]),
            Arg::int(planes.inner),
            Arg::Buffer(&uploaded.starts),
            Arg::Buffer(&uploaded.places),
            Arg::Buffer(&uploaded.values),
            Arg::Buffer(&uploaded.columns),
            Arg::Buffer(&bias),
            Arg::Buffer(&residual.buffer),
            Arg::int(residual.offset),
            Arg::Buffer(&y.buffer),
            Arg::int(y.offset),
            support::epilogue(op.epilogue),
        ];
        let items = planes.lanes.div_ceil(tile.width * tile.vectors);
        let rows = entries.starts.len() - 1;
        let (global, local) = match tile.by_rows {
            true => ([rows, items, planes.outer], [1, 1, 1]),
            false => {
                let items = items.next_multiple_of(tile.lanes);
                ([items, rows * tile.split, planes.outer], [tile.lanes, tile.split, 1])
            }
        };
        launches.push(Launch::new(&program, "sparse", &args, global, Some(local))?);
        Ok(Staged { launches, weight_bytes })
    }
}
