//! A backend: kernels, and the way to make an executable of a program.

use std::fmt;

use dlis_hw::{Hardware, Roofline};
use serde::{Deserialize, Serialize};

use crate::kernel::{Kernel, OpWeights, OwnedWeights, PrepareError};
use crate::program::{Program, ProgramError};

/// Why a program could not be compiled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The program is ill-formed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// There must be one set of weights a step.
    #[error("{steps} steps but {weights} sets of weights")]
    WeightCount {
        /// Steps of the program.
        steps: usize,
        /// Sets of weights given.
        weights: usize,
    },
    /// A step names a kernel that the backend does not have.
    #[error("step `{layer}`: backend `{backend}` has no kernel `{kernel}`")]
    UnknownKernel {
        /// The step's layer.
        layer: String,
        /// The backend.
        backend: String,
        /// The kernel.
        kernel: String,
    },
    /// The program runs its first steps a slice of the batch at a time, and the backend has no such programs.
    #[error("backend `{backend}` runs every step on the whole batch, and the program has a head of {steps} steps")]
    Head {
        /// The backend.
        backend: String,
        /// Steps of the head.
        steps: usize,
    },
    /// The program runs shares of the batch side by side, and the backend has no such programs.
    #[error("backend `{backend}` runs the whole batch at once, and the program has {shares} shares of it")]
    Shares {
        /// The backend.
        backend: String,
        /// Shares of the batch.
        shares: usize,
    },
    /// There is not enough memory for activations and scratch.
    #[error("{bytes} bytes of activations and scratch cannot be had: use a smaller batch or network")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The device, or its driver, refuses.
    #[error("{device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        reason: String,
    },
    /// A step could not be prepared.
    #[error("step `{layer}`: {source}")]
    Prepare {
        /// The step's layer.
        layer: String,
        /// Why.
        source: PrepareError,
    },
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// The input or output given is not of the program's size.
    #[error("{what}: expected {expected} elements, found {found}")]
    Size {
        /// `input` or `output`.
        what: &'static str,
        /// Elements of the program's tensor.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// The device, or its driver, failed.
    #[error("{device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        reason: String,
    },
}

/// Bytes that an executable holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residency {
    /// Packed weights and biases.
    pub weight_bytes: usize,
    /// The arena of activations.
    pub activation_bytes: usize,
    /// Scratch, of all workers together.
    pub scratch_bytes: usize,
}

/// Where the time of a device went, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// Compiling programs, or finding them compiled: once.
    pub compile_ns: u64,
    /// Packing and uploading weights: once.
    pub prepare_ns: u64,
    /// The last run's input to the device.
    pub upload_ns: u64,
    /// From the start of its first kernel to the end of its last.
    pub kernels_ns: u64,
    /// Its result from the device.
    pub download_ns: u64,
    /// All of it, as the host saw it.
    pub run_ns: u64,
}

/// The time that one step took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepTrace {
    /// Index of the step in the program. A step of its [`Head`](crate::Head) comes once for every slice; of several
    /// shares of the batch, which run side by side, those of the first are told.
    pub step: usize,
    /// Start, from the start of the run.
    pub start_ns: u64,
    /// Duration.
    pub duration_ns: u64,
}

/// A program ready to run on a device.
pub trait Executable: fmt::Debug + Send {
    /// Runs the network on one batch: `input` NCHW, `output` features of each image. Allocates nothing on
    /// the host.
    ///
    /// # Errors
    ///
    /// [`ExecuteError`] if the slices are not of the program's size, or the device fails.
    fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), ExecuteError>;

    /// As [`run`](Self::run), reporting the time of each step.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    fn run_traced(
        &mut self,
        input: &[f32],
        output: &mut [f32],
        observe: &mut dyn FnMut(StepTrace),
    ) -> Result<(), ExecuteError>;

    /// Runs the network so many times on the input that the last run left on a device, without transfers, and returns
    /// the time of one, in ns; `None` where the host's memory is the device's, so that there are no transfers.
    fn run_resident(&mut self, _runs: usize) -> Option<Result<f64, ExecuteError>> {
        None
    }

    /// Where the time of preparing and of the last run went, if a device says so.
    fn durations(&self) -> Option<Durations> {
        None
    }

    /// The bytes it holds.
    fn residency(&self) -> Residency;

    /// Bytes of packed weights of each step, in the program's order.
    fn step_weight_bytes(&self) -> Vec<usize>;
}

/// A system of layer 4: a set of kernels and the way to execute a program with them.
///
/// An instance is configured (threads, schedule, device) when it is made; the records of a stack point
/// name that configuration.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Its name on the command line and in records.
    fn name(&self) -> &str;

    /// The machine it runs on; kernels are chosen for it.
    fn hardware(&self) -> &Hardware;

    /// Host threads that a run uses.
    fn threads(&self) -> usize;

    /// What else the time of its kernels depends on, in words: its schedule, its device. Measured times are
    /// kept apart by it.
    fn configuration(&self) -> String {
        String::new()
    }

    /// The device that it runs on and its driver, where that is not the host's processor: then neither its memory nor
    /// the bounds on its speed are the host's.
    fn device(&self) -> Option<String> {
        None
    }

    /// What the [device](Self::device) can do at most, measured now, which takes some time; `None` where it is the
    /// host's processor, whose peaks `dlis-hw` measures, or if measuring fails.
    fn measure_roofline(&self) -> Option<Roofline> {
        None
    }

    /// Whether it runs networks of integers faster in f32 at this batch: their weights are unpacked then, and no
    /// activation is rounded. So it is where a whole network is one launch in f32, and many in integers.
    fn prefers_f32(&self, _batch: usize) -> bool {
        false
    }

    /// Its kernels, in the order in which they are listed to users.
    fn kernels(&self) -> &[&'static dyn Kernel];

    /// Whether its executables run a program's [`Head`](crate::Head) a slice of the batch at a time, and
    /// [shares](Program::shares) of the batch side by side: worth it where caches hold the tensors of a few images, and
    /// not those of the whole batch.
    fn divides_batches(&self) -> bool {
        false
    }

    /// Makes an executable of a program; `weights` has one entry a step.
    ///
    /// # Errors
    ///
    /// [`CompileError`] naming the step.
    fn compile(&self, program: &Program, weights: &[OpWeights<'_>]) -> Result<Box<dyn Executable>, CompileError>;

    /// The same, of weights that nobody needs afterwards: where they are packed one by one, each can be freed before the
    /// next is, so that a network is not in memory twice.
    ///
    /// # Errors
    ///
    /// As [`compile`](Self::compile).
    fn compile_owned(
        &self,
        program: &Program,
        weights: Vec<OwnedWeights>,
    ) -> Result<Box<dyn Executable>, CompileError> {
        let borrowed: Vec<OpWeights<'_>> = weights.iter().map(OwnedWeights::borrow).collect();
        self.compile(program, &borrowed)
    }
}
