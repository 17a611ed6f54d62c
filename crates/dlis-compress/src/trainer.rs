//! What compression needs of training.

use std::collections::BTreeMap;
use std::sync::Arc;

use dlis_model::{Network, Value};
use ndarray::ArrayD;

use crate::Histogram;

/// A compressor's whole view of training and data: small enough for a program in any language to be one.
///
/// Networks are given with batch-norm where they have it, in any weight format (`Network::to_f32` makes
/// them dense). Images and their preparation are the trainer's own.
///
/// # Resuming
///
/// A [`FineTune::key`] names one training run for good: it is made of the network's name, the recipe, the
/// step, the stage and a digest of everything the run's result depends on. A trainer that keeps
/// checkpoints under it may go on from them after a kill without asking anything else; one that finds a
/// finished run under it may return that run's result.
pub trait Trainer {
    /// Trains `network` on from its present weights, holding [`FineTune::constraints`].
    ///
    /// The result has the same graph, every weight dense f32, and fulfils each constraint exactly, as
    /// [`Constraint`] says; compressors check it.
    ///
    /// # Errors
    ///
    /// [`TrainerError`], [`TrainerError::Diverged`] among them if a loss or weight is no longer finite.
    fn fine_tune(
        &mut self,
        network: &Network,
        task: &FineTune,
        progress: &mut dyn FnMut(&TrainingProgress),
    ) -> Result<Network, TrainerError>;

    /// The Fisher signal of every channel of the given tensors, in their order:
    /// `1 / (2 N) * sum over N images of (sum over the channel's pixels of activation * gradient)^2`, the
    /// estimated rise of the loss without the channel (Theis et al. 2018, equation 14). The gradient is that
    /// of one image's own cross-entropy loss (not divided by the batch), the network as in inference
    /// (batch-norm uses its running statistics), the images training images without augmentation.
    ///
    /// One vector a tensor, one finite number of at least 0 a channel.
    ///
    /// # Errors
    ///
    /// [`TrainerError`].
    fn fisher(
        &mut self,
        network: &Network,
        tensors: &[Value],
        images: usize,
        seed: u64,
    ) -> Result<Vec<Vec<f64>>, TrainerError>;

    /// What each tensor of the network holds over `images` training images without augmentation, the network
    /// as in inference: an entry for [`Value::Input`] and one for every layer's output.
    ///
    /// # Errors
    ///
    /// [`TrainerError`].
    fn observe(&mut self, network: &Network, images: usize) -> Result<BTreeMap<Value, Observed>, TrainerError>;

    /// Share of test images that are classified correctly, 0 to 1, the network as in inference. Where the
    /// network has quantised activations, the trainer may leave their rounding out.
    ///
    /// # Errors
    ///
    /// [`TrainerError`].
    fn accuracy(&mut self, network: &Network) -> Result<f64, TrainerError>;
}

/// One training run: stochastic gradient descent with momentum, the rate rising linearly from near 0 to
/// `peak_rate` over the warm-up and falling to near 0 after it.
#[derive(Clone, Debug)]
pub struct FineTune {
    /// The run's name for good (see [`Trainer`]): segments of letters, digits, `-`, `_` and `.`, separated
    /// by `/`, so that it can be a path below a folder.
    pub key: String,
    /// Passes over the training images; may be a fraction. Finite, at least 0.
    pub epochs: f64,
    /// Images a step.
    pub batch: usize,
    /// Largest learning rate.
    pub peak_rate: f64,
    /// L2 penalty on convolutions' and linear layers' weights (not on biases and batch-norms).
    pub weight_decay: f64,
    /// Share of the target that is spread over all classes (Szegedy et al. 2016), 0 to below 1.
    pub label_smoothing: f64,
    /// Share of the run's steps in which the rate rises, 0 to 1.
    pub warmup: f64,
    /// A teacher, if there is one.
    pub distill: Option<Distill>,
    /// What weights must fulfil, by full name (`layer1.0.conv1.weight`). All others train freely.
    pub constraints: BTreeMap<String, Constraint>,
    /// Quantisation-aware training: bits that activations are rounded to in the forward pass, at the
    /// tensors that [`quantised_tensors`](crate::quantised_tensors) lists, gradients passing straight through
    /// inside the range. Ranges are the trainer's own (from its running minima and maxima, say):
    /// what executes later is calibrated afterwards.
    pub activations: Option<u8>,
    /// Decides the order of images and their augmentation.
    pub seed: u64,
}

/// Distillation (Hinton et al. 2015): the loss is `(1 - weight) * cross-entropy(labels) + weight *
/// temperature^2 * KL(teacher || student)`, both distributions softened by the temperature.
#[derive(Clone, Debug)]
pub struct Distill {
    /// The network to imitate; sees the same images as the student.
    pub teacher: Arc<Network>,
    /// Share of the teacher in the loss, 0 to 1.
    pub weight: f64,
    /// What logits are divided by, more than 0.
    pub temperature: f64,
}

