//! The team: its threads, and the parallel loop over them.

mod builder;
mod slot;

use std::any::Any;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use core_affinity::CoreId;
use dlis_backend::{Dealer, Executor, ExecutorId, Nesting, Schedule, Spin};

pub use builder::{TeamBuilder, TeamError};

use slot::{Bell, Job, Padded, Slot, wake_late_sleepers};

type Payload = Box<dyn Any + Send>;

/// An OpenMP-style team of threads: the thread that calls `for_each`, and persistent workers.
///
/// Calls from several threads at once take turns. A team of one thread spawns none.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use dlis_backend::{Executor, Schedule};
/// use dlis_cpu_omp::Team;
///
/// let team = Team::builder().threads(NonZeroUsize::new(2).unwrap()).build()?;
/// let sum = AtomicUsize::new(0);
/// team.for_each(100, Schedule::Guided(NonZeroUsize::MIN), &|_worker, range| {
///     sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 4950);
/// # Ok::<(), dlis_cpu_omp::TeamError>(())
/// ```
pub struct Team {
    id: ExecutorId,
    threads: NonZeroUsize,
    caller_cpu: Option<CoreId>,
    /// Held by the one caller whose region is running.
    region: Mutex<()>,
    shared: Arc<Shared>,
    /// Worker `i + 1`, in the order of `shared.slots`.
    workers: Vec<JoinHandle<()>>,
}

/// What the workers hold on to.
struct Shared {
    slots: Box<[Slot]>,
    dealer: Padded<Dealer>,
    spin: Spin,
    bell: Bell,
    has_panicked: AtomicBool,
    payload: Mutex<Option<Payload>>,
}

impl Team {
    /// A builder with one thread, no pinning and the default waiting.
    pub fn builder() -> TeamBuilder {
        TeamBuilder::default()
    }

    /// Pins the calling thread to the CPU that was kept for worker 0; does nothing for a team built
    /// with [`Pinning::None`](crate::Pinning::None).
    ///
    /// Threads that the calling thread starts later inherit this.
    ///
    /// # Errors
    ///
    /// [`TeamError::Pin`] if the operating system refuses.
    pub fn pin_caller(&self) -> Result<(), TeamError> {
        match self.caller_cpu {
            Some(core) if !core_affinity::set_for_current(core) => Err(TeamError::Pin { worker: 0, cpu: core.id }),
            _ => Ok(()),
        }
    }

    /// Runs a region of which `busy` workers get a share.
    fn run_region(&self, job: Job, busy: usize) {
        let region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        if job.schedule.is_dynamic() {
            shared.dealer.0.reset();
        }
        let called = shared.slots[..busy - 1].iter().zip(self.workers.iter().map(JoinHandle::thread));
        for (slot, worker) in called.clone() {
            #[expect(unsafe_code, reason = "the hand-over is what this module is for")]
            // SAFETY: the lock on `region` makes callers take turns, and nothing from here to the
            // joins below returns or unwinds: the bodies run inside `catch_unwind`.
            unsafe {
                slot.fork(job, worker);
            }
        }
        shared.work(&job, 0, self.threads);
        wake_late_sleepers(called.clone());
        for (slot, _) in called {
            slot.join(&shared.spin, &shared.bell);
        }
        let payload = shared.take_payload();
        drop(region);
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }
}

// SAFETY: the `Dealer`, reset while no worker is called, deals each index to one worker once. Worker
// indices are positions in `slots` plus one and the caller's 0, each used by one thread, in one region
// at a time. `run_region` returns or unwinds after all called workers were joined with acquire
// semantics; the other workers do not touch the body. Loops of one busy worker run in the caller alone.
#[expect(unsafe_code, reason = "the contract of Executor is what this module upholds")]
unsafe impl Executor for Team {
    fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    fn for_each(&self, n: usize, schedule: Schedule, body: &(dyn Fn(usize, Range<usize>) + Sync)) {
        let nesting = Nesting::enter(self.id);
        match schedule.busy_workers(n, self.threads.get()) {
            0 => {}
            1 => {
                let _scope = nesting.scope();
                body(0, 0..n);
            }
            busy => self.run_region(Job::new(body, n, schedule, nesting), busy),
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team")
            .field("threads", &self.threads)
            .field("caller_cpu", &self.caller_cpu)
            .field("spin", &self.shared.spin)
            .finish_non_exhaustive()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        for (slot, worker) in self.shared.slots.iter().zip(&self.workers) {
            slot.exit(worker.thread());
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its bodies, so there is no other to pass on here.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The share of one worker in a region. Keeps the payload of a panic for the caller.
    fn work(&self, job: &Job, worker: usize, threads: NonZeroUsize) {
        let _scope = job.nesting.scope();
        #[expect(unsafe_code, reason = "the hand-over is what this module is for")]
        // SAFETY: the caller of `for_each` borrows the body and is waiting for this worker, or is it.
        let body = unsafe { &*job.body };
        // Unwind safety: the caller gets to see the panic, and this team's own state is not touched.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.dealer.0.deal(job.n, job.schedule, threads.get(), worker, |range| body(worker, range));
        }));
        if let Err(payload) = outcome {
            self.keep_payload(payload);
        }
    }

    /// The life of the thread behind worker `index + 1`.
    fn serve(&self, index: usize, threads: NonZeroUsize) {
        let slot = &self.slots[index];
        let mut epoch = 0;
        while let Some(job) = slot.next_job(&mut epoch, &self.spin) {
            self.work(&job, index + 1, threads);
            slot.finish(epoch, &self.bell);
        }
    }

    #[cold]
    fn keep_payload(&self, payload: Payload) {
        let mut first = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(payload);
        } else {
            // Dropping it could panic again, and leave the caller waiting for this worker for ever.
            std::mem::forget(payload);
        }
        // Published to the caller by `finish`.
        self.has_panicked.store(true, Ordering::Relaxed);
    }

    fn take_payload(&self) -> Option<Payload> {
        if !self.has_panicked.load(Ordering::Relaxed) {
            return None;
        }
        self.has_panicked.store(false, Ordering::Relaxed);
        self.payload.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
