//! How long a thread polls for another before it asks the operating system to be woken.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

use dlis_hw::Hardware;

/// How long the threads of an executor poll before they sleep.
///
/// Polling keeps the fork and the join of back-to-back loops below a microsecond; a sleeping thread
/// takes tens of them to wake. Where an executor has more threads than the CPUs it may run on, polling
/// would hold up the very thread that is waited for, so its threads yield their time slice a few
/// times and then sleep, whatever the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitPolicy {
    /// Time spent polling; zero sleeps at once.
    pub spin: Duration,
}

impl Default for WaitPolicy {
    /// Long enough to bridge the serial parts of an inference, as `libgomp` does by default.
    fn default() -> Self {
        Self { spin: Duration::from_millis(5) }
    }
}

/// Polls before the clock is first looked at: most waits between the layers of a network end here.
const FIRST_POLLS: u32 = 2_000;
/// Polls between two looks at the clock, which cost as much as several polls.
const POLLS_PER_LOOK: u32 = 200;
/// Polls, then time slices given up, where threads have to share CPUs.
const SHARED_POLLS: u32 = 10;
const SHARED_YIELDS: u32 = 50;

/// A [`WaitPolicy`] made concrete for the threads of an executor on a machine.
///
/// ```
/// use dlis_backend::{Spin, WaitPolicy};
/// assert!(Spin::new(WaitPolicy::default(), 2).until(|| true));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Spin {
    first_polls: u32,
    budget: Duration,
    yields: u32,
}

impl Spin {
    /// For so many threads, which wait for each other.
    pub fn new(policy: WaitPolicy, threads: usize) -> Self {
        Self::of(policy, threads > Hardware::detect().logical_cores)
    }

    fn of(policy: WaitPolicy, oversubscribed: bool) -> Self {
        if policy.spin.is_zero() {
            Self { first_polls: 0, budget: Duration::ZERO, yields: 0 }
        } else if oversubscribed {
            Self { first_polls: SHARED_POLLS, budget: Duration::ZERO, yields: SHARED_YIELDS }
        } else {
            Self { first_polls: FIRST_POLLS, budget: policy.spin, yields: 0 }
        }
    }

    /// Polls until `ready` or the budget is spent; returns whether it was ready.
    #[inline]
    pub fn until(&self, ready: impl Fn() -> bool) -> bool {
        if ready() {
            return true;
        }
        for _ in 0..self.first_polls {
            hint::spin_loop();
            if ready() {
                return true;
            }
        }
        self.until_patiently(ready)
    }

    #[cold]
    fn until_patiently(&self, ready: impl Fn() -> bool) -> bool {
        for _ in 0..self.yields {
            thread::yield_now();
            if ready() {
                return true;
            }
        }
        let start = Instant::now();
        while start.elapsed() < self.budget {
            for _ in 0..POLLS_PER_LOOK {
                hint::spin_loop();
                if ready() {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn polling_ends_when_ready_or_when_the_budget_is_spent() {
        let policy = WaitPolicy { spin: Duration::from_millis(2) };
        for oversubscribed in [false, true] {
            let spin = Spin::of(policy, oversubscribed);
            let polls = Cell::new(0);
            assert!(spin.until(|| {
                polls.set(polls.get() + 1);
                polls.get() == 10
            }));
            assert_eq!(polls.get(), 10);
        }
        let start = Instant::now();
        assert!(!Spin::of(policy, false).until(|| false));
        assert!(start.elapsed() >= policy.spin);
    }

    #[test]
    fn a_passive_policy_looks_once() {
        let looks = Cell::new(0);
        assert!(!Spin::of(WaitPolicy { spin: Duration::ZERO }, false).until(|| {
            looks.set(looks.get() + 1);
            false
        }));
        assert_eq!(looks.get(), 1);
    }
}
