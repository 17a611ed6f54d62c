//! Records that look like measured ones, the same every time.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::cast_precision_loss, reason = "the figures are made up")]

use dlis_backend::Schedule;
use dlis_experiment::{
    Accuracy, Compression, Latency, LayerProfile, Memory, Predicted, Provenance, Record, SCHEMA, StackPoint, Startup,
};

pub(crate) const HW: &str = "5eed0123456789ab";
const PEAK_FLOPS_PER_S: f64 = 90e9;
const BANDWIDTH_BYTES_PER_S: f64 = 22e9;

struct Network {
    name: &'static str,
    top1: f64,
    /// (channels in, channels out, side of the output image, depthwise)
    layers: Vec<(u64, u64, u64, bool)>,
}

fn networks() -> Vec<Network> {
    let plain = |layers: &[(u64, u64, u64)]| layers.iter().map(|&(i, o, side)| (i, o, side, false)).collect();
    let mut mobile = vec![(3, 32, 32, false)];
    for (i, o, side) in [(32, 64, 32), (64, 128, 16), (128, 256, 8), (256, 512, 4), (512, 512, 4), (512, 1024, 2)] {
        mobile.push((i, i, side, true));
        mobile.push((i, o, side, false));
    }
    vec![
        Network {
            name: "vgg16-cifar10",
            top1: 0.935,
            layers: plain(&[
                (3, 64, 32),
                (64, 64, 32),
                (64, 128, 16),
                (128, 128, 16),
                (128, 256, 8),
                (256, 256, 8),
                (256, 256, 8),
                (256, 512, 4),
                (512, 512, 4),
                (512, 512, 4),
                (512, 512, 2),
                (512, 512, 2),
                (512, 512, 2),
            ]),
        },
        Network {
            name: "resnet18-cifar10",
            top1: 0.949,
            layers: plain(&[
                (3, 64, 32),
                (64, 64, 32),
                (64, 64, 32),
                (64, 64, 32),
                (64, 64, 32),
                (64, 128, 16),
                (128, 128, 16),
                (128, 128, 16),
                (128, 256, 8),
                (256, 256, 8),
                (256, 256, 8),
                (256, 512, 4),
                (512, 512, 4),
                (512, 512, 4),
            ]),
        },
        Network { name: "mobilenet-cifar10", top1: 0.922, layers: mobile },
    ]
}

