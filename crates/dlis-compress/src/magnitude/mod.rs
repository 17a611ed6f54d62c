//! Weight pruning by magnitude.

mod masks;

use std::collections::BTreeMap;

use dlis_formats::Weight;
use dlis_model::Network;
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::bounds::Fields;
use crate::recipe::Tuning;
use crate::weights::{dense, weight_name};
use crate::{CompressError, Compressor, Constraint, Context, Selection};

/// Magnitude pruning: weights (or groups of them, see [`Pattern`]) of small magnitude become zero, and the others
/// are trained on to make up for it (Han et al. 2015, *Learning both Weights and Connections for Efficient Neural
/// Networks*). A weight that is zero stays zero through every later level, stage and step: masks only shrink.
///
/// ```
/// use std::sync::Arc;
///
/// use dlis_compress::{Compressor, Context, Counts, Magnitude, Untrained};
/// use dlis_model::{Network, zoo};
///
/// let network = Network::random(zoo::resnet18_cifar10(), 0);
/// let mut ignore = |_: dlis_compress::Event<'_>| {};
/// let mut trainer = Untrained;
/// let mut context = Context::new(&mut trainer, "example", 0, Arc::new(network.clone()), &mut ignore);
/// let pruned = Magnitude::to_sparsity(0.9).compress(network, &mut context)?;
/// // The first and the last layer are dense.
/// assert!((Counts::of(&pruned).sparsity() - 0.9).abs() < 0.001);
/// # Ok::<(), dlis_compress::CompressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Magnitude {
    /// What magnitudes are compared with.
    #[serde(default)]
    pub scope: Scope,
    /// Share of the selected layers' weights that are zero at the end, 0 to below 1: over all of them together
    /// (`global`) or in each (`layer`). Not for `deviation` and not for the pattern `2:4`, which decide it
    /// themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
    /// For the scope `deviation`: weights of a magnitude of at most this many standard deviations of their layer
    /// become zero, 0 to 10 (the paper's quality parameter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    /// Which weights stand or fall together.
    #[serde(default)]
    pub pattern: Pattern,
    /// How the sparsity is reached.
    #[serde(default)]
    pub schedule: Schedule,
    /// Which layers.
    #[serde(default)]
    pub layers: Selection,
    /// Training after pruning (after each level, with the schedule `iterative`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<Tuning>,
}

/// What magnitudes are compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Those of all selected layers together: layers that can spare more lose more.
    #[default]
    Global,
    /// Those of the same layer: every layer becomes equally sparse.
    Layer,
    /// The standard deviation of the layer, times [`Magnitude::quality`] (Han et al. 2015, section 4).
    Deviation,
}

/// Which weights are kept or pruned together, in the matrix view of a weight: rows are output channels, columns
/// `[in / groups][ky][kx]`. Groups are compared by the mean of their squares; the last group of a row or column of
/// groups may be smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pattern {
    /// Each weight for itself.
    #[default]
    #[serde(rename = "unstructured")]
    Unstructured,
    /// The 2 largest of every 4 consecutive input channels of one tap are kept (Mishra et al. 2021).
    #[serde(rename = "2:4")]
    TwoFour,
    /// 1 output channel by 4 columns.
    #[serde(rename = "1x4")]
    OneByFour,
    /// 4 output channels of one column.
    #[serde(rename = "4x1")]
    FourByOne,
    /// 8 output channels of one column.
    #[serde(rename = "8x1")]
    EightByOne,
    /// 16 output channels of one column.
    #[serde(rename = "16x1")]
    SixteenByOne,
}

impl Pattern {
    /// Rows and columns of a group; 1 by 1 for `2:4`, whose groups compete within, not with each other.
    pub const fn block(self) -> [usize; 2] {
        match self {
            Self::Unstructured | Self::TwoFour => [1, 1],
            Self::OneByFour => [1, 4],
            Self::FourByOne => [4, 1],
            Self::EightByOne => [8, 1],
            Self::SixteenByOne => [16, 1],
        }
    }
}

