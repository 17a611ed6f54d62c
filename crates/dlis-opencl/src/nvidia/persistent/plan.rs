//! The list of jobs of each work-group.

use std::ops::Range;

use bytemuck::Zeroable as _;
use dlis_backend::OpWeights;
use dlis_model::{Activation, Window};

use super::job::{self, Job, divisor, int};
use super::network::{Before, Layer, Network, Place, Work};
use super::pack::{Block, Dense, Pack};
use super::tile::{Shape, Sizes, Tiling, UNIT_BYTES, WORK_ITEMS};
use crate::kernels::support;
use crate::precision::Precision;

/// All that a launch reads besides tensors.
#[derive(Debug)]
pub(super) struct Plan {
    /// The list of each work-group, all of one length.
    pub(super) jobs: Vec<Job>,
    /// The jobs of each phase, in every list.
    pub(super) phases: Vec<Range<usize>>,
    pub(super) weights: Vec<u8>,
    /// Bytes of packed weights, for each layer.
    pub(super) layer_bytes: Vec<usize>,
}

/// The code of an activation, as `persistent.cl` reads it.
fn activation(function: Option<Activation>) -> i32 {
    match function {
        None => 0,
        Some(Activation::Relu) => 1,
        Some(Activation::Relu6) => 2,
        Some(Activation::Sigmoid) => 3,
    }
}

fn offset(place: &Place, more: usize) -> u32 {
    u32::try_from(place.start + more).expect("places have been checked")
}

/// `at * stride - padding`: where a window begins.
fn first(at: usize, stride: usize, padding: usize) -> i32 {
    int(at * stride) - int(padding)
}

impl Plan {
    pub(super) fn new(network: &Network<'_>, shape: Shape) -> Self {
        let mut pack = Pack::default();
        let mut layer_bytes = Vec::with_capacity(network.layers.len());
        let of_layers = network.phases(shape.precision);
        let count = of_layers.iter().max().map_or(0, |&last| last + 1);
        let mut tiles: Vec<Vec<Vec<Job>>> = vec![Vec::new(); count];
        for (layer, &phase) in network.layers.iter().zip(&of_layers) {
            let before = pack.bytes.len();
            tiles[phase].extend(tiles_of(layer, shape, &mut pack));
            layer_bytes.push(pack.bytes.len() - before);
        }
        let mut lists = vec![Vec::new(); shape.groups];
        let mut phases = Vec::with_capacity(count);
        for (phase, tiles) in tiles.into_iter().enumerate() {
            let start = lists[0].len();
            let mut length = 0;
            for (index, tile) in tiles.into_iter().enumerate() {
                let list = &mut lists[index % shape.groups];
                list.extend(tile);
                length = length.max(list.len() - start);
            }
            for list in &mut lists {
                list.resize(start + length, Job::nothing());
                if phase > 0 && length > 0 {
                    list[start].flags |= job::BARRIER;
                }
            }
            phases.push(start..start + length);
        }
        Self { jobs: lists.concat(), phases, weights: pack.bytes, layer_bytes }
    }
}

fn tiles_of(layer: &Layer<'_>, shape: Shape, pack: &mut Pack) -> Vec<Vec<Job>> {
    match layer.work {
        Work::Window { mode, window, weights } => window_tiles(layer, mode, window, weights, shape, pack),
        Work::Product { .. } => {
            let sizes = Sizes::of(layer).expect("it is a product");
            let tiling = shape.tiling(&sizes).expect("support has found one");
            Product { layer, shape, sizes, tiling }.tiles(pack)
        }
    }
}

