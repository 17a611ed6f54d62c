//! The innermost loop of products of pixels and dense packed weights: for each term of a sum, a block of weights is loaded
//! and a number of each pixel multiplied with it.
//!
//! Multiply-adds are the limit, but only where a core is not shared: beside another thread of the same core, half of the
//! instructions that it can begin are left, which are fewer than the loop has. So what is no multiply-add counts: terms are
//! taken a few at a time, and no more weights asked for than are wanted.

use dlis_backend::AlignedBytes;

use crate::simd::Simd;

/// Vectors of output channels of a tile.
pub(super) const COLUMNS: usize = 2;
/// Terms taken at a time.
const TERMS: usize = 4;
/// Bytes of a cache line.
const LINE: usize = 64;
/// How far ahead of their use weights of one tile are asked for, in bytes: a page, as the processor's own
/// prefetchers stop at the end of one, and a layer of few pixels does little else than read weights.
const AHEAD: usize = 4096;

/// The sums of a tile.
pub(super) type Sums<V, const ROWS: usize> = [[V; COLUMNS]; ROWS];

/// A number as which weights are stored, and which becomes f32 on its way into a register.
pub(super) trait Stored: Copy + Send + Sync + std::fmt::Debug + 'static {
    /// Whether the sums of an output channel are multiplied by a scale.
    const SCALED: bool;

    /// The vector of weights at `from`.
    ///
    /// # Safety
    ///
    /// A vector's number of elements must be readable there.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::Vector;

    /// Bytes as such numbers.
    fn of(bytes: &AlignedBytes) -> &[Self];

    /// Bytes as such numbers, to write.
    fn of_mut(bytes: &mut AlignedBytes) -> &mut [Self];
}

impl Stored for f32 {
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::Vector {
        // SAFETY: the caller's.
        unsafe { simd.load(from) }
    }

    fn of(bytes: &AlignedBytes) -> &[Self] {
        bytes.f32()
    }

    fn of_mut(bytes: &mut AlignedBytes) -> &mut [Self] {
        bytes.f32_mut()
    }
}

/// The bits of an f16.
impl Stored for u16 {
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::Vector {
        // SAFETY: the caller's.
        unsafe { simd.load_half(from) }
    }

    fn of(bytes: &AlignedBytes) -> &[Self] {
        bytes.u16()
    }

    fn of_mut(bytes: &mut AlignedBytes) -> &mut [Self] {
        bytes.u16_mut()
    }
}

/// Memory that is asked for while something else is computed, so that it is there when it is wanted. It need not exist.
pub(super) trait Ahead: Copy {
    /// Asks for what one term has time for, whose weights are of so many bytes.
    #[inline(always)]
    fn each_term<S: Simd>(&mut self, _simd: S, _block: usize) {}

    /// Asks for what [`TERMS`] terms have time for.
    #[inline(always)]
    fn each_few<S: Simd>(&mut self, _simd: S) {}

    /// What the next tile of the same weights asks for; this one's comes after it.
    fn next(&mut self) -> Self;
}

/// None: it is in the first-level cache.
impl Ahead for () {
    #[inline(always)]
    fn next(&mut self) -> Self {}
}

/// Neighbouring bytes, of which each tile asks for a share.
#[derive(Clone, Copy)]
pub(super) struct Span {
    at: *const u8,
    /// Bytes from what is asked for to what is asked for next.
    step: usize,
    /// And from what one tile asks for to what the next does.
    of_tile: usize,
}

impl Span {
    /// `bytes` bytes from `at` on in `asks` parts.
    #[inline(always)]
    fn over<W>(at: *const W, bytes: usize, asks: usize) -> Self {
        Self { at: at.cast(), step: bytes.div_ceil(asks.max(1)), of_tile: 0 }
    }

    #[inline(always)]
    fn next(&mut self) -> Self {
        let this = *self;
        self.at = self.at.wrapping_add(self.of_tile);
        this
    }
}

/// Up to a block for each term.
#[derive(Clone, Copy)]
pub(super) struct Stream(Span);

impl Stream {
    /// Those of these weights of `terms` terms that are used a little later.
    #[inline(always)]
    pub(super) fn of_terms<W>(weights: &[W], terms: usize) -> Self {
        Self(Span::over(weights.as_ptr().wrapping_byte_add(AHEAD), size_of_val(weights), terms))
    }
}

impl Ahead for Stream {
    #[inline(always)]
    fn each_term<S: Simd>(&mut self, simd: S, block: usize) {
        for line in 0..block.div_ceil(LINE) {
            simd.prefetch(self.0.at.wrapping_add(line * LINE).cast());
        }
        self.0.at = self.0.at.wrapping_add(self.0.step);
    }

    #[inline(always)]
    fn next(&mut self) -> Self {
        Self(self.0.next())
    }
}

