//! Whole networks in one launch, for batches so small that launches and the device's latencies take longer than its
//! arithmetic.
//!
//! Consecutive steps of these kernels become one launch of as many work-groups as the device has multiprocessors. A
//! work-group stays on its multiprocessor and walks a list of jobs ([`plan`]); where a step needs what others have
//! written, all work-groups meet at a barrier across the device, which takes about a microsecond, a quarter of what a
//! launch costs. Weights do not depend on activations, so a work-group copies those of its next job into local memory
//! while it computes and waits. Every job is a tile of an implicit product of matrices: its rows are the pixels of a
//! small rectangle of the result, its columns 4 to 32 output channels ([`tile`] chooses), and the warps of a work-group
//! divide the inner dimension among themselves, so that no sum crosses work-groups and none depends on timing.
//!
//! Steps are merged where a barrier can be saved ([`network`]): a depthwise convolution or global mean is computed by
//! whoever needs it as the left operand of the product after it, and non-overlapping maxima are taken as a product's
//! tiles are stored.

mod job;
mod network;
mod pack;
mod plan;
mod tile;

use std::sync::Arc;

use dlis_backend::{KernelId, Layout, OpSpec, OpWeights, Operation, Support, TensorSpec};
use dlis_model::Window;

use crate::device::{Arg, Buffer, Device, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, FusedStep, Fusion, Stage, Staged};
use crate::kernels::{direct, geometry, support};
use crate::nvidia;
use crate::precision::Precision;
use network::{MEMORIES, Network};
use plan::Plan;
use tile::{Shape, WORK_ITEMS};

const SOURCE: &str = include_str!("persistent.cl");

/// Most pixels of a product's result, of all images together: beyond, tiles of a few pixels waste bandwidth.
const MAX_PIXELS: usize = 8192;

/// Batches up to which one launch for the network beats everything else.
const FEW_IMAGES: usize = 4;

/// Most input channels that are fetched element by element, as those of an image are.
const MAX_SCATTERED: usize = 4;

/// `OP/*/FORMAT/persistent/nvidia`
#[derive(Debug)]
pub(crate) struct Persistent {
    op: &'static str,
    format: &'static str,
}

// One kernel an operation.
impl Persistent {
    pub(crate) const CONV2D: Self = Self { op: "conv2d", format: "dense" };
    pub(crate) const LINEAR: Self = Self { op: "linear", format: "dense" };
    pub(crate) const MAX_POOL: Self = Self { op: "max_pool", format: "none" };
    pub(crate) const AVG_POOL: Self = Self { op: "avg_pool", format: "none" };
    pub(crate) const GLOBAL_AVG_POOL: Self = Self { op: "global_avg_pool", format: "none" };
    pub(crate) const ADD: Self = Self { op: "add", format: "none" };
    pub(crate) const ACTIVATION: Self = Self { op: "activation", format: "none" };
    pub(crate) const REORDER: Self = Self { op: "reorder", format: "none" };
}

/// Whether a device runs whole networks in one launch at this batch, faster than in integers layer by layer.
pub(crate) fn prefers_f32(device: &Device, batch: usize) -> bool {
    device.info().has_tensor_cores() && batch <= FEW_IMAGES
}

fn supports_product(op: &OpSpec, device: &Device, precision: Precision) -> Support {
    let Some((window, _)) = direct::window(op) else { return support::another_operation() };
    let (source, output) = (op.inputs[0], op.output);
    let neighbours = |spec: &TensorSpec| spec.is_in(Layout::Nhwc);
    let inner = window.kernel[0].saturating_mul(window.kernel[1]).saturating_mul(source.channels);
    support::unpacked(op, device)
        .and(|| Support::when(neighbours(&output), "its output must be in NHWC"))
        .and(|| {
            let few = neighbours(&source) || source.channels <= MAX_SCATTERED;
            Support::when(few, "its input must be in NHWC, or of a few channels")
        })
        .and(|| {
            let few = output.batch.saturating_mul(output.pixels()) <= MAX_PIXELS;
            Support::when(few, "it is for batches of few pixels")
        })
        .and(|| {
            // Three products of tf32 lose two bits each, which longer sums may.
            let long = precision != Precision::F32 || inner >= 4;
            Support::when(long, "its products are not exact enough for so short sums")
        })
        .and(|| {
            let sizes = tile::Sizes::of_op(op, window);
            let fits = Shape::of(device.info(), precision).tiling(&sizes).is_some();
            Support::when(fits, "not even its smallest tile fits local memory")
        })
}

fn supports_window(op: &OpSpec, device: &Device) -> Support {
    match op.operation {
        Operation::Conv2d(_) => support::unpacked(op, device),
        Operation::Add => {
            let alike = op.inputs[1].strides() == op.output.strides();
            support::no_residual(op)
                .and(|| Support::when(alike, "its second input must be in the layout of its output"))
        }
        Operation::Activation(_) => support::no_epilogue(op),
        // The first kernel that can change a layout does: this one only where the product after it can take it over.
        Operation::Reorder => support::no_epilogue(op).and(|| {
            let few =
                op.output.channels <= MAX_SCATTERED && op.output.batch.saturating_mul(op.output.pixels()) <= MAX_PIXELS;
            Support::when(few, "it is for batches of few pixels, and few channels")
        }),
        _ => Support::Yes,
    }
}

