//! Sparse convolution that sums before it shifts: inputs are read where vectors lie in cache lines, whatever the tap.
//!
//! As in `direct-sparse`, each weight that is not zero is added to a tile of outputs at a time, whose sums stay in
//! registers. There, a tap one column off reads vectors one column off, each across two cache lines, or from a copy of
//! the image of its own. But moving an image and summing it are linear: of one output channel
//!
//! ```text
//! output[x] = sum over taps t, channels c of w[t, c] * input[c][x + t] = sum over t of (sum over c of w[t, c] * input[c])[x + t]
//! ```
//!
//! so that the inner sums are taken of vectors as they lie, and what is moved by a column are they: once for each tap
//! column, not once for each weight. Rows are whole vectors then, and need no padding but lines of zeros above and below.
//! Maps that are one vector, or two of at most eight lanes, have no padding at all: their sums are moved by rows and columns
//! with permutations, and a weight of any tap reads the very same vectors. The image is used as it is. Of maps of four outputs
//! a vector has the sums of two or four weights abreast.
//!
//! ```text
//! for each tile of at most 16 vectors of outputs
//!     for each group of output channels, for each part of the input channels that the first-level cache holds
//!         for each output channel, for each tap column: sums += weight * input, over the weights that are not zero
//!             then the sums are moved, and added to those of the tile
//! ```
//!
//! Maps of 32x32 to 4x4, 64 to 512 channels, a tenth of the weights left: that is 25 to 39 multiply-adds a nanosecond on a
//! core where `direct-sparse` makes 17 to 27 (Zen 4; 58 are the peak).

mod entries;
mod layout;
mod tile;

use std::ops::Range;

use dlis_backend::{
    AlignedBytes, Disjoint, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support, TensorSpec, static_range,
};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;
use dlis_model::Conv2d;

use self::entries::{Division, Entries, WIDENED, height_of};
use self::layout::{Lines, MAX_LEN};
use self::tile::Rows;
use super::finish::finish;
use super::sparse::{QUAD, TALL, most_vectors};
use super::tile::operands;
use crate::accepts::{self, Accepts};
use crate::simd::{Simd, Work, at_every_level};

/// Bytes of the input that a part of the channels reads for a tile, about: with the sums and entries they should mostly
/// stay in the first-level cache.
const PART_BYTES: usize = 40 << 10;
/// Least entries of an output channel within a part, on average: each part loads and stores the channel's sums.
const PART_ENTRIES: usize = 24;
/// Output channels, in rows of blocks, that read a part before any reads the next.
const TOGETHER: usize = 16;
/// Most segments of entries, of which there is one for every row, part and way of moving sums.
const MOST_SEGMENTS: usize = 1 << 26;
/// Most input channels of dense weights: of more, products of blocked layouts make better use of what they read.
const MOST_DENSE_CHANNELS: usize = 8;

/// The kernel on one SIMD level, of one format.
struct ShiftedSums<S> {
    id: KernelId,
    format: Format,
    level: std::marker::PhantomData<S>,
}

impl<S: Simd> ShiftedSums<S> {
    const fn new(format: Format) -> Self {
        let id = KernelId::new("conv2d", "f32", accepts::format_name(format), "shifted-sums", S::LEVEL.name());
        Self { id, format, level: std::marker::PhantomData }
    }

    fn accepts(&self) -> Accepts {
        Accepts { layouts: &[Layout::Nchw], weight: Some(self.format), residual: true, activation: true }
    }

    /// Output channels of a block.
    fn height(&self) -> usize {
        if matches!(self.format, Format::CsrF32 | Format::CsrF16) { 1 } else { TALL }
    }

    fn lines(&self, op: &OpSpec, conv: &Conv2d) -> Result<Lines, &'static str> {
        if conv.groups > 1 {
            return Err("it has groups");
        }
        if self.format == Format::DenseF32 && conv.in_channels > MOST_DENSE_CHANNELS {
            return Err("dense weights of so many channels have better kernels");
        }
        let height = self.height();
        let lines = Lines::new(op, conv, (S::LANES, most_vectors::<S>(height)), height == 1)?;
        // Where entries start is kept for every part, however few there are.
        let segments = conv.out_channels.div_ceil(height).checked_mul(least_parts(conv, &lines) * lines.shifts.len());
        if segments.is_none_or(|segments| segments > MOST_SEGMENTS) {
            return Err("its channels are too many for planes of their size");
        }
        Ok(lines)
    }
}

