//! How a product is cut into tiles, one a work-group at a time.

use dlis_backend::OpSpec;
use dlis_model::Window;

use super::job::MAX_COLUMNS;
use super::network::{Before, Layer, Work};
use crate::device::DeviceInfo;
use crate::precision::Precision;

/// Work-items of a work-group: each has one output of a tile at most.
pub(super) const WORK_ITEMS: usize = 512;

/// Bytes of the inner dimension that a warp multiplies at a time.
pub(super) const UNIT_BYTES: usize = 64;

/// Units that the kernel has place to list.
const MAX_UNITS: usize = 320;

/// Most rows of a tile: one tile of 16 for each of four groups of warps.
const MAX_ROWS: usize = 64;

/// What a work-group may hold, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Work-groups of a launch: one a multiprocessor, so that all are resident and may wait for each other.
    pub(super) groups: usize,
    /// Local memory for the weights of one job; there are two of them.
    pub(super) weight_bytes: usize,
    /// Local memory for activations.
    pub(super) tile_bytes: usize,
    pub(super) precision: Precision,
}

impl Shape {
    /// That of a device. Drivers promise 48 KiB of local memory, but arrays of a fixed size may take what the
    /// multiprocessor has.
    pub(super) fn of(info: &DeviceInfo, precision: Precision) -> Self {
        let (groups, weight_bytes, tile_bytes) = match info.compute_capability {
            Some([9 | 10, _]) => (info.compute_units, 73_728, 74_752),
            Some([8, 0 | 7]) => (info.compute_units, 49_152, 61_440),
            Some(_) => (info.compute_units, 32_768, 32_768),
            // Emulated: so few that every one has several jobs.
            None => (5, 73_728, 74_752),
        };
        Self { groups, weight_bytes, tile_bytes, precision }
    }

    /// Elements of a unit.
    pub(super) fn unit(&self) -> usize {
        UNIT_BYTES / self.precision.bytes()
    }

    /// Whether the layer can be cut so that its tiles fit local memory.
    pub(super) fn fits(&self, layer: &Layer<'_>) -> bool {
        match Sizes::of(layer) {
            Some(sizes) => self.tiling(&sizes).is_some(),
            None => true,
        }
    }

    /// The best way to cut a product.
    pub(super) fn tiling(&self, sizes: &Sizes) -> Option<Tiling> {
        let [height, width] = sizes.product;
        let mut best: Option<Tiling> = None;
        for columns in [4, 8, 16, MAX_COLUMNS] {
            for rows in (1..=height.min(MAX_ROWS)).filter(|rows| rows % sizes.pool[0] == 0) {
                let widths = [1, 2, 4, 8, 16, 32, width];
                let narrower = |w: &usize| *w == width || (*w < width && w.is_multiple_of(sizes.pool[1]));
                for wide in widths.into_iter().filter(narrower) {
                    let images = if [rows, wide] == [height, width] { sizes.images } else { 1 };
                    for images in 1..=images.min(MAX_ROWS / (rows * wide).max(1)) {
                        if let Some(tiling) = self.candidate(sizes, [images, rows, wide], columns)
                            && best.is_none_or(|best| tiling.cost < best.cost)
                        {
                            best = Some(tiling);
                        }
                    }
                }
            }
        }
        best
    }

