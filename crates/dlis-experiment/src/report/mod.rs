//! The report: one HTML page that needs no network, SVG copies of its plots, and a CSV table.

mod atomic;
mod compression;
mod csv;
mod html;
mod svg;

use std::io;
use std::path::{Path, PathBuf};

use crate::break_even::{MEASUREMENTS_FILE, Measurements, stored_sections};
use crate::lines::LinesError;
use crate::page::Section;

pub use compression::{compression, slower_points};
pub use csv::csv;
pub use html::html;
pub use svg::{Plot, svg};

pub(crate) use compression::{choose, networks, thread_counts};
pub(crate) use html::{CSS, escape};

use crate::Record;

/// Why a report can't be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is nothing to show.
    #[error("no records to report on: run an experiment first")]
    Empty,
    /// The file system refused.
    #[error("{}: cannot write it: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The measurements of break-evens beside the records can't be read.
    #[error(transparent)]
    BreakEven(#[from] Box<LinesError>),
    /// A plot can't be drawn.
    #[error("{}: cannot draw it: {message}", path.display())]
    Draw {
        /// The plot's file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// The files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFiles {
    /// `report.html`
    pub html: PathBuf,
    /// `records.csv`
    pub csv: PathBuf,
    /// `accuracy-latency.svg` and so on, in the order of [`Plot::ALL`]; then those of [`compression`], if
    /// anything was compressed, and of break-evens, if `break-even.jsonl` is in the folder.
    pub svgs: Vec<PathBuf>,
}

/// Writes the report on `records` into `folder`, which is made if it is not there: `report.html`,
/// `records.csv`, an SVG file for each [`Plot`] and, if anything was compressed, those on compression. Each file is replaced as a whole or not at all.
///
/// # Errors
///
/// If there are no records or a file can't be written.
///
/// ```no_run
/// use dlis_experiment::{Store, report};
/// let records = Store::read("records.jsonl")?;
/// let files = report::write("report", "My experiment", &records)?;
/// assert!(files.html.ends_with("report.html"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(folder: impl AsRef<Path>, title: &str, records: &[Record]) -> Result<ReportFiles, ReportError> {
    let folder = folder.as_ref();
    if records.is_empty() {
        return Err(ReportError::Empty);
    }
    std::fs::create_dir_all(folder).map_err(|source| ReportError::Io { path: folder.to_owned(), source })?;
    let mut svgs = Vec::new();
    for plot in Plot::ALL {
        let name = plot.file_name();
        let text = svg(plot, records).map_err(|message| ReportError::Draw { path: folder.join(name), message })?;
        svgs.push(save(folder, name, &text)?);
    }
    let sections = sections(folder, records)?;
    for drawing in sections.iter().flat_map(|section| &section.figures) {
        svgs.push(save(folder, &drawing.file_name, &drawing.svg)?);
    }
    let csv = save(folder, "records.csv", &csv(records))?;
    Ok(ReportFiles { html: save(folder, "report.html", &html(title, records, &sections))?, csv, svgs })
}

/// What the page shows below its plots: compression, and where it begins to pay.
fn sections(folder: &Path, records: &[Record]) -> Result<Vec<Section>, ReportError> {
    let draw = |name: &str| {
        let path = folder.join(name);
        |message| ReportError::Draw { path, message }
    };
    let mut sections: Vec<Section> = compression(records).map_err(draw("compression.svg"))?.into_iter().collect();
    let measurements = Measurements::read(folder.join(MEASUREMENTS_FILE)).map_err(Box::new)?;
    sections.extend(stored_sections(&networks(records), &measurements).map_err(draw("break-even.svg"))?);
    Ok(sections)
}

/// Writes a file of a folder, as a whole or not at all.
pub(crate) fn save(folder: &Path, name: &str, text: &str) -> Result<PathBuf, ReportError> {
    let path = folder.join(name);
    atomic::write(&path, text.as_bytes()).map_err(|source| ReportError::Io { path: path.clone(), source })?;
    Ok(path)
}
