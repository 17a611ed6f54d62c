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

/// Runs of tiles, for each of which something is made first that all blocks of output channels then read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Tiles of a run.
    pub(crate) together: usize,
    /// Whether each run is one worker's alone, rather than all workers' one after the other. Nobody waits for others then, and
    /// what is made lies in the caches of whoever reads it.
    pub(crate) are_shared_out: bool,
}

impl Runs {
    /// Of so many tiles, at most `together` to a run. Each worker reads all weights once for each run of its own, but half of
    /// them for every run of two workers: so runs are shared out where there is at least one for each, and weights are not
    /// read more often for it. Runs are then as many for one worker as for another.
    pub(crate) fn new(tiles: usize, together: usize, workers: usize) -> Self {
        let together = together.max(1);
        if tiles.div_ceil(together) < workers {
            return Self { together, are_shared_out: false };
        }
        let runs = tiles.div_ceil(together * workers) * workers;
        Self { together: tiles.div_ceil(runs), are_shared_out: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_shared_out_where_there_is_one_for_each_worker() {
        let runs = |tiles, together, workers| {
            let runs = Runs::new(tiles, together, workers);
            (runs.together, runs.are_shared_out)
        };
        assert_eq!(runs(64, 60, 1), (32, true));
        assert_eq!(runs(64, 60, 2), (32, true));
        assert_eq!(runs(60, 60, 1), (60, true));
        assert_eq!(runs(60, 60, 2), (60, false));
        assert_eq!(runs(1444, 36, 2), (35, true));
        assert_eq!(runs(1, 1, 1), (1, true));
        assert_eq!(runs(5, 2, 4), (2, false));
        assert_eq!(runs(0, 0, 2), (1, false));
    }

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
