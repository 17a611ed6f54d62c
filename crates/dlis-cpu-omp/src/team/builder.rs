//! Building a team.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use dlis_backend::{ExecutorId, Spin, WaitPolicy};

use super::slot::{Bell, Slot};
use super::{Shared, Team};
use crate::pinning::Pinning;

/// More threads than any machine this is meant for has CPUs.
const MAX_THREADS: usize = 4096;

/// Why a [`Team`] could not be built or pinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeamError {
    /// Too many threads.
    #[error("threads: a team has at most {MAX_THREADS} threads, not {0}")]
    TooManyThreads(usize),
    /// The operating system does not tell which CPUs there are.
    #[error("pinning: the CPUs this process may run on could not be determined; build the team without pinning")]
    UnknownCpus,
    /// A list of CPUs that does not fit the team.
    #[error("pinning: expected one CPU for each of the {threads} threads, got {cpus}")]
    CpuCount {
        /// The threads of the team, the caller included.
        threads: usize,
        /// The length of the list.
        cpus: usize,
    },
    /// A CPU that this process may not run on.
    #[error("pinning: CPU {cpu} is not among those this process may run on: {allowed:?}")]
    CpuNotAllowed {
        /// The CPU asked for.
        cpu: usize,
        /// The CPUs allowed.
        allowed: Vec<usize>,
    },
    /// The operating system refused to pin a thread.
    #[error("pinning: the operating system refused to pin worker {worker} to CPU {cpu}")]
    Pin {
        /// Its index, 0 for the calling thread.
        worker: usize,
        /// The CPU it was to be pinned to.
        cpu: usize,
    },
    /// The operating system refused to start a thread.
    #[error("threads: worker {worker} could not be started")]
    Spawn {
        /// Its index.
        worker: usize,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Settings of a [`Team`] to be built; see [`Team::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct TeamBuilder {
    threads: NonZeroUsize,
    pinning: Pinning,
    wait: WaitPolicy,
}

impl Default for TeamBuilder {
    fn default() -> Self {
        Self { threads: NonZeroUsize::MIN, pinning: Pinning::None, wait: WaitPolicy::default() }
    }
}

impl TeamBuilder {
    /// The number of workers, the calling thread included; 1 by default.
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads;
        self
    }

    /// Which CPU each worker stays on; none in particular by default.
    pub fn pinning(mut self, pinning: Pinning) -> Self {
        self.pinning = pinning;
        self
    }

    /// How long threads poll before they sleep.
    pub fn wait(mut self, wait: WaitPolicy) -> Self {
        self.wait = wait;
        self
    }

    /// Starts the threads and waits until each is where it belongs.
    ///
    /// # Errors
    ///
    /// If the threads are too many or cannot be started, or the pinning is not possible.
    pub fn build(self) -> Result<Team, TeamError> {
        let threads = self.threads.get();
        if threads > MAX_THREADS {
            return Err(TeamError::TooManyThreads(threads));
        }
        let cpus = self.pinning.resolve(threads)?;
        let shared = Arc::new(Shared {
            slots: (1..threads).map(|_| Slot::new()).collect(),
            dealer: Default::default(),
            spin: Spin::new(self.wait, threads),
            bell: Bell::default(),
            has_panicked: AtomicBool::new(false),
            payload: Mutex::new(None),
        });
        // Dropped on an error, it ends the threads that were started.
        let mut team = Team {
            id: ExecutorId::new(),
            threads: self.threads,
            caller_cpu: cpus.as_ref().map(|cpus| cpus[0]),
            region: Mutex::new(()),
            shared,
            workers: Vec::with_capacity(threads - 1),
        };
        let (report, reports) = mpsc::channel();
        for worker in 1..threads {
            let core = cpus.as_ref().map(|cpus| cpus[worker]);
            let (shared, report) = (Arc::clone(&team.shared), report.clone());
            let serve = move || {
                let refused = core.filter(|&core| !core_affinity::set_for_current(core));
                // The receiver outlives this unless the build failed on another thread.
                let _ = report.send(refused.map(|core| TeamError::Pin { worker, cpu: core.id }));
                drop(report);
                shared.serve(worker - 1, self.threads);
            };
            let handle = thread::Builder::new().name(format!("dlis-omp-{worker}")).spawn(serve);
            team.workers.push(handle.map_err(|source| TeamError::Spawn { worker, source })?);
        }
        drop(report);
        match reports.iter().flatten().next() {
            Some(error) => Err(error),
            None => Ok(team),
        }
    }
}
