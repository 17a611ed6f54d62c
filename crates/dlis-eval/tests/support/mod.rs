//! Made-up CIFAR-10 files: right in structure, cheap in content.

use std::io::Write as _;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};

pub const IMAGES: usize = 10_000;
pub const IMAGE_LEN: usize = 3_072;

/// Label of image `index` of file `part`.
pub fn label(part: u8, index: usize) -> u8 {
    u8::try_from((index + usize::from(part)) % 10).unwrap()
}

/// Value of every pixel of `channel` of image `index`, but for the first pixel, which is `part`.
pub fn pixel(part: u8, channel: usize, index: usize, at: usize) -> u8 {
    if at == 0 { part } else { u8::try_from((index + channel * 7) % 251).unwrap() }
}

/// A whole official file.
pub fn binary(part: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(IMAGES * (IMAGE_LEN + 1));
    for index in 0..IMAGES {
        bytes.push(label(part, index));
        for channel in 0..3 {
            bytes.extend((0..1024).map(|at| pixel(part, channel, index, at)));
        }
    }
    bytes
}

/// A whole PNG of images as rows.
pub fn png(part: u8) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(IMAGES * IMAGE_LEN);
    for index in 0..IMAGES {
        for at in 0..1024 {
            pixels.extend((0..3).map(|channel| pixel(part, channel, index, at)));
        }
    }
    encode(1024, 10_000, png::ColorType::Rgb, &pixels)
}

pub fn encode(width: u32, height: u32, color: png::ColorType, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    encoder.set_compression(png::Compression::Fastest);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels).unwrap();
    writer.finish().unwrap();
    file
}

pub fn labels(parts: std::ops::RangeInclusive<u8>) -> Vec<u8> {
    let all: Vec<u8> = parts.flat_map(|part| (0..IMAGES).map(move |index| label(part, index))).collect();
    serde_json::to_vec(&all).unwrap()
}

/// A gzip-compressed tar of `members`, whose names are taken as they are, however unsafe.
pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    gzip(&tar)
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn write(dir: &Path, name: &str, content: &[u8]) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}
