//! Zoo networks on an OpenCL device and on the CPU backend of the same machine, run in turns so that both meet the
//! same disturbances: median and least times of a run, and the least times of each layer side by side. Least times are
//! what is left of a busy machine's noise. The CPU backend's kernels are those that were measured to be the fastest;
//! the measurements are kept in a file.
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
use dlis_runtime::{Planner, Policy, Session, TraceEvent, TuneCache};

const NETWORKS: [&str; 3] = ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10"];
/// Pairs of runs, and of runs whose layers are timed.
const RUNS: usize = 200;

fn session(backend: &dyn Backend, planner: Planner<'_>, network: &Network) -> Result<Session, Box<dyn Error>> {
    let plan = planner.plan(network)?;
    Ok(Session::new(backend, plan)?)
}

/// Times of a session's runs, in ms.
struct Times {
    median: f64,
    least: f64,
}

/// Times of each session's runs, and the largest difference of their results.
fn race(sessions: &mut [Session; 2], input: &[f32]) -> Result<([Times; 2], f32), Box<dyn Error>> {
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
        Times { median: times[times.len() / 2], least: times[0] }
    };
    let difference = outputs[0].iter().zip(&outputs[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    Ok((times.map(summary), difference))
}

/// Every step, in its fastest run.
fn fastest(session: &mut Session, input: &[f32]) -> Result<Vec<TraceEvent>, Box<dyn Error>> {
    let steps = session.program().steps.len();
    let events = session.trace(input, RUNS)?;
    let mut fastest = events[..steps].to_vec();
    for run in events.chunks_exact(steps) {
        for (least, event) in fastest.iter_mut().zip(run) {
            least.duration_ns = least.duration_ns.min(event.duration_ns);
        }
    }
    Ok(fastest)
}

fn print_layers(out: &mut impl Write, [device, host]: [&[TraceEvent]; 2]) -> io::Result<()> {
    for step in device {
        let of_host = host.iter().find(|of_host| (&of_host.layer, &of_host.op) == (&step.layer, &step.op));
        let us = |event: &TraceEvent| event.duration_ns as f64 / 1e3;
        let rate = 2.0 * step.macs as f64 / step.duration_ns.max(1) as f64;
        let (host_us, host_kernel) = of_host.map_or((0.0, ""), |event| (us(event), &event.kernel));
        let TraceEvent { layer, op, kernel, .. } = step;
        writeln!(
            out,
            "  {:8.1} {host_us:8.1} us  {rate:6.1} GFLOP/s  {layer:20} {op}  {kernel}  {host_kernel}",
            us(step)
        )?;
    }
    let [device, host] =
        [device, host].map(|steps| steps.iter().map(|step| step.duration_ns).sum::<u64>() as f64 / 1e6);
    writeln!(out, "  all layers: {device:.3} and {host:.3} ms, speed {:.2}", host / device)
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
        let ([ours, theirs], difference) = race(&mut sessions, &input)?;
        writeln!(
            out,
            "{name}: {:.3} and {:.3} ms (least {:.3} and {:.3}), speed {:.2} ({:.2}), difference {difference:.1e}",
            ours.median,
            theirs.median,
            ours.least,
            theirs.least,
            theirs.median / ours.median,
            theirs.least / ours.least,
        )?;
        let [of_device, of_host] = &mut sessions;
        let steps = [fastest(of_device, &input)?, fastest(of_host, &input)?];
        print_layers(out, [&steps[0], &steps[1]])?;
    }
    Ok(())
}
