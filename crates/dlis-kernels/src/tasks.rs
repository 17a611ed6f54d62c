//! How the output of a product is shared out among workers.

/// Blocks of output channels times runs of pixels, a task each.
///
/// Workers take neighbouring tasks. So they share out what is outside, and each reads all of what is inside: outside is
/// the larger of weights and input. Pixels are then those that the same worker wrote in the layer before, if that shared
/// out pixels too, and come from its own cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks {
    columns: usize,
    runs: usize,
    runs_outside: bool,
}

impl Tasks {
    /// Of so many blocks and runs, which read so many bytes of weights and input.
    pub(crate) const fn new(columns: usize, runs: usize, weight_bytes: usize, input_bytes: usize) -> Self {
        Self { columns, runs, runs_outside: weight_bytes < input_bytes }
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.columns * self.runs
    }

    /// Block and run of a task.
    pub(crate) const fn at(&self, task: usize) -> (usize, usize) {
        if self.runs_outside {
            (task % self.columns, task / self.columns)
        } else {
            (task / self.runs, task % self.runs)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_meets_every_run_once_and_the_larger_operand_is_outside() {
        for (weight_bytes, input_bytes) in [(1, 2), (2, 1), (2, 2)] {
            let tasks = Tasks::new(3, 4, weight_bytes, input_bytes);
            let mut all: Vec<_> = (0..tasks.len()).map(|task| tasks.at(task)).collect();
            let outside = |&(column, run): &(usize, usize)| if weight_bytes < input_bytes { run } else { column };
            assert!(all.is_sorted_by_key(outside));
            all.sort_unstable();
            let expected: Vec<_> = (0..3).flat_map(|column| (0..4).map(move |run| (column, run))).collect();
            assert_eq!(all, expected);
        }
    }
}
