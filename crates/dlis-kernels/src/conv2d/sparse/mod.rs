//! Sparse convolution without a matrix: each weight that is not zero is added to all outputs that it reaches,
//! a few vectors of neighbouring outputs at a time.
//!
//! Turner et al. 2018 ("Characterising Across-Stack Optimisations for Deep Convolutional Neural Networks")
//! found compressed sparse rows slower than dense weights at any sparsity: pixels were the outer loop, so that
//! every pixel walked through all indices again. Here, as in Elsen et al. 2020 ("Fast Sparse `ConvNets`") and
//! Park et al. 2017 ("Faster CNNs with Direct Sparse Convolutions and Guided Pruning"), the loops are the other
//! way round:
//!
//! ```text
//! for each tile of at most 8 vectors of outputs       (its input stays in cache)
//!     for each output channel                          (its sums stay in registers)
//!         for each weight that is not zero: sums += weight * input[place of the weight + output ...]
//! ```
//!
//! The input is copied once into planes that have the padding in place ([`Planes`]), so that a weight meets its
//! input a fixed distance from the output, whatever the window: that distance is what is stored with it. Where
//! maps are small, the images of a batch lie side by side, so that vectors are filled all the same; a linear
//! layer is the case of one pixel.
//!
//! A weight of zero that is not stored contributes nothing, not even where the input is infinite or NaN.

mod entries;
mod tile;

use dlis_backend::{
    AlignedBytes, Disjoint, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, TensorSpec, static_range,
};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;
use dlis_model::{Activation, Conv2d};

use self::entries::{Chunk, Columns, Entries};
use self::tile::{Lines, MAX_SUMS, Row, ZEROS};
pub(super) use self::tile::{QUAD, TALL, most_vectors};
use super::finish::finish;
use super::implicit_gemm::as_conv;
use super::planes::Planes;
use super::tile::{operands, rectify};
use crate::accepts::{self, Accepts};
use crate::axis::Axis;
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
use crate::simd::{Simd, Work, at_every_level};

/// Bytes of the input that a part of the columns reads: with the sums they should fit a small first-level cache.
const PART_BYTES: usize = 28 << 10;
/// The same for small maps, of which an entry reads one vector and no part of another: the second-level cache is
/// almost fast enough for them.
const SMALL_PART_BYTES: usize = 120 << 10;
/// Outputs of a small map.
const SMALL: usize = 16;
/// Least entries of a row within a part, on average: each part loads and stores the row's sums.
const PART_ENTRIES: usize = 24;
/// Most rows that read a part before any reads the next: there must be groups of them for all workers.
const MOST_TOGETHER: usize = 32;
/// Most elements of padded images that lie side by side.
const MAX_INTERLEAVED: usize = 1 << 28;

/// The kernel on one SIMD level, of one format, for convolutions or for linear layers.
struct DirectSparse<S> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd> DirectSparse<S> {
    const fn new(op: &'static str, format: Format) -> Self {
        let id = KernelId::new(op, "f32", format.name(), "direct-sparse", S::LEVEL.name());
        Self { id, format, level: std::marker::PhantomData }
    }

    fn accepts(&self) -> Accepts {
        Accepts { layouts: &[Layout::Nchw], weight: Some(self.format), residual: true, activation: true }
    }

    /// How the input is laid out. Rows that are vectors, or half or a quarter of one, have a copy for every column
    /// of the window, so that vectors neither reach across cache lines nor hold padding between rows; but wide
    /// maps, whose copies would leave the cache, and channels that only one weight or two meet, do not. Maps that
    /// are a vector at most have a copy for every row, too.
    fn planes(&self, op: &OpSpec, conv: &Conv2d) -> Option<Planes> {
        let axes = Axis::both(&conv.window, &op.inputs[0], &op.output);
        let pixels = op.output.pixels();
        let columns = pixels == QUAD
            || op.output.width.is_multiple_of(QUAD) && (op.output.width <= 16 || conv.window.stride[1] > 1);
        let split = [columns && pixels <= SMALL, columns].map(|split| split && !conv.is_depthwise());
        Planes::split(axes, conv.in_channels, split).or_else(|| Planes::new(axes, conv.in_channels))
    }
}

