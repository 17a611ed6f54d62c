//! One section a figure or table of the paper.

use std::fmt;
use std::str::FromStr;

use super::points::{Ours, Point};
use super::{NETWORKS, QuotedCurves, quoted};
use crate::chart::{Bar, Content, Figure, Group, Kind, Panel, Series};
use crate::page::{Drawing, Section, TextTable};
use crate::report::{choose, thread_counts};
use crate::{Record, Technique, quantity};

/// The colour of the paper's curves where one technique is shown.
const PAPER: usize = 1;
/// The techniques that the paper has.
const COMMON: [Technique; 4] =
    [Technique::Plain, Technique::WeightPruning, Technique::ChannelPruning, Technique::Ternary];
const UNKNOWN: &str = "not measured";

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Accuracy as each technique is pushed further.
    Accuracy,
    /// Accuracy against compression rate and latency.
    Pareto,
    /// The table of memory.
    Memory,
    /// Inference times by technique and threads.
    Times,
    /// The fastest and the smallest where all are as accurate.
    FixedAccuracy,
}

impl Topic {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 5] = [Self::Accuracy, Self::Pareto, Self::Memory, Self::Times, Self::FixedAccuracy];

    /// The word for it on the command line and in the page's anchors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Pareto => "pareto",
            Self::Memory => "memory",
            Self::Times => "times",
            Self::FixedAccuracy => "fixed-accuracy",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that is no [`Topic`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: expected `accuracy`, `pareto`, `memory`, `times` or `fixed-accuracy`")]
pub struct ParseTopicError(String);

impl FromStr for Topic {
    type Err = ParseTopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let topic = Self::ALL.into_iter().find(|topic| topic.name() == text);
        topic.ok_or_else(|| ParseTopicError(text.chars().take(64).collect()))
    }
}

/// The section on a topic. `accuracy` is the least accuracy, 0 to 1, that a network of ours must have to be
/// compared by time or size; where a technique has none, its most accurate one is taken, and named.
///
/// # Errors
///
/// The message of the plotting library.
///
/// ```
/// use dlis_experiment::paper::{Ours, Topic, section};
/// let section = section(Topic::Memory, Ours::default(), 0.9)?;
/// assert_eq!(section.tables[0].rows.len(), 3);
/// assert!(section.text.iter().any(|text| text.contains("not resident bytes")));
/// # Ok::<(), String>(())
/// ```
pub fn section(topic: Topic, ours: Ours<'_>, accuracy: f64) -> Result<Section, String> {
    let (title, text, figures, tables) = match topic {
        Topic::Accuracy => accuracy_curves(ours),
        Topic::Pareto => pareto(ours),
        Topic::Memory => ("Memory", memory_text(accuracy), Vec::new(), vec![memory(ours, accuracy)]),
        Topic::Times => times(ours, accuracy),
        Topic::FixedAccuracy => fixed(ours, accuracy),
    };
    let draw = |(file_name, figure): (String, Figure)| Ok(Drawing { file_name, svg: figure.svg()? });
    let figures = figures.into_iter().map(draw).collect::<Result<_, String>>()?;
    Ok(Section { id: topic.name().to_owned(), title: title.to_owned(), text, figures, tables, findings: Vec::new() })
}

type Parts = (&'static str, Vec<String>, Vec<(String, Figure)>, Vec<TextTable>);

fn source(name: &str) -> String {
    let words = quoted().sources.get(name).map_or(name, String::as_str);
    format!("The paper's figures are {words}.")
}

/// A sentence where nothing of ours is there.
fn note_if_empty(empty: bool, what: &str) -> Vec<String> {
    if empty { vec![format!("ours: {what}")] } else { Vec::new() }
}

// ----- accuracy ---------------------------------------------------------------------------------------

/// The coordinate of one of our points on the axis of the paper's figure of its technique.
fn coordinate(point: &Point) -> Option<f64> {
    match point.technique {
        Technique::Ternary => point.level,
        _ => point.sparsity,
    }
}

fn accuracy_curves(ours: Ours<'_>) -> Parts {
    let mut text = Vec::new();
    let mut figures = Vec::new();
    let mut rows = Vec::new();
    for curves in &quoted().accuracy {
        let title = curves.technique.title();
        text.push(format!("Paper, {title}: {} {}", source(&curves.source), curves.caveat));
        let panels = NETWORKS.map(|network| accuracy_panel(curves, network, ours));
        figures.push((
            format!("accuracy-{}.svg", curves.technique.name()),
            Figure { title: format!("Accuracy × {}", axis_title(curves)), columns: 3, panels: panels.into() },
        ));
        rows.extend(NETWORKS.iter().flat_map(|network| accuracy_rows(curves, network, ours)));
    }
    let columns = ["network", "technique", "at", "paper", "ours", "difference", "our recipe"].map(str::to_owned).into();
    let notes = vec![
        "Ours are the most accurate at that place or further; a dash means that none was pushed as far.".to_owned(),
    ];
    let table = TextTable { title: "At the paper's points".to_owned(), columns, rows, notes };
    ("Accuracy as networks are compressed", text, figures, vec![table])
}

fn axis_title(curves: &QuotedCurves) -> &'static str {
    match curves.technique {
        Technique::WeightPruning => "sparsity, weight pruning",
        Technique::ChannelPruning => "parameters removed, channel pruning",
        _ => "threshold, ternary",
    }
}

