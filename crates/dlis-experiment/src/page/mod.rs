//! Pages of figures, tables and sentences: HTML that loads nothing, with the figures as SVG files beside it.

mod html;

use std::path::{Path, PathBuf};

pub use html::document;
pub(crate) use html::html as section_html;

use crate::report::{ReportError, save};

/// A part of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Its anchor on the page.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// Paragraphs before the figures.
    pub text: Vec<String>,
    /// Its figures.
    pub figures: Vec<Drawing>,
    /// Its tables, after the figures.
    pub tables: Vec<TextTable>,
    /// Sentences after the tables, a bullet each.
    pub findings: Vec<String>,
}

/// A figure that is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// The name of its file.
    pub file_name: String,
    /// The SVG document.
    pub svg: String,
}

/// A table of words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextTable {
    /// Its heading.
    pub title: String,
    /// The headings of its columns.
    pub columns: Vec<String>,
    /// A cell for each column. What is not known is a word, never an empty cell or a zero.
    pub rows: Vec<Vec<String>>,
    /// Remarks under it.
    pub notes: Vec<String>,
}

/// The files of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageFiles {
    /// The page.
    pub html: PathBuf,
    /// Its figures, in the order of the page.
    pub svgs: Vec<PathBuf>,
}

/// Writes a page and its figures into `folder`, which is made if it is not there. Each file is replaced as a
/// whole or not at all.
///
/// # Errors
///
/// If there is nothing to show or a file can't be written.
///
/// ```
/// use dlis_experiment::page::{Section, write};
/// let folder = tempfile::tempdir().unwrap();
/// let section = Section { id: "one".into(), title: "One".into(), text: vec!["a < b".into()], ..Section::default() };
/// let files = write(folder.path(), "index.html", "A page", &[section])?;
/// assert!(std::fs::read_to_string(files.html).unwrap().contains("a &lt; b"));
/// # Ok::<(), dlis_experiment::report::ReportError>(())
/// ```
pub fn write(
    folder: impl AsRef<Path>,
    file_name: &str,
    title: &str,
    sections: &[Section],
) -> Result<PageFiles, ReportError> {
    let folder = folder.as_ref();
    if sections.is_empty() {
        return Err(ReportError::Empty);
    }
    std::fs::create_dir_all(folder).map_err(|source| ReportError::Io { path: folder.to_owned(), source })?;
    let mut svgs = Vec::new();
    for drawing in sections.iter().flat_map(|section| &section.figures) {
        svgs.push(save(folder, &drawing.file_name, &drawing.svg)?);
    }
    Ok(PageFiles { html: save(folder, file_name, &document(title, sections))?, svgs })
}
