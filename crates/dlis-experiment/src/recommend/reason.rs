//! Recommendations in words.

use std::collections::BTreeSet;

use super::{Constraints, Limit, tie};
use crate::{Record, StackLayer, quantity};

fn factor(record: &Record, than: &Record) -> f64 {
    record.latency.median_ns / than.latency.median_ns
}

fn figures(record: &Record) -> String {
    let show = |limit: Limit| limit.show(limit.of(record));
    format!(
        "{} per inference, {} top-1, {} of memory",
        show(Limit::Latency),
        show(Limit::Accuracy),
        show(Limit::Memory)
    )
}

pub(super) fn chosen(chosen: &Record, kept: &[&Record], considered: usize) -> String {
    let of = match kept.len() {
        1 => format!("the only one of {considered} points that keeps every constraint"),
        n if n == considered => format!("the fastest of {n} points, all of which keep every constraint"),
        n => format!("the fastest of the {n} points (of {considered}) that keep every constraint"),
    };
    let ties: Vec<&&Record> = kept.iter().skip(1).filter(|other| tie(chosen, other)).collect();
    let next = match (ties.len(), kept.get(1)) {
        (0, Some(next)) => format!(" The next best takes {:.2} times as long.", factor(next, chosen)),
        (0, None) => String::new(),
        (1, _) => " One more is as fast within the error of measurement, and takes no less memory.".to_owned(),
        (n, _) => format!(" {n} more are as fast within the error of measurement, and take no less memory."),
    };
    format!("{}: {of}.{next}", figures(chosen))
}

/// How a point that keeps every constraint compares with the chosen one.
pub(super) fn comparison(record: &Record, chosen: &Record) -> String {
    let ratio = factor(record, chosen);
    let speed = if tie(chosen, record) || ratio < 1.0 {
        "as fast within the error of measurement".to_owned()
    } else {
        format!("takes {ratio:.2} times as long")
    };
    let memory = relation(Limit::Memory, record, chosen);
    let accuracy = relation(Limit::Accuracy, record, chosen);
    let noisy = record.latency.noisy.then(|| "its latency is noisy".to_owned());
    [Some(speed), memory, accuracy, noisy].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn relation(limit: Limit, record: &Record, chosen: &Record) -> Option<String> {
    let (own, other) = (limit.of(record), limit.of(chosen));
    let subject = limit.subject();
    (own != other).then(|| format!("{} {subject}, {}", if own > other { "more" } else { "less" }, limit.show(own)))
}

/// Which constraints would have to give way for `record`, and how far.
pub(super) fn needs(constraints: &Constraints, record: &Record) -> String {
    let misses = constraints.misses(record);
    let parts = misses.iter().filter_map(|miss| {
        let (value, bound) = (miss.limit.of(record), constraints.bound(miss.limit)?);
        let by = match miss.limit {
            Limit::Accuracy => format!("{:.2} points", (bound - value) * 100.0),
            _ => format!("{:.0} %", (value / bound - 1.0).abs() * 100.0),
        };
        let side = if matches!(miss.limit, Limit::Accuracy | Limit::Throughput) { "below" } else { "above" };
        let (value, bound) = (miss.limit.show(value), miss.limit.show(bound));
        Some(format!("{value} of {} is {by} {side} the limit of {bound}", miss.limit.subject()))
    });
    let mut text = parts.collect::<Vec<_>>().join("; ");
    if record.latency.noisy {
        text += "; its latency is noisy";
    }
    text
}

/// Why there is no answer.
pub(super) fn none(all: &[&Record], considered: &[&Record], constraints: &Constraints) -> String {
    if all.is_empty() {
        return "There are no records yet: run an experiment first.".to_owned();
    }
    if considered.is_empty() {
        return filtered_out(all, constraints);
    }
    let n = considered.len();
    // A limit that alone stands in the way: without it some point would do.
    let alone: Vec<String> = constraints
        .limits()
        .filter_map(|limit| {
            let would_do = considered.iter().filter(|record| {
                let misses = constraints.misses(record);
                misses.len() == 1 && misses[0].limit == limit
            });
            let values: Vec<f64> = would_do.map(|record| limit.of(record)).collect();
            let best = if matches!(limit, Limit::Accuracy | Limit::Throughput) {
                values.iter().copied().reduce(f64::max)
            } else {
                values.iter().copied().reduce(f64::min)
            }?;
            let s = if values.len() == 1 { "" } else { "s" };
            Some(format!(
                "without --{} {} point{s} would do, the nearest at {}",
                limit.flag(),
                values.len(),
                limit.show(best)
            ))
        })
        .collect();
    if !alone.is_empty() {
        return format!("None of {n} points keeps every constraint: {}.", alone.join("; "));
    }
    let hardest = constraints
        .limits()
        .map(|limit| (limit, considered.iter().filter(|record| !constraints.keeps(limit, record)).count()))
        .max_by_key(|(limit, count)| (*count, std::cmp::Reverse(*limit)));
    let hardest = hardest
        .map_or_else(String::new, |(limit, count)| format!(" --{} rejects the most, {count} of {n}.", limit.flag()));
    format!("None of {n} points keeps every constraint, and giving up any single one would not do.{hardest}")
}

fn filtered_out(all: &[&Record], constraints: &Constraints) -> String {
    let unknown = constraints.only.iter().find_map(|(layer, choices)| {
        let known: BTreeSet<String> = all.iter().map(|record| layer.value(&record.point)).collect();
        let missing: Vec<&str> = choices.iter().filter(|c| !known.contains(*c)).map(String::as_str).collect();
        let none_known = !choices.is_empty() && missing.len() == choices.len();
        none_known.then(|| {
            let known: Vec<String> = known.into_iter().collect();
            format!(" No record has {layer} {}; there are {}.", missing.join(" or "), known.join(", "))
        })
    });
    format!(
        "No record passes the filters, of {} in the store.{}",
        all.len(),
        unknown.unwrap_or_else(|| " Each filter has records of its own, but none passes all.".to_owned())
    )
}

pub(super) fn cautions(chosen: &Record, considered: &[&Record], constraints: &Constraints) -> Vec<String> {
    let mut cautions = Vec::new();
    if chosen.latency.noisy {
        let why = chosen.latency.noise.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        cautions.push(format!("its latency is noisy{why}: measure it again on a quiet machine"));
    }
    if let Some(bound) = constraints.max_latency_ns.filter(|bound| chosen.latency.p90_ns > *bound) {
        let (bound, p90) = (quantity::time(bound), quantity::time(chosen.latency.p90_ns));
        cautions.push(format!("the limit of {bound} holds for the median; one inference in ten takes {p90} or more"));
    }
    if let Some(bound) = constraints.min_accuracy {
        let interval = chosen.accuracy.top1_interval();
        if interval.low < bound {
            let (low, high) = (quantity::share(interval.low), quantity::share(interval.high));
            cautions.push(format!(
                "its accuracy was measured on {} images of `{}`, which leaves {low} to {high} (95 % confidence)",
                chosen.accuracy.images, chosen.accuracy.dataset
            ));
        }
    }
    let images: BTreeSet<(&str, u64)> =
        considered.iter().map(|r| (r.accuracy.dataset.as_str(), r.accuracy.images)).collect();
    if images.len() > 1 {
        cautions.push("the accuracies of the points were measured on different sets of images".to_owned());
    }
    let machines: BTreeSet<String> = considered.iter().map(|r| StackLayer::Hw.value(&r.point)).collect();
    if machines.len() > 1 {
        cautions.push(format!("the points were measured on {} machines; choose one by its `hw`", machines.len()));
    }
    cautions
}
