//! Concatenation of u8 tensors along the channels, each brought to the output's quantisation.

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Scratch, Support,
};
use dlis_formats::Quantization;
use dlis_hw::Hardware;

use super::accepts::{self as quantized, Accepts};
use super::rescale::{Rounding, multiplier};
use crate::accepts;
use crate::concat::Places;
use crate::fold::{Order, folded};

/// `concat/u8/none/copy/portable`.
#[derive(Debug)]
struct Concat;

impl Kernel for Concat {
    fn id(&self) -> KernelId {
        KernelId::new("concat", "u8", "none", "copy", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Concat = op.operation else { return accepts::another_operation() };
        Accepts::PLAIN.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.3
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match (folded(op), self.support(op, hw)) {
            (Some((order, folded)), Support::Yes) => {
                let output = quantized::output(self, weights)?;
                let mut parts = Vec::with_capacity(op.inputs.len());
                for (index, input) in folded.inputs.iter().enumerate() {
                    let table = Table::new(quantized::input(self, weights, index)?, output);
                    parts.push(Part { channels: input.channels, table });
                }
                Ok(Box::new(PreparedConcat { order, parts, pixels: op.output.pixels() }))
            }
            (_, support) => Err(accepts::unsupported(self, op, support)),
        }
    }
}

/// What every byte of one quantisation is in another.
#[derive(Debug)]
pub(super) struct Table(Option<Box<[u8; 256]>>);

impl Table {
    fn new(from: Quantization, to: Quantization) -> Self {
        if from == to {
            return Self(None);
        }
        Self::of(from, multiplier(from, to), Rounding::new(to, None))
    }

    /// Of each byte's number of steps times `multiplier`, rounded.
    pub(super) fn of(from: Quantization, multiplier: f32, rounding: Rounding) -> Self {
        let mut table = Box::new([0; 256]);
        for (to, q) in table.iter_mut().zip(0..=u8::MAX) {
            let steps = i16::from(q) - i16::from(from.zero_point());
            *to = rounding.round(f32::from(steps) * multiplier);
        }
        Self(Some(table))
    }

    /// Looks a run of bytes up.
    pub(super) fn map(&self, from: &[u8], to: &mut [u8]) {
        match &self.0 {
            None => to.copy_from_slice(from),
            Some(table) => to.iter_mut().zip(from).for_each(|(to, &from)| *to = table[usize::from(from)]),
        }
    }
}

/// One input.
#[derive(Debug)]
struct Part {
    channels: usize,
    table: Table,
}

#[derive(Debug)]
struct PreparedConcat {
    order: Order,
    parts: Vec<Part>,
    pixels: usize,
}

impl Prepared for PreparedConcat {
    fn footprint(&self, _threads: usize) -> Footprint {
        let weight_bytes = 256 * self.parts.iter().filter(|part| part.table.0.is_some()).count();
        Footprint { weight_bytes, ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let total = self.parts.iter().map(|part| part.channels).sum();
        let mut places = Places::new(self.order, self.pixels, total);
        for (index, Part { channels, table }) in self.parts.iter().enumerate() {
            let input = io.input(index).u8();
            places.fill(*channels, input, io.output().u8(), parallel, |from, to| table.map(from, to));
        }
    }
}

pub(super) static KERNELS: &[&dyn Kernel] = &[&Concat];
