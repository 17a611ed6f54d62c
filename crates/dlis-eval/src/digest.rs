//! Checksums as their publishers print them: lower-case hexadecimal.

use std::fmt::Write as _;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::Digest;

/// The checksum a publisher gives for a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// MD5, as older publishers do. It guards against accidents, not against forgery.
    Md5(String),
    /// SHA-256.
    Sha256(String),
}

impl Checksum {
    /// The checksum of the same kind over all of `reader`; `seen` is told the bytes read so far.
    ///
    /// # Errors
    /// Whatever `reader` gives.
    pub fn compute(&self, reader: impl Read, seen: impl FnMut(u64)) -> io::Result<Self> {
        match self {
            Self::Md5(_) => Ok(Self::Md5(digest::<md5::Md5>(reader, seen)?)),
            Self::Sha256(_) => Ok(Self::Sha256(digest::<sha2::Sha256>(reader, seen)?)),
        }
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Md5(hex) => write!(f, "md5 {hex}"),
            Self::Sha256(hex) => write!(f, "sha256 {hex}"),
        }
    }
}

fn digest<D: Digest>(mut reader: impl Read, mut seen: impl FnMut(u64)) -> io::Result<String> {
    let mut hasher = D::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                total += read as u64;
                seen(total);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `bytes` as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let md5 = Checksum::Md5("900150983cd24fb0d6963f7d28e17f72".into());
        assert_eq!(md5.compute(&b"abc"[..], |_| {}).unwrap(), md5);
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let sha = Checksum::Sha256(sha.into());
        let mut seen = 0;
        assert_eq!(sha.compute(&b"abc"[..], |n| seen = n).unwrap(), sha);
        assert_eq!(seen, 3);
        assert_eq!(sha.to_string().len(), "sha256 ".len() + 64);
    }
}
