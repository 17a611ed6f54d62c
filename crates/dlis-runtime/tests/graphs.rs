//! Random graphs, by every policy and on every backend, against the definition of their layers.

mod support;

use dlis_backend::{Backend, HostBackend};
use dlis_model::{Activation, Graph, GraphBuilder, Network, Op, Shape, Value, Window};
use dlis_runtime::{Plan, Planner, Session, TuneCache};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use support::random_graph::any_graph;
use support::{POLICIES, omp, oracle, policy, rayon, values};

/// Runs a plan twice, the second time over what the first left in the arena.
fn run(backend: &dyn Backend, plan: &Plan, input: &[f32]) -> Vec<f32> {
    let mut session = Session::new(backend, plan.clone()).unwrap();
    let mut first = vec![f32::NAN; session.output_len()];
    let mut second = first.clone();
    session.run(input, &mut first).unwrap();
    session.run(input, &mut second).unwrap();
    assert_eq!(bits(&first), bits(&second), "a second run differs");
    first
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn scale(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |scale, value| scale.max(value.abs()))
}

/// Checks that every element is within a share of the largest of what it should be.
fn compare(what: &str, expected: &[f32], found: &[f32]) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("{what}: expected {} elements, found {}", expected.len(), found.len()));
    }
    let tolerance = 1e-3 * scale(expected) + 1e-6;
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        // A NaN is not within anything.
        if (expected - found).abs() <= tolerance {
            continue;
        }
        return Err(format!("{what}: element {index} is {found}, expected {expected} within {tolerance}"));
    }
    Ok(())
}

struct Backends {
    /// Pairs of one and of two threads.
    pairs: [[HostBackend; 2]; 2],
}

impl Backends {
    fn new() -> Self {
        Self { pairs: [[omp(1), omp(2)], [rayon(1), rayon(2)]] }
    }