fn accuracy_panel(curves: &QuotedCurves, network: &str, ours: Ours<'_>) -> Panel {
    let own: Vec<[f64; 2]> = {
        let points = ours.points(network);
        let own = points.iter().filter(|point| point.technique == curves.technique);
        let mut own: Vec<[f64; 2]> = own.filter_map(|point| Some([coordinate(point)?, point.accuracy])).collect();
        own.sort_by(|a, b| a[0].total_cmp(&b[0]));
        own
    };
    let paper = curves.networks.get(network).cloned().unwrap_or_default();
    let kind = if curves.technique == Technique::Ternary { Kind::Number } else { Kind::Share };
    let x_title = match curves.technique {
        Technique::WeightPruning => "sparsity",
        Technique::ChannelPruning => "share of parameters removed",
        _ => "threshold",
    };
    let notes = note_if_empty(own.is_empty(), "no curve has been measured yet");
    let series = vec![
        Series { name: "paper".into(), colour: PAPER, shape: 0, quoted: true, joined: true, points: paper },
        Series { name: "ours".into(), colour: 0, shape: 0, quoted: false, joined: true, points: own },
    ];
    let content = Content::Lines { x: (kind, x_title), y: (Kind::Share, "top-1 accuracy"), series, rule: None };
    Panel { title: network.to_owned(), notes, content }
}

/// The paper's last points of a curve against ours.
fn accuracy_rows(curves: &QuotedCurves, network: &str, ours: Ours<'_>) -> Vec<Vec<String>> {
    const ROWS: usize = 3;
    let points = ours.points(network);
    let paper = curves.networks.get(network).map_or(&[][..], Vec::as_slice);
    let mut rows = Vec::new();
    for &[x, accuracy] in &paper[paper.len().saturating_sub(ROWS)..] {
        // A measured sparsity is rarely round: half a percentage point short is as far.
        let far = |point: &&Point| {
            point.technique == curves.technique && coordinate(point).is_some_and(|own| own + 0.005 >= x)
        };
        let best = points.iter().filter(far).max_by(|a, b| a.accuracy.total_cmp(&b.accuracy));
        let share = curves.technique != Technique::Ternary;
        let at = if share { quantity::share(x).to_string() } else { format!("threshold {x}") };
        let dash = || "-".to_owned();
        rows.push(vec![
            network.to_owned(),
            curves.technique.title().to_owned(),
            at,
            quantity::share(accuracy).to_string(),
            best.map_or_else(dash, |best| quantity::share(best.accuracy).to_string()),
            best.map_or_else(dash, |best| format!("{:+.2} points", 100.0 * (best.accuracy - accuracy))),
            best.map_or_else(dash, |best| format!("{}, {} images", best.recipe, best.images)),
        ]);
    }
    rows
}

// ----- Pareto -----------------------------------------------------------------------------------------

fn series(technique: Technique, quoted: bool, joined: bool, points: Vec<[f64; 2]>) -> Series {
    let prefix = if quoted { "paper: " } else { "" };
    let index = technique.index();
    Series { name: format!("{prefix}{}", technique.title()), colour: index, shape: index, quoted, joined, points }
}

fn pareto(ours: Ours<'_>) -> Parts {
    let text = vec![
        "Our compression rate is 1 - bytes on disk / bytes of all parameters as f32, indices, scales and metadata \
         counted. The paper's is the share of parameters that are zero or gone, without what storing the rest \
         takes, so its points would lie further left on our axis. Its TTQ points have no measured sparsity and are \
         left out."
            .to_owned(),
        "Against latency: our records of single images on one thread (or as few as were measured). The paper has no \
         curve of accuracy against time; its points are the bars at fixed accuracy on the Core i7, drawn at the 90 % \
         that it names."
            .to_owned(),
    ];
    let panels = NETWORKS.map(|network| pareto_panel(network, ours));
    let rate = Figure { title: "Accuracy × compression rate".into(), columns: 3, panels: panels.into() };
    let panels = NETWORKS.map(|network| latency_panel(network, ours.records));
    let time = Figure { title: "Accuracy × latency".into(), columns: 3, panels: panels.into() };
    let figures = vec![("pareto-compression.svg".to_owned(), rate), ("pareto-latency.svg".to_owned(), time)];
    ("Accuracy against compression rate and latency", text, figures, Vec::new())
}

