//! The figures and the table on compression.

use super::{choose, networks, thread_counts};
use crate::chart::{Bar, Content, Figure, Group, Kind, Panel, Series};
use crate::page::TextTable;
use crate::paper::{f32_bytes, sparsity};
use crate::{Record, Technique, quantity};

/// What an accurate record may lose against the plain network.
const TOLERANCE: f64 = 0.01;

/// The figures, with the names of their files.
pub(super) fn figures(records: &[Record]) -> Vec<(&'static str, Figure)> {
    let mut figures = Vec::new();
    let x = (Kind::Share, "weights that are zero or gone");
    figures.push(("compression-sparsity.svg", accuracy("Accuracy × sparsity", records, x, &sparsity)));
    let x = (Kind::Share, "compression rate on disk");
    let rate = |record: &Record| compression_rate(record, records);
    figures.push(("compression-disk.svg", accuracy("Accuracy × compression rate", records, x, &rate)));
    let least = thread_counts(records).first().copied().unwrap_or(1);
    let time = |record: &Record| {
        (record.point.threads == least && record.point.batch == 1).then_some(record.latency.median_ns)
    };
    let s = if least == 1 { "" } else { "s" };
    let title = format!("Accuracy × latency, {least} thread{s}");
    figures.push(("compression-latency.svg", accuracy(&title, records, (Kind::Time, "latency, median"), &time)));
    let latency = |record: &Record| record.latency.median_ns;
    let memory = |record: &Record| record.memory.resident_bytes() as f64;
    let title = "Latency by technique and threads";
    figures.push(("compression-threads.svg", bars(title, records, (Kind::Time, "latency, median"), &latency)));
    let title = "Memory by technique and threads";
    figures.push(("compression-memory.svg", bars(title, records, (Kind::Size, "memory, resident"), &memory)));
    figures
}

/// 1 - bytes on disk / bytes of the dense network as f32; of the dense record's weights, where the network is
/// not of the zoo.
fn compression_rate(record: &Record, records: &[Record]) -> Option<f64> {
    let plain = || {
        let mut plain =
            records.iter().filter(|other| other.point.network == record.point.network && !super::is_compressed(other));
        plain.next().map(|plain| plain.memory.weight_bytes)
    };
    let whole = f32_bytes(&record.point.network).or_else(plain).filter(|bytes| *bytes > 0)?;
    Some(1.0 - record.memory.disk_bytes as f64 / whole as f64)
}

/// Accuracy against something, a panel a network, a series a technique.
fn accuracy(title: &str, records: &[Record], x: (Kind, &'static str), of: &dyn Fn(&Record) -> Option<f64>) -> Figure {
    let panel = |network: &str| {
        let mut missing = 0_usize;
        let series = Technique::ALL.map(|technique| {
            let mut points = Vec::new();
            for record in records.iter().filter(|r| r.point.network == network && Technique::of(r) == technique) {
                match of(record) {
                    Some(x) => points.push([x, record.accuracy.top1]),
                    None => missing += 1,
                }
            }
            points.sort_by(|a, b| a[0].total_cmp(&b[0]));
            points.dedup();
            let index = technique.index();
            Series {
                name: technique.title().to_owned(),
                colour: index,
                shape: index,
                quoted: false,
                joined: false,
                points,
            }
        });
        let notes = if missing > 0 { vec![format!("{missing} records are not of this axis")] } else { Vec::new() };
        let y = (Kind::Share, "top-1 accuracy");
        Panel { title: network.to_owned(), notes, content: Content::Lines { x, y, series: series.into(), rule: None } }
    };
    let panels = networks(records).into_iter().map(panel).collect();
    Figure { title: title.to_owned(), columns: 3, panels }
}

/// The least accuracy that is as good as the plain network's.
fn least_accuracy(records: &[Record], network: &str) -> f64 {
    let plain = records.iter().filter(|r| r.point.network == network && Technique::of(r) == Technique::Plain);
    plain.map(|record| record.accuracy.top1).reduce(f64::max).map_or(0.0, |best| best - TOLERANCE)
}

/// A panel a network, a group a technique, a bar a thread count.
fn bars(title: &str, records: &[Record], y: (Kind, &'static str), of: &dyn Fn(&Record) -> f64) -> Figure {
    let threads = thread_counts(records);
    let panel = |network: &str| {
        let least = least_accuracy(records, network);
        let group = |technique: Technique| {
            let bar = |(colour, &threads): (usize, &usize)| Bar {
                name: format!("{threads} thread{}", if threads == 1 { "" } else { "s" }),
                colour,
                value: choose(records, network, technique, threads, least).map(of),
            };
            let words = technique.title().split(' ').next().unwrap_or_default();
            Group { name: words.to_owned(), bars: threads.iter().enumerate().map(bar).collect() }
        };
        let present =
            Technique::ALL.into_iter().filter(|technique| records.iter().any(|r| Technique::of(r) == *technique));
        Panel {
            title: network.to_owned(),
            notes: Vec::new(),
            content: Content::Bars { y, groups: present.map(group).collect() },
        }
    };
    let panels = networks(records).into_iter().map(panel).collect();
    Figure { title: title.to_owned(), columns: 3, panels }
}

/// The records that the bars show.
pub(super) fn chosen_table(records: &[Record]) -> TextTable {
    let columns = [
        "network",
        "technique",
        "threads",
        "recipe",
        "format",
        "algorithm",
        "backend",
        "top-1",
        "latency",
        "memory",
        "disk",
    ];
    let mut rows = Vec::new();
    for network in networks(records) {
        let least = least_accuracy(records, network);
        for technique in Technique::ALL {
            for threads in thread_counts(records) {
                let Some(record) = choose(records, network, technique, threads, least) else { continue };
                let point = &record.point;
                rows.push(vec![
                    network.to_owned(),
                    technique.title().to_owned(),
                    threads.to_string(),
                    point.recipe.clone(),
                    point.format.clone(),
                    point.algorithm.to_string(),
                    point.backend.clone(),
                    quantity::share(record.accuracy.top1).to_string(),
                    quantity::time(record.latency.median_ns).to_string(),
                    quantity::bytes(record.memory.resident_bytes()).to_string(),
                    quantity::bytes(record.memory.disk_bytes).to_string(),
                ]);
            }
        }
    }
    TextTable {
        title: "The fastest of each technique".to_owned(),
        columns: columns.map(str::to_owned).into(),
        rows,
        notes: Vec::new(),
    }
}
