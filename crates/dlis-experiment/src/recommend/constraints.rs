//! Constraints, and by how much a record misses them.

use std::collections::BTreeMap;

use crate::{Record, StackLayer, StackPoint, quantity};

/// What a point has to keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constraints {
    /// Top-1 accuracy at least, 0 to 1.
    pub min_accuracy: Option<f64>,
    /// Median latency at most.
    pub max_latency_ns: Option<f64>,
    /// Weights, activations and scratch at most ([`Memory::resident_bytes`](crate::Memory::resident_bytes)).
    pub max_memory_bytes: Option<u64>,
    /// Throughput at least.
    pub min_throughput_images_per_s: Option<f64>,
    /// The artefact on disk at most.
    pub max_disk_bytes: Option<u64>,
    /// On these layers, only these choices, as in [`StackLayer::value`]. A layer that isn't there, or with
    /// no choices, is free.
    pub only: BTreeMap<StackLayer, Vec<String>>,
}

/// One of the numeric constraints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// `min_accuracy`
    Accuracy,
    /// `max_latency_ns`
    Latency,
    /// `max_memory_bytes`
    Memory,
    /// `min_throughput_images_per_s`
    Throughput,
    /// `max_disk_bytes`
    Disk,
}

/// A limit a record misses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Miss {
    pub(super) limit: Limit,
    /// By which part of the limit, above 0; see [`Limit::distance`].
    pub(super) by: f64,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Accuracy, Self::Latency, Self::Memory, Self::Throughput, Self::Disk];

    /// The flag that sets it, without the dashes in front.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Accuracy => "min-accuracy",
            Self::Latency => "max-latency",
            Self::Memory => "max-memory",
            Self::Throughput => "min-throughput",
            Self::Disk => "max-disk",
        }
    }

    /// What it limits, in a word.
    pub const fn subject(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Latency => "latency",
            Self::Memory => "memory",
            Self::Throughput => "throughput",
            Self::Disk => "disk",
        }
    }

    /// The number it limits.
    #[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^53, or as good as infinite")]
    pub fn of(self, record: &Record) -> f64 {
        match self {
            Self::Accuracy => record.accuracy.top1,
            Self::Latency => record.latency.median_ns,
            Self::Memory => record.memory.resident_bytes() as f64,
            Self::Throughput => record.throughput_images_per_s,
            Self::Disk => record.memory.disk_bytes as f64,
        }
    }

    /// Such a number as text: `93.5 %`, `20.3 ms`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes come from u64")]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Accuracy => quantity::share(value).to_string(),
            Self::Latency => quantity::time(value).to_string(),
            Self::Memory | Self::Disk => quantity::bytes(value as u64).to_string(),
            Self::Throughput => format!("{value:.1} images/s"),
        }
    }

    /// How far `value` is from `bound`, as part of the bound; not above 0 if it keeps it. Accuracy is
    /// compared by its errors: to 93 %, 92 % has 8/7 of the errors, and is off by 1/7.
    fn distance(self, value: f64, bound: f64) -> f64 {
        const SMALL: f64 = 1e-9;
        match self {
            Self::Accuracy => (bound - value) / (1.0 - bound).max(SMALL),
            Self::Throughput => bound / value.max(SMALL) - 1.0,
            Self::Latency | Self::Memory | Self::Disk => (value - bound) / bound.max(SMALL),
        }
    }
}

impl Constraints {
    /// The bound of a limit that is set.
    #[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^53, or as good as infinite")]
    pub fn bound(&self, limit: Limit) -> Option<f64> {
        match limit {
            Limit::Accuracy => self.min_accuracy,
            Limit::Latency => self.max_latency_ns,
            Limit::Memory => self.max_memory_bytes.map(|bytes| bytes as f64),
            Limit::Throughput => self.min_throughput_images_per_s,
            Limit::Disk => self.max_disk_bytes.map(|bytes| bytes as f64),
        }
    }

    /// The limits that are set.
    pub fn limits(&self) -> impl Iterator<Item = Limit> {
        Limit::ALL.into_iter().filter(|limit| self.bound(*limit).is_some())
    }

    /// Whether a record keeps one limit.
    pub fn keeps(&self, limit: Limit, record: &Record) -> bool {
        self.bound(limit).is_none_or(|bound| limit.distance(limit.of(record), bound) <= 0.0)
    }

    /// Whether the filters let a point pass.
    pub fn admits(&self, point: &StackPoint) -> bool {
        self.only.iter().all(|(layer, choices)| choices.is_empty() || choices.contains(&layer.value(point)))
    }

    /// These, and where a limit or filter is not set, that of `other`: the command line over the file.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let mut only = other.only.clone();
        only.extend(self.only);
        Self {
            min_accuracy: self.min_accuracy.or(other.min_accuracy),
            max_latency_ns: self.max_latency_ns.or(other.max_latency_ns),
            max_memory_bytes: self.max_memory_bytes.or(other.max_memory_bytes),
            min_throughput_images_per_s: self.min_throughput_images_per_s.or(other.min_throughput_images_per_s),
            max_disk_bytes: self.max_disk_bytes.or(other.max_disk_bytes),
            only,
        }
    }

    pub(super) fn misses(&self, record: &Record) -> Vec<Miss> {
        let miss = |limit: Limit| {
            let by = limit.distance(limit.of(record), self.bound(limit)?);
            (by > 0.0).then_some(Miss { limit, by })
        };
        Limit::ALL.into_iter().filter_map(miss).collect()
    }
}