fn window(op: &OpSpec) -> Window {
    match op.operation {
        Operation::MaxPool(pool) | Operation::AvgPool(pool) => pool.window,
        _ => direct::window(op).map_or(Window::square(1), |(window, _)| window),
    }
}

impl DeviceKernel for Persistent {
    fn runs_on(&self, device: &Device) -> Support {
        nvidia::understands(device)
    }

    fn id(&self, precision: Precision) -> KernelId {
        KernelId::new(self.op, precision.name(), self.format, "persistent", "nvidia")
    }

    fn support(&self, op: &OpSpec, device: &Device, precision: Precision) -> Support {
        if op.operation.name() != self.op {
            return support::another_operation();
        }
        let grouped = direct::window(op).is_some_and(|(_, groups)| groups > 1) && !network::is_depthwise(op);
        let small = window(op).kernel.iter().all(|&extent| extent < 1 << 11);
        support::floats(op)
            .and(|| Support::when(!grouped, "its groups are neither one nor the channels"))
            .and(|| Support::when(small && geometry::fits(window(op)), "its window is larger than it can count"))
            .and(|| match network::is_product(op) {
                true => supports_product(op, device, precision),
                false => supports_window(op, device),
            })
    }

    fn efficiency(&self, op: &OpSpec, device: &Device) -> f32 {
        if !device.info().has_tensor_cores() {
            return 0.001;
        }
        // What larger batches gain elsewhere is lost here.
        match op.output.batch {
            few if few <= FEW_IMAGES => 0.9,
            ..=16 => 0.2,
            _ => 0.01,
        }
    }

    fn stage(&self, stage: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let step = FusedStep { op: stage.op, weights, operands: stage.operands, is_read_later: true };
        let (launches, bytes) = launches(stage.device, stage.precision, &[step])?;
        Ok(Staged { launches, weight_bytes: bytes.iter().sum() })
    }

    fn fusion(&self) -> Option<&'static dyn Fusion> {
        Some(&Whole)
    }
}

/// Makes one launch of consecutive steps.
struct Whole;

impl Fusion for Whole {
    fn name(&self) -> &'static str {
        "persistent"
    }

    fn scratch_bytes(&self, ops: &[&OpSpec], _: &Device, precision: Precision) -> usize {
        ops.iter().fold(0, |top, op| network::scratch_after(top, &op.output, precision))
    }

    fn stage(
        &self,
        device: &Arc<Device>,
        precision: Precision,
        steps: &[FusedStep<'_>],
    ) -> Result<(Vec<Launch>, Vec<usize>), OpenClError> {
        launches(device, precision, steps)
    }
}

fn launches(
    device: &Arc<Device>,
    precision: Precision,
    steps: &[FusedStep<'_>],
) -> Result<(Vec<Launch>, Vec<usize>), OpenClError> {
    let info = device.info();
    let shape = Shape::of(info, precision);
    let operands = steps[0].operands;
    let scratch: &Buffer = operands.scratch.as_ref().unwrap_or(&operands.output.buffer);
    let network = Network::new(steps, scratch, precision, shape)?;
    let plan = Plan::new(&network, shape);
    let instructions = match info.compute_capability {
        Some([major, _]) if major >= 9 => "-cl-std=CL2.0 -DBULK",
        Some([8, _]) => "-cl-std=CL2.0",
        // Nothing is fast here, and PoCL 3 makes mistakes when it optimises barriers in loops.
        _ => "-cl-opt-disable -DEMULATE",
    };
    let code = match precision {
        Precision::F32 => 0,
        Precision::Tf32 => 1,
        Precision::F16 => 2,
    };
    let Shape { groups, weight_bytes, tile_bytes, .. } = shape;
    let options = format!(
        "{instructions} -DPRECISION={code} -DGROUPS={groups} -DWEIGHT_BYTES={weight_bytes} -DTILE_BYTES={tile_bytes}"
    );
    let program = device.program("persistent", SOURCE, &options)?;
    let (weights, jobs) = (device.upload(&plan.weights)?, device.upload(&plan.jobs)?);
    let sync = device.upload(&[0_u32; 4])?;
    let memory = |index: usize| Arg::Buffer(network.memories.get(index).unwrap_or(&network.memories[0]));
    let launch = |first: usize, last: usize| {
        let mut args: Vec<Arg<'_>> = (0..MEMORIES).map(memory).collect();
        args.extend([Arg::Buffer(&weights), Arg::Buffer(&jobs), Arg::Buffer(&sync)]);
        args.extend([Arg::int(plan.jobs.len() / groups), Arg::int(first), Arg::int(last)]);
        Launch::new(&program, "persistent", &args, [groups * WORK_ITEMS, 1, 1], Some([WORK_ITEMS, 1, 1]))
    };
    // Work-groups that may run one after another cannot wait for each other.
    let launches = match info.has_tensor_cores() {
        true => vec![launch(0, plan.jobs.len() / groups)?],
        false => plan.phases.iter().map(|phase| launch(phase.start, phase.end)).collect::<Result<_, _>>()?,
    };
    let mut bytes = vec![0; steps.len()];
    for (layer, &of_layer) in network.layers.iter().zip(&plan.layer_bytes) {
        bytes[layer.steps.end - 1] = of_layer;
    }
    Ok((launches, bytes))
}
