//! Networks of u8 tensors compute, bit for bit, what the definition of their operations says.

mod support;

use dlis_model::{Network, zoo};
use dlis_runtime::{Plan, Session};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use support::compressed;
use support::random_graph::any_graph;
use support::{integers, omp, plan, rayon, values};

fn check(network: &Network, plan: &Plan, batch: usize, seed: u64) -> Result<(), String> {
    let input = values(batch * network.graph().input_shape().elements(), seed);
    let expected = integers::evaluate(plan, &input);
    for backend in [omp(1), omp(2), rayon(2)] {
        let mut session = Session::new(&backend, plan.clone()).unwrap();
        let mut found = vec![f32::NAN; session.output_len()];
        // The second time over what the first left in the arena.
        for _ in 0..2 {
            session.run(&input, &mut found).unwrap();
            if let Some(index) = (0..found.len()).find(|&i| found[i].to_bits() != expected[i].to_bits()) {
                let explanation = plan.explain(&backend);
                return Err(format!(
                    "element {index} is {}, expected {}\n{explanation}",
                    found[index], expected[index]
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn random_graphs_compute_every_bit() {
    let config = Config { cases: 600, failure_persistence: None, ..Config::default() };
    let strategy = (any_graph(), proptest::sample::select(vec![1usize, 3]), proptest::num::u64::ANY);
    let backend = omp(1);
    let exact = std::cell::Cell::new(0);
    let test = |(graph, batch, seed)| {
        let network = compressed::integers(Network::random(graph, seed));
        let policy = if seed % 2 == 0 { "heuristic" } else { "measured" };
        let plan = plan(&network, &backend, policy, batch);
        plan.program().validate().unwrap();
        if !integers::is_exact(&plan) {
            return Ok(());
        }
        exact.set(exact.get() + 1);
        check(&network, &plan, batch, seed).map_err(TestCaseError::fail)
    };
    TestRunner::new(config).run(&strategy, test).unwrap();
    assert!(exact.get() > 20, "{} graphs ran in u8 from end to end", exact.get());
}

#[test]
fn the_zoo_computes_every_bit() {
    let backend = omp(2);
    for name in ["mobilenet-cifar10", "resnet18-cifar10", "vgg16-cifar10"] {
        let network = compressed::integers(Network::random(zoo::graph(name).unwrap(), 3));
        let plan = plan(&network, &backend, "heuristic", 1);
        assert!(integers::is_exact(&plan), "{name}: {}", plan.explain(&backend));
        check(&network, &plan, 1, 5).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
