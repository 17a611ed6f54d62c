//! What we measured, from curves and records alike.

use std::collections::HashSet;

use super::{CurvePoint, f32_bytes, sparsity};
use crate::{Record, Technique};

/// Our measurements.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ours<'a> {
    /// Curve points, kept or read.
    pub curves: &'a [CurvePoint],
    /// Records of experiments.
    pub records: &'a [Record],
}

/// One compressed network of ours, timed or not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) technique: Technique,
    /// As [`CurvePoint::level`]; `None` where a record does not tell.
    pub(super) level: Option<f64>,
    pub(super) accuracy: f64,
    pub(super) images: u64,
    pub(super) disk_bytes: u64,
    pub(super) weight_bytes: u64,
    pub(super) sparsity: Option<f64>,
    pub(super) recipe: String,
}

impl Point {
    /// 1 - bytes on disk / bytes of all parameters of `network` as f32.
    pub(super) fn compression_rate(&self, network: &str) -> Option<f64> {
        f32_bytes(network).map(|whole| 1.0 - self.disk_bytes as f64 / whole as f64)
    }
}

impl Ours<'_> {
    /// The points of a network. A recipe that has a curve point is not taken from the records as well, which
    /// may have classified fewer images.
    pub(super) fn points(&self, network: &str) -> Vec<Point> {
        let curves = self.curves.iter().filter(|point| point.network == network);
        let mut points: Vec<Point> = curves
            .map(|point| Point {
                technique: point.technique,
                level: Some(point.level),
                accuracy: point.accuracy,
                images: point.images,
                disk_bytes: point.disk_bytes,
                weight_bytes: point.weight_bytes,
                sparsity: Some(point.sparsity),
                recipe: point.recipe.clone(),
            })
            .collect();
        let mut known: HashSet<(String, Technique)> =
            points.iter().map(|point| (point.recipe.clone(), point.technique)).collect();
        for record in self.records.iter().filter(|record| record.point.network == network) {
            let technique = Technique::of(record);
            if technique == Technique::Plain && record.point.format == "dense-f16" {
                continue;
            }
            // Points of one recipe and format differ in how they ran, not in what they are.
            if known.insert((record.point.recipe.clone(), technique)) {
                points.push(point_of(record, technique));
            }
        }
        points
    }
}

fn point_of(record: &Record, technique: Technique) -> Point {
    let sparsity = sparsity(record);
    let level = match technique {
        Technique::Plain => Some(0.0),
        Technique::WeightPruning => sparsity,
        Technique::Int8 => Some(8.0),
        Technique::Int4 => Some(4.0),
        Technique::ChannelPruning | Technique::Combined => dlis_model::zoo::graph(&record.point.network)
            .ok()
            .map(|graph| record.compression.macs as f64 / graph.macs().max(1) as f64),
        Technique::Ternary => None,
    };
    Point {
        technique,
        level,
        accuracy: record.accuracy.top1,
        images: record.accuracy.images,
        disk_bytes: record.memory.disk_bytes,
        weight_bytes: record.memory.weight_bytes,
        sparsity,
        recipe: record.point.recipe.clone(),
    }
}
