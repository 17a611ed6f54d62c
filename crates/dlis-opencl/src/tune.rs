//! Which configuration of a kernel is the fastest on a device: asked of the device itself, once, and kept beside the
//! compiled programs.
//!
//! `DLIS_OPENCL_TUNE` says what may be done: by default what was found before is used and nothing is searched, so
//! that a first compilation takes no longer than it must; with `1` what was not found before is searched; with `0` the
//! kernels' own defaults are used, whatever was found.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use dlis_backend::KernelId;

use crate::device::{Launch, Queue, cache};
use crate::error::OpenClError;
use crate::kernel::{Stage, Staged};

/// Name of the file in the cache folder: a JSON object of texts.
const FILE: &str = "tuned.json";
/// How often each candidate runs; the least time counts.
const RUNS: usize = 7;

/// Winners by device, kernel and operation.
type Found = BTreeMap<String, String>;

/// What `DLIS_OPENCL_TUNE` allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tuning {
    Defaults,
    Kept,
    Search,
}

impl Tuning {
    fn of_environment() -> Self {
        match std::env::var("DLIS_OPENCL_TUNE").as_deref() {
            Ok("0") => Self::Defaults,
            Ok("1") => Self::Search,
            _ => Self::Kept,
        }
    }
}

/// Stages an operation in the fastest of several configurations, of which the first is the default. A configuration
/// is known by its text; one that the device refuses is passed over. `stage_as` stages one of them over the
/// operation's own tensors and scratch, which must suffice for each.
///
/// # Errors
///
/// That of the first candidate, if the device refuses all that may be tried.
pub(crate) fn fastest<C: Display>(
    stage: &Stage<'_>,
    kernel: &KernelId,
    candidates: &[C],
    mut stage_as: impl FnMut(&C) -> Result<Staged, OpenClError>,
) -> Result<Staged, OpenClError> {
    // One at a time: two searches would disturb each other.
    static FOUND: Mutex<()> = Mutex::new(());
    let default = candidates.first().expect("a kernel has a default configuration");
    let tuning = Tuning::of_environment();
    if tuning == Tuning::Defaults || candidates.len() == 1 {
        return stage_as(default);
    }
    let _guard = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let info = stage.device.info();
    let key = format!("{}, {}: {kernel} {:?}", info.name, info.driver, stage.op);
    let mut found = read();
    if let Some(winner) = found.get(&key).and_then(|text| candidates.iter().find(|c| c.to_string() == *text)) {
        return stage_as(winner);
    }
    if tuning == Tuning::Kept {
        return stage_as(default);
    }
    let queue = stage.device.queue()?;
    let mut best: Option<(u64, &C, Staged)> = None;
    let mut refused = None;
    for candidate in candidates {
        let least = best.as_ref().map_or(u64::MAX, |best| best.0);
        let timed = stage_as(candidate).and_then(|staged| Ok((time(&queue, &staged.launches, least)?, staged)));
        match timed {
            Ok((ns, staged)) => {
                tracing::debug!(%kernel, %candidate, ns, "timed");
                if ns < least {
                    best = Some((ns, candidate, staged));
                }
            }
            Err(error) => {
                tracing::debug!(%kernel, %candidate, %error, "passed over");
                refused = refused.or(Some(error));
            }
        }
    }
    let Some((_, winner, staged)) = best else {
        return Err(refused.expect("a candidate either ran or was refused"));
    };
    found.insert(key, winner.to_string());
    keep(&found);
    Ok(staged)
}

/// Least time of the launches, each for itself, so that gaps between them do not count. Gives up on what is far from
/// `least` after the first run.
fn time(queue: &Queue, launches: &[Launch], least: u64) -> Result<u64, OpenClError> {
    let mut times = vec![u64::MAX; launches.len()];
    for run in 0..=RUNS {
        let events = launches.iter().map(|launch| queue.launch_timed(launch)).collect::<Result<Vec<_>, _>>()?;
        queue.finish()?;
        // The first run also moves code and weights to where they are used.
        if run > 0 {
            for (time, event) in times.iter_mut().zip(&events) {
                let [start, end] = event.span()?;
                *time = end.saturating_sub(start).min(*time);
            }
            if times.iter().sum::<u64>() / 4 > least {
                break;
            }
        }
    }
    // Even that of no launches is less than that of no candidate.
    Ok(times.iter().sum::<u64>().min(u64::MAX - 1))
}

fn read() -> Found {
    cache::read(FILE).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// What cannot be kept is searched again the next time.
fn keep(found: &Found) {
    let written =
        serde_json::to_vec_pretty(found).map_err(std::io::Error::from).and_then(|text| cache::write(FILE, &text));
    if let Err(error) = written {
        tracing::debug!(%error, "a tuning result is not kept");
    }
}