    /// Compares every policy on every backend with the oracle.
    fn check(&self, graph: Graph, batch: usize, seed: u64) -> Result<(), String> {
        let network = Network::random(graph, seed);
        let input = values(batch * network.graph().input_shape().elements(), seed);
        let expected = oracle::evaluate(&network, batch, &input);
        let mut cache = TuneCache::in_memory();
        for text in POLICIES {
            // All backends have the same kernels, so that a plan for one is a plan for all. What is measured
            // differs from run to run: its plans are taken from each in turn.
            let planner = &self.pairs[usize::from(seed.is_multiple_of(2))][usize::from(seed % 4 < 2)];
            let plan = Planner::new(planner).policy(policy(text)).batch(batch).cache(&mut cache).plan(&network);
            let plan = plan.map_err(|error| format!("{text}: {error}"))?;
            plan.program().validate().map_err(|error| format!("{text}: {error}"))?;
            let mut first: Option<Vec<f32>> = None;
            for backend in self.pairs.iter().flatten() {
                let what = format!("{text} on {} with {} threads", backend.name(), backend.threads());
                let found = run(backend, &plan, &input);
                compare(&what, &expected, &found).map_err(|error| format!("{error}\n{}", plan.explain(backend)))?;
                let first = first.get_or_insert_with(|| found.clone());
                if bits(first) != bits(&found) {
                    return Err(format!("{what}: not the bits of the first backend"));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn random_graphs_compute_what_their_layers_say() {
    let backends = Backends::new();
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let strategy = (any_graph(), proptest::sample::select(vec![1usize, 3]), proptest::num::u64::ANY);
    let test = |(graph, batch, seed)| backends.check(graph, batch, seed).map_err(TestCaseError::fail);
    TestRunner::new(config).run(&strategy, test).unwrap();
}

/// The graphs that are easy to get wrong, whatever the random ones hit.
#[test]
fn graphs_that_are_easy_to_get_wrong() {
    let backends = Backends::new();
    let check = |shape: [usize; 3], build: &dyn Fn(&mut GraphBuilder) -> Value| {
        let mut graph = Graph::builder("wrong", Shape::from(shape));
        let output = build(&mut graph);
        let graph = graph.finish(output).unwrap();
        for batch in [1, 3] {
            for seed in 0..2 {
                if let Err(error) = backends.check(graph.clone(), batch, seed) {
                    panic!("{:?}, batch {batch}: {error}", graph.layers());
                }
            }
        }
    };
    let same = Window::square(3).with_padding(1);
    // Features are in NCHW order, though the convolution may be channels last.
    check([16, 4, 5], &|g| {
        let x = g.conv("conv", Value::Input, 16, same);
        let x = g.flatten("flatten", x);
        g.linear("fc", x, 7)
    });
    // The result is a renaming, of the input and of a layer.
    check([4, 3, 5], &|g| g.flatten("flatten", Value::Input));
    check([16, 3, 5], &|g| {
        let x = g.conv("conv", Value::Input, 16, same);
        let x = g.flatten("flatten", x);
        g.flatten("again", x)
    });
    // The result is the input, and the layer is read by nobody.
    check([4, 3, 5], &|g| {
        g.conv("conv", Value::Input, 16, same);
        Value::Input
    });
    // The result is in the middle, and later layers read it.
    check([16, 6, 6], &|g| {
        let x = g.conv("conv1", Value::Input, 16, same);
        let y = g.relu("relu", x);
        g.add("add", x, y);
        x
    });
    // A sum of a value with itself, then of two that are the same size, then an activation twice.
    check([16, 6, 6], &|g| {
        let x = g.conv("conv1", Value::Input, 16, same);
        let x = g.add("twice", x, x);
        let y = g.conv("conv2", x, 16, same);
        let x = g.add("sum", x, y);
        let x = g.relu("relu", x);
        support::activation(g, "sigmoid", x, Activation::Sigmoid)
    });
    // What is added to an activation's result is not added before it.
    check([16, 6, 6], &|g| {
        let x = g.conv("conv", Value::Input, 16, same);
        let x = g.relu("relu", x);
        g.add("add", x, Value::Input)
    });
    // Either branch of a block may be the later one, and the sum names them in either order.
    for swapped in [false, true] {
        for shortcut_first in [false, true] {
            check([16, 6, 6], &|g| {
                let half = Window::square(1).with_stride(2);
                let main = |g: &mut GraphBuilder| {
                    let y = g.conv("conv1", Value::Input, 16, same.with_stride(2));
                    let y = g.batch_norm("bn1", y);
                    let y = g.relu("relu1", y);
                    g.conv("conv2", y, 16, same)
                };
                let (main, shortcut) = if shortcut_first {
                    let shortcut = g.conv("shortcut", Value::Input, 16, half);
                    (main(g), shortcut)
                } else {
                    let main = main(g);
                    (main, g.conv("shortcut", Value::Input, 16, half))
                };
                let x = if swapped { g.add("add", shortcut, main) } else { g.add("add", main, shortcut) };
                g.relu("relu2", x)
            });
        }
    }
    // Three branches of one tensor, one of them the tensor itself, in channels last and not.
    check([16, 6, 6], &|g| {
        let a = g.conv("a", Value::Input, 16, same);
        let b = g.depthwise("b", a, same);
        let c = g.max_pool("c", a, same);
        let x = g.add_layer("concat", Op::Concat, &[a, b, c, a]);
        let x = g.batch_norm("bn", x);
        g.add_layer("softmax", Op::Softmax, &[x])
    });
    // A sum of flattened maps, one of them by way of a linear layer.
    check([6, 2, 2], &|g| {
        let x = g.conv("conv", Value::Input, 16, same);
        let flat = g.flatten("flatten", x);
        let y = g.linear("fc1", flat, 64);
        let x = g.add("add", flat, y);
        let x = g.relu("relu", x);
        g.linear("fc2", x, 5)
    });
}
