//! The networks of the zoo: those for small images by every policy, those for large ones as plans.

mod support;

use dlis_model::{Network, Value, zoo};
use dlis_runtime::{Planner, Session};
use support::{POLICIES, omp, plan, rayon, values};

#[test]
fn every_policy_computes_the_same_logits() {
    let backends = [omp(2), rayon(2)];
    for entry in zoo::ENTRIES.iter().filter(|entry| entry.name.ends_with("-cifar10")) {
        let network = Network::random(entry.graph(), 3);
        let input = values(network.graph().input_shape().elements(), 5);
        let mut expected: Option<Vec<f32>> = None;
        for (index, text) in POLICIES.into_iter().enumerate() {
            let backend = &backends[index % 2];
            let mut session = Session::new(backend, plan(&network, backend, text, 1)).unwrap();
            let mut logits = vec![f32::NAN; session.output_len()];
            session.run(&input, &mut logits).unwrap();
            let expected = expected.get_or_insert_with(|| logits.clone());
            let scale = expected.iter().fold(0.0f32, |scale, logit| scale.max(logit.abs()));
            assert!(scale.is_finite() && scale > 1e-3, "{}: logits up to {scale} prove nothing", entry.name);
            for (expected, found) in expected.iter().zip(&logits) {
                let difference = (expected - found).abs();
                assert!(difference <= 1e-3 * scale, "{}, {text}: {found} instead of {expected}", entry.name);
            }
        }
    }
}

#[test]
fn networks_for_large_images_can_be_planned_in_little_memory() {
    let backend = omp(2);
    for entry in zoo::ENTRIES.iter().filter(|entry| entry.name.ends_with("-imagenet")) {
        let network = Network::random(entry.graph(), 0);
        let graph = network.graph();
        let layers = (0..graph.layers().len()).map(Value::Layer);
        let elements: usize = layers.chain([Value::Input]).map(|value| graph.shape(value).elements()).sum();
        let (output, macs) = (graph.output_shape().elements(), graph.macs());
        let plan = Planner::new(&backend).plan(&network).unwrap();
        let program = plan.program();
        program.validate().unwrap();
        assert_eq!(program.output_spec().elements(), output, "{}", entry.name);
        assert_eq!(program.steps.iter().map(|step| step.op.macs()).sum::<u64>(), macs, "{}", entry.name);
        let largest = program.steps.iter().map(|step| step.op.activation_bytes()).max().unwrap();
        let largest = usize::try_from(largest).unwrap();
        let (all, arena) = (elements * size_of::<f32>(), program.arena_bytes);
        assert!(arena * 2 < all, "{}: an arena of {arena} bytes, activations of {all}", entry.name);
        // No arena holds less than one step's tensors; a good one holds hardly more than the largest's.
        assert!((largest..2 * largest).contains(&arena), "{}: {arena} bytes for a step of {largest}", entry.name);
    }
}
