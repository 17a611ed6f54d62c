//! The suite itself under test: one plain convolution that passes, and one copy of it for every way to
//! break the contract, each of which must be caught.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use dlis_backend::{
    Backend, CompileError, Executable, Executor, Footprint, HostBackend, Io, Kernel, KernelId, OpSpec, OpWeights,
    Operation, Parallel, PrepareError, Prepared, Program, Schedule, Scratch, Serial, Support,
};
use dlis_conformance::{Case, Outcome, Setup, Tolerance, cases, check_backend, check_kernel, prove_backend};
use dlis_conformance::{prove_kernels, reference};
use dlis_hw::{Hardware, SimdLevel};
use dlis_model::{Activation, Conv2d, Window};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    WritesPastTheEnd,
    WritesBeforeTheStart,
    WritesPastItsScratch,
    ReadsPastTheInput,
    WrongOnStrideTwo,
    SwapsPaddings,
    IgnoresResidual,
    ActivatesBeforeTheResidual,
    ForgetsTheLastChannel,
    RoundsToHalf,
    ReadsItsScratch,
    ReadsItsOutput,
    DependsOnThreads,
    DependsOnScratchLength,
    TurnsNanIntoZero,
    IgnoresLayout,
    Panics,
    CountsTooFewPixels,
    BoastsOfEfficiency,
    RefusesSilently,
    CannotPrepare,
}

/// Convolutions without groups or dilation, straight from the definition but for the fault.
struct Toy(Fault);

struct Ready {
    fault: Fault,
    op: OpSpec,
    conv: Conv2d,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Kernel for Toy {
    fn id(&self) -> KernelId {
        KernelId::new("conv2d", "f32", "dense", "toy", "portable")
    }

    fn support(&self, op: &OpSpec, _: &Hardware) -> Support {
        match op.operation {
            Operation::Conv2d(conv) if conv.groups == 1 && conv.window.dilation == [1, 1] => Support::Yes,
            _ if self.0 == Fault::RefusesSilently => Support::No("".into()),
            _ => Support::No("it is for plain convolutions".into()),
        }
    }

    fn efficiency(&self, _: &OpSpec) -> f32 {
        if self.0 == Fault::BoastsOfEfficiency { 1.5 } else { 0.01 }
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, _: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let (Operation::Conv2d(conv), Some(weight)) = (op.operation, weights.weight) else { unreachable!() };
        if self.0 == Fault::CannotPrepare {
            return Err(PrepareError::Bias { kernel: Box::new(self.id()), expected: 1, found: 0 });
        }
        Ok(Box::new(Ready {
            fault: self.0,
            op: op.clone(),
            conv,
            weight: weight.to_f32().iter().copied().collect(),
            bias: weights.bias.map_or_else(|| vec![0.0; conv.out_channels], <[f32]>::to_vec),
        }))
    }
}

impl Ready {
    /// The sum over these input channels.
    fn sum(&self, input: &[f32], [n, out, y, x]: [usize; 4], channels: Range<usize>) -> f32 {
        let (spec, window) = (self.op.inputs[0], self.conv.window);
        let mut padding = window.padding;
        if self.fault == Fault::SwapsPaddings {
            padding.swap(0, 2);
        }
        let stride = match self.fault {
            Fault::WrongOnStrideTwo if window.stride[0] == 2 => 1,
            _ => window.stride[0],
        };
        let mut sum = 0.0;
        for c in channels {
            for ky in 0..window.kernel[0] {
                for kx in 0..window.kernel[1] {
                    let Some(iy) = (y * stride + ky).checked_sub(padding[0]) else { continue };
                    let Some(ix) = (x * window.stride[1] + kx).checked_sub(padding[1]) else { continue };
                    if iy >= spec.height || ix >= spec.width {
                        continue;
                    }
                    let tap = ((out * self.conv.in_channels + c) * window.kernel[0] + ky) * window.kernel[1] + kx;
                    sum += input[spec.offset([n, c, iy, ix])] * self.weight[tap];
                }
            }
        }
        sum
    }

