//! A kernel: one algorithm for one operation and weight format.

use std::borrow::Cow;
use std::fmt;

use dlis_formats::{DType, Format, Quantization, Weight};
use dlis_hw::Hardware;
use serde::{Deserialize, Serialize};

use crate::kernel_id::KernelId;
use crate::op::{OpSpec, Operation};
use crate::parallel::Parallel;
use crate::program::{Slot, SlotId, Step};
use crate::tensor::{TensorSpec, View, ViewMut};

/// Whether a kernel can execute an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// It can.
    Yes,
    /// It cannot, for this reason: a clause that completes "not chosen because …".
    No(Cow<'static, str>),
}

impl Support {
    /// `Yes` if the condition holds, else `No` for this reason.
    pub fn when(condition: bool, otherwise: &'static str) -> Self {
        if condition { Self::Yes } else { Self::No(Cow::Borrowed(otherwise)) }
    }

    /// `self`, or if it is `Yes` whatever `next` says.
    #[must_use]
    pub fn and(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Yes => next(),
            no @ Self::No(_) => no,
        }
    }

    /// Whether it is `Yes`.
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// What the elements of an operation's u8 tensors stand for. Tensors of f32 have none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpQuantization<'a> {
    /// One an input, in their order, where they are u8; else empty.
    pub inputs: &'a [Quantization],
    /// That of the residual, where there is one and it is u8.
    pub residual: Option<Quantization>,
    /// That of the output, where it is u8.
    pub output: Option<Quantization>,
}

/// The constants of one operation.
///
/// ```
/// use dlis_backend::{OpQuantization, OpWeights};
/// let weights = OpWeights { bias: Some(&[0.5]), ..OpWeights::default() };
/// assert_eq!(weights.quantization, OpQuantization::default());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OpWeights<'a> {
    /// The weight: of a convolution `[out, in / groups, height, width]`, of a linear layer `[out, in]`, of an
    /// affine operation `[channels]`.
    pub weight: Option<&'a Weight>,
    /// One value a channel of the output.
    pub bias: Option<&'a [f32]>,
    /// What u8 tensors stand for.
    pub quantization: OpQuantization<'a>,
}

/// What an [`OpQuantization`] borrows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnedQuantization {
    /// One an input where they are u8, else none.
    pub inputs: Vec<Quantization>,
    /// Of the residual, where there is one and it is u8.
    pub residual: Option<Quantization>,
    /// Of the output, where it is u8.
    pub output: Option<Quantization>,
}

impl OwnedQuantization {
    /// As a kernel takes it.
    pub fn borrow(&self) -> OpQuantization<'_> {
        OpQuantization { inputs: &self.inputs, residual: self.residual, output: self.output }
    }
}

/// What an [`OpWeights`] borrows, so that it can be given up where it is packed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnedWeights {
    /// The weight.
    pub weight: Option<Weight>,
    /// One value a channel of the output.
    pub bias: Option<Vec<f32>>,
    /// What u8 tensors stand for.
    pub quantization: OwnedQuantization,
}

impl OwnedWeights {
    /// As a kernel takes it.
    pub fn borrow(&self) -> OpWeights<'_> {
        OpWeights { weight: self.weight.as_ref(), bias: self.bias.as_deref(), quantization: self.quantization.borrow() }
    }
}

/// Bytes that a prepared operation needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Resident as long as it lives: packed weights and biases.
    pub weight_bytes: usize,
    /// Needed during `run`, shared by the workers.
    pub scratch_bytes: usize,
    /// Needed during `run` by each worker.
    pub worker_scratch_bytes: usize,
}

/// Why an operation could not be prepared.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// [`Kernel::support`] says no.
    #[error("{kernel} cannot execute {op}: {reason}")]
    Unsupported {
        /// The kernel.
        kernel: Box<KernelId>,
        /// The operation.
        op: String,
        /// Its reason.
        reason: String,
    },
    /// The weight is missing or not of the declared format and shape.
    #[error("{kernel}: expected a weight of {expected}, found {found}")]
    Weight {
        /// The kernel.
        kernel: Box<KernelId>,
        /// Format and extents expected.
        expected: String,
        /// Format and extents found.
        found: String,
    },
    /// The bias is missing, or not of one value a channel.
    #[error("{kernel}: expected {expected} bias values, found {found}")]
    Bias {
        /// The kernel.
        kernel: Box<KernelId>,
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// The device, or its driver, refuses.
    #[error("{kernel}: {reason}")]
    Device {
        /// The kernel.
        kernel: Box<KernelId>,
        /// What it said.
        reason: String,
    },
    /// A u8 tensor has no quantisation, an f32 tensor has one, or two that must be equal differ.
    #[error("{kernel}: quantisation of the {tensor}: expected {expected}, found {found}")]
    Quantization {
        /// The kernel.
        kernel: Box<KernelId>,
        /// Which tensor.
        tensor: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
}

/// One algorithm for one operation and weight format, on one SIMD level.
///
/// A kernel is stateless and says of itself all that choosing it needs; adding one is one file and one
/// line in a list.
pub trait Kernel: Send + Sync {
    /// Its name.
    fn id(&self) -> KernelId;

    /// Whether it can execute `op` on `hw`, or why not.
    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support;

    /// A rough share of the machine's roofline that it reaches on `op`, in (0, 1]: all that the planner's
    /// heuristic goes by.
    fn efficiency(&self, op: &OpSpec) -> f32;

    /// Packs the weights once, so that [`Prepared::run`] has only to compute.
    ///
    /// # Errors
    ///
    /// [`PrepareError`] if the operation is not supported or the weights are not those it declares.
    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError>;
}

impl fmt::Debug for dyn Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.id())
    }
}