impl<S: Simd> Kernel for DirectSparse<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let (Some(conv), true) = (as_conv(&op.operation), op.operation.name() == self.id.op()) else {
            return accepts::another_operation();
        };
        Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level")
            .and(|| self.accepts().check(op))
            .and(|| Support::when(self.planes(op, &conv).is_some(), "its padded input would be too large"))
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        // Of the dense operation's multiply-adds, most of which it does not do: how many depends on the weight,
        // which it is not told. Few outputs leave lanes empty, and most vectors lie across two cache lines.
        let lanes = S::LANES as f32;
        let outputs = (op.output.batch * op.output.pixels()) as f32;
        (0.6 * lanes / 16.0 * outputs / (outputs + lanes)).clamp(0.02, 1.0)
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Some(conv), true) = (S::new(hw), as_conv(&op.operation), support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let Some(planes) = self.planes(op, &conv) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let dims = conv.weight_dims();
        let dims = if matches!(op.operation, Operation::Linear(_)) { &dims[..2] } else { &dims[..] };
        let weight = accepts::weight(self, weights, self.format, dims)?;
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        // Vectors wider than all outputs would only read across cache lines.
        #[cfg(target_arch = "x86_64")]
        if S::LANES > Avx2::LANES
            && planes.positions() * op.output.batch <= Avx2::LANES
            && let Some(narrower) = Avx2::new(hw)
        {
            return self.prepared(narrower, op, (conv, planes), weight, bias);
        }
        self.prepared(simd, op, (conv, planes), weight, bias)
    }
}

impl<S: Simd> DirectSparse<S> {
    fn prepared<T: Simd>(
        &self,
        simd: T,
        op: &OpSpec,
        (conv, planes): (Conv2d, Planes),
        weight: &Weight,
        bias: AlignedBytes,
    ) -> Result<Box<dyn Prepared>, PrepareError> {
        let height = match weight {
            Weight::Bsr(bsr) => bsr.block()[0],
            _ => 1,
        };
        let images = side_by_side::<T>(&planes, op.output.batch, height);
        let tile = (most_vectors::<T>(height) * T::LANES).min(planes.positions() * images);
        let nonzeros = match weight {
            Weight::Csr(csr) => csr.values().len(),
            Weight::Bsr(bsr) => bsr.block_columns().len(),
            _ => weight.elements(),
        };
        // The sums of as many rows as there is room for, however long a tile is.
        let together = (MAX_SUMS / (height * most_vectors::<T>(height) * T::LANES)).clamp(1, MOST_TOGETHER);
        let columns = columns(&conv, &planes, (tile, together), images, nonzeros * height / conv.out_channels);
        let per_group = conv.out_channels / conv.groups;
        let entries = match weight {
            Weight::Csr(csr) => Entries::of_csr(csr, &columns),
            // Blocks that reach from one group into the next have no one place in the input.
            Weight::Bsr(bsr) if conv.groups == 1 || per_group.is_multiple_of(bsr.block()[0]) => {
                Entries::of_bsr(bsr, &columns)
            }
            other => match other.convert(Format::CsrF32) {
                Ok(Weight::Csr(csr)) => Entries::of_csr(&csr, &columns),
                _ => return Err(accepts::unsupported(self, op, Support::No("its blocks reach across groups".into()))),
            },
        };
        // Lines of whole vectors need not count the padding between them.
        let (width, of_line) = (op.output.width, op.output.width / T::LANES);
        let by_lines = planes.pitch() != width && images == 1 && height == 1;
        let by_lines = by_lines && width.is_multiple_of(T::LANES) && matches!(of_line, 2 | 4);
        let lines = Lines { vectors: if by_lines { of_line } else { 0 }, pitch: planes.pitch() };
        let lanes = planes.positions() * images;
        // Of small maps the copy costs less than it saves: behind it lie zeros.
        let copied = images > 1 || !planes.is_in_place() || !lanes.is_multiple_of(T::LANES) || lanes <= SMALL;
        let (input, output) = (op.inputs[0], op.output);
        Ok(Box::new(PreparedSparse {
            simd,
            conv,
            input,
            output,
            epilogue: op.epilogue,
            planes,
            entries,
            bias,
            images,
            copied,
            lines,
        }))
    }
}

