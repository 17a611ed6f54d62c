//! Measurements that are remembered.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Largest cache file that is read.
const MAX_CACHE_BYTES: u64 = 64 << 20;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Timing {
    pub(super) ns: f64,
    /// Whether measuring was given up as hopeless, so that `ns` is the faster of the first runs.
    pub(super) abandoned: bool,
}

/// Measurements of kernels and whole programs, in a file or in memory. Their keys name machine, backend, threads, kernel,
/// operation (its element types and weight format included) and how sparse the weight is, so that one file may
/// serve several of each.
#[derive(Debug)]
pub struct TuneCache {
    path: Option<PathBuf>,
    pub(super) timings: BTreeMap<String, Timing>,
    pub(super) dirty: bool,
}

/// Why a cache file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneCacheError {
    /// The file system refused.
    #[error("tuning cache `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than any cache.
    #[error("tuning cache `{path}`: {bytes} bytes, expected at most {MAX_CACHE_BYTES}; delete it to measure again")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not a cache.
    #[error("tuning cache `{path}`: {source}; delete it to measure again")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl TuneCache {
    /// A cache that is forgotten.
    pub fn in_memory() -> Self {
        Self { path: None, timings: BTreeMap::new(), dirty: false }
    }

    /// The cache in a file, empty if there is none yet.
    ///
    /// # Errors
    ///
    /// [`TuneCacheError`] if the file cannot be read or is not a cache.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TuneCacheError> {
        let path = path.into();
        let io = |source| TuneCacheError::Io { path: path.clone(), source };
        let timings = match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(io(error)),
            Ok(file) => {
                let size = file.metadata().map_err(io)?.len();
                let mut text = Vec::new();
                // The size of what is no regular file says nothing, so that reading is bounded too.
                if size <= MAX_CACHE_BYTES {
                    file.take(MAX_CACHE_BYTES + 1).read_to_end(&mut text).map_err(io)?;
                }
                let bytes = size.max(text.len() as u64);
                if bytes > MAX_CACHE_BYTES {
                    return Err(TuneCacheError::TooLarge { bytes, path });
                }
                parse(&text).map_err(|source| TuneCacheError::Format { path: path.clone(), source })?
            }
        };
        Ok(Self { path: Some(path), timings, dirty: false })
    }

    /// Number of measurements.
    pub fn len(&self) -> usize {
        self.timings.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.timings.is_empty()
    }

    /// Writes new measurements to the file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`TuneCacheError`] if the file cannot be written.
    pub fn save(&mut self) -> Result<(), TuneCacheError> {
        let Some(path) = self.path.clone().filter(|_| self.dirty) else { return Ok(()) };
        let io = |source| TuneCacheError::Io { path: path.clone(), source };
        let text = serde_json::to_vec(&self.timings)
            .map_err(|source| TuneCacheError::Format { path: path.clone(), source })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(io)?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|error| {
            // Best effort: the error that matters is the one that is returned.
            let _ = std::fs::remove_file(&temporary);
            io(error)
        })?;
        self.dirty = false;
        Ok(())
    }
}

/// The measurements in a file's text. A time that nothing takes would win every choice, so that it is refused.
fn parse(text: &[u8]) -> Result<BTreeMap<String, Timing>, serde_json::Error> {
    let timings: BTreeMap<String, Timing> = serde_json::from_slice(text)?;
    match timings.iter().find(|(_, timing)| !(timing.ns.is_finite() && timing.ns > 0.0)) {
        Some((key, timing)) => {
            Err(serde::de::Error::custom(format!("{key}: a time of {} ns, expected a positive one", timing.ns)))
        }
        None => Ok(timings),
    }
}
