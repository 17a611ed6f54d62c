//! All algorithms compute the same function: logits on real images with trained weights.

use std::path::Path;

use dlis_backend::Schedule;
use dlis_eval::dataset::{Normalization, cifar10};
use dlis_experiment::Catalogue;
use dlis_experiment::catalogue::{NO_RECIPE, backend};
use dlis_runtime::{Planner, Session};

/// Every convolution algorithm, at every SIMD level; where the machine lacks one, the heuristic's choice.
const POLICIES: [&str; 10] = [
    "fixed:direct",
    "fixed:im2col-gemm",
    "fixed:conv2d/*/*/implicit-gemm/portable",
    "fixed:conv2d/*/*/implicit-gemm/avx2",
    "fixed:conv2d/*/*/implicit-gemm/avx512",
    "fixed:winograd-2x2",
    "fixed:winograd-4x4",
    "fixed:winograd-6x6",
    "heuristic",
    "measured",
];
const IMAGES: usize = 8;
/// Largest difference of any two logits of one image and class.
const TOLERANCE: f32 = 1e-3;

fn logits(network: &dlis_model::Network, policy: &str, threads: usize, images: &[f32]) -> Vec<f32> {
    let system = backend("rayon", threads, Schedule::Static).unwrap();
    let plan = Planner::new(&*system).policy(policy.parse().unwrap()).plan(network).unwrap();
    let mut session = Session::new(&*system, plan).unwrap();
    let classes = session.output_len();
    let mut logits = vec![0.0; IMAGES * classes];
    for (image, logits) in images.chunks_exact(images.len() / IMAGES).zip(logits.chunks_exact_mut(classes)) {
        session.run(image, logits).unwrap();
    }
    logits
}

fn agree(name: &str) {
    let catalogue = Catalogue::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets"));
    let loaded = catalogue.network(name, NO_RECIPE, "dense-f32").unwrap();
    assert!(loaded.trained, "the trained weights of {name} are in datasets/");
    let dataset = cifar10::embedded();
    let mut images = vec![0.0; IMAGES * dataset.image_len()];
    dataset.batch_into(0..IMAGES, &Normalization::CIFAR10, &mut images).unwrap();
    let all: Vec<Vec<f32>> = POLICIES.iter().map(|policy| logits(&loaded.network, policy, 1, &images)).collect();
    for (a, first) in POLICIES.iter().zip(&all) {
        for (b, second) in POLICIES.iter().zip(&all) {
            let difference = first.iter().zip(second).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(difference <= TOLERANCE, "{name}: logits by {a} and by {b} differ by {difference}");
        }
    }
    // The right answers, too: trained weights and preprocessing fit each other.
    let right = all[0].chunks_exact(10).zip(dataset.labels()).filter(|(logits, label)| {
        let best = (0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        best == usize::from(**label)
    });
    assert!(right.count() >= IMAGES - 1, "{name} is wrong on more than one of {IMAGES} images");
    assert_eq!(logits(&loaded.network, POLICIES[1], 2, &images), all[1], "{name}: two threads compute the same bits");
}

/// Of the embedded images, how many a network recognises.
fn recognised(network: &dlis_model::Network) -> usize {
    let dataset = cifar10::embedded();
    let system = backend("omp", 1, Schedule::Static).unwrap();
    let plan = Planner::new(&*system).policy("heuristic".parse().unwrap()).plan(network).unwrap();
    let mut session = Session::new(&*system, plan).unwrap();
    let (mut image, mut logits) = (vec![0.0; dataset.image_len()], vec![0.0; session.output_len()]);
    let labels = dataset.labels().iter().enumerate();
    let right = labels.filter(|&(index, &label)| {
        dataset.batch_into(index..index + 1, &Normalization::CIFAR10, &mut image).unwrap();
        session.run(&image, &mut logits).unwrap();
        (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])) == Some(usize::from(label))
    });
    right.count()
}

/// Eight bits an activation cost a ternary network at most a point.
#[test]
fn ternary_networks_recognise_as_much_in_u8() {
    let catalogue = Catalogue::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets"));
    for name in ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10"] {
        let of = |recipe| recognised(&catalogue.network(name, recipe, "stored").unwrap().network);
        let (floats, bytes) = (of("ternary-0.1"), of("ternary-0.1-int8"));
        assert!(bytes + 10 >= floats, "{name}: {bytes} of 1000 images, {floats} in f32");
    }
}

#[test]
fn vgg16_agrees() {
    agree("vgg16-cifar10");
}

#[test]
fn resnet18_agrees() {
    agree("resnet18-cifar10");
}

#[test]
fn mobilenet_agrees() {
    agree("mobilenet-cifar10");
}