fn pareto_panel(network: &str, ours: Ours<'_>) -> Panel {
    let mut all: Vec<Series> = quoted()
        .accuracy
        .iter()
        .filter(|curves| curves.technique != Technique::Ternary)
        .map(|curves| series(curves.technique, true, true, curves.networks.get(network).cloned().unwrap_or_default()))
        .collect();
    let points = ours.points(network);
    for technique in Technique::ALL {
        let own = points.iter().filter(|point| point.technique == technique);
        let mut own: Vec<[f64; 2]> =
            own.filter_map(|point| Some([point.compression_rate(network)?, point.accuracy])).collect();
        own.sort_by(|a, b| a[0].total_cmp(&b[0]));
        all.push(series(technique, false, true, own));
    }
    let content = Content::Lines {
        x: (Kind::Share, "compression rate"),
        y: (Kind::Share, "top-1 accuracy"),
        series: all,
        rule: None,
    };
    Panel {
        title: network.to_owned(),
        notes: note_if_empty(points.is_empty(), "nothing has been measured yet"),
        content,
    }
}

fn latency_panel(network: &str, records: &[Record]) -> Panel {
    let mut all = Vec::new();
    let fixed = &quoted().fixed;
    for machine in fixed.machine.iter().filter(|machine| machine.name.contains("i7")) {
        for (&technique, &seconds) in machine.networks.get(network).into_iter().flatten() {
            all.push(series(technique, true, false, vec![[seconds * 1e9, fixed.accuracy]]));
        }
    }
    let threads = thread_counts(records).first().copied();
    let mut count = 0;
    for technique in Technique::ALL {
        let own = records.iter().filter(|record| {
            let point = &record.point;
            point.network == network
                && point.batch == 1
                && Some(point.threads) == threads
                && Technique::of(record) == technique
        });
        let own: Vec<[f64; 2]> = own.map(|record| [record.latency.median_ns, record.accuracy.top1]).collect();
        count += own.len();
        all.push(series(technique, false, false, own));
    }
    let content = Content::Lines {
        x: (Kind::Time, "latency of one image"),
        y: (Kind::Share, "top-1 accuracy"),
        series: all,
        rule: None,
    };
    Panel { title: network.to_owned(), notes: note_if_empty(count == 0, "no records of this network"), content }
}

// ----- memory -----------------------------------------------------------------------------------------

fn memory_text(accuracy: f64) -> Vec<String> {
    let memory = &quoted().memory;
    vec![
        format!("{} {}", source(&memory.source), memory.caveat),
        format!(
            "Ours: the smallest artefact of each technique with an accuracy of at least {}, or the most accurate one \
             where none reaches it: bytes on disk, bytes of weights as kernels hold them, accuracy and recipe.",
            quantity::share(accuracy)
        ),
    ]
}

/// The smallest point of a technique that is accurate enough, or else its most accurate.
fn smallest(points: &[Point], technique: Technique, accuracy: f64) -> Option<&Point> {
    let of = || points.iter().filter(|point| point.technique == technique);
    let enough = of().filter(|point| point.accuracy >= accuracy).min_by_key(|point| point.disk_bytes);
    enough.or_else(|| of().max_by(|a, b| a.accuracy.total_cmp(&b.accuracy)))
}

fn memory(ours: Ours<'_>, accuracy: f64) -> TextTable {
    let mut columns = vec!["network".to_owned()];
    for technique in COMMON {
        columns.push(format!("{technique}, paper"));
        columns.push(format!("{technique}, ours"));
    }
    let rows = NETWORKS.map(|network| {
        let points = ours.points(network);
        let mut row = vec![network.to_owned()];
        for technique in COMMON {
            let paper = quoted().memory.networks.get(network).and_then(|row| row.get(&technique));
            row.push(paper.map_or_else(|| UNKNOWN.to_owned(), |mb| format!("{mb} MB")));
            row.push(smallest(&points, technique, accuracy).map_or_else(
                || UNKNOWN.to_owned(),
                |point| {
                    format!(
                        "{} on disk, {} in memory ({}, {})",
                        quantity::bytes(point.disk_bytes),
                        quantity::bytes(point.weight_bytes),
                        quantity::share(point.accuracy),
                        point.recipe,
                    )
                },
            ));
        }
        row
    });
    TextTable { title: "Bytes of the weights".to_owned(), columns, rows: rows.into(), notes: Vec::new() }
}

