//! Measures kernels on this machine, one operation at a time, and remembers.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use dlis_backend::{
    AlignedBytes, Backend, Executable, Head, Layout, OpSpec, OpWeights, Program, Slot, SlotId, Step, TensorSpec,
};
use dlis_formats::{DType, Weight};
use serde::{Deserialize, Serialize};

use crate::choose::Candidate;
use crate::error::{PlanError, SessionError};
use crate::lower::LoweredOp;

/// Largest cache file that is read.
const MAX_CACHE_BYTES: u64 = 64 << 20;
/// A kernel whose first run takes this many times the best median so far is measured no further.
const HOPELESS: f64 = 4.0;
/// A kernel that takes no more than this many times the best median so far may turn out to be the fastest, and is then
/// measured so many times again.
const NEAR: f64 = 1.4;
const TURNS: usize = 2;
/// Runs of a kernel: at least, at most, and the time after which no more are added.
const MIN_RUNS: usize = 5;
const MAX_RUNS: usize = 50;
const ENOUGH_NS: u64 = 10_000_000;

/// Runs of a kernel, at most, where its weights are put out of the caches before each.
const MAX_COLD_RUNS: usize = 11;
/// Bytes of weights from which that is worth its time; fewer come back while the first outputs are computed.
const MANY_WEIGHT_BYTES: usize = 256 << 10;
/// Most memory that is read to put weights out of the caches: a virtual machine may report more cache than it has.
const MAX_EVICT_BYTES: u64 = 64 << 20;

/// Memory that is read so that the caches hold nothing else: what a layer of a network finds whose weights do not fit
/// them. Measured again and again alone, an algorithm that reads four times the weights would look as good as one
/// that does not.
pub(crate) struct Evictor(Vec<u64>);

impl Evictor {
    /// For networks of so many bytes of weights; `None` where they fit the last-level cache together with whatever else
    /// a run touches, or where the processor's caches are not those that count.
    pub(crate) fn of(backend: &dyn Backend, weight_bytes: usize) -> Option<Self> {
        let hw = backend.hardware();
        let bytes = hw.l3.or(hw.l2)?.bytes.min(MAX_EVICT_BYTES);
        let fits = (weight_bytes as u64) < bytes / 2;
        let elements = usize::try_from(bytes + bytes / 4).ok()? / size_of::<u64>();
        (backend.device().is_none() && !fits).then(|| Self(vec![1; elements]))
    }

    fn evict(&self) {
        // A line holds eight of them.
        std::hint::black_box(self.0.iter().step_by(8).fold(0u64, |sum, &element| sum.wrapping_add(element)));
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Timing {
    ns: f64,
    /// Whether measuring was given up, so that `ns` is but one run.
    abandoned: bool,
}

/// Measurements of kernels, in a file or in memory. Their keys name machine, backend, threads, kernel,
/// operation (its element types and weight format included) and how sparse the weight is, so that one file may
/// serve several of each.
#[derive(Debug)]
pub struct TuneCache {
    path: Option<PathBuf>,
    timings: BTreeMap<String, Timing>,
    dirty: bool,
}

/// Why a cache file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneCacheError {
    /// The file system refused.
    #[error("tuning cache `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than any cache.
    #[error("tuning cache `{path}`: {bytes} bytes, expected at most {MAX_CACHE_BYTES}; delete it to measure again")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not a cache.
    #[error("tuning cache `{path}`: {source}; delete it to measure again")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl TuneCache {
    /// A cache that is forgotten.
    pub fn in_memory() -> Self {
        Self { path: None, timings: BTreeMap::new(), dirty: false }
    }

    /// The cache in a file, empty if there is none yet.
    ///
    /// # Errors
    ///
    /// [`TuneCacheError`] if the file cannot be read or is not a cache.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TuneCacheError> {
        let path = path.into();
        let io = |source| TuneCacheError::Io { path: path.clone(), source };
        let timings = match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(io(error)),
            Ok(file) => {
                let size = file.metadata().map_err(io)?.len();
                let mut text = Vec::new();
                // The size of what is no regular file says nothing, so that reading is bounded too.
                if size <= MAX_CACHE_BYTES {
                    file.take(MAX_CACHE_BYTES + 1).read_to_end(&mut text).map_err(io)?;
                }
                let bytes = size.max(text.len() as u64);
                if bytes > MAX_CACHE_BYTES {
                    return Err(TuneCacheError::TooLarge { bytes, path });
                }
                parse(&text).map_err(|source| TuneCacheError::Format { path: path.clone(), source })?
            }
        };
        Ok(Self { path: Some(path), timings, dirty: false })
    }

    /// Number of measurements.
    pub fn len(&self) -> usize {
        self.timings.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.timings.is_empty()
    }

    /// Writes new measurements to the file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`TuneCacheError`] if the file cannot be written.
    pub fn save(&mut self) -> Result<(), TuneCacheError> {
        let Some(path) = self.path.clone().filter(|_| self.dirty) else { return Ok(()) };
        let io = |source| TuneCacheError::Io { path: path.clone(), source };
        let text = serde_json::to_vec(&self.timings)
            .map_err(|source| TuneCacheError::Format { path: path.clone(), source })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(io)?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|error| {
            // Best effort: the error that matters is the one that is returned.
            let _ = std::fs::remove_file(&temporary);
            io(error)
        })?;
        self.dirty = false;
        Ok(())
    }
}

