//! From stack points to records: loads, plans, checks accuracy, measures.
//!
//! Points that are compared with each other are measured in the same rounds: those of one network, format,
//! thread count and batch make a [group](groups), whose sessions are all alive while the latency protocol
//! takes turns among them. A record is appended as soon as its group is measured, so a killed run loses at
//! most the timing of the group it was at. Accuracy depends on weights and kernels alone, not on threads or backend, and
//! is measured once for each such arithmetic, in this run or any before it in the store.

mod accuracies;
mod accuracy;
mod error;
mod record;
mod timing;

use std::collections::BTreeMap;

use dlis_backend::Backend;
use dlis_eval::dataset::{Dataset, Normalization};
use dlis_eval::latency::Protocol;
use dlis_hw::{Hardware, Peaks, Roofline};
use dlis_runtime::{Plan, Planner, Policy, Session, TuneCache};
use sha2::{Digest, Sha256};

pub use self::accuracies::{Accuracies, AccuraciesError};
pub use self::error::RunError;
pub use self::timing::{Timing, protocol, time};

pub(crate) use self::accuracy::{HOST, classify};

use self::accuracy::AccuracyError;
use self::record::record;
use self::timing::{latencies, ramp};
use crate::catalogue::{Catalogue, Loaded, backend, digest};
use crate::record::{Accuracy, Compression, Memory, Record, Startup};
use crate::{Experiment, StackPoint, Store};

/// What counted and predicted memory may differ by before a record says so: bookkeeping of the sessions.
const MEMORY_SLACK_BYTES: u64 = 256 << 10;

/// What [`Progress::doing`] says when records have just been appended.
pub const STORED: &str = "stored";

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// Points whose records are in the store.
    pub finished: usize,
    /// Points of the experiment.
    pub points: usize,
    /// Share of the work that this run began with that is done, 0 to 1.
    pub share: f64,
    /// In words.
    pub doing: &'a str,
}

/// All that measuring needs beside the experiment.
#[derive(Debug)]
pub struct Laboratory {
    /// Where networks are found.
    pub catalogue: Catalogue,
    /// The machine.
    pub hw: Hardware,
    /// What it can do at most.
    pub peaks: Peaks,
    /// What devices other than the processor can do at most, as far as it was measured: by [`Backend::device`].
    pub device_rooflines: BTreeMap<String, Roofline>,
    /// The images that accuracy is measured on.
    pub dataset: Dataset,
    /// Their digest ([`Dataset::sha256`]).
    pub dataset_sha256: String,
    /// Measured kernels.
    pub cache: TuneCache,
    /// Measured accuracies.
    pub accuracies: Accuracies,
    /// Bytes that the process has allocated, if an allocator counts them.
    pub allocated: Option<fn() -> u64>,
    /// The revision of the program's source, if known.
    pub git_revision: Option<String>,
    /// The compiler that made it, if known.
    pub rustc: Option<String>,
}

/// Points that are measured in the same rounds, in the order of their first.
pub fn groups(points: &[StackPoint]) -> Vec<Vec<&StackPoint>> {
    let key = |point: &StackPoint| {
        (point.network.clone(), point.recipe.clone(), point.format.clone(), point.threads, point.batch)
    };
    let mut groups: Vec<Vec<&StackPoint>> = Vec::new();
    for point in points {
        match groups.iter_mut().find(|group| key(group[0]) == key(point)) {
            Some(group) => group.push(point),
            None => groups.push(vec![point]),
        }
    }
    groups
}

/// A point that cannot be: its choices each mean something but do not go together, as a recipe that the network
/// has no artefact of, or a format that a layer of it does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// The point.
    pub point: StackPoint,
    /// Why it cannot be.
    pub reason: String,
}

/// The points for which there are artefacts, and those for which there are not. Nothing is loaded, so that a
/// format that does not fit is found only when the point's turn comes.
pub fn possible(points: Vec<StackPoint>, catalogue: &Catalogue) -> (Vec<StackPoint>, Vec<Excluded>) {
    let (mut possible, mut excluded) = (Vec::with_capacity(points.len()), Vec::new());
    for point in points {
        match catalogue.has_recipe(&point.network, &point.recipe) {
            Ok(()) => possible.push(point),
            Err(error) => excluded.push(Excluded { reason: error.to_string(), point }),
        }
    }
    (possible, excluded)
}

