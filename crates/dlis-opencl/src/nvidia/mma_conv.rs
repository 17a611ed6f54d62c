//! Convolutions and linear layers as implicit matrix products on tensor cores.
//!
//! In f16 and tf32 operands are rounded to 11 bits and sums are f32. In f32 each operand is taken apart into two of 11
//! bits and each product is made of three ("3xTF32"), with sums rounded every eight products, which keeps the accuracy of
//! f32. What is not finite stays what it is with one exception: of f32 a NaN whose payload is in its low 13 bits alone
//! counts as infinity.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_model::Window;

use crate::device::{Arg, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{direct, geometry, support};
use crate::nvidia::pack::pack;
use crate::nvidia::tile::{Cut, Product, candidates};
use crate::nvidia::{self, PTX};
use crate::precision::Precision;
use crate::tune;

const SOURCE: &str = include_str!("mma_conv.cl");

/// The kernel keeps a bit for every line and column of the window in halves of a word, and one more for none.
const MOST_TAPS: usize = 15;

/// Fewest terms of a sum in f32. A product lacks that of its factors' small parts, up to 2^-20 of it, which rounding hides
/// in longer sums.
const SHORTEST_SUM: usize = 8;

/// `conv2d/*/dense/implicit-gemm/nvidia`
pub(crate) struct Conv;

/// `linear/*/dense/implicit-gemm/nvidia`
pub(crate) struct Linear;

fn product(op: &OpSpec, precision: Precision) -> Option<(Window, Product)> {
    let (window, _) = direct::window(op)?;
    Some((window, Product::new(op, window, precision)))
}

fn supports(op: &OpSpec, device: &Device, precision: Precision) -> Support {
    let Some((window, groups)) = direct::window(op) else { return support::another_operation() };
    let small = geometry::fits(window) && window.kernel.iter().all(|&taps| taps <= MOST_TAPS);
    support::floats(op)
        .and(|| support::unpacked(op, device))
        .and(|| support::channels_last(op))
        .and(|| Support::when(groups == 1, "it convolves all channels with all, in a single group"))
        .and(|| Support::when(small, "its window has more than 15 lines or columns"))
        .and(|| {
            let product = Product::new(op, window, precision);
            let long = precision != Precision::F32 || product.k >= SHORTEST_SUM;
            Support::when(long, "its products are not exact enough for so short sums")
        })
        .and(|| {
            let product = Product::new(op, window, precision);
            let bytes = |cut: &Cut| {
                let packed = cut.tile.depth(&product) * cut.tile.k_bytes * cut.tile.packed_columns(&product);
                packed.max(cut.scratch_bytes(&product))
            };
            let few = candidates(&product, device.info()).iter().all(|cut| i32::try_from(bytes(cut)).is_ok());
            Support::when(few, "its packed weights or partial sums take 2 GiB or more")
        })
}

/// Small products leave most tensor cores idle.
fn efficiency(op: &OpSpec, device: &Device) -> f32 {
    let pixels = op.output.batch * op.output.height * op.output.width;
    match device.info().compute_capability {
        None => 1e-4,
        Some(_) if pixels < 64 => 0.1,
        Some(_) => 0.5,
    }
}

fn scratch_bytes(op: &OpSpec, device: &Device, precision: Precision) -> usize {
    let Some((_, product)) = product(op, precision) else { return 0 };
    let cuts = candidates(&product, device.info());
    cuts.iter().map(|cut| cut.scratch_bytes(&product)).max().unwrap_or(0)
}

/// The definitions that `mma_conv.cl` names at its head.
fn options(op: &OpSpec, window: Window, product: &Product, cut: Cut, stage: &Stage<'_>) -> String {
    let Cut { tile, split } = cut;
    let precision = match stage.precision {
        Precision::F16 => 0,
        Precision::Tf32 => 1,
        Precision::F32 => 2,
    };
    let values = [
        ("PRECISION", precision),
        ("OUT_CHANNELS", op.output.channels),
        ("TILE_M", tile.rows),
        ("TILE_N", tile.columns),
        ("TILE_K", tile.k_bytes),
        ("WARPS_M", tile.warps[0]),
        ("WARPS_N", tile.warps[1]),
        ("STAGES", tile.stages),
        ("SPLIT", split),
        ("PACKED_N", tile.packed_columns(product)),
        ("PIECE", product.piece),
    ];
    let mut options = support::epilogue_options(op.epilogue) + &support::extents(op) + &support::window(window);
    options.push_str(&support::definitions(&values));
    match stage.device.info().compute_capability {
        Some(_) if tile.registers > 0 => options.push_str(&format!(" -cl-nv-maxrregcount={}", tile.registers)),
        Some(_) => {}
        // Emulated instructions are many; optimising them takes longer than running them.
        None => options.push_str(" -cl-opt-disable"),
    }
    options
}

fn stage(stage: &Stage<'_>, weights: OpWeights<'_>, kernel: &KernelId) -> Result<Staged, OpenClError> {
    let (window, product) = product(stage.op, stage.precision).expect("support has checked the operation");
    let cuts = candidates(&product, stage.device.info());
    tune::fastest(stage, kernel, &cuts, |&cut| stage_as(stage, weights, window, &product, cut))
}

fn stage_as(
    stage: &Stage<'_>,
    weights: OpWeights<'_>,
    window: Window,
    product: &Product,
    cut: Cut,
) -> Result<Staged, OpenClError> {
    let (op, operands, precision) = (stage.op, stage.operands, stage.precision);
    let options = options(op, window, product, cut, stage);
    let program = stage.program("mma_conv", &format!("{PTX}\n{SOURCE}"), &options)?;
    let dense = support::elements(weights);
    let packed = pack(&dense, window.kernel[0] * window.kernel[1], product, &cut.tile, precision);
    let (weight, bias) = (stage.device.upload(&packed)?, stage.upload_bias(weights.bias)?);
    let (x, y) = (&operands.inputs[0], &operands.output);
    let mut args = vec![Arg::Buffer(&x.buffer), Arg::int(x.offset), Arg::Buffer(&weight), Arg::Buffer(&bias)];
    if let Some(residual) = &operands.residual {
        args.extend([Arg::Buffer(&residual.buffer), Arg::int(residual.offset)]);
    }
    // Work-groups count who has finished a tile, and leave the counters as they found them.
    let tiles = cut.tiles(product);
    let counters = stage.device.upload(&vec![0_u32; if cut.split > 1 { tiles } else { 0 }])?;
    if cut.split > 1 {
        let sums = operands.scratch.as_ref().expect("scratch_bytes asks for it");
        args.extend([Arg::Buffer(sums), Arg::Buffer(&counters)]);
    }
    args.extend([Arg::Buffer(&y.buffer), Arg::int(y.offset)]);
    let items = cut.tile.items();
    let global = [tiles * cut.split * items, 1, 1];
    let launch = Launch::new(&program, "mma_conv", &args, global, Some([items, 1, 1]))?;
    Ok(Staged { launches: vec![launch], weight_bytes: weight.bytes() + bias.bytes() })
}

/// What both have in common.
macro_rules! implicit_gemm {
    ($name:ident, $id:literal, $operation:ident) => {
        impl DeviceKernel for $name {
            fn runs_on(&self, device: &Device) -> Support {
                nvidia::understands(device)
            }

            fn id(&self, precision: Precision) -> KernelId {
                KernelId::new($id, precision.name(), "dense", "implicit-gemm", "nvidia")
            }

            fn support(&self, op: &OpSpec, device: &Device, precision: Precision) -> Support {
                match op.operation {
                    Operation::$operation(_) => supports(op, device, precision),
                    _ => support::another_operation(),
                }
            }

            fn efficiency(&self, op: &OpSpec, device: &Device) -> f32 {
                efficiency(op, device)
            }

            fn scratch_bytes(&self, op: &OpSpec, device: &Device, precision: Precision) -> usize {
                scratch_bytes(op, device, precision)
            }

            fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
                stage(to, weights, &self.id(to.precision))
            }
        }
    };
}

implicit_gemm!(Conv, "conv2d", Conv2d);
implicit_gemm!(Linear, "linear", Linear);
