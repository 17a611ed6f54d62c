//! Integer weights and activations.

mod tensors;

use serde::{Deserialize, Serialize};

use crate::bounds::Fields;
use crate::recipe::Tuning;
use crate::{CompressError, Selection};

pub use tensors::quantised_tensors;

/// Quantisation: integer weights with a scale an output channel, and 8-bit affine activations with a scale and zero
/// point a tensor (Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient
/// Integer-Arithmetic-Only Inference*).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantise {
    /// Bits of a weight: 8 or 4.
    #[serde(default = "Quantise::eight")]
    pub weights: u8,
    /// Bits of an activation: 8, or absent for activations in f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<u8>,
    /// How the range of a tensor is chosen.
    #[serde(default)]
    pub calibration: Calibration,
    /// Training images that ranges are chosen by, 1 to a million.
    #[serde(default = "Quantise::images")]
    pub images: usize,
    /// Which layers have integer weights. Those that an earlier step made ternary stay so.
    #[serde(default = "Quantise::selection")]
    pub layers: Selection,
    /// Quantisation-aware training; without it this is post-training quantisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<Tuning>,
}

/// How the range of an activation tensor is chosen from what it was seen to hold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Calibration {
    /// From the smallest to the largest value.
    MinMax,
    /// The magnitude that this share of the values does not exceed bounds the range on both sides; more than 0.5, at
    /// most 1 (`{ percentile = 0.9999 }`).
    Percentile(f64),
    /// The magnitude with the least expected squared error bounds the range on both sides.
    Mse,
}

impl Default for Calibration {
    fn default() -> Self {
        Self::MinMax
    }
}

impl Quantise {
    const fn eight() -> u8 {
        8
    }

    const fn images() -> usize {
        1024
    }

    fn selection() -> Selection {
        Selection { depthwise: true, ..Selection::default() }
    }

    pub(crate) fn check(&self, fields: &Fields<'_>) -> Result<(), CompressError> {
        if !matches!(self.weights, 4 | 8) {
            return Err(fields.error("weights", format!("{}: expected 8 or 4", self.weights)));
        }
        if !matches!(self.activations, None | Some(8)) {
            return Err(fields.error("activations", "expected 8 or nothing".to_owned()));
        }
        if let Calibration::Percentile(share) = self.calibration {
            fields.range("calibration.percentile", share, 0.5, 1.0)?;
        }
        fields.count("images", self.images, 1, 1_000_000)?;
        self.layers.check(fields)?;
        self.fine_tune.iter().try_for_each(|tuning| tuning.check(&fields.within("fine_tune.")))
    }
}
