//! Experiment files: which stack points to measure, and how.
//!
//! [`schema`] documents every key; `experiments/default.toml` of this crate is the
//! [built-in experiment](Experiment::builtin) and the example to copy.

mod error;
mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use dlis_backend::Schedule;

pub use error::SpecError;
pub use file::{AccuracySpec, BreakEvenSpec, Dataset, LatencySpec, Threads, schema};

use crate::catalogue::runs_on_threads;
use crate::recommend::Constraints;
use crate::{StackLayer, StackPoint};

/// Bytes an experiment file may take.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Stack points an experiment may have.
pub const MAX_POINTS: usize = 100_000;

const DEFAULT: &str = include_str!("../../experiments/default.toml");

/// Stack points, and how each is measured.
///
/// ```
/// use dlis_experiment::Experiment;
/// let text = r#"
///     name = "threads"
///     networks = ["mobilenet-cifar10"]
///     algorithms = ["heuristic"]
///     threads = [1, 2, "all"]
/// "#;
/// let experiment = Experiment::parse("threads.toml", text)?;
/// let points = experiment.expand(8, "0123456789abcdef");
/// assert_eq!(points.iter().map(|point| point.threads).collect::<Vec<_>>(), [1, 2, 8]);
///
/// let error = Experiment::parse("oops.toml", "name = \"oops\"\nnetwork = [\"vgg16-cifar10\"]").unwrap_err();
/// assert!(error.to_string().starts_with("oops.toml:2:1: unknown field `network`"));
/// # Ok::<(), dlis_experiment::SpecError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// The points: those of every grid.
    pub grids: Vec<Grid>,
    /// On which images accuracy is measured.
    pub accuracy: AccuracySpec,
    /// How long latency is measured.
    pub latency: LatencySpec,
    /// What an answer has to keep.
    pub constraints: Constraints,
    /// Which layers are timed alone, compressed beside dense; none, if absent.
    pub break_even: Option<BreakEvenSpec>,
    /// The text it was read from, to point at.
    source: Source,
}

/// All combinations of some choices on each layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Networks of the zoo, or paths of artefacts.
    pub networks: Vec<String>,
    /// Compression recipes.
    pub recipes: Vec<String>,
    /// Weight formats.
    pub formats: Vec<String>,
    /// Choices of algorithms.
    pub algorithms: Vec<dlis_runtime::Policy>,
    /// Backends.
    pub backends: Vec<String>,
    /// Thread counts.
    pub threads: Vec<Threads>,
    /// Schedules of parallel loops.
    pub schedules: Vec<Schedule>,
    /// Images per inference.
    pub batches: Vec<usize>,
}

impl Grid {
    /// Choices on each layer, from the network down.
    fn dimensions(&self) -> [usize; 8] {
        [
            self.networks.len(),
            self.recipes.len(),
            self.formats.len(),
            self.algorithms.len(),
            self.backends.len(),
            self.threads.len(),
            self.schedules.len(),
            self.batches.len(),
        ]
    }

    /// Number of combinations.
    pub fn size(&self) -> usize {
        self.dimensions().into_iter().fold(1, usize::saturating_mul)
    }

    /// The points in order, the network changing slowest and the batch fastest; the first [`MAX_POINTS`].
    pub fn points<'a>(&'a self, all_threads: usize, hw: &'a str) -> impl Iterator<Item = StackPoint> + 'a {
        let dimensions = self.dimensions();
        (0..self.size().min(MAX_POINTS)).map(move |index| {
            // The digits of `index`, the last dimension lowest.
            let mut rest = index;
            let mut at = [0; 8];
            for (digit, size) in at.iter_mut().zip(dimensions).rev() {
                *digit = rest % size;
                rest /= size;
            }
            let [network, recipe, format, algorithm, backend, threads, schedule, batch] = at;
            // A device has no choice of these, and one point of it must not be listed once for each.
            let on_threads = runs_on_threads(&self.backends[backend]);
            let threads = if on_threads { self.threads[threads].count(all_threads) } else { 1 };
            let schedule = if on_threads { self.schedules[schedule] } else { Schedule::Static };
            StackPoint {
                network: self.networks[network].clone(),
                recipe: self.recipes[recipe].clone(),
                format: self.formats[format].clone(),
                algorithm: self.algorithms[algorithm].clone(),
                backend: self.backends[backend].clone(),
                threads,
                schedule,
                batch: self.batches[batch],
                hw: hw.to_owned(),
            }
        })
    }
}

