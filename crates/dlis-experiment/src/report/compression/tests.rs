//! Sentences and figures on records that are made up.

use super::*;
use crate::{Accuracy, Compression, Latency, LayerProfile, Memory, Predicted, Provenance, SCHEMA, StackPoint, Startup};

const PEAK: f64 = 100e9;
const BANDWIDTH: f64 = 10e9;

/// (layer, kernel, us, millions of MACs, kilobytes)
type Layer = (&'static str, &'static str, f64, u64, u64);

fn record(recipe: &str, format: &str, top1: f64, layers: &[Layer]) -> Record {
    let layers: Vec<LayerProfile> = layers
        .iter()
        .map(|&(layer, kernel, us, macs, bytes)| LayerProfile {
            layer: layer.into(),
            op: "conv2d".into(),
            kernel: kernel.into(),
            median_ns: us * 1e3,
            macs: macs * 1_000_000,
            bytes: bytes * 1000,
            roofline_ns: None,
        })
        .collect();
    let median_ns: f64 = layers.iter().map(|layer| layer.median_ns).sum();
    let point = StackPoint {
        network: "mobilenet-cifar10".into(),
        recipe: recipe.into(),
        format: format.into(),
        algorithm: "measured".parse().unwrap(),
        backend: "omp".into(),
        threads: 1,
        schedule: "static".parse().unwrap(),
        batch: 1,
        hw: "0123456789abcdef".into(),
    };
    Record {
        schema: SCHEMA,
        id: point.id(),
        point,
        compression: Compression {
            description: String::new(),
            sparsity: 0.0,
            weights: 3_000_000,
            stored_weight_bytes: 1_000_000,
            macs: dlis_model::zoo::mobilenet_cifar10().macs(),
        },
        accuracy: Accuracy { dataset: "d".into(), images: 1000, top1, top5: 1.0, arithmetic: "a".into() },
        latency: Latency {
            median_ns,
            p10_ns: median_ns,
            p90_ns: median_ns,
            ci_low_ns: median_ns * 0.99,
            ci_high_ns: median_ns * 1.01,
            samples: 10,
            noisy: false,
            noise: None,
        },
        throughput_images_per_s: 1e9 / median_ns,
        memory: Memory {
            disk_bytes: 1_000_000,
            weight_bytes: 1_000_000,
            activation_bytes: 1,
            scratch_bytes: 1,
            counted_bytes: None,
            peak_rss_bytes: None,
        },
        predicted: Predicted {
            macs: 1,
            bytes: 1,
            roofline_ns: None,
            peak_flops_per_s: Some(PEAK),
            bandwidth_bytes_per_s: Some(BANDWIDTH),
        },
        startup: Startup { load_ns: 0.0, prepare_ns: 0.0 },
        layers,
        energy_joules: None,
        provenance: Provenance {
            dlis_version: "0".into(),
            git_revision: None,
            rustc: None,
            unix_ms: 0,
            machine: "m".into(),
            machine_summary: "m".into(),
            os: "linux".into(),
            device: None,
        },
        notes: Vec::new(),
    }
}

const GEMM: &str = "conv2d/f32/dense/im2col-gemm/avx2";
const TERNARY: &str = "conv2d/f32/ternary-2bit/decode/avx2";
const CSR: &str = "conv2d/f32/csr-f32/spmm/avx2";

/// pw1 .. pw3 are bound by arithmetic, fc by memory.
fn dense() -> Record {
    record(
        "none",
        "dense-f32",
        0.92,
        &[
            ("conv1", GEMM, 100.0, 4, 100),
            ("pool", "max_pool/f32/none/direct/avx2", 10.0, 0, 100),
            ("pw1", GEMM, 300.0, 14, 100),
            ("pw2", GEMM, 300.0, 14, 100),
            ("pw3", GEMM, 300.0, 14, 100),
            ("fc", GEMM, 200.0, 1, 1900),
        ],
    )
}

fn with(base: &Record, recipe: &str, format: &str, changes: &[Layer]) -> Record {
    let mut changed = record(recipe, format, 0.91, changes);
    let own = std::mem::take(&mut changed.layers);
    let mut layers = base.layers.clone();
    for layer in own {
        match layers.iter_mut().find(|other| other.layer == layer.layer) {
            Some(place) => *place = layer,
            None => layers.push(layer),
        }
    }
    let median_ns: f64 = layers.iter().map(|layer| layer.median_ns).sum();
    changed.layers = layers;
    changed.latency = Latency {
        median_ns,
        ci_low_ns: median_ns * 0.99,
        ci_high_ns: median_ns * 1.01,
        p10_ns: median_ns,
        p90_ns: median_ns,
        ..changed.latency
    };
    changed
}

