//! Kernels for processors: vectors of 16 channels in registers, no local memory, a work-item a work-group. Other
//! devices are declined, which would be idle but for a thread of each work-group.

mod depthwise;
mod indirect;
mod pool;
mod winograd;

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
pub(crate) use winograd::Winograd;

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

    /// Work-items along so many pixels and so many channels.
    fn grid(self, pixels: usize, channels: usize) -> [usize; 2] {
        [pixels.div_ceil(self.pixels), channels.div_ceil(self.block())]
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-DPIXELS={} -DVECTORS={}", self.pixels, self.vectors)
    }
}

/// Tiles for 32 registers of 16 floats, and for 16 of 8: the sums, a row of weights and a value must fit. Of those that
/// are expected to take the same time the first is taken, so that those of few pixels come first: more of them lie
/// in the padding as a whole, where there is nothing to do.
const WIDE: [Tile; 10] = [
    Tile::new(4, 4),
    Tile::new(4, 2),
    Tile::new(4, 1),
    Tile::new(8, 2),
    Tile::new(12, 2),
    Tile::new(14, 2),
    Tile::new(6, 4),
    Tile::new(2, 4),
    Tile::new(1, 1),
    Tile::new(1, 4),
];
const NARROW: [Tile; 5] = [Tile::new(6, 1), Tile::new(4, 1), Tile::new(2, 2), Tile::new(1, 1), Tile::new(1, 4)];

/// The tiles that may be the fastest for so many products of matrices with so many rows (pixels) and columns
/// (channels), the one that is expected to be first.
fn tiles(pixels: usize, channels: usize, products: usize, device: &Device) -> Vec<Tile> {
    let info = device.info();
    let mut tiles = if info.vector_floats >= LANES { WIDE.to_vec() } else { NARROW.to_vec() };
    // A multiply-add a vector of the tile, but no step is shorter than the latency of one and what it waits for; some
    // tiles are cut off by the edges, and the last are computed while other cores have nothing left to do.
    let expected = |tile: &Tile| {
        let items: usize = tile.grid(pixels, channels).iter().product();
        (items * products).div_ceil(info.compute_units.max(1)) * (tile.pixels * tile.vectors).max(8)
    };
    tiles.sort_by_key(expected);
    tiles
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
    let [along_pixels, along_channels] = tile.grid(pixels(stage.op), stage.op.output.channels);
    Launch::new(program, name, &args, [along_pixels, along_channels, 1], Some([1, 1, 1]))
}
