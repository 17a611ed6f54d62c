//! A run of a prepared operation allocates nothing, on one thread or two.

use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use dlis_backend::{AlignedBytes, Executor, Io, OpWeights, Parallel, Schedule, Scratch, Serial, View, ViewMut};
use dlis_conformance::cases;
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

// One test alone in its process: the counters are those of all threads.
#[test]
fn prepared_operations_allocate_nothing() {
    let team = Team::builder().threads(NonZeroUsize::new(2).unwrap()).build().unwrap();
    let executors: [&dyn Executor; 2] = [&Serial, &team];
    let hardware = Hardware::detect();
    let mut tested = BTreeSet::new();
    let mut allocating = BTreeMap::new();
    // Every fifth is plenty: what a kernel allocates hardly depends on the shape.
    let cases = cases();
    let some = cases.iter().enumerate().filter(|(index, case)| index % 5 == 0 || case.op.macs() > 300_000);
    for case in some.map(|(_, case)| case) {
        for op in case.variants() {
            let weight = case.weight_in(op.weight.unwrap_or(Format::DenseF32));
            let weights = OpWeights { weight: weight.as_ref(), bias: case.bias.as_deref(), ..OpWeights::default() };
            let inputs: Vec<Vec<f32>> =
                case.inputs.iter().zip(&op.inputs).map(|(input, spec)| input.in_layout(spec.layout)).collect();
            let views: Vec<View<'_>> =
                inputs.iter().zip(&op.inputs).map(|(input, &spec)| View::of(spec, input)).collect();
            let residual = case.residual.as_ref().map(|residual| residual.in_layout(op.output.layout));
            let mut output = AlignedBytes::zeroed(op.output.bytes());
            for &kernel in kernels() {
                if !kernel.support(&op, &hardware).is_yes() {
                    continue;
                }
                let prepared = kernel.prepare_checked(&op, weights, &hardware).unwrap();
                tested.insert(kernel.id().to_string());
                for executor in executors {
                    let threads = executor.threads().get();
                    let footprint = prepared.footprint(threads);
                    let mut shared = AlignedBytes::zeroed(AlignedBytes::round_up(footprint.scratch_bytes));
                    let worker = AlignedBytes::round_up(footprint.worker_scratch_bytes);
                    let mut workers = AlignedBytes::zeroed(worker * threads);
                    let residual = residual.as_ref().map(|residual| View::of(op.output, residual));
                    let mut io = Io::new(&views, residual, ViewMut::new(op.output, output.as_mut_slice()));
                    let mut scratch = Scratch::new(shared.as_mut_slice(), workers.as_mut_slice(), threads);
                    let region = Region::new(ALLOCATOR);
                    prepared.run(&mut io, &mut scratch, Parallel::new(executor, Schedule::Static));
                    let change = region.change();
                    if change.allocations + change.reallocations > 0 {
                        let what = format!("`{}` ({op}) with {threads} threads: {change:?}", case.name);
                        allocating.entry(kernel.id().to_string()).or_insert(what);
                    }
                }
            }
        }
    }
    for kernel in kernels() {
        let id = kernel.id().to_string();
        let possible = id.rsplit('/').next().unwrap().parse().map_or(true, |level| hardware.supports(level));
        assert!(!possible || tested.contains(&id), "no case was run on {id}");
    }
    for (id, reason) in EXCEPTIONS {
        assert!(allocating.remove(id).is_some(), "{id} allocates nothing, so it is no exception any more: {reason}");
    }
    assert!(allocating.is_empty(), "{allocating:#?}");
}
