//! Records as comma-separated values (RFC 4180).

use crate::{Record, StackLayer};

/// A column after those of the stack layers: its name, with the unit, and its value.
type Figure = (&'static str, fn(&Record) -> String);

fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

const FIGURES: [Figure; 45] = [
    ("compression_description", |r| r.compression.description.clone()),
    ("compression_sparsity", |r| r.compression.sparsity.to_string()),
    ("compression_weights", |r| r.compression.weights.to_string()),
    ("compression_stored_weight_bytes", |r| r.compression.stored_weight_bytes.to_string()),
    ("compression_macs", |r| r.compression.macs.to_string()),
    ("accuracy_dataset", |r| r.accuracy.dataset.clone()),
    ("accuracy_images", |r| r.accuracy.images.to_string()),
    ("accuracy_top1", |r| r.accuracy.top1.to_string()),
    ("accuracy_top1_low", |r| r.accuracy.top1_interval().low.to_string()),
    ("accuracy_top1_high", |r| r.accuracy.top1_interval().high.to_string()),
    ("accuracy_top5", |r| r.accuracy.top5.to_string()),
    ("accuracy_arithmetic", |r| r.accuracy.arithmetic.clone()),
    ("latency_median_ns", |r| r.latency.median_ns.to_string()),
    ("latency_p10_ns", |r| r.latency.p10_ns.to_string()),
    ("latency_p90_ns", |r| r.latency.p90_ns.to_string()),
    ("latency_ci_low_ns", |r| r.latency.ci_low_ns.to_string()),
    ("latency_ci_high_ns", |r| r.latency.ci_high_ns.to_string()),
    ("latency_samples", |r| r.latency.samples.to_string()),
    ("latency_noisy", |r| r.latency.noisy.to_string()),
    ("latency_noise", |r| r.latency.noise.clone().unwrap_or_default()),
    ("throughput_images_per_s", |r| r.throughput_images_per_s.to_string()),
    ("memory_resident_bytes", |r| r.memory.resident_bytes().to_string()),
    ("memory_disk_bytes", |r| r.memory.disk_bytes.to_string()),
    ("memory_weight_bytes", |r| r.memory.weight_bytes.to_string()),
    ("memory_activation_bytes", |r| r.memory.activation_bytes.to_string()),
    ("memory_scratch_bytes", |r| r.memory.scratch_bytes.to_string()),
    ("memory_counted_bytes", |r| optional(r.memory.counted_bytes)),
    ("memory_peak_rss_bytes", |r| optional(r.memory.peak_rss_bytes)),
    ("predicted_macs", |r| r.predicted.macs.to_string()),
    ("predicted_bytes", |r| r.predicted.bytes.to_string()),
    ("predicted_roofline_ns", |r| optional(r.predicted.roofline_ns)),
    ("predicted_peak_flops_per_s", |r| optional(r.predicted.peak_flops_per_s)),
    ("predicted_bandwidth_bytes_per_s", |r| optional(r.predicted.bandwidth_bytes_per_s)),
    ("startup_load_ns", |r| r.startup.load_ns.to_string()),
    ("startup_prepare_ns", |r| r.startup.prepare_ns.to_string()),
    ("energy_joules", |r| optional(r.energy_joules)),
    ("dlis_version", |r| r.provenance.dlis_version.clone()),
    ("git_revision", |r| r.provenance.git_revision.clone().unwrap_or_default()),
    ("rustc", |r| r.provenance.rustc.clone().unwrap_or_default()),
    ("unix_ms", |r| r.provenance.unix_ms.to_string()),
    ("machine", |r| r.provenance.machine.clone()),
    ("os", |r| r.provenance.os.clone()),
    ("layers", |r| r.layers.len().to_string()),
    ("notes", |r| r.notes.join("; ")),
    ("schema", |r| r.schema.to_string()),
];

/// A heading, then a row for each record: its id, its choice on every layer of the stack, its figures.
/// What was not measured is empty.
pub fn csv(records: &[Record]) -> String {
    let layers = StackLayer::ALL.map(StackLayer::name);
    let heading = ["id"].into_iter().chain(layers).chain(FIGURES.map(|(name, _)| name));
    let mut text = line(heading.map(str::to_owned));
    for record in records {
        let choices = StackLayer::ALL.iter().map(|layer| layer.value(&record.point));
        let figures = FIGURES.iter().map(|(_, value)| value(record));
        text += &line([record.id.clone()].into_iter().chain(choices).chain(figures));
    }
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    cells.map(|cell| quote(&cell)).collect::<Vec<_>>().join(",") + "\r\n"
}

fn quote(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
