//! What can be wrong with the files of a dataset.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a dataset could not be read: which file, which part of it, and what was expected.
///
/// `file` is a path, or `archive: member` for a file inside an archive.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The folder holds none of the forms the reader knows.
    #[error("{}: no dataset here; looked for {}", .dir.display(), .looked_for.join(", "))]
    NotFound {
        /// The folder that was searched.
        dir: PathBuf,
        /// The files or folders that would have been recognised.
        looked_for: Vec<String>,
    },
    /// A form was recognised, but one of its files is missing.
    #[error("{file}: missing")]
    Missing {
        /// The file that is not there.
        file: String,
    },
    /// A value in a file, or of an argument, is not what it must be.
    #[error("{file}: {field}: expected {expected}, found {found}")]
    Field {
        /// The file, or the name of the dataset in memory.
        file: String,
        /// The part of it that is wrong.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The operating system could not read a file.
    #[error("{file}: cannot be read")]
    Io {
        /// The file.
        file: String,
        /// The reason it gave.
        source: io::Error,
    },
    /// An archive is not a whole gzip-compressed tar.
    #[error("{file}: not a whole gzip-compressed tar archive")]
    Archive {
        /// The archive.
        file: String,
        /// What the decoder met.
        source: io::Error,
    },
    /// An archive has a member that points outside the folder it would be unpacked into.
    #[error("{file}: member {member:?} leaves the archive; refusing to read it")]
    UnsafeMember {
        /// The archive.
        file: String,
        /// The member's path.
        member: String,
    },
    /// A PNG is malformed or cut short.
    #[error("{file}: not a whole PNG")]
    Png {
        /// The image file.
        file: String,
        /// What the decoder met.
        source: png::DecodingError,
    },
    /// A label file is not a JSON array of whole numbers.
    #[error("{file}: not a JSON array of labels")]
    Json {
        /// The label file.
        file: String,
        /// What the parser met.
        source: serde_json::Error,
    },
}

impl DatasetError {
    pub(crate) fn field(
        file: impl Into<String>,
        field: impl Into<String>,
        expected: impl Display,
        found: impl Display,
    ) -> Self {
        Self::Field { file: file.into(), field: field.into(), expected: expected.to_string(), found: found.to_string() }
    }
}
