//! Convolution whose lanes are pixels: the sets of a channel's weights are matched for it alone.
//!
//! Where lanes are channels, a vector of weights is light only if those of all its channels are, and of layers of few inputs,
//! whose weights are large beside each other, half of the vectors are not; they take twice the instructions then that
//! light ones would. Of one channel a tenth is not. So the inputs of a panel of pixels are turned around: of each four
//! inputs a row, a lane for each pixel, multiplied with the same weights in all lanes. The bytes of four channels make a
//! lane again, and are turned back.

use std::ops::Range;

use dlis_backend::{AlignedBytes, Footprint, Io, Parallel, Prepared, Scratch, TensorSpec, static_range};
use dlis_model::Conv2d;

use super::super::output::{Output, Tensors};
use super::super::simd::{Dot, DotWork, MAX_LANES};
use super::bands::Source;
use super::sets::{AlignedSets, FOUR, Sets, TWO, Vector, match_block};
use super::{MAX_SPAN, ROWS};
use crate::tasks::Tasks;

/// Pixels of a panel: a full tile of vectors of eight.
const PIXELS: usize = 64;
/// Bytes from four inputs of a panel to the next four.
const ROW: usize = 4 * PIXELS;
/// Most steps of four inputs of a window, whose panel is 32 KiB then: a first-level cache, or two thirds of one.
const MAX_QUADS: usize = 128;

/// A layer with weights in sets of one output channel each.
pub(super) struct Turned<D> {
    dot: D,
    input: TensorSpec,
    output: TensorSpec,
    source: Source,
    /// Bytes from a window's first to each of its taps.
    taps: Vec<usize>,
    /// Which of the channels that are finished together is computed when.
    order: Vec<u8>,
    /// Sets of each, in that order.
    fours: AlignedSets<FOUR>,
    twos: AlignedSets<TWO>,
    constants: Output,
    zero_point: u8,
}

/// Whether there is a panel of pixels at least, few enough inputs, and nothing to add to results.
pub(super) fn suits(conv: &Conv2d, output: &TensorSpec, constants: &Output) -> bool {
    let quads = conv.in_channels.div_ceil(4).checked_mul(conv.window.taps());
    conv.groups == 1
        && quads.is_some_and(|quads| quads <= MAX_QUADS)
        && output.batch * output.pixels() >= PIXELS
        && constants.is_plain()
}

impl<D: Dot> Turned<D> {
    /// Channels finished together: as many fours of bytes as there are lanes.
    const TOGETHER: usize = 4 * D::LANES;

    /// Of values in row-major order, `[out][channel][tap]`, of a layer that [`suits`]. None, if its windows or rows do not keep
    /// within the limits.
    pub(super) fn new(
        dot: D,
        conv: Conv2d,
        [input, output]: [TensorSpec; 2],
        values: &[i8],
        constants: Output,
        zero_point: u8,
    ) -> Option<Self> {
        let source = Source::new(conv, input, output, MAX_SPAN)?;
        let ([_, kernel_width], taps) = (conv.window.kernel, conv.window.taps());
        let mut of_channels = Vec::with_capacity(conv.out_channels);
        for of_channel in values.chunks(conv.in_channels * taps) {
            let mut vectors = Vec::with_capacity(taps * source.depth() / 4);
            for tap in 0..taps {
                for first in (0..source.depth()).step_by(4) {
                    let row = (tap * source.depth() + first) / 4;
                    let place = u16::try_from(row * ROW / 4).ok()?;
                    let mut weights = [0; 4];
                    for (weight, channel) in weights.iter_mut().zip(first..conv.in_channels) {
                        *weight = of_channel[channel * taps + tap].cast_unsigned();
                    }
                    vectors.extend(Vector::light(place, &weights));
                }
            }
            let (mut fours, mut twos) = (Sets::new(), Sets::new());
            match_block(&vectors, 4, &mut fours, &mut twos);
            of_channels.push((of_channels.len(), fours, twos));
        }
        // Channels that are finished together are computed in an order in which the number of sets changes seldom, so that
        // the processor foresees it.
        for some in of_channels.chunks_mut(Self::TOGETHER) {
            some.sort_by_key(|(_, fours, twos)| (fours.len(), twos.len()));
        }
        let (mut order, mut fours, mut twos) = (Vec::with_capacity(of_channels.len()), Sets::new(), Sets::new());
        for (channel, fours_of, twos_of) in of_channels {
            order.push(u8::try_from(channel % Self::TOGETHER).ok()?);
            fours.append(fours_of);
            twos.append(twos_of);
        }
        let taps = (0..taps).map(|tap| source.tap(tap / kernel_width, tap % kernel_width)).collect();
        let (fours, twos) = (fours.aligned(), twos.aligned());
        Some(Self { dot, input, output, source, taps, order, fours, twos, constants, zero_point })
    }

