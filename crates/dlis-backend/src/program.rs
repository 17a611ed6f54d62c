//! A network as a backend executes it: operations with their kernels and the place of every tensor.

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
}

impl Slot {
    fn overlaps(&self, other: &Self) -> bool {
        self.offset < other.offset + other.spec.bytes() && other.offset < self.offset + self.spec.bytes()
    }
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The network's name.
    pub name: String,
    /// Every tensor.
    pub slots: Vec<Slot>,
    /// The operations, in order.
    pub steps: Vec<Step>,
    /// The network's input, NCHW.
    pub input: SlotId,
    /// The network's result.
    pub output: SlotId,
    /// Bytes of the arena.
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
    /// operation's tensors are those it declares, and its output overlaps none of the others.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] naming the step.
    pub fn validate(&self) -> Result<(), ProgramError> {
        let error = |step: usize, what| {
            let layer = self.steps.get(step).map_or_else(String::new, |step| step.layer.clone());
            ProgramError { program: self.name.clone(), step, layer, what }
        };
        for slot in &self.slots {
            let end = slot.spec.checked_bytes().and_then(|bytes| slot.offset.checked_add(bytes));
            if !slot.offset.is_multiple_of(AlignedBytes::ALIGNMENT) || end.is_none_or(|end| end > self.arena_bytes) {
                return Err(error(0, "a tensor is not aligned or lies outside the arena"));
            }
        }
        let slot = |id: SlotId| self.slots.get(id.0).copied();
        if slot(self.input).is_none() || slot(self.output).is_none() {
            return Err(error(0, "the input or output is not one of its tensors"));
        }
        if [self.input, self.output].iter().any(|id| self.slots[id.0].spec.dtype != DType::F32) {
            return Err(error(0, "the input or output of the program is not f32"));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let output = slot(step.output).ok_or_else(|| error(index, "its output is not one of the tensors"))?;
            if output.spec != step.op.output {
                return Err(error(index, "its output is not of the declared extents, element type or layout"));
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
                if input.overlaps(&output) {
                    return Err(error(index, "its output overlaps an input"));
                }
            }
        }
        Ok(())
    }

    /// Extents of the input.
    pub fn input_spec(&self) -> TensorSpec {
        self.slots[self.input.0].spec
    }

    /// Extents of the result.
    pub fn output_spec(&self) -> TensorSpec {
        self.slots[self.output.0].spec
    }

    /// Names the arithmetic (operations, wiring and kernels, the batch left out): two programs with the same text, over the same weights, compute the same
    /// bits, whatever the backend's threads. Accuracy is measured once for each.
    pub fn arithmetic(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let op = &step.op;
            let one_image = OpSpec {
                inputs: op.inputs.iter().map(|input| input.one_image()).collect(),
                output: op.output.one_image(),
                ..op.clone()
            };
            let Step { layer, kernel, inputs, residual, output, .. } = step;
            // Writing to a string does not fail.
            let _ = writeln!(text, "{layer}={kernel} {one_image:?} {inputs:?} {residual:?} {output:?}");
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
        let slots = vec![Slot { spec, offset: 0 }, Slot { spec, offset: 64 }];
        Program { name: "net".into(), slots, steps: vec![step], input: SlotId(0), output: SlotId(1), arena_bytes: 128 }
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
    }

    #[test]
    fn the_arithmetic_names_layers_and_kernels_but_no_memory() {
        let mut moved = program();
        moved.arena_bytes = 4096;
        assert_eq!(moved.arithmetic(), program().arithmetic());
        moved.steps[0].kernel = KernelId::new("activation", "f32", "none", "direct", "avx2");
        assert_ne!(moved.arithmetic(), program().arithmetic());
        let mut other = program();
        other.steps[0].op.operation = Operation::Activation(Activation::Relu6);
        assert_ne!(other.arithmetic(), program().arithmetic());
    }
}
