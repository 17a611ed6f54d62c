//! Measures kernels on this machine, one operation at a time, and remembers.

mod cache;
mod turns;
mod whole;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dlis_backend::{
    AlignedBytes, Backend, Executable, Head, Layout, OpSpec, OpWeights, Program, Slot, SlotId, Step, TensorSpec,
};
use dlis_formats::{DType, Weight};

use self::cache::Timing;
pub use self::cache::{TuneCache, TuneCacheError};
use self::turns::in_turns;
use crate::choose::Candidate;
use crate::error::{PlanError, SessionError};
use crate::lower::LoweredOp;

/// Rounds, in each of which every kernel runs once, at most; and where weights are put out of the caches before each run.
const MAX_ROUNDS: usize = 60;
const MAX_COLD_ROUNDS: usize = 15;
/// Bytes of weights from which that is worth its time; fewer come back while the first outputs are computed.
const MANY_WEIGHT_BYTES: usize = 256 << 10;
/// Most memory that is written to put weights out of the caches: a virtual machine may report more cache than it has.
const MAX_EVICT_BYTES: u64 = 64 << 20;

/// Memory that is written so that the caches hold nothing else: what a layer of a network finds whose weights do not fit
/// them. Measured again and again alone, an algorithm that reads four times the weights would look as good as one
/// that does not.
#[derive(Clone, Debug)]
pub struct Evictor(Arc<[AtomicU64]>);

impl Evictor {
    /// For the machine of a backend; `None` where that is a device, or has no caches to speak of.
    pub fn new(backend: &dyn Backend) -> Option<Self> {
        Self::of(backend, usize::MAX)
    }

    /// For networks of so many bytes of weights, which are put out of the largest cache that does not hold them together
    /// with whatever else a run touches; `None` where all do, or where the processor's caches are not those that count.
    pub(crate) fn of(backend: &dyn Backend, weight_bytes: usize) -> Option<Self> {
        let hw = backend.hardware();
        let caches = [hw.l3, hw.l2].into_iter().flatten().map(|cache| cache.bytes.min(MAX_EVICT_BYTES));
        let bytes = caches.into_iter().find(|bytes| weight_bytes as u64 >= bytes / 2)?;
        let elements = usize::try_from(bytes + bytes / 4).ok()? / size_of::<u64>();
        backend.device().is_none().then(|| Self((0..elements).map(|_| AtomicU64::new(1)).collect()))
    }

    /// Writes to all of its lines. A cache may leave out what is only read, and once; what was written it must take.
    pub fn evict(&self) {
        // A line holds eight of them.
        for element in self.0.iter().step_by(8) {
            element.store(element.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }
}

/// Bytes of a weight as which kernels read it at most, but for those that transform it: dense ones may be widened to f32.
pub(crate) fn bytes_read(weight: &Weight) -> usize {
    if weight.format().is_dense() { weight.elements() * size_of::<f32>() } else { weight.bytes() }
}

/// Measures candidates on a backend.
pub(crate) struct Tuner<'a> {
    backend: &'a dyn Backend,
    cache: &'a mut TuneCache,
    key: String,
    evictor: Option<Evictor>,
    /// Shares of a batch that run side by side; operations are measured as one of them.
    shares: usize,
}

impl<'a> Tuner<'a> {
    pub(crate) fn new(backend: &'a dyn Backend, cache: &'a mut TuneCache, evictor: Option<Evictor>) -> Self {
        let (machine, version) = (backend.hardware().fingerprint(), env!("CARGO_PKG_VERSION"));
        // Times in turns are not those that kernels took one after the other.
        let key =
            format!("{machine}|{version}|turns|{}|{}|{}", backend.name(), backend.threads(), backend.configuration());
        Self { backend, cache, key, evictor, shares: 1 }
    }

    /// The same for operations that run in so many shares of a batch side by side, measured as they run then: each on
    /// one thread, while the others do the same.
    pub(crate) fn of_shares(&mut self, shares: usize) -> Tuner<'_> {
        let (key, evictor) = (format!("{}|{shares} shares", self.key), self.evictor.clone());
        Tuner { backend: self.backend, cache: self.cache, key, evictor, shares }
    }

