//! The task that stays inside the pool, takes regions from callers outside and forks them there.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use dlis_backend::{Dealer, Nesting, Schedule, Spin};

type Body<'a> = dyn Fn(usize, Range<usize>) + Sync + 'a;
type Payload = Box<dyn Any + Send>;

/// A parallel loop, but for its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) n: usize,
    pub(crate) schedule: Schedule,
    pub(crate) threads: usize,
    /// The workers that get a share: at least 2.
    pub(crate) busy: usize,
    pub(crate) nesting: Nesting,
}

#[derive(Clone, Copy, Debug)]
struct Task {
    /// Borrowed from the caller of [`Foreman::run`], which does not return before the task is done.
    body: *const Body<'static>,
    region: Region,
}

// SAFETY: a `Task` is plain data but for the body, which is `Sync` and thus usable from any thread; that
// it is alive is argued where it is used.
#[expect(unsafe_code, reason = "the foreman lives longer than the bodies it is handed")]
unsafe impl Send for Task {}

/// Both sides look at `called` and `finished` for a while without the lock, then sleep.
#[derive(Debug)]
pub(crate) struct Foreman {
    /// How many regions were begun; changes under the lock only.
    called: AtomicU32,
    /// How many regions the foreman has finished; changes under the lock only.
    finished: AtomicU32,
    desk: Mutex<Desk>,
    call: Condvar,
    finish: Condvar,
    dealer: Dealer,
    payload: Mutex<Option<Payload>>,
    spin: Spin,
}

#[derive(Debug)]
struct Desk {
    task: Option<Task>,
    dismissed: bool,
    foreman_sleeps: bool,
    caller_sleeps: bool,
}

impl Foreman {
    pub(crate) fn new(spin: Spin) -> Self {
        Self {
            spin,
            called: AtomicU32::new(0),
            finished: AtomicU32::new(0),
            desk: Mutex::new(Desk { task: None, dismissed: false, foreman_sleeps: false, caller_sleeps: false }),
            call: Condvar::new(),
            finish: Condvar::new(),
            dealer: Dealer::new(),
            payload: Mutex::new(None),
        }
    }

    /// Runs a region, the share of worker 0 on the calling thread; callers take turns.
    ///
    /// The error is the payload of one of the bodies that panicked.
    pub(crate) fn run(&self, body: &Body<'_>, region: Region) -> thread::Result<()> {
        if region.schedule.is_dynamic() {
            self.dealer.reset();
        }
        #[expect(unsafe_code, reason = "the foreman lives longer than the bodies it is handed")]
        // SAFETY: the types differ in the lifetime only, of which a raw pointer claims nothing. The
        // pointer is used by the foreman and what it forks before it counts the region as finished;
        // this function waits for that, and cannot unwind before, as `share` catches panics.
        let erased = unsafe { std::mem::transmute::<*const Body<'_>, *const Body<'static>>(body) };
        let mut desk = self.lock();
        desk.task = Some(Task { body: erased, region });
        let call = self.called.load(Ordering::Relaxed).wrapping_add(1);
        self.called.store(call, Ordering::Release);
        let foreman_sleeps = desk.foreman_sleeps;
        drop(desk);
        if foreman_sleeps {
            self.call.notify_one();
        }

        self.share(body, &region, 0);

        let is_finished = || self.finished.load(Ordering::Acquire) == call;
        if !self.spin.until(is_finished) {
            let mut desk = self.lock();
            desk.caller_sleeps = true;
            while !is_finished() {
                desk = self.finish.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            desk.caller_sleeps = false;
        }
        match self.payload.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(payload) => Err(payload),
            None => Ok(()),
        }
    }

    /// Makes [`serve`](Self::serve) return. No region may be running.
    pub(crate) fn dismiss(&self) {
        let mut desk = self.lock();
        desk.dismissed = true;
        self.called.fetch_add(1, Ordering::Release);
        drop(desk);
        self.call.notify_one();
    }

    /// Runs on a thread of the pool until dismissed.
    pub(crate) fn serve(&self) {
        let mut last = 0;
        loop {
            let is_called = || self.called.load(Ordering::Acquire) != last;
            self.spin.until(is_called);
            let mut desk = self.lock();
            desk.foreman_sleeps = true;
            while !is_called() {
                desk = self.call.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            desk.foreman_sleeps = false;
            if desk.dismissed {
                return;
            }
            let task = desk.task.take();
            drop(desk);
            if let Some(Task { body, region }) = task {
                #[expect(unsafe_code, reason = "the foreman lives longer than the bodies it is handed")]
                // SAFETY: the caller in `run` keeps the body borrowed until `finished` says so, below.
                let body = unsafe { &*body };
                self.fork(body, &region, 1..region.busy);
            }
            last = last.wrapping_add(1);
            let desk = self.lock();
            self.finished.store(last, Ordering::Release);
            let caller_sleeps = desk.caller_sleeps;
            drop(desk);
            if caller_sleeps {
                self.finish.notify_one();
            }
        }
    }

    /// The shares of several workers, as a tree of tasks of the pool.
    fn fork(&self, body: &Body<'_>, region: &Region, workers: Range<usize>) {
        if workers.len() == 1 {
            self.share(body, region, workers.start);
        } else {
            let middle = workers.start + workers.len() / 2;
            rayon::join(
                || self.fork(body, region, workers.start..middle),
                || self.fork(body, region, middle..workers.end),
            );
        }
    }

    /// The share of one worker.
    fn share(&self, body: &Body<'_>, region: &Region, worker: usize) {
        let _scope = region.nesting.scope();
        // Unwind safety: the caller gets to see the panic, and no state of ours is touched.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.dealer.deal(region.n, region.schedule, region.threads, worker, |range| body(worker, range));
        }));
        if let Err(payload) = outcome {
            let mut first = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none() {
                *first = Some(payload);
            } else {
                // Dropping it could panic again, and the region would never be finished.
                std::mem::forget(payload);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
