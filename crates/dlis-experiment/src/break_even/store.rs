//! Measurements in a file that a killed run can't spoil.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use dlis_formats::Format;
use serde::{Deserialize, Serialize};

use super::LayerShape;
use crate::InvalidField;
use crate::lines::{self, Line, LinesError};

/// One layer in one format at one sparsity, beside the dense layer that was timed in the same rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The layer.
    pub shape: LayerShape,
    /// The format of its weight.
    pub format: Format,
    /// The share of its weight that is zero, as asked for, 0 to 1.
    pub sparsity: f64,
    /// The backend.
    pub backend: String,
    /// Its threads.
    pub threads: usize,
    /// Images of a run.
    pub batch: usize,
    /// Whether the weights were put out of the caches before every run.
    #[serde(default)]
    pub cold: bool,
    /// The machine.
    pub hw: String,
    /// The kernel that ran it.
    pub kernel: String,
    /// Median time of a run.
    pub median_ns: f64,
    /// The dense layer's kernel,
    pub dense_kernel: String,
    /// and median time.
    pub dense_ns: f64,
    /// Time over dense, round by round.
    pub ratio: f64,
    /// Lower end of its 95 % interval.
    pub ratio_low: f64,
    /// Upper end of its 95 % interval.
    pub ratio_high: f64,
    /// Whether the times deserve little trust.
    pub noisy: bool,
    /// Bytes of the weight as the kernel holds it.
    pub weight_bytes: u64,
    /// Bytes of the dense weight as its kernel holds it.
    pub dense_weight_bytes: u64,
}

impl Measurement {
    /// Whether it is of the same layer, format, system and machine, at whatever sparsity.
    pub(super) fn same_series(&self, other: &Self) -> bool {
        self.shape == other.shape
            && self.format == other.format
            && self.backend == other.backend
            && self.threads == other.threads
            && self.batch == other.batch
            && self.cold == other.cold
            && self.hw == other.hw
    }
}

impl Line for Measurement {
    fn validate(&self) -> Result<(), InvalidField> {
        self.shape.validate()?;
        if !(0.0..=1.0).contains(&self.sparsity) {
            return Err(InvalidField::new("sparsity", "0 to 1", self.sparsity));
        }
        let times = [
            ("median_ns", self.median_ns),
            ("dense_ns", self.dense_ns),
            ("ratio", self.ratio),
            ("ratio_low", self.ratio_low),
            ("ratio_high", self.ratio_high),
        ];
        for (field, value) in times {
            if !(value.is_finite() && value > 0.0) {
                return Err(InvalidField::new(field, "a finite number above 0", value));
            }
        }
        for (field, count, most) in
            [("threads", self.threads, crate::MAX_THREADS), ("batch", self.batch, crate::MAX_BATCH)]
        {
            if !(1..=most).contains(&count) {
                return Err(InvalidField::new(field, format!("1 to {most}"), count));
            }
        }
        let names = [
            ("backend", &self.backend),
            ("hw", &self.hw),
            ("kernel", &self.kernel),
            ("dense_kernel", &self.dense_kernel),
        ];
        for (field, name) in names {
            if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
                return Err(InvalidField::new(field, "a name of 1 to 256 bytes", format!("{} bytes", name.len())));
            }
        }
        Ok(())
    }
}

/// The measurements of a file, open for more, by one run at a time.
#[derive(Debug)]
pub struct Measurements {
    path: PathBuf,
    file: File,
    list: Vec<Measurement>,
}

impl Measurements {
    /// Opens a file, made with its folder if it is not there. A last line that a kill cut short is removed;
    /// what it held is measured again.
    ///
    /// # Errors
    ///
    /// [`LinesError`] if it can't be opened, another run has it open, or it holds anything else.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, LinesError> {
        let path = path.into();
        let io = |action| {
            let path = path.clone();
            move |source| LinesError::Io { path, action, source }
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(io("make its folder"))?;
        }
        let file =
            OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(io("open it for writing"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LinesError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(io("lock it")(source)),
        }
        let text = lines::text(&path, &file)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let list = lines::parse(&path.display().to_string(), &text[..whole])?;
        if whole < text.len() {
            file.set_len(whole as u64).map_err(io("cut off its torn last line"))?;
        }
        Ok(Self { path, file, list })
    }

