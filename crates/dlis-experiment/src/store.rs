//! The store: records in a file of JSON Lines that a killed run can't spoil.
//!
//! A record is one line, appended whole and flushed to the disk before the run goes on. What a kill in
//! the middle of a write leaves is a last line without its end; the next [`Store::open`] cuts it off and
//! says so. Anything else that is no record is an error with its line, for a store is data that took
//! hours to measure and must not be repaired by guess.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::record::SCHEMA;
use crate::{InvalidField, Record};

/// Bytes one record may take as a line.
pub const MAX_LINE_BYTES: usize = 4 << 20;
/// Bytes a store may take.
pub const MAX_STORE_BYTES: u64 = 1 << 30;
/// How every line begins: what doesn't is no torn record, and is not cut off.
const LINE_START: &[u8] = b"{\"schema\":";

/// Why a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The store.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another run has it open.
    #[error(
        "{}: another run is writing to this store; wait for it, stop it, or use another store", path.display()
    )]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// The file is larger than [`MAX_STORE_BYTES`].
    #[error("{}: a store of {found} bytes, expected at most {MAX_STORE_BYTES}", path.display())]
    TooLarge {
        /// The store.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// A line that is no record.
    #[error("{}:{line}: {source}", path.display())]
    Line {
        /// The store.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: LineError,
    },
    /// A record that can't be stored.
    #[error("{}: record not stored: {source}", path.display())]
    Append {
        /// The store.
        path: PathBuf,
        /// What is wrong with the record.
        source: LineError,
    },
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Longer than [`MAX_LINE_BYTES`].
    #[error("a line of more than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Not JSON, or a field is missing, unknown or of the wrong type.
    #[error("column {column}, field `{field}`: {message}")]
    Json {
        /// Where in the line, from 1.
        column: usize,
        /// The path of the field.
        field: String,
        /// What was found and expected.
        message: String,
        /// Whether the text just ends too early.
        ends_early: bool,
    },
    /// A record of another version.
    #[error(
        "a record of schema {found}, but this version of DLIS reads schema {SCHEMA}: remove the file to measure anew, or \
         name another folder"
    )]
    Schema {
        /// Its version.
        found: u64,
    },
    /// A value that no measurement can have.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
}

/// The records of a store. Of records with the same id the last one counts.
#[derive(Debug, Default)]
struct Records {
    list: Vec<Record>,
    by_id: HashMap<String, usize>,
    /// Bytes of the file that are whole lines.
    whole_bytes: u64,
    /// Whether the last line is a whole record but for its line break.
    lacks_line_break: bool,
    notes: Vec<String>,
}

impl Records {
    fn insert(&mut self, record: Record) {
        if let Some(&index) = self.by_id.get(&record.id) {
            self.list[index] = record;
        } else {
            self.by_id.insert(record.id.clone(), self.list.len());
            self.list.push(record);
        }
    }

    fn read(path: &Path, file: &File) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), action: "read it", source };
        let found = file.metadata().map_err(io)?.len();
        if found > MAX_STORE_BYTES {
            return Err(StoreError::TooLarge { path: path.to_owned(), found });
        }
        let mut reader = BufReader::new(file);
        let mut records = Self::default();
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            let limit = MAX_LINE_BYTES as u64 + 1;
            let read = reader.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(io)?;
            if read == 0 {
                break;
            }
            let whole = bytes.pop_if(|last| *last == b'\n').is_some();
            match parse(&bytes) {
                Ok(record) => records.insert(record),
                Err(LineError::Json { ends_early: true, .. }) if !whole && is_torn(&bytes) => {
                    records.notes.push(format!(
                        "{}:{line}: the last record is incomplete ({read} bytes): an earlier run was stopped while it wrote; it is measured anew",
                        path.display(),
                    ));
                    break;
                }
                Err(source) => return Err(StoreError::Line { path: path.to_owned(), line, source }),
            }
            records.whole_bytes += read as u64;
            records.lacks_line_break = !whole;
        }
        Ok(records)
    }
}

fn is_torn(bytes: &[u8]) -> bool {
    let n = bytes.len().min(LINE_START.len());
    bytes[..n] == LINE_START[..n]
}

/// Reads one line, without its line break.
fn parse(bytes: &[u8]) -> Result<Record, LineError> {
    #[derive(Deserialize)]
    struct Head {
        schema: u64,
    }
    if bytes.len() > MAX_LINE_BYTES {
        return Err(LineError::TooLong);
    }
    // The version first: a newer record would otherwise be refused for its first unknown field.
    let head: Head = json(bytes)?;
    if head.schema != u64::from(SCHEMA) {
        return Err(LineError::Schema { found: head.schema });
    }
    let record: Record = json(bytes)?;
    record.validate()?;
    Ok(record)
}

