//! Images on the device, and batches of them.

use std::ops::Range;

use dlis_eval::dataset::{Dataset, Normalization};
use tch::{Device, Kind, Tensor};

use crate::error::{TrainError, extent};
use crate::random::Random;

/// Pixels that crops may be shifted by, after reflection at the border.
const PADDING: usize = 4;

/// A data set on a device, as bytes: CIFAR-10's training images take 240 MB there.
#[derive(Debug)]
pub(crate) struct Images {
    /// `[images * rows * columns, 3]` bytes, reflected at the border: one row a pixel, so that a batch is one
    /// gathering of rows.
    pixels: Tensor,
    /// Classes, `[images]`.
    labels: Tensor,
    count: usize,
    /// Channels, height and width of an image.
    shape: [usize; 3],
    padding: usize,
    /// Offsets of an image's pixels from its first one, and those of its mirror image.
    offsets: [Tensor; 2],
    /// What brings bytes to the network's input: subtracted, then multiplied.
    shift: Tensor,
    factor: Tensor,
}

/// Where the images of one epoch begin, in their order, and whether each is mirrored.
#[derive(Debug)]
pub(crate) struct Epoch {
    first: Tensor,
    mirrored: Tensor,
    labels: Tensor,
}

/// Images as network input `[n, 3, height, width]` (channels last in memory) and their classes.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) images: Tensor,
    pub(crate) labels: Tensor,
}

impl Images {
    /// Training images, with room for augmentation.
    pub(crate) fn training(data: &Dataset, normalization: &Normalization, device: Device) -> Result<Self, TrainError> {
        let [_, height, width] = data.image_shape();
        // Reflection needs more pixels than it adds.
        Self::new(data, normalization, device, if height.min(width) > PADDING { PADDING } else { 0 })
    }

    /// Images that are never augmented.
    pub(crate) fn plain(data: &Dataset, normalization: &Normalization, device: Device) -> Result<Self, TrainError> {
        Self::new(data, normalization, device, 0)
    }

