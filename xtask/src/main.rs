//! The command line of DLIS: `cargo xtask experiment`, and what belongs to it.
#![forbid(unsafe_code)]

mod bench;
mod break_even;
mod ci;
mod command;
mod cudnn;
mod datasets;
mod doctor;
mod experiment;
mod explain;
mod failure;
mod fork_join;
mod laboratory;
mod layers;
mod output;
mod paper;
mod recommend;
mod sensitivity;
mod training;

use std::alloc::System;
use std::process::ExitCode;

use clap::Parser as _;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::command::{Cli, Command};
pub(crate) use crate::failure::Failure;

/// Counts what is allocated, so that records hold measured memory beside the predicted.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that the process has allocated and not freed.
pub(crate) fn allocated() -> u64 {
    let stats = ALLOCATOR.stats();
    // A block that grows or shrinks in place is counted by the difference, which may be negative.
    let balance = stats.bytes_allocated as i128 - stats.bytes_deallocated as i128 + stats.bytes_reallocated as i128;
    u64::try_from(balance).unwrap_or(0)
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Experiment(args) => experiment::run(&args),
        Command::Report(args) => experiment::report(&args),
        Command::Recommend(args) => recommend::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BreakEven(args) => break_even::run(&args),
        Command::Sensitivity(args) => sensitivity::run(&args),
        Command::Paper(args) => paper::run(&args),
        Command::Train(args) => training::train(&args),
        Command::Compress(args) => training::compress(&args),
        Command::Datasets(args) => datasets::run(&args),
        Command::Doctor => doctor::run(),
        Command::Ci { without_training } => ci::run(&laboratory::root(), !without_training),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
