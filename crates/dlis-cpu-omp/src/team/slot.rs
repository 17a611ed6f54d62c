//! The hand-over between the caller and one worker. README.md in this folder has the whole argument.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, Thread};

use dlis_backend::{Nesting, Schedule, Spin};

/// Keeps its content on cache lines of its own: two, since prefetchers fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

/// One parallel loop, as a worker gets to see it.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// Borrowed from the caller of `for_each`, who does not return before every worker is done.
    pub(super) body: *const (dyn Fn(usize, Range<usize>) + Sync),
    pub(super) n: usize,
    pub(super) schedule: Schedule,
    pub(super) nesting: Nesting,
}

impl Job {
    pub(super) fn new(
        body: &(dyn Fn(usize, Range<usize>) + Sync),
        n: usize,
        schedule: Schedule,
        nesting: Nesting,
    ) -> Self {
        let body: *const (dyn Fn(usize, Range<usize>) + Sync + '_) = body;
        #[expect(unsafe_code, reason = "the hand-over is what this module is for")]
        // SAFETY: the two types differ in the lifetime of what is pointed to only, which a raw pointer
        // makes no claim about; `Slot::fork` asks for what is needed to use it.
        let body = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize, Range<usize>) + Sync + '_),
                *const (dyn Fn(usize, Range<usize>) + Sync + 'static),
            >(body)
        };
        Self { body, n, schedule, nesting }
    }
}

/// An epoch that no region has: those are even.
const EXIT: u32 = 1;
/// Set in [`Slot::done`] by a caller that sleeps until the worker is done.
const WAITING: u32 = 1;
const STEP: u32 = 2;

/// Written by the caller, polled by the worker; one cache line, so that a worker that sees its epoch
/// has the job as well.
struct Fork {
    /// The epoch of the last region this worker was called to.
    go: AtomicU32,
    /// Whether the worker sleeps, or is about to.
    parked: AtomicBool,
    job: UnsafeCell<MaybeUninit<Job>>,
}

const _: () = assert!(size_of::<Fork>() <= 64);

/// The meeting place of the caller and one worker.
pub(super) struct Slot {
    fork: Padded<Fork>,
    /// The epoch of the last region this worker has finished, and [`WAITING`].
    done: Padded<AtomicU32>,
}

// SAFETY: `job` is the only field that is not `Sync`. It is written in `fork`, whose contract keeps
// the worker out meanwhile, and read in `next_job` once that write was published through `go`. What
// it points to is `Sync` and alive for that long by the contract of `fork`.
#[expect(unsafe_code, reason = "the hand-over is what this module is for")]
unsafe impl Sync for Slot {}
// SAFETY: a `Job` is a pointer to a `Sync` body and plain data; no part is tied to a thread.
#[expect(unsafe_code, reason = "the hand-over is what this module is for")]
unsafe impl Send for Slot {}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("go", &self.fork.0.go).field("done", &self.done.0).finish_non_exhaustive()
    }
}

impl Slot {
    pub(super) fn new() -> Self {
        let job = UnsafeCell::new(MaybeUninit::uninit());
        Self {
            fork: Padded(Fork { go: AtomicU32::new(0), parked: AtomicBool::new(false), job }),
            done: Padded(AtomicU32::new(0)),
        }
    }

    /// Caller: hands the worker a job. A worker that has just fallen asleep may miss it until
    /// [`wake_late_sleepers`] has run.
    ///
    /// # Safety
    ///
    /// Callers take turns, each joins the worker before the next forks, and the job's body outlives
    /// that [`join`](Self::join).
    #[expect(unsafe_code, reason = "the hand-over is what this module is for")]
    pub(super) unsafe fn fork(&self, job: Job, worker: &Thread) {
        let Fork { go, parked, job: place } = &self.fork.0;
        // SAFETY: the worker reads `job` only between seeing a new epoch in `go` and storing it in
        // `done`. The last caller has seen that store (`join`), so the worker is not reading.
        unsafe { (*place.get()).write(job) };
        // Release: the worker that acquires the epoch sees the job, and what the caller wrote before.
        go.store(go.load(Ordering::Relaxed).wrapping_add(STEP), Ordering::Release);
        if parked.load(Ordering::Relaxed) {
            worker.unpark();
        }
    }