/// What a weight must fulfil throughout a training run's forward passes, and exactly in its result.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Constraint {
    /// Elements that are false here are zero. Of the weight's dims. True elements may be anything.
    Mask(ArrayD<bool>),
    /// Trained ternary quantisation (Zhu et al. 2017): each element is `+positive`, 0 or `-negative`, the two
    /// magnitudes learned, one pair a layer. An element `w` of the shadow weight (full precision, trained by
    /// the straight-through gradient) stands for 0 where `|w| <= threshold * max |w|`. The
    /// result holds at most three distinct values, one of them 0.
    Ternary {
        /// Share of the layer's largest magnitude, 0 to below 1.
        threshold: f64,
    },
    /// Each row (output channel) is on a symmetric grid: `q * scale`, `q` an integer of magnitude at most
    /// `2^(bits-1) - 1`, `scale = max |row| / (2^(bits-1) - 1)`.
    Int {
        /// 2 to 8.
        bits: u8,
        /// Elements that are false here are zero besides.
        mask: Option<ArrayD<bool>>,
    },
}

/// How far a training run has come.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingProgress {
    /// [`FineTune::key`].
    pub key: String,
    /// Epochs done.
    pub epoch: f64,
    /// Epochs in all.
    pub epochs: f64,
    /// Mean training loss since the last report.
    pub loss: f64,
    /// Share of test images classified correctly, where it was measured.
    pub accuracy: Option<f64>,
}

/// Values that a tensor took: the range, and how the magnitudes are distributed over it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    min: f32,
    max: f32,
    counts: Vec<u64>,
}

impl Observed {
    /// Bins that are fine enough for every calibration here.
    pub const BINS: usize = 2048;
    /// Most bins there may be.
    pub const MAX_BINS: usize = 1 << 20;

    /// `counts[i]` is the number of values with a magnitude in `[i, i + 1) * width`, the last bin closed,
    /// `width = max(|min|, |max|) / counts.len()`.
    ///
    /// # Errors
    ///
    /// [`TrainerError::Observation`] if the range is not finite or the wrong way round, or there is no bin or
    /// more than [`MAX_BINS`](Self::MAX_BINS).
    pub fn new(min: f32, max: f32, counts: Vec<u64>) -> Result<Self, TrainerError> {
        let problem = if !(min.is_finite() && max.is_finite() && min <= max) {
            format!("the range from {min} to {max} is not one of finite numbers")
        } else if counts.is_empty() || counts.len() > Self::MAX_BINS {
            format!("{} bins, expected 1 to {}", counts.len(), Self::MAX_BINS)
        } else {
            return Ok(Self { min, max, counts });
        };
        Err(TrainerError::Observation { problem })
    }

    /// Counts these values into [`BINS`](Self::BINS) bins.
    ///
    /// ```
    /// use dlis_compress::Observed;
    ///
    /// let observed = Observed::of(&[-1.0, 0.0, 0.5, 4.0])?;
    /// assert_eq!((observed.min(), observed.max()), (-1.0, 4.0));
    /// assert_eq!(observed.counts().iter().sum::<u64>(), 4);
    /// # Ok::<(), dlis_compress::TrainerError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TrainerError::Observation`] if there is no value or one is not finite.
    pub fn of(values: &[f32]) -> Result<Self, TrainerError> {
        let mut histogram = Histogram::default();
        histogram.widen(values);
        histogram.settle();
        histogram.count(values);
        histogram.observed()
    }

    /// Smallest value.
    pub fn min(&self) -> f32 {
        self.min
    }

    /// Largest value.
    pub fn max(&self) -> f32 {
        self.max
    }

    /// Largest magnitude: the upper end of the last bin.
    pub fn magnitude(&self) -> f32 {
        self.min.abs().max(self.max.abs())
    }

    /// Values by magnitude; see [`new`](Self::new).
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}

/// What can go wrong in training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainerError {
    /// The trainer has no such ability.
    #[error("this trainer cannot do it: {what}")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// A loss or weight is no longer finite.
    #[error("training run `{key}` diverged in epoch {epoch:.1}: lower its peak rate")]
    Diverged {
        /// [`FineTune::key`].
        key: String,
        /// Epochs done.
        epoch: f64,
    },
    /// What was observed is no range of numbers.
    #[error("an observed tensor is ill-formed: {problem}")]
    Observation {
        /// What is wrong.
        problem: String,
    },
    /// Anything else: the data, the device, another program.
    #[error("{doing}: {source}")]
    Other {
        /// What was being done, as in `cannot read checkpoint <path>`.
        doing: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
