//! What compression brought: accuracy against size and time, and where it did not pay.

mod choose;
mod figures;
mod slower;
#[cfg(test)]
mod tests;

pub(crate) use choose::{choose, networks, thread_counts};
pub use slower::slower_points;

use choose::{dense_of, is_compressed};

use crate::Record;
use crate::page::{Drawing, Section};

/// The report's section on compression: figures, a table, and a sentence for every compressed point that is
/// not faster than its dense counterpart ([`slower_points`]). `None` if nothing was compressed.
///
/// # Errors
///
/// The message of the plotting library.
pub fn compression(records: &[Record]) -> Result<Option<Section>, String> {
    let compressed = records.iter().filter(|record| is_compressed(record)).count();
    if compressed == 0 {
        return Ok(None);
    }
    let mut drawings = Vec::new();
    for (file_name, figure) in figures::figures(records) {
        drawings.push(Drawing { file_name: file_name.to_owned(), svg: figure.svg()? });
    }
    let judged = records.iter().filter(|r| is_compressed(r) && dense_of(r, records).is_some()).count();
    let slower = slower_points(records);
    let mut findings = vec![format!(
        "{} of {judged} compressed points are faster than the fastest dense one of the same network, backend, threads and batch.",
        judged - slower.len(),
    )];
    if judged < compressed {
        findings.push(format!(
            "{} more have no dense counterpart among the records, and are not judged.",
            compressed - judged
        ));
    }
    findings.extend(slower);
    Ok(Some(Section {
        id: "compression".to_owned(),
        title: "Compression".to_owned(),
        text: vec![
            "All records, whatever the filters say. The compression rate is 1 - bytes on disk / bytes of all \
             parameters as f32; weights that are gone are those of removed channels. Bars show the fastest record of each technique whose accuracy is within one \
             percentage point of the plain network's, or its most accurate record if none is; the table names it."
                .to_owned(),
        ],
        figures: drawings,
        tables: vec![figures::chosen_table(records)],
        findings,
    }))
}
