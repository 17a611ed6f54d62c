//! The contract of `Executor`, held against the team under each schedule, waiting and pinning.

use std::cell::UnsafeCell;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dlis_backend::{Executor, Schedule};
use dlis_cpu_omp::{Pinning, Team, TeamError, WaitPolicy};
use proptest::prelude::*;

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn team(threads: usize) -> Team {
    Team::builder().threads(count(threads)).build().unwrap()
}

fn passive(threads: usize) -> Team {
    Team::builder().threads(count(threads)).wait(WaitPolicy { spin: Duration::ZERO }).build().unwrap()
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
    /// Written without atomics: a test under a race detector, or a lost write, would show.
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
fn every_iteration_runs_once_on_any_team() {
    for threads in [1, 2, 3, 5] {
        for team in [team(threads), passive(threads)] {
            assert_eq!(team.threads().get(), threads);
            for schedule in schedules() {
                for n in [0, 1, 2, 3, 4, 5, 6, 7, 63, 64, 65, 1000] {
                    check(&team, n, schedule);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_iteration_runs_once_in_any_sequence_of_loops(
        threads in 1..6_usize,
        loops in prop::collection::vec((0..300_usize, prop::sample::select(schedules())), 1..20),
    ) {
        let team = team(threads);
        for (n, schedule) in loops {
            check(&team, n, schedule);
        }
    }
}

#[test]
fn the_caller_is_worker_0_and_workers_keep_their_threads() {
    let team = team(3);
    let ids: Vec<_> = (0..3).map(|_| std::sync::Mutex::new(None)).collect();
    for _ in 0..1000 {
        team.for_each(3, Schedule::Static, &|worker, range| {
            assert_eq!(range, worker..worker + 1);
            let mut id = ids[worker].lock().unwrap();
            assert_eq!(*id.get_or_insert(thread::current().id()), thread::current().id());
        });
    }
    assert_eq!(*ids[0].lock().unwrap(), Some(thread::current().id()));
}

#[test]
fn a_hundred_thousand_tiny_regions_keep_their_order() {
    let team = team(2);
    // Each region reads what the other worker wrote in the last one.
    let cells = [AtomicUsize::new(0), AtomicUsize::new(0)];
    for round in 0..100_000 {
        let from = |worker: usize| if round % 2 == 0 { worker } else { 1 - worker };
        team.for_each(2, Schedule::Static, &|worker, _| {
            let cell = &cells[from(worker)];
            assert_eq!(cell.load(Ordering::Relaxed), round);
            cell.store(round + 1, Ordering::Relaxed);
        });
    }
}

#[test]
fn tiny_dynamic_regions_lose_no_iteration() {
    let team = team(3);
    let sum = AtomicUsize::new(0);
    for _ in 0..20_000 {
        team.for_each(7, Schedule::Dynamic(NonZeroUsize::MIN), &|_, range| {
            sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
        });
    }
    assert_eq!(sum.into_inner(), 21 * 20_000);
}

#[test]
fn sleeping_workers_are_woken() {
    let policy = WaitPolicy { spin: Duration::from_micros(50) };
    let team = Team::builder().threads(count(3)).wait(policy).build().unwrap();
    // Pauses around the time spent polling, so that calls meet workers that are just falling asleep.
    for pause in (0..300).map(|step| Duration::from_micros(step % 100)).chain([Duration::from_millis(50)]) {
        thread::sleep(pause);
        check(&team, 10, Schedule::Static);
    }
}

#[test]
fn workers_that_sleep_at_once_miss_no_call() {
    let team = passive(3);
    for _ in 0..5_000 {
        check(&team, 6, Schedule::Static);
    }
}

#[test]
fn a_caller_that_waits_long_is_woken() {
    for team in [team(2), passive(2)] {
        for _ in 0..5 {
            let done = AtomicUsize::new(0);
            team.for_each(2, Schedule::Static, &|worker, _| {
                thread::sleep(Duration::from_millis(worker as u64 * 20));
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 2);
        }
    }
}

#[test]
fn a_panic_reaches_the_caller_after_all_workers_stopped() {
    for threads in [1, 2, 3] {
        let team = team(threads);
        for guilty in 0..threads {
            let stopped = AtomicUsize::new(0);
            let panic = catch_unwind(AssertUnwindSafe(|| {
                team.for_each(threads, Schedule::Static, &|worker, _| {
                    if worker == guilty {
                        std::panic::panic_any(worker);
                    }
                    thread::sleep(Duration::from_millis(5));
                    stopped.fetch_add(1, Ordering::Relaxed);
                });
            }));
            assert_eq!(panic.unwrap_err().downcast_ref(), Some(&guilty));
            assert_eq!(stopped.into_inner(), threads - 1);
            check(&team, 100, Schedule::Static);
        }
    }
}

#[test]
fn of_many_panics_one_reaches_the_caller() {
    let team = team(3);
    for _ in 0..100 {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            team.for_each(30, Schedule::Dynamic(NonZeroUsize::MIN), &|worker, _| {
                std::panic::resume_unwind(Box::new(worker))
            });
        }));
        assert!(*panic.unwrap_err().downcast_ref::<usize>().unwrap() < 3);
        // Nothing is left over for the next loop.
        check(&team, 10, Schedule::Static);
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
fn nested_use_is_refused_on_every_worker() {
    for threads in [1, 2, 3] {
        assert_refused(&team(threads), &dlis_backend::Serial);
    }
}

#[test]
fn nested_use_through_another_team_is_refused() {
    for threads in [1, 2, 3] {
        assert_refused(&team(threads), &team(2));
    }
}

#[test]
fn an_uncaught_nested_use_ends_in_a_panic_and_no_deadlock() {
    let team = team(2);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        team.for_each(2, Schedule::Static, &|_, _| team.for_each(2, Schedule::Static, &|_, _| ()));
    }));
    assert!(panic.is_err());
    check(&team, 10, Schedule::Static);
}

#[test]
fn callers_on_several_threads_take_turns() {
    let team = team(2);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for n in 0..300 {
                    check(&team, n, Schedule::Guided(NonZeroUsize::MIN));
                }
            });
        }
    });
}

