//! One case on one kernel.

use dlis_backend::{
    AlignedBytes, Executor, Kernel, KernelId, OpSpec, OpWeights, Parallel, Prepared, Schedule, Serial, Support,
};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;

use crate::call::Operands;
use crate::case::Case;
use crate::formats::Expectations;
use crate::outcome::{Outcome, guard_panics};
use crate::reference::Expected;
use crate::tensor::Tensor;
use crate::tolerance::Tolerance;

/// What kernels are run on.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The executors, each with its number of threads. Their results must have the very bits of
    /// [`Serial`]'s, which always runs besides.
    pub executors: &'a [&'a dyn Executor],
    /// The schedules that each executor runs under.
    pub schedules: &'a [Schedule],
    /// The machine that kernels are asked to support.
    pub hardware: &'a Hardware,
    /// The tolerance of each kernel, [`Tolerance::of`] unless a kernel needs another.
    pub tolerance: fn(&KernelId) -> Tolerance,
}

/// Every byte of a NaN, in f16 and f32: whatever is read before it is written poisons the result.
pub(crate) const NAN: u8 = 0xff;
/// Bytes of an ordinary number, as f32 about 0.75: a maximum swallows it less easily than it does NaN.
pub(crate) const NUMBER: u8 = 0x3f;

/// Runs a case on a kernel, in every layout and weight format that the kernel supports.
pub fn check_kernel(kernel: &dyn Kernel, case: &Case, setup: &Setup<'_>) -> Outcome {
    check_against(kernel, case, &Expectations::new(case), setup)
}

/// As [`check_kernel`], with the reference's results, which many kernels can share.
pub(crate) fn check_against(
    kernel: &dyn Kernel,
    case: &Case,
    expected: &Expectations<'_>,
    setup: &Setup<'_>,
) -> Outcome {
    for_each_variant(kernel, case.variants(), setup.hardware, |op| {
        let tolerance = (setup.tolerance)(&kernel.id());
        check_variant(kernel, case, op, expected.of(op.weight), tolerance, setup)
    })
}

/// Runs `check` on each of a case's variants that a kernel supports.
pub(crate) fn for_each_variant(
    kernel: &dyn Kernel,
    variants: Vec<OpSpec>,
    hardware: &Hardware,
    mut check: impl FnMut(&OpSpec) -> Result<(), String>,
) -> Outcome {
    let (mut passed, mut declined) = (0, None);
    for op in variants {
        let checked = guard_panics("the kernel", || match kernel.support(&op, hardware) {
            Support::No(reason) if reason.is_empty() => Err("support says no without a reason".to_owned()),
            Support::No(reason) => Ok(Some(reason.into_owned())),
            Support::Yes => check_claims(kernel, &op).and_then(|()| check(&op)).map(|()| None),
        });
        match checked {
            Ok(None) => passed += 1,
            Ok(Some(reason)) => declined = declined.or(Some(reason)),
            Err(detail) => return Outcome::Failed(format!("{}: {detail}", describe(&op))),
        }
    }
    match declined {
        Some(reason) if passed == 0 => Outcome::Unsupported(reason),
        _ => Outcome::Passed { variants: passed },
    }
}

/// What tells one variant of a case from another.
fn describe(op: &OpSpec) -> String {
    let input = op.inputs.first().map_or(op.output.layout, |input| input.layout);
    let format = op.weight.map_or_else(String::new, |format| format!(", weight {format}"));
    format!("{op}, {input} to {}{format}", op.output.layout)
}

/// What a kernel says of itself.
fn check_claims(kernel: &dyn Kernel, op: &OpSpec) -> Result<(), String> {
    let id = kernel.id();
    if id.op() != op.operation.name() {
        return Err(format!("`{id}` supports an operation of another name"));
    }
    let efficiency = kernel.efficiency(op);
    if efficiency > 0.0 && efficiency <= 1.0 {
        Ok(())
    } else {
        Err(format!("an efficiency of {efficiency} is not in (0, 1]"))
    }
}

fn check_variant(
    kernel: &dyn Kernel,
    case: &Case,
    op: &OpSpec,
    expected: &Expected,
    tolerance: Tolerance,
    setup: &Setup<'_>,
) -> Result<(), String> {
    let weight = case.weight_in(op.weight.unwrap_or(Format::DenseF32));
    let prepared = prepare(kernel, case, op, weight.as_ref(), setup.hardware)?;
    // A kernel must not need its weights any more.
    drop(weight);
    let bytes = |tensor: &Tensor, layout| tensor.in_layout(layout).into_iter().flat_map(f32::to_ne_bytes).collect();
    let operands = Operands {
        op,
        inputs: case.inputs.iter().zip(&op.inputs).map(|(tensor, spec)| bytes(tensor, spec.layout)).collect(),
        residual: case.residual.as_ref().map(|residual| bytes(residual, op.output.layout)),
    };
    let run = |executor, schedule, garbage, slack| {
        let output = operands.run(&*prepared, Parallel::new(executor, schedule), garbage, slack)?;
        Ok::<_, String>(floats(&output))
    };
    let first = run(&Serial, Schedule::Static, NAN, 0)?;
    let found = Tensor::from_layout(case.output_dims(), op.output.layout, &first);
    tolerance.compare(expected, &found)?;
    let again = run(&Serial, Schedule::Static, NUMBER, AlignedBytes::ALIGNMENT)?;
    same_bits(&first, &again)
        .map_err(|at| format!("a second run differs {at}: something is read before it is written, or out of bounds"))?;
    for &executor in setup.executors {
        for &schedule in setup.schedules {
            let parallel = run(executor, schedule, NAN, 0)?;
            same_bits(&first, &parallel).map_err(|at| {
                format!("with {} threads of {executor:?} under {schedule} the result differs {at}", executor.threads())
            })?;
        }
    }
    Ok(())
}

/// Prepares a variant of a case.
pub(crate) fn prepare(
    kernel: &dyn Kernel,
    case: &Case,
    op: &OpSpec,
    weight: Option<&Weight>,
    hardware: &Hardware,
) -> Result<Box<dyn Prepared>, String> {
    let weights = OpWeights { weight, bias: case.bias.as_deref(), ..OpWeights::default() };
    kernel.prepare_checked(op, weights, hardware).map_err(|error| format!("supported, but not prepared: {error}"))
}

/// The floats that these bytes are.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_ne_bytes(bytes)).collect()
}

/// Whether two results are the same bits, NaN being NaN whatever its payload.
pub(crate) fn same_bits(first: &[f32], second: &[f32]) -> Result<(), String> {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    match first.iter().zip(second).position(|pair| !same(pair)) {
        None => Ok(()),
        Some(at) => Err(format!("at element {at}: {:e} and {:e}", first[at], second[at])),
    }
}