// ----- times ------------------------------------------------------------------------------------------

fn threads_name(threads: usize) -> String {
    format!("{threads} thread{}", if threads == 1 { "" } else { "s" })
}

/// The first word of a technique, which fits under a group of bars.
fn short(technique: Technique) -> String {
    technique.title().split(' ').next().unwrap_or_default().to_owned()
}

/// The colour of a thread count: the same in every panel.
fn colour_of(threads: usize) -> usize {
    usize::try_from(threads.max(1).ilog2()).unwrap_or(0)
}

fn bars(title: String, groups: Vec<Group>, notes: Vec<String>) -> Panel {
    Panel { title, notes, content: Content::Bars { y: (Kind::Time, "time of one image"), groups } }
}

fn times(ours: Ours<'_>, accuracy: f64) -> Parts {
    let times = &quoted().times;
    let text = vec![
        format!("{} {}", source(&times.source), times.caveat),
        format!(
            "Ours: the fastest record of single images of each technique and thread count with an accuracy of at \
             least {}, or the most accurate one where none reaches it. Every panel has a scale of its own.",
            quantity::share(accuracy)
        ),
    ];
    let mut panels = Vec::new();
    let mut rows = Vec::new();
    for machine in &times.machine {
        for network in NETWORKS {
            let group = |technique: Technique| {
                let seconds = machine.networks.get(network).and_then(|row| row.get(&technique));
                let bar = |(index, &threads): (usize, &usize)| Bar {
                    name: threads_name(threads),
                    colour: colour_of(threads),
                    value: seconds.and_then(|seconds| seconds.get(index)).map(|seconds| seconds * 1e9),
                };
                Group { name: short(technique), bars: machine.threads.iter().enumerate().map(bar).collect() }
            };
            let groups: Vec<Group> = COMMON.map(group).into();
            rows.extend(time_rows(network, &format!("paper, {}", machine.name), &groups, &|_, _| "-".to_owned()));
            panels.push(bars(format!("{network}, paper, {}", machine.name), groups, Vec::new()));
        }
    }
    let threads = thread_counts(ours.records);
    for network in NETWORKS {
        let chosen = |technique, threads| choose(ours.records, network, technique, threads, accuracy);
        let group = |technique: Technique| {
            let bar = |&threads: &usize| Bar {
                name: threads_name(threads),
                colour: colour_of(threads),
                value: chosen(technique, threads).map(|record| record.latency.median_ns),
            };
            Group { name: short(technique), bars: threads.iter().map(bar).collect() }
        };
        let groups: Vec<Group> = Technique::ALL.map(group).into();
        let machine = ours.records.iter().find(|record| record.point.network == network);
        let name = machine.map_or("this machine", |record| record.provenance.machine.as_str());
        rows.extend(time_rows(network, &format!("ours, {name}"), &groups, &|technique, threads| {
            chosen(technique, threads).map_or_else(
                || UNKNOWN.to_owned(),
                |record| format!("{} ({})", record.point.recipe, quantity::share(record.accuracy.top1)),
            )
        }));
        let notes = note_if_empty(machine.is_none(), "no records of this network");
        panels.push(bars(format!("{network}, ours"), groups, notes));
    }
    let columns = ["network", "machine", "technique", "threads: time", "recipe (accuracy)"].map(str::to_owned).into();
    let table = TextTable { title: "Times of one image".to_owned(), columns, rows, notes: Vec::new() };
    let figure = Figure { title: "Time of one image by technique and threads".into(), columns: 3, panels };
    ("Inference times", text, vec![("times.svg".to_owned(), figure)], vec![table])
}

/// A row a technique: `1: 2.83 s, 2: 1.48 s`.
fn time_rows(
    network: &str,
    machine: &str,
    groups: &[Group],
    recipe: &dyn Fn(Technique, usize) -> String,
) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (group, technique) in groups.iter().zip(Technique::ALL) {
        let mut times = Vec::new();
        let mut recipes: Vec<String> = Vec::new();
        for bar in &group.bars {
            let Some(ns) = bar.value else { continue };
            let threads = bar.name.split(' ').next().unwrap_or_default();
            times.push(format!("{threads}: {}", quantity::time(ns)));
            let recipe = recipe(technique, threads.parse().unwrap_or(1));
            if !recipes.contains(&recipe) {
                recipes.push(recipe);
            }
        }
        if !times.is_empty() {
            let (times, recipes) = (times.join(", "), recipes.join("; "));
            rows.push(vec![network.to_owned(), machine.to_owned(), technique.title().to_owned(), times, recipes]);
        }
    }
    rows
}

