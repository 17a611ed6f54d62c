//! Vectors of a tile on their way through memory.

use std::mem::MaybeUninit;

/// Vectors in rows and columns, more than there are registers. They begin as nothing: to write zeros first takes a tenth
/// of the time of a transform.
pub(crate) struct Grid<V, const ROWS: usize, const COLUMNS: usize>([[MaybeUninit<V>; COLUMNS]; ROWS]);

impl<V: Copy, const ROWS: usize, const COLUMNS: usize> Grid<V, ROWS, COLUMNS> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self([[MaybeUninit::uninit(); COLUMNS]; ROWS])
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, row: usize, column: usize, value: V) {
        self.0[row][column] = MaybeUninit::new(value);
    }

    /// # Safety
    ///
    /// It must have been set.
    #[inline(always)]
    pub(crate) unsafe fn get(&self, row: usize, column: usize) -> V {
        // SAFETY: as promised.
        unsafe { self.0[row][column].assume_init() }
    }
}
