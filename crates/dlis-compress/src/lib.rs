//! Layer 2 of the stack: compression, a network in and a smaller network with a report out.
//!
//! - A [`Recipe`] says what is done, as data; its steps are [`Magnitude`] (weight pruning), [`Channels`] (channel
//!   pruning), [`Ternary`] and [`Quantise`].
//! - Each is a [`Compressor`] of its own too.
//! - Steps are kept as [`Checkpoints`], training runs have keys for good, so that a recipe that was killed goes on.
//! - [`Sensitivity`](sensitivity::Sensitivity) says which layers cost accuracy.
//! - Training and data are behind the trait [`Trainer`]; this crate knows no framework and no backend.
//!
//! ```
//! use dlis_compress::{Counts, Recipe, Untrained};
//! use dlis_model::{Network, zoo};
//!
//! let recipe: Recipe = toml::from_str(
//!     r#"
//!     name = "small"
//!     [[steps]]
//!     kind = "channels"
//!     criterion = "l1"
//!     budget = { macs = 0.5 }
//!     [[steps]]
//!     kind = "quantise"
//!     weights = 8
//!     "#,
//! )?;
//! let network = Network::random(zoo::mobilenet_cifar10(), 0);
//! // A trainer with data would train where the recipe says so.
//! let small = recipe.run(&network, &mut Untrained, &mut (), &mut |_| {})?;
//! assert!(small.network.weight_bytes() * 4 < network.weight_bytes());
//! println!("{:?}", small.report.steps[0].after);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod bounds;
mod built_in;
pub mod channels;
mod checkpoints;
mod compressor;
mod constraint;
mod digest;
mod error;
mod histogram;
pub mod magnitude;
pub mod quantise;
pub mod recipe;
mod report;
mod run;
mod selection;
pub mod sensitivity;
mod store;
mod ternary;
mod trainer;
mod untrained;
mod weights;

pub use built_in::BUILT_IN;
pub use channels::Channels;
pub use checkpoints::Checkpoints;
pub use compressor::{Compressor, Context, Event, Treatment};
pub use error::CompressError;
pub use histogram::Histogram;
pub use magnitude::Magnitude;
pub use quantise::{Quantise, quantised_tensors};
pub use recipe::{Recipe, Step, Store, Teaching, Tuning};
pub use report::{Compressed, Counts, LayerReport, Report, StepReport};
pub use run::{Library, MAX_CHAIN};
pub use selection::Selection;
pub use ternary::Ternary;
pub use trainer::{Constraint, Distill, FineTune, Observed, Trainer, TrainerError, TrainingProgress};
pub use untrained::Untrained;
