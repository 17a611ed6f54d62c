//! A kernel and a layout for every operation.

use dlis_backend::{Backend, Kernel, Layout, OpSpec, Support};

use dlis_formats::DType;

use crate::error::PlanError;
use crate::layouts::{CONVERTED, LayoutCosts, MADE, TensorCosts, layouts, other};
use crate::lower::{Lowered, LoweredOp, Source};
use crate::policy::Policy;
use crate::tune::Tuner;
use crate::types::Types;

/// A kernel that can execute an operation in one layout.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) kernel: &'static dyn Kernel,
    pub(crate) spec: OpSpec,
    /// Expected time in ns: measured under [`Policy::Measured`], otherwise a rough estimate.
    pub(crate) cost: f64,
    /// Whether the cost is only a lower bound, as measuring was given up.
    pub(crate) abandoned: bool,
}

/// The choice for one operation.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) layout: Layout,
    pub(crate) chosen: Candidate,
    /// Every candidate of either layout, the chosen among them.
    pub(crate) candidates: Vec<Candidate>,
}

/// A machine that nobody has: only ratios matter to the heuristic.
const NOMINAL_MACS_PER_NS: f64 = 50.0;
const NOMINAL_BYTES_PER_NS: f64 = 10.0;
/// Share of the nominal bandwidth at which a reorder, or a change of the element type, runs.
const CONVERSION_EFFICIENCY: f64 = 0.3;
/// What a conversion that no kernel can do costs, in ns: more than any network, and still a number to compare.
const IMPOSSIBLE: f64 = 1e18;

/// Rough time of an operation: its share of the roofline is what the kernel expects to reach.
fn estimate(kernel: &dyn Kernel, op: &LoweredOp, spec: &OpSpec) -> f64 {
    let weight_bytes = op.weight.as_ref().map_or(0, dlis_formats::Weight::bytes) as f64;
    let compute = spec.macs() as f64 / NOMINAL_MACS_PER_NS;
    let memory = (spec.activation_bytes() as f64 + weight_bytes) / NOMINAL_BYTES_PER_NS;
    compute.max(memory) / f64::from(kernel.efficiency(spec).clamp(1e-3, 1.0))
}

/// The choices for a lowered network, and what moving each of its tensors was taken to cost.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub(crate) ops: Vec<Choice>,
    pub(crate) tensors: Vec<TensorCosts>,
}

/// Chooses for every operation of a lowered network.
pub(crate) fn choose(
    lowered: &Lowered,
    backend: &dyn Backend,
    policy: &Policy,
    batch: usize,
    tuner: &mut Tuner<'_>,
) -> Result<Choices, PlanError> {
    let mut candidates = Vec::with_capacity(lowered.ops.len());
    for op in &lowered.ops {
        candidates.push(candidates_of(op, backend, policy, batch, tuner)?);
    }
    let costs: Vec<LayoutCosts> =
        candidates.iter().map(|candidates| Layout::STRIDED.map(|layout| best(candidates, layout).1)).collect();
    let tensors = tensor_costs(lowered, backend, policy, batch, tuner)?;
    let layouts = layouts(lowered, &costs, &tensors);
    let ops = candidates.into_iter().zip(layouts).map(|(candidates, layout)| {
        let (index, _) = best(&candidates, layout);
        Choice { layout, chosen: candidates[index].clone(), candidates }
    });
    Ok(Choices { ops: ops.collect(), tensors })
}

/// Index and cost of the cheapest candidate of a layout; the cost is infinite if there is none.
fn best(candidates: &[Candidate], layout: Layout) -> (usize, f64) {
    let of_layout = |candidate: &Candidate| candidate.spec.output.layout == layout;
    let costs = candidates.iter().enumerate().filter(|(_, candidate)| of_layout(candidate));
    costs
        .map(|(index, candidate)| (index, candidate.cost))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((0, f64::INFINITY))
}