    fn new(data: &Dataset, normalization: &Normalization, device: Device, padding: usize) -> Result<Self, TrainError> {
        let shape @ [channels, height, width] = data.image_shape();
        if data.is_empty() || data.image_len() == 0 {
            return Err(TrainError::NoImages { name: data.name().to_owned() });
        }
        let images = data.images();
        // `Dataset` keeps its images contiguous; a copy serves the rest.
        let bytes: Vec<u8> = images.iter().copied().collect();
        let dims = [data.len(), channels, height, width].map(extent);
        let mut pixels = Tensor::f_from_data_size(&bytes, &dims, Kind::Uint8)?.f_to_device(device)?;
        drop(bytes);
        for (axis, size) in [(2, height), (3, width)] {
            let index = Tensor::f_from_slice(&reflected(size, padding))?.f_to_device(device)?;
            pixels = pixels.f_index_select(axis, &index)?;
        }
        let columns = width + 2 * padding;
        let pixels = pixels.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_view([-1, extent(channels)])?;
        let offsets = |column: &dyn Fn(usize) -> usize| -> Result<Tensor, TrainError> {
            let offset = |pixel: usize| extent(pixel / width * columns + column(pixel % width));
            let offsets: Vec<i64> = (0..height * width).map(offset).collect();
            Ok(Tensor::f_from_slice(&offsets)?.f_to_device(device)?)
        };
        let labels: Vec<i64> = data.labels().iter().map(|&label| i64::from(label)).collect();
        let constants = |values: [f32; 3]| -> Result<Tensor, TrainError> {
            Ok(Tensor::f_from_slice(&values)?.f_to_device(device)?)
        };
        Ok(Self {
            pixels,
            labels: Tensor::f_from_slice(&labels)?.f_to_device(device)?,
            count: data.len(),
            shape,
            padding,
            offsets: [offsets(&|x| x)?, offsets(&|x| width - 1 - x)?],
            shift: constants(normalization.mean.map(|mean| mean * 255.0))?,
            factor: constants(normalization.std.map(|std| 1.0 / (std * 255.0)))?,
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn device(&self) -> Device {
        self.pixels.device()
    }

    /// All images in random order, each shifted by up to [`PADDING`] pixels and mirrored at random; the seed and
    /// the epoch's number decide.
    pub(crate) fn epoch(&self, seed: u64, number: usize) -> Result<Epoch, TrainError> {
        let mut random = Random::new(seed, number as u64);
        let order = random.permutation(self.count);
        let mut mirrored = Vec::with_capacity(order.len());
        let mut shift = |_| {
            let choices = 2 * self.padding + 1;
            mirrored.push(random.below(2) == 1);
            [random.below(choices), random.below(choices)]
        };
        let shifts: Vec<[usize; 2]> = order.iter().map(&mut shift).collect();
        self.at(&order, &shifts, &mirrored)
    }

    /// These images, neither shifted nor mirrored.
    pub(crate) fn chosen(&self, order: &[usize]) -> Result<Epoch, TrainError> {
        self.at(order, &vec![[self.padding; 2]; order.len()], &vec![false; order.len()])
    }

    fn at(&self, order: &[usize], shifts: &[[usize; 2]], mirrored: &[bool]) -> Result<Epoch, TrainError> {
        let [_, height, width] = self.shape;
        let [rows, columns] = [height + 2 * self.padding, width + 2 * self.padding];
        let first = |(&image, &[y, x]): (&usize, &[usize; 2])| extent((image * rows + y) * columns + x);
        let first: Vec<i64> = order.iter().zip(shifts).map(first).collect();
        let chosen: Vec<i64> = order.iter().map(|&image| extent(image)).collect();
        let chosen = Tensor::f_from_slice(&chosen)?.f_to_device(self.device())?;
        Ok(Epoch {
            first: Tensor::f_from_slice(&first)?.f_to_device(self.device())?,
            mirrored: Tensor::f_from_slice(mirrored)?.f_to_device(self.device())?,
            labels: self.labels.f_index_select(0, &chosen)?,
        })
    }

    /// The images at these positions of an epoch.
    pub(crate) fn batch(&self, epoch: &Epoch, range: Range<usize>, kind: Kind) -> Result<Batch, TrainError> {
        let part = |tensor: &Tensor| tensor.f_narrow(0, extent(range.start), extent(range.len()));
        let offsets = self.offsets[1].f_where_self(&part(&epoch.mirrored)?.f_unsqueeze(1)?, &self.offsets[0])?;
        let index = part(&epoch.first)?.f_unsqueeze(1)?.f_add(&offsets)?;
        let [channels, height, width] = self.shape.map(extent);
        let images = self
            .pixels
            .f_index_select(0, &index.f_view([-1])?)?
            .f_to_kind(Kind::Float)?
            .f_sub(&self.shift)?
            .f_mul(&self.factor)?
            .f_to_kind(kind)?
            .f_view([extent(range.len()), height, width, channels])?
            .f_permute([0, 3, 1, 2])?;
        Ok(Batch { images, labels: part(&epoch.labels)? })
    }
}

/// Indices of an axis of `size` pixels with `padding` more on both sides, reflected without repeating the border.
fn reflected(size: usize, padding: usize) -> Vec<i64> {
    let before = (1..=padding).rev();
    let after = (1..=padding).map(|distance| size - 1 - distance);
    before.chain(0..size).chain(after).map(extent).collect()
}

#[cfg(test)]
mod tests {
    use dlis_eval::dataset::cifar10;

    use super::*;

    #[test]
    fn a_plain_batch_is_the_data_sets_own() {
        let data = cifar10::embedded();
        for images in [
            Images::training(&data, &Normalization::CIFAR10, Device::Cpu).unwrap(),
            Images::plain(&data, &Normalization::CIFAR10, Device::Cpu).unwrap(),
        ] {
            let epoch = images.chosen(&[3, 4, 5, 6]).unwrap();
            let batch = images.batch(&epoch, 1..3, Kind::Float).unwrap();
            let mut expected = vec![0.0; 2 * data.image_len()];
            data.batch_into(4..6, &Normalization::CIFAR10, &mut expected).unwrap();
            let found = Vec::<f32>::try_from(batch.images.contiguous().view([-1])).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
            let labels = Vec::<i64>::try_from(batch.labels).unwrap();
            assert_eq!(labels, [data.labels()[4], data.labels()[5]].map(i64::from));
        }
    }

    #[test]
    fn an_augmented_image_is_a_mirrored_crop_of_the_reflected_one() {
        let data = cifar10::embedded();
        let images = Images::training(&data, &Normalization::UNIT, Device::Cpu).unwrap();
        let epoch = images.at(&[7], &[[0, 6]], &[true]).unwrap();
        let batch = images.batch(&epoch, 0..1, Kind::Float).unwrap().images;
        let reflect = |at: i64| {
            if at < 0 {
                -at
            } else if at > 31 {
                62 - at
            } else {
                at
            }
        };
        for (c, y, x) in [(0, 0, 0), (1, 3, 31), (2, 31, 5), (0, 17, 0)] {
            // Row 0 of the crop is row -4 of the image; columns are counted from the right, shifted by 2.
            let (row, column) = (reflect(y - 4), reflect(31 - x + 2));
            let at = usize::try_from(c * 1024 + row * 32 + column).unwrap();
            let expected = f64::from(data.image(7).unwrap()[at]) / 255.0;
            assert!((batch.double_value(&[0, c, y, x]) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn epochs_are_decided_by_seed_and_number() {
        let data = cifar10::embedded();
        let images = Images::training(&data, &Normalization::UNIT, Device::Cpu).unwrap();
        let first = |seed, number| Vec::<i64>::try_from(images.epoch(seed, number).unwrap().first).unwrap();
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(1, 3));
        assert_ne!(first(1, 2), first(2, 2));
    }
}
