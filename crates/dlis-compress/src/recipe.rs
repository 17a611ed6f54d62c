//! Recipes: what to do to a network, as data.

use dlis_formats::Format;
use serde::{Deserialize, Serialize};

use crate::bounds::Fields;
use crate::{Channels, CompressError, Magnitude, Quantise, Ternary};

/// Most steps of a recipe.
pub const MAX_STEPS: usize = 16;

/// A named list of compression steps and how the result is stored.
///
/// ```
/// use dlis_compress::{Recipe, Step};
///
/// let recipe: Recipe = toml::from_str(
///     r#"
///     name = "prune-90"
///     description = "Nine weights of ten are zero"
///     base = "prune-80"
///
///     [[steps]]
///     kind = "magnitude"
///     sparsity = 0.9
///     fine_tune = { epochs = 10, peak_rate = 0.05, distill = { weight = 0.7, temperature = 4.0 } }
///
///     [store]
///     compressed = "dense-f32"
///     rest = "dense-f16"
///     "#,
/// )?;
/// recipe.validate()?;
/// assert!(matches!(recipe.steps[0], Step::Magnitude(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Its name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it is for, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The recipe whose trained network this one starts from, if it is not the dense one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Decides everything random.
    #[serde(default)]
    pub seed: u64,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// How the result is stored.
    #[serde(default)]
    pub store: Store,
}

/// One step of a [`Recipe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Step {
    /// Weight pruning by magnitude.
    Magnitude(Magnitude),
    /// Channel pruning.
    Channels(Channels),
    /// Trained ternary quantisation.
    Ternary(Ternary),
    /// Integer weights, and activations where asked.
    Quantise(Quantise),
}

impl Step {
    /// The name that recipes and keys have for it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Magnitude(_) => "magnitude",
            Self::Channels(_) => "channels",
            Self::Ternary(_) => "ternary",
            Self::Quantise(_) => "quantise",
        }
    }
}

/// How weights are stored once every step is done: batch-norm is folded first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The format of the layers that a step pruned; by default they stay dense. Layers that a step made ternary
    /// or integer are in such a format already; theirs changes only between those that hold the same values
    /// (`ternary-2bit` and `ternary-5in8`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed: Option<Format>,
    /// The format of all other weights of convolutions and linear layers, `dense-f32` or `dense-f16`. Biases stay
    /// as they are: they are few, and every kernel adds them as f32.
    #[serde(default = "dense_f32")]
    pub rest: Format,
}

const fn dense_f32() -> Format {
    Format::DenseF32
}

impl Default for Store {
    fn default() -> Self {
        Self { compressed: None, rest: dense_f32() }
    }
}

/// Hyperparameters of one training run in a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Passes over the training images, 0 to 1000; 0 trains nothing.
    pub epochs: f64,
    /// Images a step, 1 to 65536.
    #[serde(default = "Tuning::batch")]
    pub batch: usize,
    /// Largest learning rate, more than 0, at most 10.
    #[serde(default = "Tuning::peak_rate")]
    pub peak_rate: f64,
    /// L2 penalty on weights, 0 to 1.
    #[serde(default = "Tuning::weight_decay")]
    pub weight_decay: f64,
    /// Share of the target spread over all classes, 0 to below 1.
    #[serde(default = "Tuning::label_smoothing")]
    pub label_smoothing: f64,
    /// Share of the run in which the rate rises, 0 to 1.
    #[serde(default = "Tuning::warmup")]
    pub warmup: f64,
    /// Whether and how the network that the chain of recipes began with teaches this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distill: Option<Teaching>,
}

/// Distillation from the network that the chain of recipes began with (Hinton et al. 2015).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teaching {
    /// Share of the teacher in the loss, 0 to 1.
    pub weight: f64,
    /// What logits are divided by, more than 0, at most 100.
    pub temperature: f64,
}

impl Tuning {
    const fn batch() -> usize {
        256
    }

    const fn peak_rate() -> f64 {
        0.05
    }

