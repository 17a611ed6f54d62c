//! Datasets, accuracy, the latency protocol, memory counts, and Pareto fronts.
#![forbid(unsafe_code)]

pub mod accuracy;
pub mod dataset;
pub mod digest;
pub mod fetch;
pub mod stats;
