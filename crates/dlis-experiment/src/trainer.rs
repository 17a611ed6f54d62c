//! Compression's view of data on this machine's CPU: calibration and accuracy, no training.

use std::collections::BTreeMap;

use dlis_backend::Schedule;
use dlis_compress::{FineTune, Histogram, Observed, Trainer, TrainerError, TrainingProgress};
use dlis_eval::dataset::{Dataset, Normalization, cifar10};
use dlis_model::{Network, Value};
use dlis_runtime::{Observation, Observer, Planner};

use crate::catalogue::backend;
use crate::run::{HOST, classify};

/// Images that are run at once.
const BATCH: usize = 8;

/// A [`Trainer`] that cannot train: it runs networks on the CPU backend, for recipes of post-training
/// quantisation, which need only calibration and accuracy.
///
/// ```
/// use dlis_compress::Trainer;
/// use dlis_experiment::CpuTrainer;
/// use dlis_model::{Network, Value, zoo};
///
/// let network = Network::random(zoo::graph("mobilenet-cifar10")?, 0);
/// let observed = CpuTrainer::new().observe(&network, 2)?;
/// assert_eq!(observed.len(), 1 + network.graph().layers().len());
/// assert!(observed[&Value::Input].max() > 1.0);
/// assert!(CpuTrainer::new().accuracy(&network).is_err(), "no test images were given");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CpuTrainer {
    calibration: Dataset,
    test: Option<Dataset>,
    threads: usize,
}

impl Default for CpuTrainer {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuTrainer {
    /// One that calibrates on the [embedded training images](cifar10::calibration), on one thread, and measures
    /// no accuracy.
    pub fn new() -> Self {
        Self { calibration: cifar10::calibration(), test: None, threads: 1 }
    }

    /// The same with other images to calibrate on. Accuracy must not be measured on them.
    #[must_use]
    pub fn calibrate_on(self, calibration: Dataset) -> Self {
        Self { calibration, ..self }
    }

    /// The same with images to measure accuracy on.
    #[must_use]
    pub fn test_on(self, test: Dataset) -> Self {
        Self { test: Some(test), ..self }
    }

    /// The same on so many threads. They change no result.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    fn untrained<T>(what: &str) -> Result<T, TrainerError> {
        Err(TrainerError::Unsupported { what: format!("{what} needs dlis-train (`--features train`)") })
    }

    /// Shows what every layer makes of each of these images.
    fn run(
        &self,
        observer: &mut Observer,
        images: usize,
        visit: &mut dyn FnMut(Observation<'_>),
    ) -> Result<(), TrainerError> {
        let batch = observer.batch();
        let len = self.calibration.image_len();
        let mut input = vec![0.0; observer.input_len()];
        for first in (0..images).step_by(batch) {
            let count = batch.min(images - first);
            let (given, rest) = input.split_at_mut(count * len);
            self.calibration
                .batch_into(first..first + count, &Normalization::CIFAR10, given)
                .map_err(|error| other("cannot read the calibration images", error))?;
            // What is left of the last batch is its first image again, which is not counted.
            for image in rest.chunks_exact_mut(len) {
                image.copy_from_slice(&given[..len]);
            }
            let mut count = |tensor: Observation<'_>| {
                let elements = &tensor.elements[..count * tensor.shape.elements()];
                visit(Observation { elements, ..tensor });
            };
            observer.run(&input, &mut count).map_err(|error| other("cannot run the network", error))?;
        }
        Ok(())
    }
}

fn other(doing: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TrainerError {
    TrainerError::Other { doing: doing.to_owned(), source: source.into() }
}

impl Trainer for CpuTrainer {
    /// # Errors
    ///
    /// [`TrainerError::Unsupported`], always.
    fn fine_tune(
        &mut self,
        _: &Network,
        _: &FineTune,
        _: &mut dyn FnMut(&TrainingProgress),
    ) -> Result<Network, TrainerError> {
        Self::untrained("fine-tuning")
    }

    /// # Errors
    ///
    /// [`TrainerError::Unsupported`], always.
    fn fisher(&mut self, _: &Network, _: &[Value], _: usize, _: u64) -> Result<Vec<Vec<f64>>, TrainerError> {
        Self::untrained("the Fisher signal of channels")
    }

    /// Runs the network twice: for the ranges, and for the magnitudes within them. Of more images than there are,
    /// all are taken.
    fn observe(&mut self, network: &Network, images: usize) -> Result<BTreeMap<Value, Observed>, TrainerError> {
        let images = images.min(self.calibration.len());
        let shape = network.graph().input_shape();
        if images == 0 || [shape.channels, shape.height, shape.width] != self.calibration.image_shape() {
            let (found, name) = (self.calibration.image_shape(), self.calibration.name());
            let what = format!("calibrating a network for images of {shape} on {images} of {found:?} (`{name}`)");
            return Err(TrainerError::Unsupported { what });
        }
        let backend =
            backend("omp", self.threads, Schedule::Static).map_err(|error| other("cannot start the backend", error))?;
        let planner = Planner::new(&*backend).batch(BATCH.min(images));
        let mut observer =
            Observer::new(&*backend, planner, network).map_err(|error| other("cannot plan the network", error))?;
        let mut ranges: BTreeMap<Value, Histogram> = BTreeMap::new();
        self.run(&mut observer, images, &mut |tensor| {
            ranges.entry(tensor.value).or_default().widen(tensor.elements);
        })?;
        ranges.values_mut().for_each(Histogram::settle);
        self.run(&mut observer, images, &mut |tensor| {
            if let Some(histogram) = ranges.get_mut(&tensor.value) {
                histogram.count(tensor.elements);
            }
        })?;
        ranges.into_iter().map(|(value, histogram)| Ok((value, histogram.observed()?))).collect()
    }

    /// Of the test images that were given.
    fn accuracy(&mut self, network: &Network) -> Result<f64, TrainerError> {
        let Some(test) = &self.test else {
            return Err(TrainerError::Unsupported { what: "measuring accuracy without test images".to_owned() });
        };
        let system = backend(HOST, 1, Schedule::Static).map_err(|error| other("cannot start the backend", error))?;
        let plan = Planner::new(&*system).plan(network).map_err(|error| other("cannot plan the network", error))?;
        let counted = classify(&plan, test, (HOST, self.threads), &mut |_| ())
            .map_err(|error| other("cannot classify the test images", error))?;
        Ok(counted.accuracy().top1)
    }
}

#[cfg(test)]
mod tests {
    use dlis_model::zoo;

    use super::*;

    #[test]
    fn threads_and_batches_change_no_observation() {
        let network = Network::random(zoo::mobilenet_cifar10(), 3);
        let one = CpuTrainer::new().observe(&network, 3).unwrap();
        assert_eq!(CpuTrainer::new().threads(2).observe(&network, 3).unwrap(), one);
        // Eleven images are a batch of eight and one that is not full.
        let eleven = CpuTrainer::new().observe(&network, 11).unwrap();
        let elements = |value| network.graph().shape(value).elements() as u64;
        for (value, observed) in &eleven {
            assert_eq!(observed.counts().iter().sum::<u64>(), 11 * elements(*value), "{value:?}");
        }
    }

    #[test]
    fn training_is_refused_by_name() {
        let network = Network::random(zoo::mobilenet_cifar10(), 3);
        let error = CpuTrainer::new().fisher(&network, &[], 1, 0).unwrap_err();
        assert!(matches!(&error, TrainerError::Unsupported { what } if what.contains("dlis-train")), "{error}");
    }
}