/// A text, and where in it the choices of each grid's layers stand.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Source {
    file: String,
    text: String,
    spans: Vec<BTreeMap<StackLayer, Vec<Range<usize>>>>,
}

impl Experiment {
    /// The experiment that runs when none is given: of 3 networks as trained, 4 choices of algorithm on 2
    /// backends; of their compressed forms, the measured choice on one; each with 1 and all threads.
    ///
    /// # Panics
    ///
    /// Never: a test reads it.
    pub fn builtin() -> Self {
        Self::parse("default.toml", DEFAULT).expect("the built-in experiment is well formed")
    }

    /// The text of the [built-in experiment](Self::builtin), to copy.
    pub const fn builtin_text() -> &'static str {
        DEFAULT
    }

    /// Reads the experiment file at `path`.
    ///
    /// # Errors
    ///
    /// If it can't be read, is larger than [`MAX_FILE_BYTES`], or as [`Experiment::parse`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SpecError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let mut text = String::new();
        let limit = MAX_FILE_BYTES as u64 + 1;
        File::open(path)
            .and_then(|file| file.take(limit).read_to_string(&mut text))
            .map_err(|source| SpecError::Io { file: name.clone(), source })?;
        Self::parse(&name, &text)
    }

    /// Reads an experiment from the text of a file called `file`.
    ///
    /// # Errors
    ///
    /// If it is no TOML, a key is missing or unknown, a value is of the wrong type or means nothing, or
    /// the grid has more than [`MAX_POINTS`] points. The error points at the line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, SpecError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(SpecError::TooLarge { file: file.to_owned() });
        }
        file::parse(file, text)
    }

    /// Points before duplicates are removed.
    pub fn grid_size(&self) -> usize {
        self.grids.iter().map(Grid::size).fold(0, usize::saturating_add)
    }

    /// Its stack points on a machine with `all_threads` threads and the fingerprint `hw`: all combinations of
    /// every grid, the network changing slowest and the batch fastest. A point that comes up twice, as when
    /// `"all"` threads are one, is listed once.
    pub fn expand(&self, all_threads: usize, hw: &str) -> Vec<StackPoint> {
        let mut seen = BTreeSet::new();
        let points = self.grids.iter().flat_map(|grid| grid.points(all_threads, hw));
        points.filter(|point| seen.insert(point.clone())).collect()
    }

    /// Asks `accepts` about every choice the file makes on every layer, as text, and turns its first
    /// refusal into an error that points at that choice. So the caller, who knows which networks and
    /// backends there are, need not know about files.
    ///
    /// # Errors
    ///
    /// The first refusal.
    ///
    /// ```
    /// use dlis_experiment::{Experiment, StackLayer};
    /// let experiment = Experiment::parse("e.toml", "name = 'e'\nnetworks = ['vgg']").unwrap();
    /// let error = experiment
    ///     .check(|layer, value| match (layer, value) {
    ///         (StackLayer::Network, "vgg") => Err("no network `vgg`; known: vgg16-cifar10".to_owned()),
    ///         _ => Ok(()),
    ///     })
    ///     .unwrap_err();
    /// assert!(error.to_string().starts_with("e.toml:2:13: no network `vgg`; known: vgg16-cifar10"));
    /// ```
    pub fn check(&self, mut accepts: impl FnMut(StackLayer, &str) -> Result<(), String>) -> Result<(), SpecError> {
        fn texts<T: fmt::Display>(values: &[T]) -> Vec<String> {
            values.iter().map(ToString::to_string).collect()
        }
        for (grid, spans) in self.grids.iter().zip(&self.source.spans) {
            let choices = [
                (StackLayer::Network, texts(&grid.networks)),
                (StackLayer::Recipe, texts(&grid.recipes)),
                (StackLayer::Format, texts(&grid.formats)),
                (StackLayer::Algorithm, texts(&grid.algorithms)),
                (StackLayer::Backend, texts(&grid.backends)),
                (StackLayer::Threads, texts(&grid.threads)),
                (StackLayer::Schedule, texts(&grid.schedules)),
                (StackLayer::Batch, texts(&grid.batches)),
            ];
            for (layer, values) in choices {
                for (index, value) in values.iter().enumerate() {
                    accepts(layer, value).map_err(|message| {
                        let span = spans.get(&layer).and_then(|spans| spans.get(index)).cloned();
                        SpecError::at(&self.source.file, &self.source.text, span, message)
                    })?;
                }
            }
        }
        Ok(())
    }
}
