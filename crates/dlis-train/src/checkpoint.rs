//! A run's state in a file, written whole or not at all.

use std::fs::{self, File};
use std::path::PathBuf;

use tch::{Kind, Tensor};

use crate::error::{TrainError, extent};

/// Files of training runs below a folder.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
}

/// A named tensor of a state.
pub(crate) type Entry<'a> = (String, &'a mut Tensor);

impl Checkpoints {
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the run of this key is kept; keys are paths of harmless segments.
    pub(crate) fn path(&self, key: &str) -> Result<PathBuf, TrainError> {
        let harmless = |segment: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !segment.is_empty() && segment.chars().all(known) && segment != "." && segment != ".."
        };
        if !key.split('/').all(harmless) {
            return Err(TrainError::Task {
                key: key.to_owned(),
                field: "key".to_owned(),
                expected: "segments of letters, digits, `-`, `_` and `.`, separated by `/`".to_owned(),
                found: format!("{key:?}"),
            });
        }
        Ok(self.folder.join(format!("{key}.checkpoint.safetensors")))
    }

    /// Writes a state after so many steps.
    pub(crate) fn save(&self, key: &str, step: usize, state: &mut [Entry<'_>]) -> Result<(), TrainError> {
        let path = self.path(key)?;
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let mut tensors = vec![("step".to_owned(), Tensor::f_from_slice(&[extent(step)])?)];
        for (name, tensor) in state {
            tensors.push((name.clone(), tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?));
        }
        let partial = path.with_extension("partial");
        Tensor::write_safetensors(&tensors, &partial)?;
        File::open(&partial).and_then(|file| file.sync_all()).map_err(TrainError::io(&partial))?;
        fs::rename(&partial, &path).map_err(TrainError::io(&path))
    }

    /// Reads the state of a run into tensors of the same names, kinds and extents; how many steps it had done, or
    /// `None` if there is no file. A file of another run is an error, and changes nothing.
    pub(crate) fn load(&self, key: &str, state: &mut [Entry<'_>]) -> Result<Option<usize>, TrainError> {
        let path = self.path(key)?;
        if !path.is_file() {
            return Ok(None);
        }
        let stored = Tensor::read_safetensors(&path)
            .map_err(|error| TrainError::Checkpoint { path: path.clone(), problem: error.to_string() })?;
        read(&stored, state).map(Some).map_err(|problem| match problem {
            Problem::Torch(error) => error.into(),
            Problem::Text(problem) => TrainError::Checkpoint { path: path.clone(), problem },
        })
    }
}

enum Problem {
    Torch(tch::TchError),
    Text(String),
}

fn read(stored: &[(String, Tensor)], state: &mut [Entry<'_>]) -> Result<usize, Problem> {
    let find = |name: &str| {
        let found = stored.iter().find(|(stored, _)| stored == name).map(|(_, tensor)| tensor);
        found.ok_or_else(|| Problem::Text(format!("tensor `{name}` is missing")))
    };
    let step = find("step")?;
    if step.kind() != Kind::Int64 || step.size() != [1] {
        return Err(Problem::Text("tensor `step`: expected one 64-bit integer".to_owned()));
    }
    for (name, tensor) in state.iter() {
        let found = find(name)?;
        if (found.kind(), found.size()) != (tensor.kind(), tensor.size()) {
            let [found, expected] = [found, &**tensor].map(|tensor| format!("{:?} {:?}", tensor.kind(), tensor.size()));
            return Err(Problem::Text(format!("tensor `{name}`: expected {expected}, found {found}")));
        }
    }
    let step = step.f_int64_value(&[0]).map_err(Problem::Torch)?;
    let step = usize::try_from(step).map_err(|_| Problem::Text(format!("{step} steps")))?;
    let _guard = tch::no_grad_guard();
    for (name, tensor) in state {
        tensor.f_copy_(find(name)?).map_err(Problem::Torch)?;
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_the_folder() {
        let checkpoints = Checkpoints::new("/folder");
        assert!(checkpoints.path("net/prune-90/step.1").unwrap().starts_with("/folder/net"));
        for bad in ["../x", "a//b", "", "/etc", "a/./b", "a b"] {
            assert!(checkpoints.path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_of_other_runs_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        let mut a = Tensor::from_slice(&[1.0_f32, 2.0]);
        assert_eq!(checkpoints.load("k", &mut [("a".into(), &mut a)]).unwrap(), None);
        checkpoints.save("k", 7, &mut [("a".into(), &mut a)]).unwrap();
        let mut other = Tensor::from_slice(&[0.0_f32; 3]);
        let error = checkpoints.load("k", &mut [("a".into(), &mut other)]).unwrap_err().to_string();
        assert!(error.contains("tensor `a`: expected Float [3], found Float [2]"), "{error}");
        let mut same = Tensor::from_slice(&[0.0_f32; 2]);
        assert_eq!(checkpoints.load("k", &mut [("a".into(), &mut same)]).unwrap(), Some(7));
        assert_eq!(same, a);
        fs::write(checkpoints.path("k").unwrap(), b"junk").unwrap();
        assert!(matches!(checkpoints.load("k", &mut [("a".into(), &mut same)]), Err(TrainError::Checkpoint { .. })));
    }
}
