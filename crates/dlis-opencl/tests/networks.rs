//! Whole networks by the kernels that make one launch of many steps, against the definition of their operations in
//! f64: merged steps, barriers and the places of tensors are proved by nothing smaller.
//!
//! Where the device has not the instructions, they are emulated if `DLIS_OPENCL_EMULATE` is set; else other kernels
//! run.

mod support;

use std::sync::Arc;

use dlis_model::{Network, interpreter, zoo};
use dlis_opencl::{OpenClBackend, Precision};
use dlis_runtime::{Planner, Policy, Session};
use ndarray::{Array4, Axis};

/// The first alone where nothing is fast.
const NETWORKS: [&str; 3] = ["mobilenet-cifar10", "vgg16-cifar10", "resnet18-cifar10"];

/// Numbers of both signs without a pattern.
fn images(batch: usize) -> Array4<f32> {
    let value = |(n, c, y, x)| {
        let hash = u32::try_from(n * 7919 + c * 1031 + y * 131 + x * 17).unwrap();
        (hash.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    Array4::from_shape_fn([batch, 3, 32, 32], value)
}

#[test]
fn whole_networks_compute_what_their_operations_define() {
    let Some(device) = support::device() else { return };
    let policy: Policy = "fixed:persistent".parse().unwrap();
    let count = if device.info().has_tensor_cores() { NETWORKS.len() } else { 1 };
    for &name in &NETWORKS[..count] {
        let network = Network::random(zoo::graph(name).unwrap(), 7);
        let images = images(2);
        let expected: Vec<f64> = images
            .axis_iter(Axis(0))
            .flat_map(|image| interpreter::evaluate(&network, &image.mapv(f64::from)).into_iter().collect::<Vec<_>>())
            .collect();
        let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        for precision in Precision::ALL {
            let Ok(backend) = OpenClBackend::new(Arc::clone(&device), precision) else { continue };
            let plan = Planner::new(&backend).policy(policy.clone()).batch(2).plan(&network).unwrap();
            let mut session = Session::new(&backend, plan).unwrap();
            let found = session.infer(images.view()).unwrap();
            let allowed = largest * if precision == Precision::F32 { 1e-4 } else { 2e-2 };
            for (expected, &found) in expected.iter().zip(&found) {
                let difference = (expected - f64::from(found)).abs();
                assert!(difference <= allowed, "{name} in {precision}: expected {expected}, found {found}");
            }
        }
    }
}