    fn activate(&self, x: f32) -> f32 {
        match self.op.epilogue.activation {
            Some(Activation::Relu) if self.fault == Fault::TurnsNanIntoZero => x.max(0.0),
            Some(function) => function.apply(x),
            None => x,
        }
    }
}

impl Prepared for Ready {
    fn footprint(&self, threads: usize) -> Footprint {
        let scratch_bytes = 4 * threads;
        Footprint { weight_bytes: 4 * self.weight.len(), scratch_bytes, worker_scratch_bytes: 4 }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let spec = self.op.output;
        let (input, residual) = (io.input(0).f32(), io.residual());
        let threads = parallel.threads();
        let (shared, _, _) = scratch.f32();
        let (leftover, slack) = (shared[0], shared.len());
        let output = io.output().f32();
        match self.fault {
            Fault::Panics => panic!("out of ideas"),
            // SAFETY: deliberately beyond the slice, which is what the suite must notice; the bytes there are the
            // suite's guard, in the same allocation.
            Fault::WritesPastTheEnd => unsafe { output.as_mut_ptr().add(output.len()).write(0.0) },
            // SAFETY: as above.
            Fault::WritesBeforeTheStart => unsafe { output.as_mut_ptr().sub(1).write(0.0) },
            // SAFETY: as above.
            Fault::WritesPastItsScratch => unsafe { shared.as_mut_ptr().add(shared.len()).write(0.0) },
            _ => {}
        }
        // SAFETY: beyond the slice on purpose, within the same allocation: the suite's guard.
        let beyond =
            (self.fault == Fault::ReadsPastTheInput).then(|| unsafe { input.as_ptr().add(input.len()).read() });
        for n in 0..spec.batch {
            for out in 0..spec.channels {
                for y in 0..spec.height {
                    for x in 0..spec.width {
                        let at = match self.fault {
                            Fault::IgnoresLayout => ((n * spec.channels + out) * spec.height + y) * spec.width + x,
                            _ => spec.offset([n, out, y, x]),
                        };
                        let channels = self.conv.in_channels;
                        let index = [n, out, y, x];
                        let mut value = match self.fault {
                            Fault::DependsOnThreads => {
                                let share = channels.div_ceil(threads);
                                let parts =
                                    (0..threads).map(|t| (t * share).min(channels)..((t + 1) * share).min(channels));
                                parts.map(|part| self.sum(input, index, part)).sum()
                            }
                            Fault::ForgetsTheLastChannel if channels > 1 => self.sum(input, index, 0..channels - 1),
                            _ => self.sum(input, index, 0..channels),
                        };
                        value += self.bias[out];
                        if self.fault == Fault::ActivatesBeforeTheResidual {
                            value = self.activate(value);
                        }
                        if let Some(residual) = residual.filter(|_| self.fault != Fault::IgnoresResidual) {
                            value += residual.f32()[at];
                        }
                        value = match self.fault {
                            // A maximum swallows NaN, so the first run is right.
                            Fault::ReadsItsScratch => value.max(leftover),
                            Fault::ReadsItsOutput => value + 0.0 * output[at],
                            Fault::DependsOnScratchLength => value + 1e-6 * (slack / 32) as f32,
                            // The eleven bits of an f16's mantissa.
                            Fault::RoundsToHalf => f32::from_bits((value.to_bits() + 0x1000) & !0x1fff),
                            Fault::CountsTooFewPixels if y + 1 == spec.height && y > 0 => continue,
                            _ => value,
                        };
                        // Taken in, but for a NaN.
                        if let Some(beyond) = beyond {
                            value = value.max(beyond.min(100.0));
                        }
                        output[at] =
                            if self.fault == Fault::ActivatesBeforeTheResidual { value } else { self.activate(value) };
                    }
                }
            }
        }
    }
}

/// An executor that says it has three threads.
#[derive(Debug)]
struct Three;

// SAFETY: the whole range is passed once, on the calling thread, as worker 0 of 3.
unsafe impl Executor for Three {
    fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(3).unwrap()
    }

    fn for_each(&self, n: usize, schedule: Schedule, body: &(dyn Fn(usize, Range<usize>) + Sync)) {
        Serial.for_each(n, schedule, body);
    }
}

/// The table's plain convolutions, but for those that take long.
fn convolutions() -> Vec<Case> {
    let hardware = Hardware::detect();
    let wanted = |case: &Case| case.op.macs() < 50_000 && Toy(Fault::None).support(&case.op, &hardware).is_yes();
    cases().into_iter().filter(wanted).collect()
}

