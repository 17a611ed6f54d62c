//! Images as lanes: where a network's batch is of whole groups of them, and a kernel wants them.

mod support;

use dlis_backend::{Backend, HostBackend, Layout};
use dlis_model::{Graph, GraphBuilder, Network, Shape, Value, Window};
use dlis_runtime::{Plan, Planner, Session, TuneCache};
use proptest::test_runner::{Config, TestRunner};
use support::random_graph::any_graph;
use support::{lanes, oracle, policy, small, values};

/// Plans a network and compares what it computes with the definition of its layers.
fn check(backend: &HostBackend, network: &Network, text: &str, batch: usize) -> Plan {
    let plan = support::plan(network, backend, text, batch);
    plan.program().validate().unwrap();
    let input = values(batch * network.graph().input_shape().elements(), 1);
    let expected = oracle::evaluate(network, batch, &input);
    let mut session = Session::new(backend, plan.clone()).unwrap();
    let mut found = vec![f32::NAN; session.output_len()];
    session.run(&input, &mut found).unwrap();
    let scale = expected.iter().fold(0.0_f32, |scale, value| scale.max(value.abs()));
    for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
        let near = (expected - found).abs() <= 1e-3 * scale + 1e-6;
        assert!(near, "{text}: element {index} is {found}, expected {expected}\n{}", plan.explain(backend));
    }
    plan
}

fn network(build: impl FnOnce(&mut GraphBuilder) -> Value) -> Network {
    let mut graph = Graph::builder("lanes", Shape::new(3, 7, 5));
    let output = build(&mut graph);
    Network::random(graph.finish(output).unwrap(), 1)
}

/// Every step as `layer layout`, a reorder as `reorder layout`.
fn layouts(plan: &Plan) -> Vec<String> {
    let steps = plan.program().steps.iter();
    let name = |step: &dlis_backend::Step| match step.op.operation {
        dlis_backend::Operation::Reorder => "reorder".to_owned(),
        _ => step.layer.clone(),
    };
    steps.map(|step| format!("{} {}", name(step), step.op.output.layout)).collect()
}

const SAME: Window = Window::square(3).with_padding(1);

#[test]
fn a_chain_stays_in_lanes_from_its_first_layer_to_its_last() {
    let network = network(|graph| {
        let x = graph.conv("conv", Value::Input, 8, SAME);
        let y = graph.conv("branch", x, 8, SAME);
        let x = graph.add("add", y, x);
        let x = graph.max_pool("pool", x, Window::square(2).with_stride(2));
        let x = graph.depthwise("depthwise", x, SAME);
        let x = graph.global_avg_pool("mean", x);
        let x = graph.flatten("flatten", x);
        graph.linear("linear", x, 10)
    });
    let backend = lanes::backend();
    for batch in [16, 48] {
        let plan = check(&backend, &network, "fixed:definition", batch);
        let steps = layouts(&plan);
        let lanes = ["reorder", "conv", "branch", "pool", "depthwise", "mean"].map(|name| format!("{name} nhwc16n"));
        assert_eq!(steps[..6], lanes, "{steps:?}");
        // Features are in NCHW order, which takes more than another name.
        assert_eq!((&*steps[6], steps.len()), ("reorder nchw", 8));
    }
    for batch in [1, 15, 24] {
        let plan = check(&backend, &network, "fixed:definition", batch);
        assert!(plan.program().slots.iter().all(|slot| slot.spec.layout != Layout::Nhwc16n));
    }
}

#[test]
fn flattened_tensors_are_in_order_whatever_comes_after() {
    let network = network(|graph| {
        let x = graph.conv("conv", Value::Input, 4, SAME);
        let x = graph.flatten("flatten", x);
        // Both could be done in lanes, but not of features.
        let y = support::activation(graph, "sigmoid", x, dlis_model::Activation::Sigmoid);
        graph.add("add", x, y)
    });
    for text in ["fixed:definition", "heuristic", "measured"] {
        check(&lanes::backend(), &network, text, 16);
    }
}

#[test]
fn a_bit_of_everything_computes_the_same() {
    let backend = lanes::backend();
    for text in ["fixed:definition", "heuristic", "measured"] {
        check(&backend, &small(10), text, 16);
    }
}

#[test]
fn what_nobody_wants_in_lanes_is_not_measured_in_them() {
    let keys = |backend: &dyn Backend, network: &Network, batch: usize| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tune.json");
        let mut cache = TuneCache::open(&path).unwrap();
        Planner::new(backend).policy(policy("measured")).batch(batch).cache(&mut cache).plan(network).unwrap();
        cache.save().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let timings: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        timings.keys().filter(|key| key.contains("nhwc16n")).cloned().collect::<Vec<_>>()
    };
    let backend = lanes::backend();
    let pools = network(|graph| {
        let x = graph.max_pool("pool", Value::Input, Window::square(2));
        graph.max_pool("again", x, Window::square(2))
    });
    assert!(keys(&backend, &pools, 16).is_empty());
    let conv = network(|graph| {
        let x = graph.conv("conv", Value::Input, 8, SAME);
        let x = graph.flatten("flatten", x);
        graph.linear("linear", x, 10)
    });
    assert!(keys(&backend, &conv, 15).is_empty());
    let keys = keys(&backend, &conv, 16);
    let reorders: Vec<&String> = keys.iter().filter(|key| key.contains("|reorder/")).collect();
    // The input from NCHW to lanes, the result from lanes to NCHW: the linear layer has no other wish.
    assert_eq!(reorders.len(), 2, "{reorders:?}");
    assert!(keys.iter().any(|key| key.contains("/definition/")), "{keys:?}");
}

#[test]
fn random_graphs_compute_what_their_layers_say() {
    let backend = lanes::backend();
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let result = runner.run(&any_graph(), |graph| {
        let network = Network::random(graph, 1);
        for text in ["fixed:definition", "heuristic"] {
            check(&backend, &network, text, 16);
        }
        Ok(())
    });
    result.unwrap();
}