    const fn weight_decay() -> f64 {
        5e-4
    }

    const fn label_smoothing() -> f64 {
        0.1
    }

    const fn warmup() -> f64 {
        0.15
    }

    /// These many epochs with everything else at its default.
    pub const fn of_epochs(epochs: f64) -> Self {
        Self {
            epochs,
            batch: Self::batch(),
            peak_rate: Self::peak_rate(),
            weight_decay: Self::weight_decay(),
            label_smoothing: Self::label_smoothing(),
            warmup: Self::warmup(),
            distill: None,
        }
    }

    pub(crate) fn check(&self, fields: &Fields<'_>) -> Result<(), CompressError> {
        fields.range("epochs", self.epochs, 0.0, 1000.0)?;
        fields.count("batch", self.batch, 1, 65536)?;
        fields.range("peak_rate", self.peak_rate, 1e-9, 10.0)?;
        fields.range("weight_decay", self.weight_decay, 0.0, 1.0)?;
        fields.range("label_smoothing", self.label_smoothing, 0.0, 0.999)?;
        fields.range("warmup", self.warmup, 0.0, 1.0)?;
        if let Some(teaching) = &self.distill {
            fields.range("distill.weight", teaching.weight, 0.0, 1.0)?;
            fields.range("distill.temperature", teaching.temperature, 1e-3, 100.0)?;
        }
        Ok(())
    }
}

impl Recipe {
    /// Checks every number and name, so that a recipe from anywhere can be run: what training and memory a
    /// recipe can ask for is bounded.
    ///
    /// # Errors
    ///
    /// [`CompressError::Recipe`] naming the field.
    pub fn validate(&self) -> Result<(), CompressError> {
        let fields = Fields::new(&self.name);
        for (field, name) in [("name", Some(&self.name)), ("base", self.base.as_ref())] {
            let Some(name) = name else { continue };
            let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(valid) {
                let problem = "expected 1 to 100 letters, digits, `-`, `_` or `.`, the first no `.`";
                return Err(fields.error(field, format!("`{name}`: {problem}")));
            }
        }
        if self.base.as_ref() == Some(&self.name) {
            return Err(fields.error("base", "a recipe cannot be based on itself".to_owned()));
        }
        fields.count("steps", self.steps.len(), 1, MAX_STEPS)?;
        for (index, step) in self.steps.iter().enumerate() {
            let fields = fields.within(format!("steps[{index}]."));
            match step {
                Step::Magnitude(magnitude) => magnitude.check(&fields)?,
                Step::Channels(channels) => channels.check(&fields)?,
                Step::Ternary(ternary) => ternary.check(&fields)?,
                Step::Quantise(quantise) => quantise.check(&fields)?,
            }
        }
        check_order(self, &self.steps.iter().collect::<Vec<_>>())?;
        if !matches!(self.store.rest, Format::DenseF32 | Format::DenseF16) {
            let problem = format!("{}: expected dense-f32 or dense-f16", self.store.rest);
            return Err(fields.error("store.rest", problem));
        }
        Ok(())
    }
}

/// Whether each of these steps, of a recipe and those it is based on, can work on what those before it made.
pub(crate) fn check_order(recipe: &Recipe, steps: &[&Step]) -> Result<(), CompressError> {
    for (index, step) in steps.iter().enumerate() {
        let before = steps[..index].iter().map(|step| step.kind());
        if let Some(before) = before.into_iter().find(|&kind| !may_follow(step.kind(), kind)) {
            let problem = format!("{} cannot come after {before}", step.kind());
            return Err(Fields::new(&recipe.name).error("steps", problem));
        }
    }
    Ok(())
}

/// Whether a step of the kind `step` can work on what one of the kind `before` made: quantised networks are
/// folded and in their final formats, ternary layers are neither pruned nor cut.
fn may_follow(step: &str, before: &str) -> bool {
    match before {
        "quantise" => false,
        "ternary" => step == "quantise",
        "magnitude" => step != "channels",
        _ => true,
    }
}
