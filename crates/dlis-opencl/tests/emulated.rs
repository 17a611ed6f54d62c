//! The kernels in NVIDIA's PTX, their instructions emulated on whatever device there is (`DLIS_OPENCL_DEVICE`, else the
//! first), on every so many cases of the suite. Where the GPU itself is there, `conformance.rs` proves them wholly.

mod support;

use std::io::Write as _;
use std::process::Command;

use dlis_backend::{Backend as _, Kernel, Schedule};
use dlis_conformance::{Setup, Tolerance, cases, prove_kernels};
use dlis_hw::SimdLevel;
use dlis_opencl::{OpenClBackend, Precision};

/// Of so many cases one is tried: emulation is slow, and the compiler of a shape's own program too.
const STRIDE: usize = 14;

/// Emulation is asked for by a variable of the environment, which a process cannot safely set for itself.
#[test]
fn kernels_in_ptx_pass_cases_of_the_table() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "emulated", "--ignored", "--nocapture"]).env("DLIS_OPENCL_EMULATE", "1");
    assert!(child.status().unwrap().success());
}

#[test]
#[ignore = "run by `kernels_in_ptx_pass_cases_of_the_table`, with emulation on"]
fn emulated() {
    let Some(device) = support::device() else { return };
    for precision in Precision::ALL {
        let backend = OpenClBackend::new(device.clone(), precision).unwrap();
        let hardware = backend.hardware().with_simd(SimdLevel::Portable);
        let setup =
            Setup { executors: &[], schedules: &[Schedule::Static], hardware: &hardware, tolerance: Tolerance::of };
        let kernels = backend.kernels().iter().filter(|kernel| kernel.id().isa() == "nvidia");
        let kernels: Vec<&dyn Kernel> = kernels.map(|&kernel| kernel as &dyn Kernel).collect();
        assert!(!kernels.is_empty());
        // Another phase for each precision, so that together they see more of the table.
        let cases: Vec<_> = cases().into_iter().skip(precision as usize).step_by(STRIDE).collect();
        let fits = |case: &dlis_conformance::Case| {
            let tensors = case.inputs.iter().chain(&case.residual).chain(&case.weight);
            tensors.flat_map(|tensor| tensor.values()).all(|value| !value.is_finite() || value.abs() < 6e4)
        };
        let cases: Vec<_> = cases.into_iter().filter(fits).collect();
        let report = prove_kernels(&kernels, &cases, &setup);
        let _ = writeln!(std::io::stderr(), "{report}");
        // A kernel may well decline these few cases; only wrong results count.
        let failed: Vec<String> = report
            .kernels()
            .flat_map(|(kernel, tally)| {
                tally.failed.iter().map(move |(case, detail)| format!("{kernel}: {case}: {detail}"))
            })
            .collect();
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        let passed: usize = report.kernels().map(|(_, tally)| tally.passed).sum();
        assert!(passed > 20, "{passed} cases passed");
    }
}
