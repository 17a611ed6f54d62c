//! Into the layout in which images are lanes, and out of it.

use dlis_backend::{Disjoint, Layout, Parallel, TensorSpec};

use super::square::{Element as _, SQUARE};

const LANES: usize = Layout::LANES;

/// Runs that a worker takes together: enough for each of their places to be a few whole lines of the layout of lanes.
const RUNS: usize = 16;

/// Elements that a worker takes together: little enough to stay in a second-level cache with what they become.
const BLOCK: usize = 1 << 14;

/// Elements in a row for each image or a row for each place.
type Tile = [[f32; LANES]; LANES];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    IntoLanes,
    OutOfLanes,
}

/// How elements move between a strided layout and that of lanes. In the former, an image is of runs of neighbours: its
/// channels' planes in NCHW, itself as a whole in NHWC. For every place of a run, images change with places: a
/// transposition of 16 rows.
#[derive(Debug)]
pub(super) struct Lanes {
    direction: Direction,
    /// Groups of images.
    groups: usize,
    /// Runs of an image.
    runs: usize,
    /// Elements of a run.
    places: usize,
}

impl Lanes {
    /// Of two tensors of the same extents, which fit their layouts; `None` unless one of them, alone, is of lanes.
    pub(super) fn of(from: &TensorSpec, to: &TensorSpec) -> Option<Self> {
        let (direction, strided) = match (from.layout, to.layout) {
            (Layout::Nchw | Layout::Nhwc, Layout::Nhwc16n) => (Direction::IntoLanes, from),
            (Layout::Nhwc16n, Layout::Nchw | Layout::Nhwc) => (Direction::OutOfLanes, to),
            (Layout::Nchw | Layout::Nhwc, Layout::Nchw | Layout::Nhwc) | (Layout::Nhwc16n, Layout::Nhwc16n) => {
                return None;
            }
        };
        // Planes of one pixel are no runs to speak of.
        let (runs, places) = if strided.is_in(Layout::Nhwc) {
            (1, strided.pixels() * strided.channels)
        } else {
            (strided.channels, strided.pixels())
        };
        Some(Self { direction, groups: strided.batch / LANES, runs, places })
    }

    pub(super) fn run(&self, input: &[f32], output: &mut [f32], parallel: Parallel<'_>) {
        let Self { groups, runs, places, .. } = *self;
        let output = Disjoint::new(output);
        let together = runs.min(RUNS);
        let block = (BLOCK / (LANES * together)).next_multiple_of(LANES);
        let (across, along) = (runs.div_ceil(together), places.div_ceil(block));
        parallel.for_each(groups * across * along, |_, blocks| {
            let mut tiles: [Tile; 2] = Default::default();
            for index in blocks {
                let (group, first_run) = (index / (across * along), index / along % across * together);
                let first = index % along * block;
                for place in (first..places.min(first + block)).step_by(LANES) {
                    let count = LANES.min(places - place);
                    for run in first_run..runs.min(first_run + together) {
                        self.turn(input, &output, [group, run, place], count, &mut tiles);
                    }
                }
            }
        });
    }

    /// Moves `count` places of a run of a group's images, from `place` on.
    #[inline(always)]
    fn turn(
        &self,
        input: &[f32],
        output: &Disjoint<'_, f32>,
        [group, run, place]: [usize; 3],
        count: usize,
        [rows, turned]: &mut [Tile; 2],
    ) {
        let Self { runs, places, .. } = *self;
        let of_image = |lane: usize| ((group * LANES + lane) * runs + run) * places + place;
        let of_place = |offset: usize| ((group * places + place + offset) * runs + run) * LANES;
        match self.direction {
            Direction::IntoLanes => {
                for (lane, row) in rows.iter_mut().enumerate() {
                    load(row, &input[of_image(lane)..], count);
                }
                transpose(rows, turned);
                for (offset, row) in turned[..count].iter().enumerate() {
                    let start = of_place(offset);
                    // SAFETY: every place of every run of a group is moved once, by one worker.
                    unsafe { output.slice(start..start + LANES) }.copy_from_slice(row);
                }
            }
            Direction::OutOfLanes => {
                for (offset, row) in rows[..count].iter_mut().enumerate() {
                    load(row, &input[of_place(offset)..], LANES);
                }
                transpose(rows, turned);
                for (lane, row) in turned.iter().enumerate() {
                    let start = of_image(lane);
                    // SAFETY: as above.
                    store(row, unsafe { output.slice(start..start + count) });
                }
            }
        }
    }
}

/// Fills the first `count` of a row. Whole rows, which most are, are copied without counting.
#[inline(always)]
fn load(row: &mut [f32; LANES], from: &[f32], count: usize) {
    match from.first_chunk() {
        Some(whole) if count == LANES => *row = *whole,
        _ => row[..count].copy_from_slice(&from[..count]),
    }
}

/// Writes as many of a row as there is room for.
#[inline(always)]
fn store(row: &[f32; LANES], to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(whole) => *whole = *row,
        None => to.copy_from_slice(&row[..to.len()]),
    }
}

/// Rows as columns, square by square.
#[inline(always)]
fn transpose(from: &Tile, to: &mut Tile) {
    for (top, rows) in from.as_chunks::<SQUARE>().0.iter().enumerate() {
        for (left, to) in to.as_chunks_mut::<SQUARE>().0.iter_mut().enumerate() {
            let square = rows.map(|row| row.as_chunks().0[left]);
            for (row, column) in to.iter_mut().zip(f32::columns(square)) {
                row.as_chunks_mut().0[top] = column;
            }
        }
    }
}
