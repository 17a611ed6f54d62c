//! Layer 2 of the stack: compression, a network in and a smaller network with a report out.
//!
//! - A [`Recipe`] says what is done, as data; its steps are [`Magnitude`] (weight pruning), [`Channels`] (channel
//!   pruning), [`Ternary`] and [`Quantise`].
//! - Each is a [`Compressor`] of its own too.
//! - Training and data are behind the trait [`Trainer`]; this crate knows no framework and no backend.
#![forbid(unsafe_code)]

mod bounds;
pub mod channels;
mod compressor;
mod constraint;
mod error;
pub mod magnitude;
pub mod quantise;
pub mod recipe;
mod report;
mod selection;
mod ternary;
mod trainer;
mod untrained;
mod weights;

pub use channels::Channels;
pub use compressor::{Compressor, Context, Event, Treatment};
pub use error::CompressError;
pub use magnitude::Magnitude;
pub use quantise::{Quantise, quantised_tensors};
pub use recipe::{Recipe, Step, Store, Teaching, Tuning};
pub use report::{Compressed, Counts, LayerReport, Report, StepReport};
pub use selection::Selection;
pub use ternary::Ternary;
pub use trainer::{Constraint, Distill, FineTune, Observed, Trainer, TrainerError, TrainingProgress};
pub use untrained::Untrained;
