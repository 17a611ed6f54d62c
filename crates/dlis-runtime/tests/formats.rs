//! Networks whose weights are in any format compute what dense f32 networks of the same values compute.

mod support;

use std::collections::BTreeSet;

use dlis_backend::{Backend, HostBackend};
use dlis_formats::Format;
use dlis_model::{Network, zoo};
use dlis_runtime::{Planner, Session};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use support::compressed::compressed;
use support::random_graph::any_graph;
use support::{omp, policy, rayon, values};

/// Largest difference, as a share of the largest element.
const TOLERANCE: f32 = 1e-4;

/// Compares a network with its dense form. Returns the formats that kernels executed.
fn check(
    network: &Network,
    format: Format,
    batch: usize,
    seed: u64,
    backends: &[HostBackend],
    policies: &[&str],
) -> Result<BTreeSet<String>, String> {
    let dense = network.clone().to_f32();
    let input = values(batch * network.graph().input_shape().elements(), seed);
    let run = |network: &Network, backend: &dyn Backend, text: &str| {
        let plan = Planner::new(backend).policy(policy(text)).batch(batch).plan(network).unwrap();
        let formats: BTreeSet<String> = plan
            .ops()
            .iter()
            .zip(&plan.program().steps)
            .filter_map(|(op, _)| op.weight.as_ref().map(|weight| weight.format().to_string()))
            .collect();
        let mut session = Session::new(backend, plan).unwrap();
        let mut output = vec![f32::NAN; session.output_len()];
        session.run(&input, &mut output).unwrap();
        (output, formats)
    };
    let (expected, _) = run(&dense, &backends[0], "heuristic");
    let scale = expected.iter().fold(1e-6f32, |scale, value| scale.max(value.abs()));
    let mut executed = BTreeSet::new();
    let mut first: Option<Vec<u32>> = None;
    for backend in backends {
        for &text in policies {
            let (found, formats) = run(network, backend, text);
            executed.extend(formats);
            for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
                if (expected - found).abs() > TOLERANCE * scale || found.is_nan() {
                    return Err(format!("{format}, {text}: element {index} is {found}, expected {expected}"));
                }
            }
            if text == "heuristic" {
                let bits: Vec<u32> = found.iter().map(|value| value.to_bits()).collect();
                if *first.get_or_insert_with(|| bits.clone()) != bits {
                    return Err(format!("{format}: {} threads compute other bits", backend.threads()));
                }
            }
        }
    }
    Ok(executed)
}

#[test]
fn random_graphs_compute_the_same_in_every_format() {
    let backends = [omp(1), omp(2), rayon(2)];
    let config = Config { cases: 56, failure_persistence: None, ..Config::default() };
    let formats = proptest::sample::select(Format::ALL.to_vec());
    let strategy = (any_graph(), formats, proptest::sample::select(vec![1usize, 3]), proptest::num::u64::ANY);
    let test = |(graph, format, batch, seed)| {
        let network = compressed(Network::random(graph, seed), format);
        check(&network, format, batch, seed, &backends, &["heuristic", "measured"])
            .map(drop)
            .map_err(TestCaseError::fail)
    };
    TestRunner::new(config).run(&strategy, test).unwrap();
}

#[test]
fn the_zoo_computes_the_same_in_every_format() {
    let backends = [omp(2)];
    for entry in zoo::ENTRIES.iter().filter(|entry| entry.name.ends_with("-cifar10")) {
        // Running the two large networks in all of them would take minutes.
        let few = [Format::CsrF32, Format::Ternary2Bit, Format::Int8];
        let formats = if entry.name.starts_with("mobilenet") { &Format::ALL[..] } else { &few };
        for &format in formats {
            let network = compressed(Network::random(entry.graph(), 3), format);
            let executed = check(&network, format, 1, 5, &backends, &["heuristic"])
                .unwrap_or_else(|error| panic!("{}: {error}", entry.name));
            assert!(executed.iter().all(|name| name == format.name() || name == "dense-f32"), "{executed:?}");
        }
    }
}