    /// Reads the measurements of a file without touching it; none, if it is not there.
    ///
    /// # Errors
    ///
    /// [`LinesError`] naming line and field.
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<Measurement>, LinesError> {
        let path = path.as_ref();
        if path.exists() { lines::read(path) } else { Ok(Vec::new()) }
    }

    /// All of them.
    pub fn list(&self) -> &[Measurement] {
        &self.list
    }

    /// Adds measurements and flushes them to the disk.
    pub(super) fn append(&mut self, measurements: Vec<Measurement>) -> Result<(), LinesError> {
        let io = |action| {
            let path = self.path.clone();
            move |source| LinesError::Io { path, action, source }
        };
        for measurement in measurements {
            let mut line = serde_json::to_vec(&measurement).map_err(|error| LinesError::Io {
                path: self.path.clone(),
                action: "write JSON",
                source: error.into(),
            })?;
            line.push(b'\n');
            self.file.write_all(&line).map_err(io("append to it"))?;
            self.list.push(measurement);
        }
        self.file.sync_data().map_err(io("flush it"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::break_even::{MEASUREMENTS_FILE, shapes};

    pub(in crate::break_even) fn measurement(format: Format, sparsity: f64, ratio: f64) -> Measurement {
        Measurement {
            shape: shapes(&dlis_model::zoo::vgg16_cifar10(), &[])[3].shape.clone(),
            format,
            sparsity,
            backend: "omp".into(),
            threads: 1,
            batch: 1,
            cold: false,
            hw: "0123456789abcdef".into(),
            kernel: format!("conv2d/f32/{format}/spmm/avx2"),
            median_ns: 1e6 * ratio,
            dense_kernel: "conv2d/f32/dense/winograd/avx2".into(),
            dense_ns: 1e6,
            ratio,
            ratio_low: ratio * 0.99,
            ratio_high: ratio * 1.01,
            noisy: false,
            weight_bytes: 1000,
            dense_weight_bytes: 4000,
        }
    }

    #[test]
    fn measurements_survive_a_kill_in_the_middle_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join(MEASUREMENTS_FILE);
        let (first, second) = (measurement(Format::CsrF32, 0.5, 2.0), measurement(Format::CsrF32, 0.9, 0.5));
        {
            let mut store = Measurements::open(&path).unwrap();
            assert!(matches!(Measurements::open(&path), Err(LinesError::Locked { .. })));
            store.append(vec![first.clone(), second.clone()]).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        let store = Measurements::open(&path).unwrap();
        assert_eq!(store.list(), std::slice::from_ref(&first));
        drop(store);
        assert_eq!(Measurements::read(&path).unwrap(), [first]);
        assert!(Measurements::read(folder.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn hostile_lines_are_refused() {
        let line = serde_json::to_string(&measurement(Format::Bsr16x1, 0.5, 2.0)).unwrap();
        let refused = |from: &str, to: &str| {
            let changed = line.replace(from, to);
            assert_ne!(changed, line, "{from}");
            lines::parse::<Measurement>("m", &changed).unwrap_err().to_string()
        };
        assert!(refused("\"ratio\":2.0", "\"ratio\":-2.0").contains("`ratio`"));
        assert!(refused("\"sparsity\":0.5", "\"sparsity\":7").contains("`sparsity`"));
        assert!(refused("bsr-16x1\",\"sparsity", "bsr\",\"sparsity").contains("not a weight format"));
        assert!(refused("\"threads\":1", "\"threads\":0").contains("`threads`"));
        assert!(refused("\"input\":[", "\"input\":[0,").contains("m:1"));
        assert!(refused("\"out_channels\":128", "\"out_channels\":9223372036854775807").contains("`shape`"));
        assert!(refused("\"in_channels\":", "\"groups\":0,\"in_channels\":").contains("`shape`"));
    }
}
