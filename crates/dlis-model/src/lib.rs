//! Layer 1 of the stack: the graph of a convolutional network, its shapes and counts, the network zoo
//! and artefact files.
//!
//! - A [`Graph`] is a list of layers in execution order. Every graph in existence is valid: its shapes are
//!   inferred and its sizes bounded when it is built.
//! - A [`Network`] is a graph with a valid weight for each of its parameters.
//! - The [`zoo`] has the graphs of well-known networks, with layers named as in PyTorch's weight files.
//! - An [`Artefact`] is a network as one safetensors file, with whatever else is known of it.
//! - [`fold_batch_norm`] removes the batch-norms that a convolution or linear layer can take over.
//!
//! What computes a network is the business of the layers above.
//!
//! ```
//! use dlis_model::{Artefact, Network, fold_batch_norm, zoo};
//!
//! let graph = zoo::graph("resnet18-cifar10")?;
//! assert_eq!(graph.trainable_parameters(), 11_173_962);
//! assert_eq!(graph.macs(), 555_422_720);
//! assert_eq!(graph.summary().rows[0].layer, "conv1");
//!
//! let network = Network::random(graph, 42);
//! let folded = fold_batch_norm(network)?;
//! assert!(folded.weight("conv1", "bias").is_some());
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("resnet18.safetensors");
//! let artefact = Artefact::new(folded).with("recipe", "none").with("seed", "42");
//! artefact.save(&path)?;
//! assert_eq!(Artefact::load(&path)?, artefact);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod artefact;
mod error;
mod fold;
pub mod graph;
#[cfg(any(test, feature = "interpreter"))]
pub mod interpreter;
mod network;
mod op;
mod summary;
pub mod zoo;

pub use artefact::{Artefact, ArtefactError, ArtefactProblem};
pub use error::{GraphError, LayerError, QuantizationError, WeightError};
pub use fold::{FoldError, fold_batch_norm};
pub use graph::{Graph, GraphBuilder, Layer, Shape, Value};
pub use network::Network;
pub use op::{Activation, Conv2d, Linear, Op, Parameter, Pool, Window};
pub use summary::{Summary, SummaryRow};
