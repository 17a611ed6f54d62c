//! Files of JSON Lines from outside: bounded, and refused by line and field.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::InvalidField;

/// Bytes such a file may take.
pub const MAX_LINES_BYTES: u64 = 64 << 20;
/// Bytes one of its lines may take.
pub const MAX_LINES_LINE_BYTES: usize = 16 << 10;

/// Why a file of JSON Lines can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The file system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another run has it open.
    #[error("{}: another run is writing to it; wait for it, or stop it", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// More than [`MAX_LINES_BYTES`].
    #[error("{}: more than {MAX_LINES_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line of more than [`MAX_LINES_LINE_BYTES`].
    #[error("{file}:{line}: a line of {found} bytes, expected at most {MAX_LINES_LINE_BYTES}")]
    TooLong {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// Its bytes.
        found: usize,
    },
    /// A line that is not JSON, or has a field missing, unknown or of the wrong type.
    #[error("{file}:{line}: field `{field}`: {message}")]
    Json {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
        /// What was found and expected.
        message: String,
    },
    /// A value that no measurement can have.
    #[error("{file}:{line}: {source}")]
    Invalid {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The field.
        source: InvalidField,
    },
}

/// What a line holds.
pub(crate) trait Line: DeserializeOwned {
    /// Checks that every figure is possible, and names the first that is not.
    fn validate(&self) -> Result<(), InvalidField>;
}

/// The text of an open file.
pub(crate) fn text(path: &Path, file: &std::fs::File) -> Result<String, LinesError> {
    let io = |source| LinesError::Io { path: path.to_owned(), action: "read it", source };
    let mut text = String::new();
    // One byte more than is allowed tells a file that is too long, whatever its metadata says.
    let read = file.take(MAX_LINES_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    if read as u64 > MAX_LINES_BYTES {
        return Err(LinesError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// Reads a file.
pub(crate) fn read<T: Line>(path: &Path) -> Result<Vec<T>, LinesError> {
    let io = |source| LinesError::Io { path: path.to_owned(), action: "open it", source };
    let file = std::fs::File::open(path).map_err(io)?;
    parse(&path.display().to_string(), &text(path, &file)?)
}

/// Reads lines; empty ones are passed over. `file` is what errors call the text.
pub(crate) fn parse<T: Line>(file: &str, text: &str) -> Result<Vec<T>, LinesError> {
    let mut values = Vec::new();
    for (line, text) in text.lines().enumerate().map(|(index, text)| (index + 1, text.trim())) {
        let file = || file.to_owned();
        if text.len() > MAX_LINES_LINE_BYTES {
            return Err(LinesError::TooLong { file: file(), line, found: text.len() });
        }
        if text.is_empty() {
            continue;
        }
        let refuse = |field: String, message: String| LinesError::Json { file: file(), line, field, message };
        let mut json = serde_json::Deserializer::from_str(text);
        let value: T = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| refuse(error.path().to_string(), error.inner().to_string()))?;
        json.end().map_err(|error| refuse(".".to_owned(), error.to_string()))?;
        value.validate().map_err(|source| LinesError::Invalid { file: file(), line, source })?;
        values.push(value);
    }
    Ok(values)
}
