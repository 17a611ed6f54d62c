//! From choices to a program: steps over tensors in one arena.

use std::collections::HashMap;

use dlis_backend::{
    Backend, Epilogue, Head, Layout, OpSpec, Operation, OwnedQuantization, Program, Slot, SlotId, Step, TensorSpec,
};
use dlis_formats::DType;

use crate::choose::Choices;
use crate::conversions::conversion_kernel;
use crate::error::PlanError;
use crate::forms::{CONVERTED, Existing, Form, MADE};
use crate::lower::{Lowered, Source};
use crate::memory::{Buffer, assign};
use crate::slices::Slicing;
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

/// A tensor, the buffer that it lies in, and how far apart its slices do.
#[derive(Clone, Copy, Debug)]
struct Placed {
    spec: TensorSpec,
    buffer: usize,
    slice_bytes: usize,
}

/// Turns choices into steps over slots.
pub(crate) struct Emitter<'a> {
    lowered: &'a Lowered,
    choices: &'a Choices,
    backend: &'a dyn Backend,
    slicing: &'a Slicing,
    steps: Vec<Step>,
    origins: Vec<Origin>,
    placed: Vec<Placed>,
    /// Steps of the head, once they are all there.
    in_head: usize,
    buffers: Vec<Buffer>,
    /// The slot of a tensor in an element type and layout.
    slots: HashMap<(usize, DType, Layout), SlotId>,
}

impl<'a> Emitter<'a> {
    pub(crate) fn new(
        lowered: &'a Lowered,
        choices: &'a Choices,
        backend: &'a dyn Backend,
        slicing: &'a Slicing,
    ) -> Self {
        let (steps, origins, placed, buffers, slots) = Default::default();
        Self { lowered, choices, backend, slicing, steps, origins, placed, in_head: 0, buffers, slots }
    }

    pub(crate) fn emit(mut self, reuse: Reuse) -> Result<Emitted, PlanError> {
        let shape = self.lowered.input;
        let batch = self.slicing.batch();
        let spec = TensorSpec::f32(batch, [shape.channels, shape.height, shape.width], Layout::Nchw);
        self.buffers.push(Buffer { bytes: spec.bytes(), life: 0..=0 });
        let input = self.place(Placed { spec, buffer: 0, slice_bytes: 0 });
        let mut taken = input;
        if self.slicing.head() > 0 {
            let slice = TensorSpec { batch: self.slicing.batch_of(0), ..spec };
            taken = self.place(Placed { spec: slice, buffer: 0, slice_bytes: self.apart(slice) });
        }
        self.slots.insert((0, DType::F32, Layout::Nchw), taken);
        for (index, (op, choice)) in self.lowered.ops.iter().zip(&self.choices.ops).enumerate() {
            if index > 0 && index == self.slicing.head() {
                self.end_head();
            }
            let spec = &choice.chosen.spec;
            let mut inputs = Vec::with_capacity(op.inputs.len());
            for (source, want) in op.inputs.iter().zip(&spec.inputs) {
                inputs.push(self.operand(*source, *want, &op.layer)?);
            }
            let residual = match op.residual {
                Some(source) => Some(self.operand(source, spec.output, &op.layer)?),
                None => None,
            };
            let output = self.allocate(Source::Op(index).tensor(), spec.output);
            self.slots.insert((Source::Op(index).tensor(), spec.output.dtype, choice.layout), output);
            let kernel = choice.chosen.kernel.id();
            self.push(
                Step { layer: op.layer.clone(), op: spec.clone(), kernel, inputs, residual, output },
                Origin::Op(index),
            );
        }
        if self.slicing.head() > 0 && self.slicing.head() == self.lowered.ops.len() {
            self.end_head();
        }
        let (shape, flat) = match self.lowered.output {
            Source::Input => (shape, None),
            Source::Op(op) => (self.lowered.ops[op].output_shape, None),
            Source::Flat { features, .. } => (shape, Some(features)),
        };
        let dims = flat.map_or([shape.channels, shape.height, shape.width], |features| [features, 1, 1]);
        let want = TensorSpec::f32(batch, dims, Layout::Nchw);
        let output = self.operand(self.lowered.output, want, "output")?;
        // The result is read after the last step.
        let end = self.steps.len();
        self.extend(output, end);
        let mut buffers = self.buffers;
        if reuse == Reuse::Nothing {
            buffers.iter_mut().for_each(|buffer| buffer.life = 0..=end);
        }
        let (offsets, arena_bytes) = assign(&buffers);
        let slot = |&Placed { spec, buffer, slice_bytes }: &Placed| Slot { spec, offset: offsets[buffer], slice_bytes };
        let (name, slots) = (self.lowered.name.clone(), self.placed.iter().map(slot).collect());
        let head = Head { steps: self.in_head, slices: self.slicing.slices() };
        let program = Program { name, slots, steps: self.steps, head, shares: 1, input, output, arena_bytes };
        Ok(Emitted { program, origins: self.origins })
    }

