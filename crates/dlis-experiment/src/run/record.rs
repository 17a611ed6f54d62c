//! A measured point, written up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dlis_eval::latency;
use dlis_hw::Roofline;
use dlis_runtime::LayerTime;

use super::{Laboratory, Prepared, RunError};
use crate::record::{Latency, LayerProfile, Predicted, Provenance, Record, SCHEMA};

/// Runs whose median makes the profile of a network's layers.
const PROFILE_RUNS: usize = 15;
/// Time after which no more profile runs are added.
const PROFILE_BUDGET: Duration = Duration::from_millis(300);
/// Factor by which the profile's sum may differ from the median before a record says so.
const PROFILE_AGREES: f64 = 1.25;
/// Profiles the point's layers and puts down all that is known of it.
pub(super) fn record(
    mut prepared: Prepared<'_>,
    latency: latency::Latency,
    input: &[f32],
    laboratory: &Laboratory,
) -> Result<Record, RunError> {
    let point = prepared.point;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is clamped below")]
    let runs = (PROFILE_BUDGET.as_nanos() as f64 / latency.median_ns.max(1.0)) as usize;
    let layers = prepared
        .session
        .profile(input, runs.clamp(1, PROFILE_RUNS))
        .map_err(|source| RunError::session(point, source))?;
    let roofline = match prepared.device {
        None => laboratory.peaks.roofline(point.threads),
        Some(_) => prepared.device_roofline.take(),
    };
    let working_set = prepared.memory.resident_bytes();
    let layers: Vec<LayerProfile> =
        layers.into_iter().map(|layer| profile(layer, roofline.as_ref(), working_set)).collect();
    let sum: f64 = layers.iter().map(|layer| layer.median_ns).sum();
    if !(1.0 / PROFILE_AGREES..=PROFILE_AGREES).contains(&(sum / latency.median_ns)) {
        let percent = 100.0 * sum / latency.median_ns;
        prepared
            .notes
            .push(format!("the profile's layers sum to {percent:.0} % of the median: the machine was unsteady"));
    }
    let predicted = Predicted {
        macs: prepared.compression.macs.saturating_mul(point.batch as u64),
        bytes: layers.iter().map(|layer| layer.bytes).sum(),
        roofline_ns: roofline.as_ref().map(|_| layers.iter().filter_map(|layer| layer.roofline_ns).sum()),
        peak_flops_per_s: roofline.as_ref().map(Roofline::flops_per_s),
        bandwidth_bytes_per_s: roofline.as_ref().map(|roofline| roofline.bytes_per_s(working_set)),
    };
    let noise: Vec<String> = latency.noise.iter().map(ToString::to_string).collect();
    Ok(Record {
        schema: SCHEMA,
        id: point.id(),
        point: point.clone(),
        compression: prepared.compression,
        accuracy: prepared.accuracy,
        throughput_images_per_s: point.batch as f64 * 1e9 / latency.median_ns,
        latency: Latency {
            median_ns: latency.median_ns,
            p10_ns: latency.p10_ns,
            p90_ns: latency.p90_ns,
            ci_low_ns: latency.ci_low_ns,
            ci_high_ns: latency.ci_high_ns,
            samples: latency.samples,
            noisy: latency.noisy,
            noise: (!noise.is_empty()).then(|| noise.join("; ")),
        },
        memory: prepared.memory,
        predicted,
        startup: prepared.startup,
        layers,
        energy_joules: None,
        provenance: provenance(laboratory, prepared.device),
        notes: prepared.notes,
    })
}

fn profile(layer: LayerTime, roofline: Option<&Roofline>, working_set: u64) -> LayerProfile {
    let time = |roofline: &Roofline| roofline.seconds(2.0 * layer.macs as f64, layer.bytes as f64, working_set) * 1e9;
    LayerProfile {
        roofline_ns: roofline.map(time),
        layer: layer.layer,
        op: layer.op,
        kernel: layer.kernel,
        median_ns: layer.median_ns as f64,
        macs: layer.macs,
        bytes: layer.bytes,
    }
}

fn provenance(laboratory: &Laboratory, device: Option<String>) -> Provenance {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Provenance {
        dlis_version: env!("CARGO_PKG_VERSION").to_owned(),
        git_revision: laboratory.git_revision.clone(),
        rustc: laboratory.rustc.clone(),
        unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        machine: laboratory.hw.cpu_model.clone().unwrap_or_else(|| laboratory.hw.arch.clone()),
        machine_summary: laboratory.hw.to_string(),
        os: laboratory.hw.os.clone(),
        device,
    }
}
