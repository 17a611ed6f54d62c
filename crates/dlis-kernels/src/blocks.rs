//! A parallel loop over the blocks of a slice that need not be whole rows.

use std::ops::Range;

use dlis_backend::{Disjoint, Parallel};

/// Elements of a block where nothing else decides: large enough that dealing it out costs nothing, small
/// enough that there are blocks for all workers.
pub(crate) const BLOCK: usize = 4096;

/// Divides `data` into blocks of `block` elements, the last of which may be shorter, and calls
/// `body(elements, block)` for each.
pub(crate) fn for_each_block<T: Send>(
    parallel: Parallel<'_>,
    data: &mut [T],
    block: usize,
    body: impl Fn(Range<usize>, &mut [T]) + Sync,
) {
    let data = Disjoint::new(data);
    parallel.for_each(data.len().div_ceil(block), |_, blocks| {
        for index in blocks {
            let elements = index * block..((index + 1) * block).min(data.len());
            // SAFETY: the executor passes every index once, and blocks of different indices do not overlap.
            let part = unsafe { data.slice(elements.clone()) };
            body(elements, part);
        }
    });
}
