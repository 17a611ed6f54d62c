//! Compression techniques, as figures group what was measured.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::Record;
use crate::catalogue::NO_RECIPE;

/// Share of zeros above which dense weights are taken for pruned ones: training leaves next to none.
const PRUNED: f64 = 0.05;

/// What was done to a network to make it smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Technique {
    /// Nothing: the network as trained.
    Plain,
    /// Single weights, or small blocks of them, were set to zero.
    WeightPruning,
    /// Whole channels were removed.
    ChannelPruning,
    /// Weights of three values a row.
    Ternary,
    /// Weights of 8 bits.
    Int8,
    /// Weights of 4 bits.
    Int4,
    /// Channels were removed, and the weights of the others compressed besides.
    Combined,
}

impl Technique {
    /// All of them, in the order of every figure and table.
    pub const ALL: [Self; 7] =
        [Self::Plain, Self::WeightPruning, Self::ChannelPruning, Self::Ternary, Self::Int8, Self::Int4, Self::Combined];

    /// The word for it in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::WeightPruning => "weight-pruning",
            Self::ChannelPruning => "channel-pruning",
            Self::Ternary => "ternary",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Combined => "combined",
        }
    }

    /// The words for it in figures.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::WeightPruning => "weight pruning",
            Self::ChannelPruning => "channel pruning",
            Self::Ternary => "ternary",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Combined => "combined",
        }
    }

    /// Its place in [`ALL`](Self::ALL): its colour and shape in every figure.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The technique of a record, by what ran: the formats of its kernels tell all but the pruning of
    /// channels, which leaves dense weights behind and fewer multiply-accumulates than the zoo's network has. Where
    /// several apply to weights, the one that stores the fewest bits a weight counts. A recipe whose weights were made
    /// dense again is told by its name and its zeros.
    pub fn of(record: &Record) -> Self {
        let of_weights = Self::of_weights(record);
        match of_weights {
            Self::Plain | Self::ChannelPruning => of_weights,
            _ if lacks_channels(record) => Self::Combined,
            _ => of_weights,
        }
    }

    /// As [`of`](Self::of), channels that are gone left out of account where weights were compressed.
    fn of_weights(record: &Record) -> Self {
        let kernels = record.layers.iter().filter_map(|layer| layer.kernel.split('/').nth(2));
        let formats = || kernels.clone().chain([record.point.format.as_str()]);
        let ran = |names: &[&str]| formats().any(|format| names.iter().any(|name| format.starts_with(name)));
        if ran(&["ternary"]) {
            return Self::Ternary;
        }
        if ran(&["int4"]) {
            return Self::Int4;
        }
        if ran(&["int8"]) {
            return Self::Int8;
        }
        if ran(&["csr", "bsr", "two-four", "filter-csr"]) {
            return Self::WeightPruning;
        }
        let recipe = record.point.recipe.as_str();
        if recipe == NO_RECIPE {
            return Self::Plain;
        }
        let named = |words: &[&str]| words.iter().any(|word| recipe.to_ascii_lowercase().contains(word));
        match () {
            () if named(&["ternary", "ttq"]) => Self::Ternary,
            () if named(&["int4"]) => Self::Int4,
            () if named(&["int8", "quantise"]) => Self::Int8,
            () if record.compression.sparsity > PRUNED => Self::WeightPruning,
            () => Self::ChannelPruning,
        }
    }
}

/// Whether the network has fewer multiply-accumulates than that of the zoo.
fn lacks_channels(record: &Record) -> bool {
    static MACS: LazyLock<BTreeMap<&str, u64>> =
        LazyLock::new(|| dlis_model::zoo::ENTRIES.iter().map(|entry| (entry.name, entry.graph().macs())).collect());
    MACS.get(record.point.network.as_str()).is_some_and(|&macs| record.compression.macs < macs)
}

impl fmt::Display for Technique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.title())
    }
}
