//! Bands of output pixels, and copies of the input that they read.

use std::ops::Range;

use dlis_backend::{AlignedBytes, Disjoint, Parallel, Scratch, TensorSpec};
use dlis_model::Conv2d;

use crate::tasks::Tasks;

/// Most bytes of a copy, but for one of a single row of output: so many stay in a second-level cache.
const MAX_COPY: usize = 128 << 10;
/// Most bytes of a copy, however few rows it has.
const MAX_ROW: usize = 16 << 20;

/// Where windows lie: in the input itself, or in a copy of the rows of a band, with the padding around them and the
/// channels of a group filled up to a multiple of four. Either way a tap is as far from its window's first for all pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    conv: Conv2d,
    input: TensorSpec,
    output: TensorSpec,
    /// Channels of a group in the source.
    depth: usize,
    copied: bool,
    /// Rows and columns of an image in the source.
    extents: [usize; 2],
    /// Bytes from a tap to the next of its column and of its row.
    taps: [usize; 2],
    /// Bytes from a window's first to its last, of one group.
    span: usize,
    /// Rows of the source that one row of output reads.
    window_rows: usize,
}

/// Output pixels of one task, counted over the whole batch: whole images, or rows of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bands {
    images: usize,
    rows: usize,
}

impl Source {
    /// None, if a window spans more than `most` bytes, or a row with the padding around it 16 MiB.
    pub(super) fn new(conv: Conv2d, input: TensorSpec, output: TensorSpec, most: usize) -> Option<Self> {
        let window = &conv.window;
        let of_group = conv.in_channels / conv.groups;
        let copied = window.padding != [0; 4] || !of_group.is_multiple_of(4);
        let depth = of_group.checked_next_multiple_of(4)?;
        let [top, left, bottom, right] = window.padding;
        let padded = |extent: usize, before: usize, after: usize| extent.checked_add(before)?.checked_add(after);
        let extents = [padded(input.height, top, bottom)?, padded(input.width, left, right)?];
        let pixel = depth.checked_mul(conv.groups)?;
        let row = extents[1].checked_mul(pixel)?;
        let taps = [window.dilation[0].checked_mul(row)?, window.dilation[1].checked_mul(pixel)?];
        let [down, across] = [0, 1].map(|axis| (window.kernel[axis] - 1).checked_mul(taps[axis]));
        let span = down?.checked_add(across?)?.checked_add(depth)?;
        // What is counted on from pixel to pixel, to the next row and to the next image.
        window.stride[1].checked_mul(pixel)?;
        window.stride[0].checked_mul(row)?;
        extents[0].checked_mul(row)?.checked_mul(input.batch)?;
        let window_rows = (window.kernel[0] - 1).checked_mul(window.dilation[0])?.checked_add(1)?;
        let fits = span <= most && (!copied || window_rows.checked_mul(row)? <= MAX_ROW);
        fits.then_some(Self { conv, input, output, depth, copied, extents, taps, span, window_rows })
    }

    /// Input channels of a group, a multiple of four.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether the input is copied.
    pub(super) fn is_copied(&self) -> bool {
        self.copied
    }

    /// Bytes of a pixel: the channels of all groups.
    fn pixel(&self) -> usize {
        self.depth * self.conv.groups
    }

    /// Bytes of a row.
    fn row(&self) -> usize {
        self.extents[1] * self.pixel()
    }

    /// Bytes from a window's first tap to another.
    pub(super) fn tap(&self, tap_y: usize, tap_x: usize) -> usize {
        tap_y * self.taps[0] + tap_x * self.taps[1]
    }

    /// Bytes from a window's first to its last, of one group.
    pub(super) fn span(&self) -> usize {
        self.span
    }

    /// Rows of the source that so many rows of output read.
    fn rows_read(&self, rows: usize) -> usize {
        (rows - 1) * self.conv.window.stride[0] + self.window_rows
    }

    /// Most rows of output whose copy is small enough; at least one.
    fn most_rows(&self) -> usize {
        (MAX_COPY / self.row()).saturating_sub(self.window_rows) / self.conv.window.stride[0] + 1
    }

    /// Bytes of the copy for a band.
    fn copy_bytes(&self, bands: Bands) -> usize {
        let before = (bands.images - 1) * self.extents[0];
        (before + self.rows_read(bands.rows)) * self.row()
    }

