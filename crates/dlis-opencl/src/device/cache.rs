//! Where compiled programs and tuning results are kept: `$DLIS_OPENCL_CACHE`, else `dlis/opencl` in the user's cache
//! folder.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

/// Largest file that is read.
const MAX_BYTES: u64 = 64 << 20;

fn folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("DLIS_OPENCL_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("dlis/opencl")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/dlis/opencl")))
}

/// The bytes kept under a name, if there are any.
pub(crate) fn read(name: &str) -> Option<Vec<u8>> {
    let file = std::fs::File::open(folder()?.join(name)).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_BYTES && !bytes.is_empty()).then_some(bytes)
}

/// Keeps bytes under a name, whole or not at all.
pub(crate) fn write(name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = folder().ok_or_else(|| io::Error::other("there is no cache folder"))?;
    std::fs::create_dir_all(&folder)?;
    let temporary = folder.join(format!("{name}.{}.tmp", std::process::id()));
    let written = (|| {
        std::fs::File::create(&temporary)?.write_all(bytes)?;
        std::fs::rename(&temporary, folder.join(name))
    })();
    if written.is_err() {
        // Best effort: the error that matters is the one that is returned.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
