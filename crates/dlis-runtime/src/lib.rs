//! Chooses an algorithm per layer, plans memory, runs sessions and traces layers.
//!
//! A [`Network`](dlis_model::Network) becomes a [`Session`] in four steps, each of which can be looked at:
//! batch-norms are folded, layers fused into operations and their [element types](Types) settled; a [`Policy`]
//! picks a kernel and a layout for each; the activations are laid out in one arena by their lifetimes; the
//! backend packs the weights. An [`Observer`] shows every layer's result instead, for calibration.
//!
//! ```
//! use dlis_backend::Schedule;
//! use dlis_model::{Network, zoo};
//! use dlis_runtime::{Planner, Policy, Session};
//! use ndarray::Array4;
//!
//! let network = Network::random(zoo::graph("mobilenet-cifar10")?, 0);
//! let backend = dlis_cpu_rayon::backend(2.try_into()?, Schedule::Static)?;
//! let plan = Planner::new(&backend).policy(Policy::Heuristic).plan(&network)?;
//! println!("{}", plan.explain(&backend));
//! let mut session = Session::new(&backend, plan)?;
//! let logits = session.infer(Array4::zeros([1, 3, 32, 32]).view())?;
//! assert_eq!(logits.shape(), [1, 10]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod choose;
mod conversions;
mod emit;
mod error;
mod explain;
mod forms;
mod layouts;
mod lower;
mod memory;
mod observe;
mod plan;
mod policy;
mod session;
mod slices;
mod trace;
mod tune;
mod types;

pub use error::{PlanError, SessionError};
pub use explain::{Explanation, KernelVerdict, StepExplanation};
pub use lower::{LoweredOp, Source};
pub use observe::{Observation, ObserveError, Observer};
pub use plan::{CandidateTime, OpCandidates, Plan, Planner};
pub use policy::{ParsePolicyError, Policy};
pub use session::{LayerTime, Session};
pub use trace::{TraceEvent, chrome_trace};
pub use tune::{Evictor, TuneCache, TuneCacheError};
pub use types::Types;