/// Measures every point of the experiment that has no record in the store yet, and returns those that cannot be.
///
/// # Errors
///
/// [`RunError`] naming the point; records appended before it stay.
pub fn run(
    experiment: &Experiment,
    laboratory: &mut Laboratory,
    store: &mut Store,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<Excluded>, RunError> {
    let all = experiment.expand(laboratory.hw.logical_cores, &laboratory.hw.fingerprint());
    let (all, mut excluded) = possible(all, &laboratory.catalogue);
    let todo: Vec<StackPoint> = all.iter().filter(|point| !store.contains(&point.id())).cloned().collect();
    let protocol = protocol(experiment);
    let mut work = Work { points: all.len(), todo: todo.len(), finished: all.len() - todo.len(), done: 0.0, progress };
    for record in store.records() {
        laboratory.accuracies.learn(record.accuracy.clone());
    }
    for group in groups(&todo) {
        work.say(0.0, &format!("loading {}, {}", group[0].network, group[0].recipe));
        let loaded = match load(group[0], &laboratory.catalogue) {
            Err(RunError::Catalogue { source, .. }) if source.excludes() => {
                let of = |point: &&StackPoint| Excluded { point: (*point).clone(), reason: source.to_string() };
                excluded.extend(group.iter().map(of));
                work.points -= group.len();
                work.say(group.len() as f64, "passed over what cannot be");
                continue;
            }
            loaded => loaded?,
        };
        for record in measure_group(&group, &loaded, laboratory, &protocol, &mut work)? {
            store.append(record)?;
        }
        laboratory.cache.save()?;
        work.finished += group.len();
        work.say(0.0, STORED);
    }
    Ok(excluded)
}

/// How far a run has come. A point's work counts as one, of which most is measuring.
struct Work<'a> {
    points: usize,
    todo: usize,
    finished: usize,
    done: f64,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Work<'_> {
    const PREPARE: f64 = 0.15;
    const ACCURACY: f64 = 0.25;
    const LATENCY: f64 = 0.60;

    /// Adds work done, in points, and reports.
    fn say(&mut self, points: f64, doing: &str) {
        self.done += points;
        let share = if self.todo == 0 { 1.0 } else { (self.done / self.todo as f64).min(1.0) };
        (self.progress)(Progress { finished: self.finished, points: self.points, share, doing });
    }
}

/// A point that is ready to be measured.
struct Prepared<'p> {
    point: &'p StackPoint,
    session: Session,
    accuracy: Accuracy,
    memory: Memory,
    startup: Startup,
    notes: Vec<String>,
    compression: Compression,
    /// Where it is not the host's processor.
    device: Option<String>,
    /// What it can do at most.
    device_roofline: Option<Roofline>,
}

fn measure_group(
    group: &[&StackPoint],
    loaded: &Loaded,
    laboratory: &mut Laboratory,
    protocol: &Protocol,
    work: &mut Work<'_>,
) -> Result<Vec<Record>, RunError> {
    let first = group[0];
    let weights = hex(&digest(&loaded.network));
    let mut prepared = Vec::with_capacity(group.len());
    for &point in group {
        prepared.push(prepare(point, loaded, &weights, laboratory, work)?);
    }
    let images = usize::min(first.batch, laboratory.dataset.len());
    let inputs = input(&prepared[0].session, &laboratory.dataset, images);
    let doing = format!("timing {}, {} thread(s)", first.network, first.threads);
    let total = Work::LATENCY * group.len() as f64;
    let mut said = 0.0;
    let mut sessions: Vec<(&StackPoint, &mut Session)> =
        prepared.iter_mut().map(|p| (p.point, &mut p.session)).collect();
    let latencies = latencies(&mut sessions, &inputs, protocol, &mut |share| {
        let step = (share * total - said).max(0.0);
        said += step;
        work.say(step, &doing);
    })?;
    work.say(total - said, &doing);
    let mut records = Vec::with_capacity(group.len());
    for (prepared, latency) in prepared.into_iter().zip(latencies) {
        records.push(record(prepared, latency, &inputs, laboratory)?);
    }
    Ok(records)
}

