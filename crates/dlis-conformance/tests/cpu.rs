//! Every CPU kernel on every executor, at every SIMD level of this machine.
//!
//! `DLIS_CONFORMANCE_CASES` is the number of random cases (96 unless set).

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlis_backend::{Epilogue, Executor, HostBackend, Kernel, KernelId, Operation, Schedule};
use dlis_conformance::{
    Case, Report, Setup, Tolerance, any_case, any_quantized_case, cases, prove_backend, prove_kernels, prove_quantized,
    quantized_cases,
};
use dlis_cpu_omp::{Team, WaitPolicy};
use dlis_cpu_rayon::RayonExecutor;
use dlis_hw::{Cache, Hardware, SimdLevel};
use dlis_kernels::kernels;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestError, TestRunner};

/// Waits asleep: the suite has to be quick also where other work has the cores.
fn team(threads: usize) -> Team {
    Team::builder()
        .threads(NonZeroUsize::new(threads).unwrap())
        .wait(WaitPolicy { spin: Duration::ZERO })
        .build()
        .unwrap()
}

fn rayon(threads: usize) -> RayonExecutor {
    RayonExecutor::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

fn executors() -> Vec<Box<dyn Executor>> {
    (1..=3).flat_map(|n| [Box::new(team(n)) as Box<dyn Executor>, Box::new(rayon(n))]).collect()
}

fn schedules() -> [Schedule; 2] {
    [Schedule::Static, Schedule::Dynamic(NonZeroUsize::MIN)]
}

/// Says what was tested, declined and skipped, then fails if something was wrong.
#[track_caller]
fn conclude(report: &Report) {
    // Not `eprintln!`, which the harness holds back where the test passes: what was skipped must be seen.
    let _ = write!(std::io::stderr(), "{report}");
    if let Err(unproven) = report.verdict() {
        panic!("{unproven}");
    }
}

#[test]
fn every_kernel_passes_the_table() {
    let executors = executors();
    let executors: Vec<&dyn Executor> = executors.iter().map(|executor| &**executor).collect();
    let hardware = Hardware::detect();
    let setup = Setup { executors: &executors, schedules: &schedules(), hardware: &hardware, tolerance: Tolerance::of };
    let mut report = prove_kernels(kernels(), &cases(), &setup);
    report.merge(prove_quantized(kernels(), &quantized_cases(), &setup));
    conclude(&report);
}

#[test]
fn kernels_that_fill_caches_pass_with_small_ones() {
    let executors = executors();
    let executors: Vec<&dyn Executor> = executors.iter().map(|executor| &**executor).collect();
    // A few tiles each time round, so that every worker has rounds of its own.
    let hardware = Hardware { l2: Some(Cache { bytes: 16 << 10, shared_by: 1 }), ..Hardware::detect() };
    let setup = Setup { executors: &executors, schedules: &schedules(), hardware: &hardware, tolerance: Tolerance::of };
    let filling: Vec<&dyn Kernel> =
        kernels().iter().copied().filter(|kernel| kernel.id().algorithm().starts_with("winograd")).collect();
    let mut report = prove_kernels(&filling, &cases(), &setup);
    report.merge(prove_quantized(&filling, &quantized_cases(), &setup));
    conclude(&report);
}

#[test]
fn every_kernel_passes_random_cases() {
    let executors = [Box::new(team(3)) as Box<dyn Executor>, Box::new(rayon(2))];
    let executors: Vec<&dyn Executor> = executors.iter().map(|executor| &**executor).collect();
    let hardware = Hardware::detect();
    let setup =
        Setup { executors: &executors, schedules: &[Schedule::Static], hardware: &hardware, tolerance: Tolerance::of };
    let count = std::env::var("DLIS_CONFORMANCE_CASES").ok().map_or(96, |text| text.parse().unwrap());
    random(&any_case(), count, |case| prove_kernels(kernels(), std::slice::from_ref(case), &setup));
    random(&any_quantized_case(), count, |case| prove_quantized(kernels(), std::slice::from_ref(case), &setup));
}

/// Proves `count` random cases.
#[track_caller]
fn random<S: Strategy>(strategy: &S, count: u32, prove: impl Fn(&S::Value) -> Report) {
    let mut runner = TestRunner::new(Config { cases: count, failure_persistence: None, ..Config::default() });
    let all = Mutex::new(Report::default());
    let result = runner.run(strategy, |case| {
        let report = prove(&case);
        // A kernel may well decline this one case; only wrong results and faults count.
        let failed: Vec<String> = report
            .kernels()
            .flat_map(|(kernel, tally)| {
                tally.failed.iter().map(move |(case, detail)| format!("{kernel}: {case}: {detail}"))
            })
            .collect();
        if !failed.is_empty() {
            return Err(proptest::test_runner::TestCaseError::fail(failed.join("\n")));
        }
        all.lock().unwrap().merge(report);
        Ok(())
    });
    if let Err(TestError::Fail(reason, case)) = result {
        panic!("{case:?}\n{reason}");
    }
    assert!(result.is_ok(), "{result:?}");
    let all = all.into_inner().unwrap();
    assert!(all.kernels().any(|(_, tally)| tally.passed > 0), "{all}");
}

/// Whatever a valid graph asks for, some kernel does in the layout that networks come in, on any machine.
/// What follows an operation may be left to an operation of its own, but for convolutions and linear layers.
#[test]
fn no_operation_is_declined_by_all() {
    let hardware = Hardware::detect().with_simd(SimdLevel::Portable);
    let declined = |case: &Case| {
        let mut op = case.op.clone();
        if !matches!(op.operation, Operation::Conv2d(_) | Operation::Linear(_)) {
            op.epilogue = Epilogue::NONE;
        }
        !kernels().iter().any(|kernel| kernel.support(&op, &hardware).is_yes())
    };
    let declined: Vec<Case> = cases().into_iter().filter(declined).collect();
    assert!(declined.is_empty(), "{declined:#?}");
}

#[test]
fn every_backend_passes_the_table() {
    let executors: [(&'static str, Arc<dyn Executor>); 2] = [("omp", Arc::new(team(2))), ("rayon", Arc::new(rayon(2)))];
    let mut report = Report::default();
    for (name, executor) in executors {
        let backend = HostBackend::new(name, kernels(), executor, Schedule::Static);
        report.merge(prove_backend(&backend, &cases(), Tolerance::of));
    }
    // A program's input and output are f32, so whatever takes or makes u8 is no program of its own.
    let quantized = |id: &KernelId| id.dtype() == "u8" || id.op() == "quantize";
    conclude(&report.retain(|id| !quantized(id)));
}

#[test]
fn every_executor_keeps_its_promises() {
    for executor in executors() {
        for _ in 0..10 {
            dlis_conformance::prove_executor(&*executor).unwrap();
        }
    }
}
