//! Layers that are computed a run of tiles at a time: something is made of the run's inputs first, which all blocks of output
//! channels then read.

use std::ops::Range;

use dlis_backend::{Disjoint, Parallel, static_range};

use crate::tasks::Tasks;

/// So many times as many runs are few more.
const MORE: [usize; 2] = [4, 3];

/// How the tiles of a layer are divided into runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    tiles: usize,
    /// How many there are.
    count: usize,
    /// Most tiles of a run.
    pub(crate) together: usize,
    /// Whether each run is one worker's alone, rather than all workers' one after the other. Nobody waits for others then, and
    /// what is made lies in the caches of whoever reads it.
    are_shared_out: bool,
    /// Whether they are of as many tiles as any other, rather than of as many as there may be.
    is_even: bool,
}

/// What a run is multiplied with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    /// Blocks of output channels.
    pub(crate) columns: usize,
    /// Tiles that registers hold, and most of a task.
    pub(crate) rows: usize,
    pub(crate) most: usize,
    /// Bytes of all weights.
    pub(crate) weight_bytes: usize,
}

/// Where it is done.
#[derive(Debug)]
pub(crate) struct Memory<'a, T> {
    /// For what is made of a run's inputs, where workers share it.
    pub(crate) shared: &'a mut [T],
    /// The parts of all workers, `row` elements each. A part begins with `own` elements for what is made of a run's inputs, where
    /// they do not.
    pub(crate) workers: &'a mut [T],
    pub(crate) row: usize,
    pub(crate) own: usize,
}

/// One block of output channels of some of a run's tiles.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// The first tile of the run.
    pub(crate) first: usize,
    /// Those of the task, counted from that.
    pub(crate) some: Range<usize>,
    pub(crate) column: usize,
}

impl Runs {
    /// Of so many tiles, at most `together` to a run. A worker reads all weights for each run of its own, and its part of them for
    /// every run of all workers: as many in all, if every worker has as many runs. So runs are shared out where that takes few
    /// more of them.
    pub(crate) fn new(tiles: usize, together: usize, workers: usize) -> Self {
        let together = together.max(1);
        let least = tiles.div_ceil(together);
        let count = least.next_multiple_of(workers);
        let are_shared_out = least >= workers && count <= MORE[0] * least / MORE[1];
        if workers == 1 || !are_shared_out {
            return Self { tiles, count: least, together, are_shared_out: workers == 1, is_even: false };
        }
        Self { tiles, count, together: tiles.div_ceil(count), are_shared_out, is_even: true }
    }

    /// The tiles of one.
    fn tiles_of(self, run: usize) -> Range<usize> {
        if self.is_even {
            return static_range(self.tiles, self.count, run);
        }
        run * self.together..((run + 1) * self.together).min(self.tiles)
    }

    /// Elements that workers share and those of each, if what is made of a run's inputs takes so many.
    pub(crate) fn places(self, len: usize) -> [usize; 2] {
        if self.are_shared_out { [0, len] } else { [len, 0] }
    }

    /// Computes all tiles. `make(places, first, tiles)` makes something of the inputs of some tiles of the run that begins
    /// with `first`, and puts it to their places; `multiply(places, task, scratch)` makes outputs of it.
    ///
    /// # Panics
    ///
    /// If there are fewer parts than workers.
    pub(crate) fn execute<T: Send + Sync>(
        self,
        blocks: Blocks,
        memory: Memory<'_, T>,
        parallel: Parallel<'_>,
        make: impl Fn(&Disjoint<'_, T>, usize, Range<usize>) + Sync,
        multiply: impl Fn(&[T], Task, &mut [T]) + Sync,
    ) {
        let Memory { shared, workers, row, own } = memory;
        assert!(own <= row && row * parallel.threads() <= workers.len(), "scratch for all workers");
        let workers = Disjoint::new(workers);
        // SAFETY: where it is called, no two calls with the same worker overlap in time, and every worker has its own part.
        let part_of = |worker: usize| unsafe { workers.slice(worker * row..(worker + 1) * row) };
        if self.are_shared_out {
            parallel.evenly().for_each(self.count, |worker, some| {
                let (places, scratch) = part_of(worker).split_at_mut(own);
                for tiles in some.map(|run| self.tiles_of(run)) {
                    make(&Disjoint::new(places), tiles.start, tiles.clone());
                    let products = Products::new(blocks, tiles, size_of_val(places), 1);
                    products.tasks(0..products.len()).for_each(|task| multiply(places, task, scratch));
                }
            });
            return;
        }
        for tiles in (0..self.count).map(|run| self.tiles_of(run)) {
            let places = Disjoint::new(&mut *shared);
            parallel.for_each(tiles.len(), |_, some| {
                make(&places, tiles.start, tiles.start + some.start..tiles.start + some.end);
            });
            let products = Products::new(blocks, tiles, size_of_val(shared), parallel.threads());
            let places = &*shared;
            parallel.for_each(products.len(), |worker, some| {
                products.tasks(some).for_each(|task| multiply(places, task, part_of(worker)));
            });
        }
    }
}

/// The tasks of a run: blocks of output channels by parts of its tiles. A block's weights are read once for a part.
struct Products {
    tiles: Range<usize>,
    parts: usize,
    tasks: Tasks,
}

impl Products {
    /// Enough tasks that a free one of so many workers finds one, none of fewer tiles than registers hold.
    fn new(blocks: Blocks, tiles: Range<usize>, input_bytes: usize, workers: usize) -> Self {
        let Blocks { columns, rows, most, weight_bytes } = blocks;
        let wanted = if workers == 1 { 1 } else { (4 * workers).div_ceil(columns) };
        let parts = tiles.len().div_ceil(most).max(wanted).min(tiles.len().div_ceil(rows));
        Self { tiles, parts, tasks: Tasks::new(columns, parts, weight_bytes, input_bytes) }
    }

