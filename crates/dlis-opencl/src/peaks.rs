//! What a device can do at most, measured: the two roofs that times are held against.

use std::sync::Arc;

use dlis_hw::Roofline;

use crate::device::{Arg, Device, DeviceKind, Launch, Queue};
use crate::error::OpenClError;
use crate::precision::Precision;

const SOURCE: &str = include_str!("peaks.cl");
/// Launches of each kind; the fastest counts.
const LAUNCHES: usize = 5;
/// Bytes copied: more than any cache holds.
const COPIED: usize = 256 << 20;

/// The roofline of a device at a precision: operations a second in its fastest way to multiply at no less than that
/// precision, and bytes a second of a copy, read and written.
///
/// # Errors
///
/// [`OpenClError`] if the device fails.
pub(crate) fn measure(device: &Arc<Device>, precision: Precision) -> Result<Roofline, OpenClError> {
    let info = device.info();
    // A CPU has a vector where a GPU has a warp.
    let (value, first, lanes) = match info.kind {
        DeviceKind::Cpu => ("float16", "(v).s0", 16),
        DeviceKind::Gpu => ("float", "(v)", 1),
    };
    let tensor_cores = if info.has_tensor_cores() { " -DTENSOR_CORES" } else { "" };
    let program = device.program("peaks", SOURCE, &format!("-DVALUE={value} -DFIRST(v)={first}{tensor_cores}"))?;
    let queue = device.queue()?;
    let (group, groups, rounds) = match info.kind {
        DeviceKind::Cpu => (1, 8 * info.compute_units, 1 << 18),
        DeviceKind::Gpu => (256, 16 * info.compute_units, 1 << 12),
    };
    let items = group * groups;
    let out = device.buffer(items * size_of::<f32>())?;
    let compute = |name, flops_each_round: f64| {
        let args = [Arg::Buffer(&out), Arg::F32(0.25), Arg::I32(rounds)];
        let launch = Launch::new(&program, name, &args, [items, 1, 1], Some([group, 1, 1]))?;
        Ok::<f64, OpenClError>(flops_each_round * f64::from(rounds) * items as f64 / fastest(&queue, &launch)?)
    };
    let mut flops_per_s = compute("multiply_add", f64::from(2 * 8 * lanes))?;
    if info.has_tensor_cores() {
        // Of the 32 work-items of a warp together: 8 products of 16 x 8 x K.
        let each = |k: f64| 8.0 * 2.0 * 16.0 * 8.0 * k / 32.0;
        let tf32 = compute("multiply_tf32", each(8.0))?;
        flops_per_s = match precision {
            // Three products of halves of the operands are one in f32.
            Precision::F32 => flops_per_s.max(tf32 / 3.0),
            Precision::Tf32 => flops_per_s.max(tf32),
            Precision::F16 => flops_per_s.max(compute("multiply_f16", each(16.0))?),
        };
    }
    let (from, to) = (device.buffer(COPIED)?, device.buffer(COPIED)?);
    let args = [Arg::Buffer(&from), Arg::Buffer(&to)];
    let launch = Launch::new(&program, "copy", &args, [COPIED / 16, 1, 1], None)?;
    let bytes_per_s = 2.0 * COPIED as f64 / fastest(&queue, &launch)?;
    Ok(Roofline::flat(flops_per_s, bytes_per_s))
}

/// Seconds of the fastest of several launches.
fn fastest(queue: &Queue, launch: &Launch) -> Result<f64, OpenClError> {
    let mut least = f64::INFINITY;
    for _ in 0..LAUNCHES {
        let event = queue.launch_timed(launch)?;
        queue.finish()?;
        let [start, end] = event.span()?;
        least = least.min(end.saturating_sub(start).max(1) as f64 * 1e-9);
    }
    Ok(least)
}
