//! `cargo xtask paper`.

use std::path::PathBuf;

use clap::Args;
use dlis_experiment::page::{self, TextTable};
use dlis_experiment::paper::{Ours, Topic, kept_curves, read_curves, section};
use dlis_experiment::quantity::parse_share;
use dlis_experiment::{RECORDS_FILE, Record, Store};

use crate::Failure;
use crate::laboratory::{default_results, root};
use crate::output::say;

#[derive(Debug, Args)]
pub(crate) struct PaperArgs {
    /// `accuracy`, `pareto`, `memory`, `times` or `fixed-accuracy`; all of them if left out.
    topic: Option<Topic>,
    /// Records of ours: a folder of an experiment, or a file [default: results/default].
    #[arg(long, value_name = "DIR|FILE")]
    records: Option<PathBuf>,
    /// Accuracy curves of ours, a JSON line a point, instead of those kept in the repository.
    #[arg(long, value_name = "FILE")]
    curves: Option<PathBuf>,
    /// The accuracy at which times and sizes are compared: `0.9` or `90%`.
    #[arg(long, default_value = "0.9", value_parser = parse_share)]
    accuracy: f64,
    /// Where page and figures go [default: results/paper].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &PaperArgs) -> Result<(), Failure> {
    let curves = match &args.curves {
        Some(file) => read_curves(file)?,
        None => kept_curves()?,
    };
    let records = records(args)?;
    eprintln!("{} curve points and {} records of ours", curves.len(), records.len());
    let ours = Ours { curves: &curves, records: &records };
    let topics = args.topic.map_or_else(|| Topic::ALL.to_vec(), |topic| vec![topic]);
    let mut sections = Vec::with_capacity(topics.len());
    for topic in topics {
        sections.push(section(topic, ours, args.accuracy).map_err(Failure::new)?);
    }
    for section in &sections {
        say!("{}\n", section.title);
        for table in &section.tables {
            print(table);
        }
    }
    let out = args.out.clone().unwrap_or_else(|| root().join("results/paper"));
    let name = args.topic.map_or("index", Topic::name);
    let files = page::write(out, &format!("{name}.html"), "The paper's figures beside ours", &sections)?;
    say!("page: {}", files.html.display());
    say!("beside it: {} figures as SVG", files.svgs.len());
    Ok(())
}

/// The records named, which must be there; or those of the default experiment, if there are any.
fn records(args: &PaperArgs) -> Result<Vec<Record>, Failure> {
    let path = args.records.clone().unwrap_or_else(default_results);
    let path = if path.is_dir() || args.records.is_none() { path.join(RECORDS_FILE) } else { path };
    if args.records.is_some() && !path.is_file() {
        return Err(Failure::new(format!("no records in {}", path.display())));
    }
    Ok(Store::read(&path)?)
}

/// Prints a table with its title and notes, within the terminal's width.
pub(crate) fn print(text: &TextTable) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(&text.columns);
    table.add_rows(&text.rows);
    say!("{}\n{table}", text.title);
    for note in &text.notes {
        say!("{note}");
    }
    say!("");
}