    /// Bytes from one slice to the next of a tensor that is there for the whole batch, given what a slice of it is. A
    /// step after the head has no slices.
    fn apart(&self, slice: TensorSpec) -> usize {
        if slice.batch < self.slicing.batch() { slice.bytes() } else { 0 }
    }

    fn place(&mut self, placed: Placed) -> SlotId {
        self.placed.push(placed);
        SlotId(self.placed.len() - 1)
    }

    /// A form of a tensor in a buffer of its own, written by the next step: for the whole batch if need be, whatever
    /// slice of it the step writes.
    fn allocate(&mut self, tensor: usize, spec: TensorSpec) -> SlotId {
        let at = self.steps.len();
        let (whole, slice_bytes) = match self.slicing.is_whole(tensor) {
            true => (TensorSpec { batch: self.slicing.batch(), ..spec }, self.apart(spec)),
            false => (spec, 0),
        };
        self.buffers.push(Buffer { bytes: whole.bytes(), life: at..=at });
        self.place(Placed { spec, buffer: self.buffers.len() - 1, slice_bytes })
    }

    /// The head's last step is there: what the others need is there for the whole batch, and none of the head's steps
    /// may write over it on their next slice.
    fn end_head(&mut self) {
        let steps = self.steps.len();
        self.in_head = steps;
        let batch = self.slicing.batch();
        for Placed { buffer, slice_bytes, .. } in &self.placed {
            if *slice_bytes > 0 {
                let life = &mut self.buffers[*buffer].life;
                *life = 0..=steps.saturating_sub(1).max(*life.end());
            }
        }
        let slicing = self.slicing;
        self.slots.retain(|(tensor, ..), _| slicing.is_whole(*tensor));
        let mut slots: Vec<&mut SlotId> = self.slots.values_mut().collect();
        slots.sort_unstable();
        for slot in slots {
            let Placed { spec, buffer, .. } = self.placed[slot.0];
            self.placed.push(Placed { spec: TensorSpec { batch, ..spec }, buffer, slice_bytes: 0 });
            *slot = SlotId(self.placed.len() - 1);
        }
    }

    /// Notes that a tensor is used by step `at`.
    fn extend(&mut self, slot: SlotId, at: usize) {
        let life = &mut self.buffers[self.placed[slot.0].buffer].life;
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
        let placed = self.placed[slot.0];
        if placed.spec == want {
            return Ok(slot);
        }
        // The same bytes under another name.
        debug_assert_eq!(placed.spec.bytes(), want.bytes(), "{} as {want}", placed.spec);
        Ok(self.place(Placed { spec: want, ..placed }))
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
            let placed = self.placed[slot.0];
            let spec = placed.spec;
            let wanted = spec.with_layout(form.layout).with_dtype(types[form.kind]);
            slot = if spec.dtype == wanted.dtype && spec.is_in(wanted.layout) {
                // The same bytes under another name.
                self.place(Placed { spec: wanted, ..placed })
            } else {
                self.convert(tensor, slot, wanted, layer)?
            };
            self.slots.insert((tensor, wanted.dtype, wanted.layout), slot);
        }
        Ok(slot)
    }

    /// Adds the step that makes of a tensor in one slot the same in another layout or element type.
    fn convert(&mut self, tensor: usize, from: SlotId, to: TensorSpec, layer: &str) -> Result<SlotId, PlanError> {
        let spec = self.placed[from.0].spec;
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
        let output = self.allocate(tensor, to);
        let layer = layer.to_owned();
        let step = Step { layer, op, kernel: kernel.id(), inputs: vec![from], residual: None, output };
        self.push(step, Origin::Conversion(quantization));
        Ok(output)
    }
}
