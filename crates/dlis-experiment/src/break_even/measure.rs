//! Times layers of one shape, dense and compressed, in the same rounds.

use std::collections::BTreeMap;

use dlis_backend::{Backend, Schedule};
use dlis_eval::latency::{Point, Protocol, Step, measure_interleaved, paired_ratio};
use dlis_formats::{Format, Weight};
use dlis_model::{GraphError, Network, WeightError};
use dlis_runtime::{Evictor, PlanError, Planner, Policy, Session, SessionError, TuneCache};
use ndarray::{ArrayD, IxDyn};

use super::masks::{random_weight, sparsities_of};
use super::{LayerShape, Measurement, Measurements, NamedShape};
use crate::catalogue::{CatalogueError, backend};
use crate::lines::LinesError;

/// Why break-evens can't be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BreakEvenError {
    /// There is no such backend, or it can't be started.
    #[error(transparent)]
    Backend(Box<CatalogueError>),
    /// A shape is not of a layer.
    #[error("{shape}: {source}")]
    Shape {
        /// The layer.
        shape: String,
        /// Why not.
        source: Box<GraphError>,
    },
    /// Weights do not fit their layer.
    #[error("{shape}: {source}")]
    Weight {
        /// The layer.
        shape: String,
        /// Why not.
        source: Box<WeightError>,
    },
    /// The dense layer can't be planned.
    #[error("{shape}, dense: {source}")]
    Plan {
        /// The layer.
        shape: String,
        /// Why not.
        source: Box<PlanError>,
    },
    /// A layer can't be run.
    #[error("{shape}, {format}: {source}")]
    Session {
        /// The layer.
        shape: String,
        /// Its format.
        format: Format,
        /// Why not.
        source: Box<SessionError>,
    },
    /// The measurements can't be kept.
    #[error(transparent)]
    Store(#[from] Box<LinesError>),
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The formats beside dense f32.
    pub formats: Vec<Format>,
    /// The sparsities, 0 to 1.
    pub sparsities: Vec<f64>,
    /// The backend's name.
    pub backend: String,
    /// Its threads.
    pub threads: usize,
    /// Images of a run.
    pub batch: usize,
    /// Time for one layer at one sparsity.
    pub budget_ms: u32,
    /// The fingerprint of the machine.
    pub hw: String,
}

/// A format in which a layer can't run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The layer.
    pub shape: String,
    /// The format.
    pub format: Format,
    /// Why not.
    pub reason: String,
}

/// What a run brought, beside measurements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Layers and sparsities measured now.
    pub measured: usize,
    /// Those that had been measured before.
    pub known: usize,
    /// Formats without a kernel.
    pub unsupported: Vec<Unsupported>,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// Layers times formats that are done.
    pub done: usize,
    /// Layers times formats in all.
    pub total: usize,
    /// Share of the current one, 0 to 1.
    pub share: f64,
    /// In words.
    pub doing: &'a str,
}