/// How the sparsity is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// At once.
    #[default]
    OneShot,
    /// By these sparsities before the final one, each with the whole fine-tuning (Han et al. 2015).
    Iterative {
        /// Rising, all below the final sparsity.
        levels: Vec<f64>,
    },
    /// In stages whose sparsities follow a cubic, fast at first (Zhu and Gupta 2017, equation 1); all stages but
    /// the last train for a short time.
    Gradual {
        /// 1 to 100, the last included.
        stages: usize,
        /// Epochs of each stage but the last.
        #[serde(default = "one")]
        epochs: f64,
    },
}

const fn one() -> f64 {
    1.0
}

impl Magnitude {
    /// Global unstructured pruning to this share of zeros, at once and without training.
    pub fn to_sparsity(sparsity: f64) -> Self {
        Self {
            scope: Scope::Global,
            sparsity: Some(sparsity),
            quality: None,
            pattern: Pattern::Unstructured,
            schedule: Schedule::OneShot,
            layers: Selection::default(),
            fine_tune: None,
        }
    }

    /// The sparsities to reach one after the other, from weights of which `start` are zero. Never falling, the last
    /// one is [`sparsity`](Self::sparsity).
    pub fn levels(&self, start: f64) -> Vec<f64> {
        let last = self.sparsity.unwrap_or(0.0);
        match &self.schedule {
            Schedule::OneShot => vec![last],
            Schedule::Iterative { levels } => levels.iter().copied().chain([last]).collect(),
            Schedule::Gradual { stages, .. } => {
                let start = start.min(last);
                let level = |stage: usize| last + (start - last) * (1.0 - stage as f64 / *stages as f64).powi(3);
                (1..*stages).map(level).chain([last]).collect()
            }
        }
    }

    /// The training after a level: short for all stages of a gradual schedule but the last.
    fn tuning(&self, last: bool) -> Option<Tuning> {
        let tuning = self.fine_tune?;
        match self.schedule {
            Schedule::Gradual { epochs, .. } if !last => Some(Tuning { epochs, ..tuning }),
            _ => Some(tuning),
        }
    }

    /// Weights with at least this share of zeros among all of them, in row-major order.
    pub(crate) fn prune(weights: &[ArrayD<f32>], sparsity: f64, pattern: Pattern) -> Vec<ArrayD<f32>> {
        let masks = masks::by_sparsity(weights, sparsity, pattern);
        weights.iter().zip(masks).map(|(weight, mask)| masked(weight, &mask)).collect()
    }

    /// Masks of these weights.
    fn masks(&self, weights: &[ArrayD<f32>], sparsity: f64) -> Vec<ArrayD<bool>> {
        match (self.pattern, self.scope) {
            (Pattern::TwoFour, _) => weights.iter().map(masks::two_of_four).collect(),
            (_, Scope::Deviation) => {
                let quality = self.quality.unwrap_or(0.0);
                weights.iter().map(|weight| masks::by_deviation(weight, quality)).collect()
            }
            (pattern, Scope::Global) => masks::by_sparsity(weights, sparsity, pattern),
            (pattern, Scope::Layer) => weights
                .iter()
                .flat_map(|weight| masks::by_sparsity(std::slice::from_ref(weight), sparsity, pattern))
                .collect(),
        }
    }

    pub(crate) fn check(&self, fields: &Fields<'_>) -> Result<(), CompressError> {
        let decided = self.scope == Scope::Deviation || self.pattern == Pattern::TwoFour;
        match (self.sparsity, decided) {
            (Some(sparsity), false) => fields.range("sparsity", sparsity, 0.0, 0.9999)?,
            (None, true) => {}
            (Some(_), true) => {
                let problem = "the scope `deviation` and the pattern `2:4` decide it themselves".to_owned();
                return Err(fields.error("sparsity", problem));
            }
            (None, false) => return Err(fields.error("sparsity", "missing: expected 0 to 0.9999".to_owned())),
        }
        match (self.quality, self.scope) {
            (Some(quality), Scope::Deviation) => fields.range("quality", quality, 0.0, 10.0)?,
            (None, Scope::Deviation) => return Err(fields.error("quality", "missing: expected 0 to 10".to_owned())),
            (Some(_), _) => return Err(fields.error("quality", "only for the scope `deviation`".to_owned())),
            (None, _) => {}
        }
        if self.scope == Scope::Deviation && self.pattern != Pattern::Unstructured {
            return Err(fields.error("pattern", "the scope `deviation` prunes each weight for itself".to_owned()));
        }
        match &self.schedule {
            Schedule::OneShot => {}
            _ if decided => {
                return Err(fields.error("schedule", "there is no sparsity to rise to: expected one-shot".to_owned()));
            }
            Schedule::Iterative { levels } => {
                fields.count("schedule.levels", levels.len(), 1, 100)?;
                let mut least = 0.0;
                for &level in levels.iter().chain(&self.sparsity) {
                    fields.range("schedule.levels (rising to the sparsity)", level, least, 0.9999)?;
                    least = level;
                }
            }
            Schedule::Gradual { stages, epochs } => {
                fields.count("schedule.stages", *stages, 1, 100)?;
                fields.range("schedule.epochs", *epochs, 0.0, 1000.0)?;
            }
        }
        self.layers.check(fields)?;
        self.fine_tune.iter().try_for_each(|tuning| tuning.check(&fields.within("fine_tune.")))
    }
}