fn only(records: &[Record]) -> String {
    let mut sentences = slower_points(records);
    assert_eq!(sentences.len(), 1, "{sentences:#?}");
    sentences.remove(0)
}

#[test]
fn decoding_in_layers_bound_by_arithmetic_is_named_as_such() {
    let dense = dense();
    let slow = [
        ("pw1", TERNARY, 400.0, 14, 20),
        ("pw2", TERNARY, 420.0, 14, 20),
        ("pw3", TERNARY, 410.0, 14, 20),
        ("fc", TERNARY, 210.0, 1, 150),
    ];
    let ternary = with(&dense, "ttq", "stored", &slow);
    // 330 of 340 us are lost in pw1 .. pw3, of which two make up less than three quarters.
    assert_eq!(
        only(&[dense, ternary]),
        "ternary on mobilenet-cifar10 (ttq, stored; measured, omp, 1 thread): 1.28x slower than dense (1.55 ms against \
         1.21 ms); 97 % of the loss is in pw1 .. pw3, whose decoding by `conv2d/f32/ternary-2bit/decode/avx2` costs more \
         than the weight traffic it saves: these layers are bound by arithmetic (roofline 840 us of 900 us)."
    );
}

#[test]
fn a_layer_bound_by_memory_is_told_apart() {
    let dense = dense();
    let ternary = with(&dense, "ttq", "stored", &[("fc", TERNARY, 500.0, 1, 120)]);
    let sentence = only(&[dense, ternary]);
    assert!(sentence.contains("100 % of the loss is in fc, which move 120 kB instead of 1.90 MB"), "{sentence}");
    assert!(sentence.contains("memory alone would take 12.0 us"), "{sentence}");
}

#[test]
fn sparse_extra_and_dense_steps_have_reasons_of_their_own() {
    let dense = dense();
    let sparse = with(&dense, "w50", "stored", &[("pw1", CSR, 450.0, 14, 90), ("pw3", CSR, 400.0, 14, 90)]);
    let sentence = only(&[dense.clone(), sparse]);
    assert!(sentence.starts_with("weight pruning on") && sentence.contains("pw1 and pw3, where finding"), "{sentence}");

    let extra = with(&dense, "ttq", "ternary-2bit", &[("to nchw", "reorder/f32/none/tiled/avx2", 90.0, 0, 100)]);
    let sentence = only(&[dense.clone(), extra]);
    assert!(sentence.contains("in to nchw, which dense does not have"), "{sentence}");

    let thin = with(&dense, "fisher", "stored", &[("pw2", GEMM, 500.0, 7, 60)]);
    let sentence = only(&[dense.clone(), thin]);
    assert!(sentence.contains("do 50 % of the multiplications at 28.0 instead of 93.3 GFLOP/s"), "{sentence}");

    let same = with(&dense, "fisher", "stored", &[("pw2", GEMM, 500.0, 14, 100)]);
    assert!(only(&[dense, same]).contains("by the same kernel"));
}

#[test]
fn what_is_not_known_is_said() {
    let dense = dense();
    let mut blind = with(&dense, "ttq", "stored", &[("pw1", TERNARY, 900.0, 14, 20)]);
    blind.layers.clear();
    blind.point.format = "ternary-2bit".into();
    assert!(only(&[dense.clone(), blind]).contains("no profile of layers"));

    let mut unknown = dense.clone();
    unknown.predicted.peak_flops_per_s = None;
    let ternary = with(&unknown, "ttq", "stored", &[("pw1", TERNARY, 900.0, 14, 20)]);
    assert!(only(&[unknown, ternary]).contains("peaks are not known"));

    let mut close = with(&dense, "ttq", "ternary-2bit", &[]);
    close.latency.median_ns *= 1.001;
    let sentence = only(&[dense, close]);
    assert!(
        sentence.contains("as fast as dense within the error") && sentence.contains("no layer loses"),
        "{sentence}"
    );
}

