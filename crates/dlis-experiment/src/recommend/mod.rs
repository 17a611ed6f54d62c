//! Which stack point to deploy under given constraints.
//!
//! The objective: of the points that keep every constraint, the one with the lowest median latency. Points
//! whose confidence intervals overlap that of the fastest can't be told apart by latency; of these the one
//! with the least memory is chosen (a noisy record takes no part in such a tie, for its interval means
//! little).

mod constraints;
mod reason;

use std::cmp::Ordering;

pub use constraints::{Constraints, Limit};

use crate::Record;

/// Runners-up that keep all constraints, at most.
const NEXT_BEST: usize = 3;
/// Runners-up that miss some, at most.
const NEAR_MISSES: usize = 3;

/// An answer, and why.
#[derive(Clone, Debug)]
pub struct Recommendation<'a> {
    /// The point to deploy; `None` if none keeps every constraint.
    pub chosen: Option<&'a Record>,
    /// Why it was chosen, or which constraint stands in the way: a sentence or two.
    pub reason: String,
    /// What could make the answer wrong: noisy records, few images, several machines.
    pub cautions: Vec<String>,
    /// The next best points, then the nearest that miss a constraint but would be faster (or, if none was
    /// chosen, the nearest at all).
    pub runners_up: Vec<RunnerUp<'a>>,
    /// Records that passed the filters.
    pub considered: usize,
    /// Those of them that keep every constraint.
    pub kept: usize,
    /// How many each constraint rejects; one record may be rejected by several.
    pub rejected: Vec<(Limit, usize)>,
}

/// A point that was not chosen.
#[derive(Clone, Debug)]
pub struct RunnerUp<'a> {
    /// Its record.
    pub record: &'a Record,
    /// Whether it keeps every constraint.
    pub keeps: bool,
    /// How it compares with the chosen one, or which constraints would have to give way how far.
    pub note: String,
}

/// Chooses among `records`.
///
/// ```
/// use dlis_experiment::recommend::{Constraints, recommend};
/// let constraints = Constraints { max_latency_ns: Some(20e6), ..Constraints::default() };
/// let answer = recommend(&[], &constraints);
/// assert!(answer.chosen.is_none());
/// assert!(answer.reason.contains("no records"));
/// ```
pub fn recommend<'a>(records: impl IntoIterator<Item = &'a Record>, constraints: &Constraints) -> Recommendation<'a> {
    let all: Vec<&Record> = records.into_iter().collect();
    let considered: Vec<&Record> = all.iter().copied().filter(|record| constraints.admits(&record.point)).collect();
    let misses = |record: &Record| constraints.misses(record);
    let mut kept: Vec<&Record> = considered.iter().copied().filter(|record| misses(record).is_empty()).collect();
    kept.sort_by(|a, b| by_latency(a, b));
    put_lightest_of_the_fastest_first(&mut kept);
    let mut near: Vec<(&Record, f64)> = considered
        .iter()
        .map(|record| (*record, misses(record).iter().map(|miss| miss.by).sum::<f64>()))
        .filter(|(record, by)| {
            let would_be_faster = kept.first().is_none_or(|best| record.latency.median_ns < best.latency.median_ns);
            *by > 0.0 && would_be_faster
        })
        .collect();
    near.sort_by(|(a, a_by), (b, b_by)| a_by.total_cmp(b_by).then_with(|| by_latency(a, b)));

    let rejected = constraints
        .limits()
        .map(|limit| (limit, considered.iter().filter(|record| !constraints.keeps(limit, record)).count()))
        .collect();
    let chosen = kept.first().copied();
    let next = kept.iter().skip(1).take(NEXT_BEST).map(|record| RunnerUp {
        record,
        keeps: true,
        note: chosen.map_or_else(String::new, |chosen| reason::comparison(record, chosen)),
    });
    let near = near.iter().take(NEAR_MISSES).map(|(record, _)| RunnerUp {
        record,
        keeps: false,
        note: reason::needs(constraints, record),
    });
    Recommendation {
        chosen,
        reason: match chosen {
            Some(chosen) => reason::chosen(chosen, &kept, considered.len()),
            None => reason::none(&all, &considered, constraints),
        },
        cautions: chosen.map_or_else(Vec::new, |chosen| reason::cautions(chosen, &considered, constraints)),
        runners_up: next.chain(near).collect(),
        considered: considered.len(),
        kept: kept.len(),
        rejected,
    }
}

/// By latency, memory, and for the sake of the same answer every time, the id.
fn by_latency(a: &Record, b: &Record) -> Ordering {
    let latency = a.latency.median_ns.total_cmp(&b.latency.median_ns);
    let memory = a.memory.resident_bytes().cmp(&b.memory.resident_bytes());
    latency.then(memory).then_with(|| a.id.cmp(&b.id))
}

/// Whether the measurements can't tell `other`, which is not noisy, from `record` by latency.
fn tie(record: &Record, other: &Record) -> bool {
    let (a, b) = (&record.latency, &other.latency);
    !b.noisy && a.ci_low_ns <= b.ci_high_ns && b.ci_low_ns <= a.ci_high_ns
}

fn put_lightest_of_the_fastest_first(kept: &mut [&Record]) {
    let Some(fastest) = kept.first().copied() else { return };
    let lightest = kept
        .iter()
        .enumerate()
        .filter(|(index, record)| *index == 0 || tie(fastest, record))
        .min_by_key(|(index, record)| (record.memory.resident_bytes(), *index));
    if let Some((index, _)) = lightest {
        kept[..=index].rotate_right(1);
    }
}
