//! A kernel and a layout for every operation.

use dlis_backend::{Backend, Kernel, Layout, OpSpec, Operation, Support};

use crate::conversions::tensor_costs;
use crate::error::PlanError;
use crate::forms::{LayoutCosts, TensorCosts};
use crate::layouts::layouts;
use crate::lower::{Lowered, LoweredOp};
use crate::policy::Policy;
use crate::slices::Slicing;
use crate::tune::Tuner;

/// A kernel that can execute an operation in one layout.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) kernel: &'static dyn Kernel,
    pub(crate) spec: OpSpec,
    /// Expected time of the whole batch in ns: measured under [`Policy::Measured`], otherwise a rough estimate.
    pub(crate) cost: f64,
    /// Whether measuring was given up as hopeless, so that the cost is the faster of the first runs.
    pub(crate) abandoned: bool,
}

/// The choice for one operation.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) layout: Layout,
    pub(crate) chosen: Candidate,
    /// Every candidate of any layout, the chosen among them.
    pub(crate) candidates: Vec<Candidate>,
}

/// A machine that nobody has: only ratios matter to the heuristic.
const NOMINAL_MACS_PER_NS: f64 = 50.0;
pub(crate) const NOMINAL_BYTES_PER_NS: f64 = 10.0;

/// Rough time of an operation: its share of the roofline is what the kernel expects to reach.
fn estimate(kernel: &dyn Kernel, op: &LoweredOp, spec: &OpSpec) -> f64 {
    let weight_bytes = op.weight_bytes_in(spec.weight) as f64;
    let compute = spec.macs() as f64 / NOMINAL_MACS_PER_NS;
    let memory = (spec.activation_bytes() as f64 + weight_bytes) / NOMINAL_BYTES_PER_NS;
    compute.max(memory) / f64::from(kernel.efficiency(spec).clamp(1e-3, 1.0))
}

/// The choices for a lowered network, and what moving each of its tensors was taken to cost.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub(crate) ops: Vec<Choice>,
    pub(crate) tensors: Vec<TensorCosts>,
    /// What a run of the whole batch is expected to take, in ns.
    pub(crate) cost: f64,
}

/// Chooses for every operation of a lowered network.
pub(crate) fn choose(
    lowered: &Lowered,
    backend: &dyn Backend,
    policy: &Policy,
    slicing: &Slicing,
    tuner: &mut Tuner<'_>,
) -> Result<Choices, PlanError> {
    let of = |(index, op)| candidates_of(op, backend, policy, slicing.batch_of(index));
    let mut candidates = lowered.ops.iter().enumerate().map(of).collect::<Result<Vec<_>, _>>()?;
    drop_idle_lanes(lowered, &mut candidates);
    if *policy == Policy::Measured {
        for (op, candidates) in lowered.ops.iter().zip(&mut candidates) {
            tuner.measure(op, candidates)?;
        }
    }
    for (index, candidates) in candidates.iter_mut().enumerate() {
        candidates.iter_mut().for_each(|candidate| candidate.cost *= slicing.runs_of(index) as f64);
    }
    let costs: Vec<LayoutCosts> =
        candidates.iter().map(|candidates| Layout::ALL.map(|layout| best(candidates, layout).1)).collect();
    let tensors = tensor_costs(lowered, &costs, backend, policy, slicing, tuner)?;
    let (cost, layouts) = layouts(lowered, &costs, &tensors);
    let ops = candidates.into_iter().zip(layouts).map(|(candidates, layout)| {
        let (index, _) = best(&candidates, layout);
        Choice { layout, chosen: candidates[index].clone(), candidates }
    });
    Ok(Choices { ops: ops.collect(), tensors, cost })
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

/// Every kernel that can execute an operation, in every layout, with its estimated cost; infinite where the policy
/// names others.
fn candidates_of(
    op: &LoweredOp,
    backend: &dyn Backend,
    policy: &Policy,
    batch: usize,
) -> Result<Vec<Candidate>, PlanError> {
    let mut candidates = Vec::new();
    let mut reasons = String::new();
    for (layout, format) in op.layouts(batch).flat_map(|layout| op.formats().map(move |format| (layout, format))) {
        let spec = OpSpec { weight: format, ..op.spec(batch, layout) };
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
    if let Policy::Fixed(pattern) = policy
        && candidates.iter().any(|candidate| pattern.matches(&candidate.kernel.id()))
    {
        for candidate in &mut candidates {
            if !pattern.matches(&candidate.kernel.id()) {
                candidate.cost = f64::INFINITY;
            }
        }
    }
    Ok(candidates)
}

/// Drops the candidates with images as lanes unless there is one for an operation with a weight: what makes the layout
/// worth the way into it and out of it are weights that serve all lanes. Without, measuring whatever else can be done
/// in it would be a waste.
fn drop_idle_lanes(lowered: &Lowered, candidates: &mut [Vec<Candidate>]) {
    let lanes = |candidate: &Candidate| candidate.spec.output.layout == Layout::Nhwc16n;
    let pays = |(op, candidates): (&LoweredOp, &Vec<Candidate>)| {
        let weighted = matches!(op.operation, Operation::Conv2d(_) | Operation::Linear(_));
        weighted && candidates.iter().any(|candidate| lanes(candidate) && candidate.cost.is_finite())
    };
    if lowered.ops.iter().zip(&*candidates).any(pays) {
        return;
    }
    for candidates in candidates {
        if candidates.iter().any(|candidate| !lanes(candidate) && candidate.cost.is_finite()) {
            candidates.retain(|candidate| !lanes(candidate));
        }
    }
}
