//! Errors that point at a place in the file.

use std::io;
use std::ops::Range;

/// Characters of a line that are shown around the place.
const SHOWN: usize = 100;

/// What is wrong with an experiment file.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// It can't be read.
    #[error("{file}: cannot read it: {source}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// It is larger than [`MAX_FILE_BYTES`](crate::spec::MAX_FILE_BYTES).
    #[error("{file}: larger than 1 MiB, expected an experiment file")]
    TooLarge {
        /// The file.
        file: String,
    },
    /// A key or value is wrong.
    #[error("{file}:{line}:{column}: {message}\n{snippet}")]
    Invalid {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The character within the line, from 1.
        column: usize,
        /// What was found and expected.
        message: String,
        /// The line with the place underlined.
        snippet: String,
    },
}

impl SpecError {
    /// An error at `span` (in bytes) of `text`; without one, at its beginning.
    pub(super) fn at(file: &str, text: &str, span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        let span = span.unwrap_or(0..0);
        let start = boundary(text, span.start);
        let end = boundary(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[..start].matches('\n').count() + 1;
        let before = text[line_start..start].chars().count();
        let marked = text[start..end.min(line_end).max(start)].chars().count().max(1);
        let skipped = before.saturating_sub(SHOWN / 2);
        // A tab or another control character would shift the mark.
        let shown: String = text[line_start..line_end]
            .chars()
            .skip(skipped)
            .take(SHOWN)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(before - skipped);
        let marks = "^".repeat(marked.min(SHOWN - (before - skipped)));
        let snippet = format!("{margin} |\n{number} | {}\n{margin} | {indent}{marks}", shown.trim_end());
        let message = message.into();
        Self::Invalid { file: file.to_owned(), line, column: before + 1, message, snippet }
    }
}

/// The last boundary of characters at or before the byte `at`.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_underlined() {
        let text = "a = 1\nb = \"é\", x\n";
        let start = text.find('x').unwrap();
        let error = SpecError::at("f.toml", text, Some(start..start + 1), "no");
        assert_eq!(error.to_string(), "f.toml:2:10: no\n  |\n2 | b = \"é\", x\n  |          ^");
    }

    #[test]
    fn any_place_in_any_text_can_be_shown() {
        for text in ["", "\n", "é\té\r\nx", &"long ".repeat(100)] {
            for start in 0..=text.len() + 1 {
                for end in [start, start + 1, text.len(), 0] {
                    let error = SpecError::at("f", text, Some(start..end), "no").to_string();
                    assert!(error.lines().all(|line| line.chars().count() <= SHOWN + 8), "{error}");
                }
            }
        }
    }
}
