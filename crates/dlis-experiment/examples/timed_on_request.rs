//! A process that runs a network as often as it is asked to, so that a driver can time it interleaved with other
//! inference engines, each in a process of its own.
//!
//! ```text
//! cargo run --release -p dlis-experiment --example timed_on_request -- measured none vgg16-cifar10 1 1
//! ```
//!
//! The arguments are algorithm, recipe, network, threads and images a run; with the recipe `random` the network is any
//! of the zoo's with made-up weights, in f32; with `random-f16` they are folded into f16, so that they are as small as files
//! of trained networks hold them. It begins with a line that says how long loading and preparing took; then it
//! takes, on standard input, a line each: `run N` (answer: a JSON array of N times in milliseconds), `profile N` (one of
//! layer, kernel and median time of N runs in milliseconds), `out` (one of the first results) and `quit` (the peak of its
//! memory).

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Instant;

use dlis_backend::Schedule;
use dlis_compress::Store;
use dlis_cpu_omp::{Pinning, Team, backend_on};
use dlis_eval::memory::peak_resident_bytes;
use dlis_experiment::Catalogue;
use dlis_experiment::catalogue::STORED;
use dlis_formats::Format;
use dlis_model::{Network, zoo};
use dlis_runtime::{Planner, Session, TuneCache};

/// Most runs of one request.
const MAX_RUNS: usize = 1_000_000;

struct Timed {
    session: Session,
    input: Vec<f32>,
    output: Vec<f32>,
}

impl Timed {
    /// Milliseconds of one run.
    fn run(&mut self) -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        self.session.run(&self.input, &mut self.output)?;
        Ok(1e3 * start.elapsed().as_secs_f64())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [algorithm, recipe, network, threads, batch] = &arguments[..] else {
        return Err("expected: algorithm recipe network threads batch".into());
    };
    // Some harnesses write `vgg16_cifar` and `vgg16_imagenet`.
    let network = if network.ends_with("_cifar") { format!("{network}10") } else { network.clone() }.replace('_', "-");
    let (threads, batch): (usize, usize) = (threads.parse()?, batch.parse()?);
    let start = Instant::now();
    let catalogue = Catalogue::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets")).threads(threads);
    let network = match &recipe[..] {
        "random" => Network::random(zoo::graph(&network)?, 0),
        "random-f16" => Store { rest: Format::DenseF16, ..Store::default() }
            .apply(Network::random(zoo::graph(&network)?, 0), &BTreeMap::new())?,
        _ => catalogue.network(&network, recipe, STORED)?.network,
    };
    // Each thread on a core of its own, as the engines that it is timed beside put theirs.
    let count = threads.try_into()?;
    let team = Team::builder().threads(count).pinning(Pinning::Compact).build()?;
    team.pin_caller()?;
    let system = backend_on(team, Schedule::Static);
    let mut cache = TuneCache::in_memory();
    let planner = Planner::new(&system).policy(algorithm.parse()?).batch(batch).cache(&mut cache);
    let session = Session::new(&system, planner.plan_owned(network)?)?;
    let load_s = start.elapsed().as_secs_f64();
    let value = |index: usize| (index * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0;
    let (input, output) = ((0..session.input_len()).map(value).collect(), vec![0.0; session.output_len()]);
    let mut timed = Timed { session, input, output };
    let first_ms = timed.run()?;
    let mut answer = std::io::stdout().lock();
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        answer,
        r#"{{"ready": 1, "import_s": 0, "load_s": {load_s}, "first_ms": {first_ms}, "version": "{version}"}}"#
    )?;
    answer.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["run", count] => {
                let count = count.parse::<usize>()?.min(MAX_RUNS);
                let times: Result<Vec<f64>, _> = (0..count).map(|_| timed.run()).collect();
                writeln!(answer, "{:?}", times?)?;
            }
            ["profile", count] => {
                let layers = timed.session.profile(&timed.input, count.parse::<usize>()?.min(MAX_RUNS))?;
                let layers = layers.iter().map(|layer| (&layer.layer, &layer.kernel, layer.median_ns as f64 / 1e6));
                writeln!(answer, "{}", serde_json::to_string(&layers.collect::<Vec<_>>())?)?;
            }
            ["out"] => writeln!(answer, "{:?}", &timed.output[..timed.output.len().min(4)])?,
            ["quit"] => {
                let peak = peak_resident_bytes().unwrap_or(0) as f64 / 1e6;
                return Ok(writeln!(answer, r#"{{"rss_mb": {peak}}}"#)?);
            }
            _ => return Err(format!("`{line}`: expected `run N`, `profile N`, `out` or `quit`").into()),
        }
        answer.flush()?;
    }
    Ok(())
}