fn candidates_of(
    op: &LoweredOp,
    backend: &dyn Backend,
    policy: &Policy,
    batch: usize,
    tuner: &mut Tuner<'_>,
) -> Result<Vec<Candidate>, PlanError> {
    let mut candidates = Vec::new();
    let mut reasons = String::new();
    for layout in Layout::STRIDED {
        let spec = op.spec(batch, layout);
        for &kernel in backend.kernels().iter().filter(|kernel| kernel.id().op() == op.operation.name()) {
            match kernel.support(&spec, backend.hardware()) {
                Support::Yes => {
                    let cost = estimate(kernel, op, &spec);
                    candidates.push(Candidate { kernel, spec: spec.clone(), cost, abandoned: false });
                }
                Support::No(reason) => reasons.push_str(&format!("\n  {} in {layout}: {reason}", kernel.id())),
            }
        }
    }
    if candidates.is_empty() {
        let op_text = op.spec(batch, Layout::Nchw).to_string();
        let reasons = if reasons.is_empty() { " none is for this operation".to_owned() } else { reasons };
        let backend = backend.name().to_owned();
        return Err(PlanError::NoKernel { backend, layer: op.layer.clone(), op: op_text, reasons });
    }
    match policy {
        Policy::Heuristic => {}
        Policy::Fixed(pattern) => {
            if candidates.iter().any(|candidate| pattern.matches(&candidate.kernel.id())) {
                for candidate in &mut candidates {
                    if !pattern.matches(&candidate.kernel.id()) {
                        candidate.cost = f64::INFINITY;
                    }
                }
            }
        }
        Policy::Measured => tuner.measure(op, &mut candidates)?,
    }
    Ok(candidates)
}

/// What it costs to move each tensor; zero for reorders of those that are the same in every layout, and for
/// element types that nobody wants.
fn tensor_costs(
    lowered: &Lowered,
    backend: &dyn Backend,
    policy: &Policy,
    batch: usize,
    tuner: &mut Tuner<'_>,
) -> Result<Vec<TensorCosts>, PlanError> {
    let tensors = lowered.ops.len() + 1;
    let mut converted = vec![false; tensors];
    let mut want = |source: Source, dtype| {
        let tensor = source.tensor();
        converted[tensor] |= lowered.made_as(tensor) != dtype;
    };
    lowered.ops.iter().flat_map(LoweredOp::wanted).for_each(|(source, dtype)| want(source, dtype));
    want(lowered.output, DType::F32);
    let mut costs = Vec::with_capacity(tensors);
    for (tensor, converted) in converted.into_iter().enumerate() {
        let (layer, shape) = lowered.tensor(tensor);
        let mut conversion = |types: Types, from: Layout, to: Layout| {
            let op = LoweredOp::conversion(layer, shape, types, lowered.quantization[tensor]);
            let mut spec = op.spec(batch, to);
            spec.inputs.iter_mut().for_each(|input| input.layout = from);
            let Some(kernel) = conversion_kernel(backend, &spec) else { return Ok(IMPOSSIBLE) };
            let cost = spec.activation_bytes() as f64 / (NOMINAL_BYTES_PER_NS * CONVERSION_EFFICIENCY);
            let mut candidates = [Candidate { kernel, spec, cost, abandoned: false }];
            if *policy == Policy::Measured {
                tuner.measure(&op, &mut candidates)?;
            }
            Ok::<f64, PlanError>(candidates[0].cost)
        };
        let made = lowered.made_as(tensor);
        let to = if made == DType::U8 { DType::F32 } else { DType::U8 };
        let mut of_tensor = TensorCosts::default();
        for from in Layout::STRIDED {
            if shape.channels > 1 && shape.plane() != [1, 1] {
                of_tensor.reorder[MADE][from as usize] =
                    conversion(Types { inputs: made, output: made }, from, other(from))?;
                if converted {
                    of_tensor.reorder[CONVERTED][from as usize] =
                        conversion(Types { inputs: to, output: to }, from, other(from))?;
                }
            }
            if converted {
                of_tensor.convert[from as usize] = conversion(Types { inputs: made, output: to }, from, from)?;
            }
        }
        costs.push(of_tensor);
    }
    Ok(costs)
}

/// The kernel that moves a tensor to another layout or element type, the first that can.
pub(crate) fn conversion_kernel(backend: &dyn Backend, spec: &OpSpec) -> Option<&'static dyn Kernel> {
    let named = backend.kernels().iter().copied().filter(|kernel| kernel.id().op() == spec.operation.name());
    named.into_iter().find(|kernel| kernel.support(spec, backend.hardware()).is_yes())
}
