//! Threads that run one measurement at the same time, each on memory of its own.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::kernels::{BLOCK, Kernels};

/// What every thread of a team does at once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// Makes room for so many floats and touches them, so that they lie near the thread's core.
    Allocate { floats: usize },
    /// Multiply-adds in registers.
    Fma { kernels: Kernels, iterations: u64 },
    /// Sums the first `floats` of its memory.
    Read { kernels: Kernels, floats: usize, passes: u64 },
    /// `c = a + 3 b` with the thirds of the first `floats` of its memory.
    Triad { kernels: Kernels, floats: usize, passes: u64 },
}

struct Reply {
    start: Instant,
    end: Instant,
    floats: usize,
}

/// Threads waiting for jobs.
pub(super) struct Team {
    members: Vec<(Sender<Job>, Receiver<Reply>)>,
}

/// Runs `lead` with a team of `threads`. `None` if the threads cannot be had, or from `lead`.
pub(super) fn with_team<R>(threads: usize, lead: impl FnOnce(&Team) -> Option<R>) -> Option<R> {
    thread::scope(|scope| {
        let mut members = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (jobs, job_queue) = channel();
            let (replies, reply_queue) = channel();
            // On failure the team is dropped, and its threads end with their queues.
            thread::Builder::new()
                .name("dlis-hw-peaks".to_owned())
                .spawn_scoped(scope, move || serve(&job_queue, &replies))
                .ok()?;
            members.push((jobs, reply_queue));
        }
        lead(&Team { members })
    })
}

impl Team {
    pub(super) fn threads(&self) -> usize {
        self.members.len()
    }

    /// Time from the first start to the last end. `None` if a thread is gone.
    pub(super) fn run(&self, job: Job) -> Option<Duration> {
        let replies = self.replies(job)?;
        let start = replies.iter().map(|r| r.start).min()?;
        let end = replies.iter().map(|r| r.end).max()?;
        Some(end.saturating_duration_since(start))
    }

    /// Makes room for `floats` per thread and says whether all threads got it.
    pub(super) fn allocate(&self, floats: usize) -> Option<bool> {
        Some(self.replies(Job::Allocate { floats })?.iter().all(|r| r.floats == floats))
    }

    fn replies(&self, job: Job) -> Option<Vec<Reply>> {
        for (jobs, _) in &self.members {
            jobs.send(job).ok()?;
        }
        self.members.iter().map(|(_, replies)| replies.recv().ok()).collect()
    }
}

fn serve(jobs: &Receiver<Job>, replies: &Sender<Reply>) {
    let mut memory = Memory::default();
    for job in jobs {
        let start = Instant::now();
        match job {
            Job::Allocate { floats } => memory = Memory::of(floats),
            Job::Fma { kernels, iterations } => {
                black_box(kernels.fma(iterations));
            }
            Job::Read { kernels, floats, passes } => {
                let data = &*memory.first(floats);
                for _ in 0..passes {
                    black_box(kernels.read(black_box(data)));
                }
            }
            Job::Triad { kernels, floats, passes } => {
                let data = memory.first(floats);
                let third = data.len() / 3 / BLOCK * BLOCK;
                let (a, rest) = data.split_at_mut(third);
                let (b, c) = rest.split_at_mut(third);
                for _ in 0..passes {
                    kernels.triad(black_box(&mut *c), black_box(&*a), black_box(&*b));
                }
            }
        }
        if replies.send(Reply { start, end: Instant::now(), floats: memory.floats }).is_err() {
            return;
        }
    }
}

/// Floats that start at a cache line, so that no vector lies across two.
#[derive(Default)]
struct Memory {
    storage: Vec<f32>,
    offset: usize,
    floats: usize,
}

const ALIGN: usize = 64;

impl Memory {
    /// Room for `floats`, or for none if they cannot be had.
    fn of(floats: usize) -> Self {
        let slack = ALIGN / size_of::<f32>();
        let mut storage = Vec::new();
        if floats.checked_add(slack).is_none_or(|n| storage.try_reserve_exact(n).is_err()) {
            return Self::default();
        }
        storage.resize(floats + slack, 1.0_f32);
        let offset = storage.as_ptr().align_offset(ALIGN).min(slack);
        Self { storage, offset, floats }
    }

    fn first(&mut self, floats: usize) -> &mut [f32] {
        &mut self.storage[self.offset..][..floats.min(self.floats)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimdLevel;

    #[test]
    fn memory_is_aligned_and_bounded() {
        let mut memory = Memory::of(1000);
        assert_eq!(memory.first(64).as_ptr().align_offset(ALIGN), 0);
        assert_eq!(memory.first(usize::MAX).len(), 1000);
        assert_eq!(Memory::default().first(10).len(), 0);
        assert_eq!(Memory::of(usize::MAX / 8).floats, 0);
        assert_eq!(Memory::of(usize::MAX).floats, 0);
    }

    #[test]
    fn every_thread_works() {
        let kernels = Kernels::new(SimdLevel::Portable).unwrap();
        let got = with_team(3, |team| {
            assert_eq!(team.threads(), 3);
            assert_eq!(team.allocate(BLOCK * 3), Some(true));
            for job in [
                Job::Fma { kernels, iterations: 10 },
                Job::Read { kernels, floats: BLOCK, passes: 2 },
                Job::Triad { kernels, floats: BLOCK * 3, passes: 2 },
            ] {
                assert!(team.run(job)? < Duration::from_secs(10));
            }
            Some(())
        });
        assert_eq!(got, Some(()));
    }
}
