//! `cargo xtask bench --layers`: what every kernel takes for every layer, and what the machine must take at least.

use dlis_backend::Schedule;
use dlis_experiment::TUNING_FILE;
use dlis_experiment::catalogue::{NO_RECIPE, STORED, backend};
use dlis_runtime::{OpCandidates, Planner, Policy, TuneCache};

use crate::Failure;
use crate::command::BenchArgs;
use crate::laboratory::{catalogue, peaks, root};
use crate::output::say;

const NETWORKS: [&str; 6] = [
    "vgg16-cifar10",
    "resnet18-cifar10",
    "mobilenet-cifar10",
    "vgg16-imagenet",
    "resnet18-imagenet",
    "mobilenet-imagenet",
];

/// Measures every kernel on every distinct layer, alone, and prints it beside the layer's roofline. As a layer is run again and
/// again, what it reads lies in the cache that holds it, and the roofline is that cache's.
pub(crate) fn run(args: &BenchArgs, threads: &[usize]) -> Result<(), Failure> {
    let or = |given: &[String], default: &[&str]| match given {
        [] => default.iter().map(|&name| name.to_owned()).collect::<Vec<String>>(),
        given => given.to_vec(),
    };
    let batches = if args.batch.is_empty() { vec![1] } else { args.batch.clone() };
    let measured = peaks(threads);
    say!("{measured}");
    let mut cache = TuneCache::open(root().join("results").join(TUNING_FILE))?;
    for name in or(&args.backend, &["omp"]) {
        for &threads in threads {
            let system = backend(&name, threads, Schedule::Static)?;
            let roofline =
                if system.device().is_none() { measured.roofline(threads) } else { system.measure_roofline() };
            for network in or(&args.network, &NETWORKS) {
                for recipe in or(&args.recipe, &[NO_RECIPE]) {
                    let loaded = catalogue().network(&network, &recipe, STORED)?.network;
                    for &batch in &batches {
                        eprintln!("measuring {network}, {recipe}, batch {batch}, {name}, {threads} thread(s)");
                        let planner = Planner::new(&*system).policy(Policy::Measured).batch(batch).cache(&mut cache);
                        let plan = planner.plan(&loaded)?;
                        say!("\n{network}, {recipe}, batch {batch}: {name}, {threads} thread(s)");
                        let least = |flops: f64, bytes: f64| {
                            roofline.as_ref().map(|roofline| {
                                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes")]
                                let working_set = bytes as u64;
                                roofline.seconds(flops, bytes, working_set) * 1e6
                            })
                        };
                        say!("{}", table(&plan.candidates(), least));
                        cache.save()?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// `least` is the least time, in us, of so many operations and bytes.
fn table(ops: &[OpCandidates], least: impl Fn(f64, f64) -> Option<f64>) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["layer", "operation", "MFLOP", "MB", "roofline us", "kernel", "layout", "us", "of it", ""]);
    for op in ops.iter().filter(|op| op.macs > 0) {
        let (flops, bytes) = (2.0 * op.macs as f64, op.bytes as f64);
        let roofline = least(flops, bytes);
        let mut head = [
            op.layer.clone(),
            op.op.clone(),
            format!("{:.2}", flops / 1e6),
            format!("{:.3}", bytes / 1e6),
            roofline.map_or_else(String::new, |us| format!("{us:.1}")),
        ];
        for candidate in &op.candidates {
            let us = candidate.ns / 1e3;
            let mut cells = std::mem::take(&mut head).to_vec();
            cells.extend([
                candidate.kernel.to_string(),
                candidate.layout.to_string(),
                format!("{us:.1}"),
                roofline.map_or_else(String::new, |least| format!("{:.0} %", 100.0 * least / us)),
                match (candidate.chosen, candidate.abandoned) {
                    (true, _) => "chosen".to_owned(),
                    (false, true) => "given up".to_owned(),
                    (false, false) => String::new(),
                },
            ]);
            table.add_row(cells);
        }
    }
    table
}
