//! libtorch, which `dlis-train` links: the one that the environment names, or one fetched through pip.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// The PyTorch that the `tch` of this workspace is made for.
const TORCH: &str = "torch==2.11.0";
/// What its CPU library is linked to besides: PyTorch's own packages of them are small.
const CUDA: [&str; 2] = ["nvidia-cuda-runtime>=13,<14", "nvidia-cuda-cupti>=13,<14"];
/// What is unpacked of a wheel: the libraries of the CPU and the headers, a third of the whole.
const WANTED: [&str; 7] = [
    "torch/lib/libc10.so",
    "torch/lib/libgomp*",
    "torch/lib/libtorch_cpu.so",
    "torch/include/*",
    "torch/share/*",
    "nvidia/cu13/lib/libcudart.so*",
    "nvidia/cu13/lib/libcupti.so*",
];

/// What stands in the place of `libtorch.so`, which does nothing but name CUDA's libraries beside the CPU's: a
/// linker script without them, as a machine without a GPU does not have them.
const CPU_ALONE: &str = "INPUT(libtorch_cpu.so)\n";

/// An unpacked libtorch.
#[derive(Debug)]
pub(crate) struct Libtorch {
    home: PathBuf,
    /// Whether it was fetched here, and is of the CPU alone.
    own: bool,
}

impl Libtorch {
    /// The one that `LIBTORCH` names, or the one below the target folder of the workspace at `root`, fetched if
    /// it is not there yet (half a gigabyte).
    pub(crate) fn find_or_fetch(root: &Path) -> Result<Self, Failure> {
        if let Some(home) = std::env::var_os("LIBTORCH") {
            return Ok(Self { home: home.into(), own: false });
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let folder = target.join("libtorch-cpu");
        if !folder.join("torch").is_dir() {
            fetch(&folder)?;
        }
        Ok(Self { home: folder.join("torch"), own: true })
    }

    /// What a build and a run with it need in their environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let libraries = self.home.join("lib");
        let path = match std::env::var_os("LD_LIBRARY_PATH") {
            Some(others) if !others.is_empty() => {
                let mut path = libraries.into_os_string();
                path.push(":");
                path.push(others);
                path
            }
            _ => libraries.into_os_string(),
        };
        let mut environment = vec![
            ("LIBTORCH", self.home.clone().into_os_string()),
            // Whoever names a libtorch of another version knows why.
            ("LIBTORCH_BYPASS_VERSION_CHECK", "1".into()),
            ("LD_LIBRARY_PATH", path),
        ];
        if !self.own {
            // Its libtorch.so names CUDA's libraries, which a machine without a GPU does not have.
            environment.push(("RUSTFLAGS", "-C link-arg=-Wl,--unresolved-symbols=ignore-in-shared-libs".into()));
        }
        environment
    }
}

/// Fetches and unpacks into `folder`, which appears whole or not at all.
fn fetch(folder: &Path) -> Result<(), Failure> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Failure::new(format!("{path}: {error}"))
    };
    let partial = folder.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(io(&partial))?;
    }
    let wheels = partial.join("wheels");
    std::fs::create_dir_all(&wheels).map_err(io(&wheels))?;
    eprintln!("==> fetching libtorch ({TORCH})");
    let mut pip = Command::new("pip3");
    pip.args(["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"]).arg(&wheels);
    run(pip.arg(TORCH).args(CUDA))?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&wheels).map_err(io(&wheels))? {
        found.push(entry.map_err(io(&wheels))?.path());
    }
    for wheel in found {
        let mut unzip = Command::new("unzip");
        unzip.arg("-q").arg("-o").arg(&wheel).args(WANTED).arg("-d").arg(&partial);
        // 11: some patterns match nothing, as each wheel has only its own files.
        let status = unzip.status().map_err(|error| Failure::new(format!("`unzip` could not be started: {error}")))?;
        if !matches!(status.code(), Some(0 | 11)) {
            return Err(Failure::new(format!("{}: `unzip` failed ({status})", wheel.display())));
        }
    }
    std::fs::remove_dir_all(&wheels).map_err(io(&wheels))?;
    if !partial.join("torch/lib/libtorch_cpu.so").is_file() {
        return Err(Failure::new(format!(
            "the wheel of {TORCH} has no torch/lib/libtorch_cpu.so: set LIBTORCH to the folder `torch` of a PyTorch 2.11"
        )));
    }
    let whole = partial.join("torch/lib/libtorch.so");
    std::fs::write(&whole, CPU_ALONE).map_err(io(&whole))?;
    std::fs::rename(&partial, folder).map_err(io(folder))
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let name = command.get_program().display().to_string();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(Failure::new(format!("`{name}` failed ({status}); LIBTORCH may name a PyTorch 2.11 instead")))
        }
        Err(error) => Err(Failure::new(format!("`{name}` could not be started: {error}"))),
    }
}