    fn candidate(&self, sizes: &Sizes, [images, height, width]: [usize; 3], columns: usize) -> Option<Tiling> {
        let rows = images * height * width;
        let outputs = rows / (sizes.pool[0] * sizes.pool[1]) * columns;
        if rows > MAX_ROWS || outputs > WORK_ITEMS {
            return None;
        }
        let reach = |axis: usize, extent: usize| {
            let Window { kernel, stride, dilation, .. } = sizes.reach;
            (extent - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        };
        let in_height = if sizes.is_mean { sizes.source[0] } else { reach(0, height) };
        let in_width = if sizes.is_mean { sizes.source[1] } else { reach(1, width) };
        let pixels = images.checked_mul(in_height)?.checked_mul(in_width)?;
        let channel_units = sizes.channels.div_ceil(self.unit());
        // As few chunks of channels as fit.
        let most = (self.tile_bytes / pixels.max(1) / UNIT_BYTES).min(channel_units);
        let chunk = (1..=most).rev().find(|&chunk| {
            let pixel = chunk * UNIT_BYTES + 16;
            let left = if sizes.before_taps > 0 { rows * pixel } else { 0 };
            let units = sizes.taps * chunk;
            let before = if sizes.is_depthwise {
                sizes.before_taps * chunk * UNIT_BYTES + chunk * self.unit() * size_of::<f32>()
            } else {
                0
            };
            pixels * pixel + left <= self.tile_bytes
                && units * columns * UNIT_BYTES + before <= self.weight_bytes
                && units <= MAX_UNITS
        })?;
        // Of equal size, the last excepted.
        let chunks = channel_units.div_ceil(chunk);
        let chunk = channel_units.div_ceil(chunks);
        let chunks = channel_units.div_ceil(chunk);
        let row_tiles = rows.div_ceil(16).next_power_of_two();
        let tiles = sizes.images.div_ceil(images)
            * sizes.product[0].div_ceil(height)
            * sizes.product[1].div_ceil(width)
            * sizes.out_channels.div_ceil(columns);
        let pixel_bytes = chunk * UNIT_BYTES + 16;
        let mut tiling = Tiling {
            extents: [images, height, width],
            columns,
            row_tiles,
            source: [in_height, in_width],
            pixel_bytes,
            left_start: if sizes.before_taps > 0 { pixels * pixel_bytes } else { 0 },
            chunk,
            chunks,
            channel_units,
            cost: 0.0,
        };
        tiling.cost = self.cycles(sizes, &tiling, pixels) * tiles.div_ceil(self.groups) as f64;
        Some(tiling)
    }

    /// Rough cycles of a tile, fitted to an H200.
    fn cycles(&self, sizes: &Sizes, tiling: &Tiling, pixels: usize) -> f64 {
        let rows: usize = tiling.extents.iter().product();
        let column_tiles = tiling.columns.div_ceil(8) as f64;
        let (units, row_tiles) = ((sizes.taps * tiling.channel_units) as f64, tiling.row_tiles as f64);
        let (product_cycles, instructions) = match self.precision {
            Precision::F16 => (3.2, 4.0),
            Precision::Tf32 => (3.2, 12.0),
            Precision::F32 => (11.0, 70.0),
        };
        let left = if rows <= 8 { 512.0 } else { 1024.0 };
        let local = units * row_tiles * (left + (tiling.columns * UNIT_BYTES) as f64) / 90.0;
        let multiply = units * row_tiles * column_tiles * 2.0 * product_cycles;
        let issue = units * row_tiles * (14.0 + column_tiles * instructions) / 4.0;
        let vectors = (tiling.channel_units * UNIT_BYTES / 16) as f64;
        let before = match (sizes.before_taps, sizes.is_depthwise) {
            (0, _) => 0.0,
            (taps, true) => (rows * taps) as f64 * vectors * 0.33 + 100.0,
            (taps, false) => (rows * taps) as f64 * vectors * 0.2 + 100.0,
        };
        let stream = (units * (tiling.columns * UNIT_BYTES) as f64 / 40.0 - 2000.0).max(0.0);
        let wide = (column_tiles - 2.0).max(0.0) * 300.0;
        let load = pixels as f64 * vectors * 0.0375;
        2500.0 + tiling.chunks as f64 * 1000.0 + local.max(multiply).max(issue) + before + stream + wide + load
    }
}

/// The extents of a product that tiles are chosen by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) images: usize,
    /// Height and width of the source.
    pub(super) source: [usize; 2],
    pub(super) channels: usize,
    pub(super) out_channels: usize,
    /// Height and width of the product's result, before it is pooled.
    pub(super) product: [usize; 2],
    pub(super) pool: [usize; 2],
    /// Taps of the product.
    pub(super) taps: usize,
    /// The window that slides over the source: the product's, or that before it.
    pub(super) reach: Window,
    /// Taps of what comes before the product, 0 if nothing does.
    pub(super) before_taps: usize,
    pub(super) is_depthwise: bool,
    pub(super) is_mean: bool,
}

