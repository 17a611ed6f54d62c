//! `cargo xtask recommend`.

use std::collections::BTreeMap;

use dlis_experiment::recommend::{Constraints, recommend};
use dlis_experiment::{RECORDS_FILE, Record, StackLayer, Store};

use crate::Failure;
use crate::command::RecommendArgs;
use crate::laboratory::default_results;
use crate::output::say;

pub(crate) fn run(args: &RecommendArgs) -> Result<(), Failure> {
    let path = args.results.clone().unwrap_or_else(default_results).join(RECORDS_FILE);
    if !path.is_file() {
        let path = path.display();
        return Err(Failure::new(format!(
            "no records in {path}: measure some with `cargo xtask experiment`, or name their folder with `--results`"
        )));
    }
    let records = Store::read(&path)?;
    let mut only = BTreeMap::new();
    only.insert(StackLayer::Network, args.network.clone());
    only.insert(StackLayer::Recipe, args.recipe.clone());
    only.insert(StackLayer::Format, args.format.clone());
    only.insert(StackLayer::Backend, args.backend.clone());
    only.insert(StackLayer::Algorithm, args.algorithm.iter().map(ToString::to_string).collect());
    only.insert(StackLayer::Threads, args.threads.iter().map(ToString::to_string).collect());
    only.insert(StackLayer::Batch, args.batch.iter().map(ToString::to_string).collect());
    let constraints = Constraints {
        min_accuracy: args.min_accuracy,
        max_latency_ns: args.max_latency,
        max_memory_bytes: args.max_memory,
        min_throughput_images_per_s: args.min_throughput,
        max_disk_bytes: args.max_disk,
        only,
    };
    if print(&records, &constraints) { Ok(()) } else { Err(Failure::new("nothing measured satisfies the constraints")) }
}

/// Prints the answer; whether there is one.
pub(crate) fn print(records: &[Record], constraints: &Constraints) -> bool {
    let answer = recommend(records, constraints);
    match answer.chosen {
        Some(record) => say!("{}\n", record.point),
        None => say!("no stack point fits\n"),
    }
    say!("{}", answer.reason);
    for caution in &answer.cautions {
        say!("caution: {caution}");
    }
    if !answer.runners_up.is_empty() {
        say!("\nrunners-up");
    }
    for runner_up in &answer.runners_up {
        say!("  {}\n    {}", runner_up.record.point, runner_up.note);
    }
    answer.chosen.is_some()
}
