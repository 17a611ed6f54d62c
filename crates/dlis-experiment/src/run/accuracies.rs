//! Accuracies measured before, by their arithmetic.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::record::Accuracy;

/// Largest file that is read: some hundred thousand accuracies.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Accuracies by [`Accuracy::arithmetic`], appended to a file of JSON Lines as they are measured: classifying
/// a dataset takes minutes, and a run that is killed before its records are complete need not do it again.
#[derive(Debug, Default)]
pub struct Accuracies {
    file: Option<(PathBuf, File)>,
    known: BTreeMap<String, Accuracy>,
}

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccuraciesError {
    /// The file system refused.
    #[error("accuracies `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than any such file.
    #[error("accuracies `{path}`: more than {MAX_FILE_BYTES} bytes; delete it to measure again")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl Accuracies {
    /// The accuracies in a file, none if it is not there yet. A line that is no accuracy, as a kill may leave
    /// one, is passed over: what it said is measured again.
    ///
    /// # Errors
    ///
    /// [`AccuraciesError`] if the file cannot be read, or is too large.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, AccuraciesError> {
        let path = path.as_ref();
        let io = |source| AccuraciesError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io)?;
        let mut text = Vec::new();
        (&mut file).take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(io)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(AccuraciesError::TooLarge { path: path.to_owned() });
        }
        if text.last().is_some_and(|&byte| byte != b'\n') {
            // What is appended must not continue a torn line.
            file.write_all(b"\n").map_err(io)?;
        }
        let mut accuracies = Self { file: Some((path.to_owned(), file)), known: BTreeMap::new() };
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Accuracy>(line) {
                Ok(accuracy) if accuracy.validate().is_ok() => accuracies.learn(accuracy),
                _ => tracing::warn!(path = %path.display(), "a line is no accuracy and was passed over"),
            }
        }
        Ok(accuracies)
    }

    /// The accuracy of an arithmetic, if it has been measured.
    pub fn get(&self, arithmetic: &str) -> Option<&Accuracy> {
        self.known.get(arithmetic)
    }

    /// Adds an accuracy that is on record elsewhere.
    pub(super) fn learn(&mut self, accuracy: Accuracy) {
        self.known.insert(accuracy.arithmetic.clone(), accuracy);
    }

    /// Adds an accuracy that has just been measured.
    pub(super) fn append(&mut self, accuracy: Accuracy) -> Result<(), AccuraciesError> {
        if let Some((path, file)) = &mut self.file {
            let mut write = || {
                let mut line = serde_json::to_vec(&accuracy)?;
                line.push(b'\n');
                file.write_all(&line)?;
                file.sync_data()
            };
            write().map_err(|source| AccuraciesError::Io { path: path.clone(), source })?;
        }
        self.learn(accuracy);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accuracy(arithmetic: &str) -> Accuracy {
        Accuracy { dataset: "d".into(), images: 10, top1: 0.5, top5: 0.9, arithmetic: arithmetic.into() }
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accuracies.jsonl");
        let mut accuracies = Accuracies::open(&path).unwrap();
        accuracies.append(accuracy("a")).unwrap();
        accuracies.append(accuracy("b")).unwrap();
        drop(accuracies);
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for cut in first..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut accuracies = Accuracies::open(&path).unwrap();
            assert_eq!(accuracies.get("a"), Some(&accuracy("a")), "cut at {cut}");
            accuracies.append(accuracy("c")).unwrap();
            drop(accuracies);
            let again = Accuracies::open(&path).unwrap();
            assert!(again.get("a").is_some() && again.get("c").is_some(), "cut at {cut}");
        }
    }

    #[test]
    fn impossible_accuracies_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accuracies.jsonl");
        let line = serde_json::to_string(&Accuracy { top1: 7.0, ..accuracy("a") }).unwrap();
        std::fs::write(&path, format!("{line}\n[1, 2\n\u{7f}\n")).unwrap();
        assert!(Accuracies::open(&path).unwrap().get("a").is_none());
    }
}
