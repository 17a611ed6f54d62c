//! A kernel and a layout for every operation.

use dlis_backend::{Backend, Kernel, Layout, OpSpec, Support};

use crate::error::PlanError;
use crate::lower::{Lowered, LoweredOp, Source};
use crate::policy::Policy;
use crate::tune::Tuner;

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

/// What a layout costs at one operation; infinite where no kernel has it.
type LayoutCosts = [f64; Layout::ALL.len()];

/// What reordering each tensor costs, from each layout to the other: the network's input, then every
/// operation's result.
type ReorderCosts = Vec<LayoutCosts>;

/// A machine that nobody has: only ratios matter to the heuristic.
const NOMINAL_MACS_PER_NS: f64 = 50.0;
const NOMINAL_BYTES_PER_NS: f64 = 10.0;
/// Share of the nominal bandwidth at which a reorder runs.
const REORDER_EFFICIENCY: f64 = 0.3;
/// What a reorder that no kernel can do costs, in ns: more than any network, and still a number to compare.
const IMPOSSIBLE: f64 = 1e18;

/// Rough time of an operation: its share of the roofline is what the kernel expects to reach.
fn estimate(kernel: &dyn Kernel, op: &LoweredOp, spec: &OpSpec) -> f64 {
    let weight_bytes = op.weight.as_ref().map_or(0, dlis_formats::Weight::bytes) as f64;
    let compute = spec.macs() as f64 / NOMINAL_MACS_PER_NS;
    let memory = (spec.activation_bytes() as f64 + weight_bytes) / NOMINAL_BYTES_PER_NS;
    compute.max(memory) / f64::from(kernel.efficiency(spec).clamp(1e-3, 1.0))
}

/// Chooses for every operation of a lowered network.
pub(crate) fn choose(
    lowered: &Lowered,
    backend: &dyn Backend,
    policy: &Policy,
    batch: usize,
    tuner: &mut Tuner<'_>,
) -> Result<Vec<Choice>, PlanError> {
    let mut candidates = Vec::with_capacity(lowered.ops.len());
    for op in &lowered.ops {
        candidates.push(candidates_of(op, backend, policy, batch, tuner)?);
    }
    let costs: Vec<LayoutCosts> =
        candidates.iter().map(|candidates| Layout::ALL.map(|layout| best(candidates, layout).1)).collect();
    let reorders = reorder_costs(lowered, backend, policy, batch, tuner)?;
    let layouts = layouts(lowered, &costs, &reorders);
    Ok(candidates
        .into_iter()
        .zip(layouts)
        .map(|(candidates, layout)| {
            let (index, _) = best(&candidates, layout);
            Choice { layout, chosen: candidates[index].clone(), candidates }
        })
        .collect())
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
    for layout in Layout::ALL {
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

/// What it costs to reorder each tensor; zero for those that are the same in every layout.
fn reorder_costs(
    lowered: &Lowered,
    backend: &dyn Backend,
    policy: &Policy,
    batch: usize,
    tuner: &mut Tuner<'_>,
) -> Result<ReorderCosts, PlanError> {
    let mut costs = Vec::with_capacity(lowered.ops.len() + 1);
    let input = ("input", lowered.input);
    for (layer, shape) in
        std::iter::once(input).chain(lowered.ops.iter().map(|op| (op.layer.as_str(), op.output_shape)))
    {
        let mut of_tensor = [0.0; Layout::ALL.len()];
        if shape.channels > 1 && shape.plane() != [1, 1] {
            let op = LoweredOp::reorder(layer, shape);
            for from in Layout::ALL {
                let mut spec = op.spec(batch, other(from));
                spec.inputs.iter_mut().for_each(|input| input.layout = from);
                of_tensor[from as usize] = match reorder_kernel(backend, &spec) {
                    None => IMPOSSIBLE,
                    Some(kernel) => {
                        let cost = spec.activation_bytes() as f64 / (NOMINAL_BYTES_PER_NS * REORDER_EFFICIENCY);
                        let mut candidates = [Candidate { kernel, spec, cost, abandoned: false }];
                        if *policy == Policy::Measured {
                            tuner.measure(&op, &mut candidates)?;
                        }
                        candidates[0].cost
                    }
                };
            }
        }
        costs.push(of_tensor);
    }
    Ok(costs)
}

/// The kernel that reorders, the first that can.
pub(crate) fn reorder_kernel(backend: &dyn Backend, spec: &OpSpec) -> Option<&'static dyn Kernel> {
    backend.kernels().iter().copied().find(|kernel| kernel.support(spec, backend.hardware()).is_yes())
}

/// The layout of every operation: the least sum of the operations' costs and of the reorders between
/// them.
///
/// Coordinate descent from the best uniform choice: operations are visited in turn and take the layout
/// that is cheapest given their neighbours', until none changes. A chain of operations that would gain
/// only by changing together is found by the other uniform starts.
fn layouts(lowered: &Lowered, costs: &[LayoutCosts], reorders: &ReorderCosts) -> Vec<Layout> {
    let mut best: Option<(f64, Vec<Layout>)> = None;
    for start in Layout::ALL {
        let mut layouts: Vec<Layout> =
            costs.iter().map(|costs| if costs[start as usize].is_finite() { start } else { other(start) }).collect();
        let mut total = total_cost(lowered, costs, &layouts, reorders);
        loop {
            let before = total;
            for op in 0..layouts.len() {
                let kept = layouts[op];
                layouts[op] = other(kept);
                let changed = total_cost(lowered, costs, &layouts, reorders);
                if changed < total {
                    total = changed;
                } else {
                    layouts[op] = kept;
                }
            }
            if total >= before {
                break;
            }
        }
        if best.as_ref().is_none_or(|(cost, _)| total < *cost) {
            best = Some((total, layouts));
        }
    }
    best.map(|(_, layouts)| layouts).unwrap_or_default()
}

const fn other(layout: Layout) -> Layout {
    match layout {
        Layout::Nchw => Layout::Nhwc,
        Layout::Nhwc => Layout::Nchw,
    }
}

fn total_cost(lowered: &Lowered, costs: &[LayoutCosts], layouts: &[Layout], reorders: &ReorderCosts) -> f64 {
    let mut total: f64 = costs.iter().zip(layouts).map(|(costs, &layout)| costs[layout as usize]).sum();
    // A tensor is reordered once, however many operations want it in the other layout.
    let mut reordered = vec![false; lowered.ops.len() + 1];
    let mut want = |source: Source, layout: Layout| {
        let (of, layout) = match source {
            Source::Input => (None, layout),
            Source::Op(op) => (Some(op), layout),
            Source::Flat { of, .. } => (of, Layout::Nchw),
        };
        let has = of.map_or(Layout::Nchw, |op| layouts[op]);
        let index = of.map_or(0, |op| op + 1);
        if has != layout && !reordered[index] {
            reordered[index] = true;
            total += reorders[index][has as usize];
        }
    };
    for (op, &layout) in lowered.ops.iter().zip(layouts) {
        op.operands().for_each(|operand| want(operand, layout));
    }
    want(lowered.output, Layout::Nchw);
    total
}
