//! Which layers cost accuracy when they are compressed.

use dlis_formats::Weight;
use dlis_model::Network;
use serde::Serialize;

use crate::magnitude::{Magnitude, Pattern};
use crate::quantise::integers;
use crate::weights::{dense, weight_name};
use crate::{CompressError, Selection, Trainer};

/// Most levels of a scan.
const MAX_LEVELS: usize = 1000;

/// What is done to one layer at a time, without training.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// Magnitude pruning to each of these sparsities, 0 to below 1.
    Sparsities(Vec<f64>),
    /// Rounding of weights to each of these numbers of bits, 4 or 8.
    Bits(Vec<u8>),
}

/// The accuracy with one layer compressed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SensitivityPoint {
    /// The layer.
    pub layer: String,
    /// Its sparsity or bits.
    pub level: f64,
    /// Share of test images classified correctly.
    pub accuracy: f64,
}

/// How much accuracy each layer costs at each level (Han et al. 2015, figure 6; Li et al. 2017, section 3.2).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// Accuracy of the network as it is.
    pub whole: f64,
    /// By layer in execution order, then by level as given.
    pub points: Vec<SensitivityPoint>,
}

impl Sensitivity {
    /// Compresses one selected layer at a time at each level and measures the accuracy, the others as they are.
    /// `progress` hears the measurements done and those in all.
    ///
    /// ```
    /// use dlis_compress::sensitivity::{Probe, Sensitivity};
    /// use dlis_compress::{Selection, Trainer};
    /// # use std::collections::BTreeMap;
    /// # use dlis_compress::{FineTune, Observed, TrainerError, TrainingProgress, Untrained};
    /// # use dlis_model::{Network, Value, zoo};
    /// # struct Measured;
    /// # impl Trainer for Measured {
    /// #     fn fine_tune(&mut self, n: &Network, t: &FineTune, p: &mut dyn FnMut(&TrainingProgress))
    /// #         -> Result<Network, TrainerError> { Untrained.fine_tune(n, t, p) }
    /// #     fn fisher(&mut self, n: &Network, t: &[Value], i: usize, s: u64) -> Result<Vec<Vec<f64>>, TrainerError> {
    /// #         Untrained.fisher(n, t, i, s) }
    /// #     fn observe(&mut self, n: &Network, i: usize) -> Result<BTreeMap<Value, Observed>, TrainerError> {
    /// #         Untrained.observe(n, i) }
    /// #     fn accuracy(&mut self, n: &Network) -> Result<f64, TrainerError> {
    /// #         let whole = n.weight("layers.3.conv2", "weight").unwrap().to_f32();
    /// #         Ok(if whole.iter().any(|&value| value == 0.0) { 0.5 } else { 0.9 }) }
    /// # }
    /// # let network = Network::random(zoo::mobilenet_cifar10(), 0);
    /// # let mut trainer = Measured;
    ///
    /// // `trainer` is a `Trainer` to which only one layer matters.
    /// let probe = Probe::Sparsities(vec![0.9]);
    /// let scan = Sensitivity::scan(&network, &probe, &Selection::default(), &mut trainer, &mut |_, _| ())?;
    /// assert_eq!(scan.costly(0.01), ["layers.3.conv2"]);
    /// # Ok::<(), dlis_compress::CompressError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CompressError::Trainer`] if the trainer cannot measure; [`CompressError::Recipe`] for a level out of bounds;
    /// [`CompressError::NoLayers`].
    pub fn scan(
        network: &Network,
        probe: &Probe,
        layers: &Selection,
        trainer: &mut dyn Trainer,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, CompressError> {
        probe.check()?;
        let mut accuracy = |network: &Network| {
            let failed = |source| CompressError::Trainer { doing: "sensitivity".to_owned(), source };
            trainer.accuracy(network).map_err(failed)
        };
        let layers = layers.of(network.graph())?;
        let total = 1 + layers.len() * probe.levels();
        progress(0, total);
        let whole = accuracy(network)?;
        let mut points = Vec::new();
        for index in layers {
            let layer = network.graph().layers()[index].name.clone();
            let name = [weight_name(network.graph(), index)];
            let weights = dense(network, &name)?;
            let [name] = name;
            for (level, weight) in weights.iter().flat_map(|weight| probe.of(weight)) {
                let weight = weight.map_err(|problem| CompressError::Layer { layer: layer.clone(), problem })?;
                progress(1 + points.len(), total);
                let probed = network.clone().with_weights([(name.clone(), weight)])?;
                points.push(SensitivityPoint { layer: layer.clone(), level, accuracy: accuracy(&probed)? });
            }
        }
        Ok(Self { whole, points })
    }

    /// Layers that cost more than `drop` (a share of 1) of accuracy at some level, the costliest first.
    pub fn costly(&self, drop: f64) -> Vec<&str> {
        let mut layers: Vec<(&str, f64)> = Vec::new();
        for point in &self.points {
            let cost = self.whole - point.accuracy;
            match layers.iter_mut().find(|(layer, _)| *layer == point.layer) {
                Some((_, most)) => *most = most.max(cost),
                None => layers.push((&point.layer, cost)),
            }
        }
        layers.retain(|&(_, cost)| cost > drop);
        layers.sort_by(|a, b| b.1.total_cmp(&a.1));
        layers.into_iter().map(|(layer, _)| layer).collect()
    }
}

impl Probe {
    fn check(&self) -> Result<(), CompressError> {
        let fields = crate::bounds::Fields::new("sensitivity");
        match self {
            Self::Sparsities(levels) => {
                fields.count("levels", levels.len(), 1, MAX_LEVELS)?;
                levels.iter().try_for_each(|&level| fields.range("levels", level, 0.0, 0.9999))
            }
            Self::Bits(levels) => {
                fields.count("levels", levels.len(), 1, MAX_LEVELS)?;
                let wrong = levels.iter().find(|&&bits| !matches!(bits, 4 | 8));
                wrong.map_or(Ok(()), |bits| Err(fields.error("levels", format!("{bits}: expected 4 or 8"))))
            }
        }
    }

    fn levels(&self) -> usize {
        match self {
            Self::Sparsities(levels) => levels.len(),
            Self::Bits(levels) => levels.len(),
        }
    }

    /// The weight at each level.
    fn of<'a>(
        &'a self,
        weight: &'a ndarray::ArrayD<f32>,
    ) -> Box<dyn Iterator<Item = (f64, Result<Weight, String>)> + 'a> {
        match self {
            Self::Sparsities(levels) => Box::new(levels.iter().map(|&level| {
                let pruned = Magnitude::prune(std::slice::from_ref(weight), level, Pattern::Unstructured).pop();
                (level, pruned.map(Weight::F32).ok_or_else(|| "no weight".to_owned()))
            })),
            Self::Bits(levels) => Box::new(
                levels
                    .iter()
                    .map(|&bits| (f64::from(bits), integers(weight, bits, false).map_err(|error| error.to_string()))),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(layer: &str, accuracy: f64) -> SensitivityPoint {
        SensitivityPoint { layer: layer.to_owned(), level: 0.5, accuracy }
    }

    #[test]
    fn the_costliest_layers_come_first() {
        let points = vec![point("a", 0.89), point("a", 0.80), point("b", 0.90), point("c", 0.5)];
        assert_eq!(Sensitivity { whole: 0.9, points }.costly(0.05), ["c", "a"]);
    }

    #[test]
    fn levels_are_bounded() {
        for probe in [Probe::Sparsities(vec![]), Probe::Sparsities(vec![f64::NAN]), Probe::Bits(vec![3])] {
            assert!(probe.check().is_err(), "{probe:?}");
        }
    }
}
