//! `cargo xtask experiment` and `cargo xtask report`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dlis_experiment::catalogue::{as_format, has_backend, has_kernel};
use dlis_experiment::recommend::Constraints;
use dlis_experiment::run::{Excluded, Progress, STORED, groups, possible, run as measure};
use dlis_experiment::{Experiment, RECORDS_FILE, Record, StackLayer, StackPoint, Store, report, spec, table};
use dlis_hw::Hardware;
use dlis_runtime::ParsePolicyError;
use indicatif::ProgressBar;

use crate::Failure;
use crate::break_even;
use crate::command::{ExperimentArgs, ReportArgs};
use crate::laboratory::{catalogue, default_results, laboratory, root};
use crate::output::{bar, say};
use crate::recommend;

/// Steps of the progress bar.
const STEPS: u64 = 10_000;

pub(crate) fn run(args: &ExperimentArgs) -> Result<(), Failure> {
    if args.schema {
        say!("{}", spec::schema());
        return Ok(());
    }
    if args.example {
        say!("{}", Experiment::builtin_text().trim_end());
        return Ok(());
    }
    let experiment = match &args.file {
        Some(file) => Experiment::load(file)?,
        None => Experiment::builtin(),
    };
    experiment.check(accepts)?;
    let out = args.out.clone().unwrap_or_else(|| root().join("results").join(&experiment.name));
    let hw = Hardware::detect();
    let (points, excluded) = possible(experiment.expand(hw.logical_cores, &hw.fingerprint()), &catalogue());
    if args.dry_run {
        return dry_run(&points, &excluded, &out.join(RECORDS_FILE));
    }
    std::fs::create_dir_all(&out).map_err(|error| Failure::new(format!("{}: {error}", out.display())))?;
    let mut store = Store::open(out.join(RECORDS_FILE))?;
    for note in store.notes() {
        eprintln!("note: {note}");
    }
    let left = points.iter().filter(|point| !store.contains(&point.id())).count();
    if left > 0 {
        eprintln!("{left} of {} stack points to measure; records go to {}", points.len(), out.display());
        let mut threads: Vec<usize> = points.iter().map(|point| point.threads).collect();
        threads.sort_unstable();
        threads.dedup();
        let mut laboratory = laboratory(&out, &experiment.accuracy, &threads)?;
        let bar = bar(STEPS);
        let result = measure(&experiment, &mut laboratory, &mut store, &mut |progress| show(&bar, &progress));
        bar.finish_and_clear();
        print_excluded(&result?);
    } else {
        eprintln!("all {} stack points have been measured before", points.len());
        print_excluded(&excluded);
    }
    if let Some(spec) = &experiment.break_even {
        break_even::of_experiment(&experiment, spec, &out)?;
    }
    let of_experiment: Vec<Record> = points.iter().filter_map(|point| store.get(&point.id())).cloned().collect();
    print_table(&of_experiment);
    for sentence in report::slower_points(&of_experiment) {
        say!("not faster: {sentence}");
    }
    if experiment.constraints != Constraints::default() {
        say!("");
        recommend::print(&of_experiment, &experiment.constraints);
        say!("");
    }
    write_report(&of_experiment, &experiment.name, &out)
}

/// Lists the points and whether they have a record, writing nothing.
fn dry_run(points: &[StackPoint], excluded: &[Excluded], records: &Path) -> Result<(), Failure> {
    let known = if records.is_file() { Store::read(records)? } else { Vec::new() };
    let known: BTreeSet<&str> = known.iter().map(|record| record.id.as_str()).collect();
    let mut left = 0;
    for point in points {
        let id = point.id();
        let is_left = !known.contains(id.as_str());
        left += usize::from(is_left);
        say!("{} {id} {point}", if is_left { "left" } else { "done" });
    }
    say!("{left} of {} stack points are left, in {} groups", points.len(), groups(points).len());
    print_excluded(excluded);
    Ok(())
}

/// Says which points cannot be, a line for each reason.
fn print_excluded(excluded: &[Excluded]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for excluded in excluded {
        *counts.entry(&excluded.reason).or_default() += 1;
    }
    for (reason, count) in counts {
        eprintln!("passed over {count} stack points that cannot be: {reason}");
    }
}

pub(crate) fn report(args: &ReportArgs) -> Result<(), Failure> {
    let folder = args.results.clone().unwrap_or_else(default_results);
    let records = Store::read(folder.join(RECORDS_FILE))?;
    let name = folder.file_name().map_or_else(|| "report".into(), |name| name.to_string_lossy().into_owned());
    write_report(&records, &name, &folder)
}

/// Whether a choice of an experiment file means anything here.
fn accepts(layer: StackLayer, value: &str) -> Result<(), String> {
    match layer {
        StackLayer::Network => catalogue().knows(value).map_err(|error| error.to_string()),
        StackLayer::Backend => has_backend(value),
        StackLayer::Recipe => catalogue().knows_recipe(value),
        StackLayer::Format => as_format(value).map(|_| ()),
        StackLayer::Algorithm => {
            value.parse().map_err(|error: ParsePolicyError| error.to_string()).and_then(|policy| has_kernel(&policy))
        }
        _ => Ok(()),
    }
}

fn show(bar: &ProgressBar, progress: &Progress<'_>) {
    bar.set_message(format!("{} of {}: {}", progress.finished, progress.points, progress.doing));
    // A share of the work, 0 to 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and STEPS")]
    bar.set_position((progress.share * STEPS as f64) as u64);
    // Nobody sees the bar: say what a log should have.
    if bar.is_hidden() && progress.doing == STORED {
        eprintln!("{} of {} stack points measured", progress.finished, progress.points);
    }
}

fn print_table(records: &[Record]) {
    let text = table::table(records);
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(text.columns.iter().map(|column| column.title));
    table.add_rows(text.rows);
    for (index, _) in text.columns.iter().enumerate().filter(|(_, column)| column.is_number()) {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    say!("{table}");
    let common: Vec<String> = text.common.iter().map(|(layer, choice)| format!("{layer} {choice}")).collect();
    if !common.is_empty() {
        say!("all: {}", common.join(", "));
    }
}

fn write_report(records: &[Record], title: &str, folder: &Path) -> Result<(), Failure> {
    let files = report::write(folder, title, records)?;
    say!("report: {}", files.html.display());
    say!("beside it: {}, {} plots as SVG", files.csv.display(), files.svgs.len());
    Ok(())
}
