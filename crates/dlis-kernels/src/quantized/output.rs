//! What becomes of the integer sums of a convolution or linear layer.

use dlis_backend::{AlignedBytes, Disjoint, Io, Kernel, OpSpec, OpWeights, PrepareError, View};
use dlis_formats::{DType, Quantization};
use dlis_model::Activation;

use super::accepts as quantized;
use super::rescale::{Rounding, multiplier, narrow};
use super::simd::{Dot, Ends, MAX_LANES};

/// Most that a tame sum is multiplied with: it is at most 2^31 from zero, and 2^30 then.
const TAME_MULTIPLIER: f32 = 0.5;
/// Most that a tame bias, and a residual, add to that.
const TAME_TERM: f32 = (1 << 28) as f32;

/// The constants of one output channel.
#[derive(Clone, Copy, Debug)]
struct Channel {
    multiplier: f32,
    bias: f32,
    correction: i32,
}

/// The constants of all output channels, and the type they make. A slot is a channel's place among them: channels
/// are laid out by the caller, in vectors.
#[derive(Debug)]
pub(super) struct Output {
    multipliers: AlignedBytes,
    biases: AlignedBytes,
    /// None, where all are zero: of inputs whose zero point is 0, as after a `ReLU`.
    corrections: Vec<i32>,
    target: Target,
    activation: Option<Activation>,
    /// Whether no result is NaN or beyond 32 bits, whatever the sums. Of most layers' constants, as a byte is made of sums that
    /// are many times as large.
    is_tame: bool,
}

/// The type of the output and of the residual.
#[derive(Clone, Copy, Debug)]
enum Target {
    Bytes { rounding: Rounding, residual: Option<Residual> },
    Floats { residual: bool },
}

/// How a u8 residual is added.
#[derive(Clone, Copy, Debug)]
struct Residual {
    multiplier: f32,
    zero_point: i32,
}

/// The tensors that the sums of one call go to.
#[derive(Debug)]
pub(super) enum Tensors<'a> {
    Bytes { residual: Option<&'a [u8]>, output: Disjoint<'a, u8> },
    Floats { residual: Option<&'a [f32]>, output: Disjoint<'a, f32> },
}

impl<'a> Tensors<'a> {
    /// Those of a call.
    pub(super) fn of(io: &'a mut Io<'_>, op_residual: bool) -> Self {
        let residual: Option<View<'a>> = io.residual();
        assert_eq!(residual.is_some(), op_residual, "a residual where the operation has one");
        if io.output_spec().dtype == DType::U8 {
            let residual = residual.map(|residual| residual.u8());
            Self::Bytes { residual, output: Disjoint::new(io.output().u8()) }
        } else {
            let residual = residual.map(|residual| residual.f32());
            Self::Floats { residual, output: Disjoint::new(io.output().f32()) }
        }
    }
}

/// Where the weights' channels are: their scales, and the sum of each one's weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) scales: &'a [f32],
    pub(super) sums: &'a [i32],
    /// What the level takes off each input before it multiplies.
    pub(super) offset: i32,
}

impl Output {
    /// Of `slots` slots; `slot` is where a channel's constants go.
    pub(super) fn new(
        kernel: &dyn Kernel,
        op: &OpSpec,
        weights: OpWeights<'_>,
        rows: Rows<'_>,
        slots: usize,
        slot: impl Fn(usize) -> usize,
    ) -> Result<Self, PrepareError> {
        let input = quantized::input(kernel, weights, 0)?;
        let (target, scale) = Self::target(kernel, op, weights)?;
        let of_residual = match target {
            Target::Bytes { residual: Some(residual), .. } => 255.0 * residual.multiplier,
            _ => 0.0,
        };
        let mut output = Self {
            multipliers: AlignedBytes::zeroed(slots * size_of::<f32>()),
            biases: AlignedBytes::zeroed(slots * size_of::<f32>()),
            corrections: Vec::new(),
            target,
            activation: op.epilogue.activation,
            is_tame: of_residual.abs() <= TAME_TERM,
        };
        for (channel, (&of_weight, &sum)) in rows.scales.iter().zip(rows.sums).enumerate() {
            let correction = (rows.offset - i32::from(input.zero_point())).wrapping_mul(sum);
            if correction != 0 && output.corrections.is_empty() {
                output.corrections = vec![0; slots];
            }
            let bias = weights.bias.and_then(|bias| bias.get(channel)).copied().unwrap_or(0.0);
            output.set(
                slot(channel),
                Channel {
                    multiplier: narrow(f64::from(input.scale()) * f64::from(of_weight) / scale),
                    bias: narrow(f64::from(bias) / scale),
                    correction,
                },
            );
        }
        Ok(output)
    }