// ----- fixed accuracy ---------------------------------------------------------------------------------

fn fixed(ours: Ours<'_>, accuracy: f64) -> Parts {
    let fixed = &quoted().fixed;
    let text = vec![
        format!("{} {}", source(&fixed.source), fixed.caveat),
        format!(
            "Ours: of each technique the fastest record of single images, whatever its threads, and the smallest \
             artefact, with an accuracy of at least {}. A technique without one is not drawn.",
            quantity::share(accuracy)
        ),
    ];
    let mut panels = Vec::new();
    let mut rows = Vec::new();
    for machine in &fixed.machine {
        for network in NETWORKS {
            let value = |technique: Technique| {
                machine.networks.get(network).and_then(|row| row.get(&technique)).map(|seconds| seconds * 1e9)
            };
            let title = format!("{network}, paper, {}", machine.name);
            panels.push(bars(title, groups(&COMMON[1..], &value), Vec::new()));
        }
    }
    for network in NETWORKS {
        let fastest = |technique: Technique| {
            let enough = ours.records.iter().filter(|record| {
                record.point.network == network
                    && record.point.batch == 1
                    && record.accuracy.top1 >= accuracy
                    && Technique::of(record) == technique
            });
            enough.min_by(|a, b| a.latency.median_ns.total_cmp(&b.latency.median_ns))
        };
        let any = Technique::ALL.into_iter().any(|technique| fastest(technique).is_some());
        let value = |technique: Technique| fastest(technique).map(|record| record.latency.median_ns);
        let notes = note_if_empty(!any, "no record of this network is as accurate");
        panels.push(bars(format!("{network}, ours"), groups(&Technique::ALL, &value), notes));
        let points = ours.points(network);
        for technique in Technique::ALL {
            let smallest = smallest(&points, technique, accuracy).filter(|point| point.accuracy >= accuracy);
            let none = || "none as accurate was measured".to_owned();
            let seconds: Vec<String> = fixed
                .machine
                .iter()
                .map(|machine| {
                    let seconds = machine.networks.get(network).and_then(|row| row.get(&technique));
                    seconds.map_or_else(|| "-".to_owned(), |s| quantity::time(s * 1e9).to_string())
                })
                .collect();
            let mut row = vec![network.to_owned(), technique.title().to_owned()];
            row.extend(seconds);
            row.push(fastest(technique).map_or_else(none, |record| {
                let point = &record.point;
                format!(
                    "{} ({}, {}, {}, {})",
                    quantity::time(record.latency.median_ns),
                    threads_name(point.threads),
                    point.recipe,
                    point.format,
                    quantity::share(record.accuracy.top1)
                )
            }));
            row.push(smallest.map_or_else(none, |point| {
                format!("{} ({}, {})", quantity::bytes(point.disk_bytes), point.recipe, quantity::share(point.accuracy))
            }));
            rows.push(row);
        }
    }
    let mut columns = vec!["network".to_owned(), "technique".to_owned()];
    columns.extend(fixed.machine.iter().map(|machine| format!("paper, {}", machine.name)));
    columns.extend(["fastest of ours", "smallest of ours on disk"].map(str::to_owned));
    let channels = NETWORKS.iter().filter_map(|network| {
        let left = fixed.channels.networks.get(*network)?;
        let (m, g) = (left.parameters as f64 / 1e6, left.macs as f64 / 1e6);
        Some(format!("{network}: {m:.2} M weights, {g:.1} M multiply-accumulates ({:.1} %)", 100.0 * left.macs_share))
    });
    let channels: Vec<String> = channels.collect();
    let code = quoted().sources.get(&fixed.channels.source).map_or("", String::as_str);
    let notes = vec![format!("What the paper's pruning of channels left, from {code}: {}.", channels.join("; "))];
    let title = format!("At {} accuracy", quantity::share(accuracy));
    let figure = Figure { title: format!("Time of one image, {}", title.to_lowercase()), columns: 3, panels };
    let table = TextTable { title, columns, rows, notes };
    ("At a fixed accuracy", text, vec![("fixed-accuracy.svg".to_owned(), figure)], vec![table])
}

fn groups(techniques: &[Technique], value: &dyn Fn(Technique) -> Option<f64>) -> Vec<Group> {
    let group = |&technique: &Technique| Group {
        name: short(technique),
        bars: vec![Bar { name: technique.title().to_owned(), colour: technique.index(), value: value(technique) }],
    };
    techniques.iter().map(group).collect()
}
