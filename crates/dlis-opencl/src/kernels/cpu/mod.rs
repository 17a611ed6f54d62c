//! Kernels for processors: vectors of 16 channels in registers, no local memory, a work-item a work-group. Other
//! devices are declined, which would be idle but for a thread of each work-group.

mod depthwise;
mod indirect;
mod pool;

use std::fmt;

use dlis_backend::{OpSpec, Support};
use dlis_model::Window;

use crate::device::{Arg, Buffer, Device, DeviceKind, Launch, Program};
use crate::error::OpenClError;
use crate::kernel::Stage;
use crate::kernels::{geometry, support};

pub(crate) use depthwise::Depthwise;
pub(crate) use indirect::{Conv, Linear};
pub(crate) use pool::Pool;

/// Floats of the vectors that the programs are written in.
const LANES: usize = 16;

/// How much of the output a work-item computes at once: so many pixels, by so many vectors of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    pixels: usize,
    vectors: usize,
}

impl Tile {
    const fn new(pixels: usize, vectors: usize) -> Self {
        Self { pixels, vectors }
    }

    /// Channels of a work-item.
    fn block(self) -> usize {
        self.vectors * LANES
    }

    /// Work-items along the pixels and along the channels.
    fn grid(self, op: &OpSpec) -> [usize; 2] {
        [pixels(op).div_ceil(self.pixels), op.output.channels.div_ceil(self.block())]
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-DPIXELS={} -DVECTORS={}", self.pixels, self.vectors)
    }
}

/// Pixels of the output, of all images.
fn pixels(op: &OpSpec) -> usize {
    op.output.batch * op.output.height * op.output.width
}

/// Whether all tensors are floats, channels last, and the weight is dense.
fn supports(op: &OpSpec, window: Window) -> Support {
    support::floats(op)
        .and(|| support::dense(op))
        .and(|| support::channels_last(op))
        .and(|| Support::when(geometry::fits(window), "its window is larger than programs can count"))
}

/// Whether the device is a processor.
fn processor(device: &Device) -> Support {
    Support::when(device.info().kind == DeviceKind::Cpu, "it is written for processors")
}

/// One value a channel of the output, and zeros up to a whole block.
fn upload_bias(stage: &Stage<'_>, bias: Option<&[f32]>, tile: Tile) -> Result<Buffer, OpenClError> {
    let mut padded = bias.unwrap_or_default().to_vec();
    padded.resize(stage.op.output.channels.next_multiple_of(tile.block()), 0.0);
    stage.device.upload(&padded)
}

/// A program that knows the extents and the vectors.
fn program(stage: &Stage<'_>, name: &'static str, source: &str, options: &str) -> Result<Program, OpenClError> {
    let source = format!("{}{}\n{source}", geometry::definitions(), include_str!("vector.cl"));
    stage.program(name, &source, options)
}

/// The launch of a program whose arguments are those that all of this folder have.
fn launch(
    stage: &Stage<'_>,
    program: &Program,
    name: &'static str,
    [geometry, weight, bias, zeros]: [&Buffer; 4],
    tile: Tile,
) -> Result<Launch, OpenClError> {
    let (x, y) = (&stage.operands.inputs[0], &stage.operands.output);
    let residual = stage.operands.residual.as_ref().unwrap_or(y);
    let args = [
        Arg::Buffer(geometry),
        Arg::Buffer(&x.buffer),
        Arg::int(x.offset),
        Arg::Buffer(weight),
        Arg::Buffer(bias),
        Arg::Buffer(&residual.buffer),
        Arg::int(residual.offset),
        Arg::Buffer(&y.buffer),
        Arg::int(y.offset),
        Arg::Buffer(zeros),
        Arg::int(pixels(stage.op)),
        Arg::I32(i32::from(stage.op.epilogue.residual)),
        Arg::I32(support::activation_number(stage.op.epilogue)),
    ];
    let [along_pixels, along_channels] = tile.grid(stage.op);
    Launch::new(program, name, &args, [along_pixels, along_channels, 1], Some([1, 1, 1]))
}
