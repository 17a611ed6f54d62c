//! The official binary records: a label byte, then 3,072 bytes of red, green and blue planes.

use super::{DatasetError, IMAGE_LEN, IMAGES_PER_FILE, Images, check_label};

const RECORD_LEN: usize = 1 + IMAGE_LEN;

/// Exact size of each of the six files.
pub(super) const FILE_BYTES: u64 = (IMAGES_PER_FILE * RECORD_LEN) as u64;

/// Splits the records of one file, whose size is [`FILE_BYTES`].
pub(super) fn images(file: &str, bytes: &[u8]) -> Result<Images, DatasetError> {
    let mut pixels = Vec::with_capacity(bytes.len() / RECORD_LEN * IMAGE_LEN);
    let mut labels = Vec::with_capacity(bytes.len() / RECORD_LEN);
    for (index, record) in bytes.chunks_exact(RECORD_LEN).enumerate() {
        labels.push(check_label(file, index, u64::from(record[0]))?);
        pixels.extend_from_slice(&record[1..]);
    }
    Ok(Images { pixels, labels })
}
