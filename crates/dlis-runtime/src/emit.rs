//! From choices to a program: steps over tensors in one arena.

use std::collections::HashMap;

use dlis_backend::{
    Backend, Epilogue, Layout, OpSpec, Operation, OwnedQuantization, Program, Slot, SlotId, Step, TensorSpec,
};
use dlis_formats::DType;

use crate::choose::Choices;
use crate::conversions::conversion_kernel;
use crate::error::PlanError;
use crate::forms::{CONVERTED, Existing, Form, MADE};
use crate::lower::{Lowered, Source};
use crate::memory::{Buffer, assign};
use crate::types::{Types, quantization_of_conversion};

/// What a step is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// It executes the operation with this index.
    Op(usize),
    /// It moves a tensor to another layout or element type.
    Conversion(OwnedQuantization),
}

impl Origin {
    pub(crate) fn op(&self) -> Option<usize> {
        match self {
            Self::Op(op) => Some(*op),
            Self::Conversion(_) => None,
        }
    }
}

/// What becomes of the memory of a tensor that is no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Others take it.
    Memory,
    /// It stays: after a run, all tensors are there.
    Nothing,
}

/// A program, and what each of its steps is for.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub(crate) program: Program,
    pub(crate) origins: Vec<Origin>,
}

/// Turns choices into steps over slots.
pub(crate) struct Emitter<'a> {
    lowered: &'a Lowered,
    choices: &'a Choices,
    backend: &'a dyn Backend,
    batch: usize,
    steps: Vec<Step>,
    origins: Vec<Origin>,
    /// Tensors, and the buffer that each lies in.
    specs: Vec<(TensorSpec, usize)>,
    buffers: Vec<Buffer>,
    /// The slot of a tensor in an element type and layout.
    slots: HashMap<(usize, DType, Layout), SlotId>,
}

impl<'a> Emitter<'a> {
    pub(crate) fn new(lowered: &'a Lowered, choices: &'a Choices, backend: &'a dyn Backend, batch: usize) -> Self {
        let (steps, origins, specs, buffers, slots) = Default::default();
        Self { lowered, choices, backend, batch, steps, origins, specs, buffers, slots }
    }

    pub(crate) fn emit(mut self, reuse: Reuse) -> Result<Emitted, PlanError> {
        let shape = self.lowered.input;
        let input = TensorSpec::f32(self.batch, [shape.channels, shape.height, shape.width], Layout::Nchw);
        let input = self.allocate(input, 0);
        self.slots.insert((0, DType::F32, Layout::Nchw), input);
        for (index, (op, choice)) in self.lowered.ops.iter().zip(&self.choices.ops).enumerate() {
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
            self.slots.insert((Source::Op(index).tensor(), spec.output.dtype, choice.layout), output);
            let kernel = choice.chosen.kernel.id();
            self.push(
                Step { layer: op.layer.clone(), op: spec.clone(), kernel, inputs, residual, output },
                Origin::Op(index),
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
        let mut buffers = self.buffers;
        if reuse == Reuse::Nothing {
            buffers.iter_mut().for_each(|buffer| buffer.life = 0..=end);
        }
        let (offsets, arena_bytes) = assign(&buffers);
        let slots = self.specs.iter().map(|&(spec, buffer)| Slot { spec, offset: offsets[buffer] }).collect();
        let program = Program { name: self.lowered.name.clone(), slots, steps: self.steps, input, output, arena_bytes };
        Ok(Emitted { program, origins: self.origins })
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

    fn push(&mut self, step: Step, origin: Origin) {
        let at = self.steps.len();
        for slot in step.inputs.iter().chain(&step.residual).copied().collect::<Vec<_>>() {
            self.extend(slot, at);
        }
        self.steps.push(step);
        self.origins.push(origin);
    }

    /// The slot of an operand with the spec that a kernel wants, converted, reordered or renamed as needed.
    fn operand(&mut self, source: Source, want: TensorSpec, layer: &str) -> Result<SlotId, PlanError> {
        // Features are in NCHW order, whatever the layout of what they were.
        let layout = if matches!(source, Source::Flat { .. }) { Layout::Nchw } else { want.layout };
        let slot = self.obtain(source.tensor(), want.dtype, layout, layer)?;
        let (spec, buffer) = self.specs[slot.0];
        if spec == want {
            return Ok(slot);
        }
        // The same bytes under another name.
        debug_assert_eq!(spec.bytes(), want.bytes(), "{spec} as {want}");
        self.specs.push((want, buffer));
        Ok(SlotId(self.specs.len() - 1))
    }

    /// The slot of a tensor in an element type and layout, made of what there is of it if need be.
    fn obtain(&mut self, tensor: usize, dtype: DType, layout: Layout, layer: &str) -> Result<SlotId, PlanError> {
        if let Some(&slot) = self.slots.get(&(tensor, dtype, layout)) {
            return Ok(slot);
        }
        let made = self.lowered.made_as(tensor);
        let types = [made, if made == DType::U8 { DType::F32 } else { DType::U8 }];
        let has = tensor.checked_sub(1).map_or(Layout::Nchw, |op| self.choices.ops[op].layout);
        let mut existing = Existing::new(has);
        let there = |form: &Form| self.slots.contains_key(&(tensor, types[form.kind], form.layout));
        Form::all().filter(there).for_each(|form| existing.insert(form));
        let to = Form { kind: if dtype == made { MADE } else { CONVERTED }, layout };
        let way = self.choices.tensors[tensor].way(&existing, to);
        let mut slot = self.slots[&(tensor, types[way.from.kind], way.from.layout)];
        for form in way.by.into_iter().chain([to]) {
            let (spec, buffer) = self.specs[slot.0];
            let wanted = spec.with_layout(form.layout).with_dtype(types[form.kind]);
            slot = if spec.dtype == wanted.dtype && spec.is_in(wanted.layout) {
                // The same bytes under another name.
                self.specs.push((wanted, buffer));
                SlotId(self.specs.len() - 1)
            } else {
                self.convert(tensor, slot, wanted, layer)?
            };
            self.slots.insert((tensor, wanted.dtype, wanted.layout), slot);
        }
        Ok(slot)
    }

    /// Adds the step that makes of a tensor in one slot the same in another layout or element type.
    fn convert(&mut self, tensor: usize, from: SlotId, to: TensorSpec, layer: &str) -> Result<SlotId, PlanError> {
        let spec = self.specs[from.0].0;
        let types = Types { inputs: spec.dtype, output: to.dtype };
        let op = OpSpec {
            operation: types.conversion(),
            inputs: vec![spec],
            output: to,
            epilogue: Epilogue::NONE,
            weight: None,
        };
        let kernel = conversion_kernel(self.backend, &op).ok_or_else(|| PlanError::NoKernel {
            backend: self.backend.name().to_owned(),
            layer: layer.to_owned(),
            op: op.to_string(),
            reasons: match op.operation {
                Operation::Reorder => " none reorders".to_owned(),
                _ => " none changes the element type".to_owned(),
            },
        })?;
        let quantization = quantization_of_conversion(types, self.lowered.quantization[tensor]);
        let output = self.allocate(to, self.steps.len());
        let layer = layer.to_owned();
        let step = Step { layer, op, kernel: kernel.id(), inputs: vec![from], residual: None, output };
        self.push(step, Origin::Conversion(quantization));
        Ok(output)
    }
}
