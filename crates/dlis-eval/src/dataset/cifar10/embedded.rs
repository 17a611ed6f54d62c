//! The slices of the set that travel with the crate.
//!
//! Of the test set, the first [`EMBEDDED_PER_CLASS`] images of each class in the order of the set, kept in
//! that order; of the training set, likewise, [`CALIBRATION_IMAGES`]. `cargo run --release -p dlis-eval
//! --example make_embedded -- <folder>` makes the two files of each from the whole set: a lossless PNG with
//! the images as tiles, row after row, and a JSON file with the label of each and its place in its half.

use std::io::Cursor;
use std::sync::OnceLock;

use ndarray::Array4;
use serde::{Deserialize, Serialize};

use super::{Dataset, IMAGE_LEN, SIDE, classes};

/// Embedded images of each class.
pub const EMBEDDED_PER_CLASS: usize = 100;

/// [`Dataset::sha256`] of the embedded slice.
pub const EMBEDDED_SHA256: &str = "e9f26ca12df09a40d1b572029b7c33cb9e39664a779796c5a49bc5edf02ba240";

/// Embedded images of the training set: 13 of each class, less the last two.
pub const CALIBRATION_IMAGES: usize = 128;

/// [`Dataset::sha256`] of the embedded slice of the training set.
pub const CALIBRATION_SHA256: &str = "9e20f96460107dc455477c1964c454cddf65fc77cd050f958b8ef7c5b5e20a90";

const TEST: Slice = Slice {
    name: "cifar10-test-1000",
    images: include_bytes!("../../../data/cifar10-test-1000.png"),
    index: include_str!("../../../data/cifar10-test-1000.json"),
};
const TRAIN: Slice = Slice {
    name: "cifar10-train-128",
    images: include_bytes!("../../../data/cifar10-train-128.png"),
    index: include_str!("../../../data/cifar10-train-128.json"),
};

/// A slice's two files.
struct Slice {
    name: &'static str,
    images: &'static [u8],
    index: &'static str,
}

/// What a slice consists of.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// Place of each image in its half of the set, ascending.
    indices: Vec<usize>,
    /// Class of each image.
    labels: Vec<u8>,
}

/// 1,000 images of the CIFAR-10 test set, 100 a class, that need no file and no network.
///
/// Decoded on each call, which takes tens of milliseconds, so keep what it returns. The images are those of
/// [`balanced_indices`]`(test, 100)`: accuracy on them estimates accuracy on the whole test set
/// with a 95 % interval of about +-1.6 points at 93 %.
///
/// ```
/// let slice = dlis_eval::dataset::cifar10::embedded();
/// assert_eq!(slice.labels().iter().filter(|&&l| l == 3).count(), 100);
/// ```
pub fn embedded() -> Dataset {
    TEST.decode()
}

/// 128 images of the CIFAR-10 training set, 12 or 13 a class, that need no file and no network: for
/// calibrating quantised activations, which must not see the images that accuracy is measured on.
///
/// Decoded on each call. They are the first [`CALIBRATION_IMAGES`] of [`balanced_indices`]`(train, 13)`.
///
/// ```
/// let slice = dlis_eval::dataset::cifar10::calibration();
/// assert_eq!(slice.len(), 128);
/// ```
pub fn calibration() -> Dataset {
    TRAIN.decode()
}

/// The place of each embedded image in the whole test set, ascending.
pub fn embedded_indices() -> &'static [usize] {
    static PARSED: OnceLock<Index> = OnceLock::new();
    &PARSED.get_or_init(|| TEST.index()).indices
}

/// The indices of the first `per_class` images of each class of `dataset`, ascending.
///
/// A class with fewer images gives all it has.
pub fn balanced_indices(dataset: &Dataset, per_class: usize) -> Vec<usize> {
    let mut taken = vec![0; dataset.classes().len()];
    let mut indices = Vec::new();
    for (index, &label) in dataset.labels().iter().enumerate() {
        let taken = &mut taken[usize::from(label)];
        if *taken < per_class {
            *taken += 1;
            indices.push(index);
        }
    }
    indices
}

impl Slice {
    fn decode(&self) -> Dataset {
        let labels = self.index().labels;
        let images = Array4::from_shape_vec((labels.len(), 3, SIDE, SIDE), self.pixels())
            .expect("as many tiles as labels: both files are compiled in");
        Dataset::new(self.name, images, labels, classes()).expect("labels of CIFAR-10: the file is compiled in")
    }

    fn index(&self) -> Index {
        let index: Index = serde_json::from_str(self.index).expect("the file is compiled in");
        assert_eq!(index.indices.len(), index.labels.len());
        index
    }

    /// The tiles of the PNG in NCHW order.
    fn pixels(&self) -> Vec<u8> {
        let mut reader = png::Decoder::new(Cursor::new(self.images)).read_info().expect("the file is compiled in");
        let width = reader.info().width as usize * 3;
        let mut sheet = vec![0; reader.output_buffer_size().expect("a small image")];
        reader.next_frame(&mut sheet).expect("the file is compiled in");

        let tile_row = SIDE * 3;
        let mut pixels = Vec::with_capacity(sheet.len());
        let mut tile = Vec::with_capacity(IMAGE_LEN);
        for band in sheet.chunks_exact(width * SIDE) {
            for left in (0..width).step_by(tile_row) {
                tile.clear();
                for row in band.chunks_exact(width) {
                    tile.extend_from_slice(&row[left..left + tile_row]);
                }
                super::png_rows::push_planes(&mut pixels, &tile);
            }
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_is_balanced_ascending_and_unchanged() {
        let slice = embedded();
        for class in 0..10 {
            let count = slice.labels().iter().filter(|&&l| l == class).count();
            assert_eq!(count, EMBEDDED_PER_CLASS, "class {class}");
        }
        assert!(embedded_indices().is_sorted_by(|a, b| a < b));
        assert_eq!(slice.sha256(), EMBEDDED_SHA256);
        assert!(TEST.images.len() + TEST.index.len() < 3_000_000);
    }

    #[test]
    fn calibration_images_are_balanced_and_unchanged() {
        let slice = calibration();
        assert_eq!(slice.len(), CALIBRATION_IMAGES);
        for class in 0..10 {
            let count = slice.labels().iter().filter(|&&label| label == class).count();
            assert!((12..=13).contains(&count), "class {class}: {count}");
        }
        assert!(TRAIN.index().indices.is_sorted_by(|a, b| a < b));
        assert_eq!(slice.sha256(), CALIBRATION_SHA256);
        assert!(TRAIN.images.len() + TRAIN.index.len() < 400_000);
    }

    #[test]
    fn balanced_indices_take_the_first_of_each_class() {
        let slice = embedded();
        let picked = balanced_indices(&slice, 2);
        assert_eq!(picked.len(), 20);
        assert!(picked.is_sorted());
        let seventh = |n| slice.labels().iter().enumerate().filter(|(_, l)| **l == 7).nth(n);
        assert!(picked.contains(&seventh(0).unwrap().0));
        assert!(picked.contains(&seventh(1).unwrap().0));
        assert!(!picked.contains(&seventh(2).unwrap().0));
        assert_eq!(balanced_indices(&slice, 1_000).len(), 1_000);
    }
}