/// The measurements in a file's text. A time that nothing takes would win every choice, so that it is refused.
fn parse(text: &[u8]) -> Result<BTreeMap<String, Timing>, serde_json::Error> {
    let timings: BTreeMap<String, Timing> = serde_json::from_slice(text)?;
    match timings.iter().find(|(_, timing)| !(timing.ns.is_finite() && timing.ns > 0.0)) {
        Some((key, timing)) => {
            Err(serde::de::Error::custom(format!("{key}: a time of {} ns, expected a positive one", timing.ns)))
        }
        None => Ok(timings),
    }
}

/// Measures candidates on a backend.
pub(crate) struct Tuner<'a> {
    backend: &'a dyn Backend,
    cache: &'a mut TuneCache,
    key: String,
    evictor: Option<Evictor>,
}

impl<'a> Tuner<'a> {
    pub(crate) fn new(backend: &'a dyn Backend, cache: &'a mut TuneCache, evictor: Option<Evictor>) -> Self {
        let (machine, version) = (backend.hardware().fingerprint(), env!("CARGO_PKG_VERSION"));
        let key = format!("{machine}|{version}|{}|{}|{}", backend.name(), backend.threads(), backend.configuration());
        Self { backend, cache, key, evictor }
    }

    /// Replaces the candidates' costs by measured times.
    ///
    /// Every kernel is timed once, then those that came near the fastest again in turns, of which each keeps its best
    /// median: what else happens on the machine within a hundredth of a second decides nothing.
    pub(crate) fn measure(&mut self, op: &LoweredOp, candidates: &mut [Candidate]) -> Result<(), PlanError> {
        // The most promising first, so that the hopeless are recognised.
        candidates.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        let evictor = self
            .evictor
            .as_ref()
            .filter(|_| op.weight.as_ref().is_some_and(|weight| weight.bytes() >= MANY_WEIGHT_BYTES));
        let what = format!("{}{}", density(op), if evictor.is_some() { "|cold" } else { "" });
        let mut expanded = None;
        let mut best = f64::INFINITY;
        let mut contenders: Vec<Contender<'_>> = Vec::new();
        for candidate in candidates {
            let spec = serde_json::to_string(&candidate.spec).unwrap_or_default();
            let key = format!("{}|{}|{spec}{what}", self.key, candidate.kernel.id());
            if let Some(&Timing { ns, abandoned }) = self.cache.timings.get(&key) {
                (candidate.cost, candidate.abandoned) = (ns, abandoned);
                best = best.min(ns);
                continue;
            }
            let weight = op.weight_in(candidate.spec.weight, &mut expanded);
            let alone = Alone::new(self.backend, op, weight, candidate);
            let mut alone = alone.map_err(|source| failed(op, candidate, source))?;
            let Timing { ns, abandoned } = alone.time(best, evictor).map_err(|source| failed(op, candidate, source))?;
            (candidate.cost, candidate.abandoned) = (ns, abandoned);
            best = best.min(ns);
            contenders.push(Contender { candidate, key, alone: (!abandoned).then_some(alone) });
            contenders.iter_mut().for_each(|contender| contender.give_up_beyond(NEAR * best));
        }
        for _ in 0..TURNS {
            for Contender { candidate, alone, .. } in &mut contenders {
                if let Some(alone) = alone {
                    let timing = alone.time(f64::INFINITY, evictor).map_err(|source| failed(op, candidate, source))?;
                    candidate.cost = candidate.cost.min(timing.ns);
                }
            }
        }
        for Contender { candidate, key, .. } in contenders {
            self.cache.timings.insert(key, Timing { ns: candidate.cost, abandoned: candidate.abandoned });
            self.cache.dirty = true;
        }
        Ok(())
    }
}

/// A candidate that is being measured.
struct Contender<'a> {
    candidate: &'a mut Candidate,
    key: String,
    /// Its program, as long as it may turn out to be the fastest.
    alone: Option<Alone>,
}

impl Contender<'_> {
    fn give_up_beyond(&mut self, ns: f64) {
        if self.candidate.cost > ns {
            self.alone = None;
        }
    }
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
    ) -> Result<Self, SessionError> {
        let program = alone(&op.layer, &candidate.spec, candidate.kernel.id());
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

    /// The median of its runs, or the first if that is hopelessly beyond the best.
    fn time(&mut self, best: f64, evictor: Option<&Evictor>) -> Result<Timing, SessionError> {
        let first = self.run(evictor)?;
        if first as f64 > HOPELESS * best && self.run(evictor)? as f64 > HOPELESS * best {
            return Ok(Timing { ns: first as f64, abandoned: true });
        }
        let most = if evictor.is_some() { MAX_COLD_RUNS } else { MAX_RUNS };
        let mut times = Vec::with_capacity(most);
        while times.len() < MIN_RUNS || (times.len() < most && times.iter().sum::<u64>() < ENOUGH_NS) {
            times.push(self.run(evictor)?);
        }
        times.sort_unstable();
        // No time is too short for the clock's resolution.
        Ok(Timing { ns: times[times.len() / 2].max(1) as f64, abandoned: false })
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
    Program { name, slots, steps: vec![step], head, input: from, output: to, arena_bytes }
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
        assert_eq!(of(cache(1 << 10), cache(1 << 20), 1 << 18), None);
        assert_eq!(of(cache(1 << 10), cache(1 << 20), 1 << 19), Some(5 << 18));
        assert_eq!(of(cache(1 << 10), None, 1 << 19), Some(5 << 8));
        assert_eq!(of(None, None, usize::MAX), None);
        // A cache that no machine has does not take all memory.
        assert_eq!(of(None, cache(u64::MAX), 1 << 20), None);
        assert_eq!(of(None, cache(u64::MAX), 1 << 30), Some(80 << 20));
    }
}