/// Plans, packs and checks one point.
fn prepare<'p>(
    point: &'p StackPoint,
    loaded: &Loaded,
    weights: &str,
    laboratory: &mut Laboratory,
    work: &mut Work<'_>,
) -> Result<Prepared<'p>, RunError> {
    work.say(Work::PREPARE, &format!("planning {point}"));
    let start = std::time::Instant::now();
    let (system, plan) = plan(point, loaded, &mut laboratory.cache)?;
    let plan_time = start.elapsed();
    let mut notes = Vec::new();
    if !loaded.trained {
        notes.push("the weights are made up: the accuracy means nothing".to_owned());
    }
    notes.extend(fallbacks(&point.algorithm, &plan));
    notes.extend(expanded(&plan));
    let accuracy = accuracy((point, &*system), &plan, loaded, weights, laboratory, work)?;
    let before = laboratory.allocated.map(|allocated| allocated());
    // A copy of the plan goes in and is freed within, so that what is counted is the session alone.
    let session = Session::new(&*system, plan.clone()).map_err(|source| RunError::session(point, source))?;
    let device = system.device();
    let counted = laboratory
        .allocated
        .zip(before)
        .filter(|_| device.is_none())
        .map(|(allocated, before)| allocated().saturating_sub(before));
    let residency = session.residency();
    let memory = Memory {
        disk_bytes: loaded.disk_bytes,
        weight_bytes: residency.weight_bytes as u64,
        activation_bytes: residency.activation_bytes as u64,
        scratch_bytes: residency.scratch_bytes as u64,
        counted_bytes: counted,
        peak_rss_bytes: dlis_eval::memory::peak_resident_bytes(),
    };
    if let Some(counted) = counted.filter(|counted| counted.abs_diff(memory.resident_bytes()) > MEMORY_SLACK_BYTES) {
        notes.push(format!("the allocator counted {counted} bytes, {} were predicted", memory.resident_bytes()));
    }
    let prepare_ns = (plan_time.as_nanos() as f64) + session.prepare_ns() as f64;
    let startup = Startup { load_ns: loaded.load_time.as_nanos() as f64, prepare_ns };
    let compression = loaded.compression.clone();
    let device_roofline = match &device {
        None => None,
        Some(device) => match laboratory.device_rooflines.get(device) {
            Some(known) => Some(known.clone()),
            None => {
                let measured = system.measure_roofline();
                laboratory.device_rooflines.extend(measured.clone().map(|measured| (device.clone(), measured)));
                measured
            }
        },
    };
    Ok(Prepared { point, session, accuracy, memory, startup, notes, compression, device, device_roofline })
}

/// Convolutions that a fixed choice could not be had for.
fn fallbacks(policy: &Policy, plan: &Plan) -> Option<String> {
    let Policy::Fixed(pattern) = policy else { return None };
    let convolutions = plan.program().steps.iter().filter(|step| step.op.operation.name() == "conv2d");
    let others: Vec<&str> =
        convolutions.filter(|step| !pattern.matches(&step.kernel)).map(|step| step.layer.as_str()).collect();
    let first = others.first()?;
    Some(format!(
        "no kernel that matches `{pattern}` executes {} convolutions, `{first}` the first: others did",
        others.len()
    ))
}

