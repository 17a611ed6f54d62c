//! The sums of a tile, a weight at a time.

use std::ops::Range;

use dlis_backend::{Disjoint, Layout};
use dlis_model::Activation;

use super::PreparedLanes;
use super::entries::{Real, Reals};
use super::patch::Pixel;
use crate::conv2d::tile::rectify;
use crate::epilogue::activate;
use crate::simd::{Simd, Work};

/// Some output channels of a tile.
pub(super) struct Task<'a, P> {
    pub(super) prepared: &'a PreparedLanes<P>,
    /// The group of images.
    pub(super) image: &'a [Pixel],
    pub(super) residual: Option<&'a [Pixel]>,
    pub(super) output: &'a Disjoint<'a, Pixel>,
    pub(super) group: usize,
    pub(super) tile: [usize; 2],
    pub(super) rows: Range<usize>,
    /// Room for a patch.
    pub(super) copy: &'a mut [Pixel],
    /// Room for the sums of all output channels, where there are several parts.
    pub(super) sums: &'a mut [Pixel],
}

/// What is known of a part while its rows are summed.
struct Part<'a> {
    index: usize,
    patch: &'a [Pixel],
    first: bool,
    last: bool,
}

impl<P: Simd> Work for Task<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.prepared.patch.tile {
            [4, 4] => self.tile::<S, 4, 4>(simd),
            [2, 4] => self.tile::<S, 2, 4>(simd),
            [2, 2] => self.tile::<S, 2, 2>(simd),
            [8, 1] => self.tile::<S, 8, 1>(simd),
            [4, 1] => self.tile::<S, 4, 1>(simd),
            _ => self.tile::<S, 1, 1>(simd),
        }
    }
}

impl<P: Simd> Task<'_, P> {
    #[inline(always)]
    fn tile<S: Simd, const H: usize, const W: usize>(mut self, simd: S) {
        let prepared = self.prepared;
        assert_eq!(prepared.patch.tile, [H, W], "the tile of this call");
        let parts = prepared.patch.parts();
        let copy = std::mem::take(&mut self.copy);
        for index in 0..parts {
            let patch = prepared.patch.of_tile(self.image, self.tile, index, copy);
            let part = Part { index, patch, first: index == 0, last: index + 1 == parts };
            match prepared.entries.values() {
                Reals::F32(values) => self.part::<S, _, H, W>(simd, &part, values),
                Reals::F16(values) => self.part::<S, _, H, W>(simd, &part, values),
            }
        }
    }

    #[inline(always)]
    fn part<S: Simd, T: Real, const H: usize, const W: usize>(&mut self, simd: S, part: &Part<'_>, values: &[T]) {
        let (prepared, rows) = (self.prepared, self.rows.clone());
        let bias = prepared.bias.f32();
        let pitch = prepared.patch.pitch();
        for (index, row) in rows.enumerate() {
            let entries = prepared.entries.range(part.index, row);
            let (places, values) = (prepared.entries.places(entries.clone()), &values[entries]);
            for lane in (0..Layout::LANES).step_by(S::LANES) {
                let mut sums = [[simd.splat(0.0); W]; H];
                if part.first {
                    let bias = simd.splat(bias.get(row).copied().unwrap_or(0.0));
                    sums = [[bias; W]; H];
                } else {
                    let from = &self.sums[index * H * W..(index + 1) * H * W];
                    for (y, sums) in sums.iter_mut().enumerate() {
                        for (x, sum) in sums.iter_mut().enumerate() {
                            // SAFETY: `lane + LANES` is at most the length of a pixel.
                            *sum = unsafe { simd.load(from[y * W + x].as_ptr().add(lane)) };
                        }
                    }
                }
                let patch = part.patch.as_ptr().cast::<f32>().wrapping_add(lane);
                for (&place, &value) in places.iter().zip(values) {
                    let value = value.splat(simd);
                    let at = patch.wrapping_add(usize::from(place) * Layout::LANES);
                    for (y, sums) in sums.iter_mut().enumerate() {
                        let line = at.wrapping_add(y * pitch * Layout::LANES);
                        for (x, sum) in sums.iter_mut().enumerate() {
                            // SAFETY: the patch holds what every output of the tile reads at every place: `Patch` lays
                            // both out, and gives the whole copy, or an image with whole tiles.
                            let x = unsafe { simd.load(line.add(x * Layout::LANES)) };
                            *sum = simd.mul_add(value, x, *sum);
                        }
                    }
                }
                if part.last {
                    self.store(simd, row, lane, sums);
                } else {
                    let to = &mut self.sums[index * H * W..(index + 1) * H * W];
                    for (y, sums) in sums.iter().enumerate() {
                        for (x, &sum) in sums.iter().enumerate() {
                            // SAFETY: as above.
                            unsafe { simd.store(to[y * W + x].as_mut_ptr().add(lane), sum) };
                        }
                    }
                }
            }
        }
    }

    /// Applies the epilogue and writes those sums that are of outputs, a vector's worth of the images each.
    #[inline(always)]
    fn store<S: Simd, const H: usize, const W: usize>(
        &self,
        simd: S,
        row: usize,
        lane: usize,
        sums: [[S::Vector; W]; H],
    ) {
        let prepared = self.prepared;
        let activation = prepared.epilogue.activation;
        let [height, width] = prepared.patch.outputs();
        let channels = prepared.output.channels;
        let [top, left] = [self.tile[0] * H, self.tile[1] * W];
        for (y, sums) in (top..height).zip(sums) {
            for (x, sum) in (left..width).zip(sums) {
                let at = ((self.group * height + y) * width + x) * channels + row;
                let sum = match self.residual {
                    // SAFETY: `lane + LANES` is at most the length of a pixel.
                    Some(residual) => simd.add(sum, unsafe { simd.load(residual[at].as_ptr().add(lane)) }),
                    None => sum,
                };
                // SAFETY: tiles and output channels belong to one task each, so no two parts overlap.
                let to = unsafe { self.output.slice(at..at + 1) };
                let to = &mut to[0][lane..lane + S::LANES];
                // SAFETY: it has as many elements.
                unsafe { simd.store(to.as_mut_ptr(), rectify(simd, activation, sum)) };
                if activation == Some(Activation::Sigmoid) {
                    activate(activation, to);
                }
            }
        }
    }
}
