//! Convolutions of 3x3 with steps of one, by Winograd's algorithm F(4x4, 3x3): a fourth of the multiplications, for
//! three launches and transformed weights of four times the size.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_model::Window;

use super::{LANES, Tile, processor, supports};
use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{geometry, support};
use crate::precision::Precision;
use crate::tune;

const SOURCE: &str = include_str!("winograd.cl");

/// `conv2d/*/dense/winograd-4x4/opencl`
pub(crate) struct Winograd;

/// Extent of a square of the output, and of the input under it.
const OUT: usize = 4;
const IN: usize = 6;
/// Channels of the output that a transform back takes, a multiple of the channels of any tile.
const CHUNK: usize = 64;

/// The transform of a filter's columns, and of its rows.
const G: [[f64; 3]; IN] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Squares of the output, of all images.
fn squares(op: &OpSpec) -> usize {
    op.output.batch * op.output.height.div_ceil(OUT) * op.output.width.div_ceil(OUT)
}

/// Channels of the transformed input and of the products.
fn padded(op: &OpSpec) -> [usize; 2] {
    [op.inputs[0].channels.next_multiple_of(LANES), op.output.channels.next_multiple_of(CHUNK)]
}

/// Floats that lie between the launches.
fn scratch_floats(op: &OpSpec) -> usize {
    IN * IN * squares(op) * padded(op).iter().sum::<usize>()
}

/// Element `[row, column]` of a transformed filter.
fn transformed(filter: &[f32], row: usize, column: usize) -> f32 {
    let mut sum = 0.0;
    for (i, of_row) in G[row].iter().enumerate() {
        for (j, of_column) in G[column].iter().enumerate() {
            sum += of_row * f64::from(filter[i * 3 + j]) * of_column;
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
    let rounded = sum as f32;
    rounded
}

/// The weight as `[element][block of channels][input channel][block]`, zeros beyond the last channel.
fn pack(weights: OpWeights<'_>, inputs: usize, outputs: usize, block: usize) -> Vec<f32> {
    let padded = outputs.next_multiple_of(block);
    let mut packed = vec![0.0; IN * IN * inputs * padded];
    let dense = support::elements(weights);
    for (index, filter) in dense.chunks_exact(9).enumerate() {
        let (output, input) = (index / inputs, index % inputs);
        let at = (output / block * inputs + input) * block + output % block;
        for element in 0..IN * IN {
            packed[element * inputs * padded + at] = transformed(filter, element / IN, element % IN);
        }
    }
    packed
}

fn stage_as(stage: &Stage<'_>, weights: OpWeights<'_>, window: Window, tile: Tile) -> Result<Staged, OpenClError> {
    let (op, operands) = (stage.op, stage.operands);
    let program = super::program(stage, "winograd", SOURCE, &tile.to_string())?;
    let geometry = geometry::upload(stage.device, op, window, 1)?;
    let (inputs, outputs) = (op.inputs[0].channels, op.output.channels);
    // Floats at any precision, as what they are multiplied with is.
    let weight = stage.device.upload(&pack(weights, inputs, outputs, tile.block()))?;
    let bias = super::upload_bias(stage, weights.bias, tile)?;
    let scratch = operands.scratch.as_ref().expect("it asks for scratch");
    let (x, y) = (&operands.inputs[0], &operands.output);
    let residual = operands.residual.as_ref().unwrap_or(y);
    let squares = squares(op);
    let transform = [Arg::Buffer(&geometry), Arg::Buffer(&x.buffer), Arg::int(x.offset), Arg::Buffer(scratch)];
    let multiply = [Arg::Buffer(&geometry), Arg::Buffer(scratch), Arg::Buffer(&weight), Arg::int(squares)];
    let back = [
        Arg::Buffer(&geometry),
        Arg::Buffer(scratch),
        Arg::Buffer(&bias),
        Arg::Buffer(&residual.buffer),
        Arg::int(residual.offset),
        Arg::Buffer(&y.buffer),
        Arg::int(y.offset),
        Arg::I32(i32::from(op.epilogue.residual)),
        Arg::I32(support::activation_number(op.epilogue)),
    ];
    let [along_squares, along_channels] = tile.grid(squares, outputs);
    let launch = |name, args: &[Arg<'_>], global| Launch::new(&program, name, args, global, Some([1, 1, 1]));
    let launches = vec![
        launch("transform", &transform, [squares, inputs.div_ceil(CHUNK), 1])?,
        launch("multiply", &multiply, [along_squares, along_channels, IN * IN])?,
        launch("transform_back", &back, [squares, outputs.div_ceil(CHUNK), 1])?,
    ];
    Ok(Staged { launches, weight_bytes: weight.bytes() + bias.bytes() })
}

impl DeviceKernel for Winograd {
    fn runs_on(&self, device: &Device) -> Support {
        processor(device)
    }

    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new("conv2d", precision.name(), "dense", "winograd-4x4", "opencl")
    }

    fn support(&self, op: &OpSpec, _: &Device, _: Precision) -> Support {
        let Operation::Conv2d(conv) = op.operation else { return support::another_operation() };
        let Window { kernel, stride, dilation, .. } = conv.window;
        let fits = i32::try_from(scratch_floats(op).saturating_mul(size_of::<f32>())).is_ok();
        Support::when(conv.groups == 1, "it convolves one group")
            .and(|| Support::when(kernel == [3, 3], "it executes windows of 3x3"))
            .and(|| Support::when(stride == [1, 1] && dilation == [1, 1], "it executes steps of one"))
            .and(|| supports(op, conv.window))
            .and(|| Support::when(fits, "its transformed tensors would not be of less than 2 GiB"))
    }

    fn efficiency(&self, op: &OpSpec, _: &Device) -> f32 {
        // Squares are cut off by the edges of the output; and all weights are read for every few squares, of which
        // there must be some to multiply them with.
        let used = (op.output.batch * op.output.height * op.output.width) as f32 / (squares(op) * OUT * OUT) as f32;
        let few = squares(op) < 8 || op.inputs[0].channels < 2 * LANES || op.output.channels < 2 * LANES;
        if few { 0.2 } else { 0.9 * used }
    }

    fn scratch_bytes(&self, op: &OpSpec, _: &Device, _: Precision) -> usize {
        scratch_floats(op) * size_of::<f32>()
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let Operation::Conv2d(conv) = to.op.operation else { unreachable!("support has checked it") };
        let mut tiles = super::tiles(squares(to.op), to.op.output.channels, IN * IN, to.device);
        tiles.retain(|tile| CHUNK.is_multiple_of(tile.block()));
        tune::fastest(to, &self.id(to.precision), &tiles, |&tile| stage_as(to, weights, conv.window, tile))
    }
}
