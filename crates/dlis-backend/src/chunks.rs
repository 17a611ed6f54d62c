//! Dealing the iterations of one parallel loop out to its workers: the arithmetic every executor
//! shares, whatever its threads are.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Schedule, static_range};

impl Schedule {
    /// How many of `threads` workers can get at least one iteration of a loop of `n`: the workers
    /// from this index on need not be woken.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use dlis_backend::Schedule;
    /// assert_eq!(Schedule::Static.busy_workers(3, 8), 3);
    /// assert_eq!(Schedule::Dynamic(NonZeroUsize::new(4).unwrap()).busy_workers(9, 8), 3);
    /// ```
    pub fn busy_workers(self, n: usize, threads: usize) -> usize {
        let chunks = match self {
            Self::Static => n,
            Self::StaticChunk(chunk) | Self::Dynamic(chunk) | Self::Guided(chunk) => n.div_ceil(chunk.get()),
        };
        chunks.min(threads)
    }

    /// Whether who gets what is settled while the loop runs, so that its workers share a counter.
    pub fn is_dynamic(self) -> bool {
        matches!(self, Self::Dynamic(_) | Self::Guided(_))
    }
}

/// The size of the next chunk under [`Schedule::Guided`]: the `left` iterations divided by the
/// workers, rounded up, but at least `least` and at most what is left.
///
/// ```
/// use dlis_backend::guided_chunk;
/// assert_eq!(guided_chunk(10, 2, 2), 5);
/// assert_eq!(guided_chunk(5, 2, 4), 4);
/// assert_eq!(guided_chunk(1, 2, 4), 1);
/// ```
pub fn guided_chunk(left: usize, threads: usize, least: usize) -> usize {
    left.div_ceil(threads).max(least).min(left)
}

/// The shared counter of one loop at a time, from which its workers take their ranges.
///
/// Each worker calls [`deal`](Self::deal) once a loop with the same loop and its own index; together
/// they then get every iteration exactly once, in non-empty ranges. The counter publishes nothing
/// but itself: making the workers' writes visible is the executor's business.
#[derive(Debug, Default)]
pub struct Dealer {
    taken: AtomicUsize,
}

impl Dealer {
    /// A dealer ready for its first loop.
    pub const fn new() -> Self {
        Self { taken: AtomicUsize::new(0) }
    }

    /// Makes ready for the next loop. No worker may still be, or already be, in [`deal`](Self::deal).
    pub fn reset(&self) {
        self.taken.store(0, Ordering::Relaxed);
    }

    /// Passes `take` the ranges of worker `worker` of `threads` in a loop of `n` iterations.
    pub fn deal(
        &self,
        n: usize,
        schedule: Schedule,
        threads: usize,
        worker: usize,
        mut take: impl FnMut(Range<usize>),
    ) {
        match schedule {
            Schedule::Static => {
                let range = static_range(n, threads, worker);
                if !range.is_empty() {
                    take(range);
                }
            }
            Schedule::StaticChunk(chunk) => {
                let chunk = chunk.get();
                let mut next = worker.checked_mul(chunk);
                // A start that overflows lies beyond `n` too.
                while let Some(start) = next.filter(|&start| start < n) {
                    take(start..start + chunk.min(n - start));
                    next = threads.checked_mul(chunk).and_then(|stride| start.checked_add(stride));
                }
            }
            Schedule::Dynamic(chunk) => {
                let chunk = chunk.get();
                // Every worker adds once more after the end. Where that could wrap around, the
                // counter is never moved past `n` instead.
                if chunk.checked_mul(threads).is_some_and(|past| n.checked_add(past).is_some()) {
                    loop {
                        let start = self.taken.fetch_add(chunk, Ordering::Relaxed);
                        if start >= n {
                            break;
                        }
                        take(start..start + chunk.min(n - start));
                    }
                } else {
                    self.take_each(n, |left| chunk.min(left), take);
                }
            }
            Schedule::Guided(chunk) => self.take_each(n, |left| guided_chunk(left, threads, chunk.get()), take),
        }
    }

