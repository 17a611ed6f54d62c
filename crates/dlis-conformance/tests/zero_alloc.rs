//! A run of a prepared operation allocates nothing, on one thread or two.

use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use dlis_backend::{AlignedBytes, Executor, Io, OpSpec, OpWeights, Parallel, Schedule, Scratch, Serial, View, ViewMut};
use dlis_conformance::{Tensor, cases, quantized_cases};
use dlis_cpu_omp::Team;
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_kernels::kernels;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Kernels that do allocate, and why.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "conv2d/f32/dense/im2col-gemm/matrixmultiply",
    "matrixmultiply allocates its packing buffer on every call and offers no way to pass one",
)];

/// What was run, and what allocated.
struct Found<'a> {
    hardware: &'a Hardware,
    executors: [&'a dyn Executor; 2],
    tested: BTreeSet<String>,
    allocating: BTreeMap<String, String>,
}

impl Found<'_> {
    /// Runs an operation on every kernel that supports it.
    fn measure(
        &mut self,
        name: &str,
        op: &OpSpec,
        weights: OpWeights<'_>,
        inputs: &[Vec<u8>],
        residual: Option<&[u8]>,
    ) {
        let aligned = |bytes: &[u8]| {
            let mut aligned = AlignedBytes::zeroed(bytes.len());
            aligned.as_mut_slice().copy_from_slice(bytes);
            aligned
        };
        let inputs: Vec<AlignedBytes> = inputs.iter().map(|input| aligned(input)).collect();
        let views: Vec<View<'_>> =
            inputs.iter().zip(&op.inputs).map(|(input, &spec)| View::new(spec, input.as_slice())).collect();
        let residual = residual.map(aligned);
        let mut output = AlignedBytes::zeroed(op.output.bytes());
        for &kernel in kernels() {
            if !kernel.support(op, self.hardware).is_yes() {
                continue;
            }
            let prepared = kernel.prepare_checked(op, weights, self.hardware).unwrap();
            self.tested.insert(kernel.id().to_string());
            for executor in self.executors {
                let threads = executor.threads().get();
                let footprint = prepared.footprint(threads);
                let mut shared = AlignedBytes::zeroed(AlignedBytes::round_up(footprint.scratch_bytes));
                let worker = AlignedBytes::round_up(footprint.worker_scratch_bytes);
                let mut workers = AlignedBytes::zeroed(worker * threads);
                let residual = residual.as_ref().map(|residual| View::new(op.output, residual.as_slice()));
                let mut io = Io::new(&views, residual, ViewMut::new(op.output, output.as_mut_slice()));
                let mut scratch = Scratch::new(shared.as_mut_slice(), workers.as_mut_slice(), threads);
                let region = Region::new(ALLOCATOR);
                prepared.run(&mut io, &mut scratch, Parallel::new(executor, Schedule::Static));
                let change = region.change();
                if change.allocations + change.reallocations > 0 {
                    let what = format!("`{name}` ({op}) with {threads} threads: {change:?}");
                    self.allocating.entry(kernel.id().to_string()).or_insert(what);
                }
            }
        }
    }
}

// One test alone in its process: the counters are those of all threads.
#[test]
fn prepared_operations_allocate_nothing() {
    let hardware = Hardware::detect();
    let team = Team::builder().threads(NonZeroUsize::new(2).unwrap()).build().unwrap();
    let mut found = Found {
        hardware: &hardware,
        executors: [&Serial, &team],
        tested: BTreeSet::new(),
        allocating: BTreeMap::new(),
    };
    // Every fifth is plenty: what a kernel allocates hardly depends on the shape.
    let some = |index: usize, op: &OpSpec| index.is_multiple_of(5) || op.macs() > 300_000;
    for (_, case) in cases().iter().enumerate().filter(|(index, case)| some(*index, &case.op)) {
        for op in case.variants() {
            let weight = case.weight_in(op.weight.unwrap_or(Format::DenseF32));
            let weights = OpWeights { weight: weight.as_ref(), bias: case.bias.as_deref(), ..OpWeights::default() };
            let bytes = |tensor: &Tensor, layout| -> Vec<u8> {
                tensor.in_layout(layout).into_iter().flat_map(f32::to_ne_bytes).collect()
            };
            let inputs: Vec<Vec<u8>> =
                case.inputs.iter().zip(&op.inputs).map(|(input, spec)| bytes(input, spec.layout)).collect();
            let residual = case.residual.as_ref().map(|residual| bytes(residual, op.output.layout));
            found.measure(&case.name, &op, weights, &inputs, residual.as_deref());
        }
    }
    for (_, case) in quantized_cases().iter().enumerate().filter(|(index, case)| some(*index, &case.op)) {
        for op in case.variants() {
            let weight = op.weight.and_then(|format| case.weight_in(format));
            let inputs: Vec<Vec<u8>> = case
                .inputs
                .iter()
                .zip(&op.inputs)
                .map(|(input, spec)| input.in_layout([spec.batch, spec.channels, spec.height, spec.width], spec.layout))
                .collect();
            let residual =
                case.residual.as_ref().map(|residual| residual.in_layout(case.output_dims(), op.output.layout));
            found.measure(&case.name, &op, case.weights(weight.as_ref()), &inputs, residual.as_deref());
        }
    }
    let Found { tested, mut allocating, .. } = found;
    for kernel in kernels() {
        let id = kernel.id();
        assert!(!hardware.has_isa(id.isa()) || tested.contains(&id.to_string()), "no case was run on {id}");
    }
    for (id, reason) in EXCEPTIONS {
        assert!(allocating.remove(id).is_some(), "{id} allocates nothing, so it is no exception any more: {reason}");
    }
    assert!(allocating.is_empty(), "{allocating:#?}");
}
