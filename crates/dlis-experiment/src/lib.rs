//! Experiments: stack points, grids, the resumable store, launchers and reports.
//!
//! * [`StackPoint`] is one choice on every layer of the stack; its [id](StackPoint::id) names its result.
//! * [`Experiment`] is a grid of them, written as a TOML file or [built in](Experiment::builtin).
//! * [`Record`] is one measured point; [`Store`] keeps records so that a killed run goes on where it stopped.
//! * [`recommend`](recommend::recommend) answers which point to deploy under constraints.
//! * [`report`] turns records into one HTML page, SVG plots and a CSV table; [`table`] into text.

#![forbid(unsafe_code)]

mod point;
pub mod quantity;
mod record;
mod store;

pub use point::{Algorithm, MAX_BATCH, MAX_THREADS, ParseAlgorithmError, StackLayer, StackPoint};
pub use record::{
    Accuracy, InvalidField, Latency, LayerProfile, Memory, Predicted, Provenance, Record, SCHEMA, Startup,
};
pub use store::{LineError, MAX_LINE_BYTES, MAX_STORE_BYTES, Store, StoreError};
