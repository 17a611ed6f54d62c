//! `cargo xtask bench`.

use std::collections::BTreeSet;

use dlis_backend::Schedule;
use dlis_experiment::catalogue::{BACKENDS, NO_RECIPE, STORED, has_kernel};
use dlis_experiment::run::{Timing, time};
use dlis_experiment::spec::{Grid, Threads};
use dlis_experiment::{StackPoint, TUNING_FILE};
use dlis_hw::Hardware;
use dlis_runtime::TuneCache;
use serde_json::json;

use crate::Failure;
use crate::command::{BenchArgs, Opponent};
use crate::laboratory::{catalogue, peaks, root};
use crate::output::say;

const NETWORKS: [&str; 3] = ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10"];
const ALGORITHMS: [&str; 4] = ["fixed:direct", "fixed:im2col-gemm", "fixed:implicit-gemm", "measured"];

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let hw = Hardware::detect();
    let threads =
        or(&args.threads, || BTreeSet::from([1, hw.logical_cores.min(2), hw.logical_cores]).into_iter().collect());
    if let Some(Opponent::Cudnn) = args.against {
        return crate::cudnn::run(args);
    }
    if args.layers {
        return crate::layers::run(args, &threads);
    }
    if args.fork_join {
        return Ok(crate::fork_join::run(&threads, args.json)?);
    }
    let peaks = peaks(&threads);
    let mut cache = TuneCache::open(root().join("results").join(TUNING_FILE))?;
    let points = points(args, &threads, &hw)?;
    let mut rows = Vec::new();
    for group in dlis_experiment::run::groups(&points) {
        let first = group[0];
        let (network, recipe, format) = (&first.network, &first.recipe, &first.format);
        eprintln!("timing {network}, {recipe}, {format}, batch {}, {} thread(s)", first.batch, first.threads);
        let peak = peaks.flops_per_s(first.threads);
        for (point, timing) in group.iter().zip(time(&group, &catalogue(), &mut cache, args.budget_ms)?) {
            rows.push(Row { point: (*point).clone(), share: peak.map(|peak| timing.flops_per_s() / peak), timing });
        }
    }
    cache.save()?;
    if args.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        say!("{:#}", json!({ "machine": hw, "peaks": peaks, "rows": rows }));
        return Ok(());
    }
    say!("{hw}\n{peaks}");
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "network",
        "recipe",
        "format",
        "batch",
        "threads",
        "backend",
        "algorithm",
        "median ms",
        "95 % interval",
        "GFLOP/s",
        "of peak",
        "",
    ]);
    table.add_rows(rows.iter().map(Row::cells));
    say!("{table}");
    Ok(())
}

/// What was given, or the default.
fn or<T: Clone>(given: &[T], default: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if given.is_empty() { default() } else { given.to_vec() }
}

fn points(args: &BenchArgs, threads: &[usize], hw: &Hardware) -> Result<Vec<StackPoint>, Failure> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
    let mut algorithms = args.algorithm.clone();
    if algorithms.is_empty() {
        for text in ALGORITHMS {
            algorithms.push(text.parse()?);
        }
    }
    for policy in &algorithms {
        has_kernel(policy).map_err(Failure::new)?;
    }
    let grid = Grid {
        networks: or(&args.network, || owned(&NETWORKS)),
        recipes: or(&args.recipe, || owned(&[NO_RECIPE])),
        formats: or(&args.format, || owned(&[STORED])),
        algorithms,
        backends: or(&args.backend, || owned(&BACKENDS)),
        threads: threads.iter().copied().map(Threads::Count).collect(),
        schedules: vec![Schedule::Static],
        batches: or(&args.batch, || vec![1, 32]),
    };
    Ok(grid.points(hw.logical_cores, &hw.fingerprint()).collect())
}

struct Row {
    point: StackPoint,
    timing: Timing,
    /// Of the measured peak.
    share: Option<f64>,
}

impl Row {
    fn cells(&self) -> [String; 12] {
        let ms = |ns: f64| format!("{:.3}", ns / 1e6);
        let latency = &self.timing.latency;
        [
            self.point.network.clone(),
            self.point.recipe.clone(),
            self.point.format.clone(),
            self.point.batch.to_string(),
            self.point.threads.to_string(),
            self.point.backend.clone(),
            self.point.algorithm.to_string(),
            ms(latency.median_ns),
            format!("{} .. {}", ms(latency.ci_low_ns), ms(latency.ci_high_ns)),
            format!("{:.1}", self.timing.flops_per_s() / 1e9),
            self.share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
            if latency.noisy { "noisy".to_owned() } else { String::new() },
        ]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "point": self.point,
            "latency": self.timing.latency,
            "macs": self.timing.macs,
            "gflop_per_s": self.timing.flops_per_s() / 1e9,
            "share_of_peak": self.share,
        })
    }
}