    /// Bytes of a worker's scratch: a copy of rows, a panel, and the sums and results of channels that are finished together.
    fn scratch(&self) -> [usize; 4] {
        let panel = self.taps.len() * self.source.depth() / 4 * ROW;
        let tile = 4 * ROWS * D::LANES;
        [AlignedBytes::round_up(self.source.scratch()), panel, tile * Self::TOGETHER, tile * D::LANES]
    }

    fn weight_bytes(&self) -> usize {
        self.fours.bytes() + self.twos.bytes() + size_of_val(&*self.order)
    }
}

impl<D: Dot> Prepared for Turned<D> {
    fn footprint(&self, _threads: usize) -> Footprint {
        let weight_bytes = self.weight_bytes() + size_of_val(&*self.taps) + self.constants.bytes();
        let worker_scratch_bytes = AlignedBytes::round_up(self.scratch().iter().sum());
        Footprint { weight_bytes, scratch_bytes: 0, worker_scratch_bytes }
    }

    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0);
        assert!(
            input.spec().same_bytes(&self.input) && io.output_spec().same_bytes(&self.output),
            "tensors of the operation"
        );
        let tensors = Tensors::of(io, false);
        // A task is a band of about a panel or more and, where these are few, some of the channels: each turns its pixels itself.
        let panels = self.output.batch * self.output.pixels() / PIXELS;
        let wanted = if parallel.threads() == 1 { 1 } else { panels.min(8 * parallel.threads()) };
        let bands = self.source.bands(wanted);
        let each = Self::TOGETHER;
        let most = self.output.channels.div_ceil(each);
        let columns = if parallel.threads() == 1 { 1 } else { (4 * parallel.threads()).div_ceil(wanted).min(most) };
        let tasks = Tasks::new(columns, self.source.count(bands), self.weight_bytes(), input.spec().bytes());
        let (source, input) = (&self.source, (input.u8(), self.zero_point));
        let scratch = (scratch, self.scratch().iter().sum());
        source.for_each_task((tasks, bands), input, scratch, parallel, |column, pixels, from, scratch| {
            let channels = static_range(most, columns, column);
            let channels = channels.start * each..(channels.end * each).min(self.output.channels);
            self.dot.vectorize(Task { layer: self, from, tensors: &tensors, channels, pixels, scratch });
        });
    }
}

/// A band of pixels of some channels.
struct Task<'a, D> {
    layer: &'a Turned<D>,
    /// The input, or the copy for the band.
    from: &'a [u8],
    tensors: &'a Tensors<'a>,
    channels: Range<usize>,
    pixels: Range<usize>,
    scratch: &'a mut [u8],
}

