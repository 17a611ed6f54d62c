//! Convolutions and linear layers as products of matrices that are never made, of weights in any format that has an
//! element for each place: dense, or of so few bits that decoding pays where it is done once for many pixels.
//!
//! A GPU's work-groups decode to local memory, a CPU's work-items to registers; both read the same packed weights.
//! Activations are channels last, so that the terms of a tap are neighbours.

mod pack;

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_formats::Format;
use dlis_model::Window;

use self::pack::{BLOCK, Packed, Shape};
use crate::device::{Arg, Buffer, Device, DeviceKind, Launch, Program};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{direct, geometry, support};
use crate::precision::Precision;

const DECODE: &str = concat!(include_str!("../epilogue.cl"), include_str!("decode.cl"));
const ROWS: &str = include_str!("rows.cl");
const TILED: &str = include_str!("tiled.cl");

/// Terms that a tile takes at a time.
const DEPTH: usize = 16;
/// Least terms of a work-group, where several share those of a tile.
const MIN_PART: usize = 8 * DEPTH;
/// Most work-groups that share a tile.
const MAX_SPLITS: usize = 32;

/// `{conv2d,linear}/*/dense/implicit-gemm/opencl` and `{conv2d,linear}/*/FORMAT/decoded-gemm/opencl`: of the
/// operation and the format that it names.
pub(crate) struct Gemm(pub(crate) &'static str, pub(crate) Format);

/// `conv2d/*/FORMAT/depthwise/opencl`: channels convolved on their own, of weights in the format that it names.
pub(crate) struct Depthwise(pub(crate) Format);

fn shape(op: &OpSpec, format: Format) -> Option<(Window, Shape)> {
    let (window, groups) = direct::window(op)?;
    let (inputs, channels) = (op.inputs[0].channels, op.output.channels);
    let shape = match is_depthwise(op) {
        true => Shape::new(format, 1, channels, 1, window.taps()),
        false => Shape::new(format, groups, channels / groups, inputs / groups, window.taps()),
    };
    let counts = [shape.groups, shape.blocks(), BLOCK, shape.terms()];
    let all = counts.into_iter().try_fold(1, usize::checked_mul)?;
    i32::try_from(all).is_ok().then_some((window, shape))
}

fn is_depthwise(op: &OpSpec) -> bool {
    matches!(op.operation, Operation::Conv2d(conv) if conv.is_depthwise())
}

fn supports(op: &OpSpec, name: &str, format: Format, precision: Precision) -> Support {
    if op.operation.name() != name {
        return support::another_operation();
    }
    let fits = shape(op, format).is_some_and(|(window, _)| geometry::fits(window));
    // Halves that are widened when they are uploaded are executed as what they have become.
    let formats = match (format, precision) {
        (Format::DenseF32, Precision::F16) => support::dense(op),
        _ => support::format(op, format),
    };
    support::floats(op)
        .and(|| formats)
        .and(|| support::channels_last(op))
        .and(|| Support::when(fits, "its weight or its window is larger than programs can count"))
}

/// The compiler's options for weights of a format.
fn decoding(format: Format, precision: Precision) -> String {
    let name = match format {
        Format::Int8 => "INT8",
        Format::Int4 => "INT4",
        Format::Ternary2Bit => "TERNARY_2BIT",
        Format::Ternary5In8 => "TERNARY_5IN8",
        Format::TwoFour => "TWO_FOUR",
        _ => "DENSE",
    };
    let halves = if is_half(format, precision) { " -DWEIGHT_HALF" } else { "" };
    format!("-D{name}{halves}")
}

fn is_half(format: Format, precision: Precision) -> bool {
    format == Format::DenseF16 || precision == Precision::F16
}

/// How a GPU's work is divided.
#[derive(Clone, Copy, Debug)]
struct Tiles {
    /// Pixels and channels of a work-item.
    item: [usize; 2],
    /// Work-groups of a tile.
    splits: usize,
    /// Terms of each.
    part: usize,
}

impl Tiles {
    fn new(op: &OpSpec, shape: Shape, device: &Device) -> Self {
        let pixels = op.output.batch * op.output.pixels();
        let units = device.info().compute_units;
        let groups = |[m, n]: [usize; 2]| pixels.div_ceil(16 * m) * shape.channels.div_ceil(16 * n) * shape.groups;
        let item = if pixels <= 16 {
            [1, 4]
        } else if groups([8, 8]) >= 2 * units {
            [8, 8]
        } else {
            [4, 4]
        };
        // As many work-groups as keep all compute units busy twice.
        let splits = (2 * units / groups(item)).min(shape.terms() / MIN_PART).clamp(1, MAX_SPLITS);
        let part = shape.terms().div_ceil(splits).next_multiple_of(DEPTH);
        Self { item, splits: shape.terms().div_ceil(part).max(1), part }
    }
}

/// Everything that all of a product's launches take.
struct Bound<'a> {
    stage: &'a Stage<'a>,
    shape: Shape,
    window: Window,
    format: Format,
    extents: Buffer,
    codes: Buffer,
    values: Buffer,
    positive: Buffer,
    negative: Buffer,
    bias: Buffer,
}

