//! Every case on every kernel.

use std::collections::BTreeSet;
use std::fmt::Debug;

use dlis_backend::{Backend, Kernel, KernelId};
use dlis_hw::{Hardware, SimdLevel};

use crate::case::Case;
use crate::formats::Expectations;
use crate::kernel::{Setup, check_against};
use crate::outcome::Outcome;
use crate::report::Report;
use crate::tolerance::Tolerance;

/// Runs every case on every kernel, at each SIMD level of the machine: the lower ones are forced with
/// [`Hardware::with_simd`].
///
/// Kernels whose name ends in a level that the machine lacks are skipped, which the report says. At a
/// level below its own a kernel must decline.
pub fn prove_kernels(kernels: &[&dyn Kernel], cases: &[Case], setup: &Setup<'_>) -> Report {
    prove_at_every_level(kernels, cases, |case| &case.name, Expectations::new, check_against, setup)
}

/// As [`prove_kernels`], for any kind of case: `expect` makes what kernels are compared with, once a case.
pub(crate) fn prove_at_every_level<'a, C: Debug, E>(
    kernels: &[&dyn Kernel],
    cases: &'a [C],
    name: impl Fn(&'a C) -> &'a str,
    expect: impl Fn(&'a C) -> E,
    check: impl Fn(&dyn Kernel, &'a C, &E, &Setup<'_>) -> Outcome,
    setup: &Setup<'_>,
) -> Report {
    let mut report = start(kernels.iter().map(|kernel| kernel.id()), setup.hardware);
    let levels: Vec<(SimdLevel, Hardware)> =
        setup.hardware.simd_levels.iter().map(|&level| (level, setup.hardware.with_simd(level))).collect();
    for case in cases {
        let expected = expect(case);
        for &kernel in kernels {
            let id = kernel.id();
            if !setup.hardware.has_isa(id.isa()) {
                continue;
            }
            for (level, hardware) in &levels {
                let outcome = check(kernel, case, &expected, &Setup { hardware, ..*setup });
                if hardware.has_isa(id.isa()) {
                    report.record(&id, name(case), &format!(" at {level}"), outcome);
                } else if outcome.is_passed() {
                    report.fault(format!("{id}: supports {case:?} on a machine limited to {level}"));
                }
            }
        }
    }
    report
}

/// Runs every case on every kernel of a backend, by way of programs.
pub fn prove_backend(backend: &dyn Backend, cases: &[Case], tolerance: fn(&KernelId) -> Tolerance) -> Report {
    let mut report = start(backend.kernels().iter().map(|kernel| kernel.id()), backend.hardware());
    for case in cases {
        let expected = Expectations::new(case);
        for &kernel in backend.kernels() {
            let id = kernel.id();
            if !backend.hardware().has_isa(id.isa()) {
                continue;
            }
            let outcome = crate::backend::check_against(backend, kernel, case, &expected, tolerance(&id));
            report.record(&id, &case.name, &format!(" on {}", backend.name()), outcome);
        }
    }
    report
}

/// A report that knows of names used twice and of what the machine lacks.
fn start(ids: impl Iterator<Item = KernelId>, hardware: &Hardware) -> Report {
    let mut report = Report::default();
    let mut seen = BTreeSet::new();
    for id in ids {
        if !hardware.has_isa(id.isa()) {
            report.skip(&id, format!("this machine has no {}", id.isa()));
        }
        if !seen.insert(id.clone()) {
            report.fault(format!("two kernels are called `{id}`"));
        }
    }
    for level in SimdLevel::ALL.into_iter().filter(|&level| !hardware.supports(level)) {
        report.note(format!("nothing ran at {level}, which this machine lacks"));
    }
    report
}
