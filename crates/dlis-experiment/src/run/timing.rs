//! Latencies of sessions that take turns.

use dlis_eval::latency::{Latency, Point, Protocol, Step, measure_interleaved};
use dlis_runtime::{Session, TuneCache};

use super::{RunError, load, plan};
use crate::catalogue::Catalogue;
use crate::{Experiment, StackPoint};

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

/// Times sessions in the same rounds; `progress` is told the share that is done, 0 to 1.
pub(super) fn latencies(
    sessions: &mut [(&StackPoint, &mut Session)],
    input: &[f32],
    protocol: &Protocol,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Latency>, RunError> {
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
    pub latency: Latency,
    /// Multiply-accumulates of one run.
    pub macs: u64,
}

impl Timing {
    /// Two operations a multiply-accumulate, over the median.
    pub fn flops_per_s(&self) -> f64 {
        2.0 * self.macs as f64 * 1e9 / self.latency.median_ns.max(1.0)
    }
}

/// Times the points of one [group](super::groups()) in the same rounds.
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
pub(super) fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|index| (index % 255) as f32 / 127.0 - 1.0).collect()
}