    /// Threads that an operation runs on.
    pub(crate) fn threads(&self) -> usize {
        if self.shares > 1 { 1 } else { self.backend.threads() }
    }

    /// Replaces the candidates' costs by measured times.
    ///
    /// Kernels run in turns, and the median of each counts. What else happens on the machine slows one of them as much as
    /// another then, and each finds the caches as a layer of a network does: full of what others left there.
    pub(crate) fn measure(&mut self, op: &LoweredOp, candidates: &mut [Candidate]) -> Result<(), PlanError> {
        // The most promising first, so that the hopeless are recognised.
        candidates.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        let evictor = self
            .evictor
            .as_ref()
            .filter(|_| op.weight.as_ref().is_some_and(|weight| bytes_read(weight) >= MANY_WEIGHT_BYTES));
        let cold = evictor.map_or(String::new(), |evictor| format!("|cold, {} bytes", size_of_val(&evictor.0[..])));
        let what = format!("{}{cold}", density(op));
        let mut expanded = None;
        let mut known = f64::INFINITY;
        let mut contenders: Vec<Contender<'_>> = Vec::new();
        for candidate in candidates {
            let spec = serde_json::to_string(&candidate.spec).unwrap_or_default();
            let key = format!("{}|{}|{spec}{what}", self.key, candidate.kernel.id());
            if let Some(&Timing { ns, abandoned }) = self.cache.timings.get(&key) {
                (candidate.cost, candidate.abandoned) = (ns, abandoned);
                known = known.min(ns);
                continue;
            }
            if op.weight.as_ref().map(Weight::format) != candidate.spec.weight && expanded.is_none() {
                expanded = op.converted(candidate.spec.weight);
            }
            contenders.push(Contender { candidate, key, alone: RefCell::new(None) });
        }
        let rounds = if evictor.is_some() { MAX_COLD_ROUNDS } else { MAX_ROUNDS };
        // Each is prepared when it is its turn, and forgotten when it is given up: not all of their weights at once.
        let run = |index: usize| {
            let Contender { candidate, alone, .. } = &contenders[index];
            let time = || {
                let mut alone = alone.borrow_mut();
                let alone = match &mut *alone {
                    Some(alone) => alone,
                    none => {
                        let own = op.weight.as_ref().filter(|weight| Some(weight.format()) == candidate.spec.weight);
                        let weight = own.or(expanded.as_ref());
                        none.insert(Alone::new(self.backend, op, weight, candidate, self.shares)?)
                    }
                };
                alone.run(evictor)
            };
            time().map_err(|source| failed(op, candidate, source))
        };
        let give_up = |index: usize| *contenders[index].alone.borrow_mut() = None;
        let timings = in_turns((contenders.len(), rounds), known, run, give_up)?;
        for (Contender { candidate, key, .. }, timing) in contenders.into_iter().zip(timings) {
            (candidate.cost, candidate.abandoned) = (timing.ns, timing.abandoned);
            self.cache.timings.insert(key, timing);
            self.cache.dirty = true;
        }
        Ok(())
    }
}

/// A candidate that is being measured.
struct Contender<'a> {
    candidate: &'a mut Candidate,
    key: String,
    /// Its program, as long as it runs.
    alone: RefCell<Option<Alone>>,
}

/// What is reported where a candidate cannot be measured.
fn failed(op: &LoweredOp, candidate: &Candidate, source: SessionError) -> PlanError {
    PlanError::Measure { layer: op.layer.clone(), kernel: candidate.kernel.id().to_string(), source: Box::new(source) }
}

/// An operation by one kernel, ready to run.
struct Alone {
    executable: Box<dyn Executable>,
    input: Vec<f32>,
    output: Vec<f32>,
}

