//! The contract of `Executor`, held against the rayon executor under each schedule.

use std::cell::UnsafeCell;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dlis_backend::{Executor, Schedule};
use dlis_cpu_rayon::{BuildError, RayonExecutor};

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn executor(threads: usize) -> RayonExecutor {
    RayonExecutor::new(count(threads)).unwrap()
}

fn schedules() -> Vec<Schedule> {
    let chunked = |chunk| {
        let chunk = count(chunk);
        [Schedule::StaticChunk(chunk), Schedule::Dynamic(chunk), Schedule::Guided(chunk)]
    };
    [Schedule::Static].into_iter().chain([1, 3, 64].into_iter().flat_map(chunked)).collect()
}

/// Runs a loop and checks every promise but that of panics.
fn check(executor: &dyn Executor, n: usize, schedule: Schedule) {
    /// Written without atomics, so that a lost write would show.
    struct Counts(Vec<UnsafeCell<u32>>);
    // SAFETY: iterations are disjoint, which is what is tested; each writes its own cell.
    unsafe impl Sync for Counts {}
    impl Counts {
        fn add(&self, index: usize) {
            // SAFETY: as above.
            unsafe { *self.0[index].get() += 1 }
        }
    }

    let threads = executor.threads().get();
    let counts = Counts((0..n).map(|_| UnsafeCell::new(0)).collect());
    let is_busy: Vec<_> = (0..threads).map(|_| AtomicBool::new(false)).collect();
    executor.for_each(n, schedule, &|worker, range| {
        assert!(!is_busy[worker].swap(true, Ordering::Relaxed), "two bodies at once as worker {worker}");
        assert!(!range.is_empty() && range.end <= n, "{range:?} of {n}");
        range.for_each(|index| counts.add(index));
        is_busy[worker].store(false, Ordering::Relaxed);
    });
    let counts: Vec<_> = counts.0.into_iter().map(UnsafeCell::into_inner).collect();
    assert_eq!(counts, vec![1; n], "{schedule}, n = {n}, {threads} threads");
}

#[test]
fn every_iteration_runs_once() {
    for threads in [1, 2, 3, 5] {
        let executor = executor(threads);
        assert_eq!(executor.threads().get(), threads);
        for schedule in schedules() {
            for n in [0, 1, 2, 3, 4, 5, 6, 7, 63, 64, 65, 1000] {
                check(&executor, n, schedule);
            }
        }
    }
}

#[test]
fn the_caller_is_worker_0() {
    let executor = executor(3);
    let caller = thread::current().id();
    for _ in 0..100 {
        executor.for_each(3, Schedule::Static, &|worker, range| {
            assert_eq!(range, worker..worker + 1);
            assert_eq!(worker == 0, thread::current().id() == caller);
        });
    }
}

#[test]
fn tiny_regions_see_one_anothers_writes() {
    let executor = executor(2);
    let cells = [AtomicUsize::new(0), AtomicUsize::new(0)];
    for round in 0..20_000 {
        let from = |worker: usize| if round % 2 == 0 { worker } else { 1 - worker };
        executor.for_each(2, Schedule::Static, &|worker, _| {
            let cell = &cells[from(worker)];
            assert_eq!(cell.load(Ordering::Relaxed), round);
            cell.store(round + 1, Ordering::Relaxed);
        });
    }
}

#[test]
fn sleepers_on_both_sides_are_woken() {
    let executor = executor(3);
    // Pauses around the time spent polling, so that calls meet a foreman that is just falling asleep.
    for pause in (0..200).map(|step| Duration::from_micros(step % 50)).chain([Duration::from_millis(50)]) {
        thread::sleep(pause);
        check(&executor, 10, Schedule::Static);
    }
    let slow = AtomicUsize::new(0);
    executor.for_each(3, Schedule::Static, &|worker, _| {
        thread::sleep(Duration::from_millis(20 * worker as u64));
        slow.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(slow.into_inner(), 3);
}

#[test]
fn a_panic_reaches_the_caller_after_all_workers_stopped() {
    for threads in [1, 2, 3] {
        let executor = executor(threads);
        for guilty in 0..threads {
            let stopped = AtomicUsize::new(0);
            let panic = catch_unwind(AssertUnwindSafe(|| {
                executor.for_each(threads, Schedule::Static, &|worker, _| {
                    if worker == guilty {
                        std::panic::panic_any(worker);
                    }
                    thread::sleep(Duration::from_millis(5));
                    stopped.fetch_add(1, Ordering::Relaxed);
                });
            }));
            assert_eq!(panic.unwrap_err().downcast_ref(), Some(&guilty));
            assert_eq!(stopped.into_inner(), threads - 1);
            check(&executor, 100, Schedule::Static);
        }
        let panic = catch_unwind(AssertUnwindSafe(|| {
            executor.for_each(threads, Schedule::Static, &|worker, _| std::panic::resume_unwind(Box::new(worker)));
        }));
        assert!(*panic.unwrap_err().downcast_ref::<usize>().unwrap() < threads);
        check(&executor, 100, Schedule::Static);
    }
}

fn assert_refused(outer: &dyn Executor, between: &dyn Executor) {
    let refused = AtomicUsize::new(0);
    let (n, m) = (outer.threads().get(), between.threads().get());
    outer.for_each(n, Schedule::Static, &|_, _| {
        between.for_each(m, Schedule::Static, &|_, _| {
            let panic = catch_unwind(AssertUnwindSafe(|| outer.for_each(1, Schedule::Static, &|_, _| ())));
            let message = *panic.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains("nested parallelism is refused"), "{message}");
            refused.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(refused.into_inner(), n * m);
    check(outer, 10, Schedule::Static);
}

#[test]
fn nested_use_is_refused_directly_and_through_another_executor() {
    for threads in [1, 2, 3] {
        assert_refused(&executor(threads), &dlis_backend::Serial);
        assert_refused(&executor(threads), &executor(2));
    }
}

#[test]
fn callers_on_several_threads_take_turns() {
    let executor = executor(2);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for n in 0..200 {
                    check(&executor, n, Schedule::Guided(NonZeroUsize::MIN));
                }
            });
        }
    });
}

/// The number of threads of this process whose names start like this.
#[cfg(target_os = "linux")]
fn threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with(prefix))
        .count()
}

#[cfg(target_os = "linux")]
#[test]
fn dropped_executors_leave_no_thread_behind() {
    for _ in 0..20 {
        let unused = executor(3);
        let used = executor(3);
        check(&used, 10, Schedule::Static);
        drop((unused, used));
    }
    // Other tests of this program have up to 4 + 2 + ... threads at a time, never the 80 of these.
    let start = std::time::Instant::now();
    while threads_named("dlis-rayon") > 30 {
        assert!(start.elapsed() < Duration::from_secs(10), "threads of dropped executors are still there");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn too_many_threads_are_refused() {
    let error = RayonExecutor::new(count(usize::MAX)).unwrap_err();
    assert!(matches!(error, BuildError::TooManyThreads(usize::MAX)), "{error}");
}
