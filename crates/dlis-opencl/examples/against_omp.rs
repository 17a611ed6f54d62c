//! Zoo networks on an OpenCL device and on the CPU backend of the same machine, run in turns so that both meet the
//! same disturbances: median and least times, the ratio of the medians, and the layers' times side by side. The CPU
//! backend's kernels are those that were measured to be the fastest; the measurements are kept in a file.
//!
//! ```text
//! cargo run --release -p dlis-opencl --example against_omp -- [FILE [BACKEND [THREADS [NETWORK...]]]]
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use dlis_backend::{Backend, Schedule};
use dlis_model::{Network, zoo};
use dlis_opencl::OpenClBackend;
use dlis_runtime::{LayerTime, Planner, Policy, Session, TuneCache};

const NETWORKS: [&str; 3] = ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10"];
/// Pairs of runs.
const RUNS: usize = 200;
/// Runs whose layers are timed.
const PROFILED: usize = 50;

fn session(backend: &dyn Backend, planner: Planner<'_>, network: &Network) -> Result<Session, Box<dyn Error>> {
    let plan = planner.plan(network)?;
    Ok(Session::new(backend, plan)?)
}

/// Median and least times of a run of each session, in ms, and the largest difference of their results.
fn race(sessions: &mut [Session; 2], input: &[f32]) -> Result<([[f64; 2]; 2], f32), Box<dyn Error>> {
    let mut times = [Vec::new(), Vec::new()];
    let mut outputs = [vec![0.0; sessions[0].output_len()], vec![0.0; sessions[1].output_len()]];
    for _ in 0..RUNS {
        for ((session, times), output) in sessions.iter_mut().zip(&mut times).zip(&mut outputs) {
            let start = Instant::now();
            session.run(input, output)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let summary = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        [times[times.len() / 2], times[0]]
    };
    let difference = outputs[0].iter().zip(&outputs[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    Ok((times.map(summary), difference))
}

fn print_layers(out: &mut impl Write, [device, host]: [&[LayerTime]; 2]) -> io::Result<()> {
    for layer in device {
        let of_host = host.iter().find(|of_host| of_host.layer == layer.layer);
        let us = |time: &LayerTime| time.median_ns as f64 / 1e3;
        writeln!(
            out,
            "  {:20} {:64} {:8.1} {:8.1} us  {:6.1} GFLOP/s  {}  {}",
            layer.layer,
            layer.op,
            us(layer),
            of_host.map_or(0.0, us),
            2.0 * layer.macs as f64 / layer.median_ns.max(1) as f64,
            layer.kernel,
            of_host.map_or("", |time| &time.kernel),
        )?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut cache = match args.next() {
        Some(file) => TuneCache::open(file)?,
        None => TuneCache::in_memory(),
    };
    let device: OpenClBackend = args.next().as_deref().unwrap_or("opencl:0").parse()?;
    let threads: NonZeroUsize = args.next().as_deref().unwrap_or("2").parse()?;
    let names: Vec<String> = args.collect();
    let names = if names.is_empty() { NETWORKS.map(str::to_owned).to_vec() } else { names };
    let host = dlis_cpu_omp::backend(threads, Schedule::Static)?;
    let out = &mut io::stdout().lock();
    writeln!(out, "{} ({}) and {} with {threads} threads", device.name(), device.device().info(), host.name())?;
    for name in names {
        let network = Network::random(zoo::graph(&name)?, 0);
        let measured = Planner::new(&host).policy(Policy::Measured).cache(&mut cache);
        let of_host = session(&host, measured, &network)?;
        cache.save()?;
        let mut sessions = [session(&device, Planner::new(&device).policy(Policy::Heuristic), &network)?, of_host];
        let input: Vec<f32> = (0..sessions[0].input_len()).map(|i| (i as f32 * 0.37).sin()).collect();
        let ([[median, least], [host_median, host_least]], difference) = race(&mut sessions, &input)?;
        writeln!(
            out,
            "{name}: {median:.3} and {host_median:.3} ms (least {least:.3} and {host_least:.3}), speed {:.2} ({:.2}), \
             difference {difference:.1e}",
            host_median / median,
            host_least / least,
        )?;
        let [of_device, of_host] = &mut sessions;
        let layers = [of_device.profile(&input, PROFILED)?, of_host.profile(&input, PROFILED)?];
        print_layers(out, [&layers[0], &layers[1]])?;
        let [device, host] = layers.map(|layers| layers.iter().map(|layer| layer.median_ns).sum::<u64>() as f64 / 1e6);
        writeln!(out, "  all layers: {device:.3} and {host:.3} ms, speed {:.2}", host / device)?;
    }
    Ok(())
}