    /// The type made, and what a step of it stands for: 1 of an f32.
    fn target(kernel: &dyn Kernel, op: &OpSpec, weights: OpWeights<'_>) -> Result<(Target, f64), PrepareError> {
        if op.output.dtype != DType::U8 {
            return Ok((Target::Floats { residual: op.epilogue.residual }, 1.0));
        }
        let to: Quantization = quantized::output(kernel, weights)?;
        let residual = if op.epilogue.residual {
            let from = weights.quantization.residual.ok_or_else(|| quantized::missing(kernel, "residual"))?;
            Some(Residual { multiplier: multiplier(from, to), zero_point: i32::from(from.zero_point()) })
        } else {
            None
        };
        Ok((Target::Bytes { rounding: Rounding::new(to, op.epilogue.activation), residual }, f64::from(to.scale())))
    }

    fn set(&mut self, slot: usize, channel: Channel) {
        self.is_tame &= channel.multiplier.abs() <= TAME_MULTIPLIER && channel.bias.abs() <= TAME_TERM;
        self.multipliers.f32_mut()[slot] = channel.multiplier;
        self.biases.f32_mut()[slot] = channel.bias;
        if let Some(correction) = self.corrections.get_mut(slot) {
            *correction = channel.correction;
        }
    }

    /// Whether a residual is added.
    pub(super) fn has_residual(&self) -> bool {
        match self.target {
            Target::Bytes { residual, .. } => residual.is_some(),
            Target::Floats { residual } => residual,
        }
    }

    /// Whether results are tame, become bytes, and nothing is added to them.
    pub(super) fn is_plain(&self) -> bool {
        self.is_tame && matches!(self.target, Target::Bytes { residual: None, .. })
    }

    /// What the sum of one channel starts from ([`start`](Self::start)).
    #[inline(always)]
    pub(super) fn start_of(&self, slot: usize) -> i32 {
        self.corrections.get(slot).copied().unwrap_or(0)
    }

    /// The constants of the four channels from `slot` on, where lanes are pixels, of results that are plain.
    #[inline(always)]
    pub(super) fn of_four<D: Dot>(&self, d: D, slot: usize) -> OfFour<D> {
        let Target::Bytes { rounding, .. } = self.target else { unreachable!("results are bytes") };
        let (mut multipliers, mut biases) = ([d.splat(0.0); 4], [d.splat(0.0); 4]);
        for index in 0..4 {
            multipliers[index] = d.splat(self.multipliers.f32()[slot + index]);
            biases[index] = d.splat(self.biases.f32()[slot + index]);
        }
        OfFour { multipliers, biases, ends: Ends::new(d, rounding) }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.multipliers.allocated() + self.biases.allocated() + size_of_val(&self.corrections[..])
    }

    /// What the sums of the channels from `slot` on start from: what turns the products of plain bytes into those
    /// of steps from the zero point.
    ///
    /// # Safety
    ///
    /// There must be `LANES` slots from there on.
    #[inline(always)]
    pub(super) unsafe fn start<D: Dot>(&self, d: D, slot: usize) -> D::Ints {
        if self.corrections.is_empty() {
            return d.splat_int(0);
        }
        debug_assert!(slot + D::LANES <= self.corrections.len());
        // SAFETY: as promised.
        unsafe { d.ints(self.corrections.as_ptr().add(slot)) }
    }