/// An operation ready to run: packed weights and all decisions that depend on shapes.
pub trait Prepared: Send + Sync {
    /// The bytes it holds and needs with this many workers.
    fn footprint(&self, threads: usize) -> Footprint;

    /// Computes the output. Allocates nothing.
    ///
    /// # Panics
    ///
    /// If the tensors or the scratch are not those of the operation it was prepared for.
    fn run(&self, io: &mut Io<'_>, scratch: &mut Scratch<'_>, parallel: Parallel<'_>);
}

impl fmt::Debug for dyn Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared({:?})", self.footprint(1))
    }
}

/// Checks that exactly the u8 tensors have a quantisation, and that those of an operation which only moves
/// or selects elements are equal.
fn check_quantization(kernel: &dyn Kernel, op: &OpSpec, quantization: OpQuantization<'_>) -> Result<(), PrepareError> {
    let wrong = |tensor, expected: String, found: String| {
        Err(PrepareError::Quantization { kernel: Box::new(kernel.id()), tensor, expected, found })
    };
    let of = |count: usize| if count == 0 { "none".to_owned() } else { count.to_string() };
    let OpQuantization { inputs, residual, output } = quantization;
    let quantized = op.inputs.iter().filter(|input| input.dtype == DType::U8).count();
    if inputs.len() != quantized || (quantized > 0 && quantized < op.inputs.len()) {
        let expected = if quantized > 0 { op.inputs.len() } else { 0 };
        return wrong("inputs", of(expected), of(inputs.len()));
    }
    let u8_output = op.output.dtype == DType::U8;
    for (tensor, expected, found) in
        [("residual", u8_output && op.epilogue.residual, residual.is_some()), ("output", u8_output, output.is_some())]
    {
        if expected != found {
            return wrong(tensor, of(usize::from(expected)), of(usize::from(found)));
        }
    }
    let moves = matches!(op.operation, Operation::MaxPool(_) | Operation::Reorder);
    match (inputs.first(), output) {
        (Some(input), Some(output)) if moves && *input != output => {
            wrong("output", format!("that of the input, {input:?}"), format!("{output:?}"))
        }
        _ => Ok(()),
    }
}

impl dyn Kernel + '_ {
    /// Checks that an operation is supported, that its weights are of the declared format and extents, and that its
    /// u8 tensors have a quantisation.
    ///
    /// # Errors
    ///
    /// [`PrepareError`] saying what is not so.
    pub fn check(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<(), PrepareError> {
        if let Support::No(reason) = self.support(op, hw) {
            return Err(PrepareError::Unsupported {
                kernel: Box::new(self.id()),
                op: op.to_string(),
                reason: reason.into_owned(),
            });
        }
        let (dims, bias): (Option<Vec<usize>>, bool) = match op.operation {
            Operation::Conv2d(conv) => (Some(conv.weight_dims().to_vec()), conv.bias),
            Operation::Linear(linear) => (Some(vec![linear.out_features, linear.in_features]), linear.bias),
            Operation::Affine => (Some(vec![op.output.channels]), true),
            _ => (None, false),
        };
        let describe = |format: Option<Format>, dims: &[usize]| match format {
            Some(format) => format!("{format} {dims:?}"),
            None => "none".to_owned(),
        };
        let found = weights.weight.map(|weight| (weight.format(), weight.dims().to_vec()));
        if found.as_ref().map(|(format, dims)| (*format, dims)) != op.weight.zip(dims.as_ref()) {
            return Err(PrepareError::Weight {
                kernel: Box::new(self.id()),
                expected: describe(op.weight, dims.as_deref().unwrap_or_default()),
                found: describe(found.as_ref().map(|found| found.0), found.as_ref().map_or(&[], |found| &found.1)),
            });
        }
        let expected = if bias { op.output.channels } else { 0 };
        let found = weights.bias.map_or(0, <[f32]>::len);
        if found != expected {
            return Err(PrepareError::Bias { kernel: Box::new(self.id()), expected, found });
        }
        check_quantization(self, op, weights.quantization)
    }

    /// [`prepare`](Kernel::prepare) after checking support, format, extents, bias and quantisation, so that
    /// implementations need not.
    ///
    /// # Errors
    ///
    /// As [`prepare`](Kernel::prepare).
    pub fn prepare_checked(
        &self,
        op: &OpSpec,
        weights: OpWeights<'_>,
        hw: &Hardware,
    ) -> Result<Box<dyn Prepared>, PrepareError> {
        self.check(op, weights, hw)?;
        self.prepare(op, weights, hw)
    }
}

