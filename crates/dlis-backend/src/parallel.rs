//! Writing to disjoint parts of one slice from a parallel loop.

use std::marker::PhantomData;
use std::ops::Range;

use crate::executor::{Executor, Schedule};

/// An executor and the schedule that its loops run under.
#[derive(Clone, Copy, Debug)]
pub struct Parallel<'a> {
    executor: &'a dyn Executor,
    schedule: Schedule,
}

impl<'a> Parallel<'a> {
    /// Loops on `executor`, dealt out by `schedule`.
    pub fn new(executor: &'a dyn Executor, schedule: Schedule) -> Self {
        Self { executor, schedule }
    }

    /// The number of workers.
    pub fn threads(&self) -> usize {
        self.executor.threads().get()
    }

    /// The same workers, each with as many iterations as any other, whatever the schedule: for loops of few and long ones.
    #[must_use]
    pub fn evenly(self) -> Self {
        Self { schedule: Schedule::Static, ..self }
    }

    /// Calls `body(worker, range)` until `0..n` is covered; see [`Executor::for_each`].
    pub fn for_each(&self, n: usize, body: impl Fn(usize, Range<usize>) + Sync) {
        self.executor.for_each(n, self.schedule, &body);
    }

    /// Divides `data` into rows of `row` elements and calls `body(worker, first row, rows)` until all are
    /// covered.
    ///
    /// ```
    /// use dlis_backend::{Parallel, Schedule, Serial};
    /// let mut data = [0; 6];
    /// Parallel::new(&Serial, Schedule::Static).for_each_row(&mut data, 2, |_, first, rows| {
    ///     for (index, row) in rows.chunks_mut(2).enumerate() {
    ///         row.fill(first + index);
    ///     }
    /// });
    /// assert_eq!(data, [0, 0, 1, 1, 2, 2]);
    /// ```
    ///
    /// # Panics
    ///
    /// If `data` is not whole rows.
    pub fn for_each_row<T: Send>(&self, data: &mut [T], row: usize, body: impl Fn(usize, usize, &mut [T]) + Sync) {
        assert!(row > 0 && data.len().is_multiple_of(row), "{} elements are not rows of {row}", data.len());
        let rows = data.len() / row;
        let data = Disjoint::new(data);
        self.for_each(rows, |worker, range| {
            let first = range.start;
            // SAFETY: the executor passes every row once, so no two ranges overlap.
            body(worker, first, unsafe { data.slice(range.start * row..range.end * row) });
        });
    }

    /// As [`for_each_row`](Self::for_each_row), with each worker's own `scratch`, a row of `scratch_row`
    /// elements of `scratch` each.
    ///
    /// # Panics
    ///
    /// If `data` is not whole rows, or `scratch` has fewer rows than there are workers.
    pub fn for_each_row_with<T: Send, S: Send>(
        &self,
        data: &mut [T],
        row: usize,
        scratch: &mut [S],
        scratch_row: usize,
        body: impl Fn(usize, usize, &mut [T], &mut [S]) + Sync,
    ) {
        let needed = scratch_row.checked_mul(self.threads());
        assert!(needed.is_some_and(|needed| needed <= scratch.len()), "scratch for {} workers", self.threads());
        let scratch = Disjoint::new(scratch);
        self.for_each_row(data, row, |worker, first, rows| {
            // SAFETY: no two calls with the same worker overlap in time, and every worker has its own row.
            let scratch = unsafe { scratch.slice(worker * scratch_row..(worker + 1) * scratch_row) };
            body(worker, first, rows, scratch);
        });
    }
}

/// A mutable slice that several workers write to, each to its own part.
#[derive(Debug)]
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out parts, and `slice` makes its callers keep them disjoint; sending a part to
// another thread is sending `&mut [T]`.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// A slice to be written in parts.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// Elements in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first element, for kernels that write strided parts. Writing through it is subject to the
    /// same rule as [`slice`](Self::slice).
    pub fn as_mut_ptr(&self) -> *mut T {
        self.start
    }

    /// One part.
    ///
    /// # Safety
    ///
    /// While the part is in use, no other part that overlaps it may be.
    ///
    /// # Panics
    ///
    /// If the range is out of bounds.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's to keep, which is the type's purpose")]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds as just checked; not aliased, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
