//! A planned network, compiled and ready to run.

use std::time::Instant;

use dlis_backend::{Backend, Durations, Executable, Program, Residency, StepTrace};
use ndarray::{Array2, ArrayView4};
use serde::{Deserialize, Serialize};

use crate::error::SessionError;
use crate::plan::Plan;
use crate::trace::TraceEvent;

/// The time that one step takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerTime {
    /// The layer.
    pub layer: String,
    /// What is computed, and how often where it is done a slice of the batch at a time.
    pub op: String,
    /// By what.
    pub kernel: String,
    /// Median over the runs, all slices together; of several shares of the batch, which run side by side, the first's.
    pub median_ns: u64,
    /// Multiply-accumulates of the whole batch.
    pub macs: u64,
    /// Bytes that must move: activations and packed weights, once each.
    pub bytes: u64,
}

/// A network ready to run: packed weights, arena, scratch and executor.
#[derive(Debug)]
pub struct Session {
    executable: Box<dyn Executable>,
    program: Program,
    prepare_ns: u64,
}

impl Session {
    /// Has the backend pack the weights. The plan's own copy of each is dropped as it is packed.
    ///
    /// # Errors
    ///
    /// [`SessionError`] if the backend is not the one that the plan was made for.
    pub fn new(backend: &dyn Backend, plan: Plan) -> Result<Self, SessionError> {
        let start = Instant::now();
        let (program, weights) = plan.into_parts();
        let executable = backend.compile_owned(&program, weights)?;
        let prepare_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(Self { executable, program, prepare_ns })
    }

    /// What it executes.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Time that packing the weights took.
    pub fn prepare_ns(&self) -> u64 {
        self.prepare_ns
    }

    /// Images of a run.
    pub fn batch(&self) -> usize {
        self.program.input_spec().batch
    }

    /// Elements of the input of a run: the batch's images, NCHW.
    pub fn input_len(&self) -> usize {
        self.program.input_spec().elements()
    }

    /// Elements of the result of a run.
    pub fn output_len(&self) -> usize {
        self.program.output_spec().elements()
    }

    /// Runs the network on a batch. Allocates nothing.
    ///
    /// # Errors
    ///
    /// [`SessionError`] if the slices are not of [`input_len`](Self::input_len) and
    /// [`output_len`](Self::output_len) elements.
    pub fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), SessionError> {
        Ok(self.executable.run(input, output)?)
    }

    /// Runs the network on images `[batch, channels, height, width]` and returns its results
    /// `[batch, features]`. Allocates them; [`run`](Self::run) does not.
    ///
    /// # Errors
    ///
    /// [`SessionError`] if the images are not of the extents that the session was planned for.
    pub fn infer(&mut self, images: ArrayView4<'_, f32>) -> Result<Array2<f32>, SessionError> {
        let spec = self.program.input_spec();
        let expected = [spec.batch, spec.channels, spec.height, spec.width];
        if images.shape() != expected {
            return Err(SessionError::Images { expected, found: images.shape().to_vec() });
        }
        let input: Vec<f32> = images.iter().copied().collect();
        let mut output = vec![0.0; self.output_len()];
        self.run(&input, &mut output)?;
        // The output is whole images of the batch, so the shape always fits.
        Ok(Array2::from_shape_vec((spec.batch, output.len() / spec.batch), output).unwrap_or_default())
    }

    /// Runs the network so many times on the input of the last [`run`](Self::run), without bringing input and result
    /// to the device and back, and returns the time of one, in ns; `None` where that is no different.
    ///
    /// # Errors
    ///
    /// [`SessionError`] if the device fails.
    pub fn run_resident(&mut self, runs: usize) -> Option<Result<f64, SessionError>> {
        Some(self.executable.run_resident(runs)?.map_err(SessionError::from))
    }

    /// Where the time of preparing and of the last run went, if the backend is a device.
    pub fn durations(&self) -> Option<Durations> {
        self.executable.durations()
    }

    /// The bytes it holds.
    pub fn residency(&self) -> Residency {
        self.executable.residency()
    }

    /// Runs the network `runs` times (at least once) and returns the median time of each step.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn profile(&mut self, input: &[f32], runs: usize) -> Result<Vec<LayerTime>, SessionError> {
        let mut times: Vec<Vec<u64>> = vec![Vec::new(); self.program.steps.len()];
        let mut output = vec![0.0; self.output_len()];
        for run in 0..runs.max(1) {
            times.iter_mut().for_each(|times| times.push(0));
            // A step of the program's head takes what all its slices do.
            let mut observe = |trace: StepTrace| times[trace.step][run] += trace.duration_ns;
            self.executable.run_traced(input, &mut output, &mut observe)?;
        }
        let weight_bytes = self.executable.step_weight_bytes();
        let steps = self.program.steps.iter().enumerate().zip(times).zip(weight_bytes);
        let layers = steps.map(|(((index, step), mut times), weight_bytes)| {
            times.sort_unstable();
            let slices = self.program.runs_of(index);
            let op = if slices > 1 { format!("{slices} times {}", step.op) } else { step.op.to_string() };
            LayerTime {
                layer: step.layer.clone(),
                op,
                kernel: step.kernel.to_string(),
                median_ns: times[times.len() / 2],
                macs: step.op.macs() * slices as u64,
                bytes: step.op.activation_bytes() * slices as u64 + weight_bytes as u64,
            }
        });
        Ok(layers.collect())
    }

    /// Runs the network `runs` times and returns every step of every run, for
    /// [`chrome_trace`](crate::chrome_trace).
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn trace(&mut self, input: &[f32], runs: usize) -> Result<Vec<TraceEvent>, SessionError> {
        let mut output = vec![0.0; self.output_len()];
        let mut times: Vec<(usize, u64, StepTrace)> = Vec::new();
        let start = Instant::now();
        for run in 0..runs {
            // Whatever is done between two steps is counted to the later one, so that nothing is but noted.
            times.reserve(self.program.order().count());
            let begun = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.executable.run_traced(input, &mut output, &mut |trace| times.push((run, begun, trace)))?;
        }
        let event = |(run, begun, trace): (usize, u64, StepTrace)| {
            let step = &self.program.steps[trace.step];
            TraceEvent {
                run,
                layer: step.layer.clone(),
                op: step.op.to_string(),
                kernel: step.kernel.to_string(),
                start_ns: begun + trace.start_ns,
                duration_ns: trace.duration_ns,
                macs: step.op.macs(),
            }
        };
        Ok(times.into_iter().map(event).collect())
    }
}
