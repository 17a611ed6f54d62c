//! The backend, and the executable, of every system that runs on host threads.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dlis_hw::Hardware;

use crate::arena::AlignedBytes;
use crate::backend::{Backend, CompileError, Executable, ExecuteError, Residency, StepTrace};
use crate::executor::{Executor, Schedule, Serial};
use crate::kernel::{Footprint, Io, Kernel, OpWeights, OwnedWeights, Prepared, Scratch};
use crate::parallel::{Disjoint, Parallel};
use crate::program::Program;

/// A backend of kernels on an executor: all that a CPU system has to provide.
#[derive(Clone, Debug)]
pub struct HostBackend {
    name: &'static str,
    kernels: &'static [&'static dyn Kernel],
    hw: Hardware,
    executor: Arc<dyn Executor>,
    schedule: Schedule,
}

impl HostBackend {
    /// A backend of this name on this machine.
    pub fn new(
        name: &'static str,
        kernels: &'static [&'static dyn Kernel],
        executor: Arc<dyn Executor>,
        schedule: Schedule,
    ) -> Self {
        Self { name, kernels, hw: Hardware::detect(), executor, schedule }
    }

    /// The same backend for a description of the machine with fewer SIMD levels, so that tests reach the
    /// lower ones.
    #[must_use]
    pub fn with_hardware(self, hw: Hardware) -> Self {
        Self { hw, ..self }
    }

    /// The schedule of its parallel loops.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }
}

impl Backend for HostBackend {
    fn name(&self) -> &str {
        self.name
    }

    fn hardware(&self) -> &Hardware {
        &self.hw
    }

    fn threads(&self) -> usize {
        self.executor.threads().get()
    }

    fn configuration(&self) -> String {
        self.schedule.to_string()
    }

    fn kernels(&self) -> &[&'static dyn Kernel] {
        self.kernels
    }

    fn divides_batches(&self) -> bool {
        true
    }

    fn compile(&self, program: &Program, weights: &[OpWeights<'_>]) -> Result<Box<dyn Executable>, CompileError> {
        Ok(Box::new(HostExecutable::new(self, program, weights.iter(), |weights| **weights)?))
    }

    fn compile_owned(
        &self,
        program: &Program,
        weights: Vec<OwnedWeights>,
    ) -> Result<Box<dyn Executable>, CompileError> {
        Ok(Box::new(HostExecutable::new(self, program, weights.into_iter(), OwnedWeights::borrow)?))
    }
}

/// A program's prepared operations, the memory that they run in, and the executor they run on.
pub struct HostExecutable {
    steps: Steps,
    footprints: Vec<Footprint>,
    executor: Arc<dyn Executor>,
    schedule: Schedule,
    /// One; where shares of the batch run side by side, one for each worker that has any.
    memory: Vec<Memory>,
}

/// What a share of the batch runs in.
struct Memory {
    arena: AlignedBytes,
    shared: AlignedBytes,
    workers: AlignedBytes,
}

/// A program and its prepared operations.
struct Steps {
    program: Program,
    prepared: Vec<Box<dyn Prepared>>,
}

impl Steps {
    /// Runs a share of the batch, which is all of it if there is but one.
    fn run(
        &self,
        memory: &mut Memory,
        input: &[f32],
        output: &mut [f32],
        parallel: Parallel<'_>,
        mut observe: Option<&mut dyn FnMut(StepTrace)>,
    ) {
        let program = &self.program;
        let place = |slot: crate::program::Slot| slot.offset..slot.offset + slot.spec.bytes();
        let arena = memory.arena.as_mut_slice();
        arena[place(program.slots[program.input.0])].copy_from_slice(bytemuck::cast_slice(input));
        let start = Instant::now();
        let mut begun = 0;
        for (index, slice) in program.order() {
            let (step, prepared) = (&program.steps[index], &self.prepared[index]);
            let span = tracing::trace_span!("step", layer = step.layer, kernel = %step.kernel).entered();
            let mut io = Io::in_arena(arena, &program.slots, step, slice);
            let (shared, workers) = (memory.shared.as_mut_slice(), memory.workers.as_mut_slice());
            let mut scratch = Scratch::new(shared, workers, parallel.threads());
            prepared.run(&mut io, &mut scratch, parallel);
            drop(span);
            if let Some(observe) = &mut observe {
                let now = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                observe(StepTrace { step: index, start_ns: begun, duration_ns: now - begun });
                begun = now;
            }
        }
        let result = &arena[place(program.slots[program.output.0])];
        output.copy_from_slice(bytemuck::cast_slice(result));
    }
}

impl HostExecutable {
    /// Prepares every step of a program. Weights are dropped one by one, as soon as they are packed.
    fn new<W>(
        backend: &HostBackend,
        program: &Program,
        weights: impl ExactSizeIterator<Item = W>,
        borrow: impl for<'w> Fn(&'w W) -> OpWeights<'w>,
    ) -> Result<Self, CompileError> {
        let HostBackend { name, kernels, hw, executor, schedule } = backend;
        program.validate()?;
        if weights.len() != program.steps.len() {
            return Err(CompileError::WeightCount { steps: program.steps.len(), weights: weights.len() });
        }
        let mut prepared = Vec::with_capacity(program.steps.len());
        for (step, weights) in program.steps.iter().zip(weights) {
            let kernel = kernels.iter().find(|kernel| kernel.id() == step.kernel).ok_or_else(|| {
                let (backend, kernel) = ((*name).to_owned(), step.kernel.to_string());
                CompileError::UnknownKernel { layer: step.layer.clone(), backend, kernel }
            })?;
            let error = |source| CompileError::Prepare { layer: step.layer.clone(), source };
            prepared.push(kernel.prepare_checked(&step.op, borrow(&weights), hw).map_err(error)?);
        }
        let threads = if program.shares > 1 { 1 } else { executor.threads().get() };
        let footprints: Vec<Footprint> = prepared.iter().map(|prepared| prepared.footprint(threads)).collect();
        // Steps run one after another, so they share the scratch of the greediest.
        let most = |of: fn(&Footprint) -> usize| footprints.iter().map(of).max().unwrap_or(0);
        let shared = AlignedBytes::round_up(most(|footprint| footprint.scratch_bytes));
        let worker = AlignedBytes::round_up(most(|footprint| footprint.worker_scratch_bytes));
        let allocate = |bytes| AlignedBytes::try_zeroed(bytes).ok_or(CompileError::Memory { bytes });
        let of_worker = || {
            Ok(Memory {
                arena: allocate(program.arena_bytes)?,
                shared: allocate(shared)?,
                workers: allocate(worker.saturating_mul(threads))?,
            })
        };
        let memories = program.shares.min(executor.threads().get());
        let memory = (0..memories).map(|_| of_worker()).collect::<Result<_, CompileError>>()?;
        let steps = Steps { program: program.clone(), prepared };
        Ok(Self { steps, footprints, executor: Arc::clone(executor), schedule: *schedule, memory })
    }