#[test]
fn faster_points_and_points_without_a_counterpart_have_no_sentence() {
    let dense = dense();
    let fast = with(&dense, "w90", "stored", &[("pw1", CSR, 60.0, 14, 20)]);
    let mut alone = with(&dense, "ttq", "stored", &[("pw1", TERNARY, 900.0, 14, 20)]);
    alone.point.threads = 2;
    assert!(slower_points(&[dense.clone(), fast.clone(), alone.clone()]).is_empty());
    // The fastest dense record is the counterpart, whatever its algorithm.
    let mut slow_dense = dense.clone();
    slow_dense.latency.median_ns *= 3.0;
    slow_dense.point.algorithm = "fixed:direct".parse().unwrap();
    assert_eq!(dense_of(&fast, &[slow_dense, dense.clone()]).unwrap().point.algorithm, dense.point.algorithm);

    let section = compression(&[dense, fast, alone]).unwrap().unwrap();
    assert!(section.findings[0].starts_with("1 of 1 compressed points are faster"), "{:?}", section.findings);
    assert!(section.findings[1].starts_with("1 more have no dense counterpart"), "{:?}", section.findings);
}

#[test]
fn the_section_is_there_only_if_anything_was_compressed() {
    let dense = dense();
    assert_eq!(compression(std::slice::from_ref(&dense)).unwrap(), None);
    let ternary = with(&dense, "ttq", "stored", &[("pw1", TERNARY, 900.0, 14, 20)]);
    let section = compression(&[dense, ternary]).unwrap().unwrap();
    let names: Vec<&str> = section.figures.iter().map(|drawing| drawing.file_name.as_str()).collect();
    assert_eq!(
        names,
        [
            "compression-sparsity.svg",
            "compression-disk.svg",
            "compression-latency.svg",
            "compression-threads.svg",
            "compression-memory.svg"
        ]
    );
    // One mark for each record, and one in the legend for each technique that has any.
    assert_eq!(section.figures[0].svg.matches("<circle").count(), 2);
    assert!(section.figures[0].svg.contains("ternary") && !section.figures[0].svg.contains("int8"));
    assert_eq!(section.tables[0].rows.len(), 2);
    assert_eq!(section.findings.len(), 2);
}

#[test]
fn an_accurate_record_stands_for_its_technique_before_a_fast_one() {
    let dense = dense();
    let mut wild = with(&dense, "ttq-wild", "stored", &[("pw1", TERNARY, 1.0, 14, 20)]);
    wild.accuracy.top1 = 0.5;
    let sane = with(&dense, "ttq", "stored", &[("pw1", TERNARY, 300.0, 14, 20)]);
    let records = [dense, wild, sane];
    let chosen = |least| choose(&records, "mobilenet-cifar10", crate::Technique::Ternary, 1, least).unwrap();
    assert_eq!(chosen(0.91).point.recipe, "ttq");
    assert_eq!(chosen(0.4).point.recipe, "ttq-wild");
    // None is accurate enough: the most accurate one.
    assert_eq!(chosen(0.99).point.recipe, "ttq");
    assert!(choose(&records, "mobilenet-cifar10", crate::Technique::Int8, 1, 0.0).is_none());
}

#[test]
fn techniques_are_told_by_kernels_then_by_names_and_zeros() {
    use crate::Technique;
    let dense = dense();
    let of = |recipe: &str, kernel: &'static str, sparsity: f64| {
        let mut record = with(&dense, recipe, "stored", &[("pw1", kernel, 300.0, 14, 100)]);
        record.compression.sparsity = sparsity;
        Technique::of(&record)
    };
    assert_eq!(Technique::of(&dense), Technique::Plain);
    assert_eq!(of("prune-90", CSR, 0.9), Technique::WeightPruning);
    assert_eq!(of("prune-90", GEMM, 0.9), Technique::WeightPruning);
    assert_eq!(of("channels-50", GEMM, 0.0), Technique::ChannelPruning);
    assert_eq!(of("a", TERNARY, 0.6), Technique::Ternary);
    assert_eq!(of("ternary", GEMM, 0.6), Technique::Ternary);
    assert_eq!(of("none", "conv2d/u8/int8/implicit-gemm/avx2", 0.0), Technique::Int8);
    let mut fewer_channels = with(&dense, "channels-50-a", "stored", &[("pw1", TERNARY, 300.0, 14, 100)]);
    fewer_channels.compression.macs /= 2;
    assert_eq!(Technique::of(&fewer_channels), Technique::Combined);
}
