//! Converting a network to the formats it is deployed in.

use std::collections::BTreeMap;

use dlis_formats::{Format, Ternary, TernaryPacking, Weight};
use dlis_model::{Network, fold_batch_norm};
use half::f16;
use ndarray::ArrayD;

use crate::selection::weighted;
use crate::weights::weight_name;
use crate::{CompressError, Store, Treatment};

impl Store {
    /// The network with batch-norm folded and its weights in this recipe's formats. `treatments` says what steps made
    /// of layers. Rounding to f16, where it is asked for, is done here; all else keeps every value.
    ///
    /// # Errors
    ///
    /// [`CompressError::Fold`]; [`CompressError::Layer`] if a layer's values are not of a kind that its format has (2:4
    /// of another pattern, f16 out of range).
    pub fn apply(&self, network: Network, treatments: &BTreeMap<String, Treatment>) -> Result<Network, CompressError> {
        let network = fold_batch_norm(network)?;
        let mut changed = Vec::new();
        for layer in weighted(network.graph()) {
            let layer_name = &network.graph().layers()[layer].name;
            let name = weight_name(network.graph(), layer);
            let Some(weight) = network.weights().get(&name) else { continue };
            let stored = self.stored(weight, treatments.get(layer_name));
            let stored = stored.map_err(|problem| CompressError::Layer { layer: layer_name.clone(), problem })?;
            changed.push((name, stored));
        }
        Ok(network.with_weights(changed)?)
    }

    fn stored(&self, weight: &Weight, treatment: Option<&Treatment>) -> Result<Weight, String> {
        match (weight, treatment) {
            (Weight::Int8(_) | Weight::Int4(_), _) => Ok(weight.clone()),
            (Weight::Ternary(_), _) if self.compressed.is_none() => Ok(weight.clone()),
            (_, Some(Treatment::Ternary { .. })) | (Weight::Ternary(_), _) => {
                let packing = match self.compressed {
                    Some(Format::Ternary5In8) => TernaryPacking::FiveInEight,
                    _ => TernaryPacking::TwoBit,
                };
                let ternary = Ternary::from_dense(&weight.to_f32().into_owned(), packing);
                ternary.map(Weight::Ternary).map_err(|error| error.to_string())
            }
            (_, treatment) => {
                let pruned = treatment.is_some();
                let format = if pruned { self.compressed.unwrap_or(self.rest) } else { self.rest };
                let mut values = weight.to_f32().into_owned();
                // Folding may have made zeros negative.
                values.mapv_inplace(|value| if value == 0.0 { 0.0 } else { value });
                if matches!(format, Format::DenseF16 | Format::CsrF16) {
                    round_to_f16(&mut values)?;
                }
                Weight::F32(values).convert(format).map_err(|error| error.to_string())
            }
        }
    }
}

/// Rounds to the nearest f16.
fn round_to_f16(values: &mut ArrayD<f32>) -> Result<(), String> {
    values.mapv_inplace(|value| f16::from_f32(value).to_f32());
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(format!("element {index} is out of the range of f16")),
        None => Ok(()),
    }
}
