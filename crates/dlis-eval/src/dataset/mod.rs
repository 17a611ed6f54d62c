//! Labelled images, and how they become network input.
//!
//! A [`Dataset`] keeps its images as the bytes the source published, in NCHW order; nothing is
//! normalised until a batch is asked for, so that one copy serves networks trained with
//! different statistics. [`Dataset::batch_into`] writes into memory the caller owns.

pub mod cifar10;
mod error;

use std::ops::Range;

use ndarray::{Array4, ArrayView4};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use error::DatasetError;

use crate::digest::hex;

/// Number of colour channels every dataset here has.
const CHANNELS: usize = 3;

/// Labelled 8-bit RGB images in NCHW order.
///
/// ```
/// use dlis_eval::dataset::{cifar10, Normalization};
///
/// let test = cifar10::embedded();
/// assert_eq!(test.len(), 1_000);
/// assert_eq!(test.image_shape(), [3, 32, 32]);
///
/// let mut batch = vec![0.0; 4 * test.image_len()];
/// test.batch_into(0..4, &Normalization::CIFAR10, &mut batch)?;
/// # Ok::<(), dlis_eval::dataset::DatasetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    name: String,
    images: Array4<u8>,
    labels: Vec<u8>,
    classes: Vec<String>,
}

impl Dataset {
    /// A dataset of `images` ([n, 3, height, width] bytes), one label per image.
    ///
    /// # Errors
    /// [`DatasetError::Field`] when the images are not RGB, the counts of images and labels
    /// differ, or a label has no class.
    pub fn new(
        name: impl Into<String>,
        images: Array4<u8>,
        labels: Vec<u8>,
        classes: Vec<String>,
    ) -> Result<Self, DatasetError> {
        let name = name.into();
        let (count, channels, _, _) = images.dim();
        if channels != CHANNELS {
            return Err(DatasetError::field(name, "channels", CHANNELS, channels));
        }
        if labels.len() != count {
            let expected = format!("{count}, one per image");
            return Err(DatasetError::field(name, "labels", expected, labels.len()));
        }
        if let Some(at) = labels.iter().position(|&l| usize::from(l) >= classes.len()) {
            let expected = format!("a class below {}", classes.len());
            return Err(DatasetError::field(name, format!("label of image {at}"), expected, labels[at]));
        }
        // Batches are read as contiguous slices, whatever strides the array came with.
        let images = if images.is_standard_layout() { images } else { images.as_standard_layout().into_owned() };
        Ok(Self { name, images, labels, classes })
    }

    /// What the dataset is called in records, e.g. `cifar10-test`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The images as [n, 3, height, width] bytes.
    pub fn images(&self) -> ArrayView4<'_, u8> {
        self.images.view()
    }

    /// The class of each image, an index into [`Dataset::classes`].
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Channels, height and width of every image.
    pub fn image_shape(&self) -> [usize; 3] {
        let (_, channels, height, width) = self.images.dim();
        [channels, height, width]
    }

    /// Number of values in one image.
    pub fn image_len(&self) -> usize {
        self.image_shape().iter().product()
    }

    /// The bytes of one image in CHW order, or `None` past the end.
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        let len = self.image_len();
        let start = index.checked_mul(len)?;
        self.pixels().get(start..start.checked_add(len)?)
    }

    /// Every pixel, image after image, in CHW order.
    fn pixels(&self) -> &[u8] {
        // `new` made the layout standard, and nothing changes it.
        self.images.as_slice().unwrap_or_default()
    }

    /// Writes the images of `range` as normalised f32 in NCHW order. Allocates nothing.
    ///
    /// Each value is `(byte / 255 - mean) / std` of its channel, rounded as f32 arithmetic does.
    ///
    /// # Errors
    /// [`DatasetError::Field`] when `range` leaves the dataset or `out` is not exactly
    /// `range.len() * self.image_len()` long; `out` is then untouched.
    pub fn batch_into(
        &self,
        range: Range<usize>,
        normalization: &Normalization,
        out: &mut [f32],
    ) -> Result<(), DatasetError> {
        let len = self.image_len();
        if range.start > range.end || range.end > self.len() {
            let expected = format!("within 0..{}", self.len());
            let found = format!("{range:?}");
            return Err(DatasetError::field(&self.name, "batch", expected, found));
        }
        if out.len() != range.len() * len {
            let expected = format!("{} values", range.len() * len);
            return Err(DatasetError::field(&self.name, "batch buffer", expected, out.len()));
        }
        if len == 0 {
            return Ok(());
        }
        let tables = normalization.tables();
        let plane = len / CHANNELS;
        let pixels = &self.pixels()[range.start * len..range.end * len];
        for (index, (from, to)) in pixels.chunks_exact(plane).zip(out.chunks_exact_mut(plane)).enumerate() {
            let table = &tables[index % CHANNELS];
            for (value, &byte) in to.iter_mut().zip(from) {
                *value = table[usize::from(byte)];
            }
        }
        Ok(())
    }

    /// The images at `indices`, in that order, as a dataset of their own.
    ///
    /// # Errors
    /// [`DatasetError::Field`] when an index is past the end.
    pub fn select(&self, name: impl Into<String>, indices: &[usize]) -> Result<Self, DatasetError> {
        if let Some(&bad) = indices.iter().find(|&&i| i >= self.len()) {
            let expected = format!("below {}", self.len());
            return Err(DatasetError::field(&self.name, "selected index", expected, bad));
        }
        let images = self.images.select(ndarray::Axis(0), indices);
        let labels = indices.iter().map(|&i| self.labels[i]).collect();
        Self::new(name, images, labels, self.classes.clone())
    }

    /// SHA-256 over the labels, then the pixels, as lower-case hexadecimal.
    ///
    /// Depends on the content alone, so the same images read from another file form give the
    /// same digest; records name the data they measured with it.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(&self.labels);
        hasher.update(self.pixels());
        hex(&hasher.finalize())
    }
}

