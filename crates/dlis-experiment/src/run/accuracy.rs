//! Accuracy of a plan, on host threads each of the machine's threads on its own share of the images.
//!
//! One thread a session rather than all threads on one image: nothing waits for anything, so the time is
//! divided by the threads even where they are not alone on the machine. The result is the same, as the
//! bits of an output do not depend on threads.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlis_backend::{Schedule, static_range};
use dlis_eval::accuracy::{Accuracy, TopK, evaluate};
use dlis_eval::dataset::{Dataset, Normalization};
use dlis_runtime::{Plan, Session, SessionError};

use crate::catalogue::{backend, runs_on_threads};

/// Sessions at once, at most: each has the weights once more.
const MAX_SESSIONS: usize = 16;
/// How often progress is told.
const POLL: Duration = Duration::from_millis(50);

/// Why the accuracy could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccuracyError {
    /// A session could not be made or run.
    #[error(transparent)]
    Session(SessionError),
    /// The dataset or the backend.
    #[error("{0}")]
    Other(String),
}

/// The backend that plans for host threads are run on, whichever they were made for: all compute the same bits.
pub(crate) const HOST: &str = "rayon";

/// Classifies all images of `dataset`, by sessions on the backend called `system`: one for each of `threads`, or one
/// alone where the backend is a device; `progress` is told the share done, 0 to 1.
pub(crate) fn classify(
    plan: &Plan,
    dataset: &Dataset,
    (system, threads): (&str, usize),
    progress: &mut dyn FnMut(f64),
) -> Result<TopK, AccuracyError> {
    let threads = if runs_on_threads(system) { threads.clamp(1, MAX_SESSIONS).min(dataset.len().max(1)) } else { 1 };
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let done = &done;
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let range = static_range(dataset.len(), threads, worker);
                scope.spawn(move || share(plan, dataset, system, range, done))
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(POLL);
            progress(done.load(Ordering::Relaxed) as f64 / dataset.len().max(1) as f64);
        }
        let mut total = TopK::default();
        for worker in workers {
            let counted = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            total.images += counted.images;
            total.top1 += counted.top1;
            total.top5 += counted.top5;
        }
        Ok(total)
    })
}

/// Classifies the images of one range on the calling thread.
fn share(
    plan: &Plan,
    dataset: &Dataset,
    system: &str,
    range: Range<usize>,
    done: &AtomicUsize,
) -> Result<TopK, AccuracyError> {
    let other = |error: &dyn std::error::Error| AccuracyError::Other(error.to_string());
    let indices: Vec<usize> = range.collect();
    let images = dataset.select(dataset.name(), &indices).map_err(|error| other(&error))?;
    let system = backend(system, 1, Schedule::Static).map_err(|error| other(&error))?;
    let mut session = Session::new(&*system, plan.clone()).map_err(AccuracyError::Session)?;
    let (mut input, mut output) = (vec![0.0; session.input_len()], vec![0.0; session.output_len()]);
    let mut failure = None;
    let mut before = 0;
    let measured = evaluate(
        &images,
        session.batch(),
        &Normalization::CIFAR10,
        |images, logits| {
            // The last batch may be smaller: the rest of the input is what it was.
            input[..images.len()].copy_from_slice(images);
            if let Err(error) = session.run(&input, &mut output) {
                failure.get_or_insert(error);
            }
            logits.copy_from_slice(&output[..logits.len()]);
            Ok::<(), Infallible>(())
        },
        |now, _| {
            done.fetch_add(now - before, Ordering::Relaxed);
            before = now;
        },
    );
    match failure {
        Some(failure) => Err(AccuracyError::Session(failure)),
        None => measured.map(counts).map_err(|error| other(&error)),
    }
}

/// The counts behind the fractions.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounds to a count of images")]
fn counts(accuracy: Accuracy) -> TopK {
    let count = |fraction: f64| (fraction * accuracy.images as f64).round() as u64;
    TopK { images: accuracy.images, top1: count(accuracy.top1), top5: count(accuracy.top5) }
}
