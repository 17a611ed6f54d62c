//! The commands and their arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dlis_experiment::quantity::{parse_bytes, parse_rate, parse_share, parse_time_ns};

use crate::break_even::BreakEvenArgs;
use crate::paper::PaperArgs;
use crate::sensitivity::SensitivityArgs;
use crate::training::{CompressArgs, TrainArgs};

/// Which network, compression, data format, algorithm, backend and thread count fits an accuracy, latency
/// and memory budget on this hardware?
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure stack points and write a report. Run again after an interruption, it goes on.
    #[command(after_help = "Examples:
  cargo xtask experiment                      the built-in experiment
  cargo xtask experiment --example > my.toml  a file to start from
  cargo xtask experiment my.toml              your own
  cargo xtask experiment my.toml --dry-run    what it would measure")]
    Experiment(ExperimentArgs),
    /// Write the report of records measured before.
    #[command(after_help = "Example:\n  cargo xtask report --results results/default")]
    Report(ReportArgs),
    /// Answer which stack point to deploy, from records measured before.
    #[command(after_help = "Examples:
  cargo xtask recommend --min-accuracy 0.93 --max-latency 20ms --max-memory 80MB
  cargo xtask recommend --max-disk 10MB --threads 1")]
    Recommend(RecommendArgs),
    /// Show for every layer of a network the kernel chosen, and why every other was not.
    #[command(after_help = "Examples:
  cargo xtask explain resnet18-cifar10 --algorithm measured --threads 2
  cargo xtask explain vgg16-cifar10 --layers
  cargo xtask explain vgg16-cifar10 --recipe int8 --threads 2
  cargo xtask explain mobilenet-cifar10 --trace out.json    then open it in ui.perfetto.dev")]
    Explain(ExplainArgs),
    /// Time networks, or what a parallel loop costs, without accuracy.
    #[command(after_help = "Examples:
  cargo xtask bench                                     every backend and algorithm
  cargo xtask bench --layers --network vgg16-cifar10    every kernel on every layer, beside the roofline
  cargo xtask bench --against cudnn --backend opencl:0  a GPU beside PyTorch (built with the feature `opencl`)
  cargo xtask bench --network mobilenet-cifar10 --batch 1 --json
  cargo xtask bench --network vgg16-cifar10 --recipe none --recipe int8 --algorithm measured
  cargo xtask bench --fork-join --threads 2             beside GCC's OpenMP")]
    Bench(BenchArgs),
    /// Name the layers that cost accuracy when they alone are pruned or rounded, without training.
    #[command(after_help = "Examples:
  cargo xtask sensitivity mobilenet-cifar10
  cargo xtask sensitivity resnet18-cifar10 --sparsities 0.9 --images 200
  cargo xtask sensitivity mobilenet-cifar10 --bits 4")]
    Sensitivity(SensitivityArgs),
    /// Find the sparsity from which each compressed format beats dense, layer by layer. Run again after an
    /// interruption, it goes on.
    #[command(after_help = "Examples:
  cargo xtask break-even vgg16-cifar10
  cargo xtask break-even resnet18-cifar10 --formats csr-f32,bsr-16x1 --threads 2 --layers layer3,layer4")]
    BreakEven(BreakEvenArgs),
    /// Draw the paper's figures and tables with ours beside them.
    #[command(after_help = "Examples:
  cargo xtask paper                                  all of them, on one page
  cargo xtask paper memory --accuracy 92%
  cargo xtask paper times --records results/compression")]
    Paper(PaperArgs),
    /// Train a network from scratch (needs a build with the feature `train`). Run again after an interruption, it
    /// goes on.
    #[command(after_help = "Examples:
  cargo xtask train resnet18-cifar10 --epochs 80 --device cuda
  cargo xtask train mobilenet-cifar10 --epochs 1 --steps-limit 20    a first try")]
    Train(TrainArgs),
    /// Compress a network by recipes, training included (needs a build with the feature `train`). Run again after an
    /// interruption, it goes on.
    #[command(after_help = "Examples:
  cargo xtask compress resnet18-cifar10 --recipe crates/dlis-compress/recipes/prune-90.toml --device cuda
  cargo xtask compress vgg16-cifar10 --recipe a.toml --recipe b.toml --out results/train    one after another
  cargo xtask compress vgg16-cifar10 --recipe a.toml --steps-limit 5                        a first try")]
    Compress(CompressArgs),
    /// Fetch or describe datasets.
    #[command(after_help = "Examples:\n  cargo xtask datasets fetch cifar10\n  cargo xtask datasets list")]
    Datasets(DatasetsArgs),
    /// Say what this machine offers, what is missing, and how to install it.
    Doctor,
    /// Check everything that must hold before a change lands; installs what the tests need where it may.
    Ci {
        /// Leave training out, whose checks need libtorch: half a gigabyte, fetched through pip where `LIBTORCH`
        /// names none.
        #[arg(long)]
        without_training: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ExperimentArgs {
    /// The experiment's file; the built-in experiment if left out.
    pub(crate) file: Option<PathBuf>,
    /// Folder for records and report [default: results/NAME].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// List the stack points and what is left to measure, and stop.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the JSON schema of experiment files and stop.
    #[arg(long, conflicts_with = "file")]
    pub(crate) schema: bool,
    /// Print the built-in experiment's file and stop.
    #[arg(long, conflicts_with = "file")]
    pub(crate) example: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folder with the records, where the report goes too [default: results/default].
    #[arg(long, value_name = "DIR")]
    pub(crate) results: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RecommendArgs {
    /// Top-1 accuracy at least: `0.93` or `93%`.
    #[arg(long, value_parser = parse_share)]
    pub(crate) min_accuracy: Option<f64>,
    /// Median latency at most: `20ms`, `250us`, `1.5s`.
    #[arg(long, value_parser = parse_time_ns)]
    pub(crate) max_latency: Option<f64>,
    /// Weights, activations and scratch at most: `30MB`, `28MiB`.
    #[arg(long, value_parser = parse_bytes)]
    pub(crate) max_memory: Option<u64>,
    /// Images per second at least.
    #[arg(long, value_parser = parse_rate)]
    pub(crate) min_throughput: Option<f64>,
    /// The artefact on disk at most: `15MB`.
    #[arg(long, value_parser = parse_bytes)]
    pub(crate) max_disk: Option<u64>,
    /// Only these networks; may be repeated.
    #[arg(long)]
    pub(crate) network: Vec<String>,
    /// Only these recipes; may be repeated.
    #[arg(long)]
    pub(crate) recipe: Vec<String>,
    /// Only these formats; may be repeated.
    #[arg(long)]
    pub(crate) format: Vec<String>,
    /// Only these choices of algorithms; may be repeated.
    #[arg(long)]
    pub(crate) algorithm: Vec<dlis_runtime::Policy>,
    /// Only these backends; may be repeated.
    #[arg(long)]
    pub(crate) backend: Vec<String>,
    /// Only these thread counts; may be repeated.
    #[arg(long)]
    pub(crate) threads: Vec<usize>,
    /// Only these batches; may be repeated.
    #[arg(long)]
    pub(crate) batch: Vec<usize>,
    /// Folder with the records [default: results/default].
    #[arg(long, value_name = "DIR")]
    pub(crate) results: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A network of the zoo, or the path of an artefact.
    pub(crate) network: String,
    /// How it is compressed: `none`, `int8`, `int4`, the recipe of an artefact, or `RECIPE-int8` of one in f32.
    #[arg(long, default_value = "none")]
    pub(crate) recipe: String,
    /// The format of the compressed weights: `stored` is as the recipe left them.
    #[arg(long, default_value = "stored")]
    pub(crate) format: String,
    /// How kernels are chosen: `heuristic`, `measured`, `fixed:ALGORITHM` or `fixed:OP/DTYPE/FORMAT/ALGORITHM/ISA`.
    #[arg(long, default_value = "heuristic")]
    pub(crate) algorithm: dlis_runtime::Policy,
    /// The system that executes it.
    #[arg(long, default_value = "omp")]
    pub(crate) backend: String,
    /// Workers, the calling thread among them.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// How parallel loops are dealt out.
    #[arg(long, default_value = "static")]
    pub(crate) schedule: dlis_backend::Schedule,
    /// Images of a run.
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: usize,
    /// Run it, and print the time of every layer instead of the choices.
    #[arg(long)]
    pub(crate) layers: bool,
    /// Run it, and write every step to this file for Perfetto or Chrome.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Networks; may be repeated [default: the three of CIFAR-10].
    #[arg(long)]
    pub(crate) network: Vec<String>,
    /// Recipes; may be repeated [default: none].
    #[arg(long)]
    pub(crate) recipe: Vec<String>,
    /// Formats of the compressed weights; may be repeated [default: stored].
    #[arg(long)]
    pub(crate) format: Vec<String>,
    /// Choices of algorithms; may be repeated [default: direct, im2col-gemm, implicit-gemm and measured].
    #[arg(long)]
    pub(crate) algorithm: Vec<dlis_runtime::Policy>,
    /// Backends; may be repeated [default: all].
    #[arg(long)]
    pub(crate) backend: Vec<String>,
    /// Thread counts; may be repeated [default: 1 and 2, or all cores if there are more].
    #[arg(long)]
    pub(crate) threads: Vec<usize>,
    /// Batches; may be repeated [default: 1 and 32].
    #[arg(long)]
    pub(crate) batch: Vec<usize>,
    /// Time for one point, in milliseconds; slow ones take at least three runs.
    #[arg(long, default_value_t = 1500)]
    pub(crate) budget_ms: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure every kernel on every convolution and linear layer, beside the least time that the machine can take
    /// [default networks: those of CIFAR-10 and ImageNet; backend: omp; batch: 1].
    #[arg(long, conflicts_with_all = ["format", "algorithm", "budget_ms", "against", "fork_join", "json"])]
    pub(crate) layers: bool,
    /// Time a device beside another stack on the same machine, in turns, at batches 1 and 128 and every precision.
    #[arg(long, value_enum, conflicts_with_all = ["format", "threads", "fork_join", "json"])]
    pub(crate) against: Option<Opponent>,
    /// Measure what a parallel loop costs, beside GCC's OpenMP.
    #[arg(long, conflicts_with_all = ["network", "recipe", "format", "algorithm", "backend", "batch"])]
    pub(crate) fork_join: bool,
}

/// Whom a device is timed beside.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Opponent {
    /// PyTorch with cuDNN, as CUDA graphs; needs PyTorch with CUDA for `python3`.
    Cudnn,
}

#[derive(Debug, Args)]
pub(crate) struct DatasetsArgs {
    #[command(subcommand)]
    pub(crate) command: DatasetsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DatasetsCommand {
    /// Fetch a dataset in full: checksummed, and resumed if interrupted.
    Fetch {
        /// Its name: `cifar10`.
        #[arg(value_parser = ["cifar10"])]
        name: String,
        /// Where to put it [default: datasets/cifar-10].
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// List the datasets and whether they are here.
    List,
}