    /// Bytes of the largest copy.
    pub(super) fn scratch(&self) -> usize {
        if self.copied { self.copy_bytes(self.bands(1)) } else { 0 }
    }

    /// Bands, at least `wanted` of them if there are as many rows, none of which needs too large a copy, but for single
    /// rows.
    pub(super) fn bands(&self, wanted: usize) -> Bands {
        let (batch, height) = (self.output.batch, self.output.height);
        let most = if self.copied { self.most_rows() } else { height };
        if wanted <= batch && height <= most {
            // One image needs fewer rows than there are from its first to the next's.
            let room = (MAX_COPY / self.row()).saturating_sub(self.rows_read(height)) / self.extents[0] + 1;
            let images = (batch / wanted.max(1)).max(1);
            return Bands { images: if self.copied { images.min(room) } else { images }, rows: height };
        }
        let rows = (height / wanted.div_ceil(batch)).max(1);
        Bands { images: 1, rows: rows.min(most) }
    }

    /// How many bands there are.
    pub(super) fn count(&self, bands: Bands) -> usize {
        self.output.batch.div_ceil(bands.images) * self.output.height.div_ceil(bands.rows)
    }

    /// The output pixels of a band.
    pub(super) fn pixels(&self, bands: Bands, band: usize) -> Range<usize> {
        let per_image = self.output.height.div_ceil(bands.rows);
        let (image, row) = (band / per_image * bands.images, band % per_image * bands.rows);
        let first = image * self.output.height + row;
        let last_image = (image + bands.images).min(self.output.batch);
        let end = ((last_image - 1) * self.output.height) + (row + bands.rows).min(self.output.height);
        first * self.output.width..end * self.output.width
    }

    /// Calls `body(column, pixels, from, rest)` for each task. `from` is where the windows of the band's pixels lie: the input, or
    /// a copy in the first bytes of a worker's scratch, of which `needed` are needed in all and `rest` is what follows.
    ///
    /// # Panics
    ///
    /// If the scratch is too small.
    pub(super) fn for_each_task(
        &self,
        (tasks, bands): (Tasks, Bands),
        (input, zero_point): (&[u8], u8),
        (scratch, needed): (&mut Scratch<'_>, usize),
        parallel: Parallel<'_>,
        body: impl Fn(usize, Range<usize>, &[u8], &mut [u8]) + Sync,
    ) {
        let (_, row, workers) = scratch.bytes();
        assert!(needed <= row && row * parallel.threads() <= workers.len(), "scratch for all workers");
        let workers = Disjoint::new(workers);
        parallel.for_each(tasks.len(), |worker, some| {
            // SAFETY: no two calls with the same worker overlap in time, and every worker has its own row.
            let scratch = unsafe { workers.slice(worker * row..(worker + 1) * row) };
            let (copy, rest) = scratch.split_at_mut(AlignedBytes::round_up(self.scratch()));
            let mut copied = None;
            for task in some {
                let (column, band) = tasks.at(task);
                let pixels = self.pixels(bands, band);
                if self.copied && copied != Some(band) {
                    self.copy(input, &pixels, zero_point, copy);
                    copied = Some(band);
                }
                body(column, pixels, if self.copied { copy } else { input }, rest);
            }
        });
    }

    /// Copies what the pixels of a band read.
    ///
    /// # Panics
    ///
    /// If there is no room for it.
    pub(super) fn copy(&self, input: &[u8], pixels: &Range<usize>, zero_point: u8, to: &mut [u8]) {
        let Self { conv, input: from, depth, extents: [height, _], .. } = *self;
        let [top, left, ..] = conv.window.padding;
        let (image, first) = self.row_of(pixels.start);
        let (last_image, last) = self.row_of(pixels.end - 1);
        let rows = (last_image - image) * height + last - first + self.window_rows;
        let of_group = conv.in_channels / conv.groups;
        for (row, to) in (first..).zip(to[..rows * self.row()].chunks_exact_mut(self.row())) {
            let (image, y) = (image + row / height, (row % height).wrapping_sub(top));
            if y >= from.height {
                to.fill(zero_point);
                continue;
            }
            let line = &input[(image * from.height + y) * from.width * from.channels..][..from.width * from.channels];
            let (before, rest) = to.split_at_mut(left * self.pixel());
            let (inside, after) = rest.split_at_mut(from.width * self.pixel());
            before.fill(zero_point);
            after.fill(zero_point);
            if depth == of_group {
                inside.copy_from_slice(line);
                continue;
            }
            for (to, from) in inside.chunks_exact_mut(depth).zip(line.chunks_exact(of_group)) {
                let (channels, rest) = to.split_at_mut(of_group);
                channels.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                rest.fill(zero_point);
            }
        }
    }

    /// The image of an output pixel and the first of the image's rows that it reads.
    fn row_of(&self, pixel: usize) -> (usize, usize) {
        let row = pixel / self.output.width;
        (row / self.output.height, row % self.output.height * self.conv.window.stride[0])
    }

    /// Where the windows of a band's pixels begin, of one group, in the order of pixels.
    #[inline(always)]
    pub(super) fn windows(&self, group: usize, start: usize) -> Windows {
        let [down, right] = self.conv.window.stride;
        let (image, y) = self.row_of(start);
        // A copy begins with the first row that is read.
        let row = if self.copied { 0 } else { image * self.extents[0] + y };
        let of_row = row * self.row() + group * self.depth;
        Windows {
            step: right * self.pixel(),
            of_row,
            next: of_row,
            x: 0,
            y: y / down,
            columns: self.output.width,
            rows: self.output.height,
            to_row: down * self.row(),
            to_image: (self.extents[0] - (self.output.height - 1) * down) * self.row(),
        }
    }
}

/// Counts on from pixel to pixel of a band, which begins with a row, as divisions are slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    /// Bytes from the first of the source to the next pixel's window, and to that of its row's first pixel.
    next: usize,
    of_row: usize,
    /// The next pixel's column and row in its image, of so many.
    x: usize,
    y: usize,
    columns: usize,
    rows: usize,
    /// Bytes from one pixel of a row to the next, to the next row, and from the last row to the next image.
    step: usize,
    to_row: usize,
    to_image: usize,
}

