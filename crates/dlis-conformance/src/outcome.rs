//! What became of one check.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What became of one case on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every supported variant was right.
    Passed {
        /// Layouts and weight formats it was run in.
        variants: usize,
    },
    /// The kernel declined every variant; the reason it gave for the first.
    Unsupported(String),
    /// It was wrong: in which variant, and how.
    Failed(String),
}

impl Outcome {
    /// Whether it is `Passed`.
    pub fn is_passed(&self) -> bool {
        matches!(self, Self::Passed { .. })
    }

    /// Whether it is `Failed`.
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// Runs foreign code; its panic becomes a failure.
pub(crate) fn guard_panics<T>(what: &str, body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // Whatever a panic leaves half-done belongs to this case and goes with it.
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|panic| Err(format!("{what} panicked: {}", panic_text(panic.as_ref()))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