    fn execute(
        &mut self,
        input: &[f32],
        output: &mut [f32],
        observe: Option<&mut dyn FnMut(StepTrace)>,
    ) -> Result<(), ExecuteError> {
        let Self { steps, executor, schedule, memory, .. } = self;
        let program = &steps.program;
        let check = |what, expected: usize, found: usize| {
            if expected == found { Ok(()) } else { Err(ExecuteError::Size { what, expected, found }) }
        };
        check("input", program.input_spec().elements(), input.len())?;
        check("output", program.output_spec().elements(), output.len())?;
        if program.shares == 1 {
            steps.run(&mut memory[0], input, output, Parallel::new(&**executor, *schedule), observe);
            return Ok(());
        }
        let [input_len, output_len] = [program.input, program.output].map(|id| program.slots[id.0].spec.elements());
        let (memory, output) = (Disjoint::new(memory), Disjoint::new(output));
        // Observers are of this thread, so that the first share's steps are noted, and told in the end.
        let noted = observe.is_some().then(|| Mutex::new(Vec::with_capacity(program.order().count())));
        // Whatever the schedule of the loops within a share, each worker gets as many shares as the others.
        Parallel::new(&**executor, *schedule).evenly().for_each(program.shares, |worker, shares| {
            // SAFETY: no two calls with the same worker overlap in time, and every worker has its own memory.
            let memory = unsafe { memory.slice(worker..worker + 1) };
            for share in shares {
                // SAFETY: the executor passes every share once, and each has its own results.
                let output = unsafe { output.slice(share * output_len..(share + 1) * output_len) };
                let input = &input[share * input_len..][..input_len];
                let alone = Parallel::new(&Serial, *schedule);
                match noted.as_ref().filter(|_| share == 0).map(Mutex::lock) {
                    Some(Ok(mut noted)) => {
                        steps.run(&mut memory[0], input, output, alone, Some(&mut |trace| noted.push(trace)));
                    }
                    _ => steps.run(&mut memory[0], input, output, alone, None),
                }
            }
        });
        if let (Some(observe), Some(noted)) = (observe, noted) {
            noted.into_inner().unwrap_or_default().into_iter().for_each(observe);
        }
        Ok(())
    }
}

impl Executable for HostExecutable {
    fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), ExecuteError> {
        self.execute(input, output, None)
    }

    fn run_traced(
        &mut self,
        input: &[f32],
        output: &mut [f32],
        observe: &mut dyn FnMut(StepTrace),
    ) -> Result<(), ExecuteError> {
        self.execute(input, output, Some(observe))
    }

    fn residency(&self) -> Residency {
        Residency {
            weight_bytes: self.footprints.iter().map(|footprint| footprint.weight_bytes).sum(),
            activation_bytes: self.memory.iter().map(|memory| memory.arena.allocated()).sum(),
            scratch_bytes: self
                .memory
                .iter()
                .map(|memory| memory.shared.allocated() + memory.workers.allocated())
                .sum(),
        }
    }

    fn step_weight_bytes(&self) -> Vec<usize> {
        self.footprints.iter().map(|footprint| footprint.weight_bytes).collect()
    }
}

impl fmt::Debug for HostExecutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostExecutable")
            .field("program", &self.steps.program.name)
            .field("steps", &self.steps.program.steps.len())
            .field("shares", &self.steps.program.shares)
            .field("executor", &self.executor)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}
