//! Bands of output pixels, and copies of the input that they read.

use std::ops::Range;

use dlis_backend::TensorSpec;
use dlis_model::Conv2d;

/// Most bytes of a copy, but for a single row of output: so many stay in a second-level cache.
const MAX_COPY: usize = 128 << 10;

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
}

/// Output pixels of one task, counted over the whole batch: whole images, or rows of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bands {
    images: usize,
    rows: usize,
}

impl Source {
    pub(super) fn new(conv: Conv2d, input: TensorSpec, output: TensorSpec) -> Self {
        let depth = conv.in_channels / conv.groups;
        let copied = conv.window.padding != [0; 4] || !depth.is_multiple_of(4);
        Self { conv, input, output, depth: depth.next_multiple_of(4), copied }
    }

    /// Input channels of a group, a multiple of four.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether the input is copied.
    pub(super) fn is_copied(&self) -> bool {
        self.copied
    }

    /// Rows and columns of an image.
    fn extents(&self) -> [usize; 2] {
        let [top, left, bottom, right] = if self.copied { self.conv.window.padding } else { [0; 4] };
        [self.input.height + top + bottom, self.input.width + left + right]
    }

    /// Bytes of a pixel: the channels of all groups.
    fn pixel(&self) -> usize {
        self.depth * self.conv.groups
    }

    /// Bytes from a window's first tap to another.
    pub(super) fn tap(&self, tap_y: usize, tap_x: usize) -> usize {
        let [down, right] = self.conv.window.dilation;
        (tap_y * down * self.extents()[1] + tap_x * right) * self.pixel()
    }

    /// Bytes from a window's first to its last, of one group.
    pub(super) fn span(&self) -> usize {
        let [height, width] = self.conv.window.kernel;
        self.tap(height - 1, width - 1) + self.depth
    }

    /// Bytes of a copy for so many rows of output, and those that the last reads beyond.
    fn rows_of_copy(&self, rows: usize) -> usize {
        let window = &self.conv.window;
        (rows - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1
    }

    /// Bytes of the copy for a band.
    fn copy_bytes(&self, bands: Bands) -> usize {
        let [height, width] = self.extents();
        let rows = if bands.images > 1 { bands.images * height } else { self.rows_of_copy(bands.rows) };
        rows * width * self.pixel()
    }

    /// Bytes of the largest copy.
    pub(super) fn scratch(&self) -> usize {
        if self.copied { self.copy_bytes(self.bands(1)) } else { 0 }
    }

    /// Bands, at least `wanted` of them if there are as many rows, none of which needs too large a copy.
    pub(super) fn bands(&self, wanted: usize) -> Bands {
        let (batch, height) = (self.output.batch, self.output.height);
        let whole = |images| Bands { images, rows: height };
        let fits = |bands| !self.copied || self.copy_bytes(bands) <= MAX_COPY;
        let images = (batch / wanted.max(1)).max(1);
        if wanted <= batch && fits(whole(1)) {
            let most = if self.copied { MAX_COPY / self.copy_bytes(whole(2)).div_ceil(2) } else { images };
            return whole(images.min(most.max(1)));
        }
        let mut rows = height.div_ceil(wanted.div_ceil(batch));
        while rows > 1 && !fits(Bands { images: 1, rows }) {
            rows = rows.div_ceil(2);
        }
        Bands { images: 1, rows }
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

    /// Copies what the pixels of a band read.
    #[inline(always)]
    pub(super) fn copy(&self, input: &[u8], pixels: &Range<usize>, zero_point: u8, to: &mut [u8]) {
        let Self { conv, input: from, output, depth, .. } = *self;
        let [height, width] = self.extents();
        let [top, left, ..] = conv.window.padding;
        let (image, first) = self.row_of(pixels.start);
        let rows = self.rows_of_copy(1) + {
            let (last_image, last) = self.row_of(pixels.end - 1);
            (last_image - image) * height + last - first
        };
        let row_bytes = width * self.pixel();
        let of_group = conv.in_channels / conv.groups;
        debug_assert!(image < output.batch);
        for (row, to) in (first..first + rows).zip(to.chunks_exact_mut(row_bytes)) {
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
                // Few bytes, for which a call takes longer than the copy.
                for (index, to) in to.iter_mut().enumerate() {
                    *to = from.get(index).copied().unwrap_or(zero_point);
                }
            }
        }
    }

    /// The image of an output pixel and the first of the image's rows that it reads.
    fn row_of(&self, pixel: usize) -> (usize, usize) {
        let row = pixel / self.output.width;
        (row / self.output.height, row % self.output.height * self.conv.window.stride[0])
    }

    /// Bytes from the first of the input, or of the copy for a band that begins with the pixel `start`, to where the
    /// windows of the pixels from `first` on begin, of one group.
    #[inline(always)]
    pub(super) fn windows<const ROWS: usize>(&self, group: usize, start: usize, first: usize) -> [usize; ROWS] {
        let [height, width] = self.extents();
        let [down, right] = self.conv.window.stride;
        let (mut image, mut y) = self.row_of(first);
        let mut x = first % self.output.width;
        // Counted from here.
        let origin = if self.copied {
            let (image, y) = self.row_of(start);
            image * height + y
        } else {
            0
        };
        let mut windows = [0; ROWS];
        for window in &mut windows {
            *window = ((image * height + y - origin) * width + x * right) * self.pixel() + group * self.depth;
            x += 1;
            if x == self.output.width {
                (x, y) = (0, y + down);
                if y == self.output.height * down {
                    (y, image) = (0, image + 1);
                }
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
        let source = Source::new(conv, input, output);
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
                for first in pixels.clone().step_by(3) {
                    let group = first % groups;
                    let windows = source.windows::<3>(group, pixels.start, first);
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
            assert!(source.count(bands) >= wanted.min(batch), "{bands:?} of {source:?}");
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
        check(64, 1, same, 40, [8, 8]);
        let source = |channels, batch, side| {
            let conv = Conv2d { in_channels: channels, out_channels: 1, groups: 1, window: same, bias: false };
            let spec = |channels| TensorSpec::u8(batch, [channels, side, side], Layout::Nhwc);
            Source::new(conv, spec(channels), spec(1))
        };
        assert!(source(128, 1, 40).bands(1).rows < 40);
        let images = source(64, 40, 8).bands(1).images;
        assert!(images > 1 && images < 40);
        for source in [source(128, 1, 40), source(64, 40, 8)] {
            assert!((1..100).all(|wanted| source.copy_bytes(source.bands(wanted)) <= source.scratch()));
            assert!(source.scratch() <= MAX_COPY);
        }
    }
}