/// The failures of a toy, each as its case and detail.
fn failures(fault: Fault) -> Vec<(String, String)> {
    let hardware = Hardware::detect().with_simd(SimdLevel::Portable);
    let setup =
        Setup { executors: &[&Three], schedules: &[Schedule::Static], hardware: &hardware, tolerance: Tolerance::of };
    // The silent one refuses the others.
    let cases = if fault == Fault::RefusesSilently { cases() } else { convolutions() };
    let report = prove_kernels(&[&Toy(fault)], &cases, &setup);
    let tally = report.kernels().next().unwrap().1.clone();
    assert_eq!(report.verdict().is_err(), !tally.failed.is_empty(), "{report}");
    assert!(tally.failed.is_empty() || report.to_string().contains("FAILED"));
    tally.failed
}

#[test]
fn a_right_kernel_passes_every_case() {
    assert_eq!(failures(Fault::None), []);
    assert!(convolutions().len() > 100);
}

/// Every failure of a faulty toy says what is wrong; `wanted` is part of it.
#[track_caller]
fn caught(fault: Fault, wanted: &str) -> Vec<String> {
    let failures = failures(fault);
    assert!(!failures.is_empty(), "{fault:?} was not caught");
    for (case, detail) in &failures {
        assert!(detail.contains(wanted), "{fault:?} on {case}: {detail}");
    }
    failures.into_iter().map(|(case, _)| case).collect()
}

#[test]
fn memory_beyond_the_tensors_is_watched() {
    let everywhere = convolutions().len();
    assert_eq!(caught(Fault::WritesPastTheEnd, "writes 0 bytes past the end of the output").len(), everywhere);
    assert_eq!(caught(Fault::WritesBeforeTheStart, "writes 4 bytes before the start of the output").len(), everywhere);
    assert_eq!(caught(Fault::WritesPastItsScratch, "past the end of the shared scratch").len(), everywhere);
    caught(Fault::ReadsPastTheInput, "");
}

#[test]
fn wrong_results_are_found_where_they_are_wrong() {
    let names = caught(Fault::WrongOnStrideTwo, "expected ");
    assert!(
        names.iter().all(|name| name.contains("stride") || name.contains("resnet") || name.contains("padding")),
        "{names:?}"
    );
    let names = caught(Fault::SwapsPaddings, "expected ");
    assert!(names.iter().any(|name| name.contains("padding at the top alone")), "{names:?}");
    for fault in [Fault::IgnoresResidual, Fault::ActivatesBeforeTheResidual] {
        let names = caught(fault, "expected ");
        assert!(
            names.iter().all(|name| name.contains("residual") || name.contains("second of its block")),
            "{names:?}"
        );
    }
    caught(Fault::ForgetsTheLastChannel, "expected ");
    let names = caught(Fault::RoundsToHalf, "expected ");
    assert!(names.len() > 50, "{names:?}");
    let names = caught(Fault::TurnsNanIntoZero, "found 0");
    assert!(names.iter().all(|name| name.to_lowercase().contains("nan")), "{names:?}");
    caught(Fault::IgnoresLayout, "expected ");
    caught(Fault::CountsTooFewPixels, "found NaN");
}

#[test]
fn garbage_and_threads_change_nothing() {
    caught(Fault::ReadsItsScratch, "a second run differs");
    caught(Fault::ReadsItsOutput, "found NaN");
    caught(Fault::DependsOnScratchLength, "a second run differs");
    caught(Fault::DependsOnThreads, "with 3 threads of Three under static the result differs");
}

#[test]
fn what_a_kernel_says_of_itself_is_checked() {
    caught(Fault::Panics, "the kernel panicked: out of ideas");
    caught(Fault::BoastsOfEfficiency, "an efficiency of 1.5 is not in (0, 1]");
    caught(Fault::RefusesSilently, "support says no without a reason");
    caught(Fault::CannotPrepare, "supported, but not prepared");
}

fn conv_case() -> Case {
    let window = Window::square(3).with_padding(1);
    let conv = Conv2d { in_channels: 3, out_channels: 4, groups: 1, window, bias: true };
    Case::new("case", Operation::Conv2d(conv), &[[2, 3, 5, 4]]).unwrap()
}

#[test]
fn a_single_case_can_be_checked() {
    let hardware = Hardware::detect();
    let setup = Setup { executors: &[], schedules: &[], hardware: &hardware, tolerance: Tolerance::of };
    // Two layouts of the input, two of the output, every format that holds the weight.
    let variants = conv_case().variants().len();
    assert!(variants >= 8);
    assert_eq!(check_kernel(&Toy(Fault::None), &conv_case(), &setup), Outcome::Passed { variants });
    let add = Case::new("add", Operation::Add, &[[1, 2, 3, 4]; 2]).unwrap();
    let outcome = check_kernel(&Toy(Fault::None), &add, &setup);
    assert_eq!(outcome, Outcome::Unsupported("it is for plain convolutions".to_owned()));
}

