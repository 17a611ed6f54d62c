//! A trainer that does not train.

use std::collections::BTreeMap;

use dlis_model::{Network, Value};

use crate::{FineTune, Observed, Trainer, TrainerError, TrainingProgress};

/// A trainer without data: its training runs return the network as it is (which fulfils every mask), and it can do
/// nothing else. For compressing without training, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untrained;

fn unsupported<T>(what: &str) -> Result<T, TrainerError> {
    Err(TrainerError::Unsupported { what: format!("{what} needs data") })
}

impl Trainer for Untrained {
    fn fine_tune(
        &mut self,
        network: &Network,
        _: &FineTune,
        _: &mut dyn FnMut(&TrainingProgress),
    ) -> Result<Network, TrainerError> {
        Ok(network.clone())
    }

    fn fisher(&mut self, _: &Network, _: &[Value], _: usize, _: u64) -> Result<Vec<Vec<f64>>, TrainerError> {
        unsupported("the Fisher signal")
    }

    fn observe(&mut self, _: &Network, _: usize) -> Result<BTreeMap<Value, Observed>, TrainerError> {
        unsupported("calibration")
    }

    fn accuracy(&mut self, _: &Network) -> Result<f64, TrainerError> {
        unsupported("accuracy")
    }
}
