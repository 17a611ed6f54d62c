//! The keys of an experiment file, and what makes their values meaningful.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use dlis_backend::Schedule;
use dlis_formats::Format;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use toml::Spanned;

use super::{Experiment, Grid, MAX_POINTS, Source, SpecError};
use crate::recommend::Constraints;
use dlis_runtime::Policy;

use crate::{MAX_BATCH, MAX_THREADS, StackLayer, quantity};

type List<T> = Spanned<Vec<Spanned<T>>>;

fn list<T>(values: impl IntoIterator<Item = T>) -> List<T> {
    Spanned::new(0..0, values.into_iter().map(|value| Spanned::new(0..0, value)).collect())
}

/// A DLIS experiment: a grid of stack points, or several. Every combination of the values of a grid's lists is
/// one point, but for those that cannot be, such as a recipe that a network has no artefact of.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "DLIS experiment")]
struct ExperimentFile {
    /// The name of the experiment; its store and report are called by it. Letters, digits, `-`, `_` and `.`.
    #[schemars(with = "String", regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"))]
    name: Spanned<String>,
    /// Layer 1: the networks, by their name in the zoo (`vgg16-cifar10`, `resnet18-cifar10`,
    /// `mobilenet-cifar10`) or by the path of an artefact.
    #[schemars(with = "Vec<String>", length(min = 1))]
    networks: List<String>,
    /// Layer 2: compression recipes. `none` is the network as trained; `int8` (integer weights and activations)
    /// and `int4` (integer weights) are made on the spot; any other, such as `prune-90`, is the artefact
    /// `NETWORK.RECIPE.safetensors` beside the network's weights. `RECIPE-int8`, such as `ternary-0.1-int8`, is
    /// that artefact in 8 bits, made on the spot: its activations, and its weights but for ternary ones.
    #[serde(default = "recipes")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    recipes: List<String>,
    /// Layer 3: formats of the weights. `stored` is as the recipe left them; any other, such as `csr-f32`, is what
    /// the compressed layers are converted to, where that changes no value.
    #[serde(default = "formats")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    formats: List<String>,
    /// Layer 3: how the algorithm of each layer is chosen. `fixed:<pattern>`: the kernels whose algorithm
    /// (`direct`) or id (`conv2d/*/dense/*/*`) fits; `heuristic`: by the shape of the layer; `measured`: by
    /// timing the candidates on this machine.
    #[serde(default = "algorithms")]
    #[schemars(with = "Vec<String>", length(min = 1), inner(regex(pattern = r"^(heuristic|measured|fixed:.+)$")))]
    algorithms: List<String>,
    /// Layer 4: the backends: `rayon`, `omp`, `opencl:DEVICE`, `opencl:DEVICE:PRECISION`.
    #[serde(default = "backends")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    backends: List<String>,
    /// Layer 4: thread counts; `"all"` is the number of logical cores of the machine.
    #[serde(default = "threads")]
    #[schemars(with = "Vec<Threads>", length(min = 1))]
    threads: List<Threads>,
    /// Layer 4: how a parallel loop is dealt out to the threads, in the words of OpenMP: `static`,
    /// `static,4`, `dynamic,1`, `guided,2`.
    #[serde(default = "schedules")]
    #[schemars(
        with = "Vec<String>",
        length(min = 1),
        inner(regex(pattern = r"^(static|dynamic|guided)(, *[1-9][0-9]*)?$"))
    )]
    schedules: List<String>,
    /// Layer 4: images per inference.
    #[serde(default = "batches")]
    #[schemars(with = "Vec<u32>", length(min = 1), inner(range(min = 1, max = 65_536)))]
    batches: List<usize>,
    /// Several grids instead of one: each has the lists above, but for those that it gives itself.
    #[serde(default)]
    #[schemars(extend("default" = []))]
    grids: Vec<GridFile>,
    /// On which images accuracy is measured.
    #[serde(default)]
    accuracy: AccuracySpec,
    /// How long latency is measured.
    #[serde(default)]
    latency: LatencySpec,
    /// What a recommended point has to keep. It takes no point out of the grid: the fastest point that
    /// keeps all of it is named at the end of the run.
    #[serde(default)]
    constraints: ConstraintsFile,
    /// From which sparsity compressed layers are faster than dense ones; not measured if left out.
    break_even: Option<BreakEvenFile>,
}

