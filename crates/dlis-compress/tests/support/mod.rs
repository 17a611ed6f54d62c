//! A trainer that moves every weight a little and then does what its constraints say.

use std::collections::BTreeMap;

use dlis_compress::{Constraint, FineTune, Observed, Trainer, TrainerError, TrainingProgress};
use dlis_formats::Weight;
use dlis_model::{Network, Value};
use ndarray::ArrayD;

/// What the trainer was asked for.
#[derive(Debug, Default)]
pub(crate) struct Rough {
    /// Every training run, by key.
    pub(crate) runs: Vec<FineTune>,
    /// Fails from this run on.
    pub(crate) fails_at: Option<usize>,
    /// Ignores every constraint.
    pub(crate) careless: bool,
}

fn obey(values: &mut ArrayD<f32>, constraint: &Constraint) {
    let largest = |values: &ArrayD<f32>| values.iter().fold(0f32, |max, value| max.max(value.abs()));
    let mask = |values: &mut ArrayD<f32>, mask: &ArrayD<bool>| {
        values.zip_mut_with(mask, |value, &keep| *value = if keep { *value } else { 0.0 });
    };
    match constraint {
        Constraint::Mask(kept) => mask(values, kept),
        Constraint::Ternary { threshold } => {
            let level = f64::from(largest(values)) * threshold;
            values.mapv_inplace(|value| match f64::from(value) {
                value if value > level => 0.3,
                value if value < -level => -0.2,
                _ => 0.0,
            });
        }
        Constraint::Int { bits, mask: kept } => {
            if let Some(kept) = kept {
                mask(values, kept);
            }
            let steps = f32::from((1u8 << (bits - 1)) - 1);
            for mut row in values.outer_iter_mut() {
                let step = row.iter().fold(0f32, |max, value| max.max(value.abs())) / steps;
                if step > 0.0 {
                    row.mapv_inplace(|value| (value / step).round() * step);
                }
            }
        }
        other => panic!("{other:?}"),
    }
}

impl Trainer for Rough {
    fn fine_tune(
        &mut self,
        network: &Network,
        task: &FineTune,
        progress: &mut dyn FnMut(&TrainingProgress),
    ) -> Result<Network, TrainerError> {
        if self.fails_at == Some(self.runs.len()) {
            return Err(TrainerError::Diverged { key: task.key.clone(), epoch: 1.0 });
        }
        self.runs.push(task.clone());
        let epochs = task.epochs;
        progress(&TrainingProgress { key: task.key.clone(), epoch: epochs, epochs, loss: 1.0, accuracy: None });
        let (graph, weights) = network.clone().into_parts();
        let train = |(name, weight): (String, Weight)| {
            let mut values = weight.to_f32().into_owned();
            if values.ndim() > 1 {
                values.mapv_inplace(|value| value * 1.01 + 1e-3);
            }
            if let (Some(constraint), false) = (task.constraints.get(&name), self.careless) {
                obey(&mut values, constraint);
            }
            (name, Weight::F32(values))
        };
        let weights = weights.into_iter().map(train).collect();
        Network::new(graph, weights)
            .map_err(|error| TrainerError::Other { doing: "training".to_owned(), source: Box::new(error) })
    }

    fn fisher(
        &mut self,
        network: &Network,
        tensors: &[Value],
        _: usize,
        _: u64,
    ) -> Result<Vec<Vec<f64>>, TrainerError> {
        let signal = |&value: &Value| {
            let channels = network.graph().shape(value).channels;
            (0..channels).map(|channel| 1.0 + (channel * 7 % 11) as f64).collect()
        };
        Ok(tensors.iter().map(signal).collect())
    }

    fn observe(&mut self, network: &Network, _: usize) -> Result<BTreeMap<Value, Observed>, TrainerError> {
        let values = (0..network.graph().layers().len()).map(Value::Layer).chain([Value::Input]);
        values.map(|value| Ok((value, Observed::of(&[-1.0, 0.5, 2.0])?))).collect()
    }

    fn accuracy(&mut self, _: &Network) -> Result<f64, TrainerError> {
        Ok(0.9)
    }
}