    /// Takes ranges of `size(left)` iterations until none are left.
    fn take_each(&self, n: usize, size: impl Fn(usize) -> usize, mut take: impl FnMut(Range<usize>)) {
        let mut start = self.taken.load(Ordering::Relaxed);
        while start < n {
            let end = start + size(n - start);
            match self.taken.compare_exchange_weak(start, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    take(start..end);
                    start = self.taken.load(Ordering::Relaxed);
                }
                Err(taken) => start = taken,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn schedules(chunk: usize) -> [Schedule; 4] {
        let chunk = NonZeroUsize::new(chunk).unwrap();
        [Schedule::Static, Schedule::StaticChunk(chunk), Schedule::Dynamic(chunk), Schedule::Guided(chunk)]
    }

    /// The ranges worker by worker, the workers one after another.
    fn deal_all(n: usize, schedule: Schedule, threads: usize) -> Vec<Vec<Range<usize>>> {
        let dealer = Dealer::new();
        (0..threads)
            .map(|worker| {
                let mut ranges = Vec::new();
                dealer.deal(n, schedule, threads, worker, |range| ranges.push(range));
                ranges
            })
            .collect()
    }

    #[test]
    fn every_iteration_is_dealt_exactly_once() {
        for n in [0, 1, 2, 3, 7, 8, 64, 65, 1000] {
            for threads in [1, 2, 3, 5, 64] {
                for schedule in [1, 2, 3, 7, 64, 2000].into_iter().flat_map(schedules) {
                    let dealt = deal_all(n, schedule, threads);
                    let mut ranges: Vec<_> = dealt.iter().flatten().cloned().collect();
                    ranges.sort_by_key(|range| range.start);
                    let mut next = 0;
                    for range in ranges {
                        assert!(!range.is_empty(), "{schedule} n={n} threads={threads}");
                        assert_eq!(range.start, next, "{schedule} n={n} threads={threads}");
                        next = range.end;
                    }
                    assert_eq!(next, n, "{schedule} threads={threads}");
                    for (worker, ranges) in dealt.iter().enumerate().skip(schedule.busy_workers(n, threads)) {
                        assert!(ranges.is_empty(), "{schedule} n={n}: worker {worker} is not busy");
                    }
                }
            }
        }
    }

    #[test]
    fn static_chunks_go_round_robin() {
        let schedule = Schedule::StaticChunk(NonZeroUsize::new(2).unwrap());
        assert_eq!(deal_all(9, schedule, 2), [vec![0..2, 4..6, 8..9], vec![2..4, 6..8]]);
    }

    #[test]
    fn guided_chunks_shrink_to_the_least_size() {
        let schedule = Schedule::Guided(NonZeroUsize::new(3).unwrap());
        assert_eq!(deal_all(20, schedule, 2), [vec![0..10, 10..15, 15..18, 18..20], vec![]]);
    }

    #[test]
    fn counts_near_the_end_of_the_integers_do_not_wrap_around() {
        let huge = NonZeroUsize::new(usize::MAX - 1).unwrap();
        for schedule in [Schedule::StaticChunk(huge), Schedule::Dynamic(huge), Schedule::Guided(huge)] {
            let ranges: Vec<_> = deal_all(usize::MAX, schedule, 3).into_iter().flatten().collect();
            assert_eq!(ranges, [0..usize::MAX - 1, usize::MAX - 1..usize::MAX], "{schedule}");
        }
    }

    #[test]
    fn a_reset_dealer_deals_again() {
        let dealer = Dealer::new();
        for _ in 0..2 {
            let mut count = 0;
            dealer.deal(10, Schedule::Dynamic(NonZeroUsize::MIN), 1, 0, |range| count += range.len());
            assert_eq!(count, 10);
            dealer.reset();
        }
    }
}
