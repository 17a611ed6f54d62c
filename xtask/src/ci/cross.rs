//! The architecture that this machine is not of: its kernels are other code, which is compiled but cannot run here.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What kernels are written for beside the architecture of this machine.
const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "x86_64-unknown-linux-gnu" } else { "aarch64-unknown-linux-gnu" };

/// The arguments of clippy that check the crates with code of their own for each architecture. Nothing is linked, so
/// no compiler or library of the other architecture is needed.
pub(super) const LINT: [&str; 12] = [
    "clippy",
    "--target",
    TARGET,
    "--package",
    "dlis-hw",
    "--package",
    "dlis-kernels",
    "--package",
    "dlis-cpu-omp",
    "--",
    "--deny",
    "warnings",
];

/// The target's name if its standard library is here, or could be fetched; else why not.
pub(super) fn find_or_fetch(root: &Path) -> Result<&'static str, String> {
    if has_library(root) {
        return Ok(TARGET);
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(root).output();
    match added {
        Ok(_) if has_library(root) => Ok(TARGET),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            Err(format!("`rustup target add {TARGET}` did not bring it ({last})"))
        }
        Err(error) => Err(format!("{TARGET} is not installed, and `rustup` could not be started ({error})")),
    }
}

/// Whether the compiler that builds this workspace has the target's standard library.
fn has_library(root: &Path) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).current_dir(root).output();
    let Ok(printed) = printed else { return false };
    let folder = PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim());
    let Ok(mut files) = std::fs::read_dir(folder) else { return false };
    files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
}
