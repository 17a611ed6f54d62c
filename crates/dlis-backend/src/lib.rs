//! The words every backend shares: operations, tensors, kernels, executors and programs.
//!
//! A network reaches a machine in three steps. The runtime lowers a graph to operations ([`OpSpec`]) and
//! picks a [`Kernel`] for each; it lays their tensors out in one arena, which makes a [`Program`]; a
//! [`Backend`] compiles the program to an [`Executable`]. CPU backends differ in their [`Executor`] alone
//! and share [`HostBackend`]; a GPU backend is free to fuse across steps.
//!
//! Threads are passed in, never found: no kernel looks for a pool.

mod arena;
mod backend;
mod chunks;
mod executor;
mod extents;
mod host;
mod kernel;
mod kernel_id;
mod nesting;
mod op;
mod parallel;
mod program;
mod tensor;
mod wait;

pub use arena::AlignedBytes;
pub use backend::{Backend, CompileError, Durations, Executable, ExecuteError, Residency, StepTrace};
pub use chunks::{Dealer, guided_chunk};
pub use executor::{Executor, ParseScheduleError, Schedule, Serial, static_range};
pub use host::{HostBackend, HostExecutable};
pub use kernel::{
    Footprint, Io, Kernel, OpQuantization, OpWeights, OwnedQuantization, OwnedWeights, PrepareError, Prepared, Scratch,
    Support,
};
pub use kernel_id::{KernelId, KernelPattern, ParseKernelIdError};
pub use nesting::{ExecutorId, Nesting, NestingScope};
pub use op::{Epilogue, OpSpec, Operation};
pub use parallel::{Disjoint, Parallel};
pub use program::{Head, Program, ProgramError, Slot, SlotId, Step};
pub use tensor::{Layout, TensorSpec, View, ViewMut};
pub use wait::{Spin, WaitPolicy};
