//! A network as a backend executes it: operations with their kernels and the place of every tensor.

use std::collections::HashMap;
use std::fmt::Write as _;

use dlis_formats::DType;
use serde::{Deserialize, Serialize};

use crate::arena::AlignedBytes;
use crate::kernel_id::KernelId;
use crate::op::OpSpec;
use crate::tensor::TensorSpec;

/// A tensor of a program, by its place in [`Program::slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotId(pub usize);

/// A tensor and its place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Extents, element type and layout.
    pub spec: TensorSpec,
    /// First byte, a multiple of [`AlignedBytes::ALIGNMENT`].
    pub offset: usize,
    /// Bytes from its place in one slice of a program's [`Head`] to that in the next, a multiple of
    /// [`AlignedBytes::ALIGNMENT`]; 0 if every slice uses the same, or the tensor is the whole batch's.
    pub slice_bytes: usize,
}

impl Slot {
    /// A tensor in one place.
    pub const fn new(spec: TensorSpec, offset: usize) -> Self {
        Self { spec, offset, slice_bytes: 0 }
    }

    /// Its place in a slice.
    #[must_use]
    pub const fn in_slice(self, slice: usize) -> Self {
        Self { offset: self.offset + slice * self.slice_bytes, ..self }
    }

    /// The byte after its last in any slice; `None` if that is more than there can be.
    fn end(&self, slices: usize) -> Option<usize> {
        let last = slices.saturating_sub(1).checked_mul(self.slice_bytes)?;
        self.offset.checked_add(last)?.checked_add(self.spec.checked_bytes()?)
    }

    fn overlaps(&self, other: &Self, slices: usize) -> bool {
        let end = |slot: &Self| slot.end(slices).unwrap_or(usize::MAX);
        self.offset < end(other) && other.offset < end(self)
    }
}

/// The steps at a program's start that run several times over, each time on the next slice of the batch: the tensors
/// between them are a slice's only, so that what one step writes is in the cache when the next reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How many steps.
    pub steps: usize,
    /// How often they run.
    pub slices: usize,
}

impl Head {
    /// None: every step runs once, on the whole batch.
    pub const NONE: Self = Self { steps: 0, slices: 1 };
}

/// One operation of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The layer of the network that it executes, or for a reorder, that it serves.
    pub layer: String,
    /// What is computed.
    pub op: OpSpec,
    /// By what.
    pub kernel: KernelId,
    /// Of what.
    pub inputs: Vec<SlotId>,
    /// What is added before the activation, where the epilogue says so.
    pub residual: Option<SlotId>,
    /// Where to.
    pub output: SlotId,
}

/// A network as a backend executes it.
///
/// Where there are several [`shares`](Self::shares) of the batch, all of this is about one: slots, steps, head and arena.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The network's name.
    pub name: String,
    /// Every tensor.
    pub slots: Vec<Slot>,
    /// The operations, in order.
    pub steps: Vec<Step>,
    /// Those of them that run a slice of the batch at a time.
    pub head: Head,
    /// Into how many equal shares the batch is divided, which run side by side, each on one worker and in its
    /// arena: workers never wait for each other but at the end, and what a step makes is in the cache of the one that takes
    /// it. 1 if all workers share every step.
    pub shares: usize,
    /// The network's input, NCHW.
    pub input: SlotId,
    /// The network's result.
    pub output: SlotId,
    /// Bytes of an arena.
    pub arena_bytes: usize,
}

/// What can be wrong with a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("program `{program}`, step {step} (`{layer}`): {what}")]
pub struct ProgramError {
    program: String,
    step: usize,
    layer: String,
    what: &'static str,
}