impl<P: Dot> DotWork for Task<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let Self { layer, from, tensors, channels, pixels, scratch } = self;
        let [_, of_panel, of_sums, _] = layer.scratch();
        let (panel, scratch) = scratch.split_at_mut(of_panel);
        let (sums, words) = scratch.split_at_mut(of_sums);
        let mut windows = layer.source.windows(0, pixels.start);
        for first in pixels.clone().step_by(PIXELS) {
            let count = PIXELS.min(pixels.end - first);
            let vectors = count.div_ceil(D::LANES);
            // Lanes beyond the last pixel repeat it.
            let mut places = [from.as_ptr(); PIXELS];
            for index in 0..vectors * D::LANES {
                places[index] = if index < count {
                    let [window] = windows.take();
                    from[window..][..layer.source.span()].as_ptr()
                } else {
                    places[count - 1]
                };
            }
            // SAFETY: at each place all taps of a window are readable.
            unsafe { turn(d, layer, &places[..vectors * D::LANES], panel) };
            let mut tiles =
                Tiles { layer, tensors, channels: channels.clone(), panel, sums: &mut *sums, words: &mut *words };
            let mut vector = 0;
            while vector < vectors {
                let at = first + vector * D::LANES;
                let count = count - vector * D::LANES;
                vector += match vectors - vector {
                    ROWS.. => tiles.tile::<D, ROWS>(d, vector, at, count),
                    4.. => tiles.tile::<D, 4>(d, vector, at, count),
                    2.. => tiles.tile::<D, 2>(d, vector, at, count),
                    _ => tiles.tile::<D, 1>(d, vector, at, count),
                };
            }
        }
    }
}

/// Turns the windows at these places, of whole vectors of pixels: of each four inputs a row.
///
/// # Safety
///
/// All taps must be readable there.
#[inline(always)]
unsafe fn turn<D: Dot, P>(d: D, layer: &Turned<P>, places: &[*const u8], panel: &mut [u8]) {
    let quads = layer.source.depth() / 4;
    assert!(panel.len() >= layer.taps.len() * quads * ROW && places.len() <= PIXELS, "room for all inputs");
    for (tap, &offset) in layer.taps.iter().enumerate() {
        for (vector, places) in places.chunks_exact(D::LANES).enumerate() {
            let to = panel[tap * quads * ROW + 4 * vector * D::LANES..].as_mut_ptr();
            let whole = quads - quads % D::LANES;
            for quad in (0..whole).step_by(D::LANES) {
                // SAFETY: as many fours are read as the tap has, and as many rows written as the panel.
                unsafe { d.transpose(places, offset + 4 * quad, to.add(quad * ROW), ROW) };
            }
            for quad in whole..quads {
                for (lane, place) in places.iter().enumerate() {
                    // SAFETY: as above.
                    unsafe {
                        let four = place.add(offset + 4 * quad).cast::<[u8; 4]>().read();
                        to.add(quad * ROW + 4 * lane).cast::<[u8; 4]>().write(four);
                    }
                }
            }
        }
    }
}

/// A panel, and what is made of it.
struct Tiles<'a, D> {
    layer: &'a Turned<D>,
    tensors: &'a Tensors<'a>,
    channels: Range<usize>,
    panel: &'a [u8],
    /// Of `LANES` times four channels and `ROWS` vectors of pixels.
    sums: &'a mut [u8],
    /// Of as many.
    words: &'a mut [u8],
}

