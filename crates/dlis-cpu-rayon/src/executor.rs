//! The executor: numbered workers as the leaves of a tree of `rayon::join`.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use dlis_backend::{Executor, ExecutorId, Nesting, Schedule, Spin, WaitPolicy};
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::foreman::{Foreman, Region};

/// More threads than any machine this is meant for has CPUs.
const MAX_THREADS: usize = 4096;

/// Why a [`RayonExecutor`] could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Too many threads.
    #[error("threads: an executor has at most {MAX_THREADS} threads, not {0}")]
    TooManyThreads(usize),
    /// The threads could not be started.
    #[error("threads: rayon could not start the pool")]
    Pool(#[from] ThreadPoolBuildError),
}

/// A private rayon pool of one thread less than the executor has, and the thread that calls `for_each`.
///
/// A loop becomes one task for each worker that gets a share, forked by `rayon::join`; rayon decides
/// which thread runs which. The worker index is that of the task, so [`Schedule::Static`] gives a
/// worker the same iterations each time but not the same thread. Dynamic and guided schedules hand
/// out chunks through one counter.
///
/// A job that comes from outside a pool goes through rayon's injector queue, which allocates every 63
/// jobs, and its caller sleeps until the pool is done. Instead one thread of the pool, the foreman,
/// is always inside it: it takes each loop from the caller and forks it from there, which allocates
/// nothing, while the caller does its own share.
///
/// The caller and the foreman poll for each other as the threads of `omp` do ([`WaitPolicy`]); those that rayon forks to
/// wait as rayon's do. Calls from several threads at once take turns. An executor of one thread has no pool.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use dlis_backend::{Executor, Schedule};
/// use dlis_cpu_rayon::RayonExecutor;
///
/// let executor = RayonExecutor::new(NonZeroUsize::new(2).unwrap())?;
/// let sum = AtomicUsize::new(0);
/// executor.for_each(100, Schedule::Static, &|_worker, range| {
///     sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 4950);
/// # Ok::<(), dlis_cpu_rayon::BuildError>(())
/// ```
#[derive(Debug)]
pub struct RayonExecutor {
    id: ExecutorId,
    threads: NonZeroUsize,
    /// Held by the one caller whose region is running.
    region: Mutex<()>,
    crew: Option<Crew>,
}

/// Its threads end some time after it is dropped, when the foreman has left.
#[derive(Debug)]
struct Crew {
    foreman: Arc<Foreman>,
    _pool: ThreadPool,
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.foreman.dismiss();
    }
}

impl RayonExecutor {
    /// An executor of `threads` workers, the calling thread among them.
    ///
    /// # Errors
    ///
    /// If the threads are too many or cannot be started.
    pub fn new(threads: NonZeroUsize) -> Result<Self, BuildError> {
        if threads.get() > MAX_THREADS {
            return Err(BuildError::TooManyThreads(threads.get()));
        }
        let crew = match threads.get() - 1 {
            0 => None,
            others => {
                let pool = ThreadPoolBuilder::new()
                    .num_threads(others)
                    .thread_name(|i| format!("dlis-rayon-{}", i + 1))
                    .build()?;
                // What a thread allocates when it first looks for work to steal, it allocates now.
                pool.broadcast(|_| rayon::yield_now());
                let foreman = Arc::new(Foreman::new(Spin::new(WaitPolicy::default(), threads.get())));
                let resident = Arc::clone(&foreman);
                pool.spawn(move || resident.serve());
                Some(Crew { foreman, _pool: pool })
            }
        };
        Ok(Self { id: ExecutorId::new(), threads, region: Mutex::new(()), crew })
    }
}

// SAFETY: the `Dealer` of the foreman deals each index to one worker once. Worker 0 is the caller, and
// each other index is one leaf of one tree of joins, in one region at a time because of the lock.
// `Foreman::run` returns when the tree is finished and the caller has acquired that.
#[expect(unsafe_code, reason = "the contract of Executor is what this type upholds")]
unsafe impl Executor for RayonExecutor {
    fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    fn for_each(&self, n: usize, schedule: Schedule, body: &(dyn Fn(usize, Range<usize>) + Sync)) {
        let nesting = Nesting::enter(self.id);
        let threads = self.threads.get();
        match (schedule.busy_workers(n, threads), &self.crew) {
            (0, _) => {}
            (1, _) | (_, None) => {
                let _scope = nesting.scope();
                body(0, 0..n);
            }
            (busy, Some(crew)) => {
                let region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
                let outcome = crew.foreman.run(body, Region { n, schedule, threads, busy, nesting });
                drop(region);
                if let Err(payload) = outcome {
                    resume_unwind(payload);
                }
            }
        }
    }
}