/// Per-channel statistics that bring pixels to the range a network was trained on.
///
/// They apply to `byte / 255`, in the order red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Subtracted from each channel.
    pub mean: [f32; CHANNELS],
    /// Each channel is divided by this, after the subtraction.
    pub std: [f32; CHANNELS],
}

impl Normalization {
    /// Mean and standard deviation over all pixels of the 50,000 CIFAR-10 training images.
    #[expect(clippy::excessive_precision, reason = "the digits as published")]
    pub const CIFAR10: Self =
        Self { mean: [0.491_399_68, 0.482_158_41, 0.446_530_91], std: [0.247_032_23, 0.243_484_13, 0.261_587_84] };

    /// Only brings bytes to 0..=1.
    pub const UNIT: Self = Self { mean: [0.0; CHANNELS], std: [1.0; CHANNELS] };

    /// A byte has 256 values, so a table per channel replaces two divisions per pixel.
    fn tables(&self) -> [[f32; 256]; CHANNELS] {
        let mut tables = [[0.0; 256]; CHANNELS];
        for (channel, table) in tables.iter_mut().enumerate() {
            for (byte, value) in (0_u8..=255).zip(table.iter_mut()) {
                *value = (f32::from(byte) / 255.0 - self.mean[channel]) / self.std[channel];
            }
        }
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<String> {
        vec!["a".into(), "b".into()]
    }

    fn tiny() -> Dataset {
        let images = Array4::from_shape_fn((2, 3, 1, 2), |(n, c, _, x)| u8::try_from(n * 100 + c * 10 + x).unwrap());
        Dataset::new("tiny", images, vec![0, 1], classes()).unwrap()
    }

    #[test]
    fn batch_is_normalised_per_channel_in_nchw_order() {
        let normalization = Normalization { mean: [0.0, 0.5, 1.0], std: [1.0, 0.5, 0.25] };
        let mut out = [0.0; 6];
        tiny().batch_into(1..2, &normalization, &mut out).unwrap();
        let expect = |byte: f32, c: usize| (byte / 255.0 - normalization.mean[c]) / normalization.std[c];
        let wanted = [
            expect(100.0, 0),
            expect(101.0, 0),
            expect(110.0, 1),
            expect(111.0, 1),
            expect(120.0, 2),
            expect(121.0, 2),
        ];
        assert_eq!(out, wanted);
    }

    #[test]
    fn batch_refuses_bad_ranges_and_buffers() {
        let data = tiny();
        let mut out = [7.0; 6];
        #[expect(clippy::reversed_empty_ranges, reason = "a caller may pass one")]
        let reversed = 2..1;
        for range in [1..3, reversed, 0..2, 0..0, usize::MAX..usize::MAX] {
            let error = data.batch_into(range, &Normalization::UNIT, &mut out).unwrap_err();
            assert!(matches!(error, DatasetError::Field { .. }), "{error}");
        }
        assert_eq!(out, [7.0; 6]);
        data.batch_into(1..1, &Normalization::UNIT, &mut []).unwrap();
    }

    #[test]
    fn construction_checks_channels_labels_and_classes() {
        let images = |channels| Array4::<u8>::zeros((1, channels, 2, 2));
        let grey = Dataset::new("x", images(1), vec![0], classes()).unwrap_err();
        assert_eq!(grey.to_string(), "x: channels: expected 3, found 1");
        let counts = Dataset::new("x", images(3), vec![0, 1], classes()).unwrap_err();
        assert_eq!(counts.to_string(), "x: labels: expected 1, one per image, found 2");
        let label = Dataset::new("x", images(3), vec![2], classes()).unwrap_err();
        assert_eq!(label.to_string(), "x: label of image 0: expected a class below 2, found 2");
    }

    #[test]
    fn strided_arrays_are_made_contiguous() {
        let hwc = Array4::from_shape_fn((1, 2, 2, 3), |(_, y, x, c)| u8::try_from(c * 4 + y * 2 + x).unwrap());
        let chw = hwc.permuted_axes([0, 3, 1, 2]);
        let data = Dataset::new("x", chw, vec![0], classes()).unwrap();
        let wanted: Vec<u8> = (0..12).collect();
        assert_eq!(data.image(0).unwrap(), wanted);
        assert!(data.image(1).is_none());
    }

    #[test]
    fn select_keeps_order_and_checks_bounds() {
        let data = tiny();
        let picked = data.select("picked", &[1, 0, 1]).unwrap();
        assert_eq!(picked.labels(), [1, 0, 1]);
        assert_eq!(picked.image(0), data.image(1));
        assert_ne!(picked.sha256(), data.sha256());
        assert!(data.select("picked", &[2]).is_err());
    }
}
