//! Top-1 and top-5 accuracy of anything that turns images into logits.
//!
//! [`evaluate`] takes a closure, so the same count serves a session, a remote engine, or a test.
//! The rules for ties and NaN are [`TopK`]'s and are the same everywhere.

use std::error::Error;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dataset::{Dataset, DatasetError, Normalization};
use crate::stats::{Interval, wilson_95};

/// Counts of images whose class is among the first one or five.
///
/// The rank of a class is the number of classes before it, in the order of falling logit with
/// these rules, which make it depend on nothing but the values:
/// - equal logits: the lower class index comes first (`-0.0` equals `0.0`);
/// - a NaN of another class comes before every number, so it can only cost accuracy;
/// - an image whose own class has a NaN is never correct, not even where there are five classes
///   or fewer and every other image is top-5 correct.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopK {
    /// Images counted.
    pub images: u64,
    /// Images whose class came first.
    pub top1: u64,
    /// Images whose class came among the first five.
    pub top5: u64,
}

impl TopK {
    /// Counts a batch: `logits` is [`labels.len()`, `classes`], row after row.
    ///
    /// # Errors
    /// [`LogitsError`] when the sizes disagree or a label has no logit; nothing is counted then.
    pub fn add(&mut self, logits: &[f32], classes: usize, labels: &[u8]) -> Result<(), LogitsError> {
        if labels.len().checked_mul(classes) != Some(logits.len()) {
            return Err(LogitsError::Size { found: logits.len(), images: labels.len(), classes });
        }
        if let Some(image) = labels.iter().position(|&label| usize::from(label) >= classes) {
            return Err(LogitsError::Label { image, label: labels[image], classes });
        }
        for (row, &label) in logits.chunks_exact(classes.max(1)).zip(labels) {
            let rank = rank(row, usize::from(label));
            self.images += 1;
            self.top1 += u64::from(rank.is_some_and(|rank| rank < 1));
            self.top5 += u64::from(rank.is_some_and(|rank| rank < 5));
        }
        Ok(())
    }

    /// The fractions; zero where nothing was counted.
    pub fn accuracy(&self) -> Accuracy {
        let fraction = |count: u64| if self.images == 0 { 0.0 } else { count as f64 / self.images as f64 };
        Accuracy { images: self.images, top1: fraction(self.top1), top5: fraction(self.top5) }
    }
}

/// How many classes come before `label`, or `None` where its own logit is NaN.
fn rank(row: &[f32], label: usize) -> Option<usize> {
    let own = row[label];
    if own.is_nan() {
        return None;
    }
    let before = |(class, &logit): (usize, &f32)| logit.is_nan() || logit > own || (logit == own && class < label);
    Some(row.iter().enumerate().filter(|&entry| before(entry)).count())
}

/// What [`TopK::add`] cannot count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LogitsError {
    /// There is not one logit per image and class.
    #[error("logits: expected {images} images x {classes} classes, found {found} values")]
    Size {
        /// Values given.
        found: usize,
        /// Labels given.
        images: usize,
        /// Classes given.
        classes: usize,
    },
    /// A label is not a class.
    #[error("label of image {image} of the batch: expected below {classes}, found {label}")]
    Label {
        /// Index in the batch.
        image: usize,
        /// Its label.
        label: u8,
        /// Classes given.
        classes: usize,
    },
}

/// Measured accuracy, as a record keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Images it was measured on.
    pub images: u64,
    /// Fraction of images whose class came first.
    pub top1: f64,
    /// Fraction of images whose class came among the first five.
    pub top5: f64,
}

impl Accuracy {
    /// 95 % Wilson score interval of `top1`: what the accuracy on all images like these may be.
    pub fn top1_interval(&self) -> Interval {
        wilson_95(self.top1, self.images)
    }

    /// 95 % Wilson score interval of `top5`.
    pub fn top5_interval(&self) -> Interval {
        wilson_95(self.top5, self.images)
    }
}

/// Why an evaluation stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvaluateError<E: Error + 'static> {
    /// The batch size was zero.
    #[error("batch size: expected at least 1, found 0")]
    EmptyBatch,
    /// The network failed.
    #[error("the network failed on the batch that starts at image {first_image}")]
    Network {
        /// Index of the first image of the batch in the dataset.
        first_image: usize,
        /// What it said.
        source: E,
    },
    /// A batch could not be made.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The logits could not be counted.
    #[error(transparent)]
    Logits(#[from] LogitsError),
}