/// Which layers on their own are timed beside dense: every distinct convolution and linear layer of the networks
/// that come with the program, with random masks, on one thread.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct BreakEvenFile {
    /// Layer 3: formats, as in `csr-f16`.
    #[schemars(with = "Vec<String>", length(min = 1))]
    formats: Vec<Format>,
    /// Shares of zeros, 0 to 1.
    #[schemars(with = "Vec<f64>", length(min = 1), inner(range(min = 0, max = 1)))]
    sparsities: Vec<Spanned<f64>>,
    /// Milliseconds that are spent on timing one layer in one format at one sparsity.
    budget_ms: std::num::NonZeroU32,
}

/// One of several grids of stack points.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct GridFile {
    /// Layer 1: the networks of this grid.
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    networks: Option<List<String>>,
    /// Layer 2: its compression recipes.
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    recipes: Option<List<String>>,
    /// Layer 3: its formats of the weights.
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    formats: Option<List<String>>,
    /// Layer 3: its choices of algorithms.
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    algorithms: Option<List<String>>,
    /// Layer 4: its backends.
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    backends: Option<List<String>>,
    /// Layer 4: its thread counts.
    #[schemars(with = "Option<Vec<Threads>>", length(min = 1))]
    threads: Option<List<Threads>>,
    /// Layer 4: its schedules of parallel loops.
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    schedules: Option<List<String>>,
    /// Layer 4: its numbers of images per inference.
    #[schemars(with = "Option<Vec<u32>>", length(min = 1))]
    batches: Option<List<usize>>,
}

impl GridFile {
    /// One with nothing of its own.
    const NOTHING: Self = Self {
        networks: None,
        recipes: None,
        formats: None,
        algorithms: None,
        backends: None,
        threads: None,
        schedules: None,
        batches: None,
    };
}

fn recipes() -> List<String> {
    list(["none".to_owned()])
}
fn formats() -> List<String> {
    list([crate::catalogue::STORED.to_owned()])
}
fn algorithms() -> List<String> {
    list(["measured".to_owned()])
}
fn backends() -> List<String> {
    list(["rayon".to_owned()])
}
fn threads() -> List<Threads> {
    list([Threads::Count(1), Threads::All])
}
fn schedules() -> List<String> {
    list(["static".to_owned()])
}
fn batches() -> List<usize> {
    list([1])
}

/// A thread count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Threads {
    /// So many.
    Count(#[schemars(range(min = 1, max = 4096))] usize),
    /// As many as the machine has logical cores.
    #[serde(serialize_with = "all")]
    #[schemars(schema_with = "all_schema")]
    All,
}

fn all<S: serde::Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("all")
}

fn all_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "const": "all", "description": "As many as the machine has logical cores." })
}

impl Threads {
    /// The count on a machine with `all` logical cores.
    pub const fn count(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::All => all,
        }
    }
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Threads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Threads;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of threads, 1 to 4096, or \"all\"")
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Threads, E> {
                let fits = usize::try_from(count).ok().filter(|count| (1..=MAX_THREADS).contains(count));
                fits.map(Threads::Count).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(count), &self))
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Threads, E> {
                let fits = usize::try_from(count).ok().filter(|count| (1..=MAX_THREADS).contains(count));
                fits.map(Threads::Count).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(count), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Threads, E> {
                if text == "all" { Ok(Threads::All) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The images accuracy is measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Dataset {
    /// 1,000 test images of CIFAR-10, 100 of each class, that come with the repository.
    #[default]
    Embedded,
    /// The 10,000 test images of CIFAR-10, which `cargo xtask datasets` fetches.
    Cifar10,
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Cifar10 => "cifar10",
        })
    }
}

/// On which images accuracy is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct AccuracySpec {
    /// The images.
    #[serde(default)]
    pub dataset: Dataset,
    /// How many of them, from the first; all if left out.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub images: Option<std::num::NonZeroU32>,
}

/// How long latency is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct LatencySpec {
    /// Inferences that are timed at least.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_samples: std::num::NonZeroU32,
    /// Milliseconds that are spent on timing one point, once `min_samples` are there.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub budget_ms: std::num::NonZeroU32,
}

