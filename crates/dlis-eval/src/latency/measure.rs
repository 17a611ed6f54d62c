//! Warm-up, rounds and slices.

use super::{Clock, Latency, LatencyProgress, Noise, Point, Protocol, Step};
use crate::stats::{self, SplitMix64};

/// As [`measure_interleaved`](super::measure_interleaved), with another clock.
pub fn measure_interleaved_with<C: Clock>(
    clock: &C,
    points: &mut [Point<'_>],
    protocol: &Protocol,
    mut progress: impl FnMut(LatencyProgress<'_>),
) -> Vec<Latency> {
    let mut tallies: Vec<Tally> = Vec::with_capacity(points.len());
    for point in points.iter_mut() {
        progress(LatencyProgress { point: &point.name, step: Step::WarmUp });
        tallies.push(warm_up(clock, point, protocol));
    }

    let rounds = protocol.rounds.max(1);
    let wanted = protocol.min_samples.max(1) as usize;
    let mut rng = SplitMix64::new(protocol.seed);
    let mut order: Vec<usize> = (0..points.len()).collect();
    let mut round = 0;
    loop {
        rng.shuffle(&mut order);
        for &index in &order {
            let (point, tally) = (&mut points[index], &mut tallies[index]);
            let mut samples = Vec::new();
            // In the first round all run: even a point that is slow beyond its budget has a time.
            if round == 0 || tally.spent_ns < protocol.budget_ns {
                progress(LatencyProgress { point: &point.name, step: Step::Slice { round, rounds } });
                samples = slice(clock, point, tally, protocol);
            }
            tally.samples += samples.len();
            tally.rounds.push(samples);
        }
        round += 1;
        // Once the planned rounds are over, all points go on together while one lacks samples, so
        // that they keep sharing rounds.
        let mut in_budget = tallies.iter().filter(|tally| tally.spent_ns < protocol.budget_ns).peekable();
        let more =
            if round < rounds { in_budget.peek().is_some() } else { in_budget.any(|tally| tally.samples < wanted) };
        if !more {
            break;
        }
    }
    tracing::debug!(points = points.len(), round, "latency measured");
    points.iter().zip(tallies).filter_map(|(point, tally)| tally.summary(&point.name, protocol)).collect()
}

/// What has been seen of one point.
#[derive(Default)]
struct Tally {
    spent_ns: u64,
    warmup_runs: u64,
    unstable: Option<Noise>,
    samples: usize,
    rounds: Vec<Vec<f64>>,
}

impl Tally {
    /// Always there, because the first round gives every point a sample.
    fn summary(self, name: &str, protocol: &Protocol) -> Option<Latency> {
        let mut latency = Latency::from_rounds(name, &self.rounds, protocol)?;
        latency.warmup_runs = self.warmup_runs;
        if let Some(noise) = self.unstable {
            latency.add_noise(noise);
        }
        Some(latency)
    }
}

/// The time of one run.
fn time(clock: &impl Clock, point: &mut Point<'_>) -> u64 {
    if let Some(before) = point.before {
        before();
    }
    let start = clock.now_ns();
    (point.run)();
    clock.now_ns().saturating_sub(start)
}

fn warm_up(clock: &impl Clock, point: &mut Point<'_>, protocol: &Protocol) -> Tally {
    let start = clock.now_ns();
    let mut runs = 0_u64;
    let mut window = Vec::new();
    let mut window_ns = 0;
    let mut medians: Vec<f64> = Vec::new();
    let wanted = protocol.warmup_windows.max(1) as usize;
    let unstable = loop {
        let run_ns = time(clock, point);
        runs += 1;
        window.push(run_ns as f64);
        window_ns += run_ns;
        if window.len() >= protocol.warmup_window_runs.max(1) as usize && window_ns >= protocol.warmup_window_ns {
            medians.extend(stats::median(&window));
            window.clear();
            window_ns = 0;
        }
        // Too few windows to judge is not the same as unstable.
        let recent = medians.len().checked_sub(wanted).map(|start| &medians[start..]);
        let spread = recent.map(relative_spread);
        let stable = spread.is_some_and(|spread| spread <= protocol.warmup_tolerance);
        let elapsed = clock.now_ns().saturating_sub(start);
        let enough = runs >= u64::from(protocol.warmup_min_runs) && elapsed >= protocol.warmup_min_ns;
        if enough && stable {
            break None;
        }
        if elapsed >= protocol.warmup_max_ns || runs >= u64::from(protocol.warmup_max_runs) {
            let limit = protocol.warmup_tolerance;
            break spread.filter(|_| !stable).map(|spread| Noise::UnstableWarmup { spread, limit });
        }
    };
    let spent_ns = clock.now_ns().saturating_sub(start);
    Tally { spent_ns, warmup_runs: runs, unstable, ..Tally::default() }
}

/// How far the largest is above the smallest, as a fraction of it.
fn relative_spread(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    if low == high { 0.0 } else { (high - low) / low }
}

/// Gives a point its slice of a round.
fn slice(clock: &impl Clock, point: &mut Point<'_>, tally: &mut Tally, protocol: &Protocol) -> Vec<f64> {
    let slice_start = clock.now_ns();
    // Dropped: the caches are another point's, and its threads may still be waiting for work at full speed.
    let start = loop {
        (point.run)();
        let now = clock.now_ns();
        let spent = tally.spent_ns.saturating_add(now.saturating_sub(slice_start));
        if now.saturating_sub(slice_start) >= protocol.settle_ns || spent >= protocol.budget_ns {
            break now;
        }
    };
    let mut samples = Vec::new();
    loop {
        samples.push(time(clock, point) as f64);
        let now = clock.now_ns();
        let spent = tally.spent_ns.saturating_add(now.saturating_sub(slice_start));
        if now.saturating_sub(start) >= protocol.slice_ns
            || samples.len() >= protocol.max_slice_samples.max(1) as usize
            || spent >= protocol.budget_ns
        {
            tally.spent_ns = spent;
            return samples;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// Time that passes only when a run says so.
    #[derive(Default)]
    struct FakeClock(Cell<u64>);

    impl FakeClock {
        fn pass(&self, ns: u64) {
            self.0.set(self.0.get() + ns);
        }
    }

    impl Clock for FakeClock {
        fn now_ns(&self) -> u64 {
            self.0.get()
        }
    }

    fn protocol() -> Protocol {
        Protocol {
            warmup_min_runs: 2,
            warmup_min_ns: 10 * MS,
            warmup_max_ns: 200 * MS,
            warmup_window_runs: 2,
            warmup_window_ns: MS,
            warmup_windows: 2,
            rounds: 6,
            min_samples: 12,
            settle_ns: 0,
            slice_ns: 10 * MS,
            budget_ns: 1_000 * MS,
            ..Protocol::default()
        }
    }

    /// Measures one point whose `n`-th run takes `time(n)`; also returns the runs made.
    fn one(protocol: &Protocol, time: impl Fn(u64) -> u64) -> (Latency, u64) {
        let clock = FakeClock::default();
        let mut runs = 0;
        let mut run = || {
            clock.pass(time(runs));
            runs += 1;
        };
        let mut points = [Point::new("p", &mut run)];
        let latency = measure_interleaved_with(&clock, &mut points, protocol, |_| ()).pop().unwrap();
        (latency, runs)
    }

    #[test]
    fn a_steady_point_gives_its_time_exactly() {
        let (latency, runs) = one(&protocol(), |_| 2 * MS);
        let ns = (2 * MS) as f64;
        assert_eq!((latency.median_ns, latency.min_ns, latency.mean_ns), (ns, ns, ns));
        assert_eq!((latency.ci_low_ns, latency.ci_high_ns), (ns, ns));
        assert_eq!(latency.warmup_runs, 5); // 10 ms
        assert_eq!(latency.samples, 6 * 5); // 10 ms a slice
        assert_eq!(runs, 5 + 6 * (1 + 5));
        assert!(!latency.noisy, "{:?}", latency.noise);
    }

    #[test]
    fn warm_up_lasts_until_the_times_settle() {
        // 20 slow runs, then steady: none of the slow ones may become a sample.
        let (latency, _) = one(&protocol(), |n| if n < 20 { (40 - n) * MS / 10 } else { MS });
        assert!(latency.warmup_runs >= 24, "{}", latency.warmup_runs);
        assert_eq!(latency.p90_ns, MS as f64);
        assert!(!latency.noisy, "{:?}", latency.noise);
    }

    #[test]
    fn a_warm_up_that_never_settles_ends_and_is_told() {
        let (latency, _) = one(&protocol(), |n| if n / 2 % 2 == 0 { MS } else { 2 * MS });
        let unstable = |noise: &&Noise| matches!(noise, Noise::UnstableWarmup { .. });
        let noise = latency.noise.iter().find(unstable).expect("a reason");
        assert_eq!(*noise, Noise::UnstableWarmup { spread: 1.0, limit: 0.02 });
        assert!(latency.noisy);
    }

    #[test]
    fn the_first_run_of_each_slice_is_dropped() {
        // Two points; each run that follows the other's takes ten times as long.
        let clock = FakeClock::default();
        let last = Cell::new(9);
        let run_of = |me: u8| {
            let (clock, last) = (&clock, &last);
            move || {
                clock.pass(if last.replace(me) == me { MS } else { 10 * MS });
            }
        };
        let (mut a, mut b) = (run_of(0), run_of(1));
        let mut points = [Point::new("a", &mut a), Point::new("b", &mut b)];
        let latencies = measure_interleaved_with(&clock, &mut points, &protocol(), |_| ());
        for latency in &latencies {
            assert_eq!((latency.min_ns, latency.mean_ns), (MS as f64, MS as f64), "{}", latency.name);
        }
        assert_eq!(latencies[0].name, "a");
    }

    #[test]
    fn what_comes_before_a_run_is_not_timed() {
        let clock = FakeClock::default();
        let mut run = || clock.pass(MS);
        let before = || clock.pass(3 * MS);
        let mut points = [Point::new("p", &mut run).before(&before)];
        let latency = measure_interleaved_with(&clock, &mut points, &protocol(), |_| ()).pop().unwrap();
        assert_eq!((latency.min_ns, latency.median_ns), (MS as f64, MS as f64));
        // But it takes its part of a slice of 10 ms.
        assert_eq!(latency.samples, 6 * 3);
    }

    #[test]
    fn points_take_turns_in_a_changing_but_fixed_order() {
        let orders = |seed| {
            let clock = FakeClock::default();
            let turns = RefCell::new(Vec::new());
            let mut runs: Vec<_> = (0..3).map(|_| || clock.pass(MS)).collect();
            let mut points: Vec<Point<'_>> =
                runs.iter_mut().enumerate().map(|(index, run)| Point::new(index.to_string(), run)).collect();
            let protocol = Protocol { seed, ..protocol() };
            let _ = measure_interleaved_with(&clock, &mut points, &protocol, |now| {
                if let Step::Slice { round, rounds } = now.step {
                    assert_eq!(rounds, 6);
                    turns.borrow_mut().push((round, now.point.to_owned()));
                }
            });
            turns.into_inner()
        };
        let turns = orders(1);
        assert_eq!(turns.len(), 6 * 3);
        for (round, slice) in turns.chunks(3).enumerate() {
            assert!(slice.iter().all(|(r, _)| *r as usize == round));
            let mut names: Vec<&str> = slice.iter().map(|(_, name)| name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, ["0", "1", "2"]);
        }
        let firsts = |turns: &[(u32, String)]| turns.iter().step_by(3).map(|t| t.1.clone()).collect::<Vec<_>>();
        let mut distinct = firsts(&turns);
        distinct.dedup();
        assert!(distinct.len() > 1, "the order must change");
        assert_eq!(turns, orders(1));
        assert_ne!(turns, orders(2));
    }

    #[test]
    fn rounds_are_added_until_there_are_enough_samples() {
        // One sample a slice: six rounds give six, twelve are wanted.
        let (latency, _) = one(&protocol(), |_| 20 * MS);
        assert_eq!(latency.samples, 12);
        assert_eq!(latency.round_medians_ns.len(), 12);
        assert!(!latency.noisy, "{:?}", latency.noise);
    }

    #[test]
    fn a_slow_point_stops_at_its_budget_and_says_so() {
        let slow = Protocol { budget_ns: 500 * MS, ..protocol() };
        let (latency, runs) = one(&slow, |_| 90 * MS);
        assert_eq!(latency.noise, [Noise::FewSamples { samples: 2, wanted: 12 }]);
        assert_eq!(runs, 3 + 2 * 2); // 270 ms of warm-up, then slices of 180 ms

        // Even one run over the budget leaves a sample.
        let (latency, runs) = one(&slow, |_| 9_000 * MS);
        assert_eq!((latency.samples, runs), (1, 3));
    }

    #[test]
    fn a_point_out_of_budget_does_not_hold_up_the_others() {
        let clock = FakeClock::default();
        let (mut slow, mut fast) = (|| clock.pass(400 * MS), || clock.pass(MS));
        let mut points = [Point::new("slow", &mut slow), Point::new("fast", &mut fast)];
        let latencies = measure_interleaved_with(&clock, &mut points, &protocol(), |_| ());
        assert_eq!(latencies[0].samples, 1);
        assert_eq!(latencies[1].samples, 6 * 10);
        let lengths = latencies.iter().map(|l| l.round_medians_ns.len());
        assert!(lengths.clone().all(|n| n == 6), "{:?}", lengths.collect::<Vec<_>>());
    }

    #[test]
    fn a_clock_that_stands_still_does_not_hang() {
        let (latency, _) = one(&protocol(), |_| 0);
        assert_eq!(latency.median_ns, 0.0);
        assert!(latency.noise.contains(&Noise::BelowClock));
    }

    #[test]
    fn no_points_and_zeroed_protocols_are_fine() {
        assert!(measure_interleaved_with(&FakeClock::default(), &mut [], &protocol(), |_| ()).is_empty());
        let zero: Protocol = serde_json::from_str(
            r#"{"warmup_min_runs":0,"warmup_max_runs":0,"warmup_min_ns":0,"warmup_max_ns":0,
                "warmup_window_runs":0,"warmup_window_ns":0,"warmup_windows":0,"rounds":0,
                "min_samples":0,"slice_ns":0,"max_slice_samples":0,"budget_ns":0,"resamples":0}"#,
        )
        .unwrap();
        let (latency, runs) = one(&zero, |_| MS);
        assert_eq!((latency.samples, runs), (1, 3));
        assert!(serde_json::from_str::<Protocol>(r#"{"round":3}"#).is_err(), "a misspelt key");
    }

    proptest! {
        /// Whatever the times: it ends, every point has samples, and the budget is kept but for
        /// the runs in progress.
        #[test]
        fn budgets_hold(times in proptest::collection::vec(0_u64..300 * MS, 1..20)) {
            let (latency, runs) = one(&protocol(), |n| times[usize::try_from(n).unwrap() % times.len()]);
            prop_assert!(latency.samples >= 1);
            prop_assert!(latency.ci_low_ns <= latency.ci_high_ns);
            prop_assert!(latency.min_ns <= latency.p10_ns && latency.p10_ns <= latency.median_ns);
            prop_assert!(latency.median_ns <= latency.p90_ns);
            let spent: u64 = (0..runs).map(|n| times[usize::try_from(n).unwrap() % times.len()]).sum();
            prop_assert!(spent <= 1_000 * MS + 2 * 300 * MS, "{spent}");
        }
    }
}
