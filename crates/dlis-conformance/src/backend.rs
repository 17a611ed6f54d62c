//! One case on one kernel of a whole backend, by way of a program.

use dlis_backend::{
    AlignedBytes, Backend, CompileError, Executable, ExecuteError, Head, Kernel, KernelId, OpSpec, OpWeights, Program,
    Slot, SlotId, Step,
};
use dlis_backend::{Layout, TensorSpec};
use dlis_formats::Format;

use crate::case::Case;
use crate::formats::Expectations;
use crate::guarded::Guarded;
use crate::kernel::{for_each_variant, same_bits};
use crate::outcome::Outcome;
use crate::reference::Expected;
use crate::tensor::Tensor;
use crate::tolerance::Tolerance;

/// Runs a case on one of a backend's kernels, as a program of one step, in every layout and weight
/// format that the kernel supports on the backend's machine.
///
/// A program has one input. Where the operation has one NCHW operand, that is it. Otherwise the input is
/// a flat tensor within which the operands lie one after another, each at an aligned place: slots are
/// places in the arena, and two that overlap are the same bytes (which is also how a program flattens).
pub fn check_backend(backend: &dyn Backend, kernel: &dyn Kernel, case: &Case, tolerance: Tolerance) -> Outcome {
    check_against(backend, kernel, case, &Expectations::new(case), tolerance)
}

/// As [`check_backend`], with the reference's results, which many kernels can share.
pub(crate) fn check_against(
    backend: &dyn Backend,
    kernel: &dyn Kernel,
    case: &Case,
    expected: &Expectations<'_>,
    tolerance: Tolerance,
) -> Outcome {
    for_each_variant(kernel, case.variants(), backend.hardware(), |op| {
        let (program, input) = one_step(case, op, kernel.id());
        check_program(backend, case, op, &program, &input, expected.of(op.weight), tolerance)
    })
}

/// A program of one step and its input.
fn one_step(case: &Case, op: &OpSpec, kernel: KernelId) -> (Program, Vec<f32>) {
    let specs = op.inputs.iter().copied().chain(case.residual.as_ref().map(|_| op.output));
    let operands: Vec<(TensorSpec, Vec<f32>)> = specs
        .zip(case.inputs.iter().chain(&case.residual))
        .map(|(spec, tensor)| (spec, tensor.in_layout(spec.layout)))
        .collect();
    let mut slots = Vec::new();
    // The room between operands holds NaN, which no operation may take in.
    let mut input = Vec::new();
    for (spec, values) in &operands {
        slots.push(Slot::new(*spec, input.len() * size_of::<f32>()));
        input.extend_from_slice(values);
        if operands.len() > 1 {
            input.resize(AlignedBytes::round_up(input.len() * size_of::<f32>()) / size_of::<f32>(), f32::NAN);
        }
    }
    let inputs = (0..case.inputs.len()).map(SlotId).collect();
    let residual = case.residual.as_ref().map(|_| SlotId(case.inputs.len()));
    let program_input = match &operands[..] {
        [(spec, _)] if spec.layout == Layout::Nchw => SlotId(0),
        _ => {
            slots.push(Slot::new(TensorSpec::f32(1, [input.len(), 1, 1], Layout::Nchw), 0));
            SlotId(slots.len() - 1)
        }
    };
    let offset = AlignedBytes::round_up(input.len() * size_of::<f32>());
    slots.push(Slot::new(op.output, offset));
    let output = SlotId(slots.len() - 1);
    let step = Step { layer: case.name.clone(), op: op.clone(), kernel, inputs, residual, output };
    let arena_bytes = AlignedBytes::round_up(offset + op.output.bytes());
    let (name, head) = (case.name.clone(), Head::NONE);
    (Program { name, slots, steps: vec![step], head, shares: 1, input: program_input, output, arena_bytes }, input)
}

fn check_program(
    backend: &dyn Backend,
    case: &Case,
    op: &OpSpec,
    program: &Program,
    input: &[f32],
    expected: &Expected,
    tolerance: Tolerance,
) -> Result<(), String> {
    program.validate().map_err(|error| format!("the suite's own program is wrong: {error}"))?;
    let weight = case.weight_in(op.weight.unwrap_or(Format::DenseF32));
    let weights = OpWeights { weight: weight.as_ref(), bias: case.bias.as_deref(), ..OpWeights::default() };
    if !matches!(backend.compile(program, &[]), Err(CompileError::WeightCount { steps: 1, weights: 0 })) {
        return Err("compiling without weights for its step is not refused as a wrong count".to_owned());
    }
    let mut executable =
        backend.compile(program, &[weights]).map_err(|error| format!("supported, but not compiled: {error}"))?;
    let first = run(&mut *executable, input, program)?;
    tolerance.compare(expected, &Tensor::from_layout(case.output_dims(), op.output.layout, &first))?;
    same_bits(&first, &run(&mut *executable, input, program)?).map_err(|at| format!("a second run differs {at}"))?;
    check_trace(&mut *executable, input, &first)?;
    check_sizes(&mut *executable, input, first.len())?;
    let steps = executable.step_weight_bytes();
    if steps.len() != 1 || steps[0] > executable.residency().weight_bytes {
        return Err(format!("weight bytes of each step {steps:?} do not fit {:?}", executable.residency()));
    }
    Ok(())
}

fn run(executable: &mut dyn Executable, input: &[f32], program: &Program) -> Result<Vec<f32>, String> {
    let mut output = Guarded::new(program.output_spec().bytes(), 0xff, 0xa5);
    executable.run(input, output.f32_mut()).map_err(|error| error.to_string())?;
    match output.breach() {
        None => Ok(output.f32().to_vec()),
        Some(place) => Err(format!("writes {place} of the output")),
    }
}

/// A traced run reports its one step, and computes the same.
fn check_trace(executable: &mut dyn Executable, input: &[f32], first: &[f32]) -> Result<(), String> {
    let mut traces = Vec::new();
    let mut output = vec![f32::NAN; first.len()];
    let observe = &mut |trace: dlis_backend::StepTrace| traces.push(trace.step);
    executable.run_traced(input, &mut output, observe).map_err(|error| error.to_string())?;
    same_bits(first, &output).map_err(|at| format!("a traced run differs {at}"))?;
    if traces == [0] { Ok(()) } else { Err(format!("a traced run of one step reported steps {traces:?}")) }
}

/// Slices of a wrong size are refused.
fn check_sizes(executable: &mut dyn Executable, input: &[f32], output: usize) -> Result<(), String> {
    let refused = |result| matches!(result, Err(ExecuteError::Size { .. }));
    let mut longer = vec![0.0; output + 1];
    if !refused(executable.run(input, &mut longer)) {
        return Err("an output with an element too many is not refused".to_owned());
    }
    if !refused(executable.run(&input[1..], &mut longer[1..])) {
        return Err("an input that lacks an element is not refused".to_owned());
    }
    Ok(())
}