impl<'a> Bound<'a> {
    fn new(stage: &'a Stage<'a>, format: Format, weights: OpWeights<'_>) -> Result<Self, OpenClError> {
        let (window, shape) = shape(stage.op, format).expect("support has checked the extents");
        let weight = weights.weight.expect("the operation has a weight");
        let packed = Packed::new(weight, shape);
        let device = stage.device;
        let values = match is_half(format, stage.precision) {
            true => device.upload(&packed.halves())?,
            false => device.upload(&packed.values)?,
        };
        let bias = shape.per_channel(|row| weights.bias.map_or(0.0, |bias| bias[row]));
        Ok(Self {
            stage,
            shape,
            window,
            format,
            extents: geometry::upload(
                device,
                stage.op,
                window,
                if is_depthwise(stage.op) { shape.channels } else { shape.groups },
            )?,
            codes: device.upload(&packed.codes)?,
            values,
            positive: device.upload(&packed.positive)?,
            negative: device.upload(&packed.negative)?,
            bias: device.upload(&bias)?,
        })
    }

    fn weight_bytes(&self) -> usize {
        [&self.codes, &self.values, &self.positive, &self.negative, &self.bias].map(Buffer::bytes).iter().sum()
    }

    fn pixels(&self) -> usize {
        self.stage.op.output.batch * self.stage.op.output.pixels()
    }

    fn program(&self, name: &'static str, source: &str, options: &str) -> Result<Program, OpenClError> {
        let source = format!("{}{DECODE}{source}", geometry::definitions());
        let decoding = decoding(self.format, self.stage.precision);
        self.stage.program(name, &source, &format!("{decoding}{options}"))
    }