impl<S: Simd> Kernel for ShiftedSums<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Conv2d(conv) = op.operation else { return accepts::another_operation() };
        Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level")
            .and(|| self.accepts().check(op))
            .and(|| self.lines(op, &conv).map_or_else(|reason| Support::No(reason.into()), |_| Support::Yes))
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        // Of the dense operation's multiply-adds, most of which it does not do: how many depends on the weight, which it
        // is not told. Short tiles have more to do for each weight.
        let (lanes, outputs) = (S::LANES as f32, op.output.pixels() as f32);
        let dense = if self.format == Format::DenseF32 { 0.6 } else { 1.0 };
        (dense * lanes / 16.0 * outputs / (outputs + lanes)).clamp(0.01, 1.0)
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Some(simd), Operation::Conv2d(conv), true) = (S::new(hw), op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let lines =
            self.lines(op, &conv).map_err(|reason| accepts::unsupported(self, op, Support::No(reason.into())))?;
        let weight = accepts::weight(self, weights, self.format, &conv.weight_dims())?;
        let bias = accepts::bias(self, weights, if conv.bias { conv.out_channels } else { 0 })?;
        let tile = tile_vectors::<S>(self.height(), &lines);
        let division = divide(&conv, &lines, (tile, S::LANES), weight);
        let entries = Entries::of(weight, &lines, division)
            .ok_or_else(|| accepts::unsupported(self, op, Support::No("its entries are too many".into())))?;
        let (input, output, epilogue) = (op.inputs[0], op.output, op.epilogue);
        Ok(Box::new(PreparedShifted { simd, input, output, epilogue, lines, tile, entries, bias }))
    }
}

/// Vectors of a tile, which are whole lines: as many as stay in registers with the input; where they divide a plane twice
/// as many, as half as many rows of entries then end, each of which no branch predictor expects. What becomes of the
/// sums of other taps waits in the first-level cache meanwhile.
fn tile_vectors<S: Simd>(height: usize, lines: &Lines) -> usize {
    let most = most_vectors::<S>(height);
    let twice = height == 1 && S::REGISTERS >= 32 && lines.vectors.is_multiple_of(2 * most);
    let most = if twice { 2 * most } else { most };
    most / lines.of_line * lines.of_line
}

/// Parts of the input channels, at least: places within one are 16 bits.
fn least_parts(conv: &Conv2d, lines: &Lines) -> usize {
    conv.in_channels.div_ceil(((1 << 16) / lines.channel()).max(1))
}

/// How channels are divided for tiles of so many vectors of these lanes.
fn divide(conv: &Conv2d, lines: &Lines, (tile, lanes): (usize, usize), weight: &Weight) -> Division {
    let height = height_of(weight);
    let entries = match weight {
        Weight::Csr(csr) => csr.values().len(),
        Weight::Bsr(bsr) => bsr.block_columns().len(),
        other => other.elements() / height,
    };
    let read = lines.read_of_channel(tile.min(lines.vectors), lanes) * conv.in_channels * size_of::<f32>();
    let parts = read.div_ceil(PART_BYTES).min(entries * height / conv.out_channels / PART_ENTRIES);
    let channels = conv.in_channels.div_ceil(parts.max(least_parts(conv, lines)).clamp(1, conv.in_channels));
    Division { channels, together: TOGETHER / height }
}

#[derive(Debug)]
struct PreparedShifted<S> {
    simd: S,
    input: TensorSpec,
    output: TensorSpec,
    epilogue: Epilogue,
    lines: Lines,
    /// Vectors of a tile, at most.
    tile: usize,
    entries: Entries,
    bias: AlignedBytes,
}

impl<S: Simd> PreparedShifted<S> {
    /// Floats that a worker needs to widen values, and for the sums of a group of channels.
    fn worker_len(&self) -> [usize; 2] {
        [WIDENED + S::LANES, self.entries.together() * self.entries.height() * self.tile * S::LANES]
    }

    /// Whether each worker takes whole images: then none waits for another but at the end, and what it lays out is in its
    /// own caches. Few images would leave workers idle, and large ones take their planes once for each.
    fn by_images(&self, threads: usize) -> bool {
        let batch = self.input.batch;
        let fits = self.lines.scratch_len().saturating_mul(threads) <= MAX_LEN;
        threads > 1 && fits && (batch.is_multiple_of(threads) || batch >= 4 * threads)
    }

    /// Tiles of a plane of outputs.
    fn tiles(&self) -> usize {
        (self.lines.vectors / self.lines.of_line).div_ceil(self.tile / self.lines.of_line)
    }

    /// The vectors of one of the tiles, which are whole lines.
    fn vectors(&self, tile: usize) -> Range<usize> {
        let lines = static_range(self.lines.vectors / self.lines.of_line, self.tiles(), tile);
        lines.start * self.lines.of_line..lines.end * self.lines.of_line
    }
}

