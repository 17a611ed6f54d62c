//! Where a compressed layer begins to pay: the sparsity at which each format beats the best dense kernel.
//!
//! Every distinct convolution and linear layer of a network is timed on its own, as a network of one layer:
//! dense, and in each format with random masks of several sparsities, in the same rounds of the latency
//! protocol. Kernels are chosen by measuring, so that each format is at its best. Between the measured
//! sparsities the break-even is interpolated.
//!
//! Depthwise convolutions are left out: they have nine weights a channel, and no recipe compresses them.

mod masks;
mod measure;
mod section;
mod shape;
mod store;
mod verdict;

pub use masks::sparsities_of;
pub use measure::{BreakEvenError, Outcome, Progress, Settings, Unsupported, measure};
pub use section::{page_sections, stored_sections, summary};
pub use shape::{LayerShape, NamedShape, shapes, shapes_of};
pub use store::{Measurement, Measurements};
pub use verdict::{Verdict, verdict};

/// The sparsities that are measured unless others are asked for.
pub const SPARSITIES: [f64; 7] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98];
/// The file of measurements in the folder of an experiment or of break-evens alone.
pub const MEASUREMENTS_FILE: &str = "break-even.jsonl";
