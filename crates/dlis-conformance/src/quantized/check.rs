//! Quantised cases on kernels, compared bit for bit.

use dlis_backend::{AlignedBytes, Kernel, OpSpec, Parallel, Schedule, Serial};
use dlis_formats::DType;

use super::case::{Elements, QuantizedCase};
use super::reference::quantized_reference;
use crate::call::Operands;
use crate::kernel::{NAN, NUMBER, Setup, floats, for_each_variant};
use crate::outcome::Outcome;
use crate::report::Report;
use crate::suite::prove_at_every_level;
use crate::tensor::indices;

/// Runs a quantised case on a kernel, in every layout and weight format that the kernel supports. The
/// [tolerance](Setup::tolerance) plays no part: every bit must be right.
pub fn check_quantized(kernel: &dyn Kernel, case: &QuantizedCase, setup: &Setup<'_>) -> Outcome {
    check_against(kernel, case, &quantized_reference(case), setup)
}

/// Runs every quantised case on every kernel, as [`prove_kernels`](crate::prove_kernels) does for those of f32.
pub fn prove_quantized(kernels: &[&dyn Kernel], cases: &[QuantizedCase], setup: &Setup<'_>) -> Report {
    prove_at_every_level(kernels, cases, |case| &case.name, quantized_reference, check_against, setup)
}

fn check_against(kernel: &dyn Kernel, case: &QuantizedCase, expected: &Elements, setup: &Setup<'_>) -> Outcome {
    for_each_variant(kernel, case.variants(), setup.hardware, |op| check_variant(kernel, case, op, expected, setup))
}

fn check_variant(
    kernel: &dyn Kernel,
    case: &QuantizedCase,
    op: &OpSpec,
    expected: &Elements,
    setup: &Setup<'_>,
) -> Result<(), String> {
    let weight = op.weight.and_then(|format| case.weight_in(format));
    let prepared = kernel
        .prepare_checked(op, case.weights(weight.as_ref()), setup.hardware)
        .map_err(|error| format!("supported, but not prepared: {error}"))?;
    // A kernel must not need its weights any more.
    drop(weight);
    let operands = Operands {
        op,
        inputs: case
            .inputs
            .iter()
            .zip(&op.inputs)
            .map(|(input, spec)| input.in_layout([spec.batch, spec.channels, spec.height, spec.width], spec.layout))
            .collect(),
        residual: case.residual.as_ref().map(|residual| residual.in_layout(case.output_dims(), op.output.layout)),
    };
    let wanted = expected.in_layout(case.output_dims(), op.output.layout);
    let run = |executor, schedule, garbage, slack| {
        let found = operands.run(&*prepared, Parallel::new(executor, schedule), garbage, slack)?;
        same(case, op, &wanted, &found)
    };
    run(&Serial, Schedule::Static, NAN, 0)?;
    run(&Serial, Schedule::Static, NUMBER, AlignedBytes::ALIGNMENT)
        .map_err(|what| format!("in a second run, {what}: something is read before it is written, or out of bounds"))?;
    for &executor in setup.executors {
        for &schedule in setup.schedules {
            run(executor, schedule, NAN, 0).map_err(|what| {
                format!("with {} threads of {executor:?} under {schedule}, {what}", executor.threads())
            })?;
        }
    }
    Ok(())
}

/// Whether two results are the same bits, NaN being NaN whatever its payload.
fn same(case: &QuantizedCase, op: &OpSpec, wanted: &[u8], found: &[u8]) -> Result<(), String> {
    let differs: Option<(usize, String)> = if op.output.dtype == DType::U8 {
        let at = wanted.iter().zip(found).position(|(a, b)| a != b);
        at.map(|at| (at, format!("expected {}, found {}", wanted[at], found[at])))
    } else {
        let (wanted, found) = (floats(wanted), floats(found));
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        let at = wanted.iter().zip(&found).position(|pair| !same(pair));
        at.map(|at| (at, format!("expected {:e}, found {:e}", wanted[at], found[at])))
    };
    let Some((at, what)) = differs else { return Ok(()) };
    let place = indices(case.output_dims())
        .find(|&index| op.output.offset(index) == at)
        .map_or_else(String::new, |[n, c, y, x]| format!("at n={n} c={c} y={y} x={x}: "));
    Err(format!("{place}{what}"))
}
