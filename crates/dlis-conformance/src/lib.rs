//! Conformance suite: every operation, on odd shapes, of any backend against the plain reference.
//!
//! A kernel for DLIS is a promise: that it computes what the operation's definition says, for every
//! shape it does not decline, whatever the threads. This crate is how to keep that promise honest. It
//! knows no kernel and no executor: bring yours.
//!
//! # Proving a kernel
//!
//! ```
//! use dlis_backend::{Kernel, Schedule, Serial};
//! use dlis_conformance::{Setup, Tolerance, cases, prove_kernels};
//! use dlis_hw::Hardware;
//! # use dlis_backend::*;
//! # struct Twofold; // The sum of two inputs, in one order of the elements.
//! # struct Ready;
//! # impl Kernel for Twofold {
//! #     fn id(&self) -> KernelId {
//! #         KernelId::new("add", "f32", "none", "twofold", "portable")
//! #     }
//! #     fn support(&self, op: &OpSpec, _: &Hardware) -> Support {
//! #         let one_layout = op.inputs.iter().all(|input| input.layout == op.output.layout);
//! #         Support::when(op.operation == Operation::Add, "it adds")
//! #             .and(|| Support::when(one_layout, "it changes no layout"))
//! #             .and(|| Support::when(op.epilogue == Epilogue::NONE, "it has no epilogue"))
//! #     }
//! #     fn efficiency(&self, _: &OpSpec) -> f32 {
//! #         0.5
//! #     }
//! #     fn prepare(&self, _: &OpSpec, _: OpWeights<'_>, _: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
//! #         Ok(Box::new(Ready))
//! #     }
//! # }
//! # impl Prepared for Ready {
//! #     fn footprint(&self, _: usize) -> Footprint {
//! #         Footprint::default()
//! #     }
//! #     fn run(&self, io: &mut Io<'_>, _: &mut Scratch<'_>, parallel: Parallel<'_>) {
//! #         let (a, b) = (io.input(0).f32(), io.input(1).f32());
//! #         parallel.for_each_row(io.output().f32(), 1, |_, first, sums| {
//! #             for (index, sum) in sums.iter_mut().enumerate() {
//! #                 *sum = a[first + index] + b[first + index];
//! #             }
//! #         });
//! #     }
//! # }
//!
//! let kernels: [&dyn Kernel; 1] = [&Twofold]; // yours
//! let setup = Setup {
//!     executors: &[&Serial], // and yours, each with 1, 2 and 3 threads
//!     schedules: &[Schedule::Static, "dynamic,1".parse()?],
//!     hardware: &Hardware::detect(),
//!     tolerance: Tolerance::of,
//! };
//! let report = prove_kernels(&kernels, &cases(), &setup);
//! report.verdict()?; // and print the report: it says what was declined and skipped
//! # assert!(report.kernels().next().unwrap().1.passed > 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A whole backend is proved by `prove_backend(&backend, &cases(), Tolerance::of)`, which makes a
//! program of each case. [`any_case`] is a proptest strategy for the shapes nobody thought of; pass what
//! it makes to [`check_kernel`] or [`check_backend`].
//!
//! Kernels for u8 activations are proved by [`prove_quantized`] with [`quantized_cases`], and must agree with
//! [`quantized_reference`] to the bit; its report is [merged](Report::merge) with the other.
//!
//! An executor is proved by [`prove_executor`].
//!
//! # The contract
//!
//! Each case is tried in every pair of input and output layouts that its batch can be in and every weight format;
//! [`Kernel::support`](dlis_backend::Kernel::support) decides which are run. Then:
//!
//! - the result is within the [`Tolerance`] of the [`reference`](fn@reference): a bound on the rounding of
//!   f32 sums in any order, infinities and NaN where the definition has them;
//! - nothing outside the output and the scratch is written: guards lie around both;
//! - nothing is read before it is written, or beyond the inputs: the output, the scratch and the
//!   surroundings of the inputs are full of NaN, and in a second run of ordinary numbers, with more
//!   scratch than was asked for; the second run must give the same bits;
//! - neither threads nor schedule change a bit of the result;
//! - a panic is a failure; so is an efficiency outside (0, 1], a refusal without a reason, an id of
//!   another operation, two kernels of one id, a kernel that runs at a SIMD level below its own;
//! - a kernel that declines every case is not proved.
//!
//! Of a backend: compiling refuses a wrong number of weights, running refuses slices of a wrong size, a
//! traced run reports every step and computes the same bits, and no step weighs more than the whole.
#![deny(unsafe_code)]

mod backend;
mod call;
mod case;
mod executor;
mod formats;
mod guarded;
mod kernel;
mod outcome;
mod quantized;
mod random;
mod reference;
mod report;
mod suite;
mod table;
mod tensor;
mod tolerance;
mod values;

pub use backend::check_backend;
pub use case::{Case, InvalidCase};
pub use executor::{BrokenPromise, prove_executor};
pub use kernel::{Setup, check_kernel};
pub use outcome::Outcome;
pub use quantized::{
    Elements, Flavour, QuantizedCase, any_quantized_case, check_quantized, prove_quantized, quantized_cases,
    quantized_reference,
};
pub use random::any_case;
pub use reference::{Element, Expected, reference};
pub use report::{Report, Tally, Unproven};
pub use suite::{prove_backend, prove_kernels};
pub use table::cases;
pub use tensor::Tensor;
pub use tolerance::Tolerance;