#[test]
fn names_must_be_unique_and_levels_true() {
    struct Wide;
    impl Kernel for Wide {
        fn id(&self) -> KernelId {
            KernelId::new("conv2d", "f32", "dense", "toy", if cfg!(target_arch = "x86_64") { "avx2" } else { "neon" })
        }
        fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
            Toy(Fault::None).support(op, hw)
        }
        fn efficiency(&self, op: &OpSpec) -> f32 {
            Toy(Fault::None).efficiency(op)
        }
        fn prepare(&self, op: &OpSpec, w: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
            Toy(Fault::None).prepare(op, w, hw)
        }
    }
    let mut hardware = Hardware::detect().with_simd(SimdLevel::Portable);
    let with = |hardware: &Hardware, kernels: &[&dyn Kernel]| {
        let setup = Setup { executors: &[], schedules: &[], hardware, tolerance: Tolerance::of };
        prove_kernels(kernels, &[conv_case()], &setup)
    };
    let twice = with(&hardware, &[&Toy(Fault::None), &Toy(Fault::None)]);
    assert!(
        twice.verdict().unwrap_err().to_string().contains("two kernels are called `conv2d/f32/dense/toy/portable`")
    );
    let report = with(&hardware, &[&Wide, &Toy(Fault::None)]);
    assert_eq!(report.verdict(), Ok(()));
    assert!(report.to_string().contains("skipped: this machine has no"), "{report}");
    assert!(report.to_string().contains("note: nothing ran at avx512, which this machine lacks"), "{report}");
    // A machine with the level: the kernel must decline when the level is forced down.
    hardware.simd_levels = vec![SimdLevel::Portable, Wide.id().isa().parse().unwrap()];
    let findings = with(&hardware, &[&Wide]).verdict().unwrap_err().findings;
    assert!(findings.iter().all(|finding| finding.contains("on a machine limited to portable")), "{findings:?}");
}

static PLAIN: [&dyn Kernel; 1] = [&Toy(Fault::None)];
static NO_RESIDUAL: [&dyn Kernel; 1] = [&Toy(Fault::IgnoresResidual)];
static GARBAGE: [&dyn Kernel; 1] = [&Toy(Fault::CountsTooFewPixels)];

fn host(kernels: &'static [&'static dyn Kernel]) -> HostBackend {
    HostBackend::new("host", kernels, Arc::new(Serial), Schedule::Static)
}

#[test]
fn a_right_backend_passes_and_a_wrong_one_does_not() {
    let cases = convolutions();
    let report = prove_backend(&host(&PLAIN), &cases, Tolerance::of);
    assert_eq!(report.verdict(), Ok(()), "{report}");
    assert_eq!(report.kernels().next().unwrap().1.passed, cases.len());
    let findings = prove_backend(&host(&NO_RESIDUAL), &cases, Tolerance::of).verdict().unwrap_err().findings;
    assert!(findings.iter().all(|finding| finding.contains("residual") || finding.contains("second of its block")));
    assert!(prove_backend(&host(&GARBAGE), &cases, Tolerance::of).verdict().is_err());
}

/// A backend that answers for another, wrongly.
#[derive(Debug)]
struct Lax(HostBackend);

impl Backend for Lax {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn hardware(&self) -> &Hardware {
        self.0.hardware()
    }
    fn threads(&self) -> usize {
        self.0.threads()
    }
    fn kernels(&self) -> &[&'static dyn Kernel] {
        self.0.kernels()
    }
    fn compile(&self, _: &Program, _: &[OpWeights<'_>]) -> Result<Box<dyn Executable>, CompileError> {
        Err(CompileError::UnknownKernel { layer: String::new(), backend: String::new(), kernel: String::new() })
    }
}

#[test]
fn a_backend_s_refusals_are_checked() {
    let outcome = check_backend(&Lax(host(&PLAIN)), PLAIN[0], &conv_case(), Tolerance::DIRECT);
    let Outcome::Failed(detail) = outcome else { panic!("{outcome:?}") };
    assert!(detail.contains("without weights for its step is not refused"), "{detail}");
}

#[test]
fn the_reference_meets_its_own_tolerance() {
    for case in cases() {
        let expected = reference(&case);
        assert_eq!(Tolerance::DIRECT.compare(&expected, &expected.values()), Ok(()), "{case:?}");
    }
}
