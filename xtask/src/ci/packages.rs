//! Programs and libraries that the tests need beside a Rust toolchain.

use std::path::PathBuf;
use std::process::Command;

use crate::Failure;

/// A program, or a library's file (whatever its version, if the name ends in a dot); the Debian package that has it, and
/// what for.
type Needed = (&'static str, &'static str, &'static str);

const NEEDED: [Needed; 6] = [
    ("gcc", "gcc", "compiles the OpenMP side of the fork-join benchmark"),
    ("chromium", "chromium", "opens the report in its test"),
    ("chromedriver", "chromium-driver", "drives the report's test"),
    ("libOpenCL.so", "ocl-icd-opencl-dev", "the OpenCL loader, which dlis-opencl links"),
    ("libpocl.so.", "pocl-opencl-icd", "makes an OpenCL device of the processor"),
    ("libclblast.so.", "libclblast1", "the library that OpenCL kernels are compared with"),
];
/// What the checks of training need besides.
const FOR_TRAINING: [Needed; 3] = [
    ("g++", "g++", "compiles what tch calls libtorch by"),
    ("pip3", "python3-pip", "fetches libtorch"),
    ("unzip", "unzip", "unpacks libtorch"),
];

/// Where libraries lie on Debian and its relatives, the processor's own folder besides.
const LIBRARIES: [&str; 3] = ["/usr/lib", "/usr/local/lib", "/lib"];

/// A library's file: of this name, or of one that begins so if it ends in a dot.
fn find_library(name: &str) -> Option<PathBuf> {
    let own = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = LIBRARIES.iter().flat_map(|folder| [PathBuf::from(folder), PathBuf::from(folder).join(&own)]);
    let is_it = |entry: &std::fs::DirEntry| {
        let file = entry.file_name();
        if name.ends_with('.') { file.to_string_lossy().starts_with(name) } else { file == name }
    };
    folders
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .find(is_it)
        .map(|entry| entry.path())
}

/// Whether it is here: a program on the path, or a library.
fn is_here(name: &str) -> bool {
    if name.contains(".so") { find_library(name).is_some() } else { find(name).is_some() }
}

/// Whether a program is on the path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What is missing.
pub(crate) fn missing(training: bool) -> Vec<Needed> {
    let for_training = if training { &FOR_TRAINING[..] } else { &[] };
    NEEDED.iter().chain(for_training).filter(|(name, ..)| !is_here(name)).copied().collect()
}

/// Installs what is missing where that is allowed (Debian, as root), and otherwise names it.
pub(crate) fn install(training: bool) -> Result<(), Failure> {
    let missing = missing(training);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    let list = packages.join(" ");
    if find("apt-get").is_none() || !is_root() {
        return Err(Failure::new(format!("the tests need {list}: install them with `sudo apt-get install {list}`")));
    }
    eprintln!("==> installing {list}");
    let apt = |args: &[&str]| {
        let status = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").status();
        status.is_ok_and(|status| status.success())
    };
    let installed =
        apt(&["update", "-qq"]) && apt(&[&["install", "-y", "-qq", "--no-install-recommends"][..], &packages].concat());
    if installed && self::missing(training).is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("`apt-get install {list}` failed: install them by hand and run this again")))
}

/// Whether this process may install packages.
fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
