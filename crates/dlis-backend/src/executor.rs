//! Layer 4 as one parallel loop.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the iterations of a parallel loop are dealt out to the workers.
///
/// The words and their meaning are those of the OpenMP specification (section "Worksharing-Loop
/// Construct"). Printed and parsed as `static`, `static,4`, `dynamic,1`, `guided,2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Schedule {
    /// One contiguous range a worker, of sizes that differ by at most one iteration.
    #[default]
    Static,
    /// Chunks of this size, dealt round-robin before the loop starts.
    StaticChunk(NonZeroUsize),
    /// Chunks of this size, taken by whichever worker is free.
    Dynamic(NonZeroUsize),
    /// Chunks proportional to the iterations left divided by the workers, never smaller than this
    /// size (but for the last).
    Guided(NonZeroUsize),
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static => f.write_str("static"),
            Self::StaticChunk(chunk) => write!(f, "static,{chunk}"),
            Self::Dynamic(chunk) => write!(f, "dynamic,{chunk}"),
            Self::Guided(chunk) => write!(f, "guided,{chunk}"),
        }
    }
}

/// A text that names no [`Schedule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a schedule: expected `static`, `dynamic` or `guided`, then optionally a chunk size of at least 1, as in `dynamic,4`"
)]
pub struct ParseScheduleError(String);

impl FromStr for Schedule {
    type Err = ParseScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseScheduleError(text.to_owned());
        let (kind, chunk) = match text.split_once(',') {
            Some((kind, chunk)) => (kind, Some(chunk.trim().parse::<NonZeroUsize>().map_err(|_| error())?)),
            None => (text, None),
        };
        match (kind.trim(), chunk) {
            ("static", None) => Ok(Self::Static),
            ("static", Some(chunk)) => Ok(Self::StaticChunk(chunk)),
            ("dynamic", chunk) => Ok(Self::Dynamic(chunk.unwrap_or(NonZeroUsize::MIN))),
            ("guided", chunk) => Ok(Self::Guided(chunk.unwrap_or(NonZeroUsize::MIN))),
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for Schedule {
    type Error = ParseScheduleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.to_string()
    }
}

/// Runs parallel loops on a fixed number of workers.
///
/// Kernels are handed an executor and never look for threads themselves, so a one-thread run is one
/// thread. The calling thread is worker 0 and takes part in the loop; `for_each` returns once every
/// iteration has been executed, and everything the workers wrote is then visible to the caller.
///
/// `for_each` allocates nothing once the executor has been built.
///
/// # Safety
///
/// Kernels write to disjoint parts of one buffer on the strength of this contract, so an
/// implementation must guarantee, for each call of [`for_each`](Self::for_each):
/// - every index of `0..n` is passed to `body` exactly once (at most once if a body panics), in
///   non-empty ranges within `0..n`;
/// - the worker index is below [`threads`](Self::threads), and no two calls of `body` with the same
///   worker index overlap in time;
/// - all calls have returned, and their writes are visible, when `for_each` returns or unwinds.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use dlis_backend::{Executor, Schedule, Serial};
///
/// let sum = AtomicUsize::new(0);
/// Serial.for_each(10, Schedule::Static, &|_worker, range| {
///     sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 45);
/// ```
pub unsafe trait Executor: fmt::Debug + Send + Sync {
    /// The number of workers, the calling thread among them.
    fn threads(&self) -> NonZeroUsize;

    /// Calls `body(worker, range)` until `0..n` is covered.
    ///
    /// # Panics
    ///
    /// If a body panics, one of the panics is resumed on the calling thread after all workers have
    /// stopped. Calling `for_each` from within a body of the same executor panics: nested
    /// parallelism would either deadlock or oversubscribe the machine.
    fn for_each(&self, n: usize, schedule: Schedule, body: &(dyn Fn(usize, Range<usize>) + Sync));
}

/// The executor with one worker: the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

// SAFETY: the whole range is passed once, on the calling thread, as worker 0 of 1.
unsafe impl Executor for Serial {
    fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn for_each(&self, n: usize, _schedule: Schedule, body: &(dyn Fn(usize, Range<usize>) + Sync)) {
        if n > 0 {
            body(0, 0..n);
        }
    }
}

/// The contiguous range of worker `worker` of `threads` under [`Schedule::Static`]: sizes differ by at
/// most one, the larger ranges first.
///
/// ```
/// use dlis_backend::static_range;
/// let ranges: Vec<_> = (0..3).map(|worker| static_range(7, 3, worker)).collect();
/// assert_eq!(ranges, [0..3, 3..5, 5..7]);
/// ```
pub fn static_range(n: usize, threads: usize, worker: usize) -> Range<usize> {
    let (size, extra) = (n / threads, n % threads);
    let start = worker * size + worker.min(extra);
    start..start + size + usize::from(worker < extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_round_trip_through_text() {
        for text in ["static", "static,4", "dynamic,1", "guided,2"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        assert_eq!("dynamic".parse(), Ok(Schedule::Dynamic(NonZeroUsize::MIN)));
        for text in ["", "static,0", "dynamic,", "guided,-1", "auto", "static,4,4"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    #[test]
    fn static_ranges_tile_the_iterations() {
        for (n, threads) in [(0, 3), (1, 3), (7, 3), (9, 3), (5, 8)] {
            let mut next = 0;
            for worker in 0..threads {
                let range = static_range(n, threads, worker);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, n);
        }
    }
}
