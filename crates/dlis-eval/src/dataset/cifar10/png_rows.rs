//! The PNG form: an image a row, its 1,024 pixels in row order, and JSON arrays of labels.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Limits};

use super::{DatasetError, IMAGE_LEN, IMAGES_PER_FILE, SIDE, check_label};

/// Pixels of an image, which is the width of the PNG.
const PLANE: usize = SIDE * SIDE;

/// Largest PNG accepted: the raw pixels and a little for filters and chunks. The published ones
/// have 23 MB.
pub(super) const MAX_BYTES: u64 = (IMAGES_PER_FILE * IMAGE_LEN) as u64 + (1 << 20);

/// The pixels of one file in NCHW order.
pub(super) fn pixels(file: &str, bytes: &[u8]) -> Result<Vec<u8>, DatasetError> {
    planes_of_rows(file, bytes, IMAGES_PER_FILE)
}

/// The labels of one file, which must be `count`.
pub(super) fn labels(file: &str, bytes: &[u8], count: usize) -> Result<Vec<u8>, DatasetError> {
    let numbers: Vec<u64> =
        serde_json::from_slice(bytes).map_err(|source| DatasetError::Json { file: file.to_owned(), source })?;
    if numbers.len() != count {
        return Err(DatasetError::field(file, "labels", count, numbers.len()));
    }
    numbers.into_iter().enumerate().map(|(image, label)| check_label(file, image, label)).collect()
}

/// Decodes a PNG of `rows` images, after its header has proved to be of that shape.
fn planes_of_rows(file: &str, bytes: &[u8], rows: usize) -> Result<Vec<u8>, DatasetError> {
    let broken = |source| DatasetError::Png { file: file.to_owned(), source };
    // The decoder's own buffers need a few rows; ancillary chunks get no more than that.
    let limits = Limits { bytes: 1 << 20 };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(broken)?;
    let found = (header.width as usize, header.height as usize, header.color_type, header.bit_depth, header.interlaced);
    let (width, height, color, depth, interlaced) = found;
    if (width, height) != (PLANE, rows) {
        let expected = format!("{PLANE}x{rows}");
        let found = format!("{width}x{height}");
        return Err(DatasetError::field(file, "dimensions", expected, found));
    }
    if (color, depth) != (ColorType::Rgb, BitDepth::Eight) {
        let found = format!("{color:?} of {} bits", depth as u8);
        let expected = "Rgb of 8 bits";
        return Err(DatasetError::field(file, "colour type", expected, found));
    }
    if interlaced {
        return Err(DatasetError::field(file, "interlacing", "none", "Adam7"));
    }
    let mut reader = decoder.read_info().map_err(broken)?;
    let mut out = Vec::new();
    let mut row = 0;
    while let Some(decoded) = reader.next_row().map_err(broken)? {
        row += 1;
        push_planes(&mut out, decoded.data());
    }
    if row == rows && out.len() == rows * IMAGE_LEN {
        Ok(out)
    } else {
        Err(DatasetError::field(file, "rows", rows, row))
    }
}

/// Appends interleaved RGB as three planes.
pub(super) fn push_planes(out: &mut Vec<u8>, rgb: &[u8]) {
    for channel in 0..3 {
        out.extend(rgb.iter().skip(channel).step_by(3));
    }
}