impl Sizes {
    /// Those of a product alone.
    pub(super) fn of_op(op: &OpSpec, window: Window) -> Self {
        let (source, output) = (op.inputs[0], op.output);
        Self {
            images: output.batch,
            source: [source.height, source.width],
            channels: source.channels,
            out_channels: output.channels,
            product: [output.height, output.width],
            pool: [1, 1],
            taps: window.kernel[0] * window.kernel[1],
            reach: window,
            before_taps: 0,
            is_depthwise: false,
            is_mean: false,
        }
    }

    /// `None` if the layer is no product.
    pub(super) fn of(layer: &Layer<'_>) -> Option<Self> {
        let Work::Product { window, before, pool, .. } = layer.work else { return None };
        let (source, output) = (layer.source.spec, layer.output.spec);
        let extents = [source.height, source.width];
        let taps = window.kernel[0] * window.kernel[1];
        let (reach, before_taps) = match before {
            None => (window, 0),
            Some(Before::Depthwise { window, .. }) => (window, window.kernel[0] * window.kernel[1]),
            Some(Before::Mean { .. }) => (Window::square(1), source.pixels()),
        };
        Some(Self {
            images: output.batch,
            source: extents,
            channels: source.channels,
            out_channels: output.channels,
            product: [output.height * pool[0], output.width * pool[1]],
            pool,
            taps,
            reach,
            before_taps,
            is_depthwise: matches!(before, Some(Before::Depthwise { .. })),
            is_mean: matches!(before, Some(Before::Mean { .. })),
        })
    }
}

/// A way to cut a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tiling {
    /// Images, rows and columns of pixels of the product's result.
    pub(super) extents: [usize; 3],
    /// Channels of the result.
    pub(super) columns: usize,
    /// Tiles of 16 rows of the left operand: a power of two.
    pub(super) row_tiles: usize,
    /// Rows and columns of pixels of the source.
    pub(super) source: [usize; 2],
    /// Bytes from pixel to pixel in local memory: an odd number of vectors, so that eight of them lie in different
    /// banks.
    pub(super) pixel_bytes: usize,
    /// Where the left operand begins, if it is not the tile of the source itself.
    pub(super) left_start: usize,
    /// Units of channels in a chunk.
    pub(super) chunk: usize,
    /// Chunks of channels.
    pub(super) chunks: usize,
    /// Units of channels in all.
    pub(super) channel_units: usize,
    pub(super) cost: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { groups: 132, weight_bytes: 73_728, tile_bytes: 74_752, precision: Precision::F16 };

    fn convolution(channels: usize, out_channels: usize, extent: usize) -> Sizes {
        Sizes {
            images: 1,
            source: [extent; 2],
            channels,
            out_channels,
            product: [extent; 2],
            pool: [1, 1],
            taps: 9,
            reach: Window::square(3).with_padding(1),
            before_taps: 0,
            is_depthwise: false,
            is_mean: false,
        }
    }

    #[test]
    fn every_layer_of_a_small_network_occupies_the_device_once() {
        for (channels, out_channels, extent) in [(64, 64, 32), (128, 128, 16), (256, 256, 8), (512, 512, 4)] {
            let sizes = convolution(channels, out_channels, extent);
            let Tiling { extents: [images, height, width], columns, .. } = SHAPE.tiling(&sizes).unwrap();
            let tiles = (extent / height) * (extent / width) * (out_channels / columns);
            assert_eq!((images, tiles), (1, 128), "{channels} channels");
        }
    }

    #[test]
    fn pooled_windows_are_never_cut() {
        for pool in [[2, 2], [2, 4]] {
            let sizes = Sizes { pool, ..convolution(64, 64, 32) };
            let tiling = SHAPE.tiling(&sizes).unwrap();
            assert_eq!([tiling.extents[1] % pool[0], tiling.extents[2] % pool[1]], [0, 0]);
        }
    }

    #[test]
    fn channels_are_cut_where_local_memory_is_short() {
        let precision = Precision::F32;
        let tiling = Shape { precision, ..SHAPE }.tiling(&convolution(4096, 64, 4)).unwrap();
        assert!(tiling.chunks > 1);
        assert!(tiling.chunk * tiling.chunks >= tiling.channel_units);
    }

    #[test]
    fn a_window_that_fits_nowhere_is_none() {
        let reach = Window::square(200);
        assert_eq!(SHAPE.tiling(&Sizes { reach, taps: 40_000, ..convolution(64, 64, 32) }), None);
    }
}
