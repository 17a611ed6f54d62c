//! Channel pruning.

mod cost;
mod dependencies;
mod saliency;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dlis_model::{Graph, Network, Value};
use serde::{Deserialize, Serialize};

use crate::bounds::Fields;
use crate::recipe::Tuning;
use crate::selection::weighted;
use crate::{CompressError, Compressor, Context, Selection};

pub use dependencies::prune;

use cost::Cost;
use dependencies::Dependencies;

/// Channel pruning: whole output channels go, with everything that only they need, so that what is left is a
/// smaller dense network.
///
/// Channels that are coupled (by residual additions, depthwise convolutions, squeeze-and-excitation) go together,
/// as a dependency graph of the network says (Fang et al. 2023, *Towards Any Structural Pruning*).
///
/// ```
/// use std::sync::Arc;
///
/// use dlis_compress::channels::{Channels, Criterion};
/// use dlis_compress::{Compressor, Context, Untrained};
/// use dlis_model::{Network, zoo};
///
/// let network = Network::random(zoo::mobilenet_cifar10(), 0);
/// let macs = network.graph().macs() as f64;
/// let mut ignore = |_: dlis_compress::Event<'_>| {};
/// let mut trainer = Untrained;
/// let mut context = Context::new(&mut trainer, "example", 0, Arc::new(network.clone()), &mut ignore);
/// let half = Channels { criterion: Criterion::L1, round_to: 8, ..Channels::to_macs(0.5) };
/// let pruned = half.compress(network, &mut context)?;
/// let share = pruned.graph().macs() as f64 / macs;
/// assert!((0.48..=0.5).contains(&share));
/// # Ok::<(), dlis_compress::CompressError>(())
/// ```
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
    /// The L1 norm of its filters, relative to the layer's mean (Li et al. 2017, *Pruning Filters*).
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

/// A latency and the table that says what layers of a width take (Yang et al. 2018, *Platform-Aware Neural Network Adaptation*).
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

/// Units of one layer or of coupled layers that go at once.
struct Chunk {
    /// Saliency for what they cost.
    rank: f64,
    units: Vec<u32>,
}

impl Channels {
    /// What the budget is of, its amount, and what the network that the chain began with has of it.
    fn goal(&self, dense: &Graph) -> Result<(Cost<'_>, f64), CompressError> {
        match &self.budget {
            Budget::Macs(share) => Ok((Cost::Macs, share * dense.macs() as f64)),
            Budget::Latency(Latency { at_most, table }) => {
                let known = |name: &String| weighted(dense).any(|index| dense.layers()[index].name == *name);
                match table.keys().find(|name| !known(name)) {
                    Some(name) => {
                        let problem = "the latency table names it, but it is no convolution or linear layer".to_owned();
                        Err(CompressError::Layer { layer: name.clone(), problem })
                    }
                    None => Ok((Cost::Table(table), *at_most)),
                }
            }
        }
    }

    /// Units that may go, in the order in which they do.
    fn candidates(&self, graph: &Graph, dense: &Graph, dependencies: &Dependencies, saliency: &[f64]) -> Vec<Chunk> {
        let shares = cost::shares(graph, dependencies);
        // Units made by the same layers are alike: their number is a width.
        let mut makers: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for index in weighted(graph) {
            for &unit in dependencies.units(Value::Layer(index)) {
                let makers = makers.entry(unit).or_default();
                if makers.last() != Some(&index) {
                    makers.push(index);
                }
            }
        }
        let mut classes: BTreeMap<Vec<usize>, Vec<u32>> = BTreeMap::new();
        for (unit, makers) in makers {
            if !dependencies.is_pinned(unit) {
                classes.entry(makers).or_default().push(unit);
            }
        }
        let mut chunks: Vec<Chunk> = Vec::new();
        for (makers, mut units) in classes {
            let least = self.least(graph, dense, &makers, units.len());
            units.sort_by(|&a, &b| saliency[a as usize].total_cmp(&saliency[b as usize]));
            let mut rank = 0f64;
            let mut rest = &units[..];
            loop {
                // The first brings the width to a multiple, the others keep it one.
                let size = match rest.len() % self.round_to {
                    0 => self.round_to,
                    beyond => beyond,
                };
                if rest.len() < size + least {
                    break;
                }
                let (chunk, others) = rest.split_at(size);
                let sum = |of: &[f64]| chunk.iter().map(|&unit| of[unit as usize]).sum::<f64>() / size as f64;
                // A unit never goes before one of its class that matters less.
                rank = rank.max(sum(saliency) / sum(&shares).max(f64::MIN_POSITIVE).powf(self.penalty));
                chunks.push(Chunk { rank, units: chunk.to_vec() });
                rest = others;
            }
        }
        // Stable: of equal ranks those of earlier layers go first.
        chunks.sort_by(|a, b| a.rank.total_cmp(&b.rank));
        chunks
    }