    /// Caller: tells the worker to end. No region may be running.
    pub(super) fn exit(&self, worker: &Thread) {
        self.fork.0.go.store(EXIT, Ordering::Release);
        // The worker may be going to sleep at this moment; a token for `park` reaches it all the same.
        worker.unpark();
    }

    /// Caller: whether the worker has finished the region it was last called to.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        // Acquire: pairs with `finish`, and makes the worker's writes visible.
        self.done.0.load(Ordering::Acquire) == self.fork.0.go.load(Ordering::Relaxed)
    }

    /// Caller: returns once the worker is done.
    pub(super) fn join(&self, spin: &Spin, bell: &Bell) {
        if spin.until(|| self.is_done()) {
            return;
        }
        let running = self.fork.0.go.load(Ordering::Relaxed).wrapping_sub(STEP);
        // One read-modify-write against that of `finish`: whichever comes second sees the first.
        let waiting = self.done.0.compare_exchange(running, running | WAITING, Ordering::Relaxed, Ordering::Acquire);
        if waiting.is_ok() {
            bell.wait(|| self.is_done());
        }
    }

    /// Worker: waits for the next job, sleeping when `spin` is spent. None: the team is being dropped.
    pub(super) fn next_job(&self, last: &mut u32, spin: &Spin) -> Option<Job> {
        let Fork { go, parked, job } = &self.fork.0;
        let is_new = || go.load(Ordering::Acquire) != *last;
        if !spin.until(is_new) {
            parked.store(true, Ordering::Relaxed);
            // Pairs with the fence in `wake_late_sleepers`: either that one's caller sees `parked`, or
            // the next line sees its `go`.
            fence(Ordering::SeqCst);
            while !is_new() {
                thread::park();
            }
            parked.store(false, Ordering::Relaxed);
        }
        *last = go.load(Ordering::Relaxed);
        if *last == EXIT {
            return None;
        }
        #[expect(unsafe_code, reason = "the hand-over is what this module is for")]
        // SAFETY: `go` was acquired with an epoch that `fork` released after it had written the job,
        // and `fork` writes no other before this worker has stored that epoch in `done`.
        let job = unsafe { (*job.get()).assume_init() };
        Some(job)
    }

    /// Worker: tells the caller that the region `epoch` is finished.
    pub(super) fn finish(&self, epoch: u32, bell: &Bell) {
        // Release: the caller sees all that the body wrote.
        if self.done.0.swap(epoch, Ordering::Release) & WAITING != 0 {
            bell.ring();
        }
    }
}

/// Caller, after forking and its own share of the work: wakes the workers that were falling asleep
/// while they were called.
///
/// The fence this takes would cost as much as the rest of the fork, so it is paid only when there is
/// somebody left to wait for.
#[inline]
pub(super) fn wake_late_sleepers<'a>(called: impl Iterator<Item = (&'a Slot, &'a Thread)> + Clone) {
    if called.clone().all(|(slot, _)| slot.is_done()) {
        return;
    }
    // Pairs with the fence in `Slot::next_job`.
    fence(Ordering::SeqCst);
    for (slot, worker) in called {
        if slot.fork.0.parked.load(Ordering::Relaxed) && !slot.is_done() {
            worker.unpark();
        }
    }
}

/// Where a caller sleeps that has waited long for a worker.
#[derive(Debug, Default)]
pub(super) struct Bell {
    lock: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    #[cold]
    fn wait(&self, ready: impl Fn() -> bool) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !ready() {
            guard = self.rung.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    #[cold]
    fn ring(&self) {
        // Held by the caller from before it looks until it sleeps, so the bell cannot ring in between.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.rung.notify_all();
    }
}
