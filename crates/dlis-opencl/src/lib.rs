//! Networks on any OpenCL device, by hand-tuned kernels: layer 4 of the stack, the paper's other system.
//!
//! [`OpenClBackend`] is a [`Backend`](dlis_backend::Backend) like those of the CPU: its kernels are chosen layer by
//! layer, weights are packed and uploaded once, activations live in an arena in the device's memory, and a run is a
//! handful of launches in one queue. Its name says the device and the [`Precision`]:
//!
//! | name | |
//! |---|---|
//! | `opencl:0` | the first device of [`devices`], in f32 |
//! | `opencl:h100:f16` | the first device whose name contains `h100`, activations and weights in f16 |
//! | `opencl:0:tf32` | f32, multiplied in tensor cores with 10 bits of mantissa (NVIDIA, from Ampere on) |
//!
//! ```no_run
//! use dlis_model::{Network, zoo};
//! use dlis_opencl::OpenClBackend;
//!
//! for device in dlis_opencl::devices()? {
//!     println!("opencl:{} is {device}", device.index);
//! }
//! let backend: OpenClBackend = "opencl:0".parse()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Kernels
//!
//! A [`DeviceKernel`] is what a [`Kernel`](dlis_backend::Kernel) is on the CPU: an algorithm for an operation and a
//! weight format, which says what it supports and how well. Instead of running it is *staged*: it packs and uploads
//! weights and binds its launches to the places of the tensors, once; running is queueing them. Adding one is one
//! file and one line in a list.
//!
//! Any driver will do. Tests and machines without a GPU use PoCL, which makes a device of the CPU; what a CPU wants
//! (wide vectors, no local memory) is another kernel than what a GPU wants, and
//! [`efficiency`](DeviceKernel::efficiency) tells them apart.
//!
//! # Tuning
//!
//! Some kernels come in several tile sizes. They guess the best for an operation, and are better off asking the device:
//! with `DLIS_OPENCL_TUNE=1` in the environment every operation that was never asked about is staged in each of its
//! sizes and timed, and the winner kept beside the compiled programs, in `tuned.json` of the cache folder
//! (`DLIS_OPENCL_CACHE`, else `dlis/opencl` in the user's). What is kept is used from then on without being asked for,
//! unless `DLIS_OPENCL_TUNE=0` says otherwise.
#![deny(unsafe_code)]

mod backend;
#[allow(unsafe_code, reason = "calls into the OpenCL library")]
mod device;
mod error;
mod executable;
mod host;
mod kernel;
mod kernels;
mod nvidia;
mod peaks;
mod precision;
mod tune;

pub use backend::{OpenClBackend, kernel_ids};
pub use device::{Arg, Buffer, Device, DeviceInfo, DeviceKind, Event, Launch, Pinned, Program, Queue, devices};
pub use error::OpenClError;
pub use executable::OpenClExecutable;
pub use kernel::{DeviceKernel, FusedStep, Fusion, Operand, Operands, Stage, Staged};
pub use precision::Precision;
