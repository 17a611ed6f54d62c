//! Every layer's result on given images, for calibration.

use std::ops::Range;

use dlis_backend::{Backend, Layout, Slot, SlotId, TensorSpec};
use dlis_model::{Network, Shape, Value};

use crate::emit::Reuse;
use crate::error::{PlanError, SessionError};
use crate::lower::Fusion;
use crate::plan::Planner;
use crate::session::Session;

/// One tensor of a network, as it was in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation<'a> {
    /// Which: the network's input, or a layer's result.
    pub value: Value,
    /// Shape of one image.
    pub shape: Shape,
    /// Its elements, `[batch, channels, height, width]`.
    pub elements: &'a [f32],
}

/// Where a tensor lies among those that a run leaves behind.
#[derive(Clone, Debug)]
struct Place {
    value: Value,
    shape: Shape,
    spec: TensorSpec,
    /// Of the arena's floats.
    floats: Range<usize>,
}

/// Runs a network layer by layer as its graph says, in f32, and shows what every layer made: nothing is folded
/// or fused, and no memory is reused. Sessions pay nothing for it.
///
/// ```
/// use dlis_backend::Schedule;
/// use dlis_model::{Network, Value, zoo};
/// use dlis_runtime::{Observer, Planner};
///
/// let network = Network::random(zoo::graph("mobilenet-cifar10")?, 0);
/// let backend = dlis_cpu_rayon::backend(1.try_into()?, Schedule::Static)?;
/// let mut observer = Observer::new(&backend, Planner::new(&backend), &network)?;
/// let mut seen = 0;
/// observer.run(&vec![0.5; 3 * 32 * 32], &mut |tensor| {
///     assert_eq!(tensor.elements.len(), tensor.shape.elements());
///     seen += 1;
/// })?;
/// assert_eq!(seen, 1 + network.graph().layers().len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Observer {
    session: Session,
    places: Vec<Place>,
    /// The arena after a run.
    arena: Vec<f32>,
    /// A tensor in NCHW order.
    ordered: Vec<f32>,
}

/// Why a network could not be observed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// It could not be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its session could not be made.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl Observer {
    /// An observer of a network, run as the planner says.
    ///
    /// # Errors
    ///
    /// [`ObserveError`] if the network cannot be planned, or all its tensors at once do not fit the memory.
    pub fn new(backend: &dyn Backend, planner: Planner<'_>, network: &Network) -> Result<Self, ObserveError> {
        let mut plan = planner.plan_as(network.clone(), Fusion::None, Reuse::Nothing)?;
        let graph = network.graph();
        let program = plan.program_mut();
        // A slot over the whole arena is the program's result, so that a run hands all of it out.
        let floats = program.arena_bytes / size_of::<f32>();
        let whole = TensorSpec::f32(1, [floats, 1, 1], Layout::Nchw);
        let input = program.input;
        program.slots.push(Slot::new(whole, 0));
        program.output = SlotId(program.slots.len() - 1);
        let mut slots = vec![None; graph.layers().len()];
        for (step, op) in plan.program().steps.iter().zip(plan.step_ops()) {
            if let Some(Value::Layer(layer)) = op.map(|op| plan.ops()[op].value) {
                slots[layer] = Some(step.output);
            }
        }
        let mut places = Vec::with_capacity(slots.len() + 1);
        let place = |value: Value, slot: SlotId| {
            let Slot { spec, offset, .. } = plan.program().slots[slot.0];
            let start = offset / size_of::<f32>();
            Place { value, shape: graph.shape(value), spec, floats: start..start + spec.elements() }
        };
        places.push(place(Value::Input, input));
        for layer in 0..slots.len() {
            // A flatten is its operand under another name, which comes earlier.
            let mut operand = layer;
            let slot = loop {
                match (slots[operand], graph.layers()[operand].inputs.first()) {
                    (Some(slot), _) => break slot,
                    (None, Some(Value::Layer(earlier))) => operand = *earlier,
                    (None, _) => break input,
                }
            };
            places.push(place(Value::Layer(layer), slot));
        }
        let session = Session::new(backend, plan)?;
        Ok(Self { session, places, arena: vec![0.0; floats], ordered: Vec::new() })
    }

    /// Images of a run.
    pub fn batch(&self) -> usize {
        self.session.batch()
    }

    /// Elements of the input of a run: the batch's images, NCHW.
    pub fn input_len(&self) -> usize {
        self.session.input_len()
    }

    /// Runs the network on a batch and shows its input and every layer's result, in the graph's order.
    ///
    /// # Errors
    ///
    /// [`SessionError`] if the input is not of [`input_len`](Self::input_len) elements.
    pub fn run(&mut self, input: &[f32], visit: &mut dyn FnMut(Observation<'_>)) -> Result<(), SessionError> {
        self.session.run(input, &mut self.arena)?;
        for Place { value, shape, spec, floats } in &self.places {
            let elements = &self.arena[floats.clone()];
            let elements = if spec.layout == Layout::Nchw {
                elements
            } else {
                let &TensorSpec { batch, channels, height, width, .. } = spec;
                self.ordered.clear();
                for plane in 0..batch * channels {
                    let place = |pixel| [plane / channels, plane % channels, pixel / width, pixel % width];
                    self.ordered.extend((0..height * width).map(|pixel| elements[spec.offset(place(pixel))]));
                }
                &self.ordered
            };
            visit(Observation { value: *value, shape: *shape, elements });
        }
        Ok(())
    }
}
