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

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dlis_backend::Backend;
use dlis_eval::dataset::{Dataset, Normalization};
use dlis_eval::latency::{Point, Protocol, Step, measure_interleaved};
use dlis_hw::{Hardware, Peaks, Roofline};
use dlis_runtime::{LayerTime, Plan, Planner, Policy, Session, TuneCache};
use sha2::{Digest, Sha256};

pub use self::accuracies::{Accuracies, AccuraciesError};
pub use self::error::RunError;

use self::accuracy::{AccuracyError, classify};
use crate::catalogue::{Catalogue, Loaded, backend};
use crate::record::{Accuracy, Latency, LayerProfile, Memory, Predicted, Provenance, Record, SCHEMA, Startup};
use crate::{Experiment, StackPoint, Store};

/// Runs whose median makes the profile of a network's layers.
const PROFILE_RUNS: usize = 15;
/// Time after which no more profile runs are added.
const PROFILE_BUDGET: Duration = Duration::from_millis(300);
/// Factor by which the profile's sum may differ from the median before a record says so.
const PROFILE_AGREES: f64 = 1.25;
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

/// Measures every point of the experiment that has no record in the store yet.
///
/// # Errors
///
/// [`RunError`] naming the point; records appended before it stay.
pub fn run(
    experiment: &Experiment,
    laboratory: &mut Laboratory,
    store: &mut Store,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), RunError> {
    let all = experiment.expand(laboratory.hw.logical_cores, &laboratory.hw.fingerprint());
    let todo: Vec<StackPoint> = all.iter().filter(|point| !store.contains(&point.id())).cloned().collect();
    let protocol = protocol(experiment);
    let mut work = Work { points: all.len(), todo: todo.len(), finished: all.len() - todo.len(), done: 0.0, progress };
    for record in store.records() {
        laboratory.accuracies.learn(record.accuracy.clone());
    }
    for group in groups(&todo) {
        for record in measure_group(&group, laboratory, &protocol, &mut work)? {
            store.append(record)?;
        }
        laboratory.cache.save()?;
        work.finished += group.len();
        work.say(0.0, STORED);
    }
    Ok(())
}

/// The latency protocol that an experiment asks for.
pub fn protocol(experiment: &Experiment) -> Protocol {
    protocol_of(experiment.latency.budget_ms.get(), experiment.latency.min_samples.get())
}

/// A protocol that takes about this long a point, most of it in rounds.
fn protocol_of(budget_ms: u32, min_samples: u32) -> Protocol {
    const ROUNDS: u32 = 10;
    let budget_ns = u64::from(budget_ms) * 1_000_000;
    Protocol {
        min_samples,
        rounds: ROUNDS,
        warmup_min_ns: budget_ns / 40,
        warmup_max_ns: budget_ns / 5,
        slice_ns: budget_ns / (2 * u64::from(ROUNDS)),
        budget_ns,
        ..Protocol::default()
    }
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
    macs: u64,
}