fn json<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, LineError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let refuse = |field: String, error: &serde_json::Error| {
        let message = error.to_string();
        // The position is that within the line, and is given before the message.
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message).to_owned();
        // A number that is cut after its point is an "invalid number" at the last column.
        let ends_early = error.is_eof() || error.is_syntax() && error.column() >= bytes.len();
        LineError::Json { column: error.column(), field, message, ends_early }
    };
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| refuse(error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| refuse(".".into(), &error))?;
    Ok(value)
}

/// A store that is open for writing, by one run at a time.
///
/// ```no_run
/// use dlis_experiment::Store;
/// # fn measure() -> dlis_experiment::Record { unimplemented!() }
/// # let points: Vec<dlis_experiment::StackPoint> = vec![];
/// let mut store = Store::open("records.jsonl")?;
/// for point in points {
///     if !store.contains(&point.id()) {
///         store.append(measure())?;
///     }
/// }
/// # Ok::<(), dlis_experiment::StoreError>(())
/// ```
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Open for appending; the lock on it ends with it.
    file: File,
    records: Records,
}

impl Store {
    /// Opens the store at `path`, with its folders if it is not there yet, and reads its records. A torn
    /// last line is cut off; [`Store::notes`] tell of it.
    ///
    /// # Errors
    ///
    /// If the file can't be opened, another run has it open, or it holds anything else than records.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let io = |action| {
            let path = path.clone();
            move |source| StoreError::Io { path, action, source }
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(io("make its folder"))?;
        }
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(io("open it for writing"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(io("lock it")(source)),
        }
        let mut records = Records::read(&path, &file)?;
        if file.metadata().map_err(io("read it"))?.len() > records.whole_bytes {
            file.set_len(records.whole_bytes).map_err(io("cut off its torn last line"))?;
        }
        if records.lacks_line_break {
            file.write_all(b"\n").map_err(io("end its last line"))?;
            records.whole_bytes += 1;
        }
        file.sync_all().map_err(io("flush it"))?;
        Ok(Self { path, file, records })
    }

    /// Reads the records of the store at `path` without touching it, be it that a run is writing to it. A
    /// torn last line is left out. A store that is not there has no records.
    ///
    /// # Errors
    ///
    /// If the file can't be read or holds anything else than records.
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>, StoreError> {
        let path = path.as_ref();
        match File::open(path) {
            Ok(file) => Ok(Records::read(path, &file)?.list),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(StoreError::Io { path: path.to_owned(), action: "open it", source }),
        }
    }

    /// Adds a record and flushes it to the disk. It replaces an earlier one with its id.
    ///
    /// # Errors
    ///
    /// If the record is not valid or too long, or the file system refuses; the file is then as before.
    pub fn append(&mut self, record: Record) -> Result<(), StoreError> {
        let refuse = |path: &Path, source| StoreError::Append { path: path.to_owned(), source };
        record.validate().map_err(|error| refuse(&self.path, error.into()))?;
        let mut line = serde_json::to_vec(&record).map_err(|error| StoreError::Io {
            path: self.path.clone(),
            action: "write a record as JSON",
            source: error.into(),
        })?;
        if line.len() > MAX_LINE_BYTES {
            return Err(refuse(&self.path, LineError::TooLong));
        }
        line.push(b'\n');
        // A full disk leaves half a line, which must not stay before the next one.
        let whole_bytes = self.records.whole_bytes;
        let written = self.file.metadata().and_then(|now| {
            if now.len() == whole_bytes { Ok(()) } else { self.file.set_len(whole_bytes) }?;
            self.file.write_all(&line)?;
            self.file.sync_data()
        });
        if let Err(source) = written {
            // If even this fails, the next append or open cuts it off.
            let _ = self.file.set_len(whole_bytes);
            return Err(StoreError::Io { path: self.path.clone(), action: "append a record", source });
        }
        self.records.whole_bytes += line.len() as u64;
        self.records.insert(record);
        Ok(())
    }

    /// Whether a record with this id is there.
    pub fn contains(&self, id: &str) -> bool {
        self.records.by_id.contains_key(id)
    }

    /// The record with this id.
    pub fn get(&self, id: &str) -> Option<&Record> {
        self.records.by_id.get(id).map(|&index| &self.records.list[index])
    }

    /// All records, in the order in which their ids first came.
    pub fn records(&self) -> &[Record] {
        &self.records.list
    }

    /// What a user should know about how the store was found.
    pub fn notes(&self) -> &[String] {
        &self.records.notes
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
