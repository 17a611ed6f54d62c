//! Plans: which kernel, which layout and which memory for every operation.

use std::collections::HashMap;

use dlis_backend::{Backend, Epilogue, Layout, OpSpec, OpWeights, Operation, Program, Slot, SlotId, Step, TensorSpec};
use dlis_model::{Network, graph::MAX_ELEMENTS};

use crate::choose::{Choice, choose, reorder_kernel};
use crate::error::PlanError;
use crate::explain::Explanation;
use crate::lower::{Lowered, LoweredOp, Source, lower};
use crate::memory::{Buffer, assign};
use crate::policy::Policy;
use crate::tune::{TuneCache, Tuner};

/// Makes plans for one backend.
#[derive(Debug)]
pub struct Planner<'a> {
    backend: &'a dyn Backend,
    policy: Policy,
    batch: usize,
    cache: Option<&'a mut TuneCache>,
}

impl<'a> Planner<'a> {
    /// A planner of batches of one, by [`Policy::Heuristic`].
    pub fn new(backend: &'a dyn Backend) -> Self {
        Self { backend, policy: Policy::Heuristic, batch: 1, cache: None }
    }

    /// How kernels are chosen.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Images of a run.
    #[must_use]
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Where [`Policy::Measured`] finds and leaves its measurements.
    #[must_use]
    pub fn cache(self, cache: &'a mut TuneCache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Plans a network.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if a batch-norm cannot be folded, the batch is too large, or the backend has no kernel
    /// for a layer.
    pub fn plan(self, network: &Network) -> Result<Plan, PlanError> {
        let lowered = lower(network)?;
        let shapes = lowered.ops.iter().map(|op| op.output_shape).chain([lowered.input]);
        let largest = shapes.map(|shape| shape.elements()).max().unwrap_or(0);
        if self.batch == 0 || largest.checked_mul(self.batch).is_none_or(|elements| elements > MAX_ELEMENTS) {
            return Err(PlanError::Batch { batch: self.batch, max_elements: MAX_ELEMENTS });
        }
        let mut unsaved = TuneCache::in_memory();
        let mut tuner = Tuner::new(self.backend, self.cache.unwrap_or(&mut unsaved));
        let choices = choose(&lowered, self.backend, &self.policy, self.batch, &mut tuner)?;
        let (program, origins) = Emitter::new(&lowered, &choices, self.backend, self.batch).emit()?;
        Ok(Plan { program, origins, ops: lowered.ops, choices, policy: self.policy })
    }
}

/// A network ready to be compiled by the backend that it was planned for.
#[derive(Clone, Debug)]
pub struct Plan {
    program: Program,
    /// The operation of each step; `None` for a reorder.
    origins: Vec<Option<usize>>,
    ops: Vec<LoweredOp>,
    choices: Vec<Choice>,
    policy: Policy,
}

impl Plan {
    /// What the backend will execute.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The operations of the lowered network, in order.
    pub fn ops(&self) -> &[LoweredOp] {
        &self.ops
    }

    /// The policy that it was made by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The weights of each step.
    pub fn weights(&self) -> Vec<OpWeights<'_>> {
        let weights = |origin: &Option<usize>| match origin {
            None => OpWeights::default(),
            Some(op) => OpWeights { weight: self.ops[*op].weight.as_ref(), bias: self.ops[*op].bias.as_deref() },
        };
        self.origins.iter().map(weights).collect()
    }

    /// For every step the kernel chosen, and for every other kernel of the operation why it was not.
    pub fn explain(&self, backend: &dyn Backend) -> Explanation {
        let steps = self
            .program
            .steps
            .iter()
            .zip(&self.origins)
            .map(|(step, origin)| (step, origin.map(|op| &self.choices[op])));
        Explanation::new(&self.policy, steps, backend)
    }
}

/// Turns choices into steps over slots.
struct Emitter<'a> {
    lowered: &'a Lowered,
    choices: &'a [Choice],
    backend: &'a dyn Backend,
    batch: usize,
    steps: Vec<Step>,
    origins: Vec<Option<usize>>,
    /// Tensors, and the buffer that each lies in.
    specs: Vec<(TensorSpec, usize)>,
    buffers: Vec<Buffer>,
    /// The slot of a tensor in a layout: the network's input is `None`.
    slots: HashMap<(Option<usize>, Layout), SlotId>,
}

impl<'a> Emitter<'a> {
    fn new(lowered: &'a Lowered, choices: &'a [Choice], backend: &'a dyn Backend, batch: usize) -> Self {
        let (steps, origins, specs, buffers, slots) = Default::default();
        Self { lowered, choices, backend, batch, steps, origins, specs, buffers, slots }
    }