fn measure_group(
    group: &[&StackPoint],
    laboratory: &mut Laboratory,
    protocol: &Protocol,
    work: &mut Work<'_>,
) -> Result<Vec<Record>, RunError> {
    let first = group[0];
    let loaded = load(first, &laboratory.catalogue)?;
    let weights = weights_digest(&loaded);
    let mut prepared = Vec::with_capacity(group.len());
    for &point in group {
        prepared.push(prepare(point, &loaded, &weights, laboratory, work)?);
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
    let accuracy = accuracy(point, &plan, loaded, weights, laboratory, work)?;
    let before = laboratory.allocated.map(|allocated| allocated());
    // A copy of the plan goes in and is freed within, so that what is counted is the session alone.
    let session = Session::new(&*system, plan.clone()).map_err(|source| RunError::session(point, source))?;
    let counted = laboratory.allocated.zip(before).map(|(allocated, before)| allocated().saturating_sub(before));
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
    let macs = loaded.network.graph().macs().saturating_mul(point.batch as u64);
    Ok(Prepared { point, session, accuracy, memory, startup, notes, macs })
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

/// Names the weights of a network: what accuracy depends on beside the kernels.
fn weights_digest(loaded: &Loaded) -> String {
    let mut hash = Sha256::new();
    for (name, weight) in loaded.network.weights() {
        hash.update(name.as_bytes());
        hash.update(weight.format().name().as_bytes());
        for value in weight.to_f32().iter() {
            hash.update(value.to_le_bytes());
        }
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The accuracy of a plan: known, or measured now with all the machine's threads.
fn accuracy(
    point: &StackPoint,
    plan: &Plan,
    loaded: &Loaded,
    weights: &str,
    laboratory: &mut Laboratory,
    work: &mut Work<'_>,
) -> Result<Accuracy, RunError> {
    let dataset = &laboratory.dataset;
    let mut hash = Sha256::new();
    // The batch is not hashed: each image is computed on its own.
    for text in [weights, &plan.program().arithmetic(), &laboratory.dataset_sha256] {
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
    let counted = classify(plan, dataset, laboratory.hw.logical_cores, &mut |share| {
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

/// Times sessions in the same rounds; `progress` is told the share that is done, 0 to 1.
fn latencies(
    sessions: &mut [(&StackPoint, &mut Session)],
    input: &[f32],
    protocol: &Protocol,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<dlis_eval::latency::Latency>, RunError> {
    let mut failures: Vec<Option<RunError>> = Vec::new();
    failures.resize_with(sessions.len(), || None);
    let mut runs: Vec<Box<dyn FnMut() + '_>> = Vec::with_capacity(sessions.len());
    for ((point, session), failure) in sessions.iter_mut().zip(&mut failures) {
        let mut output = vec![0.0; session.output_len()];
        runs.push(Box::new(move || {
            if let Err(source) = session.run(input, &mut output) {
                failure.get_or_insert(RunError::session(point, source));
            }
        }));
    }
    let mut points: Vec<Point<'_>> =
        runs.iter_mut().enumerate().map(|(i, run)| Point::new(i.to_string(), run)).collect();
    let measured = measure_interleaved(&mut points, protocol, |step| match step.step {
        Step::WarmUp => progress(0.0),
        Step::Slice { round, rounds } => progress((f64::from(round) / f64::from(rounds.max(1))).min(1.0)),
    });
    drop(points);
    drop(runs);
    match failures.into_iter().flatten().next() {
        Some(failure) => Err(failure),
        None => Ok(measured),
    }
}

/// A point's latency, without anything else about it.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The latency of one run.
    pub latency: dlis_eval::latency::Latency,
    /// Multiply-accumulates of one run.
    pub macs: u64,
}

impl Timing {
    /// Two operations a multiply-accumulate, over the median.
    pub fn flops_per_s(&self) -> f64 {
        2.0 * self.macs as f64 * 1e9 / self.latency.median_ns.max(1.0)
    }
}

/// Times the points of one [group](groups) in the same rounds.
///
/// # Errors
///
/// [`RunError`] naming the point.
pub fn time(
    group: &[&StackPoint],
    catalogue: &Catalogue,
    cache: &mut TuneCache,
    budget_ms: u32,
) -> Result<Vec<Timing>, RunError> {
    let Some(first) = group.first() else { return Ok(Vec::new()) };
    let loaded = load(first, catalogue)?;
    let macs = loaded.network.graph().macs().saturating_mul(first.batch as u64);
    let mut sessions = Vec::with_capacity(group.len());
    for point in group {
        let (system, plan) = plan(point, &loaded, cache)?;
        sessions.push(Session::new(&*system, plan).map_err(|source| RunError::session(point, source))?);
    }
    let input = ramp(sessions[0].input_len());
    let mut sessions: Vec<(&StackPoint, &mut Session)> = group.iter().copied().zip(&mut sessions).collect();
    let protocol = protocol_of(budget_ms, 3);
    let measured = latencies(&mut sessions, &input, &protocol, &mut |_| ())?;
    Ok(measured.into_iter().map(|latency| Timing { latency, macs }).collect())
}

/// Values for timed runs: neither zeros nor denormals, which some processors treat apart.
fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|index| (index % 255) as f32 / 127.0 - 1.0).collect()
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

fn record(
    mut prepared: Prepared<'_>,
    latency: dlis_eval::latency::Latency,
    input: &[f32],
    laboratory: &Laboratory,
) -> Result<Record, RunError> {
    let point = prepared.point;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is clamped below")]
    let runs = (PROFILE_BUDGET.as_nanos() as f64 / latency.median_ns.max(1.0)) as usize;
    let layers = prepared
        .session
        .profile(input, runs.clamp(1, PROFILE_RUNS))
        .map_err(|source| RunError::session(point, source))?;
    let roofline = laboratory.peaks.roofline(point.threads);
    let working_set = prepared.memory.resident_bytes();
    let layers: Vec<LayerProfile> =
        layers.into_iter().map(|layer| profile(layer, roofline.as_ref(), working_set)).collect();
    let sum: f64 = layers.iter().map(|layer| layer.median_ns).sum();
    if !(1.0 / PROFILE_AGREES..=PROFILE_AGREES).contains(&(sum / latency.median_ns)) {
        let percent = 100.0 * sum / latency.median_ns;
        prepared
            .notes
            .push(format!("the profile's layers sum to {percent:.0} % of the median: the machine was unsteady"));
    }
    let predicted = Predicted {
        macs: prepared.macs,
        bytes: layers.iter().map(|layer| layer.bytes).sum(),
        roofline_ns: roofline.as_ref().map(|_| layers.iter().filter_map(|layer| layer.roofline_ns).sum()),
        peak_flops_per_s: roofline.as_ref().map(Roofline::flops_per_s),
        bandwidth_bytes_per_s: roofline.as_ref().map(|roofline| roofline.bytes_per_s(working_set)),
    };
    let noise: Vec<String> = latency.noise.iter().map(ToString::to_string).collect();
    Ok(Record {
        schema: SCHEMA,
        id: point.id(),
        point: point.clone(),
        accuracy: prepared.accuracy,
        throughput_images_per_s: point.batch as f64 * 1e9 / latency.median_ns,
        latency: Latency {
            median_ns: latency.median_ns,
            p10_ns: latency.p10_ns,
            p90_ns: latency.p90_ns,
            ci_low_ns: latency.ci_low_ns,
            ci_high_ns: latency.ci_high_ns,
            samples: latency.samples,
            noisy: latency.noisy,
            noise: (!noise.is_empty()).then(|| noise.join("; ")),
        },
        memory: prepared.memory,
        predicted,
        startup: prepared.startup,
        layers,
        energy_joules: None,
        provenance: provenance(laboratory),
        notes: prepared.notes,
    })
}

fn profile(layer: LayerTime, roofline: Option<&Roofline>, working_set: u64) -> LayerProfile {
    let time = |roofline: &Roofline| roofline.seconds(2.0 * layer.macs as f64, layer.bytes as f64, working_set) * 1e9;
    LayerProfile {
        roofline_ns: roofline.map(time),
        layer: layer.layer,
        op: layer.op,
        kernel: layer.kernel,
        median_ns: layer.median_ns as f64,
        macs: layer.macs,
        bytes: layer.bytes,
    }
}

fn provenance(laboratory: &Laboratory) -> Provenance {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Provenance {
        dlis_version: env!("CARGO_PKG_VERSION").to_owned(),
        git_revision: laboratory.git_revision.clone(),
        rustc: laboratory.rustc.clone(),
        unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        machine: laboratory.hw.cpu_model.clone().unwrap_or_else(|| laboratory.hw.arch.clone()),
        machine_summary: laboratory.hw.to_string(),
        os: laboratory.hw.os.clone(),
    }
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