    /// The arguments of all kernels, `between` those for the input and those for the weight, and `last`.
    fn launch(
        &self,
        program: &Program,
        name: &'static str,
        [between, last]: [&[Arg<'_>]; 2],
        global: [usize; 3],
        local: Option<[usize; 3]>,
    ) -> Result<Launch, OpenClError> {
        let operands = self.stage.operands;
        let (x, y) = (&operands.inputs[0], &operands.output);
        let residual = operands.residual.as_ref().unwrap_or(y);
        let mut args = vec![Arg::Buffer(&self.extents), Arg::Buffer(&x.buffer), Arg::int(x.offset)];
        args.extend(between);
        args.extend([
            Arg::Buffer(&self.codes),
            Arg::Buffer(&self.values),
            Arg::Buffer(&self.positive),
            Arg::Buffer(&self.negative),
            Arg::Buffer(&self.bias),
            Arg::Buffer(&residual.buffer),
            Arg::int(residual.offset),
            Arg::Buffer(&y.buffer),
            Arg::int(y.offset),
        ]);
        args.extend(last);
        args.push(support::epilogue(self.stage.op.epilogue));
        Launch::new(program, name, &args, global, local)
    }

    /// For devices of wide vectors.
    fn rows(&self) -> Result<Vec<Launch>, OpenClError> {
        let (shape, pixels) = (self.shape, self.pixels());
        // As many as registers hold, but few for few pixels.
        let rows = match pixels {
            1 => 1,
            ..=12 => 4,
            _ => 16,
        };
        let program = self.program("rows", ROWS, &format!(" -DROWS={rows}"))?;
        let zeros = self.stage.upload_real(&vec![0.0; shape.inputs])?;
        let last = [Arg::int(shape.depth), Arg::int(shape.terms()), Arg::int(shape.blocks()), Arg::int(pixels)];
        let global = [shape.groups * shape.blocks(), pixels.div_ceil(rows), 1];
        Ok(vec![self.launch(&program, "rows", [&[Arg::Buffer(&zeros)], &last], global, Some([1, 1, 1]))?])
    }

    /// For devices of many threads and local memory.
    fn tiled(&self, tiles: Tiles) -> Result<Vec<Launch>, OpenClError> {
        let (shape, pixels, op) = (self.shape, self.pixels(), self.stage.op);
        let Tiles { item: [m, n], splits, part } = tiles;
        let by_four = if shape.inputs.is_multiple_of(4) { " -DBY_FOUR" } else { "" };
        let program = self.program("tiled", TILED, &format!(" -DTM={m} -DTN={n}{by_four}"))?;
        let table = self.stage.device.upload(&table(op, self.window, shape))?;
        let y = &self.stage.operands.output;
        let partial = self.stage.operands.scratch.as_ref().unwrap_or(&y.buffer);
        let last = [
            Arg::Buffer(partial),
            Arg::int(shape.terms()),
            Arg::int(shape.blocks()),
            Arg::int(pixels),
            Arg::int(splits),
            Arg::int(part),
        ];
        let groups = [pixels.div_ceil(16 * m), shape.channels.div_ceil(16 * n), shape.groups * splits];
        let (global, local) = ([groups[0] * 256, groups[1], groups[2]], Some([256, 1, 1]));
        let mut launches = vec![self.launch(&program, "tiled", [&[Arg::Buffer(&table)], &last], global, local)?];
        if splits > 1 {
            let residual = self.stage.operands.residual.as_ref().unwrap_or(y);
            let all = op.output.elements();
            let args = [
                Arg::Buffer(&self.extents),
                Arg::Buffer(partial),
                Arg::Buffer(&self.bias),
                Arg::Buffer(&residual.buffer),
                Arg::int(residual.offset),
                Arg::Buffer(&y.buffer),
                Arg::int(y.offset),
                Arg::int(shape.blocks()),
                Arg::int(splits),
                Arg::int(all),
                support::epilogue(op.epilogue),
            ];
            let (global, local) = support::in_groups([all, 1, 1]);
            launches.push(Launch::new(&program, "add_up", &args, global, local)?);
        }
        Ok(launches)
    }

    fn depthwise(&self) -> Result<Vec<Launch>, OpenClError> {
        let program = self.program("depthwise", ROWS, " -DROWS=1")?;
        let last = [Arg::int(self.shape.depth), Arg::int(self.shape.terms())];
        let (global, local) = support::in_groups([self.shape.channels, self.pixels(), 1]);
        Ok(vec![self.launch(&program, "depthwise", [&[], &last], global, local)?])
    }
}

/// For each term the distance of its input from the window's first, its row and its column; terms that no input
/// channel has are beyond every row.
fn table(op: &OpSpec, window: Window, shape: Shape) -> Vec<i32> {
    let int = |value: usize| i32::try_from(value).expect("support has checked the extents");
    let x = op.inputs[0];
    let of = |term: usize| {
        let (tap, channel) = (term / shape.depth, term % shape.depth);
        let [row, column] = [tap / window.kernel[1] * window.dilation[0], tap % window.kernel[1] * window.dilation[1]];
        // A term whose distance cannot be counted lies beyond every row or column, and is not read.
        let distance = (row * x.width + column) * x.channels + channel;
        let is_read = channel < shape.inputs;
        [i32::try_from(distance).unwrap_or(0), if is_read { int(row) } else { 1 << 30 }, int(column), 0]
    };
    (0..shape.terms()).flat_map(of).collect()
}

impl DeviceKernel for Gemm {
    fn id(&self, precision: Precision) -> KernelId {
        match self.1 {
            Format::DenseF32 => KernelId::new(self.0, precision.name(), "dense", "implicit-gemm", "opencl"),
            format => KernelId::new(self.0, precision.name(), format.name(), "decoded-gemm", "opencl"),
        }
    }

    fn support(&self, op: &OpSpec, _: &Device, precision: Precision) -> Support {
        supports(op, self.0, self.1, precision)
            .and(|| Support::when(!is_depthwise(op), "channels convolved on their own are no product"))
    }

    fn efficiency(&self, _: &OpSpec, device: &Device) -> f32 {
        match device.info().kind {
            DeviceKind::Cpu => 0.1,
            DeviceKind::Gpu => 0.25,
        }
    }

    fn scratch_bytes(&self, op: &OpSpec, device: &Device, _: Precision) -> usize {
        match (device.info().kind, shape(op, self.1)) {
            (DeviceKind::Gpu, Some((_, shape))) => {
                let splits = Tiles::new(op, shape, device).splits;
                if splits > 1 { splits * op.output.elements() * size_of::<f32>() } else { 0 }
            }
            _ => 0,
        }
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let bound = Bound::new(to, self.1, weights)?;
        let launches = match to.device.info().kind {
            DeviceKind::Cpu => bound.rows()?,
            DeviceKind::Gpu => bound.tiled(Tiles::new(to.op, bound.shape, to.device))?,
        };
        Ok(Staged { launches, weight_bytes: bound.weight_bytes() })
    }
}

impl DeviceKernel for Depthwise {
    fn id(&self, precision: Precision) -> KernelId {
        let format = if self.0 == Format::DenseF32 { "dense" } else { self.0.name() };
        KernelId::new("conv2d", precision.name(), format, "depthwise", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, precision: Precision) -> Support {
        supports(op, "conv2d", self.0, precision)
            .and(|| Support::when(is_depthwise(op), "it convolves every channel on its own"))
    }

    fn efficiency(&self, _: &OpSpec, device: &Device) -> f32 {
        match device.info().kind {
            DeviceKind::Cpu => 0.05,
            DeviceKind::Gpu => 0.3,
        }
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let bound = Bound::new(to, self.0, weights)?;
        Ok(Staged { launches: bound.depthwise()?, weight_bytes: bound.weight_bytes() })
    }
}