/// How the columns of a group's weights meet the input, for tiles of this many outputs and rows of this many
/// entries.
fn columns(conv: &Conv2d, planes: &Planes, (tile, together): (usize, usize), images: usize, of_row: usize) -> Columns {
    let depth = conv.in_channels / conv.groups;
    let places: Vec<u32> = planes.offsets(depth).iter().map(|&at| u32::try_from(at).unwrap_or(0)).collect();
    // As many channels as the cache has room for, but not so many that a place takes more than 16 bits.
    let read = planes.read_of_channel(tile.div_ceil(images)) * images * size_of::<f32>();
    let channel = planes.channels(0..1).end;
    let part_bytes = if (QUAD + 1..=SMALL).contains(&planes.positions()) { SMALL_PART_BYTES } else { PART_BYTES };
    let parts = depth.div_ceil((part_bytes / read).max(1)).min(of_row / PART_ENTRIES);
    let parts = parts.max((depth * channel).div_ceil(1 << 16)).clamp(1, depth);
    let channels = depth.div_ceil(parts);
    Columns { places, part: channels * conv.window.taps(), part_len: channels * channel, together }
}

/// Images of a batch that lie side by side: as many as fill a tile.
fn side_by_side<S: Simd>(planes: &Planes, batch: usize, height: usize) -> usize {
    let tile = most_vectors::<S>(height) * S::LANES;
    (tile / planes.positions()).min(MAX_INTERLEAVED / planes.padded_len().max(1)).clamp(1, batch)
}

#[derive(Debug)]
struct PreparedSparse<S> {
    simd: S,
    conv: Conv2d,
    input: TensorSpec,
    output: TensorSpec,
    epilogue: Epilogue,
    planes: Planes,
    entries: Entries,
    bias: AlignedBytes,
    /// Images side by side.
    images: usize,
    /// Whether the input is copied to scratch, rather than read where it is.
    copied: bool,
    lines: Lines,
}

impl<S: Simd> PreparedSparse<S> {
    /// Zeros behind the planes: a vector, which the last outputs' may reach into, and some to be read for nothing.
    fn slack(&self) -> usize {
        (1 + ZEROS) * S::LANES
    }

    /// Elements of padded images that lie side by side.
    fn padded_len(&self) -> usize {
        if self.copied { self.planes.padded_len() * self.images } else { 0 }
    }
}

impl<S: Simd> Prepared for PreparedSparse<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        // Vectors of the last outputs reach beyond them.
        let slack = if self.copied { self.slack() } else { 0 };
        Footprint {
            weight_bytes: self.entries.bytes() + self.bias.allocated(),
            scratch_bytes: (self.padded_len() + slack) * size_of::<f32>(),
            worker_scratch_bytes: 0,
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, residual) = operands(io, &self.input, &self.output, &self.epilogue);
        let (padded, _, _) = scratch.f32();
        let output = Disjoint::new(io.output().f32());
        // A tile is of neighbouring lines, or of neighbouring vectors.
        let (units, unit) = match self.lines.vectors {
            0 => ((self.planes.positions() * self.images).div_ceil(S::LANES), 1),
            of_line => (self.output.height, of_line),
        };
        let tiles = units.div_ceil(most_vectors::<S>(self.entries.height()) / unit);
        let (rows, together) = (self.entries.rows(), self.entries.together());
        let groups = rows.div_ceil(together);
        let runs = (8 * parallel.threads()).div_ceil(tiles).clamp(1, groups);
        for (index, images) in input.chunks(self.planes.image_len() * self.images).enumerate() {
            let planes: &[f32] = if self.copied {
                let padded = &mut padded[..self.padded_len() + self.slack()];
                self.lay_out(images, padded, parallel);
                padded
            } else {
                images
            };
            let first_image = index * self.images;
            let images = self.images.min(self.output.batch - first_image);
            parallel.for_each(tiles * runs, |_, tasks| {
                for task in tasks {
                    let units = static_range(units, tiles, task / runs);
                    let vectors = units.start * unit..units.end * unit;
                    let groups = static_range(groups, runs, task % runs);
                    let rows = groups.start * together..rows.min(groups.end * together);
                    let tile = Tile {
                        prepared: self,
                        planes,
                        residual,
                        output: &output,
                        images: first_image..first_image + images,
                        vectors,
                        rows,
                    };
                    self.simd.vectorize(tile);
                }
            });
        }
    }
}

