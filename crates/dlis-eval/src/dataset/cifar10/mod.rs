//! CIFAR-10 (Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009):
//! 50,000 training and 10,000 test images of 32x32 RGB in ten classes.
//!
//! - [`embedded`]: 1,000 test images that travel with the crate, so that work starts offline.
//! - [`calibration`]: 128 training images that do so, too.
//! - [`load`]: the whole set from a folder, in any of the forms of [`Form`].
//!   [`crate::fetch::fetch_cifar10`] fills such a folder.
//!
//! Every form gives the same bytes in the same order; [`TRAIN_SHA256`] and [`TEST_SHA256`] say so.

mod binary;
mod embedded;
mod form;
mod parts;
mod png_rows;

use std::path::Path;

use ndarray::Array4;

pub use embedded::{
    CALIBRATION_IMAGES, CALIBRATION_SHA256, EMBEDDED_PER_CLASS, EMBEDDED_SHA256, balanced_indices, calibration,
    embedded, embedded_indices,
};
pub use form::Form;

use super::{Dataset, DatasetError};
use parts::Part;

/// The classes, in the order of their labels.
pub const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Height and width of an image.
pub const SIDE: usize = 32;
/// Bytes of an image: three planes of 32x32.
pub const IMAGE_LEN: usize = 3 * SIDE * SIDE;
/// Images in each of the six files of the set.
pub const IMAGES_PER_FILE: usize = 10_000;
/// Images of the training set.
pub const TRAIN_IMAGES: usize = 5 * IMAGES_PER_FILE;
/// Images of the test set.
pub const TEST_IMAGES: usize = IMAGES_PER_FILE;

/// [`Dataset::sha256`] of the whole training set.
pub const TRAIN_SHA256: &str = "72271e0eaae021dd9568260927404c4fff87e7e0bfa04c843b94150b01b9bc26";
/// [`Dataset::sha256`] of the whole test set.
pub const TEST_SHA256: &str = "ecc0a6ddb5cb58330ce4f06c1825ec8c68baeade5baaacbb3cbdf8f385599213";

/// The whole set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cifar10 {
    /// 50,000 images, 5,000 a class.
    pub train: Dataset,
    /// 10,000 images, 1,000 a class.
    pub test: Dataset,
}

impl Cifar10 {
    /// Whether both halves are byte for byte the published set.
    pub fn is_authentic(&self) -> bool {
        self.test.sha256() == TEST_SHA256 && self.train.sha256() == TRAIN_SHA256
    }
}

/// Reads the training and the test set from `dir`, in whichever [`Form`] it holds.
///
/// Takes a few seconds and about 250 MB while it runs, 185 MB after. Structure is checked
/// (sizes, dimensions, labels), content is not: see [`Cifar10::is_authentic`].
///
/// # Errors
/// [`DatasetError`], naming the file and what was expected of it. No input makes it panic or
/// allocate more than the file can fill.
pub fn load(dir: &Path) -> Result<Cifar10, DatasetError> {
    let form = Form::detect(dir)?;
    let mut parts = parts::read(dir, form, &Part::ALL)?;
    let test = parts.split_off(parts.len() - 1);
    Ok(Cifar10 { train: assemble("cifar10-train", parts)?, test: assemble("cifar10-test", test)? })
}

/// Reads only the test set from `dir`, without decoding the training images.
///
/// # Errors
/// As [`load`].
pub fn load_test(dir: &Path) -> Result<Dataset, DatasetError> {
    let form = Form::detect(dir)?;
    assemble("cifar10-test", parts::read(dir, form, &[Part::Test])?)
}

/// One of the six files: its pixels in NCHW order and its labels.
#[derive(Debug)]
struct Images {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

fn assemble(name: &str, parts: Vec<Images>) -> Result<Dataset, DatasetError> {
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for part in parts {
        pixels.extend_from_slice(&part.pixels);
        labels.extend_from_slice(&part.labels);
    }
    let shape = (labels.len(), 3, SIDE, SIDE);
    let bytes = pixels.len();
    let images = Array4::from_shape_vec(shape, pixels)
        .map_err(|_| DatasetError::field(name, "pixels", format!("{shape:?}"), bytes))?;
    Dataset::new(name, images, labels, classes())
}

fn classes() -> Vec<String> {
    CLASSES.iter().map(ToString::to_string).collect()
}

/// Checks that `label` is one of the ten classes.
fn check_label(file: &str, image: usize, label: u64) -> Result<u8, DatasetError> {
    match u8::try_from(label) {
        Ok(label) if usize::from(label) < CLASSES.len() => Ok(label),
        _ => Err(DatasetError::field(file, format!("label of image {image}"), "0 to 9", label)),
    }
}