impl<S: Simd> Prepared for PreparedShifted<S> {
    fn footprint(&self, threads: usize) -> Footprint {
        let planes = self.lines.scratch_len();
        let (shared, own) = if self.by_images(threads) { (0, planes) } else { (planes, 0) };
        Footprint {
            weight_bytes: self.entries.bytes() + self.bias.allocated(),
            scratch_bytes: shared * size_of::<f32>(),
            worker_scratch_bytes: (self.worker_len().iter().sum::<usize>() + own) * size_of::<f32>(),
        }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, residual) = operands(io, &self.input, &self.output, &self.epilogue);
        let (planes, worker_len, workers) = scratch.f32();
        let workers = Disjoint::new(workers);
        let output = Disjoint::new(io.output().f32());
        // What a worker has to itself: for values, for sums, and for planes.
        let own = |worker: usize| {
            // SAFETY: no two calls with the same worker overlap in time, and every worker has its own part.
            let own = unsafe { workers.slice(worker * worker_len..(worker + 1) * worker_len) };
            let [widened, sums] = self.worker_len();
            let (widened, own) = own.split_at_mut(widened);
            let (sums, planes) = own.split_at_mut(sums);
            (widened, sums, planes)
        };
        let (rows, together) = (self.entries.rows(), self.entries.together());
        let images = input.chunks_exact(self.lines.image_len());
        if self.by_images(parallel.threads()) {
            parallel.for_each(images.len(), |worker, range| {
                let (widened, sums, planes) = own(worker);
                for (image, input) in range.clone().zip(images.clone().skip(range.start)) {
                    let planes = self.lines.lay_out(self.simd, input, &mut planes[..self.lines.scratch_len()], None);
                    for tile in 0..self.tiles() {
                        let vectors = self.vectors(tile);
                        let (widened, sums, output) = (&mut *widened, &mut *sums, &output);
                        let rows = 0..rows;
                        let tile =
                            Tile { prepared: self, planes, residual, output, image, vectors, rows, widened, sums };
                        self.simd.vectorize(tile);
                    }
                }
            });
            return;
        }
        let groups = rows.div_ceil(together);
        let runs = (8 * parallel.threads()).div_ceil(self.tiles()).clamp(1, groups);
        for (image, input) in images.enumerate() {
            let planes = &mut planes[..self.lines.scratch_len()];
            let planes = self.lines.lay_out(self.simd, input, planes, Some(parallel));
            parallel.for_each(self.tiles() * runs, |worker, tasks| {
                let (widened, sums, _) = own(worker);
                for task in tasks {
                    let vectors = self.vectors(task / runs);
                    let groups = static_range(groups, runs, task % runs);
                    let rows = groups.start * together..rows.min(groups.end * together);
                    let (widened, sums, output) = (&mut *widened, &mut *sums, &output);
                    let tile = Tile { prepared: self, planes, residual, output, image, vectors, rows, widened, sums };
                    self.simd.vectorize(tile);
                }
            });
        }
    }
}

/// Some rows of blocks on a few vectors of outputs.
struct Tile<'a, S> {
    prepared: &'a PreparedShifted<S>,
    /// The image, laid out.
    planes: &'a [f32],
    residual: Option<&'a [f32]>,
    output: &'a Disjoint<'a, f32>,
    image: usize,
    vectors: Range<usize>,
    rows: Range<usize>,
    widened: &'a mut [f32],
    /// Of the rows of a group.
    sums: &'a mut [f32],
}

impl<P: Simd> Work for Tile<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PreparedShifted { output, epilogue, lines, entries, bias, .. } = self.prepared;
        let (first, lanes) = (self.vectors.start * S::LANES, self.vectors.len() * S::LANES);
        let (together, bias) = (entries.together(), bias.f32());
        let (outputs, of_line) = if lines.abreast > 1 { (QUAD, 0) } else { (lanes, lines.of_line) };
        let mut begin = self.rows.start;
        while begin < self.rows.end {
            let group = begin..(begin + together).min(self.rows.end);
            begin = group.end;
            for part in 0..entries.parts() {
                let input = self.planes[part * entries.part_len() + first..].as_ptr();
                let (segment, count) = (entries.segment(&group, part), group.len());
                let rows = Rows { entries, shifts: &lines.shifts, segment, count, begun: part > 0 };
                // SAFETY: the place of a tap and the tile's vectors from there on lie within the planes of its channel: a
                // plane has a line for every row of outputs that a tap reads, or is one vector or two, and vectors are of
                // outputs. What fills vectors of entries abreast reads the zeros behind the planes.
                unsafe { rows.sum(simd, input, (self.vectors.len(), of_line), self.widened, self.sums) };
            }
            let height = entries.height();
            let channels = group.start * height..(group.end * height).min(output.channels);
            for (channel, sums) in channels.zip(self.sums.chunks_exact_mut(lanes)) {
                // Those of entries abreast.
                let (sums, others) = sums.split_at_mut(outputs);
                for others in others.as_chunks::<QUAD>().0 {
                    sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
                }
                let start = (self.image * output.channels + channel) * output.pixels() + first;
                let range = start..start + outputs;
                let residual = self.residual.map(|residual| &residual[range.clone()]);
                let bias = bias.get(channel).copied().unwrap_or(0.0);
                // SAFETY: rows and vectors of outputs belong to one task each, so no two parts overlap.
                let to = unsafe { self.output.slice(range) };
                finish(simd, (to, sums), bias, residual, epilogue.activation);
            }
        }
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = at_every_level!(
    ShiftedSums(Format::CsrF32),
    ShiftedSums(Format::CsrF16),
    ShiftedSums(Format::Bsr4x1),
    ShiftedSums(Format::DenseF32),
);