    fn emit(mut self) -> Result<(Program, Vec<Option<usize>>), PlanError> {
        let shape = self.lowered.input;
        let input = TensorSpec::f32(self.batch, [shape.channels, shape.height, shape.width], Layout::Nchw);
        let input = self.allocate(input, 0);
        self.slots.insert((None, Layout::Nchw), input);
        for (index, (op, choice)) in self.lowered.ops.iter().zip(self.choices).enumerate() {
            let spec = &choice.chosen.spec;
            let mut inputs = Vec::with_capacity(op.inputs.len());
            for (source, want) in op.inputs.iter().zip(&spec.inputs) {
                inputs.push(self.operand(*source, *want, &op.layer)?);
            }
            let residual = match op.residual {
                Some(source) => Some(self.operand(source, spec.output, &op.layer)?),
                None => None,
            };
            let output = self.allocate(spec.output, self.steps.len());
            self.slots.insert((Some(index), choice.layout), output);
            let kernel = choice.chosen.kernel.id();
            self.push(
                Step { layer: op.layer.clone(), op: spec.clone(), kernel, inputs, residual, output },
                Some(index),
            );
        }
        let (shape, flat) = match self.lowered.output {
            Source::Input => (shape, None),
            Source::Op(op) => (self.lowered.ops[op].output_shape, None),
            Source::Flat { features, .. } => (shape, Some(features)),
        };
        let dims = flat.map_or([shape.channels, shape.height, shape.width], |features| [features, 1, 1]);
        let want = TensorSpec::f32(self.batch, dims, Layout::Nchw);
        let output = self.operand(self.lowered.output, want, "output")?;
        // The result is read after the last step.
        let end = self.steps.len();
        self.extend(output, end);
        let sizes = self.buffers;
        let (offsets, arena_bytes) = assign(&sizes);
        let slots = self.specs.iter().map(|&(spec, buffer)| Slot { spec, offset: offsets[buffer] }).collect();
        let program = Program { name: self.lowered.name.clone(), slots, steps: self.steps, input, output, arena_bytes };
        Ok((program, self.origins))
    }

    /// A new tensor in a buffer of its own, written by step `at`.
    fn allocate(&mut self, spec: TensorSpec, at: usize) -> SlotId {
        self.buffers.push(Buffer { bytes: spec.bytes(), life: at..=at });
        self.specs.push((spec, self.buffers.len() - 1));
        SlotId(self.specs.len() - 1)
    }

    /// Notes that a tensor is used by step `at`.
    fn extend(&mut self, slot: SlotId, at: usize) {
        let life = &mut self.buffers[self.specs[slot.0].1].life;
        *life = *life.start()..=at.max(*life.end());
    }

    fn push(&mut self, step: Step, origin: Option<usize>) {
        let at = self.steps.len();
        for slot in step.inputs.iter().chain(&step.residual).copied().collect::<Vec<_>>() {
            self.extend(slot, at);
        }
        self.steps.push(step);
        self.origins.push(origin);
    }

    /// The slot of an operand with the spec that a kernel wants, reordered or renamed as needed.
    fn operand(&mut self, source: Source, want: TensorSpec, layer: &str) -> Result<SlotId, PlanError> {
        let (of, layout) = match source {
            Source::Input => (None, want.layout),
            Source::Op(op) => (Some(op), want.layout),
            // Features are in NCHW order, whatever the layout of what they were.
            Source::Flat { of, .. } => (of, Layout::Nchw),
        };
        let slot = self.in_layout(of, layout, layer)?;
        let (spec, buffer) = self.specs[slot.0];
        if spec == want {
            return Ok(slot);
        }
        // The same bytes under another name.
        debug_assert_eq!(spec.bytes(), want.bytes(), "{spec} as {want}");
        self.specs.push((want, buffer));
        Ok(SlotId(self.specs.len() - 1))
    }

    fn in_layout(&mut self, of: Option<usize>, layout: Layout, layer: &str) -> Result<SlotId, PlanError> {
        if let Some(&slot) = self.slots.get(&(of, layout)) {
            return Ok(slot);
        }
        let has = Layout::ALL.into_iter().find_map(|layout| self.slots.get(&(of, layout)).copied());
        let from = has.unwrap_or(SlotId(0));
        let (spec, buffer) = self.specs[from.0];
        let wanted = spec.with_layout(layout);
        let slot = if spec.is_layout_free() {
            self.specs.push((wanted, buffer));
            SlotId(self.specs.len() - 1)
        } else {
            let op = OpSpec {
                operation: Operation::Reorder,
                inputs: vec![spec],
                output: wanted,
                epilogue: Epilogue::NONE,
                weight: None,
            };
            let kernel = reorder_kernel(self.backend, &op).ok_or_else(|| PlanError::NoKernel {
                backend: self.backend.name().to_owned(),
                layer: layer.to_owned(),
                op: op.to_string(),
                reasons: " none reorders".to_owned(),
            })?;
            let output = self.allocate(wanted, self.steps.len());
            let step =
                Step { layer: layer.to_owned(), op, kernel: kernel.id(), inputs: vec![from], residual: None, output };
            self.push(step, None);
            output
        };
        self.slots.insert((of, layout), slot);
        Ok(slot)
    }
}