impl Program {
    /// Checks what executing the program relies on: every tensor lies aligned within the arena, an
    /// operation's tensors are those it declares, and its output overlaps none of the others, in no slice.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] naming the step.
    pub fn validate(&self) -> Result<(), ProgramError> {
        let error = |step: usize, what| {
            let layer = self.steps.get(step).map_or_else(String::new, |step| step.layer.clone());
            ProgramError { program: self.name.clone(), step, layer, what }
        };
        let Head { steps: in_head, slices } = self.head;
        if slices == 0 || in_head > self.steps.len() {
            return Err(error(0, "its head has no slices, or more steps than there are"));
        }
        if self.shares == 0 {
            return Err(error(0, "it has no shares of the batch"));
        }
        for slot in &self.slots {
            let aligned = [slot.offset, slot.slice_bytes].iter().all(|at| at.is_multiple_of(AlignedBytes::ALIGNMENT));
            if !aligned || slot.end(slices).is_none_or(|end| end > self.arena_bytes) {
                return Err(error(0, "a tensor is not aligned or lies outside the arena"));
            }
            if slot.slice_bytes != 0 && slot.slice_bytes < slot.spec.bytes() {
                return Err(error(0, "slices of a tensor overlap"));
            }
        }
        let slot = |id: SlotId| self.slots.get(id.0).copied();
        if slot(self.input).is_none() || slot(self.output).is_none() {
            return Err(error(0, "the input or output is not one of its tensors"));
        }
        if [self.input, self.output].iter().any(|id| self.slots[id.0].spec.dtype != DType::F32) {
            return Err(error(0, "the input or output of the program is not f32"));
        }
        if [self.input, self.output].iter().any(|id| self.slots[id.0].slice_bytes != 0) {
            return Err(error(0, "the input or output of the program is a slice of the batch"));
        }
        if [self.input, self.output].iter().any(|&id| self.whole(id).and_then(|spec| spec.checked_bytes()).is_none()) {
            return Err(error(0, "the input or output of all shares is larger than memory can be"));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let of_whole_batch = |slot: &Slot| index < in_head || slot.slice_bytes == 0;
            let output = slot(step.output).ok_or_else(|| error(index, "its output is not one of the tensors"))?;
            if output.spec != step.op.output {
                return Err(error(index, "its output is not of the declared extents, element type or layout"));
            }
            if !of_whole_batch(&output) {
                return Err(error(index, "its output is a slice of the batch, and it is not in the head"));
            }
            if step.inputs.len() != step.op.inputs.len() || step.residual.is_some() != step.op.epilogue.residual {
                return Err(error(index, "its inputs are not as many as declared"));
            }
            let declared = step.op.inputs.iter().chain(step.residual.map(|_| &step.op.output));
            for (id, declared) in step.inputs.iter().chain(step.residual.as_ref()).zip(declared) {
                let input = slot(*id).ok_or_else(|| error(index, "an input is not one of the tensors"))?;
                if input.spec != *declared {
                    return Err(error(index, "an input is not of the declared extents, element type or layout"));
                }
                if !of_whole_batch(&input) {
                    return Err(error(index, "an input is a slice of the batch, and it is not in the head"));
                }
                if input.overlaps(&output, if index < in_head { slices } else { 1 }) {
                    return Err(error(index, "its output overlaps an input"));
                }
            }
        }
        Ok(())
    }

    /// A tensor of the whole batch, given that of a share; `None` if it has more images than there can be.
    fn whole(&self, id: SlotId) -> Option<TensorSpec> {
        let spec = self.slots[id.0].spec;
        Some(TensorSpec { batch: spec.batch.checked_mul(self.shares)?, ..spec })
    }

    /// Extents of the input, of the whole batch.
    pub fn input_spec(&self) -> TensorSpec {
        self.whole(self.input).unwrap_or(self.slots[self.input.0].spec)
    }

    /// Extents of the result, of the whole batch.
    pub fn output_spec(&self) -> TensorSpec {
        self.whole(self.output).unwrap_or(self.slots[self.output.0].spec)
    }

