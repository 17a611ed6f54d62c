//! A program on a device.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use dlis_backend::{
    Backend, CompileError, Durations, Executable, ExecuteError, Kernel, OpSpec, OpWeights, Program, Residency, Slot,
    StepTrace,
};
use dlis_formats::DType;

use crate::backend::OpenClBackend;
use crate::device::{Arg, Buffer, Device, Event, Launch, Pinned, Queue};
use crate::error::OpenClError;
use crate::host::Bound;
use crate::kernel::{FusedStep, Operand, Operands, Stage};
use crate::precision::Precision;

/// Steps that are launched together: one, or several that a [`Fusion`](crate::Fusion) made one of.
struct Group {
    /// The first step.
    first: usize,
    launches: Vec<Launch>,
}

/// A program bound to a device: weights and arena in its memory, and everything that a run queues.
pub struct OpenClExecutable {
    program: Program,
    device: Arc<Device>,
    queue: Queue,
    groups: Vec<Group>,
    /// Brings the input to its place and the result to the buffer that is read, where they are not stored as f32.
    convert: Option<[Launch; 2]>,
    input: (Buffer, usize),
    output: (Buffer, usize),
    pinned: [Pinned; 2],
    step_weight_bytes: Vec<usize>,
    residency: Residency,
    durations: Durations,
}

/// Changes the type of a program's input and output.
const CONVERT: &str = "
__kernel void narrow(__global const float *x, __global half *y, int at) { vstore_half_rte(x[get_global_id(0)], get_global_id(0), y + at); }
__kernel void widen(__global const half *x, int at, __global float *y) { y[get_global_id(0)] = vload_half(get_global_id(0), x + at); }
";

