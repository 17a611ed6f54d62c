//! Experiments: stack points, grids, the resumable store, recommendations and reports.
//!
//! * [`StackPoint`] is one choice on every layer of the stack; its [id](StackPoint::id) names its result.
//! * [`Experiment`] is a grid of them, written as a TOML file or [built in](Experiment::builtin).
//! * [`Record`] is one measured point; [`Store`] keeps records so that a killed run goes on where it stopped.
//! * [`recommend`](recommend::recommend) answers which point to deploy under constraints.
//! * [`report`] turns records into one HTML page, SVG plots and a CSV table; [`table`] into text.

#![forbid(unsafe_code)]

pub mod catalogue;
mod point;
pub mod quantity;
pub mod recommend;
mod record;
pub mod report;
pub mod run;
pub mod spec;
mod store;
pub mod table;

pub use catalogue::Catalogue;
pub use point::{MAX_BATCH, MAX_THREADS, StackLayer, StackPoint};
pub use record::{
    Accuracy, InvalidField, Latency, LayerProfile, Memory, Predicted, Provenance, Record, SCHEMA, Startup,
};
pub use spec::{Experiment, SpecError};
pub use store::{LineError, MAX_LINE_BYTES, MAX_STORE_BYTES, Store, StoreError};

/// The file of an experiment's folder that has its records.
pub const RECORDS_FILE: &str = "records.jsonl";
/// The file of an experiment's folder that has the measured times of kernels.
pub const TUNING_FILE: &str = "tuning.json";
/// The file of an experiment's folder that has the accuracies measured so far.
pub const ACCURACIES_FILE: &str = "accuracies.jsonl";