/// A line for each few terms.
#[derive(Clone, Copy)]
pub(super) struct Trickle(Span);

impl Ahead for Trickle {
    #[inline(always)]
    fn each_few<S: Simd>(&mut self, simd: S) {
        simd.prefetch(self.0.at.cast());
        self.0.at = self.0.at.wrapping_add(self.0.step);
    }

    #[inline(always)]
    fn next(&mut self) -> Self {
        Self(self.0.next())
    }
}

/// A line for each term, into the second-level cache.
#[derive(Clone, Copy)]
pub(super) struct Far(Span);

impl Far {
    /// All of `values` in the time of `terms` terms.
    #[inline(always)]
    pub(super) fn over<W>(values: &[W], terms: usize) -> Self {
        Self(Span::over(values.as_ptr(), size_of_val(values), terms))
    }
}

impl Ahead for Far {
    #[inline(always)]
    fn each_term<S: Simd>(&mut self, simd: S, _block: usize) {
        simd.prefetch_far(self.0.at);
        self.0.at = self.0.at.wrapping_add(self.0.step);
    }

    #[inline(always)]
    fn next(&mut self) -> Self {
        Self(self.0.next())
    }
}

/// What the tiles of a block of weights ask for.
pub(super) enum Wanted {
    /// Later terms, or much of the next block.
    Much(Stream),
    /// Little of the next block.
    Little(Trickle),
}

impl Wanted {
    /// For `tiles` tiles, which all use these weights of `taps` times `depth` terms; `keep` is how many bytes of weights are
    /// still in a cache when they are wanted. All that the tiles of a block compute is time for the next block to come from memory,
    /// not the first tile alone.
    pub(super) fn new<W>(weights: &[W], [taps, depth]: [usize; 2], tiles: usize, keep: usize) -> Self {
        let (bytes, terms) = (size_of_val(weights), taps * depth);
        if tiles <= 1 || 2 * bytes > keep {
            return Self::Much(Stream::of_terms(weights, terms));
        }
        let (next, of_tile) = (weights.as_ptr_range().end, bytes.div_ceil(tiles));
        // Each tap begins anew to take a few terms.
        let asks = taps * (depth / TERMS);
        let few = Span { of_tile, ..Span::over(next, of_tile, asks) };
        if asks > 0 && few.step <= LINE {
            return Self::Little(Trickle(few));
        }
        Self::Much(Stream(Span { of_tile, ..Span::over(next, of_tile, terms) }))
    }
}

/// Adds to each row's sums its numbers times the weights, a block of `COLUMNS` vectors for each of `terms` terms.
///
/// # Safety
///
/// `terms` elements must be readable from each of `rows` on, and as many blocks from `weights` on.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, W: Stored, const ROWS: usize>(
    simd: S,
    rows: &[*const f32; ROWS],
    mut weights: *const W,
    terms: usize,
    ahead: &mut impl Ahead,
    sums: &mut Sums<S::Vector, ROWS>,
) {
    let block = COLUMNS * S::LANES;
    let mut term = 0;
    while term + TERMS <= terms {
        ahead.each_few(simd);
        for of_these in 0..TERMS {
            ahead.each_term(simd, block * size_of::<W>());
            // SAFETY: the caller's.
            unsafe { one_term(simd, rows, term + of_these, weights.add(of_these * block), sums) };
        }
        // SAFETY: there are blocks for all terms.
        weights = unsafe { weights.add(TERMS * block) };
        term += TERMS;
    }
    while term < terms {
        ahead.each_term(simd, block * size_of::<W>());
        // SAFETY: the caller's.
        unsafe { one_term(simd, rows, term, weights, sums) };
        // SAFETY: there are blocks for all terms.
        weights = unsafe { weights.add(block) };
        term += 1;
    }
}

/// One term, whose block of weights this is.
///
/// # Safety
///
/// As of [`accumulate`].
#[inline(always)]
unsafe fn one_term<S: Simd, W: Stored, const ROWS: usize>(
    simd: S,
    rows: &[*const f32; ROWS],
    term: usize,
    weights: *const W,
    sums: &mut Sums<S::Vector, ROWS>,
) {
    let mut columns = [simd.splat(0.0); COLUMNS];
    for (v, column) in columns.iter_mut().enumerate() {
        // SAFETY: a block is `COLUMNS` vectors.
        *column = unsafe { W::load(simd, weights.add(v * S::LANES)) };
    }
    for (row, sums) in rows.iter().zip(sums.iter_mut()) {
        // SAFETY: the caller's.
        let x = simd.splat(unsafe { *row.add(term) });
        for (sum, &column) in sums.iter_mut().zip(&columns) {
            *sum = simd.mul_add(x, column, *sum);
        }
    }
}
