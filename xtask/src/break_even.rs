//! `cargo xtask break-even`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use dlis_experiment::break_even::{
    MEASUREMENTS_FILE, Measurements, NamedShape, Outcome, Progress, SPARSITIES, Settings, measure, page_sections,
    shapes, shapes_of,
};
use dlis_experiment::catalogue::NO_RECIPE;
use dlis_experiment::quantity::parse_share;
use dlis_experiment::spec::BreakEvenSpec;
use dlis_experiment::{Experiment, TUNING_FILE, page};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_runtime::TuneCache;
use indicatif::ProgressBar;

use crate::Failure;
use crate::laboratory::{catalogue, root};
use crate::output::{bar, say};
use crate::paper::print;

const NETWORKS: [&str; 3] = ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10"];
/// Steps of the progress bar for one format of one layer.
const STEPS: u64 = 100;

#[derive(Debug, Args)]
pub(crate) struct BreakEvenArgs {
    /// Networks of the zoo, or paths of artefacts [default: the three of CIFAR-10].
    networks: Vec<String>,
    /// Formats, separated by commas [default: all].
    #[arg(long, value_delimiter = ',')]
    formats: Vec<Format>,
    /// Sparsities, separated by commas [default: 0.5 to 0.98].
    #[arg(long, value_delimiter = ',', value_parser = parse_share)]
    sparsities: Vec<f64>,
    /// Only layers whose name contains one of these texts, separated by commas.
    #[arg(long, value_delimiter = ',')]
    layers: Vec<String>,
    /// The system that executes them.
    #[arg(long, default_value = "omp")]
    backend: String,
    /// Workers, the calling thread among them.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Images of a run.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Time for one layer at one sparsity, in milliseconds.
    #[arg(long, default_value_t = 300)]
    budget_ms: u32,
    /// Where measurements, pages and figures go [default: results/break-even].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &BreakEvenArgs) -> Result<(), Failure> {
    let out = args.out.clone().unwrap_or_else(|| root().join("results/break-even"));
    let mut store = Measurements::open(out.join(MEASUREMENTS_FILE))?;
    let mut cache = TuneCache::open(out.join(TUNING_FILE))?;
    // Of scaled f16, which is what dense f16 becomes, either kind of kernel may be the faster.
    let left_out = [Format::DenseF32, Format::ScaledF16];
    let all = || Format::ALL.into_iter().filter(|format| !left_out.contains(format)).collect();
    let settings = Settings {
        formats: if args.formats.is_empty() { all() } else { args.formats.clone() },
        sparsities: if args.sparsities.is_empty() { SPARSITIES.to_vec() } else { args.sparsities.clone() },
        backend: args.backend.clone(),
        threads: args.threads,
        batch: args.batch,
        budget_ms: args.budget_ms,
        hw: Hardware::detect().fingerprint(),
    };
    let networks = if args.networks.is_empty() { NETWORKS.map(str::to_owned).to_vec() } else { args.networks.clone() };
    for network in &networks {
        let loaded = catalogue().network(network, NO_RECIPE, "dense-f32")?;
        let shapes = shapes(loaded.network.graph(), &args.layers);
        if shapes.is_empty() {
            return Err(Failure::new(format!("{network}: no convolution or linear layer of that name")));
        }
        let outcome = one(network, &shapes, &settings, &mut cache, &mut store)?;
        tell(&outcome);
        let of_system = |m: &&dlis_experiment::break_even::Measurement| {
            m.backend == settings.backend
                && m.threads == settings.threads
                && m.batch == settings.batch
                && m.hw == settings.hw
                && shapes.iter().any(|named| named.shape == m.shape)
        };
        let Some(sample) = store.list().iter().find(of_system).cloned() else {
            say!("{network}: no format has a kernel for any of these layers");
            continue;
        };
        // An artefact is named by its path, a page by the file's name.
        let name = Path::new(network).file_stem().map_or_else(|| network.clone(), |n| n.to_string_lossy().into_owned());
        let sections =
            page_sections(&name, &shapes, store.list(), &outcome.unsupported, &sample).map_err(Failure::new)?;
        for table in sections.iter().flat_map(|section| &section.tables) {
            print(table);
        }
        let file = format!("{name}-threads-{}.html", settings.threads);
        let files = page::write(&out, &file, &format!("Break-even: {name}"), &sections)?;
        say!("page: {}", files.html.display());
    }
    Ok(())
}

/// Measures what is left of the break-evens that an experiment asks for, of networks that come with the program, on
/// one thread, on which backends differ least.
pub(crate) fn of_experiment(experiment: &Experiment, spec: &BreakEvenSpec, out: &Path) -> Result<(), Failure> {
    let mut store = Measurements::open(out.join(MEASUREMENTS_FILE))?;
    let mut cache = TuneCache::open(out.join(TUNING_FILE))?;
    let settings = Settings {
        formats: spec.formats.clone(),
        sparsities: spec.sparsities.clone(),
        backend: "omp".to_owned(),
        threads: 1,
        batch: 1,
        budget_ms: spec.budget_ms.get(),
        hw: Hardware::detect().fingerprint(),
    };
    let networks: BTreeSet<&String> = experiment.grids.iter().flat_map(|grid| &grid.networks).collect();
    for network in networks {
        if let Some(shapes) = shapes_of(network) {
            one(network, &shapes, &settings, &mut cache, &mut store)?;
        }
    }
    Ok(())
}

/// Measures the layers of one network that have not been measured yet.
fn one(
    network: &str,
    shapes: &[NamedShape],
    settings: &Settings,
    cache: &mut TuneCache,
    store: &mut Measurements,
) -> Result<Outcome, Failure> {
    eprintln!("{network}: where {} distinct layers break even in {} formats", shapes.len(), settings.formats.len());
    let bar = bar(1);
    let result = measure(shapes, settings, cache, store, &mut |progress| show(&bar, &progress));
    bar.finish_and_clear();
    cache.save()?;
    let outcome = result?;
    eprintln!("{network}: {} measured now, {} before", outcome.measured, outcome.known);
    Ok(outcome)
}

/// Says which formats could not be had, once for each and its reason.
fn tell(outcome: &Outcome) {
    let mut said: Vec<(Format, &str, usize)> = Vec::new();
    for other in &outcome.unsupported {
        match said.iter_mut().find(|(format, reason, _)| *format == other.format && *reason == other.reason) {
            Some(entry) => entry.2 += 1,
            None => said.push((other.format, &other.reason, 1)),
        }
    }
    for (format, reason, count) in said {
        eprintln!("note: {format}: not measured for {count} layers: {reason}");
    }
}

fn show(bar: &ProgressBar, progress: &Progress<'_>) {
    bar.set_length(progress.total as u64 * STEPS);
    bar.set_message(progress.doing.to_owned());
    // A share of the work, 0 to 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and STEPS")]
    bar.set_position(progress.done as u64 * STEPS + (progress.share * STEPS as f64) as u64);
    // Nobody sees the bar: say what a log should have.
    if bar.is_hidden() && progress.share == 0.0 {
        eprintln!("{} of {}: {}", progress.done, progress.total, progress.doing);
    }
}