/// Runs every image of `dataset` through `network` and counts.
///
/// `network` gets the normalised images as f32 NCHW, `batch` of them and fewer in the last call,
/// and fills one logit per image and class of the dataset; `input.len() /
/// dataset.image_len()` tells it how many there are. The logits are NaN before each call, so what
/// it leaves unwritten is never correct. `progress` gets the images done and the images in all,
/// after each batch. The two buffers are allocated once.
///
/// ```
/// use dlis_eval::accuracy::evaluate;
/// use dlis_eval::dataset::{cifar10, Normalization};
///
/// // A "network" that always answers class 3 is right on one image in ten.
/// let always_cat = |_: &[f32], logits: &mut [f32]| -> Result<(), std::io::Error> {
///     logits.fill(0.0);
///     logits.iter_mut().skip(3).step_by(10).for_each(|logit| *logit = 1.0);
///     Ok(())
/// };
/// let test = cifar10::embedded();
/// let accuracy = evaluate(&test, 64, &Normalization::CIFAR10, always_cat, |_, _| ())?;
/// assert_eq!((accuracy.images, accuracy.top1), (1_000, 0.1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`EvaluateError::Network`] with whatever `network` returned, at once; the others are for a
/// zero `batch` and a dataset that cannot be normalised.
pub fn evaluate<E: Error + 'static>(
    dataset: &Dataset,
    batch: usize,
    normalization: &Normalization,
    mut network: impl FnMut(&[f32], &mut [f32]) -> Result<(), E>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Accuracy, EvaluateError<E>> {
    if batch == 0 {
        return Err(EvaluateError::EmptyBatch);
    }
    let batch = batch.min(dataset.len());
    let (image_len, classes) = (dataset.image_len(), dataset.classes().len());
    let mut input = vec![0.0; batch * image_len];
    let mut logits = vec![0.0; batch * classes];
    let mut count = TopK::default();
    let mut first_image = 0;
    while first_image < dataset.len() {
        let end = dataset.len().min(first_image + batch);
        let images = end - first_image;
        let input = &mut input[..images * image_len];
        let logits = &mut logits[..images * classes];
        dataset.batch_into(first_image..end, normalization, input)?;
        logits.fill(f32::NAN);
        network(input, logits).map_err(|source| EvaluateError::Network { first_image, source })?;
        count.add(logits, classes, &dataset.labels()[first_image..end])?;
        first_image = end;
        progress(end, dataset.len());
    }
    Ok(count.accuracy())
}

#[cfg(test)]
mod tests {
    use std::io;

    use ndarray::Array4;
    use proptest::prelude::*;

    use super::*;

    const NAN: f32 = f32::NAN;

    fn counted(row: &[f32], label: u8) -> (u64, u64) {
        let mut count = TopK::default();
        count.add(row, row.len(), &[label]).unwrap();
        (count.top1, count.top5)
    }

    #[test]
    fn ties_go_to_the_lower_class() {
        assert_eq!(counted(&[1.0, 1.0, 0.0], 0), (1, 1));
        assert_eq!(counted(&[1.0, 1.0, 0.0], 1), (0, 1));
        assert_eq!(counted(&[0.0, -0.0], 1), (0, 1));
        assert_eq!(counted(&[0.0; 6], 4), (0, 1));
        assert_eq!(counted(&[0.0; 6], 5), (0, 0));
    }

    #[test]
    fn nan_is_never_correct_and_outranks_numbers() {
        assert_eq!(counted(&[NAN], 0), (0, 0));
        assert_eq!(counted(&[NAN, 1.0], 1), (0, 1));
        assert_eq!(counted(&[1.0, NAN], 0), (0, 1));
        assert_eq!(counted(&[f32::INFINITY, -1.0], 0), (1, 1));
        assert_eq!(counted(&[NAN, NAN, NAN, NAN, NAN, 9.0], 5), (0, 0));
    }

