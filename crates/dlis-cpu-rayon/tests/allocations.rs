//! A loop allocates nothing. Alone in its program, since the allocator counts for all threads.

use std::alloc::System;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dlis_backend::{Executor, Schedule};
use dlis_cpu_rayon::RayonExecutor;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let chunk = NonZeroUsize::new(2).unwrap();
    let schedules = [Schedule::Static, Schedule::StaticChunk(chunk), Schedule::Dynamic(chunk), Schedule::Guided(chunk)];
    for threads in [1, 2, 3] {
        let executor = RayonExecutor::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        let region = Region::new(ALLOCATOR);
        let sum = AtomicUsize::new(0);
        for round in 0..200 {
            for schedule in schedules {
                executor.for_each(10, schedule, &|worker, range| {
                    sum.fetch_add(range.len(), Ordering::Relaxed);
                    if round % 100 == 99 {
                        // Long enough for the caller to sleep, and then for the workers.
                        thread::sleep(Duration::from_millis(8 * worker as u64));
                    }
                });
            }
        }
        let change = region.change();
        assert_eq!(sum.into_inner(), 200 * schedules.len() * 10);
        assert_eq!((change.allocations, change.reallocations), (0, 0), "{threads} threads: {change:?}");
        // Its threads would end, and allocate for it, while the next one is observed.
        std::mem::forget(executor);
    }
}
