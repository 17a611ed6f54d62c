//! The trait of all compressors and what they work with.

use std::collections::BTreeMap;
use std::sync::Arc;

use dlis_model::Network;

use crate::digest::Digest;
use crate::recipe::Tuning;
use crate::{CompressError, Constraint, Distill, FineTune, Trainer, TrainerError, TrainingProgress};

/// One way of making a network smaller.
///
/// Adding one is one file that implements this, and a variant of [`Step`](crate::Step) if recipes are to reach
/// it.
pub trait Compressor {
    /// The compressed network. The same input and context give the same result as far as the trainer's do.
    ///
    /// # Errors
    ///
    /// [`CompressError`].
    fn compress(&self, network: Network, context: &mut Context<'_>) -> Result<Network, CompressError>;
}

/// Something that happened during a compression, for whoever watches.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A step begins.
    Step {
        /// Its key.
        key: &'a str,
        /// Whether its result was found among the checkpoints, so that nothing is left to do.
        resumed: bool,
    },
    /// A training run inside a step begins.
    Stage {
        /// Its key.
        key: &'a str,
        /// Epochs it takes.
        epochs: f64,
    },
    /// A training run goes on.
    Training(&'a TrainingProgress),
    /// An accuracy was measured.
    Accuracy {
        /// The step's key.
        key: &'a str,
        /// Share of test images classified correctly.
        accuracy: f64,
    },
}

/// What a layer has become in earlier steps, which later training must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Treatment {
    /// Its zeros stay zero.
    Pruned,
    /// It is ternary with this threshold.
    Ternary {
        /// Share of the layer's largest magnitude.
        threshold: f64,
    },
}

/// What a compressor works with: the trainer, a name for what it does, and whoever watches.
pub struct Context<'a> {
    trainer: &'a mut dyn Trainer,
    watch: &'a mut dyn FnMut(Event<'_>),
    key: String,
    seed: u64,
    teacher: Arc<Network>,
    treatments: BTreeMap<String, Treatment>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("key", &self.key).field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    /// A context for one step: `key` begins the keys of its training runs, `teacher` is what distillation
    /// imitates (the network before any compression).
    pub fn new(
        trainer: &'a mut dyn Trainer,
        key: impl Into<String>,
        seed: u64,
        teacher: Arc<Network>,
        watch: &'a mut dyn FnMut(Event<'_>),
    ) -> Self {
        Self { trainer, watch, key: key.into(), seed, teacher, treatments: BTreeMap::new() }
    }

    /// The same with layers (by name) that earlier steps compressed.
    #[must_use]
    pub fn with_treatments(self, treatments: BTreeMap<String, Treatment>) -> Self {
        Self { treatments, ..self }
    }

    /// The trainer.
    pub fn trainer(&mut self) -> &mut dyn Trainer {
        self.trainer
    }

    /// The step's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The network before any compression.
    pub fn teacher(&self) -> &Network {
        &self.teacher
    }

    /// The seed of everything random.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What earlier steps made of layers.
    pub fn treatments(&self) -> &BTreeMap<String, Treatment> {
        &self.treatments
    }

    /// Trains the network under the given constraints, and under those of earlier steps for layers that the
    /// given ones do not name; `stage` ends the run's key. Checks what comes back.
    ///
    /// # Errors
    ///
    /// [`CompressError::Trainer`] if training fails, [`CompressError::Contract`] if its result is not of the
    /// same graph or breaks a constraint.
    pub fn fine_tune(
        &mut self,
        network: &Network,
        tuning: &Tuning,
        mut constraints: BTreeMap<String, Constraint>,
        activations: Option<u8>,
        stage: &str,
    ) -> Result<Network, CompressError> {
        for (layer, treatment) in &self.treatments {
            let name = format!("{layer}.weight");
            if let (false, Some(weight)) = (constraints.contains_key(&name), network.weights().get(&name)) {
                let constraint = match *treatment {
                    Treatment::Pruned => Constraint::Mask(weight.to_f32().mapv(|value| value != 0.0)),
                    Treatment::Ternary { threshold } => Constraint::Ternary { threshold },
                };
                constraints.insert(name, constraint);
            }
        }
        // Of the network too: where training does not repeat itself bit for bit, what it makes of channels may differ.
        let key = format!("{}/{stage}-{}", self.key, Digest::of(network));
        (self.watch)(Event::Stage { key: &key, epochs: tuning.epochs });
        let distill = tuning.distill.filter(|teaching| teaching.weight > 0.0).map(|teaching| Distill {
            teacher: Arc::clone(&self.teacher),
            weight: teaching.weight,
            temperature: teaching.temperature,
        });
        let task = FineTune {
            key: key.clone(),
            epochs: tuning.epochs,
            batch: tuning.batch,
            peak_rate: tuning.peak_rate,
            weight_decay: tuning.weight_decay,
            label_smoothing: tuning.label_smoothing,
            warmup: tuning.warmup,
            distill,
            constraints,
            activations,
            seed: self.seed,
        };
        let watch = &mut self.watch;
        let trained = self.trainer.fine_tune(network, &task, &mut |progress| watch(Event::Training(progress)));
        let doing = format!("training run `{key}`");
        let trained = trained.map_err(|source| CompressError::Trainer { doing: doing.clone(), source })?;
        if trained.graph() != network.graph() {
            return Err(CompressError::Contract { doing, problem: "the graph is another one".to_owned() });
        }
        for (name, constraint) in &task.constraints {
            if let Some(problem) = trained.weights().get(name).and_then(|weight| constraint.broken_by(weight)) {
                return Err(CompressError::Contract { doing, problem: format!("weight `{name}`: {problem}") });
            }
        }
        Ok(trained)
    }

    /// The network's accuracy, if the trainer can measure one.
    ///
    /// # Errors
    ///
    /// [`CompressError::Trainer`], [`CompressError::Contract`] for a number that is no share.
    pub fn accuracy(&mut self, network: &Network) -> Result<Option<f64>, CompressError> {
        let doing = "accuracy".to_owned();
        match self.trainer.accuracy(network) {
            Ok(accuracy) if (0.0..=1.0).contains(&accuracy) => {
                (self.watch)(Event::Accuracy { key: &self.key, accuracy });
                Ok(Some(accuracy))
            }
            Ok(accuracy) => Err(CompressError::Contract { doing, problem: format!("{accuracy} is no share of 1") }),
            Err(TrainerError::Unsupported { .. }) => Ok(None),
            Err(source) => Err(CompressError::Trainer { doing, source }),
        }
    }
}
