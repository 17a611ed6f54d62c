//! What reorders and changes of the element type cost, as far as a plan may come to have them.

use dlis_backend::{Backend, Kernel, Layout, OpSpec, TensorSpec};
use dlis_formats::DType;

use crate::choose::{Candidate, NOMINAL_BYTES_PER_NS};
use crate::error::PlanError;
use crate::forms::{ByForm, CONVERTED, Form, LayoutCosts, MADE, TensorCosts};
use crate::lower::{Lowered, LoweredOp, Source};
use crate::policy::Policy;
use crate::slices::Slicing;
use crate::tune::Tuner;
use crate::types::Types;

/// Share of the nominal bandwidth at which a reorder, or a change of the element type, runs.
const CONVERSION_EFFICIENCY: f64 = 0.3;
/// What a conversion that no kernel can do costs, in ns: more than any network, and still a number to compare.
const IMPOSSIBLE: f64 = 1e18;

/// The forms that a tensor may come to have, given the kernels that there are.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    /// The layouts in which it may be made.
    made: [bool; Layout::ALL.len()],
    /// The forms in which it may be wanted.
    wanted: ByForm<bool>,
    /// How many operands want it.
    operands: usize,
}

impl Uses {
    /// Of every tensor.
    fn of(lowered: &Lowered, costs: &[LayoutCosts]) -> Vec<Self> {
        let nchw = Layout::ALL.map(|layout| layout == Layout::Nchw);
        let mut uses = vec![Self { made: nchw, ..Self::default() }; costs.len() + 1];
        let mut want = |source: Source, dtype, layouts: [bool; Layout::ALL.len()]| {
            let kind = if lowered.made_as(source.tensor()) == dtype { MADE } else { CONVERTED };
            // Features are in NCHW order, whatever the layout of what they are wanted for.
            let layouts = if matches!(source, Source::Flat { .. }) { nchw } else { layouts };
            uses[source.tensor()].operands += 1;
            for layout in Layout::ALL {
                uses[source.tensor()].wanted[Form { kind, layout }] |= layouts[layout as usize];
            }
        };
        for (op, costs) in lowered.ops.iter().zip(costs) {
            op.wanted().for_each(|(source, dtype)| want(source, dtype, costs.map(f64::is_finite)));
        }
        want(lowered.output, DType::F32, nchw);
        for (uses, costs) in uses[1..].iter_mut().zip(costs) {
            uses.made = costs.map(f64::is_finite);
        }
        uses
    }

    /// Whether a layout may be reordered to for a form: because it is wanted, or converted afterwards to one that is.
    fn makes(&self, form: Form) -> bool {
        self.wanted[form] || self.wanted[Form { kind: CONVERTED, ..form }]
    }

    /// Whether the first of two forms of a kind may be reordered to the second: it may be what was made, or what was
    /// reordered for another operand.
    fn reorders(&self, from: Form, to: Form) -> bool {
        (self.made[from.layout as usize] || self.operands > 1 && self.makes(from)) && self.makes(to)
    }

    /// Whether the tensor may be converted in a layout: one in which it is made, or in which it is wanted converted.
    fn converts(&self, layout: Layout) -> bool {
        let wanted = |layout| self.wanted[Form { kind: CONVERTED, layout }];
        wanted(layout) || self.made[layout as usize] && Layout::ALL.into_iter().any(wanted)
    }
}

/// What it costs to move each tensor as its neighbours may want it, and as if it were [`IMPOSSIBLE`] otherwise; zero
/// for reorders between layouts that are the same bytes.
pub(crate) fn tensor_costs(
    lowered: &Lowered,
    costs: &[LayoutCosts],
    backend: &dyn Backend,
    policy: &Policy,
    slicing: &Slicing,
    tuner: &mut Tuner<'_>,
) -> Result<Vec<TensorCosts>, PlanError> {
    let uses = Uses::of(lowered, costs);
    let mut costs = Vec::with_capacity(uses.len());
    for (tensor, uses) in uses.iter().enumerate() {
        let (layer, shape) = lowered.tensor(tensor);
        let runs = slicing.runs_of_tensor(tensor);
        let batch = slicing.batch() / runs;
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
            Ok::<f64, PlanError>(candidates[0].cost * runs as f64)
        };
        let made = lowered.made_as(tensor);
        let types = [made, if made == DType::U8 { DType::F32 } else { DType::U8 }];
        let spec = TensorSpec::f32(batch, [shape.channels, shape.height, shape.width], Layout::Nchw);
        let mut of_tensor = TensorCosts::unknown(spec, IMPOSSIBLE);
        for to in Form::all() {
            for from in Layout::ALL.map(|layout| Form { layout, ..to }) {
                let moves = !spec.with_layout(from.layout).is_in(to.layout);
                if moves && uses.reorders(from, to) {
                    let types = Types { inputs: types[to.kind], output: types[to.kind] };
                    of_tensor.reorder[to.kind][from.layout as usize][to.layout as usize] =
                        conversion(types, from.layout, to.layout)?;
                }
            }
        }
        for layout in Layout::ALL.into_iter().filter(|&layout| uses.converts(layout)) {
            let types = Types { inputs: types[MADE], output: types[CONVERTED] };
            of_tensor.convert[layout as usize] = conversion(types, layout, layout)?;
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