/// The elements of the output, divided evenly.
fn window_tiles(
    layer: &Layer<'_>,
    mode: i32,
    window: Window,
    weights: OpWeights<'_>,
    shape: Shape,
    pack: &mut Pack,
) -> Vec<Vec<Job>> {
    let (source, output) = (layer.source.spec, layer.output.spec);
    let block = (mode == job::WINDOW_DEPTHWISE).then(|| {
        let (values, taps) = (support::elements(weights), window.kernel[0] * window.kernel[1]);
        let dense = Dense { values: &values, out_channels: source.channels, channels: 1, taps };
        pack.depthwise(&dense, weights.bias, 0..source.channels, Precision::F32)
    });
    let [source_batch, source_channel, source_row, source_pixel] = layer.source.strides(shape.precision).map(int);
    let [output_batch, output_channel, output_row, output_pixel] = layer.output.strides(shape.precision).map(int);
    let whole = Job {
        kind: job::WINDOW,
        flags: memories(layer),
        shared: block.map_or(0, |block| block.start),
        source: offset(&layer.source, 0),
        source_batch,
        source_row,
        source_pixel,
        source_channel,
        first_row: first(0, 1, window.padding[0]),
        first_column: first(0, 1, window.padding[1]),
        height: int(source.height),
        width: int(source.width),
        channels: int(source.channels),
        pixel_stride: output_channel,
        tap_row: int(window.stride[0]),
        tap_column: int(window.stride[1]),
        output: offset(&layer.output, 0),
        output_batch,
        output_row,
        output_pixel,
        output_rows: int(output.height),
        output_width: int(output.width),
        residual: layer.residual.map_or(job::NONE, |residual| offset(&residual, 0)),
        activation: activation(layer.activation),
        before: mode,
        before_taps: int(window.kernel[0] * window.kernel[1]),
        before_width: int(window.kernel[1]),
        before_row: int(window.dilation[0]),
        before_column: int(window.dilation[1]),
        ..Job::zeroed()
    };
    let elements = output.elements();
    let each = elements.div_ceil(shape.groups).next_multiple_of(WORK_ITEMS.min(elements));
    let range = |start: usize| {
        let mut job = whole;
        job.rows = int(start);
        job.units = int((start + each).min(elements));
        vec![job]
    };
    (0..elements).step_by(each.max(1)).map(range).collect()
}

fn memories(layer: &Layer<'_>) -> i32 {
    job::memories(layer.source.memory, layer.residual.map_or(0, |residual| residual.memory), layer.output.memory)
}

/// A product and how it is cut.
struct Product<'a, 'b> {
    layer: &'b Layer<'a>,
    shape: Shape,
    sizes: Sizes,
    tiling: Tiling,
}

impl Product<'_, '_> {
    /// The chunks of each tile: tiles with the same pixels are neighbours, so that they run at once and share what they
    /// read.
    fn tiles(&self, pack: &mut Pack) -> Vec<Vec<Job>> {
        let Work::Product { weights, before, .. } = self.layer.work else { return Vec::new() };
        let Self { sizes, tiling, .. } = self;
        let unit = self.shape.unit();
        let dense = support::elements(weights);
        let weight =
            Dense { values: &dense, out_channels: sizes.out_channels, channels: sizes.channels, taps: sizes.taps };
        let chunks: Vec<Range<usize>> = (0..tiling.chunks)
            .map(|chunk| chunk * tiling.chunk..((chunk + 1) * tiling.chunk).min(tiling.channel_units))
            .collect();
        let precision = self.shape.precision;
        let shared: Vec<Option<Block>> = match before {
            Some(Before::Depthwise { window, weights, .. }) => {
                let (values, taps) = (support::elements(weights), window.kernel[0] * window.kernel[1]);
                let dense = Dense { values: &values, out_channels: sizes.channels, channels: 1, taps };
                let pack = |units: &Range<usize>| {
                    Some(pack.depthwise(&dense, weights.bias, units.start * unit..units.end * unit, precision))
                };
                chunks.iter().map(pack).collect()
            }
            _ => vec![None; chunks.len()],
        };
        let columns: Vec<usize> = (0..sizes.out_channels).step_by(tiling.columns).collect();
        let mut blocks = Vec::with_capacity(columns.len());
        for &column in &columns {
            let of_column =
                chunks.iter().map(|units| pack.product(&weight, column, tiling.columns, units.clone(), precision));
            blocks.push(of_column.collect::<Vec<_>>());
        }
        let [images, rows, width] = tiling.extents;
        let mut tiles = Vec::new();
        for image in (0..sizes.images).step_by(images) {
            for row in (0..sizes.product[0]).step_by(rows) {
                for across in (0..sizes.product[1]).step_by(width) {
                    for (&column, blocks) in columns.iter().zip(&blocks) {
                        let base = self.tile([image, row, across], column, weights.bias);
                        let last = chunks.len() - 1;
                        let jobs = chunks.iter().zip(blocks).zip(&shared).enumerate();
                        let job = jobs.map(|(index, ((units, block), shared))| {
                            let mut job = self.chunk(base, units.clone(), *block, *shared);
                            job.flags |= if index == 0 { job::FIRST } else { 0 };
                            job.flags |= if index == last { job::LAST } else { 0 };
                            job
                        });
                        tiles.push(job.collect());
                    }
                }
            }
        }
        tiles
    }

