//! Datasets, accuracy, the latency protocol, memory counts, and Pareto fronts.
//!
//! This crate turns something that runs into figures that can be compared, and knows nothing of
//! what it is that runs: networks, kernels and backends come in as closures. So it can judge a
//! foreign engine as well as our own, and be used without the rest of the workspace.
//!
//! | module | question |
//! |---|---|
//! | [`dataset`] | which images, and how they become input |
//! | [`fetch`] | where the whole data set comes from |
//! | [`accuracy`] | how often is the network right, and how sure is that |
//! | [`latency`] | how long does a run take, and is one point faster than another |
//! | [`memory`] | how many bytes, predicted and seen |
//! | [`pareto`] | which points are worth having |
//! | [`stats`] | the statistics under all that |
//!
//! # From a closure to a front
//!
//! Two stand-ins for networks: one looks at the mean colour of an image, the other always says
//! "ship". Real ones have the same signature, f32 NCHW in and a logit per class out.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use dlis_eval::accuracy::evaluate;
//! use dlis_eval::dataset::{Normalization, cifar10};
//! use dlis_eval::latency::{Point, Protocol, measure_interleaved, paired_ratio};
//! use dlis_eval::memory::Memory;
//! use dlis_eval::pareto::{Objective, front, hypervolume};
//!
//! fn always_ship(_: &[f32], logits: &mut [f32]) -> Result<(), Infallible> {
//!     for row in logits.chunks_exact_mut(10) {
//!         row.fill(0.0);
//!         row[8] = 1.0;
//!     }
//!     Ok(())
//! }
//!
//! /// Blue pictures are ships, the others frogs.
//! fn mean_colour(input: &[f32], logits: &mut [f32]) -> Result<(), Infallible> {
//!     for (image, row) in input.chunks_exact(3 * 1024).zip(logits.chunks_exact_mut(10)) {
//!         let mean = |channel: usize| image[channel * 1024..][..1024].iter().sum::<f32>();
//!         row.fill(0.0);
//!         row[if mean(2) > mean(1) { 8 } else { 6 }] = 1.0;
//!     }
//!     Ok(())
//! }
//!
//! // Accuracy, on 1,000 images that travel with the crate.
//! let test = cifar10::embedded();
//! let normalization = Normalization::CIFAR10;
//! let ship = evaluate(&test, 100, &normalization, always_ship, |_, _| ())?;
//! let colour = evaluate(&test, 100, &normalization, mean_colour, |_, _| ())?;
//! assert_eq!(ship.top1, 0.1);
//! assert!(colour.top1_interval().low > ship.top1);
//!
//! // Latency of one image, measured together so that the two can be compared.
//! let mut image = vec![0.0; test.image_len()];
//! test.batch_into(0..1, &normalization, &mut image)?;
//! let (mut a, mut b) = ([0.0; 10], [0.0; 10]);
//! let mut run_ship = || drop(always_ship(&image, std::hint::black_box(&mut a)));
//! let mut run_colour = || drop(mean_colour(&image, std::hint::black_box(&mut b)));
//! let protocol = Protocol { slice_ns: 2_000_000, warmup_max_ns: 30_000_000, ..Protocol::quick() };
//! let latencies = measure_interleaved(
//!     &mut [Point::new("ship", &mut run_ship), Point::new("colour", &mut run_colour)],
//!     &protocol,
//!     |_| (),
//! );
//! let ratio = paired_ratio(&latencies[1], &latencies[0], &protocol);
//! assert!(ratio.is_none_or(|ratio| ratio.ratio > 1.0));
//!
//! // Memory is what a plan says it is; these two need next to nothing.
//! let memory = Memory { activation_bytes: 12_288, ..Memory::default() };
//!
//! // Accuracy up, latency and memory down: each is better at something, so both are members.
//! let row = |accuracy: f64, at: usize| [accuracy, latencies[at].median_ns, memory.resident_bytes() as f64];
//! let rows = [row(ship.top1, 0), row(colour.top1, 1)];
//! let objectives = [Objective::Maximise, Objective::Minimise, Objective::Minimise];
//! assert_eq!(front(&rows, &objectives)?, [0, 1]);
//! assert!(hypervolume(&rows, &objectives, &[0.0, 1e9, 1e6])? > 0.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it leaves to others
//!
//! It prints nothing (progress goes to closures, notes to `tracing`), starts no thread, and opens
//! no connection: [`fetch`] runs `curl` or `npm`. What is a stack point, which points to measure,
//! and where records are kept is for the crates above.

#![forbid(unsafe_code)]

pub mod accuracy;
pub mod dataset;
pub mod digest;
pub mod fetch;
pub mod latency;
pub mod memory;
pub mod pareto;
pub mod stats;