impl OpenClExecutable {
    pub(crate) fn new(
        backend: &OpenClBackend,
        kernels: &[&'static Bound],
        program: &Program,
        weights: &[OpWeights<'_>],
    ) -> Result<Self, CompileError> {
        let (start, compiled) = (Instant::now(), backend.device().compile_ns());
        program.validate()?;
        if weights.len() != program.steps.len() {
            return Err(CompileError::WeightCount { steps: program.steps.len(), weights: weights.len() });
        }
        if program.head.steps > 0 {
            return Err(CompileError::Head { backend: backend.name().to_owned(), steps: program.head.steps });
        }
        if program.shares > 1 {
            return Err(CompileError::Shares { backend: backend.name().to_owned(), shares: program.shares });
        }
        let mut bound = Vec::with_capacity(program.steps.len());
        for (step, &weights) in program.steps.iter().zip(weights) {
            let kernel = kernels.iter().copied().find(|kernel| kernel.id() == step.kernel).ok_or_else(|| {
                let (backend, kernel) = (backend.name().to_owned(), step.kernel.to_string());
                CompileError::UnknownKernel { layer: step.layer.clone(), backend, kernel }
            })?;
            (kernel as &dyn Kernel)
                .check(&step.op, weights, backend.hardware())
                .map_err(|source| CompileError::Prepare { layer: step.layer.clone(), source })?;
            bound.push(kernel);
        }
        let staging = Staging { device: backend.device(), precision: backend.precision(), program, bound: &bound };
        let mut executable = staging.stage(weights).map_err(|error| CompileError::Device {
            device: backend.device().info().to_string(),
            reason: error.to_string(),
        })?;
        let compile_ns = backend.device().compile_ns().saturating_sub(compiled);
        executable.durations.compile_ns = compile_ns;
        executable.durations.prepare_ns = nanoseconds(start).saturating_sub(compile_ns);
        Ok(executable)
    }

    fn failed(&self, error: &OpenClError) -> ExecuteError {
        ExecuteError::Device { device: self.device.info().to_string(), reason: error.to_string() }
    }

    fn execute(
        &mut self,
        input: &[f32],
        output: &mut [f32],
        observe: Option<&mut dyn FnMut(StepTrace)>,
    ) -> Result<(), ExecuteError> {
        let check = |what, expected: usize, found: usize| {
            if expected == found { Ok(()) } else { Err(ExecuteError::Size { what, expected, found }) }
        };
        check("input", self.program.input_spec().elements(), input.len())?;
        check("output", self.program.output_spec().elements(), output.len())?;
        self.pinned[0].as_mut_slice().copy_from_slice(input);
        let events = self.queue_run(observe.is_some()).map_err(|error| self.failed(&error))?;
        output.copy_from_slice(self.pinned[1].as_slice());
        if let Some(observe) = observe {
            self.report(&events, observe).map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    /// Queues a run and waits. The events of each group's launches are kept if they are wanted.
    fn queue_run(&mut self, timed: bool) -> Result<Vec<Vec<Event>>, OpenClError> {
        let start = Instant::now();
        let upload = self.queue.write(&self.input.0, self.input.1, &self.pinned[0])?;
        if let Some([narrow, _]) = &self.convert {
            self.queue.launch(narrow)?;
        }
        let mut events = Vec::new();
        let mut ends = [None, None];
        let last = self.groups.len().saturating_sub(1);
        for (index, group) in self.groups.iter().enumerate() {
            let mut of_group = Vec::new();
            for launch in &group.launches {
                if timed || index == 0 || index == last {
                    of_group.push(self.queue.launch_timed(launch)?);
                } else {
                    self.queue.launch(launch)?;
                }
            }
            if timed {
                events.push(of_group);
            } else {
                // Only the ends are needed, and only if there is one.
                if index == 0 && ends[0].is_none() && !of_group.is_empty() {
                    ends[0] = Some(of_group.remove(0));
                }
                ends[1] = of_group.pop().or(ends[1].take());
            }
        }
        if let Some([_, widen]) = &self.convert {
            self.queue.launch(widen)?;
        }
        let download = self.queue.read(&self.output.0, self.output.1, &mut self.pinned[1])?;
        self.queue.finish()?;
        let length = |event: &Event| event.span().map(|[start, end]| end.saturating_sub(start));
        let first = if timed { events.iter().flatten().next() } else { ends[0].as_ref() };
        let last = if timed { events.iter().flatten().last() } else { ends[1].as_ref().or(ends[0].as_ref()) };
        let kernels_ns = match (first, last) {
            (Some(first), Some(last)) => last.span()?[1].saturating_sub(first.span()?[0]),
            _ => 0,
        };
        self.durations = Durations {
            upload_ns: length(&upload)?,
            kernels_ns,
            download_ns: length(&download)?,
            run_ns: nanoseconds(start),
            ..self.durations
        };
        Ok(events)
    }

    /// Reports every step. Steps that were made one of are reported as the first of them; the others take no time.
    fn report(&self, events: &[Vec<Event>], observe: &mut dyn FnMut(StepTrace)) -> Result<(), OpenClError> {
        let mut origin = None;
        let mut end = 0;
        let mut timed = self.groups.iter().zip(events).peekable();
        for step in 0..self.program.steps.len() {
            let mut duration_ns = 0;
            let mut start_ns = end;
            if let Some((_, events)) = timed.next_if(|(group, _)| group.first == step)
                && let (Some(first), Some(last)) = (events.first(), events.last())
            {
                let [start, _] = first.span()?;
                let origin = *origin.get_or_insert(start);
                start_ns = start.saturating_sub(origin);
                end = last.span()?[1].saturating_sub(origin);
                duration_ns = end.saturating_sub(start_ns);
            }
            observe(StepTrace { step, start_ns, duration_ns });
        }
        Ok(())
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What an executable is made of.
struct Staging<'a> {
    device: &'a Arc<Device>,
    precision: Precision,
    program: &'a Program,
    bound: &'a [&'static Bound],
}

impl Staging<'_> {
    fn stage(&self, weights: &[OpWeights<'_>]) -> Result<OpenClExecutable, OpenClError> {
        let (device, program, precision) = (self.device, self.program, self.precision);
        // Floats and bytes lie in arenas of their own: an f16 takes half the place that the plan gave it, and two
        // tensors that shared no byte of the plan's arena must share none here.
        let floats = device.buffer(program.arena_bytes / size_of::<f32>() * precision.bytes())?;
        let has_bytes = program.slots.iter().any(|slot| slot.spec.dtype != DType::F32);
        let bytes = if has_bytes { device.buffer(program.arena_bytes)? } else { floats.clone() };
        let place = |slot: Slot| match slot.spec.dtype {
            DType::F32 => Operand { buffer: floats.clone(), offset: slot.offset / size_of::<f32>() },
            _ => Operand { buffer: bytes.clone(), offset: slot.offset },
        };
        let groups = self.groups();
        let scratch_bytes = groups.iter().map(|group| self.scratch_bytes(group)).max().unwrap_or(0);
        let scratch = (scratch_bytes > 0).then(|| device.buffer(scratch_bytes)).transpose()?;
        let operands: Vec<Operands> = program
            .steps
            .iter()
            .map(|step| {
                let of = |id: dlis_backend::SlotId| place(program.slots[id.0]);
                let inputs = step.inputs.iter().map(|&id| of(id)).collect();
                Operands { inputs, residual: step.residual.map(of), output: of(step.output), scratch: scratch.clone() }
            })
            .collect();
        let mut step_weight_bytes = Vec::with_capacity(program.steps.len());
        let mut staged = Vec::with_capacity(groups.len());
        for steps in groups {
            let first = steps.start;
            let launches = match self.bound[first].kernel().fusion() {
                Some(fusion) => {
                    let fused: Vec<FusedStep<'_>> = steps
                        .clone()
                        .map(|step| FusedStep {
                            op: &program.steps[step].op,
                            weights: weights[step],
                            operands: &operands[step],
                            is_read_later: self.is_read_after(step, steps.end),
                        })
                        .collect();
                    let (launches, bytes) = fusion.stage(device, precision, &fused)?;
                    step_weight_bytes.extend(bytes);
                    launches
                }
                None => {
                    let (op, operands) = (&program.steps[first].op, &operands[first]);
                    let stage = Stage { device, precision, op, operands };
                    let staged = self.bound[first].kernel().stage(&stage, weights[first])?;
                    step_weight_bytes.push(staged.weight_bytes);
                    staged.launches
                }
            };
            staged.push(Group { first, launches });
        }
        let queue = device.queue()?;
        let (input, output) = (program.slots[program.input.0], program.slots[program.output.0]);
        let pinned = [device.pinned(input.spec.elements(), &queue)?, device.pinned(output.spec.elements(), &queue)?];
        let (inside, outside) = (place(input), place(output));
        let mut ends = [(inside.buffer, inside.offset), (outside.buffer, outside.offset)];
        let convert = match precision {
            Precision::F32 | Precision::Tf32 => None,
            Precision::F16 => {
                let convert = device.program("convert", CONVERT, "")?;
                let wide = [input, output].map(|slot| device.buffer(slot.spec.bytes()));
                let [wide_input, wide_output] = wide;
                let (wide_input, wide_output) = (wide_input?, wide_output?);
                let global = |slot: Slot| [slot.spec.elements(), 1, 1];
                let [(to, to_at), (from, from_at)] = &ends;
                let narrow = [Arg::Buffer(&wide_input), Arg::Buffer(to), Arg::int(*to_at)];
                let widen = [Arg::Buffer(from), Arg::int(*from_at), Arg::Buffer(&wide_output)];
                let launches = [
                    Launch::new(&convert, "narrow", &narrow, global(input), None)?,
                    Launch::new(&convert, "widen", &widen, global(output), None)?,
                ];
                ends = [(wide_input, 0), (wide_output, 0)];
                Some(launches)
            }
        };
        let residency = Residency {
            weight_bytes: step_weight_bytes.iter().sum(),
            activation_bytes: floats.bytes() + if has_bytes { bytes.bytes() } else { 0 },
            scratch_bytes,
        };
        let [input, output] = ends;
        Ok(OpenClExecutable {
            program: program.clone(),
            device: Arc::clone(device),
            queue,
            groups: staged,
            convert,
            input,
            output,
            pinned,
            step_weight_bytes,
            residency,
            durations: Durations::default(),
        })
    }

    /// Consecutive steps whose kernels name the same fusion; any other step alone.
    fn groups(&self) -> Vec<std::ops::Range<usize>> {
        let name = |step: usize| self.bound[step].kernel().fusion().map(|fusion| fusion.name());
        let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
        for step in 0..self.bound.len() {
            match groups.last_mut() {
                Some(last) if name(step).is_some() && name(step) == name(last.start) => last.end = step + 1,
                _ => groups.push(step..step + 1),
            }
        }
        groups
    }

    fn scratch_bytes(&self, steps: &std::ops::Range<usize>) -> usize {
        let kernel = self.bound[steps.start].kernel();
        match kernel.fusion() {
            Some(fusion) => {
                let ops: Vec<&OpSpec> = self.program.steps[steps.clone()].iter().map(|step| &step.op).collect();
                fusion.scratch_bytes(&ops, self.device, self.precision)
            }
            None => kernel.scratch_bytes(&self.program.steps[steps.start].op, self.device, self.precision),
        }
    }

    /// Whether the result of `step` may be read by a step from `end` on, or is the network's.
    fn is_read_after(&self, step: usize, end: usize) -> bool {
        let range = |slot: Slot| slot.offset..slot.offset + slot.spec.bytes();
        let made = range(self.program.slots[self.program.steps[step].output.0]);
        let meets = |id: dlis_backend::SlotId| {
            let other = range(self.program.slots[id.0]);
            made.start < other.end && other.start < made.end
        };
        let later = &self.program.steps[end..];
        later.iter().any(|step| step.inputs.iter().copied().chain(step.residual).any(meets))
            || meets(self.program.output)
    }
}

impl Executable for OpenClExecutable {
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

    fn run_resident(&mut self, runs: usize) -> Option<Result<f64, ExecuteError>> {
        let queue_all = || {
            self.queue.finish()?;
            let start = Instant::now();
            for _ in 0..runs {
                self.groups
                    .iter()
                    .flat_map(|group| &group.launches)
                    .try_for_each(|launch| self.queue.launch(launch))?;
            }
            self.queue.finish()?;
            Ok(nanoseconds(start) as f64 / runs.max(1) as f64)
        };
        Some(queue_all().map_err(|error| self.failed(&error)))
    }

    fn durations(&self) -> Option<Durations> {
        Some(self.durations)
    }

    fn residency(&self) -> Residency {
        self.residency
    }

    fn step_weight_bytes(&self) -> Vec<usize> {
        self.step_weight_bytes.clone()
    }
}

impl fmt::Debug for OpenClExecutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenClExecutable")
            .field("program", &self.program.name)
            .field("steps", &self.program.steps.len())
            .field("groups", &self.groups.len())
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}
