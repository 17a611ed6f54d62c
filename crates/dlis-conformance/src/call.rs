//! One call of a prepared operation, with a watch on everything it may write.

use dlis_backend::{AlignedBytes, Io, OpSpec, Parallel, Prepared, Scratch, View, ViewMut};

use crate::guarded::Guarded;

/// What guards around memory that is written are filled with.
const GUARD: u8 = 0xa5;

/// The tensors that an operation is called with, as bytes in the order of their layouts.
#[derive(Clone, Debug)]
pub(crate) struct Operands<'a> {
    pub(crate) op: &'a OpSpec,
    pub(crate) inputs: Vec<Vec<u8>>,
    pub(crate) residual: Option<Vec<u8>>,
}

impl Operands<'_> {
    /// The output, in the order of its layout. `garbage` is what output and scratch are full of, and inputs
    /// surrounded by; `slack` is bytes of scratch beyond those asked for: operations share the scratch of the
    /// greediest.
    pub(crate) fn run(
        &self,
        prepared: &dyn Prepared,
        parallel: Parallel<'_>,
        garbage: u8,
        slack: usize,
    ) -> Result<Vec<u8>, String> {
        let op = self.op;
        let guarded = |bytes: &Vec<u8>| Guarded::of_bytes(bytes, garbage);
        let inputs: Vec<Guarded> = self.inputs.iter().map(guarded).collect();
        let views: Vec<View<'_>> =
            inputs.iter().zip(&op.inputs).map(|(input, &spec)| View::new(spec, input.bytes())).collect();
        let residual = self.residual.as_ref().map(guarded);
        let threads = parallel.threads();
        let footprint = prepared.footprint(threads);
        let scratch = |bytes| AlignedBytes::round_up(bytes) + slack;
        let mut shared = Guarded::new(scratch(footprint.scratch_bytes), garbage, GUARD);
        let mut workers = Guarded::new(scratch(footprint.worker_scratch_bytes) * threads, garbage, GUARD);
        let mut output = Guarded::new(op.output.bytes(), garbage, GUARD);
        let residual_view = residual.as_ref().map(|residual| View::new(op.output, residual.bytes()));
        let mut io = Io::new(&views, residual_view, ViewMut::new(op.output, output.bytes_mut()));
        let mut memory = Scratch::new(shared.bytes_mut(), workers.bytes_mut(), threads);
        prepared.run(&mut io, &mut memory, parallel);
        for (what, memory) in [("output", &output), ("shared scratch", &shared), ("workers' scratch", &workers)] {
            if let Some(place) = memory.breach() {
                return Err(format!("writes {place} of the {what}"));
            }
        }
        Ok(output.bytes().to_vec())
    }
}