    /// The steps of a share in the order in which they run, each with the slice that it runs on: those of the [`head`](Self::head)
    /// once for every slice, then the others.
    pub fn order(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (Head { steps: in_head, slices }, steps) = (self.head, self.steps.len());
        let head = (0..slices).flat_map(move |slice| (0..in_head).map(move |step| (step, slice)));
        head.chain((in_head..steps).map(|step| (step, 0)))
    }

    /// How often a step runs: once for every slice, or once, of every share.
    pub fn runs_of(&self, step: usize) -> usize {
        self.shares * if step < self.head.steps { self.head.slices } else { 1 }
    }

    /// Names the arithmetic (operations, wiring and kernels; the batch, its slices and shares left out): two programs with the
    /// same text, over the same weights, compute the same bits, whatever the backend's threads. Accuracy is measured
    /// once for each.
    pub fn arithmetic(&self) -> String {
        let mut text = String::new();
        // Operands go by the step that made them: tensors of slices are also tensors of the whole batch.
        let mut made: HashMap<usize, usize> = HashMap::new();
        for (index, step) in self.steps.iter().enumerate() {
            let op = &step.op;
            let one_image = OpSpec {
                inputs: op.inputs.iter().map(|input| input.one_image()).collect(),
                output: op.output.one_image(),
                ..op.clone()
            };
            let maker = |id: &SlotId| made.get(&self.slots[id.0].offset).copied();
            let inputs: Vec<Option<usize>> = step.inputs.iter().map(maker).collect();
            let residual = step.residual.as_ref().map(maker);
            let Step { layer, kernel, output, .. } = step;
            // Writing to a string does not fail.
            let _ = writeln!(text, "{layer}={kernel} {one_image:?} {inputs:?} {residual:?}");
            made.insert(self.slots[output.0].offset, index);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use dlis_model::Activation;

    use super::*;
    use crate::op::{Epilogue, Operation};
    use crate::tensor::Layout;

    /// A rectifier from slot 0 to slot 1.
    fn program() -> Program {
        let spec = TensorSpec::f32(1, [4, 2, 2], Layout::Nchw);
        let op = OpSpec {
            operation: Operation::Activation(Activation::Relu),
            inputs: vec![spec],
            output: spec,
            epilogue: Epilogue::NONE,
            weight: None,
        };
        let kernel = KernelId::new("activation", "f32", "none", "direct", "portable");
        let step =
            Step { layer: "relu".into(), op, kernel, inputs: vec![SlotId(0)], residual: None, output: SlotId(1) };
        let slots = vec![Slot::new(spec, 0), Slot::new(spec, 64)];
        let (input, output) = (SlotId(0), SlotId(1));
        let (name, steps, head) = ("net".into(), vec![step], Head::NONE);
        Program { name, slots, steps, head, shares: 1, input, output, arena_bytes: 128 }
    }

    fn refused(change: fn(&mut Program)) -> String {
        let mut program = program();
        change(&mut program);
        program.validate().unwrap_err().to_string()
    }

    #[test]
    fn every_fault_is_named() {
        program().validate().unwrap();
        assert!(refused(|p| p.arena_bytes = 127).contains("outside the arena"));
        assert!(refused(|p| p.slots[1].offset = 60).contains("not aligned"));
        assert!(refused(|p| p.slots[1].offset = usize::MAX - 63).contains("outside the arena"));
        assert!(refused(|p| p.slots[1].spec.batch = (1 << 60) + 1).contains("outside the arena"));
        assert!(refused(|p| p.slots[1].offset = 0).contains("overlaps an input"));
        assert!(refused(|p| p.output = SlotId(2)).contains("not one of its tensors"));
        assert!(refused(|p| p.steps[0].inputs = vec![SlotId(7)]).contains("`relu`"));
        assert!(refused(|p| p.steps[0].inputs.clear()).contains("not as many"));
        assert!(refused(|p| p.steps[0].residual = Some(SlotId(0))).contains("not as many"));
        assert!(refused(|p| p.slots[0].spec.layout = Layout::Nhwc).contains("layout"));
        assert!(refused(|p| p.slots[0].spec.dtype = DType::U8).contains("is not f32"));
        assert!(refused(|p| p.steps[0].op.output.dtype = DType::U8).contains("element type"));
        assert!(refused(|p| p.head.slices = 0).contains("no slices"));
        assert!(refused(|p| p.head.steps = 2).contains("more steps"));
        assert!(refused(|p| p.shares = 0).contains("no shares"));
        assert!(refused(|p| p.shares = usize::MAX).contains("larger than memory"));
    }

    #[test]
    fn shares_are_a_part_of_the_batch_each() {
        let shared = Program { shares: 3, ..program() };
        shared.validate().unwrap();
        assert_eq!((shared.input_spec().batch, shared.output_spec().batch, shared.runs_of(0)), (3, 3, 3));
        assert_eq!(shared.arithmetic(), program().arithmetic());
    }

    /// The rectifier in two slices: from the first two tensors of the arena to the last two.
    fn sliced() -> Program {
        let mut program = program();
        let spec = program.slots[0].spec;
        program.slots = vec![
            Slot { slice_bytes: 64, ..Slot::new(spec, 0) },
            Slot { slice_bytes: 64, ..Slot::new(spec, 128) },
            Slot::new(TensorSpec { batch: 2, ..spec }, 0),
            Slot::new(TensorSpec { batch: 2, ..spec }, 128),
        ];
        let (head, input, output) = (Head { steps: 1, slices: 2 }, SlotId(2), SlotId(3));
        Program { head, input, output, arena_bytes: 256, ..program }
    }

    #[test]
    fn heads_run_once_for_every_slice() {
        let mut program = sliced();
        program.validate().unwrap();
        assert_eq!(program.order().collect::<Vec<_>>(), [(0, 0), (0, 1)]);
        assert_eq!((program.runs_of(0), program.runs_of(1)), (2, 1));
        assert_eq!(program.slots[1].in_slice(1).offset, 192);
        program.steps.push(program.steps[0].clone());
        assert_eq!(program.order().collect::<Vec<_>>(), [(0, 0), (0, 1), (1, 0)]);
    }

    #[test]
    fn every_fault_of_slices_is_named() {
        let refused = |change: fn(&mut Program)| {
            let mut program = sliced();
            change(&mut program);
            program.validate().unwrap_err().to_string()
        };
        assert!(refused(|p| p.head.slices = 3).contains("outside the arena"));
        assert!(refused(|p| p.slots[1].slice_bytes = 60).contains("not aligned"));
        assert!(refused(|p| (p.slots[1].spec.batch, p.arena_bytes) = (2, 512)).contains("slices of a tensor overlap"));
        assert!(refused(|p| p.slots[1].slice_bytes = usize::MAX - 63).contains("outside the arena"));
        // The second slice's input is the first's output.
        assert!(refused(|p| p.slots[1].offset = 64).contains("overlaps an input"));
        assert!(refused(|p| p.head.steps = 0).contains("not in the head"));
        assert!(refused(|p| p.input = SlotId(0)).contains("is a slice"));
    }

    #[test]
    fn the_arithmetic_names_layers_and_kernels_but_no_memory() {
        let mut moved = program();
        moved.arena_bytes = 4096;
        moved.slots.swap(0, 1);
        moved.steps[0].inputs[0] = SlotId(1);
        moved.steps[0].output = SlotId(0);
        assert_eq!(moved.arithmetic(), program().arithmetic());
        assert_eq!(sliced().arithmetic(), program().arithmetic());
        moved.steps[0].kernel = KernelId::new("activation", "f32", "none", "direct", "avx2");
        assert_ne!(moved.arithmetic(), program().arithmetic());
        let mut other = program();
        other.steps[0].op.operation = Operation::Activation(Activation::Relu6);
        assert_ne!(other.arithmetic(), program().arithmetic());
    }
}
