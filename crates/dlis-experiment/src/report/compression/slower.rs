//! Why a compressed network is no faster than the dense one, in words.

use std::collections::BTreeMap;

use super::choose::{dense_of, is_compressed};
use crate::{LayerProfile, Record, Technique, quantity};

/// Share of the loss that the layers named make up at least.
const NAMED_SHARE: f64 = 0.75;
/// Loss, as a share of the dense network's time, below which no layer is blamed.
const WORTH_NAMING: f64 = 0.02;

/// A sentence for every compressed point that is not faster than the fastest dense one of the same network,
/// backend, threads, batch and machine: by how much, in which layers the time is lost, and why. A point is
/// faster only if the intervals of the two medians are apart. Points without a dense counterpart are not
/// judged.
pub fn slower_points(records: &[Record]) -> Vec<String> {
    let pairs = records.iter().filter(|record| is_compressed(record));
    let pairs = pairs.filter_map(|record| Some((record, dense_of(record, records)?)));
    let not_faster = pairs.filter(|(record, dense)| record.latency.ci_high_ns >= dense.latency.ci_low_ns);
    not_faster.map(|(record, dense)| sentence(record, dense)).collect()
}

fn sentence(record: &Record, dense: &Record) -> String {
    let (own, other) = (&record.latency, &dense.latency);
    let times = format!("{} against {}", quantity::time(own.median_ns), quantity::time(other.median_ns));
    let verdict = if own.ci_low_ns > other.ci_high_ns {
        format!("{:.2}x slower than dense ({times})", own.median_ns / other.median_ns)
    } else {
        format!("as fast as dense within the error of measurement ({times})")
    };
    format!("{}: {verdict}; {}.", name(record), blame(record, dense))
}

/// What distinguishes the point: `ternary on mobilenet-cifar10 (ttq, ternary-2bit; measured, omp, 1 thread)`.
fn name(record: &Record) -> String {
    let point = &record.point;
    let s = if point.threads == 1 { "" } else { "s" };
    let batch = if point.batch == 1 { String::new() } else { format!(", batch {}", point.batch) };
    format!(
        "{} on {} ({}, {}; {}, {}, {} thread{s}{batch})",
        Technique::of(record).title(),
        point.network,
        point.recipe,
        point.format,
        point.algorithm,
        point.backend,
        point.threads,
    )
}

/// All steps of one layer together.
#[derive(Clone, Debug, Default)]
struct Work<'a> {
    ns: f64,
    macs: f64,
    bytes: f64,
    /// The kernel of its longest step, and that step's time.
    kernel: &'a str,
    longest_ns: f64,
    order: usize,
}

impl<'a> Work<'a> {
    fn add(&mut self, step: &'a LayerProfile) {
        self.ns += step.median_ns;
        self.macs += step.macs as f64;
        self.bytes += step.bytes as f64;
        if self.kernel.is_empty() || step.median_ns > self.longest_ns {
            (self.kernel, self.longest_ns) = (&step.kernel, step.median_ns);
        }
    }

    fn format(&self) -> &'a str {
        self.kernel.split('/').nth(2).unwrap_or("")
    }
}

fn layers(record: &Record) -> BTreeMap<&str, Work<'_>> {
    let mut layers: BTreeMap<&str, Work<'_>> = BTreeMap::new();
    for (order, step) in record.layers.iter().enumerate() {
        layers.entry(&step.layer).or_insert_with(|| Work { order, ..Work::default() }).add(step);
    }
    layers
}

/// A layer that takes longer than in the dense network.
struct Loss<'a> {
    name: &'a str,
    ns: f64,
    own: Work<'a>,
    /// `None` for a step that the dense network does not have.
    dense: Option<Work<'a>>,
}