impl Default for LatencySpec {
    fn default() -> Self {
        let number = |value| std::num::NonZeroU32::new(value).unwrap_or(std::num::NonZeroU32::MIN);
        Self { min_samples: number(30), budget_ms: number(2000) }
    }
}

/// Which compressed layers are timed on their own, beside dense ones.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakEvenSpec {
    /// Formats of their weights.
    pub formats: Vec<Format>,
    /// Shares of zeros, 0 to 1.
    pub sparsities: Vec<f64>,
    /// Milliseconds for one layer in one format at one sparsity.
    pub budget_ms: std::num::NonZeroU32,
}

/// What a recommended point has to keep.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
struct ConstraintsFile {
    /// Top-1 accuracy at least, 0 to 1.
    #[schemars(with = "Option<f64>", range(min = 0, max = 1))]
    min_accuracy: Option<Spanned<f64>>,
    /// Median latency of an inference at most, as in `"20ms"`.
    #[schemars(with = "Option<String>")]
    max_latency: Option<Spanned<String>>,
    /// Weights, activations and scratch at most, as in `"30MB"` or `"28MiB"`.
    #[schemars(with = "Option<String>")]
    max_memory: Option<Spanned<String>>,
    /// Images per second at least.
    #[schemars(with = "Option<f64>", range(min = 0))]
    min_throughput: Option<Spanned<f64>>,
    /// The artefact on disk at most, as in `"15MB"`.
    #[schemars(with = "Option<String>")]
    max_disk: Option<Spanned<String>>,
}

/// The JSON schema of experiment files, for editors.
///
/// # Panics
///
/// Never: a schema is JSON.
pub fn schema() -> String {
    let schema = schemars::schema_for!(ExperimentFile);
    serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n"
}

/// Where things stand while a file is read.
struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    source: Source,
}

pub(super) fn parse(file: &str, text: &str) -> Result<Experiment, SpecError> {
    let keys: ExperimentFile =
        toml::from_str(text).map_err(|error| SpecError::at(file, text, error.span(), error.message().trim_end()))?;
    let source = Source { file: file.to_owned(), text: text.to_owned(), ..Source::default() };
    let mut reader = Reader { file, text, source };
    let whole = 0..0;
    let name = reader.name(keys.name.clone())?;
    let own = if keys.grids.is_empty() { vec![GridFile::NOTHING] } else { keys.grids.clone() };
    let mut grids = Vec::with_capacity(own.len());
    for own in own {
        grids.push(reader.grid(&keys, own)?);
    }
    let constraints = reader.constraints(keys.constraints)?;
    let break_even = keys.break_even.map(|keys| reader.break_even(keys)).transpose()?;
    let (accuracy, latency) = (keys.accuracy, keys.latency);
    let experiment = Experiment { name, grids, accuracy, latency, constraints, break_even, source: reader.source };
    if experiment.grid_size() > MAX_POINTS {
        let message = format!("a grid of {} stack points: expected at most {MAX_POINTS}", experiment.grid_size());
        return Err(SpecError::at(file, text, Some(whole), message));
    }
    Ok(experiment)
}

fn path_or_name(text: String) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 4096 && text.trim() == text && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err(format!("{text:?}: expected a name without white space around it")) }
}