/// Layers whose weights no kernel executes in their format.
fn expanded(plan: &Plan) -> Option<String> {
    // Dense ones are in f32 because that is faster.
    let compressed = |op: &dlis_runtime::LoweredOp| op.expanded.filter(|format| !format.is_dense());
    let layer = |op: &dlis_runtime::LoweredOp| Some((op.layer.clone(), compressed(op)?));
    let expanded: Vec<_> = plan.ops().iter().filter_map(layer).collect();
    let (first, format) = expanded.first()?;
    let count = expanded.len();
    Some(format!("no kernel executes the weights of {count} layers, {format} of `{first}` the first: made dense f32"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The accuracy of a plan: known, or measured now with all the machine's threads.
fn accuracy(
    (point, system): (&StackPoint, &dyn Backend),
    plan: &Plan,
    loaded: &Loaded,
    weights: &str,
    laboratory: &mut Laboratory,
    work: &mut Work<'_>,
) -> Result<Accuracy, RunError> {
    let dataset = &laboratory.dataset;
    let mut hash = Sha256::new();
    // The batch is not hashed: each image is computed on its own.
    // Host threads all compute the same bits; a device and its compiler have their own.
    let device = system.device();
    let texts = [weights, &plan.program().arithmetic(), &laboratory.dataset_sha256];
    for text in texts.into_iter().chain(device.as_deref()) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let arithmetic = hex(&hash.finalize());
    if let Some(accuracy) = laboratory.accuracies.get(&arithmetic) {
        work.say(Work::ACCURACY, &format!("accuracy of {point} is known"));
        return Ok(accuracy.clone());
    }
    let doing = format!("accuracy of {} by {}", point.network, point.algorithm);
    let error = |reason: String| RunError::Dataset {
        point: Box::new(point.clone()),
        dataset: dataset.name().to_owned(),
        reason,
    };
    let shape = loaded.network.graph().input_shape();
    if [shape.channels, shape.height, shape.width] != dataset.image_shape() {
        return Err(error(format!("its images are {:?}, the network's {shape}", dataset.image_shape())));
    }
    let classes = loaded.network.graph().output_shape().elements();
    if classes != dataset.classes().len() {
        return Err(error(format!("it has {} classes, the network {classes}", dataset.classes().len())));
    }
    let mut said = 0.0;
    let system = if device.is_some() { point.backend.as_str() } else { HOST };
    let counted = classify(plan, dataset, (system, laboratory.hw.logical_cores), &mut |share| {
        work.say(Work::ACCURACY * (share - said), &doing);
        said = share;
    });
    work.say(Work::ACCURACY * (1.0 - said), &doing);
    let measured = match counted {
        Ok(counted) => counted.accuracy(),
        Err(AccuracyError::Session(source)) => return Err(RunError::session(point, source)),
        Err(AccuracyError::Other(reason)) => return Err(error(reason)),
    };
    let (top1, top5) = (measured.top1, measured.top5);
    let accuracy = Accuracy { dataset: dataset.name().to_owned(), images: measured.images, top1, top5, arithmetic };
    laboratory.accuracies.append(accuracy.clone())?;
    Ok(accuracy)
}

/// Images for the timed runs: real ones where they fit the network, otherwise a ramp.
fn input(session: &Session, dataset: &Dataset, images: usize) -> Vec<f32> {
    let mut input = ramp(session.input_len());
    let len = dataset.image_len();
    if len * session.batch() == input.len() {
        // Cannot fail: the range lies within the dataset and the slice is of its size.
        let _ = dataset.batch_into(0..images, &Normalization::CIFAR10, &mut input[..images * len]);
    }
    input
}

fn load(point: &StackPoint, catalogue: &Catalogue) -> Result<Loaded, RunError> {
    catalogue
        .network(&point.network, &point.recipe, &point.format)
        .map_err(|source| RunError::Catalogue { point: Box::new(point.clone()), source: Box::new(source) })
}

/// The point's backend, and the plan for it.
fn plan(point: &StackPoint, loaded: &Loaded, cache: &mut TuneCache) -> Result<(Box<dyn Backend>, Plan), RunError> {
    let boxed = || Box::new(point.clone());
    let system = backend(&point.backend, point.threads, point.schedule)
        .map_err(|source| RunError::Catalogue { point: boxed(), source: Box::new(source) })?;
    let planner = Planner::new(&*system).policy(point.algorithm.clone()).batch(point.batch).cache(cache);
    let plan = planner.plan(&loaded.network);
    let plan = plan.map_err(|source| RunError::Plan { point: boxed(), source: Box::new(source) })?;
    Ok((system, plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: &str = r#"
        name = "grid"
        networks = ["a", "b"]
        algorithms = ["heuristic", "measured"]
        backends = ["rayon", "omp"]
        threads = [1, 2]
    "#;

    #[test]
    fn groups_hold_what_is_compared() {
        let points = Experiment::parse("grid.toml", GRID).unwrap().expand(2, "0123456789abcdef");
        let groups = groups(&points);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [4; 4]);
        assert_eq!(groups.concat().len(), points.len());
        for group in &groups {
            assert!(group.iter().all(|point| point.network == group[0].network && point.threads == group[0].threads));
        }
    }

    #[test]
    fn the_protocol_keeps_the_experiments_budget() {
        let text = "name = 'x'\nnetworks = ['a']\n[latency]\nmin_samples = 7\nbudget_ms = 400";
        let protocol = protocol(&Experiment::parse("x.toml", text).unwrap());
        assert_eq!((protocol.min_samples, protocol.budget_ns), (7, 400_000_000));
        let rounds = u64::from(protocol.rounds) * (protocol.slice_ns + protocol.settle_ns);
        assert!(protocol.warmup_max_ns + rounds <= protocol.budget_ns, "{protocol:?}");
    }
}