    /// Finishes the sums of some pixels, those of the channels from `slot` on, and writes the first `width` of each
    /// pixel's to the elements from `at` on, `stride` elements from one pixel to the next.
    ///
    /// # Safety
    ///
    /// There must be `COLUMNS` vectors of slots from there on, and `width` reach into the last of them but not beyond.
    /// No other part of the output that overlaps these elements may be in use.
    ///
    /// # Panics
    ///
    /// If the elements are out of bounds.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "a place in three dimensions")]
    pub(super) unsafe fn store<D: Dot, const ROWS: usize, const COLUMNS: usize>(
        &self,
        d: D,
        tensors: &Tensors<'_>,
        sums: [[D::Ints; COLUMNS]; ROWS],
        slot: usize,
        at: usize,
        stride: usize,
        width: usize,
    ) {
        debug_assert!(slot + COLUMNS * D::LANES <= self.multipliers.f32().len());
        assert!(width <= COLUMNS * D::LANES && width > (COLUMNS - 1) * D::LANES, "channels of the block");
        let end = at + (ROWS - 1) * stride + width;
        let (mut multipliers, mut biases) = ([d.splat(0.0); COLUMNS], [d.splat(0.0); COLUMNS]);
        for v in 0..COLUMNS {
            // SAFETY: as promised.
            unsafe {
                multipliers[v] = d.floats(self.multipliers.f32().as_ptr().add(slot + v * D::LANES));
                biases[v] = d.floats(self.biases.f32().as_ptr().add(slot + v * D::LANES));
            }
        }
        match (tensors, self.target) {
            (Tensors::Bytes { residual, output }, Target::Bytes { rounding, residual: constants }) => {
                assert!(end <= output.len() && residual.is_none_or(|residual| end <= residual.len()), "in bounds");
                let ends = Ends::new(d, rounding);
                let residual = residual.zip(constants);
                if self.is_tame && width == COLUMNS * D::LANES {
                    // A loop for each step: each is small enough to be unrolled, so that nothing leaves the registers.
                    let mut finished = [[d.splat(0.0); COLUMNS]; ROWS];
                    for (row, sums) in sums.into_iter().enumerate() {
                        for (v, sum) in sums.into_iter().enumerate() {
                            finished[row][v] = d.add(d.mul(d.float(sum), multipliers[v]), biases[v]);
                        }
                    }
                    if let Some((residual, constants)) = residual {
                        let (zero_point, multiplier) =
                            (d.splat_int(constants.zero_point), d.splat(constants.multiplier));
                        for (row, finished) in finished.iter_mut().enumerate() {
                            for (v, x) in finished.iter_mut().enumerate() {
                                // SAFETY: whole vectors of each pixel, of which the last ends in bounds.
                                let bytes = unsafe { d.bytes(residual.as_ptr().add(at + row * stride + v * D::LANES)) };
                                *x = d.add(*x, d.mul(d.float(d.sub(bytes, zero_point)), multiplier));
                            }
                        }
                    }
                    // SAFETY: as above; not in use elsewhere, by the caller's promise.
                    unsafe { store_tame(d, output.as_mut_ptr().add(at), stride, &finished, &ends) };
                    return;
                }
                for (row, sums) in sums.into_iter().enumerate() {
                    for (v, sum) in sums.into_iter().enumerate() {
                        let at = at + row * stride + v * D::LANES;
                        let count = (width - v * D::LANES).min(D::LANES);
                        let mut x = d.add(d.mul(d.float(sum), multipliers[v]), biases[v]);
                        if let Some((residual, constants)) = residual {
                            // SAFETY: `count` bytes from there on are in bounds, and are whole vectors where they are
                            // read as such; the array holds the widest.
                            let bytes = unsafe {
                                let from = residual.as_ptr().add(at);
                                if count == D::LANES {
                                    d.bytes(from)
                                } else {
                                    let mut aside = [0; MAX_LANES];
                                    std::ptr::copy_nonoverlapping(from, aside.as_mut_ptr(), count);
                                    d.bytes(aside.as_ptr())
                                }
                            };
                            let steps = d.float(d.sub(bytes, d.splat_int(constants.zero_point)));
                            x = d.add(x, d.mul(steps, d.splat(constants.multiplier)));
                        }
                        // SAFETY: as above; not in use elsewhere, by the caller's promise.
                        unsafe {
                            let to = output.as_mut_ptr().add(at);
                            if count == D::LANES {
                                d.store_bytes(to, x, &ends);
                            } else {
                                let mut aside = [0; MAX_LANES];
                                d.store_bytes(aside.as_mut_ptr(), x, &ends);
                                std::ptr::copy_nonoverlapping(aside.as_ptr(), to, count);
                            }
                        }
                    }
                }
            }
            (Tensors::Floats { residual, output }, Target::Floats { .. }) => {
                for (row, sums) in sums.into_iter().enumerate() {
                    for (v, sum) in sums.into_iter().enumerate() {
                        let at = at + row * stride + v * D::LANES;
                        let count = (width - v * D::LANES).min(D::LANES);
                        let mut aside = [0.0; MAX_LANES];
                        let x = d.add(d.mul(d.float(sum), multipliers[v]), biases[v]);
                        // SAFETY: the array has room for the widest vector.
                        unsafe { d.store_floats(aside.as_mut_ptr(), x) };
                        // SAFETY: not in use elsewhere, by the caller's promise.
                        let to = unsafe { output.slice(at..at + count) };
                        for (index, (to, &x)) in to.iter_mut().zip(&aside).enumerate() {
                            let x = residual.map_or(x, |residual| x + residual[at + index]);
                            *to = self.activation.map_or(x, |function| function.apply(x));
                        }
                    }
                }
            }
            _ => unreachable!("the output's type is that of the operation"),
        }
    }
}

