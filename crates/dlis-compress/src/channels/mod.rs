//! Channel pruning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bounds::Fields;
use crate::recipe::Tuning;
use crate::{CompressError, Selection};

/// Channel pruning: whole output channels go, with everything that only they need, so that what is left is a
/// smaller dense network.
///
/// Channels that are coupled (by residual additions, depthwise convolutions, squeeze-and-excitation) go together,
/// as a dependency graph of the network says (Fang et al. 2023, *DepGraph*).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// What says how much a channel matters.
    #[serde(default)]
    pub criterion: Criterion,
    /// How far to prune.
    pub budget: Budget,
    /// Rounds in which the budget is reached by equal factors, 1 to 1000, with training between.
    #[serde(default = "Channels::one_round")]
    pub rounds: usize,
    /// Widths stay multiples of this where they can, 1 to 256: kernels like whole vectors.
    #[serde(default = "Channels::no_rounding")]
    pub round_to: usize,
    /// Training images for the Fisher criterion, 1 to a million.
    #[serde(default = "Channels::images")]
    pub images: usize,
    /// How much the multiply-accumulates that a channel costs count against its saliency, 0 to 10: channels are
    /// ranked by `saliency / (share of MACs)^penalty`.
    #[serde(default = "Channels::penalty")]
    pub penalty: f64,
    /// Least share of a group's channels that is kept, 0 to 1; one channel always is.
    #[serde(default = "Channels::keep")]
    pub keep: f64,
    /// Which layers' output channels may go. The first convolution's may by default, the last layer's never.
    #[serde(default = "Channels::selection")]
    pub layers: Selection,
    /// Training after each round but the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<Tuning>,
    /// Training after the last round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Tuning>,
}

/// What says how much a channel matters. The saliency of coupled channels is the sum of theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The estimated rise of the loss without it (Theis et al. 2018, *Faster gaze prediction with dense networks and
    /// Fisher pruning*), from [`Trainer::fisher`](crate::Trainer::fisher).
    #[default]
    Fisher,
    /// The L1 norm of its filters, relative to the layer's mean (Li et al. 2017, *Pruning Filters for Efficient
    /// ConvNets*).
    L1,
    /// The magnitude of its batch-norm's scale (Liu et al. 2017, *Network Slimming*).
    BatchNorm,
}

/// How far channels are pruned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Budget {
    /// To at most this share of the multiply-accumulates of the network that the chain of recipes began with, more
    /// than 0, at most 1.
    Macs(f64),
    /// To at most this latency by a table.
    Latency(Latency),
}

/// A latency and the table that says what layers of a width take (Yang et al. 2018, *NetAdapt*).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Sum over the layers of the table, in its unit, more than 0.
    pub at_most: f64,
    /// Per layer: rising output widths and what the layer takes at each, with linear interpolation between them. The
    /// input's width is taken to shrink as the output's.
    pub table: BTreeMap<String, Vec<(usize, f64)>>,
}

impl Channels {
    const fn one_round() -> usize {
        1
    }

    const fn no_rounding() -> usize {
        1
    }

    const fn images() -> usize {
        1024
    }

    const fn penalty() -> f64 {
        0.5
    }

    const fn keep() -> f64 {
        0.05
    }

    fn selection() -> Selection {
        Selection { first: true, depthwise: true, ..Selection::default() }
    }

    /// Fisher pruning to this share of the multiply-accumulates, in one round without training.
    pub fn to_macs(share: f64) -> Self {
        Self {
            criterion: Criterion::Fisher,
            budget: Budget::Macs(share),
            rounds: Self::one_round(),
            round_to: Self::no_rounding(),
            images: Self::images(),
            penalty: Self::penalty(),
            keep: Self::keep(),
            layers: Self::selection(),
            fine_tune: None,
            finish: None,
        }
    }

    pub(crate) fn check(&self, fields: &Fields<'_>) -> Result<(), CompressError> {
        match &self.budget {
            Budget::Macs(share) => fields.range("budget.macs", *share, 1e-6, 1.0)?,
            Budget::Latency(Latency { at_most, table }) => {
                fields.range("budget.latency.at_most", *at_most, f64::MIN_POSITIVE, f64::MAX)?;
                fields.count("budget.latency.table", table.len(), 1, dlis_model::graph::MAX_LAYERS)?;
                for (layer, points) in table {
                    let field = format!("budget.latency.table.{layer}");
                    fields.count(&field, points.len(), 1, 65536)?;
                    for (index, &(_, latency)) in points.iter().enumerate() {
                        fields.range(&field, latency, 0.0, f64::MAX)?;
                        if index > 0 && points[index - 1].0 >= points[index].0 {
                            return Err(fields.error(&field, "expected rising widths".to_owned()));
                        }
                    }
                }
            }
        }
        fields.count("rounds", self.rounds, 1, 1000)?;
        fields.count("round_to", self.round_to, 1, 256)?;
        fields.count("images", self.images, 1, 1_000_000)?;
        fields.range("penalty", self.penalty, 0.0, 10.0)?;
        fields.range("keep", self.keep, 0.0, 1.0)?;
        self.layers.check(fields)?;
        self.fine_tune.iter().try_for_each(|tuning| tuning.check(&fields.within("fine_tune.")))?;
        self.finish.iter().try_for_each(|tuning| tuning.check(&fields.within("finish.")))
    }
}
