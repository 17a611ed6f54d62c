//! Makes the images that travel with the crate, from a folder with the whole CIFAR-10:
//!
//! ```sh
//! cargo run --release -p dlis-eval --example make_embedded -- <folder> [<output folder>]
//! ```
//!
//! Tries several tile sheets and PNG filters, and keeps the smallest file. Deterministic: the
//! same set gives the same bytes. Also prints the statistics and digests the crate names.
#![expect(clippy::print_stdout, reason = "a program, run by hand")]

use std::error::Error;
use std::path::{Path, PathBuf};

use dlis_eval::dataset::{Dataset, cifar10};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let source = args.next().ok_or("give the folder that holds CIFAR-10")?;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let output = args.next().unwrap_or(data);

    let set = cifar10::load(&source)?;
    for half in [&set.train, &set.test] {
        let (mean, std) = statistics(half);
        println!("{}: sha256 {}", half.name(), half.sha256());
        println!("  mean {mean:.8?} std {std:.8?}");
    }

    let test = cifar10::balanced_indices(&set.test, cifar10::EMBEDDED_PER_CLASS);
    write(&output, "cifar10-test-1000", &set.test, &test, &[1, 5, 10, 20, 40, 50])?;
    // As many of each class as make enough images, less those that are too many.
    let per_class = cifar10::CALIBRATION_IMAGES.div_ceil(cifar10::CLASSES.len());
    let mut train = cifar10::balanced_indices(&set.train, per_class);
    train.truncate(cifar10::CALIBRATION_IMAGES);
    write(&output, "cifar10-train-128", &set.train, &train, &[1, 2, 4, 8, 16, 32])
}

/// Writes the two files of a slice; the sheet's columns and filter are those that make the smallest file.
fn write(
    output: &Path,
    name: &str,
    half: &Dataset,
    indices: &[usize],
    columns: &[usize],
) -> Result<(), Box<dyn Error>> {
    let slice = half.select(name, indices)?;
    println!("{}: sha256 {}", slice.name(), slice.sha256());
    let mut best: Option<Vec<u8>> = None;
    for &columns in columns {
        for filter in [png::Filter::Adaptive, png::Filter::MinEntropy, png::Filter::Paeth] {
            let file = sheet(&slice, columns, filter)?;
            println!("  {columns} columns, {filter:?}: {} bytes", file.len());
            if best.as_ref().is_none_or(|best| file.len() < best.len()) {
                best = Some(file);
            }
        }
    }
    let index = serde_json::json!({ "indices": indices, "labels": slice.labels() });
    std::fs::write(output.join(format!("{name}.png")), best.unwrap_or_default())?;
    std::fs::write(output.join(format!("{name}.json")), format!("{index}\n"))?;
    Ok(())
}

/// The images as tiles, row after row, in a PNG that is `columns` tiles wide.
fn sheet(slice: &Dataset, columns: usize, filter: png::Filter) -> Result<Vec<u8>, Box<dyn Error>> {
    let (side, rows) = (cifar10::SIDE, slice.len() / columns);
    let (width, height) = (columns * side, rows * side);
    let images = slice.images();
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let image = y / side * columns + x / side;
            pixels.extend((0..3).map(|c| images[[image, c, y % side, x % side]]));
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width.try_into()?, height.try_into()?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(filter);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(file)
}

/// Mean and standard deviation of each channel of `byte / 255`.
fn statistics(set: &Dataset) -> ([f64; 3], [f64; 3]) {
    let (mut mean, mut std) = ([0.0; 3], [0.0; 3]);
    for (channel, plane) in set.images().axis_iter(ndarray::Axis(1)).enumerate() {
        let count = plane.len() as f64;
        let (sum, squares) = plane.iter().fold((0_u64, 0_u64), |(sum, squares), &byte| {
            let byte = u64::from(byte);
            (sum + byte, squares + byte * byte)
        });
        let average = sum as f64 / count;
        mean[channel] = average / 255.0;
        std[channel] = (squares as f64 / count - average * average).sqrt() / 255.0;
    }
    (mean, std)
}
