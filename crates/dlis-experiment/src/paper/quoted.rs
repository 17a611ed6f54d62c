//! The paper's own figures, as data.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::Technique;

/// The networks of the paper, in its order.
pub const NETWORKS: [&str; 3] = ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10"];

/// What the paper reports, with where each figure was found and what must be known to read it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quoted {
    /// What the sources' short names mean.
    pub sources: BTreeMap<String, String>,
    /// Accuracy curves.
    pub accuracy: Vec<QuotedCurves>,
    /// The table of memory.
    pub memory: QuotedMemory,
    /// Inference times by threads.
    pub times: QuotedTimes,
    /// Inference times at one accuracy.
    pub fixed: QuotedFixed,
}

/// Accuracies of one technique.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedCurves {
    /// The technique.
    pub technique: Technique,
    /// What the points' first coordinate is.
    pub x: String,
    /// One of [`Quoted::sources`].
    pub source: String,
    /// What must be known to read it.
    pub caveat: String,
    /// A network's points: coordinate and top-1 accuracy, both 0 to 1.
    pub networks: BTreeMap<String, Vec<[f64; 2]>>,
}

/// The table of memory, in millions of bytes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedMemory {
    /// One of [`Quoted::sources`].
    pub source: String,
    /// What must be known to read it.
    pub caveat: String,
    /// By network and technique.
    pub networks: BTreeMap<String, BTreeMap<Technique, f64>>,
}

/// Inference times of one image, in seconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedTimes {
    /// One of [`Quoted::sources`].
    pub source: String,
    /// What must be known to read it.
    pub caveat: String,
    /// By machine.
    pub machine: Vec<QuotedMachine>,
}

/// The times of one machine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedMachine {
    /// The machine.
    pub name: String,
    /// The thread counts of every list of times.
    pub threads: Vec<usize>,
    /// By network and technique: a time for each thread count.
    pub networks: BTreeMap<String, BTreeMap<Technique, Vec<f64>>>,
}

/// Inference times where all techniques are as accurate, in seconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedFixed {
    /// One of [`Quoted::sources`].
    pub source: String,
    /// The accuracy that the paper names.
    pub accuracy: f64,
    /// What must be known to read it.
    pub caveat: String,
    /// By machine.
    pub machine: Vec<QuotedBars>,
    /// The networks with pruned channels.
    pub channels: QuotedChannels,
}

/// The bars of one machine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedBars {
    /// The machine.
    pub name: String,
    /// By network and technique.
    pub networks: BTreeMap<String, BTreeMap<Technique, f64>>,
}

/// The networks with pruned channels at the fixed accuracy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedChannels {
    /// One of [`Quoted::sources`].
    pub source: String,
    /// By network.
    pub networks: BTreeMap<String, QuotedNetwork>,
}

/// What is left of a network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotedNetwork {
    /// Weights of convolutions and linear layers.
    pub parameters: u64,
    /// Multiply-accumulates an image.
    pub macs: u64,
    /// Those, as a share of the plain network's.
    pub macs_share: f64,
}

static QUOTED: LazyLock<Quoted> = LazyLock::new(|| {
    toml::from_str(include_str!("../../data/paper.toml")).expect("the embedded file is read by a test")
});

/// The paper's figures.
///
/// ```
/// use dlis_experiment::Technique;
/// let paper = dlis_experiment::paper::quoted();
/// assert_eq!(paper.memory.networks["vgg16-cifar10"][&Technique::Plain], 309.9);
/// ```
///
/// # Panics
///
/// Never: the file is part of the program, and a test reads it.
pub fn quoted() -> &'static Quoted {
    &QUOTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_possible_has_a_source_and_is_of_a_network_of_the_zoo() {
        let paper = quoted();
        let known = |network: &String| NETWORKS.contains(&network.as_str()) && dlis_model::zoo::graph(network).is_ok();
        let sourced = |source: &str| assert!(paper.sources.contains_key(source), "{source}");
        assert_eq!(paper.accuracy.len(), 3);
        for curves in &paper.accuracy {
            sourced(&curves.source);
            assert_eq!(curves.networks.len(), 3);
            for (network, points) in &curves.networks {
                assert!(known(network) && points.len() >= 6, "{network}");
                assert!(points.iter().flatten().all(|value| (0.0..=1.0).contains(value)), "{network}");
                assert!(points.is_sorted_by(|a, b| a[0] < b[0]), "{network}");
            }
        }
        sourced(&paper.memory.source);
        sourced(&paper.times.source);
        sourced(&paper.fixed.source);
        sourced(&paper.fixed.channels.source);
        assert!(paper.memory.networks.keys().all(known) && paper.memory.networks.len() == 3);
        for machine in &paper.times.machine {
            assert!(machine.networks.keys().all(known) && machine.networks.len() == 3);
            for times in machine.networks.values().flat_map(BTreeMap::values) {
                assert_eq!(times.len(), machine.threads.len());
                assert!(times.iter().all(|seconds| *seconds > 0.0));
            }
        }
        for machine in &paper.fixed.machine {
            assert!(machine.networks.keys().all(known) && machine.networks.values().all(|bars| bars.len() == 3));
        }
    }

    /// Against the counts of the graphs that this repository builds.
    #[test]
    fn the_shares_of_macs_are_those_of_our_graphs() {
        for (network, left) in &quoted().fixed.channels.networks {
            let macs = dlis_model::zoo::graph(network).unwrap().macs() as f64;
            let share = left.macs as f64 / macs;
            assert!((share - left.macs_share).abs() < 0.01, "{network}: {share}");
        }
    }
}