impl<S: Simd> PreparedSparse<S> {
    /// Copies images into planes, and zeros behind them.
    fn lay_out(&self, images: &[f32], padded: &mut [f32], parallel: Parallel<'_>) {
        let (planes, slack) = padded.split_at_mut(self.padded_len());
        slack.fill(0.0);
        if self.images > 1 {
            self.planes.interleave(images, self.images, planes, parallel);
        } else if self.planes.is_in_place() {
            planes.copy_from_slice(images);
        } else {
            self.planes.fill(self.simd, images, planes, parallel);
        }
    }
}

/// Some rows of blocks on a few vectors of outputs.
struct Tile<'a, S> {
    prepared: &'a PreparedSparse<S>,
    /// The input, laid out.
    planes: &'a [f32],
    residual: Option<&'a [f32]>,
    output: &'a Disjoint<'a, f32>,
    /// The images that lie side by side.
    images: std::ops::Range<usize>,
    vectors: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
}

impl<P: Simd> Work for Tile<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PreparedSparse { conv, planes, entries, bias, images: scale, lines, .. } = self.prepared;
        let mut chunk = Chunk::new();
        let mut sums = [0.0f32; MAX_SUMS];
        let lanes = self.vectors.len() * S::LANES;
        let first = match lines.vectors {
            0 => self.vectors.start * S::LANES,
            of_line => self.vectors.start / of_line * lines.pitch,
        };
        let height = entries.height();
        let per_group = conv.out_channels / conv.groups;
        let group_len = planes.channels(0..conv.in_channels / conv.groups).end;
        let of_row = height * lanes;
        let together = entries.together();
        let mut begin = self.rows.start;
        while begin < self.rows.end {
            let rows = begin..(begin + together).min(self.rows.end);
            begin = rows.end;
            for part in 0..entries.parts() {
                let segments = entries.segment(&rows, part)..;
                for ((row, segment), sums) in rows.clone().zip(segments).zip(sums.chunks_mut(of_row)) {
                    let group = if conv.groups > 1 { row * height / per_group * group_len } else { 0 };
                    let start = (group + part * entries.part_len()) * scale + first;
                    let input = self.planes[start..].as_ptr();
                    let zeros = self.prepared.padded_len().checked_sub(start).filter(|_| self.prepared.copied);
                    let zeros = zeros.and_then(|zeros| u32::try_from(zeros).ok());
                    #[expect(clippy::cast_possible_truncation, reason = "at most a tile's lanes")]
                    let row = Row { entries, segment, begun: part > 0, scale: *scale as u32, lines: *lines, zeros };
                    // SAFETY: the greatest place is that of the last output's last tap less that output, so what is
                    // read ends at most one vector less one element behind the group's planes: behind the last ones
                    // is slack, unless the outputs are whole vectors.
                    unsafe { row.sum(simd, input, self.vectors.len(), &mut chunk, sums) };
                }
            }
            for (row, sums) in rows.zip(sums.chunks_mut(of_row)) {
                let channels = row * height..((row + 1) * height).min(conv.out_channels);
                for (channel, sums) in channels.zip(sums.chunks_mut(lanes)) {
                    let bias = bias.f32().get(channel).copied().unwrap_or(0.0);
                    if *scale > 1 {
                        self.scatter(simd, channel, bias, sums);
                    } else {
                        self.store(simd, channel, bias, sums);
                    }
                }
            }
        }
    }
}