/// Where the time is lost, and why.
fn blame(record: &Record, dense: &Record) -> String {
    if record.layers.is_empty() || dense.layers.is_empty() {
        return "the records have no profile of layers, so where it loses is not known".to_owned();
    }
    let (own, other) = (layers(record), layers(dense));
    let mut losses: Vec<Loss<'_>> = own
        .iter()
        .map(|(&name, own)| {
            let dense = other.get(name).cloned();
            Loss { name, ns: own.ns - dense.as_ref().map_or(0.0, |dense| dense.ns), own: own.clone(), dense }
        })
        .filter(|loss| loss.ns > 0.0)
        .collect();
    let total: f64 = losses.iter().map(|loss| loss.ns).sum();
    if total < WORTH_NAMING * dense.latency.median_ns {
        return "in the profiles no layer loses time, so the difference is that of two measurements".to_owned();
    }
    losses.sort_by(|a, b| b.ns.total_cmp(&a.ns));
    let mut named = 0.0;
    let mut count = 0;
    for loss in &losses {
        if named >= NAMED_SHARE * total {
            break;
        }
        named += loss.ns;
        count += 1;
    }
    losses.truncate(count);
    losses.sort_by_key(|loss| loss.own.order);
    let percent = 100.0 * named / total;
    format!("{percent:.0} % of the loss is in {}, {}", names(&losses, &own), reason(&losses, record, dense))
}

/// The layers' names; neighbours as `first .. last`.
fn names(losses: &[Loss<'_>], all: &BTreeMap<&str, Work<'_>>) -> String {
    // Pooling, additions and the like stand between layers that are neighbours to a reader.
    let mut weighty: Vec<(usize, &str)> =
        all.iter().filter(|(_, work)| work.macs > 0.0).map(|(name, work)| (work.order, *name)).collect();
    weighty.sort_unstable();
    let place = |name: &str| weighty.iter().position(|(_, other)| *other == name);
    let mut runs: Vec<(&str, &str, usize)> = Vec::new();
    let mut last_place = None;
    for loss in losses {
        let here = place(loss.name);
        match runs.last_mut() {
            Some(run) if here.is_some() && last_place == here.and_then(|at| at.checked_sub(1)) => {
                (run.1, run.2) = (loss.name, run.2 + 1);
            }
            _ => runs.push((loss.name, loss.name, 1)),
        }
        last_place = here;
    }
    let runs = runs.into_iter().flat_map(|(first, last, count)| match count {
        1 => vec![first.to_owned()],
        2 => vec![first.to_owned(), last.to_owned()],
        _ => vec![format!("{first} .. {last}")],
    });
    let runs: Vec<String> = runs.collect();
    match runs.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [.., last] => format!("{} and {last}", runs[..runs.len() - 1].join(", ")),
    }
}

/// What kind of kernel loses most of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Steps that the dense network does not have.
    Extra,
    /// Indices of non-zeros.
    Sparse,
    /// Values that are unpacked.
    Packed,
    /// A dense kernel.
    Dense,
}

fn kind(loss: &Loss<'_>) -> Kind {
    let format = loss.own.format();
    let is = |names: &[&str]| names.iter().any(|name| format.starts_with(name));
    match loss.dense {
        None => Kind::Extra,
        Some(_) if is(&["csr", "bsr", "two-four", "filter-csr"]) => Kind::Sparse,
        Some(_) if is(&["ternary", "int", "dense-f16", "scaled-f16"]) => Kind::Packed,
        Some(_) => Kind::Dense,
    }
}