/// Where the inputs of an operation are.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Views(&'a [View<'a>]),
    Arena {
        before: &'a [u8],
        after: &'a [u8],
        after_offset: usize,
        slots: &'a [Slot],
        inputs: &'a [SlotId],
        slice: usize,
    },
}

/// The tensors of one call.
#[derive(Debug)]
pub struct Io<'a> {
    source: Source<'a>,
    residual: Option<View<'a>>,
    output: ViewMut<'a>,
}

impl<'a> Io<'a> {
    /// Tensors wherever they are.
    pub fn new(inputs: &'a [View<'a>], residual: Option<View<'a>>, output: ViewMut<'a>) -> Self {
        Self { source: Source::Views(inputs), residual, output }
    }

    /// The tensors of a step in one arena, as they lie for a slice; the output overlaps neither an input nor the
    /// residual.
    pub(crate) fn in_arena(arena: &'a mut [u8], slots: &'a [Slot], step: &'a Step, slice: usize) -> Self {
        let output = slots[step.output.0].in_slice(slice);
        let (before, rest) = arena.split_at_mut(output.offset);
        let (bytes, after) = rest.split_at_mut(output.spec.bytes());
        let after_offset = output.offset + output.spec.bytes();
        let source = Source::Arena { before, after, after_offset, slots, inputs: &step.inputs, slice };
        let residual = step.residual.map(|id| Self::locate(before, after, after_offset, slots[id.0].in_slice(slice)));
        Self { source, residual, output: ViewMut::new(output.spec, bytes) }
    }

    fn locate(before: &'a [u8], after: &'a [u8], after_offset: usize, slot: Slot) -> View<'a> {
        let end = slot.offset + slot.spec.bytes();
        let bytes = match slot.offset.checked_sub(after_offset) {
            Some(start) => &after[start..end - after_offset],
            None => &before[slot.offset..end],
        };
        View::new(slot.spec, bytes)
    }

    /// Number of inputs, the residual not among them.
    pub fn inputs(&self) -> usize {
        match self.source {
            Source::Views(views) => views.len(),
            Source::Arena { inputs, .. } => inputs.len(),
        }
    }

    /// An input.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn input(&self, index: usize) -> View<'a> {
        match self.source {
            Source::Views(views) => views[index],
            Source::Arena { before, after, after_offset, slots, inputs, slice } => {
                Self::locate(before, after, after_offset, slots[inputs[index].0].in_slice(slice))
            }
        }
    }

    /// The tensor to add before the activation, where the epilogue has one.
    pub fn residual(&self) -> Option<View<'a>> {
        self.residual
    }

    /// Extents, element type and layout of the output.
    pub fn output_spec(&self) -> TensorSpec {
        self.output.spec()
    }

    /// The output.
    pub fn output(&mut self) -> &mut ViewMut<'a> {
        &mut self.output
    }
}

/// Memory that lives only during a call. Its contents are whatever an earlier call left.
#[derive(Debug)]
pub struct Scratch<'a> {
    shared: &'a mut [u8],
    workers: &'a mut [u8],
    threads: usize,
}

impl<'a> Scratch<'a> {
    /// `workers` is divided evenly among `threads`.
    pub fn new(shared: &'a mut [u8], workers: &'a mut [u8], threads: usize) -> Self {
        Self { shared, workers, threads }
    }

    /// The shared part as floats, and each worker's part as rows of a second slice: their length first.
    ///
    /// # Panics
    ///
    /// If the memory is not aligned for floats.
    pub fn f32(&mut self) -> (&mut [f32], usize, &mut [f32]) {
        let workers: &mut [f32] = bytemuck::cast_slice_mut(self.workers);
        (bytemuck::cast_slice_mut(self.shared), workers.len() / self.threads, workers)
    }

    /// As [`f32`](Self::f32), in bytes.
    pub fn bytes(&mut self) -> (&mut [u8], usize, &mut [u8]) {
        (self.shared, self.workers.len() / self.threads, self.workers)
    }
}