    /// What all chunks of a tile have in common.
    fn tile(&self, [image, row, across]: [usize; 3], column: usize, bias: Option<&[f32]>) -> Job {
        let Self { layer, shape, sizes, tiling } = self;
        let Work::Product { window, before, pool, .. } = layer.work else { return Job::nothing() };
        let (source, output) = (layer.source.spec, layer.output.spec);
        let [images, rows, width] = tiling.extents;
        let [source_batch, source_channel, source_row, source_pixel] = layer.source.strides(shape.precision);
        let [output_batch, output_channel, output_row, output_pixel] = layer.output.strides(shape.precision);
        let in_rows = images * rows * width;
        let (pixel, [tile_height, tile_width]) = (tiling.pixel_bytes, tiling.source);
        let (tile_row, tile_image) = (tile_width * pixel, tile_height * tile_width * pixel);
        let pooled = [rows / pool[0], width / pool[1]];
        let at = image * output_batch
            + row / pool[0] * output_row
            + across / pool[1] * output_pixel
            + column * output_channel;
        // Vectors can be copied where channels are neighbours and fill whole ones.
        let by_vector = source_channel == shape.precision.bytes()
            && (sizes.channels * shape.precision.bytes()).is_multiple_of(16)
            && layer.source.start.is_multiple_of(16)
            && (source_pixel.is_multiple_of(16) || source.pixels() == 1);
        let mut flags = memories(layer);
        flags |= if by_vector { 0 } else { job::SCALAR };
        flags |= if in_rows <= 8 { job::EIGHT_ROWS } else { 0 };
        let Window { stride, padding, .. } = sizes.reach;
        let mut job = Job {
            kind: job::PRODUCT,
            flags,
            source: offset(&layer.source, image * source_batch),
            source_batch: int(source_batch),
            source_row: int(source_row),
            source_pixel: int(source_pixel),
            source_channel: int(source_channel),
            tile_height: int(tile_height),
            tile_width: int(tile_width),
            first_row: first(row, stride[0], padding[0]),
            first_column: first(across, stride[1], padding[1]),
            height: int(source.height),
            width: int(source.width),
            images: int(images.min(sizes.images - image)),
            pixel_stride: int(pixel),
            by_tile_width: divisor(tile_width),
            by_tile_height: divisor(tile_height),
            rows: int(in_rows),
            rows_log2_tiles: int(tiling.row_tiles.ilog2() as usize),
            by_image_rows: divisor(rows * width),
            image_rows: int(rows * width),
            by_row_width: divisor(width),
            row_width: int(width),
            kernel_width: int(window.kernel[1]),
            by_kernel_width: divisor(window.kernel[1]),
            columns_log2: int(tiling.columns.ilog2() as usize),
            output: offset(&layer.output, at),
            output_batch: int(output_batch),
            output_row: int(output_row),
            output_pixel: int(output_pixel),
            by_output_image: divisor(pooled[0] * pooled[1]),
            output_image: int(pooled[0] * pooled[1]),
            by_output_width: divisor(pooled[1]),
            output_width: int(pooled[1]),
            valid_images: int(images.min(sizes.images - image)),
            valid_rows: int(pooled[0].min(output.height - row / pool[0])),
            valid_columns: int(pooled[1].min(output.width - across / pool[1])),
            valid_channels: int(tiling.columns.min(sizes.out_channels - column)),
            residual: layer.residual.map_or(job::NONE, |residual| offset(&residual, at)),
            activation: activation(layer.activation),
            pool_height: int(pool[0]),
            pool_width: int(pool[1]),
            pool_row: int(width),
            pool_image: int(rows * width),
            ..Job::zeroed()
        };
        let biases = bias.and_then(|bias| bias.get(column..)).unwrap_or_default();
        job.bias.iter_mut().zip(biases).for_each(|(to, &from)| *to = from);
        match before {
            None => {
                job.a_image = int(tile_image);
                job.a_row = int(stride[0] * tile_row);
                job.a_pixel = int(stride[1] * pixel);
                job.tap_row = int(window.dilation[0] * tile_row);
                job.tap_column = int(window.dilation[1] * pixel);
            }
            Some(before) => {
                job.a_start = int(tiling.left_start);
                job.a_image = int(rows * width * pixel);
                job.a_row = int(width * pixel);
                job.a_pixel = int(pixel);
                job.before_taps = int(sizes.before_taps);
                job.before_image_stride = int(tile_image);
                job.before_scale = 1.0;
                match before {
                    Before::Depthwise { window, activation: function, .. } => {
                        job.before = job::BEFORE_DEPTHWISE;
                        job.before_width = int(window.kernel[1]);
                        job.before_activation = activation(function);
                        job.before_row = int(window.dilation[0] * tile_row);
                        job.before_column = int(window.dilation[1] * pixel);
                        job.before_row_stride = int(stride[0] * tile_row);
                        job.before_pixel_stride = int(stride[1] * pixel);
                    }
                    Before::Mean { activation: function } => {
                        job.before = job::BEFORE_MEAN;
                        job.before_width = int(tile_width);
                        job.before_activation = activation(function);
                        job.before_row = int(tile_row);
                        job.before_column = int(pixel);
                        job.before_scale = 1.0 / sizes.before_taps as f32;
                    }
                }
            }
        }
        job
    }

    /// A tile's job for a range of units of the source's channels.
    fn chunk(&self, tile: Job, units: Range<usize>, block: Block, shared: Option<Block>) -> Job {
        let Self { shape, sizes, tiling, .. } = self;
        let (count, unit) = (units.len(), shape.unit());
        let first = units.start * unit;
        let pixels = tiling.extents[0] * tiling.source[0] * tiling.source[1];
        let vectors = count * UNIT_BYTES / 16;
        let source_channel = usize::try_from(tile.source_channel).expect("strides are positive");
        Job {
            weights: block.start,
            weights_count: int(block.count),
            shared: shared.map_or(0, |shared| shared.start),
            shared_count: int(shared.map_or(0, |shared| shared.count)),
            source: tile.source + u32::try_from(first * source_channel).expect("places have been checked"),
            tile_vectors: int(pixels * vectors),
            pixel_vectors: int(vectors),
            by_pixel_vectors: divisor(vectors),
            channels: int((units.end * unit).min(sizes.channels) - first),
            units: int(sizes.taps * count),
            channel_units: int(count),
            by_channel_units: divisor(count),
            before_stride: int(count * UNIT_BYTES),
            before_bias: int(sizes.before_taps * count * UNIT_BYTES),
            ..tile
        }
    }
}
