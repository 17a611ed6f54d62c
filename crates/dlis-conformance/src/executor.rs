//! The contract of [`Executor`], promise by promise.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dlis_backend::{Executor, Schedule};

/// A promise of [`Executor`] that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{schedule}, {n} iterations on {threads} threads: {what}")]
pub struct BrokenPromise {
    schedule: Schedule,
    n: usize,
    threads: usize,
    what: String,
}

/// Trip counts around the numbers of threads and chunks that are tried.
const COUNTS: [usize; 12] = [0, 1, 2, 3, 4, 5, 7, 8, 63, 64, 65, 1000];

/// Checks what kernels rely on when they write in parallel: every iteration runs once, in ranges that are not
/// empty and within bounds; a worker is one thread at a time and below the number of threads; writes are
/// visible when the loop returns; a panic reaches the caller after all bodies have returned, and does no
/// harm to later loops; nested use is refused and does not hang.
///
/// What a test can show is that a promise is broken, not that it is kept: run it often, with each thread count
/// that the executor can be made with.
///
/// # Errors
///
/// The first [`BrokenPromise`].
///
/// ```
/// use dlis_backend::Serial;
/// dlis_conformance::prove_executor(&Serial)?;
/// # Ok::<(), dlis_conformance::BrokenPromise>(())
/// ```
pub fn prove_executor(executor: &dyn Executor) -> Result<(), BrokenPromise> {
    for schedule in schedules() {
        for n in COUNTS {
            let broken = |what: String| BrokenPromise { schedule, n, threads: executor.threads().get(), what };
            covers(executor, n, schedule).map_err(broken)?;
            if n > 0 {
                panics(executor, n, schedule).map_err(broken)?;
            }
        }
        let broken = |what: String| BrokenPromise { schedule, n: 1, threads: executor.threads().get(), what };
        refuses_nesting(executor, schedule).map_err(broken)?;
    }
    Ok(())
}

fn schedules() -> impl Iterator<Item = Schedule> {
    let chunked = |chunk| [Schedule::StaticChunk(chunk), Schedule::Dynamic(chunk), Schedule::Guided(chunk)];
    let chunks = [1, 3, 64].into_iter().filter_map(NonZeroUsize::new);
    [Schedule::Static].into_iter().chain(chunks.flat_map(chunked))
}

/// Every iteration once, workers exclusive, writes visible.
fn covers(executor: &dyn Executor, n: usize, schedule: Schedule) -> Result<(), String> {
    let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
    let busy: Vec<AtomicBool> = (0..executor.threads().get()).map(|_| AtomicBool::new(false)).collect();
    let fault = Mutex::new(None);
    let report = |what: String| drop(fault.lock().map(|mut fault| fault.get_or_insert(what).len()));
    executor.for_each(n, schedule, &|worker, range| {
        let Some(busy) = busy.get(worker) else {
            return report(format!("a body ran as worker {worker}"));
        };
        if busy.swap(true, Ordering::Relaxed) {
            report(format!("two bodies ran at once as worker {worker}"));
        }
        if range.is_empty() || range.end > n {
            report(format!("a body was given the range {range:?}"));
        }
        // Relaxed throughout: the executor's own synchronisation must make the counts visible.
        counts.get(range).into_iter().flatten().for_each(|count| _ = count.fetch_add(1, Ordering::Relaxed));
        busy.store(false, Ordering::Relaxed);
    });
    if let Some(fault) = fault.into_inner().unwrap_or_default() {
        return Err(fault);
    }
    match counts.iter().map(|count| count.load(Ordering::Relaxed)).enumerate().find(|&(_, times)| times != 1) {
        Some((index, times)) => Err(format!("iteration {index} ran {times} times")),
        None => Ok(()),
    }
}

/// A panic arrives, bodies have returned by then, and the next loop is whole.
fn panics(executor: &dyn Executor, n: usize, schedule: Schedule) -> Result<(), String> {
    let running = AtomicUsize::new(0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        executor.for_each(n, schedule, &|_, range| {
            running.fetch_add(1, Ordering::Relaxed);
            let last = range.end == n;
            running.fetch_sub(1, Ordering::Relaxed);
            if last {
                // Unlike `panic!`, prints nothing.
                std::panic::resume_unwind(Box::new(n));
            }
        });
    }));
    match result.map_err(|payload| payload.downcast_ref::<usize>().copied()) {
        Ok(()) => return Err("a panic in a body did not reach the caller".to_owned()),
        Err(payload) if payload != Some(n) => return Err("the caller was given another panic".to_owned()),
        Err(_) => {}
    }
    if running.into_inner() != 0 {
        return Err("a body was still running when the panic reached the caller".to_owned());
    }
    covers(executor, n, schedule).map_err(|what| format!("after a panic: {what}"))
}

/// A loop within a loop of the same executor panics; one worker may run it, as nothing is shared.
fn refuses_nesting(executor: &dyn Executor, schedule: Schedule) -> Result<(), String> {
    if executor.threads() == NonZeroUsize::MIN {
        return Ok(());
    }
    let accepted = AtomicBool::new(false);
    let _ = catch_unwind(AssertUnwindSafe(|| {
        executor.for_each(1, schedule, &|_, _| {
            executor.for_each(1, schedule, &|_, _| ());
            accepted.store(true, Ordering::Relaxed);
        });
    }));
    if accepted.into_inner() { Err("a nested loop was not refused".to_owned()) } else { covers(executor, 10, schedule) }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use dlis_backend::Serial;

    use super::*;

    /// How a loop of so many iterations is run.
    type Run = fn(usize, &(dyn Fn(usize, Range<usize>) + Sync));

    /// Two workers on paper, with a fault.
    #[derive(Debug)]
    struct Faulty(Run);

    // SAFETY: it is not what it promises to be, and is never given to a kernel.
    #[allow(unsafe_code, reason = "the trait can be implemented in no other way")]
    unsafe impl Executor for Faulty {
        fn threads(&self) -> NonZeroUsize {
            NonZeroUsize::MIN.saturating_add(1)
        }

        fn for_each(&self, n: usize, _: Schedule, body: &(dyn Fn(usize, Range<usize>) + Sync)) {
            if n > 0 {
                self.0(n, body);
            }
        }
    }

    fn fault(run: Run) -> String {
        prove_executor(&Faulty(run)).unwrap_err().to_string()
    }

    #[test]
    fn the_serial_executor_keeps_its_promises() {
        prove_executor(&Serial).unwrap();
    }

    #[test]
    fn every_fault_is_found() {
        assert!(fault(|n, body| (1..n).for_each(|i| body(0, i..i + 1))).contains("iteration 0 ran 0 times"));
        assert!(fault(|n, body| (0..2).for_each(|_| body(0, 0..n))).contains("ran 2 times"));
        assert!(fault(|n, body| body(2, 0..n)).contains("worker 2"));
        assert!(fault(|n, body| body(0, 0..n + 1)).contains("range"));
        assert!(fault(|n, body| drop(catch_unwind(AssertUnwindSafe(|| body(0, 0..n))))).contains("did not reach"));
        assert!(fault(|n, body| body(0, 0..n)).contains("not refused"));
    }
}