/// The weight with zeros where the mask is false.
fn masked(weight: &ArrayD<f32>, mask: &ArrayD<bool>) -> ArrayD<f32> {
    let mut weight = weight.clone();
    weight.zip_mut_with(mask, |value, &keep| *value = if keep { *value } else { 0.0 });
    weight
}

impl Compressor for Magnitude {
    fn compress(&self, network: Network, context: &mut Context<'_>) -> Result<Network, CompressError> {
        self.check(&Fields::new(context.key()))?;
        let names: Vec<String> = {
            let graph = network.graph();
            self.layers.of(graph)?.into_iter().map(|layer| weight_name(graph, layer)).collect()
        };
        let mut network = network.to_f32();
        let weights = dense(&network, &names)?;
        let elements: usize = weights.iter().map(ArrayD::len).sum();
        let zeros = weights.iter().flat_map(|weight| weight.iter()).filter(|&&value| value == 0.0).count();
        drop(weights);
        let levels = self.levels(zeros as f64 / elements.max(1) as f64);
        for (stage, &sparsity) in levels.iter().enumerate() {
            let weights = dense(&network, &names)?;
            let masks = self.masks(&weights, sparsity);
            let weights = weights.iter().zip(&masks).map(|(weight, mask)| Weight::F32(masked(weight, mask)));
            network = network.with_weights(names.iter().cloned().zip(weights))?;
            if let Some(tuning) = self.tuning(stage + 1 == levels.len()) {
                let masks = masks.into_iter().map(Constraint::Mask);
                let constraints: BTreeMap<_, _> = names.iter().cloned().zip(masks).collect();
                network = context.fine_tune(&network, &tuning, constraints, None, &format!("level-{stage}"))?;
            }
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_never_fall_and_end_at_the_sparsity() {
        for schedule in [
            Schedule::OneShot,
            Schedule::Iterative { levels: vec![0.3, 0.6] },
            Schedule::Gradual { stages: 7, epochs: 1.0 },
        ] {
            let magnitude = Magnitude { schedule, ..Magnitude::to_sparsity(0.9) };
            for start in [0.0, 0.2, 0.95] {
                let levels = magnitude.levels(start);
                assert!(levels.is_sorted(), "{levels:?}");
                assert_eq!(levels.last(), Some(&0.9));
            }
        }
    }

    #[test]
    fn a_gradual_schedule_is_the_cubic_of_the_paper() {
        let schedule = Schedule::Gradual { stages: 2, epochs: 1.0 };
        let levels = Magnitude { schedule, ..Magnitude::to_sparsity(0.8) }.levels(0.0);
        // 0.8 + (0 - 0.8) * (1 - 1/2)^3.
        assert!((levels[0] - 0.7).abs() < 1e-12 && levels[1] == 0.8, "{levels:?}");
    }

    #[test]
    fn only_the_last_stage_trains_long() {
        let schedule = Schedule::Gradual { stages: 3, epochs: 0.5 };
        let magnitude = Magnitude { schedule, fine_tune: Some(Tuning::of_epochs(10.0)), ..Magnitude::to_sparsity(0.8) };
        let epochs = |last| magnitude.tuning(last).map(|tuning| tuning.epochs);
        assert_eq!([epochs(false), epochs(true)], [Some(0.5), Some(10.0)]);
    }
}
