//! Experiments: stack points, grids, the resumable store, recommendations and reports.
//!
//! * [`StackPoint`] is one choice on every layer of the stack; its [id](StackPoint::id) names its result.
//! * [`Experiment`] is a grid of them, written as a TOML file or [built in](Experiment::builtin).
//! * [`Record`] is one measured point; [`Store`] keeps records so that a killed run goes on where it stopped.
//! * [`compress`](compress::compress) makes an artefact by a recipe, as far as that needs no training.
//! * [`recommend`](recommend::recommend) answers which point to deploy under constraints.
//! * [`report`] turns records into one HTML page, SVG plots and a CSV table; [`table`] into text.

#![forbid(unsafe_code)]

pub mod break_even;
pub mod catalogue;
mod chart;
pub mod compress;
pub mod lines;
pub mod page;
pub mod paper;
mod point;
pub mod quantity;
pub mod recommend;
mod record;
pub mod report;
pub mod run;
pub mod spec;
mod store;
pub mod table;
mod technique;
mod trainer;

pub use catalogue::Catalogue;
pub use point::{MAX_BATCH, MAX_THREADS, StackLayer, StackPoint};
pub use record::{
    Accuracy, Compression, InvalidField, Latency, LayerProfile, Memory, Predicted, Provenance, Record, SCHEMA, Startup,
};
pub use spec::{Experiment, SpecError};
pub use store::{LineError, MAX_LINE_BYTES, MAX_STORE_BYTES, Store, StoreError};
pub use technique::Technique;
pub use trainer::CpuTrainer;

/// The file of an experiment's folder that has its records.
pub const RECORDS_FILE: &str = "records.jsonl";
/// The file of an experiment's folder that has the measured times of kernels.
pub const TUNING_FILE: &str = "tuning.json";
/// The file of an experiment's folder that has the accuracies measured so far.
pub const ACCURACIES_FILE: &str = "accuracies.jsonl";