impl Alone {
    fn new(
        backend: &dyn Backend,
        op: &LoweredOp,
        weight: Option<&Weight>,
        candidate: &Candidate,
        shares: usize,
    ) -> Result<Self, SessionError> {
        let program = Program { shares, ..alone(&op.layer, &candidate.spec, candidate.kernel.id()) };
        let quantization = op.quantization.borrow();
        let weights = OpWeights { weight, bias: op.bias.as_deref(), quantization };
        let executable = backend.compile(&program, &[weights])?;
        let input = vec![0.5; program.input_spec().elements()];
        let output = vec![0.0; program.output_spec().elements()];
        Ok(Self { executable, input, output })
    }

    fn run(&mut self, evictor: Option<&Evictor>) -> Result<u64, SessionError> {
        let mut ns = 0;
        if let Some(evictor) = evictor {
            evictor.evict();
        }
        self.executable.run_traced(&self.input, &mut self.output, &mut |trace| ns = trace.duration_ns)?;
        Ok(ns)
    }
}

/// The part of a measurement's key that says how sparse the weight is, where time depends on it: the share of
/// elements that are not zero, in thousandths.
fn density(op: &LoweredOp) -> String {
    match op.weight.as_ref().filter(|weight| !weight.format().keeps_zeros()) {
        None => String::new(),
        Some(weight) => {
            let filled = weight.elements() - weight.zeros();
            format!("|{:.3}", filled as f64 / weight.elements().max(1) as f64)
        }
    }
}

/// A program of one operation. Its first input is the program's where that is f32; all else is zeros, which take
/// the same time.
fn alone(layer: &str, op: &OpSpec, kernel: dlis_backend::KernelId) -> Program {
    let mut slots = Vec::new();
    let mut arena_bytes = 0;
    let mut place = |spec: TensorSpec| {
        slots.push(Slot::new(spec, arena_bytes));
        arena_bytes += AlignedBytes::round_up(spec.bytes());
        SlotId(slots.len() - 1)
    };
    let inputs: Vec<SlotId> = op.inputs.iter().map(|&spec| place(spec)).collect();
    let residual = op.epilogue.residual.then(|| place(op.output));
    let output = place(op.output);
    // A program's own input and output are f32: one that nobody reads or writes stands in.
    let idle = place(TensorSpec::f32(1, [1, 1, 1], Layout::Nchw));
    let or_idle = |slot: SlotId, spec: &TensorSpec| if spec.dtype == DType::F32 { slot } else { idle };
    let (from, to) = (or_idle(inputs[0], &op.inputs[0]), or_idle(output, &op.output));
    let step = Step { layer: layer.to_owned(), op: op.clone(), kernel, inputs, residual, output };
    let (name, head) = (layer.to_owned(), Head::NONE);
    Program { name, slots, steps: vec![step], head, shares: 1, input: from, output: to, arena_bytes }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dlis_backend::{HostBackend, Schedule, Serial};
    use dlis_hw::{Cache, Hardware};

    use super::*;

    #[test]
    fn weights_are_put_out_of_caches_that_cannot_hold_them() {
        let cache = |bytes| Some(Cache { bytes, shared_by: 1 });
        let of = |l2, l3, weight_bytes| {
            let hw = Hardware { l2, l3, ..Hardware::detect() };
            let backend = HostBackend::new("none", &[], Arc::new(Serial), Schedule::Static).with_hardware(hw);
            Evictor::of(&backend, weight_bytes).map(|evictor| size_of_val(&evictor.0[..]))
        };
        assert_eq!(of(cache(1 << 10), cache(1 << 20), 1 << 8), None);
        assert_eq!(of(cache(1 << 10), cache(1 << 20), 1 << 18), Some(5 << 8));
        assert_eq!(of(cache(1 << 10), cache(1 << 20), 1 << 19), Some(5 << 18));
        assert_eq!(of(cache(1 << 10), None, 1 << 19), Some(5 << 8));
        assert_eq!(of(None, None, usize::MAX), None);
        // A cache that no machine has does not take all memory.
        assert_eq!(of(None, cache(u64::MAX), 1 << 20), None);
        assert_eq!(of(None, cache(u64::MAX), 1 << 30), Some(80 << 20));
    }
}
