//! Every compressed network that comes with the repository, on every backend: it computes what its weights say, and
//! its file and its weights in memory are as small as its technique promises.
//!
//! The allocator counts for the whole process, so that everything is one test in a file of its own.

use std::alloc::System;
use std::collections::BTreeMap;
use std::path::Path;

use dlis_backend::{Backend, Schedule};
use dlis_eval::dataset::{Normalization, cifar10};
use dlis_experiment::Catalogue;
use dlis_experiment::catalogue::{NO_RECIPE, STORED, backend};
use dlis_formats::Format;
use dlis_model::{Artefact, Network};
use dlis_runtime::{LoweredOp, Plan, Planner, Policy, Session};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[path = "../../dlis-runtime/tests/support/integers.rs"]
mod integers;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NETWORKS: [&str; 3] = ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10"];
const IMAGES: usize = 2;
/// Largest difference of a logit from that of the same weights in dense f32, as a share of the largest logit.
const TOLERANCE: f32 = 1e-4;
/// What names, shapes and boxes of a step of a session may take.
const BOOKKEEPING_PER_STEP: usize = 4 << 10;

/// How much smaller than the dense f32 network recipes make it, on disk and in memory, by the beginning of their
/// name.
const PROMISED: [(&str, f64); 7] = [
    ("prune-90", 6.0),
    ("prune-95", 10.0),
    ("even-90", 6.0),
    ("even-95", 10.0),
    (TERNARY_IN_U8, 13.0),
    ("ternary", 14.0),
    ("int8", 3.9),
];
/// A recipe made on the spot of an artefact.
const TERNARY_IN_U8: &str = "ternary-0.1-int8";
/// How much smaller than an int8 VGG-16 a ternary one in u8 is in memory.
const OF_INT8: f64 = 3.4;

fn plan(network: &Network, system: &dyn Backend, policy: &str) -> Plan {
    Planner::new(system).policy(policy.parse::<Policy>().unwrap()).plan(network).unwrap()
}

fn logits(system: &dyn Backend, plan: Plan, images: &[f32]) -> Vec<f32> {
    let mut session = Session::new(system, plan).unwrap();
    let classes = session.output_len();
    let mut logits = vec![f32::NAN; IMAGES * classes];
    for (image, logits) in images.chunks_exact(images.len() / IMAGES).zip(logits.chunks_exact_mut(classes)) {
        session.run(image, logits).unwrap();
    }
    logits
}

/// Bytes of weights that a session holds: what it says, once all that it says is what it has allocated.
fn resident_weights(system: &dyn Backend, plan: &Plan, what: &str) -> usize {
    let region = Region::new(ALLOCATOR);
    // Making a session drops the plan, so that the copy counts for nothing.
    let session = Session::new(system, plan.clone()).unwrap();
    let change = region.change();
    let net = change.bytes_allocated.checked_sub(change.bytes_deallocated).unwrap();
    let residency = session.residency();
    let said = residency.weight_bytes + residency.activation_bytes + residency.scratch_bytes;
    let slack = session.program().steps.len() * BOOKKEEPING_PER_STEP;
    assert!((said..=said + slack).contains(&net), "{what}: {net} bytes for {residency:?}");
    residency.weight_bytes
}

#[test]
fn compressed_networks_compute_what_they_say_in_the_bytes_they_promise() {
    let catalogue = Catalogue::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets"));
    let systems: Vec<Box<dyn Backend>> = [("omp", 1), ("omp", 2), ("rayon", 1), ("rayon", 2)]
        .map(|(n, t)| backend(n, t, Schedule::Static).unwrap())
        .into();
    let dataset = cifar10::embedded();
    let mut images = vec![0.0; IMAGES * dataset.image_len()];
    dataset.batch_into(0..IMAGES, &Normalization::CIFAR10, &mut images).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut kept = 0;
    for name in NETWORKS {
        let dense = catalogue.network(name, NO_RECIPE, "dense-f32").unwrap().network;
        let f32_file = folder.path().join(name);
        Artefact::new(dense.clone()).save(&f32_file).unwrap();
        let f32_file = std::fs::metadata(&f32_file).unwrap().len();
        let dense_resident = resident_weights(&*systems[0], &plan(&dense, &*systems[0], "heuristic"), name);
        let mut held = BTreeMap::new();
        for recipe in catalogue.recipes().into_iter().chain([TERNARY_IN_U8.to_owned()]) {
            if recipe == NO_RECIPE || catalogue.has_recipe(name, &recipe).is_err() {
                continue;
            }
            let what = format!("{name}, {recipe}");
            let loaded = catalogue.network(name, &recipe, STORED).unwrap();
            let stored = plan(&loaded.network, &*systems[0], "heuristic");
            // But for first layers, whose few weights are not worth decoding.
            let as_stored = |op: &LoweredOp| op.expanded.is_none_or(|format| format == Format::DenseF16);
            assert!(stored.ops().iter().all(as_stored), "{what}: {}", stored.explain(&*systems[0]));

            let resident = resident_weights(&*systems[0], &stored, &what);
            held.insert(recipe.clone(), resident as f64);
            if let Some(&(_, promised)) = PROMISED.iter().find(|(start, _)| recipe.starts_with(start)) {
                let disk = f32_file as f64 / loaded.disk_bytes as f64;
                let memory = dense_resident as f64 / resident as f64;
                assert!(disk >= promised, "{what}: 1/{disk:.2} of the f32 file, expected 1/{promised}");
                // Where the processor multiplies signed bytes only, each channel has a correction besides.
                let corrected = stored
                    .program()
                    .steps
                    .iter()
                    .any(|step| step.kernel.isa() == "avx2" && step.kernel.dtype() == "u8");
                let promised = if corrected { 0.985 * promised } else { promised };
                assert!(
                    memory >= promised,
                    "{what}: 1/{memory:.2} of the f32 weights in memory, expected 1/{promised}"
                );
                kept += 1;
            }

            let found: Vec<Vec<f32>> = systems
                .iter()
                .map(|system| logits(&**system, plan(&loaded.network, &**system, "heuristic"), &images))
                .collect();
            let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
            assert!(found.iter().all(|logits| bits(logits) == bits(&found[0])), "{what}: backends or threads differ");
            if integers::is_exact(&stored) {
                let first = &images[..dataset.image_len()];
                let expected = integers::evaluate(&stored, first);
                assert_eq!(
                    bits(&found[0][..expected.len()]),
                    bits(&expected),
                    "{what}: bits differ from the definition's"
                );
            } else {
                let dense = plan(&loaded.network.to_f32(), &*systems[0], "fixed:implicit-gemm");
                let masked = logits(&*systems[0], dense, &images);
                let scale = masked.iter().fold(0f32, |scale, logit| scale.max(logit.abs()));
                let worst = masked.iter().zip(&found[0]).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                assert!(worst <= TOLERANCE * scale, "{what}: logits differ by {worst} from those of dense weights");
            }
        }
        let ratio = held["int8"] / held[TERNARY_IN_U8];
        assert!(name != "vgg16-cifar10" || ratio >= OF_INT8, "{name}: 1/{ratio:.2} of int8's weights in memory");
    }
    assert!(kept >= NETWORKS.len() * PROMISED.len(), "{kept} promises are kept: there is an artefact of each");
}
