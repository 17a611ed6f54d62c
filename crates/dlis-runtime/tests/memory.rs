//! What a session allocates is what it says, and running it allocates nothing.
//!
//! The allocator counts for the whole process, so that everything is one test in a file of its own.

mod support;

use std::alloc::System;

use dlis_backend::{Backend, ExecuteError, Program, Residency, Schedule};
use dlis_model::{Graph, Network, Shape, Value, Window};
use dlis_runtime::Session;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use support::{omp, plan, rayon, small, values};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What the names, shapes and boxes of a session may take.
const BOOKKEEPING_PER_STEP: usize = 4 << 10;

/// Bytes allocated and not freed; what a reallocation adds or takes away is among them.
fn net(change: Stats) -> isize {
    isize::try_from(change.bytes_allocated).unwrap() - isize::try_from(change.bytes_deallocated).unwrap()
}

/// The bytes that a new session has added to the process, and those that it says it holds.
fn measure(network: &Network, backend: &dyn Backend, policy: &str, batch: usize) -> (usize, Residency) {
    let plan = plan(network, backend, policy, batch);
    let region = Region::new(ALLOCATOR);
    // Making a session drops the plan, so that the copy counts for nothing.
    let session = Session::new(backend, plan.clone()).unwrap();
    let net = usize::try_from(net(region.change())).unwrap();
    let residency = session.residency();
    let total = residency.weight_bytes + residency.activation_bytes + residency.scratch_bytes;
    let slack = session.program().steps.len() * BOOKKEEPING_PER_STEP;
    assert!((total..=total + slack).contains(&net), "{policy}, batch {batch}: {net} bytes for {residency:?}");
    (net, residency)
}

/// Checks that the session that says it holds more has in fact allocated as much more.
fn compare(less: (usize, Residency), more: (usize, Residency), number: fn(&Residency) -> usize, steps: usize) {
    let grown = number(&more.1).checked_sub(number(&less.1)).unwrap();
    let total = |residency: &Residency| {
        isize::try_from(residency.weight_bytes + residency.activation_bytes + residency.scratch_bytes).unwrap()
    };
    let claimed = total(&more.1) - total(&less.1);
    let allocated = isize::try_from(more.0).unwrap() - isize::try_from(less.0).unwrap();
    // Far below what is to be seen: a number that were made up would not pass for bookkeeping.
    let slack = steps * BOOKKEEPING_PER_STEP;
    assert!(grown > 8 * slack, "{:?} against {:?} proves nothing", less.1, more.1);
    assert!(claimed.abs_diff(allocated) <= slack, "{:?} to {:?}, {} to {}", less.1, more.1, less.0, more.0);
}

/// One convolution and a classifier.
fn classifier(classes: usize) -> Network {
    let mut graph = Graph::builder("classifier", Shape::new(16, 32, 32));
    let x = graph.conv("conv", Value::Input, 32, Window::square(3).with_padding(1));
    let x = graph.global_avg_pool("pool", x);
    let x = graph.linear("fc", x, classes);
    Network::random(graph.finish(x).unwrap(), 0)
}

fn each_number_is_what_was_allocated() {
    let backend = omp(2);
    let network = classifier(10);
    let steps = 4;
    let of = |network: &Network, policy, batch| measure(network, &backend, policy, batch);
    let small = of(&network, "fixed:direct", 1);

    let wide = of(&classifier(10_010), "fixed:direct", 1);
    compare(small, wide, |residency| residency.weight_bytes, steps);
    // 10,000 rows of 32 weights and a bias more; rows may be padded, but not doubled.
    let more = wide.1.weight_bytes - small.1.weight_bytes;
    let least = 10_000 * 33 * size_of::<f32>();
    assert!((least..2 * least).contains(&more), "{more} bytes of weights for {least}");

    let batch = of(&network, "fixed:direct", 4);
    compare(small, batch, |residency| residency.activation_bytes, steps);
    let [one, four] = [small.1.activation_bytes, batch.1.activation_bytes];
    assert!((4 * one).abs_diff(four) <= 4 * steps * 64, "{one} bytes for one image, {four} for four");

    let im2col = of(&network, "fixed:im2col-gemm", 1);
    compare(small, im2col, |residency| residency.scratch_bytes, steps);
    // A matrix of nine taps of sixteen channels, wherever it is kept at once.
    assert!(im2col.1.scratch_bytes >= 9 * 16 * size_of::<f32>());

    for policy in ["heuristic", "fixed:implicit-gemm", "measured"] {
        of(&network, policy, 1);
        of(&support::small(10), policy, 3);
    }
}