    /// Fewest units of a class that stay, of `count` that it has now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is one")]
    fn least(&self, graph: &Graph, dense: &Graph, makers: &[usize], count: usize) -> usize {
        let Some(&maker) = makers.first() else { return count };
        let name = &graph.layers()[maker].name;
        let width = |graph: &Graph, index| graph.shape(Value::Layer(index)).channels as f64;
        let before = dense.layers().iter().position(|layer| layer.name == *name).map(|index| width(dense, index));
        let now = width(graph, maker);
        ((self.keep * before.unwrap_or(now) / now * count as f64).ceil() as usize).max(1)
    }

    /// One round: the network within `target` of the cost.
    fn round(
        &self,
        network: &Network,
        cost: &Cost<'_>,
        target: f64,
        context: &mut Context<'_>,
    ) -> Result<Network, CompressError> {
        let graph = network.graph();
        let mut dependencies = Dependencies::new(graph)?;
        let selected = self.layers.of(graph)?;
        for index in weighted(graph).filter(|index| !selected.contains(index)) {
            for unit in dependencies.units(Value::Layer(index)).to_vec() {
                dependencies.pin(unit);
            }
        }
        let saliency = saliency::of_units(self, network, &dependencies, context)?;
        let chunks = self.candidates(graph, context.teacher().graph(), &dependencies, &saliency);
        let removed = |count: usize| {
            let mut removed = vec![false; dependencies.len()];
            chunks[..count].iter().flat_map(|chunk| &chunk.units).for_each(|&unit| removed[unit as usize] = true);
            removed
        };
        let cost_of = |count: usize| cost.of(graph, &dependencies, &removed(count));
        // Rounding of sums must not cost a channel.
        let within = |count: usize| cost_of(count) <= target * (1.0 + 1e-9);
        if !within(chunks.len()) {
            let reached = cost_of(chunks.len());
            return Err(CompressError::Budget { network: graph.name().to_owned(), budget: target, reached });
        }
        let [mut low, mut high] = [0, chunks.len()];
        while low < high {
            let middle = usize::midpoint(low, high);
            if within(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        dependencies.prune(network, &removed(low))
    }
}

impl Compressor for Channels {
    fn compress(&self, network: Network, context: &mut Context<'_>) -> Result<Network, CompressError> {
        self.check(&Fields::new(context.key()))?;
        let dense = context.teacher().graph().clone();
        let (cost, target) = self.goal(&dense)?;
        let mut network = network.to_f32();
        let start = {
            let dependencies = Dependencies::new(network.graph())?;
            cost.of(network.graph(), &dependencies, &vec![false; dependencies.len()])
        };
        for round in 1..=self.rounds {
            // Equal factors from the start to the target.
            let done = round as f64 / self.rounds as f64;
            let now = if round == self.rounds { target } else { start * (target / start).min(1.0).powf(done) };
            network = self.round(&network, &cost, now, context)?;
            let (tuning, stage) = match round == self.rounds {
                true => (self.finish, "finish".to_owned()),
                false => (self.fine_tune, format!("round-{round}")),
            };
            if let Some(tuning) = tuning {
                network = context.fine_tune(&network, &tuning, BTreeMap::new(), None, &stage)?;
            }
        }
        Ok(network)
    }
}