/// A record of `network` (0 to 2), its figures bent by the other choices.
pub(crate) fn record(network: usize, algorithm: &str, backend: &str, threads: usize) -> Record {
    let network = &networks()[network];
    let point = StackPoint {
        network: network.name.into(),
        recipe: "none".into(),
        format: "dense-f32".into(),
        algorithm: algorithm.parse().expect("an algorithm"),
        backend: backend.into(),
        threads,
        schedule: Schedule::Static,
        batch: 1,
        hw: HW.into(),
    };
    // 0 to 1, from the id: unlike for each point, the same in each run.
    let id = point.id();
    let jitter = f64::from(u8::from_str_radix(&id[..2], 16).expect("hexadecimal")) / 255.0;
    let speed = threads as f64 / (1.0 + 0.12 * (threads as f64 - 1.0)) * if backend == "omp" { 1.06 } else { 1.0 };
    let (slowdown, scratch_bytes) = match algorithm {
        "fixed:direct" => (6.5, 0),
        "fixed:im2col-gemm" => (2.2, 2_400_000),
        "fixed:implicit-gemm" => (1.7, 180_000 * threads as u64),
        _ => (1.35, 420_000 * threads as u64),
    };
    let mut layers = Vec::new();
    let (mut weight_bytes, mut activation_bytes) = (0, 0_u64);
    for (index, &(i, o, side, depthwise)) in network.layers.iter().enumerate() {
        let kernel = if side == 2 && i > 3 && o > 512 { 1 } else { 9 };
        let weights = if depthwise { i * 9 } else { i * o * kernel };
        let macs = weights * side * side;
        let bytes = 4 * (weights + (i + o) * side * side);
        let roofline_ns =
            (2e9 * macs as f64 / (PEAK_FLOPS_PER_S * speed)).max(1e9 * bytes as f64 / BANDWIDTH_BYTES_PER_S);
        weight_bytes += 4 * weights;
        activation_bytes = activation_bytes.max(4 * (i + o) * side * side);
        let op = if depthwise { format!("depthwise 3x3 {i}, relu") } else { format!("conv2d 3x3 {i}->{o}, relu") };
        let used = algorithm.strip_prefix("fixed:").unwrap_or(if index % 4 == 0 { "direct" } else { "implicit-gemm" });
        layers.push(LayerProfile {
            layer: format!("features.{index}"),
            op,
            kernel: format!("conv2d/f32/dense/{used}/avx2"),
            median_ns: roofline_ns * (slowdown + 0.6 * ((index * 7) % 5) as f64 * jitter),
            macs,
            bytes,
            roofline_ns: Some(roofline_ns),
        });
    }
    let total = |f: fn(&LayerProfile) -> f64| layers.iter().map(f).sum::<f64>();
    let roofline_ns = total(|layer| layer.roofline_ns.unwrap_or(0.0));
    let median_ns = total(|layer| layer.median_ns) * (1.0 + 0.04 * jitter);
    let noisy = jitter > 0.9;
    Record {
        schema: SCHEMA,
        compression: Compression {
            description: String::new(),
            sparsity: 0.0,
            weights: weight_bytes / 4,
            stored_weight_bytes: weight_bytes,
            macs: layers.iter().map(|layer| layer.macs).sum(),
        },
        id,
        accuracy: Accuracy {
            dataset: "embedded".into(),
            images: 1000,
            top1: network.top1 + if algorithm == "fixed:direct" { 0.001 } else { 0.0 },
            top5: 0.997,
            arithmetic: format!("{}-{algorithm}", network.name),
        },
        latency: Latency {
            median_ns,
            p10_ns: median_ns * 0.98,
            p90_ns: median_ns * if noisy { 1.4 } else { 1.05 },
            ci_low_ns: median_ns * 0.995,
            ci_high_ns: median_ns * 1.007,
            samples: 60,
            noisy,
            noise: noisy.then(|| "the median moved by 12 % between the halves".into()),
        },
        throughput_images_per_s: 1e9 / median_ns,
        memory: Memory {
            disk_bytes: weight_bytes / 2,
            weight_bytes,
            activation_bytes,
            scratch_bytes,
            counted_bytes: Some(weight_bytes + activation_bytes + scratch_bytes + 40_000),
            peak_rss_bytes: None,
        },
        predicted: Predicted {
            macs: layers.iter().map(|layer| layer.macs).sum(),
            bytes: layers.iter().map(|layer| layer.bytes).sum(),
            roofline_ns: Some(roofline_ns),
            peak_flops_per_s: Some(PEAK_FLOPS_PER_S * speed),
            bandwidth_bytes_per_s: Some(BANDWIDTH_BYTES_PER_S),
        },
        startup: Startup { load_ns: 31e6, prepare_ns: 12e6 },
        layers,
        energy_joules: None,
        provenance: Provenance {
            dlis_version: "0.1.0".into(),
            git_revision: Some("1e84cb3".into()),
            rustc: Some("rustc 1.95.0".into()),
            unix_ms: 1_795_000_000_000,
            machine: "Example CPU 5000, 8 cores".into(),
            machine_summary: "cpu          Example CPU 5000 (x86_64, linux)\ncores        8 logical, 8 physical\nsimd         avx2 (of portable, sse4.1, avx2)\nmemory       16 GiB".into(),
            os: "linux".into(),
            device: None,
        },
        notes: Vec::new(),
        point,
    }
}

/// Records of the built-in experiment on a machine of 8 cores: 48.
pub(crate) fn records() -> Vec<Record> {
    let mut records = Vec::new();
    for network in 0..3 {
        for algorithm in ["fixed:direct", "fixed:im2col-gemm", "fixed:implicit-gemm", "measured"] {
            for backend in ["rayon", "omp"] {
                for threads in [1, 8] {
                    records.push(record(network, algorithm, backend, threads));
                }
            }
        }
    }
    records
}
