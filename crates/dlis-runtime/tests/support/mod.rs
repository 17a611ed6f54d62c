//! What several of the tests need.
#![allow(dead_code, reason = "no test needs all of it")]

pub(crate) mod anything;
pub(crate) mod compressed;
pub(crate) mod integers;
pub(crate) mod lanes;
pub(crate) mod oracle;
pub(crate) mod random_graph;

use std::num::NonZeroUsize;
use std::time::Duration;

use dlis_backend::{Backend, HostBackend, Schedule};
use dlis_cpu_omp::{Team, WaitPolicy};
use dlis_model::{Activation, Graph, GraphBuilder, Network, Op, Shape, Value, Window};
use dlis_runtime::{Plan, Planner, Policy};

/// Every policy that differs from the others in what it chooses today.
pub(crate) const POLICIES: [&str; 5] =
    ["heuristic", "fixed:direct", "fixed:im2col-gemm", "fixed:implicit-gemm", "measured"];

pub(crate) fn policy(text: &str) -> Policy {
    text.parse().unwrap()
}

/// A team whose threads sleep when they wait: on a busy machine polling would only slow the others.
pub(crate) fn omp(threads: usize) -> HostBackend {
    let threads = NonZeroUsize::new(threads).unwrap();
    let team = Team::builder().threads(threads).wait(WaitPolicy { spin: Duration::ZERO }).build().unwrap();
    dlis_cpu_omp::backend_on(team, Schedule::Static)
}

pub(crate) fn rayon(threads: usize) -> HostBackend {
    dlis_cpu_rayon::backend(NonZeroUsize::new(threads).unwrap(), Schedule::Static).unwrap()
}

pub(crate) fn plan(network: &Network, backend: &dyn Backend, text: &str, batch: usize) -> Plan {
    Planner::new(backend).policy(policy(text)).batch(batch).plan(network).unwrap()
}

/// Numbers in [-1, 1) that look random and are the same everywhere.
pub(crate) fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed ^ 0x9E37_79B9_7F4A_7C15;
    let mut next = || {
        // Xorshift of Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn activation(graph: &mut GraphBuilder, name: &str, x: Value, function: Activation) -> Value {
    graph.add_layer(name, Op::Activation { function }, &[x])
}

/// A network that has a bit of everything: a stem, a residual block that downsamples, an unfoldable
/// batch-norm, squeeze and excitation, and a classifier.
pub(crate) fn small(classes: usize) -> Network {
    let mut graph = Graph::builder("small", Shape::new(3, 12, 12));
    let g = &mut graph;
    let x = g.conv("stem", Value::Input, 16, Window::square(3).with_padding(1));
    let x = g.batch_norm("stem_bn", x);
    let x = g.relu("stem_relu", x);
    let y = g.conv("block_conv1", x, 32, Window::square(3).with_padding(1).with_stride(2));
    let y = g.relu("block_relu1", y);
    let y = g.depthwise("block_conv2", y, Window::square(3).with_padding(1));
    let shortcut = g.conv("block_shortcut", x, 32, Window::square(1).with_stride(2));
    let x = g.add("block_add", y, shortcut);
    let normalised = g.batch_norm("pre_bn", x);
    let squeezed = g.global_avg_pool("squeeze", normalised);
    let factors = g.conv("excite", squeezed, 32, Window::square(1));
    let factors = activation(g, "excite_sigmoid", factors, Activation::Sigmoid);
    let x = g.add_layer("scale", Op::Scale, &[normalised, factors]);
    let x = g.max_pool("pool", x, Window::square(2).with_stride(2));
    let x = g.flatten("flatten", x);
    let x = g.linear("fc", x, classes);
    Network::random(graph.finish(x).unwrap(), 1)
}
