//! Traces and profiles of real sessions.

mod support;

use dlis_backend::Backend;
use dlis_runtime::{Session, chrome_trace};
use serde_json::Value;
use support::{omp, plan, rayon, small, values};

const RUNS: usize = 5;

fn session(backend: &dyn Backend) -> Session {
    Session::new(backend, plan(&small(10), backend, "heuristic", 2)).unwrap()
}

#[test]
fn a_trace_has_every_step_of_every_run_one_after_another() {
    for backend in [omp(2), rayon(2)] {
        let mut session = session(&backend);
        let input = values(session.input_len(), 0);
        let events = session.trace(&input, RUNS).unwrap();
        let text = chrome_trace("small", &events).to_string();
        let trace: Value = serde_json::from_str(&text).unwrap();
        let of = |phase: &str| -> Vec<&Value> {
            trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == phase).collect()
        };
        assert_eq!(of("M").len(), 1);
        let complete = of("X");
        let steps = &session.program().steps;
        assert_eq!(complete.len(), RUNS * steps.len());
        let mut end = 0.0;
        for (index, event) in complete.iter().enumerate() {
            let step = &steps[index % steps.len()];
            assert_eq!(event["args"]["run"], index / steps.len());
            assert_eq!(event["name"], step.layer);
            assert_eq!(event["args"]["kernel"], step.kernel.to_string());
            assert_eq!(event["args"]["macs"], step.op.macs());
            let (start, duration) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            assert!(duration > 0.0, "{event}");
            // Nanoseconds as fractions of microseconds, which sums do not hold exactly.
            assert!(start >= end - 1e-6, "{event} starts before {end}");
            end = start + duration;
        }
    }
}

#[test]
fn a_trace_of_no_runs_is_empty() {
    let mut session = session(&omp(1));
    let input = values(session.input_len(), 0);
    assert_eq!(session.trace(&input, 0).unwrap(), []);
}

#[test]
fn a_profile_has_every_step_once() {
    let backend = omp(1);
    let mut session = session(&backend);
    let input = values(session.input_len(), 0);
    // No run has no median, so that there is always one.
    for runs in [0, 1, 4] {
        let profile = session.profile(&input, runs).unwrap();
        let steps = &session.program().steps;
        assert_eq!(profile.len(), steps.len());
        for (time, step) in profile.iter().zip(steps) {
            assert_eq!((&time.layer, &time.kernel), (&step.layer, &step.kernel.to_string()));
            assert_eq!((time.op.clone(), time.macs), (step.op.to_string(), step.op.macs()));
            assert!(time.median_ns > 0 && time.bytes >= step.op.activation_bytes(), "{time:?}");
        }
        let weights: u64 = profile.iter().zip(steps).map(|(time, step)| time.bytes - step.op.activation_bytes()).sum();
        assert_eq!(weights, session.residency().weight_bytes as u64);
    }
}