#[test]
fn dropping_joins_polling_and_sleeping_threads() {
    for _ in 0..50 {
        drop(team(3));
        drop(passive(3));
        let used = team(3);
        check(&used, 10, Schedule::Static);
    }
    let asleep = passive(3);
    thread::sleep(Duration::from_millis(20));
    drop(asleep);
}

#[test]
fn pinned_teams_run_where_they_are_told() {
    let cpus: Vec<_> = core_affinity::get_core_ids().unwrap().into_iter().map(|core| core.id).collect();
    let last = *cpus.last().unwrap();
    for pinning in [Pinning::Compact, Pinning::Cpus(vec![cpus[0], last, last])] {
        let team = Team::builder().threads(count(3)).pinning(pinning.clone()).build().unwrap();
        let seen: Vec<_> = (0..3).map(|_| std::sync::Mutex::new(Vec::new())).collect();
        let look = || {
            team.for_each(3, Schedule::Static, &|worker, _| {
                let now = core_affinity::get_core_ids().unwrap();
                *seen[worker].lock().unwrap() = now.into_iter().map(|core| core.id).collect();
            });
            seen.iter().map(|seen| seen.lock().unwrap().clone()).collect::<Vec<_>>()
        };
        let expected: Vec<_> = match &pinning {
            Pinning::Cpus(list) => list.clone(),
            _ => cpus.iter().copied().cycle().take(3).collect(),
        };
        let before = look();
        assert_eq!(before[0], cpus, "building leaves the caller alone");
        assert_eq!(before[1..], [vec![expected[1]], vec![expected[2]]]);
        // On a thread of its own: tests share theirs.
        thread::scope(|scope| {
            scope.spawn(|| {
                team.pin_caller().unwrap();
                assert_eq!(look()[0], [expected[0]]);
            });
        });
    }
}

#[test]
fn impossible_teams_are_refused() {
    let build = |threads, pinning| Team::builder().threads(count(threads)).pinning(pinning).build().map(drop);
    let error = build(usize::MAX, Pinning::None).unwrap_err();
    assert!(matches!(error, TeamError::TooManyThreads(usize::MAX)), "{error}");
    let error = build(2, Pinning::Cpus(vec![0])).unwrap_err();
    assert!(matches!(error, TeamError::CpuCount { threads: 2, cpus: 1 }), "{error}");
    let error = build(1, Pinning::Cpus(vec![usize::MAX])).unwrap_err();
    assert!(matches!(error, TeamError::CpuNotAllowed { cpu: usize::MAX, .. }), "{error}");
}