impl<P: Dot> Tiles<'_, P> {
    /// Computes `ROWS` vectors of the panel, from `vector` on, and says how many they are: the `count` pixels from `first` on,
    /// or as many as there is room for.
    #[inline(always)]
    fn tile<D: Dot, const ROWS: usize>(&mut self, d: D, vector: usize, first: usize, count: usize) -> usize {
        let Turned { output, constants, order, fours, twos, .. } = self.layer;
        let Tensors::Bytes { output: to, .. } = self.tensors else { unreachable!("results are bytes") };
        let (bytes, channels) = (4 * D::LANES, output.channels);
        let count = count.min(ROWS * D::LANES);
        assert!((first + count) * channels <= to.len(), "pixels of the output");
        assert!(
            self.sums.len() >= bytes * ROWS * bytes && self.words.len() >= D::LANES * ROWS * bytes,
            "room for results"
        );
        let panel = self.panel[vector * bytes..].as_ptr();
        let (sums, words) = (self.sums.as_mut_ptr(), self.words.as_mut_ptr());
        for channel in self.channels.clone().step_by(bytes) {
            let width = (self.channels.end - channel).min(bytes);
            for (index, &which) in (channel..).zip(&order[channel..channel + width]) {
                let which = usize::from(which);
                let mut of_channel = [d.splat_int(constants.start_of(channel + which)); ROWS];
                // SAFETY: places of weights are rows of the panel, and the vectors are of each. The channel is one of those
                // that are finished together, for whose sums there is room.
                unsafe {
                    accumulate(d, &mut of_channel, panel, fours.of(index, 4));
                    accumulate(d, &mut of_channel, panel, twos.of(index, 4));
                    for (row, sum) in of_channel.into_iter().enumerate() {
                        d.store_ints(sums.add((which * ROWS + row) * bytes).cast(), sum);
                    }
                }
            }
            for four in (0..width).step_by(4) {
                let finish = constants.of_four(d, channel + four);
                for row in 0..ROWS {
                    // SAFETY: as above; of channels beyond the last, whose results are not used, there is something too.
                    unsafe {
                        let of = |index: usize| d.ints(sums.add(((four + index) * ROWS + row) * bytes).cast());
                        let results = finish.bytes(d, [of(0), of(1), of(2), of(3)]);
                        d.store_ints(words.add((row * D::LANES + four / 4) * bytes).cast(), results);
                    }
                }
            }
            for row in 0..ROWS {
                let at = row * D::LANES;
                let pixels = (count - at).min(D::LANES);
                let mut rows = [words.cast_const(); MAX_LANES];
                for (index, place) in rows.iter_mut().enumerate().take(D::LANES) {
                    *place = words.wrapping_add((at + index) * bytes);
                }
                let rows = &rows[..D::LANES];
                // SAFETY: pixels and channels belong to one task each, so that no other part in use overlaps, and are within the
                // output, as checked above. The array has room for the widest vectors.
                unsafe {
                    let to = to.as_mut_ptr().add((first + at) * channels + channel);
                    if pixels == D::LANES && width == bytes {
                        d.transpose(rows, 0, to, channels);
                    } else {
                        let mut aside = [[0; 4 * MAX_LANES]; MAX_LANES];
                        d.transpose(rows, 0, aside.as_mut_ptr().cast(), 4 * MAX_LANES);
                        for (pixel, of_pixel) in aside.iter().enumerate().take(pixels) {
                            std::ptr::copy_nonoverlapping(of_pixel.as_ptr(), to.add(pixel * channels), width);
                        }
                    }
                }
            }
        }
        ROWS
    }
}

/// Adds the products of sets of `N` vectors to the sums of a channel.
///
/// # Safety
///
/// As many vectors must be readable, side by side, at four times each place from `panel` on.
#[inline(always)]
unsafe fn accumulate<D: Dot, const ROWS: usize, const N: usize>(
    d: D,
    sums: &mut [D::Ints; ROWS],
    panel: *const u8,
    (places, weights): (&[[u16; N]], &[u8]),
) {
    for (places, of_set) in places.iter().zip(weights.chunks_exact(4 * N)) {
        let from = of_set.as_ptr().cast::<i8>();
        // SAFETY: there are four bytes for each of `N` vectors.
        let mut weights = [unsafe { d.weights_of_all(from) }; N];
        for (index, weights) in weights.iter_mut().enumerate().skip(1) {
            // SAFETY: as above.
            *weights = unsafe { d.weights_of_all(from.add(4 * index)) };
        }
        let places = places.map(usize::from);
        for (row, sum) in sums.iter_mut().enumerate() {
            // SAFETY: as promised.
            *sum = unsafe { d.dot_set_of_lanes(*sum, panel.add(row * 4 * D::LANES), places, weights) };
        }
    }
}
