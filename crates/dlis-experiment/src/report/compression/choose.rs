//! The record that stands for a technique.

use crate::{Record, Technique};

/// The networks of records, in the order of the alphabet.
pub(crate) fn networks(records: &[Record]) -> Vec<&str> {
    let mut networks: Vec<&str> = records.iter().map(|record| record.point.network.as_str()).collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// The thread counts of the records of single images, ascending.
pub(crate) fn thread_counts(records: &[Record]) -> Vec<usize> {
    let mut threads: Vec<usize> =
        records.iter().filter(|record| record.point.batch == 1).map(|record| record.point.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    threads
}

/// The fastest record of single images of a technique that is at least this accurate; where none is, the most
/// accurate one, and of these the fastest.
pub(crate) fn choose<'a>(
    records: &'a [Record],
    network: &str,
    technique: Technique,
    threads: usize,
    least_accuracy: f64,
) -> Option<&'a Record> {
    let of = |record: &&Record| {
        let point = &record.point;
        point.network == network && point.threads == threads && point.batch == 1 && Technique::of(record) == technique
    };
    let fastest = |least: f64| {
        let enough = records.iter().filter(of).filter(move |record| record.accuracy.top1 >= least);
        enough.min_by(|a, b| a.latency.median_ns.total_cmp(&b.latency.median_ns))
    };
    fastest(least_accuracy).or_else(|| {
        let best = records.iter().filter(of).map(|record| record.accuracy.top1).reduce(f64::max)?;
        fastest(best)
    })
}

/// The fastest record of the network as it was trained, on the same system, and on the same machine.
pub(crate) fn dense_of<'a>(record: &Record, records: &'a [Record]) -> Option<&'a Record> {
    let point = &record.point;
    let counterpart = |other: &&Record| {
        let p = &other.point;
        !is_compressed(other)
            && p.network == point.network
            && p.backend == point.backend
            && p.threads == point.threads
            && p.batch == point.batch
            && p.hw == point.hw
    };
    let counterparts = records.iter().filter(counterpart);
    counterparts.min_by(|a, b| a.latency.median_ns.total_cmp(&b.latency.median_ns))
}

/// Whether anything was done to the network's weights.
pub(crate) fn is_compressed(record: &Record) -> bool {
    let point = &record.point;
    point.recipe != crate::catalogue::NO_RECIPE
        || Technique::of(record) != Technique::Plain
        || point.format == "dense-f16"
}