impl Reader<'_> {
    fn error(&self, span: Range<usize>, message: impl Into<String>) -> SpecError {
        SpecError::at(self.file, self.text, Some(span), message)
    }

    fn name(&self, name: Spanned<String>) -> Result<String, SpecError> {
        let span = name.span();
        let name = name.into_inner();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if plain && (1..=64).contains(&name.len()) && !name.starts_with('.') {
            return Ok(name);
        }
        let message = "`name`: expected 1 to 64 letters, digits, `-`, `_` and `.`, not beginning with `.`: files are called by it";
        Err(self.error(span, message))
    }

    /// One grid: its own lists, and the shared ones for those that it has not.
    fn grid(&mut self, shared: &ExperimentFile, own: GridFile) -> Result<Grid, SpecError> {
        self.source.spans.push(BTreeMap::new());
        let or = |own: Option<List<String>>, shared: &List<String>| own.unwrap_or_else(|| shared.clone());
        Ok(Grid {
            networks: self.list(StackLayer::Network, or(own.networks, &shared.networks), path_or_name)?,
            recipes: self.list(StackLayer::Recipe, or(own.recipes, &shared.recipes), path_or_name)?,
            formats: self.list(StackLayer::Format, or(own.formats, &shared.formats), path_or_name)?,
            algorithms: self.list(StackLayer::Algorithm, or(own.algorithms, &shared.algorithms), |text| {
                text.parse::<Policy>().map_err(|e| e.to_string())
            })?,
            backends: self.list(StackLayer::Backend, or(own.backends, &shared.backends), path_or_name)?,
            threads: self.list(StackLayer::Threads, own.threads.unwrap_or_else(|| shared.threads.clone()), Ok)?,
            schedules: self.list(StackLayer::Schedule, or(own.schedules, &shared.schedules), |text| {
                text.parse::<Schedule>().map_err(|e| e.to_string())
            })?,
            batches: self.list(StackLayer::Batch, own.batches.unwrap_or_else(|| shared.batches.clone()), |batch| {
                let fits = (1..=MAX_BATCH).contains(&batch);
                if fits { Ok(batch) } else { Err(format!("a batch of {batch} images: expected 1 to {MAX_BATCH}")) }
            })?,
        })
    }

    fn list<T, U: fmt::Display>(
        &mut self,
        layer: StackLayer,
        values: List<T>,
        convert: impl Fn(T) -> Result<U, String>,
    ) -> Result<Vec<U>, SpecError> {
        let whole = values.span();
        let mut seen = std::collections::HashSet::new();
        let mut converted = Vec::new();
        for value in values.into_inner() {
            let span = value.span();
            let value = convert(value.into_inner()).map_err(|message| self.error(span.clone(), message))?;
            if !seen.insert(value.to_string()) {
                return Err(self.error(span, format!("`{value}` is listed twice")));
            }
            converted.push(value);
            if let Some(spans) = self.source.spans.last_mut() {
                spans.entry(layer).or_default().push(span);
            }
        }
        if converted.is_empty() {
            return Err(self.error(whole, format!("an empty list: expected at least one {layer}")));
        }
        Ok(converted)
    }

    fn constraints(&self, keys: ConstraintsFile) -> Result<Constraints, SpecError> {
        Ok(Constraints {
            min_accuracy: self.value(keys.min_accuracy, |share| {
                if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(format!("{share}: expected a share, 0 to 1")) }
            })?,
            max_latency_ns: self.value(keys.max_latency, |text| quantity::parse_time_ns(&text).map_err(text_of))?,
            max_memory_bytes: self.value(keys.max_memory, |text| quantity::parse_bytes(&text).map_err(text_of))?,
            min_throughput_images_per_s: self.value(keys.min_throughput, |rate| {
                let fits = rate.is_finite() && rate >= 0.0;
                if fits { Ok(rate) } else { Err(format!("{rate}: expected images per second, at least 0")) }
            })?,
            max_disk_bytes: self.value(keys.max_disk, |text| quantity::parse_bytes(&text).map_err(text_of))?,
            ..Constraints::default()
        })
    }

    fn break_even(&self, keys: BreakEvenFile) -> Result<BreakEvenSpec, SpecError> {
        let share = |share: Spanned<f64>| match *share.get_ref() {
            value if (0.0..=1.0).contains(&value) => Ok(value),
            value => Err(self.error(share.span(), format!("{value}: expected a share, 0 to 1"))),
        };
        Ok(BreakEvenSpec {
            formats: keys.formats,
            sparsities: keys.sparsities.into_iter().map(share).collect::<Result<_, _>>()?,
            budget_ms: keys.budget_ms,
        })
    }

    fn value<T, U>(
        &self,
        value: Option<Spanned<T>>,
        convert: impl Fn(T) -> Result<U, String>,
    ) -> Result<Option<U>, SpecError> {
        let convert = |value: Spanned<T>| {
            let span = value.span();
            convert(value.into_inner()).map_err(|message| self.error(span, message))
        };
        value.map(convert).transpose()
    }
}

fn text_of(error: quantity::ParseQuantityError) -> String {
    error.to_string()
}