fn running_allocates_nothing() {
    let network = small(10);
    let backends: [(&str, Box<dyn Backend>); 4] = [
        ("omp", Box::new(omp(1))),
        ("omp", Box::new(omp(2))),
        ("rayon", Box::new(rayon(1))),
        ("rayon", Box::new(rayon(2))),
    ];
    for (name, backend) in &backends {
        for policy in ["heuristic", "fixed:direct", "fixed:implicit-gemm", "fixed:im2col-gemm"] {
            let plan = plan(&network, &**backend, policy, 2);
            let library = plan.program().steps.iter().any(|step| step.kernel.isa() == "matrixmultiply");
            let mut session = Session::new(&**backend, plan).unwrap();
            let input = values(session.input_len(), 0);
            let mut output = vec![0.0; session.output_len()];
            // The first run may start what threads make for themselves.
            session.run(&input, &mut output).unwrap();
            let region = Region::new(ALLOCATOR);
            for _ in 0..20 {
                session.run(&input, &mut output).unwrap();
            }
            let change = region.change();
            let what = format!("{name}, {} threads, {policy}: {change:?}", backend.threads());
            assert!(!library || policy != "fixed:direct", "{what}");
            if library {
                // The library's packing buffer, which it frees: the exception that `dlis_kernels` names.
                assert!(change.allocations > 0 && net(change) == 0, "{what}");
            } else {
                assert_eq!((change.allocations, change.reallocations, change.deallocations), (0, 0, 0), "{what}");
            }
        }
    }
}

fn shares_run_side_by_side_in_memory_of_their_own() {
    let network = small(10);
    let chunks = Schedule::Dynamic(4.try_into().unwrap());
    let threads = 2.try_into().unwrap();
    let backends: [Box<dyn Backend>; 2] = [
        Box::new(dlis_cpu_omp::backend(threads, chunks).unwrap()),
        Box::new(dlis_cpu_rayon::backend(threads, chunks).unwrap()),
    ];
    for backend in &backends {
        let plan = plan(&network, &**backend, "fixed:direct", 2);
        let program = |shares| Program { shares, ..plan.program().clone() };
        let compiled = |shares| backend.compile(&program(shares), &plan.weights()).unwrap();
        let (mut one, mut three) = (compiled(1), compiled(3));
        let input = values(program(3).input_spec().elements(), 0);
        let mut output = vec![0.0; program(3).output_spec().elements()];
        let of_share = (input.len() / 3, output.len() / 3);
        let mut expected = output.clone();
        for share in 0..3 {
            let input = &input[share * of_share.0..][..of_share.0];
            one.run(input, &mut expected[share * of_share.1..][..of_share.1]).unwrap();
        }
        three.run(&input, &mut output).unwrap();
        assert_eq!(output, expected);
        // Of three shares, no more than the two workers have memory.
        assert_eq!(three.residency().activation_bytes, 2 * one.residency().activation_bytes);
        assert_eq!(three.residency().weight_bytes, one.residency().weight_bytes);

        let region = Region::new(ALLOCATOR);
        for _ in 0..20 {
            three.run(&input, &mut output).unwrap();
        }
        let change = region.change();
        assert_eq!((change.allocations, change.reallocations, change.deallocations), (0, 0, 0), "{change:?}");

        let mut steps = Vec::new();
        three.run_traced(&input, &mut output, &mut |trace| steps.push((trace.step, trace.start_ns))).unwrap();
        assert_eq!(
            steps.iter().map(|step| step.0).collect::<Vec<_>>(),
            (0..program(3).steps.len()).collect::<Vec<_>>()
        );
        assert!(steps.is_sorted() && output == expected);
        assert!(matches!(three.run(&input[1..], &mut output), Err(ExecuteError::Size { what: "input", .. })));
    }
}

#[test]
fn sessions_allocate_what_they_say_and_runs_nothing() {
    each_number_is_what_was_allocated();
    running_allocates_nothing();
    shares_run_side_by_side_in_memory_of_their_own();
}