impl Windows {
    /// Of the next pixels.
    #[inline(always)]
    pub(super) fn take<const ROWS: usize>(&mut self) -> [usize; ROWS] {
        let mut windows = [0; ROWS];
        for window in &mut windows {
            *window = self.next;
            self.x += 1;
            self.next += self.step;
            if self.x == self.columns {
                (self.x, self.y) = (0, self.y + 1);
                let down = if self.y == self.rows { self.to_image } else { self.to_row };
                if self.y == self.rows {
                    self.y = 0;
                }
                self.of_row += down;
                self.next = self.of_row;
            }
        }
        windows
    }
}

#[cfg(test)]
mod tests {
    use dlis_backend::Layout;
    use dlis_model::Window;

    use super::*;

    /// Every tap of every pixel is read where it lies, and as the zero point in the padding, however many bands there are.
    fn check(channels: usize, groups: usize, window: Window, batch: usize, [height, width]: [usize; 2]) {
        const ZERO_POINT: u8 = 7;
        let conv = Conv2d { in_channels: channels, out_channels: groups, groups, window, bias: false };
        let [out_height, out_width] = window.output([height, width]).expect("a window that fits");
        let input = TensorSpec::u8(batch, [channels, height, width], Layout::Nhwc);
        let output = TensorSpec::u8(batch, [groups, out_height, out_width], Layout::Nhwc);
        let source = Source::new(conv, input, output, usize::MAX).expect("small ones");
        let values: Vec<u8> =
            (0..batch * height * width * channels).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
        let mut copy = vec![0; source.scratch()];
        let of_group = channels / groups;
        for wanted in [1, 2, 3, 5, 16, 1000] {
            let bands = source.bands(wanted);
            let mut next = 0;
            for band in 0..source.count(bands) {
                let pixels = source.pixels(bands, band);
                assert_eq!(pixels.start, next, "{bands:?} of {source:?}");
                next = pixels.end;
                let from = if source.is_copied() {
                    source.copy(&values, &pixels, ZERO_POINT, &mut copy);
                    &copy
                } else {
                    &values
                };
                let mut of_groups: Vec<Windows> =
                    (0..groups).map(|group| source.windows(group, pixels.start)).collect();
                for first in pixels.clone().step_by(3) {
                    let group = first % groups;
                    let windows = of_groups.iter_mut().map(Windows::take::<3>).collect::<Vec<_>>()[group];
                    for (pixel, start) in (first..pixels.end).zip(windows) {
                        let (row, x) = (pixel / out_width, pixel % out_width);
                        let (image, y) = (row / out_height, row % out_height);
                        for tap in 0..window.taps() {
                            let (tap_y, tap_x) = (tap / window.kernel[1], tap % window.kernel[1]);
                            let along = |at: usize, tap: usize, axis: usize| {
                                (at * window.stride[axis] + tap * window.dilation[axis])
                                    .wrapping_sub(window.padding[axis])
                            };
                            let (y, x) = (along(y, tap_y, 0), along(x, tap_x, 1));
                            for channel in 0..of_group {
                                let at = ((image * height + y.min(height)) * width + x.min(width)) * channels;
                                let inside = y < height && x < width;
                                let expected =
                                    if inside { values[at + group * of_group + channel] } else { ZERO_POINT };
                                let found = from[start + source.tap(tap_y, tap_x) + channel];
                                assert_eq!(found, expected, "pixel {pixel} tap {tap} of {bands:?} of {source:?}");
                                assert!(source.tap(tap_y, tap_x) + channel < source.span());
                            }
                        }
                    }
                }
            }
            assert_eq!(next, batch * out_height * out_width, "{bands:?} of {source:?}");
            assert!(source.count(bands) >= wanted.min(batch * out_height), "{bands:?} of {source:?}");
        }
    }