    #[test]
    fn sizes_and_labels_are_checked_before_counting() {
        let mut count = TopK::default();
        assert!(matches!(count.add(&[0.0; 3], 2, &[0, 1]), Err(LogitsError::Size { .. })));
        assert!(matches!(count.add(&[], usize::MAX, &[0, 1]), Err(LogitsError::Size { .. })));
        let error = count.add(&[0.0; 4], 2, &[0, 2]).unwrap_err();
        assert_eq!(error.to_string(), "label of image 1 of the batch: expected below 2, found 2");
        assert!(matches!(count.add(&[], 0, &[0]), Err(LogitsError::Label { .. })));
        count.add(&[], 0, &[]).unwrap();
        assert_eq!(count, TopK::default());
    }

    proptest! {
        #[test]
        fn rank_agrees_with_a_stable_sort(
            row in proptest::collection::vec((-3_i8..4).prop_map(f32::from), 1..12),
            pick in any::<proptest::sample::Index>(),
        ) {
            let label = pick.index(row.len());
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a])); // stable: ties keep index order
            let place = order.iter().position(|&class| class == label);
            prop_assert_eq!(rank(&row, label), place);
        }
    }

    fn five_images() -> Dataset {
        let images = Array4::from_shape_fn((5, 3, 1, 1), |(n, ..)| u8::try_from(n).unwrap());
        let classes = (0..6).map(|n| n.to_string()).collect();
        Dataset::new("five", images, vec![0, 1, 2, 3, 4], classes).unwrap()
    }

    /// Votes for the class that the first pixel of each image spells.
    fn reads_the_pixel(input: &[f32], logits: &mut [f32]) -> Result<(), io::Error> {
        logits.fill(0.0);
        for (image, row) in input.chunks_exact(3).zip(logits.chunks_exact_mut(6)) {
            let class = (0_u8..6).find(|&c| (image[0] * 255.0 - f32::from(c)).abs() < 0.5);
            row[usize::from(class.expect("a class"))] = 1.0;
        }
        Ok(())
    }

    #[test]
    fn every_batch_size_sees_every_image_once() {
        let data = five_images();
        for batch in [1, 2, 3, 5, 6, usize::MAX] {
            let mut done = Vec::new();
            let progress = |images, all| done.push((images, all));
            let accuracy = evaluate(&data, batch, &Normalization::UNIT, reads_the_pixel, progress).unwrap();
            assert_eq!(accuracy, Accuracy { images: 5, top1: 1.0, top5: 1.0 });
            assert_eq!(done.len(), 5_usize.div_ceil(batch));
            assert_eq!(done.last(), Some(&(5, 5)));
        }
    }

    #[test]
    fn unwritten_logits_are_wrong_and_failures_carry_the_place() {
        let data = five_images();
        let lazy = |_: &[f32], _: &mut [f32]| Ok::<(), io::Error>(());
        let accuracy = evaluate(&data, 2, &Normalization::UNIT, lazy, |_, _| ()).unwrap();
        assert_eq!(accuracy, Accuracy { images: 5, top1: 0.0, top5: 0.0 });

        let mut calls = 0;
        let fails_second = |_: &[f32], logits: &mut [f32]| {
            calls += 1;
            logits.fill(0.0);
            if calls == 2 { Err(io::Error::other("no")) } else { Ok(()) }
        };
        let error = evaluate(&data, 2, &Normalization::UNIT, fails_second, |_, _| ()).unwrap_err();
        assert!(matches!(error, EvaluateError::Network { first_image: 2, .. }), "{error}");
        let error = evaluate(&data, 0, &Normalization::UNIT, lazy, |_, _| ()).unwrap_err();
        assert!(matches!(error, EvaluateError::EmptyBatch));
    }

    #[test]
    fn an_empty_dataset_counts_nothing() {
        let empty = five_images().select("none", &[]).unwrap();
        let accuracy = evaluate(&empty, 4, &Normalization::UNIT, reads_the_pixel, |_, _| ()).unwrap();
        assert_eq!(accuracy.images, 0);
        assert_eq!(accuracy.top1_interval(), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn accuracy_round_trips_through_json() {
        let accuracy = Accuracy { images: 1000, top1: 0.938, top5: 0.997 };
        let json = serde_json::to_string(&accuracy).unwrap();
        assert_eq!(json, r#"{"images":1000,"top1":0.938,"top5":0.997}"#);
        assert_eq!(serde_json::from_str::<Accuracy>(&json).unwrap(), accuracy);
    }
}