impl<P: Simd> Tile<'_, P> {
    /// The first of the tile's sums, and how many are not beyond the last output.
    fn extent(&self) -> (usize, usize) {
        let first = self.vectors.start * P::LANES;
        let end = (self.vectors.end * P::LANES).min(self.prepared.planes.positions() * self.prepared.images);
        (first, end - first)
    }

    /// The rows of outputs of which at least one image's lies between these two places.
    fn rows_between(&self, first: usize, end: usize) -> std::ops::Range<usize> {
        let PreparedSparse { output, planes, .. } = self.prepared;
        // Rows that end in padding may overlap: their outputs there are one sum.
        let begin = (first + 1).saturating_sub(output.width).div_ceil(planes.pitch());
        begin..end.div_ceil(planes.pitch()).min(output.height)
    }

    /// Finishes and writes those sums of one channel that are outputs.
    #[inline(always)]
    fn store<S: Simd>(&self, simd: S, channel: usize, bias: f32, sums: &[f32]) {
        let PreparedSparse { output, planes, lines, .. } = self.prepared;
        let plane = (self.images.start * output.channels + channel) * output.pixels();
        if lines.vectors > 0 {
            // Whole lines, nothing between them.
            self.put(simd, plane + self.vectors.start * P::LANES, bias, sums);
            return;
        }
        let (first, count) = self.extent();
        if planes.pitch() == output.width {
            self.put(simd, plane + first, bias, &sums[..count]);
            return;
        }
        for y in self.rows_between(first, first + count) {
            let row = y * planes.pitch();
            let begin = row.max(first);
            let end = (row + output.width).min(first + count);
            self.put(simd, plane + y * output.width + begin - row, bias, &sums[begin - first..end - first]);
        }
    }

    /// Finishes neighbouring outputs. (Not a closure: that would not be compiled for the SIMD level.)
    #[inline(always)]
    fn put<S: Simd>(&self, simd: S, start: usize, bias: f32, sums: &[f32]) {
        let range = start..start + sums.len();
        let residual = self.residual.map(|residual| &residual[range.clone()]);
        // SAFETY: rows of blocks and vectors of outputs belong to one task each, so no two parts overlap.
        let to = unsafe { self.output.slice(range) };
        finish(simd, (to, sums), bias, residual, self.prepared.epilogue.activation);
    }

    /// As [`store`](Self::store), of images that lie side by side.
    #[inline(always)]
    fn scatter<S: Simd>(&self, simd: S, channel: usize, bias: f32, sums: &mut [f32]) {
        let PreparedSparse { output, epilogue, planes, images: scale, .. } = self.prepared;
        let (first, count) = self.extent();
        let end = first + count;
        if self.residual.is_none() {
            for sums in sums.chunks_exact_mut(S::LANES) {
                // SAFETY: the chunk is one vector.
                unsafe {
                    let sum = simd.add(simd.load(sums.as_ptr()), simd.splat(bias));
                    simd.store(sums.as_mut_ptr(), rectify(simd, epilogue.activation, sum));
                }
            }
        }
        for y in self.rows_between(first / scale, end.div_ceil(*scale)) {
            for x in 0..output.width {
                let lane = (y * planes.pitch() + x) * scale;
                for lane in lane.max(first)..(lane + self.images.len()).min(end) {
                    let image = self.images.start + lane % scale;
                    let place = (image * output.channels + channel) * output.pixels() + y * output.width + x;
                    let mut sum = sums[lane - first];
                    if let Some(residual) = self.residual {
                        sum = sum + bias + residual[place];
                        sum = epilogue.activation.map_or(sum, |activation| activation.apply(sum));
                    } else if epilogue.activation == Some(Activation::Sigmoid) {
                        sum = Activation::Sigmoid.apply(sum);
                    }
                    // SAFETY: as in `store`.
                    let to = unsafe { self.output.slice(place..place + 1) };
                    to[0] = sum;
                }
            }
        }
    }
}

macro_rules! kernels {
    ($($op:literal $format:ident),+) => {
        at_every_level!($(DirectSparse($op, Format::$format)),+)
    };
}

pub(crate) static KERNELS: &[&dyn Kernel] = kernels!(
    "conv2d" CsrF32, "conv2d" CsrF16, "conv2d" Bsr1x4, "conv2d" Bsr4x1,
    "linear" CsrF32, "linear" CsrF16, "linear" Bsr1x4, "linear" Bsr4x1
);