    #[test]
    fn windows_are_read_where_they_lie() {
        let same = Window::square(3).with_padding(1);
        check(4, 1, same, 1, [1, 1]);
        check(8, 2, same.with_stride(2), 3, [5, 4]);
        check(3, 1, same, 2, [6, 7]);
        check(6, 2, Window::square(2), 2, [4, 3]);
        check(8, 1, Window::square(1).with_stride(2), 3, [5, 5]);
        check(16, 1, Window { padding: [2, 0, 1, 3], dilation: [2, 1], ..Window::square(3) }, 2, [7, 6]);
    }

    #[test]
    fn large_images_are_cut_and_small_ones_put_together() {
        let same = Window::square(3).with_padding(1);
        // More than a copy may have: rows of one image, then several images of each band.
        check(128, 1, same, 1, [40, 40]);
        check(128, 1, same.with_stride(2), 2, [41, 40]);
        check(256, 1, same, 1, [56, 56]);
        check(64, 1, same, 40, [8, 8]);
        let source = |channels, batch, side| {
            let conv = Conv2d { in_channels: channels, out_channels: 1, groups: 1, window: same, bias: false };
            let spec = |channels| TensorSpec::u8(batch, [channels, side, side], Layout::Nhwc);
            Source::new(conv, spec(channels), spec(1), usize::MAX).expect("a window that fits")
        };
        assert!(source(128, 1, 40).bands(1).rows < 40);
        let images = source(64, 40, 8).bands(1).images;
        assert!(images > 1 && images < 40);
        for source in
            [source(128, 1, 40), source(256, 1, 56), source(128, 1, 112), source(512, 2, 28), source(64, 40, 8)]
        {
            assert!((1..100).all(|wanted| source.copy_bytes(source.bands(wanted)) <= source.scratch()));
            assert!(source.scratch() <= MAX_COPY);
        }
    }
    #[test]
    fn windows_and_rows_are_bounded() {
        let source = |window: Window, [height, width]: [usize; 2], most| {
            let conv = Conv2d { in_channels: 8, out_channels: 1, groups: 1, window, bias: false };
            let spec = |channels| TensorSpec::u8(1, [channels, height, width], Layout::Nhwc);
            Source::new(conv, spec(8), spec(1), most)
        };
        let window = Window::square(3);
        assert_eq!(source(window, [5, 5], usize::MAX).map(|source| source.span()), Some(2 * 5 * 8 + 2 * 8 + 8));
        assert!(source(window, [5, 5], 103).is_none() && source(window, [5, 5], 104).is_some());
        // From a tap to the next but one it wraps around to sixteen bytes.
        let huge = Window { dilation: [(1 << 60) + 1, 1], ..window };
        assert!(source(huge, [1, 1], usize::MAX).is_none());
        for padding in [1 << 28, 1 << 62, usize::MAX] {
            let padded = Window { padding: [0, padding, 0, 0], kernel: [1, 1], stride: [1, padding], ..window };
            assert!(source(padded, [1, 1], usize::MAX).is_none(), "{padding}");
        }
    }
}