    fn len(&self) -> usize {
        self.tasks.len()
    }

    fn tasks(&self, some: Range<usize>) -> impl Iterator<Item = Task> + '_ {
        some.map(|task| {
            let (column, part) = self.tasks.at(task);
            Task { first: self.tiles.start, some: static_range(self.tiles.len(), self.parts, part), column }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use dlis_backend::{Executor, Schedule, Serial};

    use super::*;
    use crate::testing::Backwards;

    #[test]
    fn runs_are_shared_out_where_there_is_one_for_each_worker() {
        let runs = |tiles, together, workers| {
            let runs = Runs::new(tiles, together, workers);
            assert_eq!(
                (0..runs.count).flat_map(|run| runs.tiles_of(run)).collect::<Vec<_>>(),
                Vec::from_iter(0..tiles)
            );
            assert!((0..runs.count).all(|run| runs.tiles_of(run).len() <= runs.together));
            (runs.count, runs.together, runs.are_shared_out)
        };
        assert_eq!(runs(64, 60, 1), (2, 60, true));
        assert_eq!(runs(64, 60, 2), (2, 32, true));
        assert_eq!(runs(60, 60, 1), (1, 60, true));
        assert_eq!(runs(60, 60, 2), (1, 60, false));
        assert_eq!(runs(1444, 36, 2), (42, 35, true));
        assert_eq!(runs(17, 8, 2), (4, 5, true));
        assert_eq!(runs(1, 1, 1), (1, 1, true));
        assert_eq!(runs(5, 2, 4), (3, 2, false));
        // Nearly twice as many.
        assert_eq!(runs(9, 2, 4), (5, 2, false));
        assert_eq!(runs(196, 18, 8), (11, 18, false));
        assert_eq!(runs(0, 0, 2), (0, 1, false));
        assert_eq!(runs(0, 0, 1), (0, 1, true));
    }

    #[test]
    fn every_tile_meets_every_block_once_and_finds_what_was_made_of_it() {
        for (tiles, together, columns) in [(1, 1, 1), (5, 2, 3), (7, 7, 2), (40, 6, 2), (41, 13, 5)] {
            for executor in [&Serial as &dyn Executor, &Backwards] {
                let parallel = Parallel::new(executor, Schedule::Static);
                let (runs, workers) = (Runs::new(tiles, together, parallel.threads()), parallel.threads());
                let [shared, own] = runs.places(runs.together);
                let (mut shared, mut parts) = (vec![0; shared], vec![0; (own + 1) * workers]);
                let memory = Memory { shared: &mut shared, workers: &mut parts, row: own + 1, own };
                let met = Mutex::new(Vec::new());
                let blocks = Blocks { columns, rows: 2, most: 4, weight_bytes: 8 * tiles };
                let make = |places: &Disjoint<'_, usize>, first: usize, some: Range<usize>| {
                    for tile in some {
                        // SAFETY: tiles are passed once.
                        let place = unsafe { places.slice(tile - first..tile - first + 1) };
                        place[0] = tile + 1;
                    }
                };
                let multiply = |places: &[usize], Task { first, some, column }: Task, scratch: &mut [usize]| {
                    assert_eq!(scratch.len(), 1);
                    for place in some {
                        assert_eq!(places[place], first + place + 1, "of the run from {first} on");
                        met.lock().unwrap().push((first + place, column));
                    }
                };
                runs.execute(blocks, memory, parallel, make, multiply);
                let mut met = met.into_inner().unwrap();
                met.sort_unstable();
                let all = (0..tiles).flat_map(|tile| (0..columns).map(move |column| (tile, column)));
                assert_eq!(met, all.collect::<Vec<_>>());
            }
        }
    }
}
