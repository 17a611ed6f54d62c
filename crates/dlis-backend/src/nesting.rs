//! Which executors' loop bodies the current thread is within, so that nested use of one is refused
//! rather than left to deadlock.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many loops of different executors may be within one another.
const DEPTH: usize = 3;

thread_local! {
    static CURRENT: Cell<Nesting> = const { Cell::new(Nesting([0; DEPTH])) };
}

/// The identity of an executor for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutorId(u32);

impl ExecutorId {
    /// An identity that no other executor has.
    ///
    /// # Panics
    ///
    /// After 2^32 - 1 executors.
    #[expect(clippy::new_without_default, reason = "a default is expected to be always the same value")]
    pub fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| last.checked_add(1));
        Self(last.expect("a process builds fewer than 2^32 executors") + 1)
    }
}

/// The executors that a thread is working for, one loop within another.
///
/// An executor calls [`enter`](Self::enter) on the calling thread, carries the value to its workers,
/// and holds a [`scope`](Self::scope) on each thread while bodies run there. A loop that comes back
/// to the same executor through another one is then refused as well, on whichever thread it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nesting([u32; DEPTH]);

impl Nesting {
    /// What the current thread works for, and `executor` besides.
    ///
    /// # Panics
    ///
    /// If the current thread is within a body of `executor` already, or within those of three others.
    #[inline]
    #[track_caller]
    pub fn enter(executor: ExecutorId) -> Self {
        let mut nesting = CURRENT.get();
        for slot in &mut nesting.0 {
            if *slot == executor.0 {
                refuse("for_each was called from within a body of the same executor: nested parallelism is refused");
            }
            if *slot == 0 {
                *slot = executor.0;
                return nesting;
            }
        }
        refuse("for_each was called from within the bodies of three other executors: nested parallelism is refused");
    }

    /// Makes this what the current thread works for, until the scope is dropped.
    #[inline]
    pub fn scope(self) -> NestingScope {
        NestingScope { outer: CURRENT.replace(self), same_thread: PhantomData }
    }
}

#[cold]
#[track_caller]
fn refuse(message: &str) -> ! {
    panic!("{message}")
}

/// Puts back, when dropped, what the thread worked for before [`Nesting::scope`].
#[derive(Debug)]
#[must_use = "the scope ends when this is dropped"]
pub struct NestingScope {
    outer: Nesting,
    /// The value belongs to the thread it was taken from.
    same_thread: PhantomData<*const ()>,
}

impl Drop for NestingScope {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn the_same_executor_is_refused_until_the_scope_ends() {
        let (one, two) = (ExecutorId::new(), ExecutorId::new());
        let scope = Nesting::enter(one).scope();
        assert!(catch_unwind(|| Nesting::enter(one)).is_err());
        let inner = Nesting::enter(two).scope();
        assert!(catch_unwind(|| Nesting::enter(one)).is_err());
        drop(inner);
        let _ = Nesting::enter(two);
        drop(scope);
        let _ = Nesting::enter(one);
    }

    #[test]
    fn a_nesting_refuses_on_the_thread_it_is_carried_to() {
        let executor = ExecutorId::new();
        let nesting = Nesting::enter(executor);
        let refused = std::thread::spawn(move || {
            let _scope = nesting.scope();
            catch_unwind(|| Nesting::enter(executor)).is_err()
        });
        assert!(refused.join().unwrap());
    }

    #[test]
    fn a_fourth_executor_within_three_is_refused() {
        let mut scopes = Vec::new();
        for _ in 0..DEPTH {
            scopes.push(Nesting::enter(ExecutorId::new()).scope());
        }
        assert!(catch_unwind(|| Nesting::enter(ExecutorId::new())).is_err());
        while let Some(scope) = scopes.pop() {
            drop(scope);
        }
    }
}