/// The constants of four channels.
pub(super) struct OfFour<D: Dot> {
    multipliers: [D::Floats; 4],
    biases: [D::Floats; 4],
    ends: Ends<D>,
}

impl<D: Dot> OfFour<D> {
    /// Finishes sums of the same pixels: of each, the bytes of the four channels side by side.
    #[inline(always)]
    pub(super) fn bytes(&self, d: D, sums: [D::Ints; 4]) -> D::Ints {
        let result = |index: usize| d.add(d.mul(d.float(sums[index]), self.multipliers[index]), self.biases[index]);
        d.side_by_side([result(0), result(1), result(2), result(3)], &self.ends)
    }
}

/// Writes tame results: `COLUMNS` vectors of each pixel, `stride` bytes from one pixel to the next.
///
/// # Safety
///
/// They must be writable, and the results be neither NaN nor beyond 32 bits.
#[inline(always)]
unsafe fn store_tame<D: Dot, const ROWS: usize, const COLUMNS: usize>(
    d: D,
    to: *mut u8,
    stride: usize,
    results: &[[D::Floats; COLUMNS]; ROWS],
    ends: &Ends<D>,
) {
    let vectors = results.as_flattened();
    // SAFETY: as promised.
    let place = |index: usize| unsafe { to.add(index / COLUMNS * stride + index % COLUMNS * D::LANES) };
    let (fours, rest) = vectors.as_chunks::<4>();
    for (index, &four) in fours.iter().enumerate() {
        let first = 4 * index;
        // SAFETY: as promised.
        unsafe { d.store_four([place(first), place(first + 1), place(first + 2), place(first + 3)], four, ends) };
    }
    for (index, &x) in rest.iter().enumerate() {
        // SAFETY: as promised.
        unsafe { d.store_bytes(place(4 * fours.len() + index), x, ends) };
    }
}