/// Why these layers lose: that of the kind of kernel that loses most.
fn reason(losses: &[Loss<'_>], record: &Record, dense: &Record) -> String {
    let mut by_kind: BTreeMap<Kind, f64> = BTreeMap::new();
    for loss in losses {
        *by_kind.entry(kind(loss)).or_default() += loss.ns;
    }
    let Some((&main, _)) = by_kind.iter().max_by(|a, b| a.1.total_cmp(b.1)) else {
        return "for no reason that the profiles show".to_owned();
    };
    let of_kind: Vec<&Loss<'_>> = losses.iter().filter(|loss| kind(loss) == main).collect();
    let longest = of_kind.iter().max_by(|a, b| a.ns.total_cmp(&b.ns));
    let kernel = longest.map_or("", |loss| loss.own.kernel);
    let own_ns: f64 = of_kind.iter().map(|loss| loss.own.ns).sum();
    if main == Kind::Extra {
        let time = quantity::time(own_ns);
        return format!("which dense does not have (`{kernel}`, {time} in all): conversions cost more than they save");
    }
    let sums = Sums::of(&of_kind);
    let bound = Bound::of(&sums, dense);
    let share = |bound: &Bound| format!("{} of {}", quantity::time(bound.least_ns()), quantity::time(sums.dense_ns));
    match (main, bound) {
        (Kind::Dense, _) if sums.macs < 0.98 * sums.dense_macs => format!(
            "which do {:.0} % of the multiplications at {:.1} instead of {:.1} GFLOP/s by `{kernel}`: what is left is too \
             small to be done as efficiently",
            100.0 * sums.macs / sums.dense_macs,
            2.0 * sums.macs / sums.ns,
            2.0 * sums.dense_macs / sums.dense_ns,
        ),
        (Kind::Dense, _) => {
            let other = longest.and_then(|loss| loss.dense.as_ref()).map_or("", |dense| dense.kernel);
            if other == kernel {
                format!("which run by the same kernel, `{kernel}`: nothing in them was compressed")
            } else {
                format!("which run by `{kernel}` where dense has `{other}`")
            }
        }
        (_, None) => format!(
            "by `{kernel}`; the machine's peaks are not known, so whether arithmetic or memory binds these layers is \
             not either"
        ),
        (Kind::Sparse, Some(bound)) => format!(
            "where finding the non-zeros costs `{kernel}` more than the work it skips: dense is bound by {} there and \
             is near it (roofline {})",
            bound.word(),
            share(&bound),
        ),
        (_, Some(bound)) if bound.arithmetic_ns >= bound.memory_ns => format!(
            "whose decoding by `{kernel}` costs more than the weight traffic it saves: these layers are bound by \
             arithmetic (roofline {})",
            share(&bound),
        ),
        (_, Some(_)) => format!(
            "which move {} instead of {} but are unpacked too slowly by `{kernel}` to profit: memory alone would take {}",
            size(sums.bytes),
            size(sums.dense_bytes),
            record.predicted.bandwidth_bytes_per_s.filter(|rate| *rate > 0.0).map_or_else(
                || "an unknown time".to_owned(),
                |rate| quantity::time(sums.bytes * 1e9 / rate).to_string()
            ),
        ),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of sizes, shown with three digits")]
fn size(bytes: f64) -> String {
    quantity::bytes(bytes.max(0.0) as u64).to_string()
}

/// Both networks' figures over some layers.
#[derive(Debug, Default)]
struct Sums {
    ns: f64,
    macs: f64,
    bytes: f64,
    dense_ns: f64,
    dense_macs: f64,
    dense_bytes: f64,
}

impl Sums {
    fn of(losses: &[&Loss<'_>]) -> Self {
        let mut sums = Self::default();
        for loss in losses {
            sums.ns += loss.own.ns;
            sums.macs += loss.own.macs;
            sums.bytes += loss.own.bytes;
            if let Some(dense) = &loss.dense {
                sums.dense_ns += dense.ns;
                sums.dense_macs += dense.macs;
                sums.dense_bytes += dense.bytes;
            }
        }
        sums
    }
}

/// What the dense network's layers take at least.
#[derive(Debug)]
struct Bound {
    arithmetic_ns: f64,
    memory_ns: f64,
}

impl Bound {
    /// `None` where the machine's peaks are not known.
    fn of(sums: &Sums, dense: &Record) -> Option<Self> {
        let flops = dense.predicted.peak_flops_per_s.filter(|rate| *rate > 0.0)?;
        let bandwidth = dense.predicted.bandwidth_bytes_per_s.filter(|rate| *rate > 0.0)?;
        Some(Self { arithmetic_ns: 2e9 * sums.dense_macs / flops, memory_ns: 1e9 * sums.dense_bytes / bandwidth })
    }

    fn least_ns(&self) -> f64 {
        self.arithmetic_ns.max(self.memory_ns)
    }

    fn word(&self) -> &'static str {
        if self.arithmetic_ns >= self.memory_ns { "arithmetic" } else { "memory" }
    }
}
