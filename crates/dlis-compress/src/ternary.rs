//! Trained ternary quantisation.

use serde::{Deserialize, Serialize};

use crate::bounds::Fields;
use crate::recipe::Tuning;
use crate::{CompressError, Selection};

/// Trained ternary quantisation (Zhu et al. 2017): every weight of a layer becomes `+positive`, 0 or `-negative`,
/// the two magnitudes learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ternary {
    /// Weights of a magnitude of at most this share of their layer's largest become 0, 0 to 0.99 (the paper's
    /// equation 9; 0.05 there).
    #[serde(default = "Ternary::default_threshold")]
    pub threshold: f64,
    /// Which layers.
    #[serde(default)]
    pub layers: Selection,
    /// The training that learns the magnitudes. Without it they are the means of the magnitudes they stand for (Li et
    /// al. 2016, *Ternary Weight Networks*), which costs much accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<Tuning>,
}

impl Ternary {
    const fn default_threshold() -> f64 {
        0.05
    }

    pub(crate) fn check(&self, fields: &Fields<'_>) -> Result<(), CompressError> {
        fields.range("threshold", self.threshold, 0.0, 0.99)?;
        self.layers.check(fields)?;
        self.fine_tune.iter().try_for_each(|tuning| tuning.check(&fields.within("fine_tune.")))
    }
}
