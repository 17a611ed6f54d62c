//! `cargo xtask bench --against cudnn`: a device's networks beside PyTorch's, in turns.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use dlis_backend::Schedule;
use dlis_experiment::catalogue::{OPENCL, STORED, backend};
use dlis_hw::Roofline;
use dlis_runtime::{Planner, Policy, Session, TuneCache};

use crate::Failure;
use crate::command::BenchArgs;
use crate::laboratory::catalogue;
use crate::output::say;

/// The program that times PyTorch on request.
const SERVER: &str = include_str!("server.py");
const NETWORKS: [&str; 3] = ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10"];
const BATCHES: [usize; 2] = [1, 128];
const PRECISIONS: [&str; 3] = ["f32", "tf32", "f16"];
/// Turns that each side takes; the middle one counts.
const ROUNDS: usize = 5;
/// Time of a turn of ours.
const TURN_NS: f64 = 50e6;

/// Times a device beside cuDNN on the same machine and prints both, with the bounds.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let device = match &args.backend[..] {
        [] => format!("{OPENCL}nvidia"),
        [device] => device.clone(),
        _ => return Err(Failure::new("one device is compared at a time: give one `--backend`".to_owned())),
    };
    let algorithm = args.algorithm.first().cloned().unwrap_or(Policy::Heuristic);
    let batches = if args.batch.is_empty() { BATCHES.to_vec() } else { args.batch.clone() };
    let networks = if args.network.is_empty() { NETWORKS.map(str::to_owned).to_vec() } else { args.network.clone() };
    let recipes = if args.recipe.is_empty() { vec!["none".to_owned()] } else { args.recipe.clone() };
    let mut server = Server::start()?;
    say!("{}", server.greeting);
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "network",
        "recipe",
        "batch",
        "precision",
        "ours ms",
        "cuDNN ms",
        "ratio",
        "with transfers",
        "roofline ms",
        "of it",
        "bound by",
    ]);
    let mut cache = TuneCache::in_memory();
    for precision in PRECISIONS {
        let name = if precision == "f32" { device.clone() } else { format!("{device}:{precision}") };
        let system = backend(&name, 1, Schedule::Static)?;
        let roofline = system.measure_roofline();
        let bounds = |roofline: &Roofline| {
            format!("{:.0} TFLOP/s, {:.2} TB/s", roofline.flops_per_s() / 1e12, roofline.bytes_per_s(0) / 1e12)
        };
        let bounds = roofline.as_ref().map_or_else(|| "unknown".to_owned(), bounds);
        say!("{name}: {}; at most {bounds}", system.configuration());
        for network in &networks {
            for recipe in &recipes {
                let loaded = catalogue().network(network, recipe, STORED)?.network;
                for &batch in &batches {
                    let planner = Planner::new(&*system).policy(algorithm.clone()).batch(batch).cache(&mut cache);
                    let mut session = Session::new(&*system, planner.plan(&loaded)?)?;
                    let times = in_turns(&mut session, &mut server, &format!("{network} {batch} {precision}"))?;
                    table.add_row(row([network, recipe, precision], &times, &mut session, roofline.as_ref())?);
                    eprintln!(
                        "{network}, {recipe}, batch {batch}, {precision}: {:.4} and {:.4} ms",
                        times.ours, times.theirs
                    );
                }
            }
        }
    }
    say!("{table}");
    Ok(())
}

/// Times of one cell, in ms.
struct Times {
    ours: f64,
    theirs: f64,
    /// Ours, input and result brought to the device and back.
    with_transfers: f64,
}

fn in_turns(session: &mut Session, server: &mut Server, request: &str) -> Result<Times, Failure> {
    let input: Vec<f32> = (0..session.input_len()).map(|index| (index % 255) as f32 / 127.0 - 1.0).collect();
    let mut output = vec![0.0; session.output_len()];
    for _ in 0..5 {
        session.run(&input, &mut output)?;
    }
    let mut resident = |runs: usize| {
        session.run_resident(runs).unwrap_or_else(|| Err(dlis_runtime::SessionError::from(not_a_device())))
    };
    let once = resident(20)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count within its clamp")]
    let runs = (TURN_NS / once.max(1.0)).clamp(20.0, 20_000.0) as usize;
    let (mut ours, mut theirs, mut with_transfers) = (Vec::new(), Vec::new(), Vec::new());
    // The first turn of each is not counted.
    for round in 0..=ROUNDS {
        let mine = resident(runs)? / 1e6;
        let other = server.time(request)?;
        if round > 0 {
            ours.push(mine);
            theirs.push(other);
        }
    }
    for _ in 0..20 * ROUNDS {
        let start = std::time::Instant::now();
        session.run(&input, &mut output)?;
        with_transfers.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    Ok(Times { ours: median(ours), theirs: median(theirs), with_transfers: median(with_transfers) })
}

fn not_a_device() -> dlis_backend::ExecuteError {
    let reason = "it has no memory of its own: cuDNN is compared with a GPU".to_owned();
    dlis_backend::ExecuteError::Device { device: "the host's processor".to_owned(), reason }
}

fn row(
    [network, recipe, precision]: [&str; 3],
    times: &Times,
    session: &mut Session,
    roofline: Option<&Roofline>,
) -> Result<Vec<String>, Failure> {
    let program = session.program();
    let macs: u64 = program.steps.iter().map(|step| step.op.macs()).sum();
    let residency = session.residency();
    let ends = program.input_spec().bytes() + program.output_spec().bytes();
    // Weights must be read, the input too, and the result written; what lies between may stay on the chip.
    let bytes = (residency.weight_bytes + ends) as f64;
    let ms = |time: f64| format!("{time:.4}");
    let (least, share, bound) = match roofline {
        None => (String::new(), String::new(), String::new()),
        Some(roofline) => {
            let (flops, least) = (2.0 * macs as f64, roofline.seconds(2.0 * macs as f64, bytes, 0) * 1e3);
            let bound = format!("{:?}", roofline.bound(flops, bytes, 0)).to_lowercase();
            (ms(least), format!("{:.0} %", 100.0 * least / times.ours), bound)
        }
    };
    Ok(vec![
        network.to_owned(),
        recipe.to_owned(),
        session.batch().to_string(),
        precision.to_owned(),
        ms(times.ours),
        ms(times.theirs),
        format!("{:.2}", times.ours / times.theirs),
        ms(times.with_transfers),
        least,
        share,
        bound,
    ])
}

/// A Python process that times PyTorch.
struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    greeting: String,
}

impl Server {
    fn start() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("python3 could not be started: {error}"));
        let mut command = Command::new("python3");
        command.args(["-c", SERVER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("python3 has no input or output".to_owned()));
        };
        let mut server = Self { child, input, output: BufReader::new(output), greeting: String::new() };
        server.greeting = server.line()?;
        Ok(server)
    }

    /// Milliseconds of one inference.
    fn time(&mut self, request: &str) -> Result<f64, Failure> {
        writeln!(self.input, "{request}")
            .and_then(|()| self.input.flush())
            .map_err(|error| Failure::new(format!("PyTorch ended early: {error}")))?;
        let line = self.line()?;
        line.parse().map_err(|_| Failure::new(format!("expected milliseconds of PyTorch, found `{line}`")))
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        match read {
            Ok(bytes) if bytes > 0 => Ok(line.trim().to_owned()),
            _ => Err(Failure::new(
                "PyTorch with CUDA is needed beside (`python3 -c 'import torch; torch.cuda.init()'`), and said nothing"
                    .to_owned(),
            )),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: it ends by itself when its input does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
