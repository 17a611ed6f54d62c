//! Every kernel on an OpenCL device: the one that `DLIS_OPENCL_DEVICE` names (an index or part of a name), else the
//! first, as programs and alone.

mod support;

use std::io::Write as _;

use dlis_backend::{
    AlignedBytes, Backend as _, Io, Kernel, KernelId, OpSpec, Parallel, Schedule, Scratch, Serial, TensorSpec, View,
    ViewMut,
};
use dlis_conformance::{
    Case, Elements, QuantizedCase, Report, Setup, Tolerance, cases, prove_backend, prove_kernels, prove_quantized,
    quantized_cases, quantized_reference,
};
use dlis_hw::{Hardware, SimdLevel};
use dlis_model::Activation;
use dlis_opencl::{OpenClBackend, Precision};

/// The backend of a precision, if the device offers it.
fn backend(precision: Precision) -> Option<OpenClBackend> {
    OpenClBackend::new(support::device()?, precision).ok()
}

/// The cases whose numbers a precision can hold: the largest f16 is 65504.
fn cases_for(precision: Precision) -> Vec<Case> {
    let fits = |case: &Case| {
        let tensors = case.inputs.iter().chain(&case.residual).chain(&case.weight);
        precision != Precision::F16
            || tensors.flat_map(|tensor| tensor.values()).all(|value| !value.is_finite() || value.abs() < 6e4)
    };
    cases().into_iter().filter(fits).collect()
}

/// Says what was tested and declined, then fails if something was wrong.
#[track_caller]
fn conclude(report: &Report) {
    let _ = write!(std::io::stderr(), "{report}");
    if let Err(unproven) = report.verdict() {
        panic!("{unproven}");
    }
}

/// A program's input and output are floats, so whatever takes or makes u8 is no program of its own.
fn is_quantized(id: &KernelId) -> bool {
    id.dtype() == "u8" || id.op() == "quantize"
}

#[track_caller]
fn passes_in_programs(precision: Precision) {
    let Some(backend) = backend(precision) else { return };
    let report = prove_backend(&backend, &cases_for(precision), Tolerance::of);
    conclude(&report.retain(|id| !is_quantized(id)));
}

#[track_caller]
fn passes_alone(precision: Precision) {
    let Some(backend) = backend(precision) else { return };
    // What the host's own vectors can do is of no account.
    let hardware = backend.hardware().with_simd(SimdLevel::Portable);
    let setup = Setup { executors: &[], schedules: &[Schedule::Static], hardware: &hardware, tolerance: Tolerance::of };
    let kernels: Vec<_> = backend.kernels().iter().map(|&kernel| kernel as &dyn Kernel).collect();
    let report = prove_kernels(&kernels, &cases_for(precision), &setup);
    conclude(&report.retain(|id| !is_quantized(id)));
}

// A test a precision: the compilation of kernels, which takes most of the time, then runs side by side.

#[test]
fn every_kernel_passes_the_table_in_programs_at_f32() {
    passes_in_programs(Precision::F32);
}

#[test]
fn every_kernel_passes_the_table_in_programs_at_tf32() {
    passes_in_programs(Precision::Tf32);
}

#[test]
fn every_kernel_passes_the_table_in_programs_at_f16() {
    passes_in_programs(Precision::F16);
}

#[test]
fn every_kernel_passes_the_table_alone_at_f32() {
    passes_alone(Precision::F32);
}

#[test]
fn every_kernel_passes_the_table_alone_at_tf32() {
    passes_alone(Precision::Tf32);
}

#[test]
fn every_kernel_passes_the_table_alone_at_f16() {
    passes_alone(Precision::F16);
}

/// Whether a result is a sigmoid, whose last bits no two libraries agree on. Bytes are none.
fn is_sigmoid(case: &QuantizedCase) -> bool {
    case.op.epilogue.activation == Some(Activation::Sigmoid)
}

#[test]
fn every_quantized_kernel_computes_the_very_bits() {
    let Some(device) = support::device() else { return };
    let backend = OpenClBackend::new(device, Precision::F32).unwrap();
    let hardware = backend.hardware().with_simd(SimdLevel::Portable);
    let setup = Setup { executors: &[], schedules: &[Schedule::Static], hardware: &hardware, tolerance: Tolerance::of };
    let kernels: Vec<_> = backend.kernels().iter().map(|&kernel| kernel as &dyn Kernel).collect();
    let mut cases = quantized_cases();
    cases.retain(|case| !is_sigmoid(case));
    conclude(&prove_quantized(&kernels, &cases, &setup).retain(is_quantized));
}

/// The floats that a kernel makes of a quantised case.
fn floats(kernel: &dyn Kernel, case: &QuantizedCase, op: &OpSpec, hardware: &Hardware) -> Vec<f32> {
    let weight = op.weight.and_then(|format| case.weight_in(format));
    let prepared = kernel.prepare_checked(op, case.weights(weight.as_ref()), hardware).unwrap();
    let aligned = |bytes: Vec<u8>| {
        let mut aligned = AlignedBytes::zeroed(bytes.len());
        aligned.as_mut_slice()[..bytes.len()].copy_from_slice(&bytes);
        aligned
    };
    let elements = |tensor: &Elements, spec: TensorSpec| {
        aligned(tensor.in_layout([spec.batch, spec.channels, spec.height, spec.width], spec.layout))
    };
    let input = elements(&case.inputs[0], op.inputs[0]);
    let residual = case.residual.as_ref().map(|residual| elements(residual, op.output));
    let mut output = AlignedBytes::zeroed(op.output.bytes());
    let inputs = [View::new(op.inputs[0], &input.as_slice()[..op.inputs[0].bytes()])];
    let residual = residual.as_ref().map(|bytes| View::new(op.output, &bytes.as_slice()[..op.output.bytes()]));
    let view = ViewMut::new(op.output, &mut output.as_mut_slice()[..op.output.bytes()]);
    let parallel = Parallel::new(&Serial, Schedule::Static);
    prepared.run(&mut Io::new(&inputs, residual, view), &mut Scratch::new(&mut [], &mut [], 1), parallel);
    output.f32()[..op.output.elements()].to_vec()
}

#[test]
fn sigmoids_of_quantized_layers_are_right_but_for_their_last_bits() {
    let Some(device) = support::device() else { return };
    let backend = OpenClBackend::new(device, Precision::F32).unwrap();
    let hardware = backend.hardware().with_simd(SimdLevel::Portable);
    let mut checked = 0;
    // A few cases try every kernel: the others differ from those without a sigmoid in nothing.
    for case in quantized_cases().iter().filter(|case| is_sigmoid(case)).take(8) {
        let Elements::Floats(wanted) = quantized_reference(case) else { continue };
        let dims = case.output_dims();
        for op in case.variants() {
            let wanted = Elements::Floats(wanted.clone()).in_layout(dims, op.output.layout);
            let wanted = wanted.as_chunks().0.iter().map(|&bytes| f32::from_ne_bytes(bytes));
            for kernel in backend.kernels().iter().filter(|kernel| kernel.support(&op, &hardware).is_yes()) {
                for (found, wanted) in floats(*kernel, case, &op, &hardware).into_iter().zip(wanted.clone()) {
                    let near = (found - wanted).abs() <= 4.0 * f32::EPSILON * wanted;
                    assert!(near, "{} of {case:?}: {found} is not {wanted}", kernel.id());
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 1000, "{checked} results");
}
