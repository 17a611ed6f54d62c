//! Operations on each u8 element by itself: sums, activations, and the ways into and out of u8.

use std::marker::PhantomData;

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch,
    Support,
};
use dlis_formats::{DType, Quantization};
use dlis_hw::Hardware;

use super::accepts::{self as quantized, Accepts};
use super::concat::Table;
use super::rescale::{Rounding, multiplier};
use crate::blocks::{BLOCK, for_each_block};
use crate::simd::{Simd, Work, at_every_level};
use crate::{accepts, support};

/// `add/u8/none/direct/portable`.
#[derive(Debug)]
struct Add;

/// `activation/u8/none/table/portable`.
#[derive(Debug)]
struct Activate;

/// `quantize/f32/none/direct`.
#[derive(Debug)]
struct Quantize<S> {
    id: KernelId,
    level: PhantomData<S>,
}

impl<S: Simd> Quantize<S> {
    const fn new() -> Self {
        Self { id: KernelId::new("quantize", "f32", "none", "direct", S::LEVEL.name()), level: PhantomData }
    }
}

/// `dequantize/u8/none/direct/portable`.
#[derive(Debug)]
struct Dequantize;

impl Kernel for Add {
    fn id(&self) -> KernelId {
        KernelId::new("add", "u8", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Add = op.operation else { return accepts::another_operation() };
        Accepts { activation: true, ..Accepts::PLAIN }.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match self.support(op, hw) {
            Support::Yes => {
                let output = quantized::output(self, weights)?;
                let term = |index| {
                    let input = quantized::input(self, weights, index)?;
                    Ok(Term { zero_point: i16::from(input.zero_point()), multiplier: multiplier(input, output) })
                };
                let rounding = Rounding::new(output, op.epilogue.activation);
                Ok(Box::new(PreparedAdd { terms: [term(0)?, term(1)?], rounding }))
            }
            no => Err(accepts::unsupported(self, op, no)),
        }
    }
}

/// One input of a sum.
#[derive(Clone, Copy, Debug)]
struct Term {
    zero_point: i16,
    multiplier: f32,
}

impl Term {
    #[inline(always)]
    fn of(self, q: u8) -> f32 {
        f32::from(i16::from(q) - self.zero_point) * self.multiplier
    }
}

#[derive(Debug)]
struct PreparedAdd {
    terms: [Term; 2],
    rounding: Rounding,
}

impl Prepared for PreparedAdd {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (a, b) = (io.input(0).u8(), io.input(1).u8());
        let ([of_a, of_b], rounding) = (self.terms, self.rounding);
        for_each_block(parallel, io.output().u8(), BLOCK, |elements, output| {
            let terms = a[elements.clone()].iter().zip(&b[elements]);
            output.iter_mut().zip(terms).for_each(|(to, (&a, &b))| *to = rounding.round(of_a.of(a) + of_b.of(b)));
        });
    }
}

impl Kernel for Activate {
    fn id(&self) -> KernelId {
        KernelId::new("activation", "u8", "none", "table", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Activation(function) = op.operation else { return accepts::another_operation() };
        let sigmoid = function == dlis_model::Activation::Sigmoid;
        Support::when(!sigmoid, "a sigmoid is not computed in u8").and(|| Accepts::PLAIN.check(op))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match (op.operation, self.support(op, hw)) {
            (Operation::Activation(function), Support::Yes) => {
                let (input, output) = (quantized::input(self, weights, 0)?, quantized::output(self, weights)?);
                let rounding = Rounding::new(output, Some(function));
                Ok(Box::new(PreparedActivate { table: Table::of(input, multiplier(input, output), rounding) }))
            }
            (_, support) => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedActivate {
    table: Table,
}

impl Prepared for PreparedActivate {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint { weight_bytes: 256, ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).u8();
        for_each_block(parallel, io.output().u8(), BLOCK, |elements, output| self.table.map(&input[elements], output));
    }
}

/// Whether the one input is of the type `from`, the output of the type `to`, and all else alike.
fn converts(op: &OpSpec, from: DType, to: DType) -> Support {
    let types = op.dtype() == Some(from) && op.output.dtype == to;
    Support::when(types, "it converts between other element types")
        .and(|| Support::when(op.weight.is_none(), "it has no weight"))
        .and(|| Support::when(op.epilogue == dlis_backend::Epilogue::NONE, "nothing follows it"))
        .and(|| support::layouts(op, &Layout::STRIDED))
        .and(|| Support::when(op.extents_agree(), "the extents of its tensors do not fit together"))
}

impl<S: Simd> Kernel for Quantize<S> {
    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn support(&self, op: &OpSpec, hw: &Hardware) -> Support {
        let Operation::Quantize = op.operation else { return accepts::another_operation() };
        Support::when(S::new(hw).is_some(), "the machine lacks the SIMD level")
            .and(|| converts(op, DType::F32, DType::U8))
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3 + 0.02 * S::LANES as f32
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match (S::new(hw), self.support(op, hw)) {
            (Some(simd), Support::Yes) => {
                let output = quantized::output(self, weights)?;
                Ok(Box::new(PreparedQuantize { simd, scale: output.scale(), rounding: Rounding::new(output, None) }))
            }
            (_, no) => Err(accepts::unsupported(self, op, no)),
        }
    }
}

#[derive(Debug)]
struct PreparedQuantize<S> {
    simd: S,
    scale: f32,
    rounding: Rounding,
}

impl<S: Simd> Prepared for PreparedQuantize<S> {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).f32();
        let Self { simd, scale, rounding } = *self;
        for_each_block(parallel, io.output().u8(), BLOCK, |elements, output| {
            simd.vectorize(ToBytes { input: &input[elements], output, scale, rounding });
        });
    }
}

/// Neighbouring elements that become bytes.
struct ToBytes<'a> {
    input: &'a [f32],
    output: &'a mut [u8],
    scale: f32,
    rounding: Rounding,
}

impl Work for ToBytes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        // A plain loop, of which the compiler makes the level's vectors.
        for (to, x) in self.output.iter_mut().zip(self.input) {
            *to = self.rounding.round(x / self.scale);
        }
    }
}

impl Kernel for Dequantize {
    fn id(&self) -> KernelId {
        KernelId::new("dequantize", "u8", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Dequantize = op.operation else { return accepts::another_operation() };
        converts(op, DType::U8, DType::F32)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match self.support(op, hw) {
            Support::Yes => Ok(Box::new(PreparedDequantize { from: quantized::input(self, weights, 0)? })),
            no => Err(accepts::unsupported(self, op, no)),
        }
    }
}

#[derive(Debug)]
struct PreparedDequantize {
    from: Quantization,
}

impl Prepared for PreparedDequantize {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).u8();
        let (zero_point, scale) = (i16::from(self.from.zero_point()), self.from.scale());
        for_each_block(parallel, io.output().f32(), BLOCK, |elements, output| {
            let steps = input[elements].iter().map(|&q| f32::from(i16::from(q) - zero_point));
            output.iter_mut().zip(steps).for_each(|(to, steps)| *to = steps * scale);
        });
    }
}

pub(super) static KERNELS: &[&dyn Kernel] = &[&Add, &Activate, &Dequantize];
/// The way into u8, at every level.
pub(super) static QUANTIZE: &[&dyn Kernel] = at_every_level!(Quantize());