/// Measures every shape in every format at every sparsity that `store` does not have yet. What is measured is
/// in the store as soon as the format of a shape is done, so that a killed run goes on from there.
///
/// # Errors
///
/// [`BreakEvenError`]; a format that no kernel executes is none, but told in the [`Outcome`].
pub fn measure(
    shapes: &[NamedShape],
    settings: &Settings,
    cache: &mut TuneCache,
    store: &mut Measurements,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Outcome, BreakEvenError> {
    let system = backend(&settings.backend, settings.threads, Schedule::Static)
        .map_err(|error| BreakEvenError::Backend(Box::new(error)))?;
    let mut outcome = Outcome::default();
    let total = shapes.len() * settings.formats.len();
    let mut done = 0;
    for named in shapes {
        for &format in &settings.formats {
            let doing = format!("{}, {format}", named.shape);
            progress(Progress { done, total, share: 0.0, doing: &doing });
            let asked = sparsities_of(format, &settings.sparsities);
            let wanted = asked.len();
            let left: Vec<f64> = asked
                .into_iter()
                .filter(|sparsity| !known(store.list(), &named.shape, format, *sparsity, settings))
                .collect();
            outcome.known += wanted - left.len();
            if !left.is_empty() {
                let mut tell = |share| progress(Progress { done, total, share, doing: &doing });
                match series(&named.shape, format, &left, settings, &*system, cache, &mut tell)? {
                    Ok(measurements) => {
                        outcome.measured += measurements.len();
                        store.append(measurements).map_err(Box::new)?;
                    }
                    Err(reason) => {
                        outcome.unsupported.push(Unsupported { shape: named.shape.to_string(), format, reason });
                    }
                }
            }
            done += 1;
        }
    }
    progress(Progress { done, total, share: 0.0, doing: "done" });
    Ok(outcome)
}

fn known(list: &[Measurement], shape: &LayerShape, format: Format, sparsity: f64, settings: &Settings) -> bool {
    list.iter().any(|m| {
        m.shape == *shape
            && m.format == format
            && (m.sparsity - sparsity).abs() < 1e-9
            && m.backend == settings.backend
            && m.threads == settings.threads
            && m.batch == settings.batch
            && m.cold == shape.is_cold()
            && m.hw == settings.hw
    })
}

/// A session of one layer, and the kernel that executes it.
struct Alone {
    session: Session,
    kernel: String,
}

/// One shape in one format: dense and all sparsities together. The inner error says why the format can't be had.
fn series(
    shape: &LayerShape,
    format: Format,
    sparsities: &[f64],
    settings: &Settings,
    system: &dyn Backend,
    cache: &mut TuneCache,
    progress: &mut dyn FnMut(f64),
) -> Result<Result<Vec<Measurement>, String>, BreakEvenError> {
    let dims = shape.weight_dims().unwrap_or_default();
    let session = |weight: Weight, cache: &mut TuneCache| alone(shape, weight, settings, system, cache);
    let mut sessions = Vec::with_capacity(sparsities.len() + 1);
    for (seed, &sparsity) in (1..).zip(sparsities) {
        let weight = match random_weight(format, &dims, sparsity, seed) {
            Ok(weight) => weight,
            Err(error) => return Ok(Err(error.to_string())),
        };
        match session(weight, cache)? {
            Ok(alone) if executes(&alone.kernel, format) => sessions.push(alone),
            Ok(alone) => return Ok(Err(format!("no kernel: `{}` would run it dense", alone.kernel))),
            Err(PlanError::NoKernel { .. }) => return Ok(Err("no kernel".to_owned())),
            Err(source) => return Ok(Err(source.to_string())),
        }
    }
    let dense = match random_weight(Format::DenseF32, &dims, 0.0, 0) {
        Ok(weight) => session(weight, cache)?,
        Err(error) => return Ok(Err(error.to_string())),
    };
    sessions.push(dense.map_err(|source| BreakEvenError::Plan { shape: shape.to_string(), source: Box::new(source) })?);

    let protocol = protocol(settings.budget_ms);
    let input = ramp(sessions[0].session.input_len());
    let mut failure: Vec<Option<Box<SessionError>>> = Vec::new();
    failure.resize_with(sessions.len(), || None);
    let mut runs: Vec<Box<dyn FnMut() + '_>> = Vec::with_capacity(sessions.len());
    for (alone, failure) in sessions.iter_mut().zip(&mut failure) {
        let mut output = vec![0.0; alone.session.output_len()];
        let input = &input;
        runs.push(Box::new(move || {
            if let Err(source) = alone.session.run(input, &mut output) {
                failure.get_or_insert(Box::new(source));
            }
        }));
    }
    let evictor = shape.is_cold().then(|| Evictor::new(system)).flatten();
    let evict = evictor.as_ref().map(|evictor| || evictor.evict());
    let before = evict.as_ref().map(|evict| evict as &dyn Fn());
    let mut points: Vec<Point<'_>> = runs
        .iter_mut()
        .enumerate()
        .map(|(index, run)| Point { before, ..Point::new(index.to_string(), run) })
        .collect();
    let latencies = measure_interleaved(&mut points, &protocol, |step| {
        if let Step::Slice { round, rounds } = step.step {
            progress((f64::from(round) / f64::from(rounds.max(1))).min(1.0));
        }
    });
    drop(points);
    drop(runs);
    if let Some(source) = failure.into_iter().flatten().next() {
        return Err(BreakEvenError::Session { shape: shape.to_string(), format, source });
    }
    let (Some(dense), Some(dense_time)) = (sessions.last(), latencies.last()) else { return Ok(Ok(Vec::new())) };
    let mut measurements = Vec::with_capacity(sparsities.len());
    for ((&sparsity, alone), latency) in sparsities.iter().zip(&sessions).zip(&latencies) {
        let Some(ratio) = paired_ratio(latency, dense_time, &protocol) else {
            return Ok(Err("it took no time that the clock can tell".to_owned()));
        };
        measurements.push(Measurement {
            shape: shape.clone(),
            format,
            sparsity,
            backend: settings.backend.clone(),
            threads: settings.threads,
            batch: settings.batch,
            cold: shape.is_cold(),
            hw: settings.hw.clone(),
            kernel: alone.kernel.clone(),
            median_ns: latency.median_ns,
            dense_kernel: dense.kernel.clone(),
            dense_ns: dense_time.median_ns,
            ratio: ratio.ratio,
            ratio_low: ratio.interval.low,
            ratio_high: ratio.interval.high,
            noisy: latency.noisy || dense_time.noisy,
            weight_bytes: alone.session.residency().weight_bytes as u64,
            dense_weight_bytes: dense.session.residency().weight_bytes as u64,
        });
    }
    Ok(Ok(measurements))
}

/// Whether a kernel runs weights in this format as they are; what it would make dense first, it does not.
fn executes(kernel: &str, format: Format) -> bool {
    let named = if format == Format::DenseF32 { "dense" } else { format.name() };
    kernel.split('/').nth(2) == Some(named)
}

/// The layer as a network of its own, planned and packed. The inner error is the planner's.
fn alone(
    shape: &LayerShape,
    weight: Weight,
    settings: &Settings,
    system: &dyn Backend,
    cache: &mut TuneCache,
) -> Result<Result<Alone, PlanError>, BreakEvenError> {
    let name = || shape.to_string();
    let format = weight.format();
    let graph = shape.graph().map_err(|source| BreakEvenError::Shape { shape: name(), source: Box::new(source) })?;
    let bias = Weight::F32(ArrayD::from_elem(IxDyn(&weight.dims()[..1]), 0.125));
    let weights = BTreeMap::from([("layer.weight".to_owned(), weight), ("layer.bias".to_owned(), bias)]);
    let network = Network::new(graph, weights)
        .map_err(|source| BreakEvenError::Weight { shape: name(), source: Box::new(source) })?;
    let planner =
        Planner::new(system).policy(Policy::Measured).batch(settings.batch).cold(shape.is_cold()).cache(cache);
    let plan = match planner.plan(&network) {
        Ok(plan) => plan,
        Err(error) => return Ok(Err(error)),
    };
    let mut steps = plan.program().steps.iter();
    let kernel = steps.find(|step| ["conv2d", "linear"].contains(&step.op.operation.name()));
    let kernel = kernel.map_or_else(|| "none".to_owned(), |step| step.kernel.to_string());
    let session = Session::new(system, plan).map_err(|source| BreakEvenError::Session {
        shape: name(),
        format,
        source: Box::new(source),
    })?;
    Ok(Ok(Alone { session, kernel }))
}

/// Rounds that take about this long a point.
fn protocol(budget_ms: u32) -> Protocol {
    const ROUNDS: u32 = 8;
    let budget_ns = u64::from(budget_ms.max(1)) * 1_000_000;
    Protocol {
        rounds: ROUNDS,
        warmup_min_ns: budget_ns / 20,
        warmup_max_ns: budget_ns / 4,
        settle_ns: budget_ns / 100,
        slice_ns: budget_ns / (2 * u64::from(ROUNDS)),
        budget_ns: budget_ns * 4,
        ..Protocol::quick()
    }
}

/// Values for timed runs: neither zeros nor denormals, which some processors treat apart.
fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|index| (index % 255) as f32 / 127.0 - 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::break_even::shapes;

    fn settings(formats: &[Format]) -> Settings {
        Settings {
            formats: formats.to_vec(),
            sparsities: vec![0.5, 0.9],
            backend: "omp".into(),
            threads: 1,
            batch: 1,
            budget_ms: 8,
            hw: "test".into(),
        }
    }

    #[test]
    fn what_was_measured_is_not_measured_again_and_what_has_no_kernel_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        let shapes = shapes(&dlis_model::zoo::mobilenet_cifar10(), &["fc".to_owned()]);
        let shapes =
            if shapes.is_empty() { super::super::shapes(&dlis_model::zoo::mobilenet_cifar10(), &[]) } else { shapes };
        let shapes = &shapes[shapes.len() - 1..];
        let settings = settings(&[Format::DenseF32, Format::CsrF32, Format::FilterCsr]);
        let mut cache = TuneCache::in_memory();
        let mut shares = Vec::new();
        let mut store = Measurements::open(&path).unwrap();
        let first =
            measure(shapes, &settings, &mut cache, &mut store, &mut |progress| shares.push(progress.done)).unwrap();
        assert!(shares.is_sorted() && shares.last() == Some(&3));
        // Dense against dense is the only pair that surely has kernels; the rest is measured or told.
        let formats =
            3 - first.unsupported.iter().map(|other| other.format).collect::<std::collections::BTreeSet<_>>().len();
        assert!(formats >= 1 && first.known == 0);
        assert_eq!(first.measured, store.list().len());
        for measurement in store.list() {
            crate::lines::Line::validate(measurement).unwrap();
            assert!(executes(&measurement.kernel, measurement.format));
        }
        drop(store);
        let mut store = Measurements::open(&path).unwrap();
        let second = measure(shapes, &settings, &mut cache, &mut store, &mut |_| ()).unwrap();
        assert_eq!((second.measured, second.known), (0, first.measured));
        assert_eq!(second.unsupported, first.unsupported);
    }

    #[test]
    fn a_kernel_of_another_format_does_not_count() {
        assert!(executes("conv2d/f32/csr-f32/spmm/avx2", Format::CsrF32));
        assert!(!executes("conv2d/f32/dense/direct/avx2", Format::CsrF32));
        assert!(!executes("", Format::CsrF32));
    }
}
