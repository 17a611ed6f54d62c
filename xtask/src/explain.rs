//! `cargo xtask explain`.

use dlis_backend::Durations;
use dlis_experiment::catalogue::{backend, has_kernel};
use dlis_runtime::{Planner, Session, TuneCache, chrome_trace};

use crate::Failure;
use crate::command::ExplainArgs;
use crate::laboratory::{catalogue, peaks};
use crate::output::say;

/// Runs before a trace or profile, and runs in it.
const WARM_UP: usize = 5;
const TRACED: usize = 10;

pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    has_kernel(&args.algorithm).map_err(Failure::new)?;
    let network = catalogue().network(&args.network, &args.recipe, &args.format)?.network;
    let system = backend(&args.backend, args.threads, args.schedule)?;
    let mut cache = TuneCache::in_memory();
    let planner = Planner::new(&*system).policy(args.algorithm.clone()).batch(args.batch).cache(&mut cache);
    let plan = planner.plan(&network)?;
    if args.trace.is_none() && !args.layers {
        say!("{}", plan.explain(&*system).to_string().trim_end());
        return Ok(());
    }
    let mut session = Session::new(&*system, plan)?;
    let input: Vec<f32> = (0..session.input_len()).map(|index| (index % 255) as f32 / 127.0 - 1.0).collect();
    let mut output = vec![0.0; session.output_len()];
    for _ in 0..WARM_UP {
        session.run(&input, &mut output)?;
    }
    if let Some(path) = &args.trace {
        let events = session.trace(&input, TRACED)?;
        let text = serde_json::to_string(&chrome_trace(&args.network, &events))?;
        std::fs::write(path, text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        say!("{} steps of {TRACED} runs: open {} in ui.perfetto.dev or chrome://tracing", events.len(), path.display());
    }
    if args.layers {
        let roofline = match system.device() {
            None => peaks(&[args.threads]).roofline(args.threads),
            Some(_) => system.measure_roofline(),
        };
        let residency = session.residency();
        let working_set = (residency.weight_bytes + residency.activation_bytes + residency.scratch_bytes) as u64;
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(["layer", "operation", "kernel", "us", "GFLOP/s", "of the roofline"]);
        for layer in session.profile(&input, TRACED)? {
            let flops = 2.0 * layer.macs as f64;
            let least =
                roofline.as_ref().map(|roofline| roofline.seconds(flops, layer.bytes as f64, working_set) * 1e9);
            let share =
                least.map_or_else(String::new, |least| format!("{:.0} %", 100.0 * least / layer.median_ns as f64));
            table.add_row([
                layer.layer,
                layer.op,
                layer.kernel,
                format!("{:.1}", layer.median_ns as f64 / 1e3),
                format!("{:.1}", flops / layer.median_ns as f64),
                share,
            ]);
        }
        say!("{table}");
        if let Some(durations) = session.durations() {
            let Durations { compile_ns, prepare_ns, upload_ns, kernels_ns, download_ns, run_ns } = durations;
            let [compile, prepare] = [compile_ns, prepare_ns].map(|ns| ns as f64 / 1e6);
            let [upload, kernels, download, run] =
                [upload_ns, kernels_ns, download_ns, run_ns].map(|ns| ns as f64 / 1e3);
            say!(
                "once: compiling {compile:.1} ms, weights {prepare:.1} ms; a run: upload {upload:.1} us, kernels \
                 {kernels:.1} us, download {download:.1} us, {run:.1} us as the host sees it"
            );
        }
    }
    Ok(())
}
