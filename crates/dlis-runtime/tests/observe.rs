//! What an observer shows is what every layer makes by its definition.

mod support;

use dlis_model::Network;
use dlis_runtime::{Observer, Planner};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use support::random_graph::any_graph;
use support::{omp, oracle, rayon, small, values};

fn check(network: &Network, batch: usize, seed: u64) -> Result<(), String> {
    let input = values(batch * network.graph().input_shape().elements(), seed);
    let expected = oracle::layers(network, batch, &input);
    for backend in [omp(1), rayon(2)] {
        let mut observer = Observer::new(&backend, Planner::new(&backend).batch(batch), network).unwrap();
        assert_eq!((observer.batch(), observer.input_len()), (batch, input.len()));
        // Twice, the second time over what the first left.
        for _ in 0..2 {
            let mut seen = Vec::new();
            observer
                .run(&input, &mut |tensor| seen.push((tensor.value, tensor.shape, tensor.elements.to_vec())))
                .unwrap();
            if seen.len() != expected.len() {
                return Err(format!("{} tensors of {}", seen.len(), expected.len()));
            }
            for ((value, shape, found), (expected_value, expected)) in seen.iter().zip(&expected) {
                if value != expected_value || *shape != network.graph().shape(*value) || found.len() != expected.len() {
                    return Err(format!("{value:?} of {shape}, expected {expected_value:?}"));
                }
                let scale = expected.iter().fold(1e-3f32, |scale, value| scale.max(value.abs()));
                if found.iter().zip(expected).any(|(a, b)| (a - b).abs() > 1e-3 * scale) {
                    return Err(format!("{value:?} is {found:?}, expected {expected:?}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_layer_is_shown() {
    check(&small(10), 2, 1).unwrap();
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let strategy = (any_graph(), proptest::sample::select(vec![1usize, 3]), proptest::num::u64::ANY);
    let test = |(graph, batch, seed)| check(&Network::random(graph, seed), batch, seed).map_err(TestCaseError::fail);
    TestRunner::new(config).run(&strategy, test).unwrap();
}

#[test]
fn an_input_of_another_size_is_refused() {
    let backend = omp(1);
    let mut observer = Observer::new(&backend, Planner::new(&backend), &small(10)).unwrap();
    assert!(observer.run(&[0.0; 7], &mut |_| ()).is_err());
}
