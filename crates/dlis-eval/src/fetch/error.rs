//! Why a data set could not be fetched.

use std::fmt::{self, Display, Write as _};
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use thiserror::Error;

use crate::digest::Checksum;

/// Why there is no data set in the destination folder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No source could be used.
    #[error("cannot fetch into {}:{}", .dest.display(), list(.attempts, .by_hand))]
    Unreachable {
        /// The destination folder.
        dest: PathBuf,
        /// What was tried, in order, and why each failed.
        attempts: Vec<Attempt>,
        /// Ways to put a file in place without this program.
        by_hand: Vec<String>,
    },
    /// Another process is fetching into the same folder.
    #[error("{}: another process is fetching into this folder; wait for it to end", .lock.display())]
    Busy {
        /// The file it has locked.
        lock: PathBuf,
    },
    /// The destination already holds unpacked files, which would be read first, and they are not
    /// the published ones.
    #[error("{}: holds files that are not the published set ({reason}); move them away", .path.display())]
    InTheWay {
        /// The folder.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// The destination folder cannot be used.
    #[error("{}: cannot be used", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason the system gave.
        source: io::Error,
    },
}

/// A source that did not work out.
#[derive(Debug)]
pub struct Attempt {
    /// The source's name.
    pub source: String,
    /// Why it failed.
    pub error: SourceError,
}

impl Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.error)
    }
}

fn list(attempts: &[Attempt], by_hand: &[String]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for attempt in attempts {
        let _ = write!(text, "\n  tried the {attempt}");
    }
    for (index, way) in by_hand.iter().enumerate() {
        let lead = if index == 0 { "to place it by hand" } else { "or" };
        let _ = write!(text, "\n  {lead}: {way}");
    }
    text
}

/// Why one source failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The program is not installed.
    #[error("the program {} is not installed (on Debian: apt-get install {package})", .program.display())]
    NoProgram {
        /// The program looked for.
        program: PathBuf,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The program could not be run.
    #[error("{} cannot be run: {source}", .program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// The reason the system gave.
        source: io::Error,
    },
    /// The program ran and failed.
    #[error("{} failed ({status}): {message}", .program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to its error stream.
        message: String,
    },
    /// What arrived has another size than was published.
    #[error("{}: expected {expected} bytes, found {found}", .path.display())]
    Size {
        /// The file, which has been removed.
        path: PathBuf,
        /// The published size.
        expected: u64,
        /// The size of what arrived.
        found: u64,
    },
    /// What arrived is not what was published.
    #[error("{}: expected {expected}, found {found}", .path.display())]
    Checksum {
        /// The file, which has been removed.
        path: PathBuf,
        /// The published checksum.
        expected: Checksum,
        /// The checksum of what arrived.
        found: Checksum,
    },
    /// The destination folder cannot be written or read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason the system gave.
        source: io::Error,
    },
}
