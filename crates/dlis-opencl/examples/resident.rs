//! Times networks on a device without transfers: `resident DEVICE [BATCH] [POLICY] [NETWORK]...`.

use std::io::Write as _;
use std::sync::Arc;

use dlis_backend::Backend as _;
use dlis_model::{Network, zoo};
use dlis_opencl::{Device, OpenClBackend, Precision};
use dlis_runtime::{Planner, Policy};

/// Runs timed together, and how often: the median counts.
const RUNS: usize = 200;
const REPEATS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let device = Device::open(&args.next().unwrap_or_else(|| "0".to_owned()))?;
    let batch: usize = args.next().map_or(Ok(1), |batch| batch.parse())?;
    let policy: Policy = args.next().map_or(Ok(Policy::Heuristic), |policy| policy.parse())?;
    let mut names: Vec<String> = args.collect();
    if names.is_empty() {
        names = ["vgg16", "resnet18", "mobilenet"].map(|name| format!("{name}-cifar10")).to_vec();
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}, batch {batch}, {policy}", device.info())?;
    for name in names {
        let network = Network::random(zoo::graph(&name)?, 0);
        for precision in Precision::ALL {
            let Ok(backend) = OpenClBackend::new(Arc::clone(&device), precision) else { continue };
            let plan = Planner::new(&backend).policy(policy.clone()).batch(batch).plan(&network)?;
            let kernels: std::collections::BTreeSet<String> =
                plan.program().steps.iter().map(|step| step.kernel.algorithm().to_owned()).collect();
            let mut executable = backend.compile(plan.program(), &plan.weights())?;
            let input = vec![0.5; plan.program().input_spec().elements()];
            let mut output = vec![0.0; plan.program().output_spec().elements()];
            executable.run(&input, &mut output)?;
            let mut times = Vec::with_capacity(REPEATS);
            for _ in 0..REPEATS {
                times.push(executable.run_resident(RUNS).ok_or("the device cannot run without transfers")?? / 1e6);
            }
            times.sort_by(f64::total_cmp);
            let (median, least) = (times[REPEATS / 2], times[0]);
            writeln!(out, "{name} {precision}: {median:.4} ms (least {least:.4}), kernels {kernels:?}")?;
        }
    }
    Ok(())
}
