//! Training in the loop of compression: any [`Graph`](dlis_model::Graph) on libtorch, trained from scratch or
//! under the constraints of a compressor.
//!
//! [`TorchTrainer`] implements [`dlis_compress::Trainer`]. The library needs libtorch 2.11 (`LIBTORCH` names the
//! folder `torch` of an unpacked PyTorch wheel), so that it is not part of the default build.
//!
//! - Weights are f32, kept in a few flat tensors; on CUDA, activations are bf16 and channels last.
//! - Images stay on the device as bytes; a batch is one gathering of shifted and mirrored pixels.
//! - Random numbers depend on seed and epoch alone, so that a run resumed from a checkpoint sees what it would
//!   have seen.
#![forbid(unsafe_code)]

mod checkpoint;
mod constrain;
mod data;
mod error;
mod events;
mod forward;
mod initial;
mod observe;
mod parameters;
mod random;
mod ranges;
mod run;
mod schedule;
mod trainer;

pub use error::TrainError;
pub use events::EventWriter;
pub use initial::initial;
pub use trainer::{Device, Options, Progress, TorchTrainer};
