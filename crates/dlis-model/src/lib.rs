//! Layer 1 of the stack: the graph of a convolutional network, its shapes and counts, the network zoo
//! and artefact files.
#![forbid(unsafe_code)]

mod error;
mod fold;
pub mod graph;
mod network;
mod op;
mod summary;
pub mod zoo;

pub use error::{GraphError, LayerError, WeightError};
pub use fold::{FoldError, fold_batch_norm};
pub use graph::{Graph, GraphBuilder, Layer, Shape, Value};
pub use network::Network;
pub use op::{Activation, Conv2d, Linear, Op, Parameter, Pool, Window};
pub use summary::{Summary, SummaryRow};
