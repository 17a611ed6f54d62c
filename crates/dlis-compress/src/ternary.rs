//! Trained ternary quantisation.

use std::collections::BTreeMap;

use dlis_formats::{TernaryPacking, Weight};
use dlis_model::Network;
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::bounds::Fields;
use crate::recipe::Tuning;
use crate::weights::{dense, weight_name};
use crate::{CompressError, Compressor, Constraint, Context, Selection};

/// Trained ternary quantisation (Zhu et al. 2017): every weight of a layer becomes `+positive`, 0 or `-negative`,
/// the two magnitudes learned. The result's weights are [`Weight::Ternary`].
///
/// ```
/// use std::sync::Arc;
///
/// use dlis_compress::{Compressor, Context, Counts, Ternary, Untrained};
/// use dlis_formats::Format;
/// use dlis_model::{Network, zoo};
///
/// let network = Network::random(zoo::resnet18_cifar10(), 0);
/// let mut ignore = |_: dlis_compress::Event<'_>| {};
/// let mut trainer = Untrained;
/// let mut context = Context::new(&mut trainer, "example", 0, Arc::new(network.clone()), &mut ignore);
/// let ternary = Ternary { threshold: 0.2, ..Ternary::default() }.compress(network, &mut context)?;
/// assert_eq!(ternary.weight("layer1.0.conv1", "weight").unwrap().format(), Format::Ternary2Bit);
/// // Uniformly distributed weights: a fifth of them is below a fifth of the largest.
/// assert!((Counts::of(&ternary).sparsity() - 0.2).abs() < 0.01);
/// # Ok::<(), dlis_compress::CompressError>(())
/// ```
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

impl Default for Ternary {
    fn default() -> Self {
        Self { threshold: Self::default_threshold(), layers: Selection::default(), fine_tune: None }
    }
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

/// Each element as the mean of the magnitudes that it stands for with, by its sign, or 0.
#[expect(clippy::cast_possible_truncation, reason = "a mean of f32 fits an f32")]
fn ternarise(weight: &ArrayD<f32>, threshold: f64) -> ArrayD<f32> {
    let largest = weight.iter().fold(0f32, |max, value| max.max(value.abs()));
    let above = |value: f32| f64::from(value.abs()) > threshold * f64::from(largest);
    let mean = |sign: f32| {
        let side = weight.iter().filter(|&&value| value * sign > 0.0 && above(value));
        let (sum, count) = side.fold((0f64, 0u64), |(sum, count), &value| (sum + f64::from(value.abs()), count + 1));
        (sum / count.max(1) as f64) as f32
    };
    let [positive, negative] = [mean(1.0), mean(-1.0)];
    weight.mapv(|value| match value {
        value if !above(value) => 0.0,
        value if value > 0.0 => positive,
        _ => -negative,
    })
}

impl Compressor for Ternary {
    fn compress(&self, network: Network, context: &mut Context<'_>) -> Result<Network, CompressError> {
        self.check(&Fields::new(context.key()))?;
        let selected = self.layers.of(network.graph())?;
        let names: Vec<String> = selected.into_iter().map(|layer| weight_name(network.graph(), layer)).collect();
        let mut network = network.to_f32();
        match self.fine_tune.filter(|tuning| tuning.epochs > 0.0) {
            Some(tuning) => {
                let constraint = Constraint::Ternary { threshold: self.threshold };
                let constraints: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), constraint.clone())).collect();
                network = context.fine_tune(&network, &tuning, constraints, None, "ternary")?;
            }
            None => {
                let weights = dense(&network, &names)?;
                let weights = weights.iter().map(|weight| Weight::F32(ternarise(weight, self.threshold)));
                network = network.with_weights(names.iter().cloned().zip(weights))?;
            }
        }
        let mut changed = Vec::with_capacity(names.len());
        for (name, weight) in names.iter().zip(dense(&network, &names)?) {
            let ternary = dlis_formats::Ternary::from_dense(&weight, TernaryPacking::TwoBit);
            let problem = |error: dlis_formats::ConvertError| CompressError::Layer {
                layer: name.trim_end_matches(".weight").to_owned(),
                problem: error.to_string(),
            };
            changed.push((name.clone(), Weight::Ternary(ternary.map_err(problem)?)));
        }
        Ok(network.with_weights(changed)?)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr1;

    use super::*;

    #[test]
    fn magnitudes_are_the_means_of_what_they_stand_for() {
        let weight = arr1(&[1.0f32, 0.5, -0.2, -0.6, 0.05, 0.0]).into_dyn();
        assert_eq!(ternarise(&weight, 0.1), arr1(&[0.75f32, 0.75, -0.4, -0.4, 0.0, 0.0]).into_dyn());
    }

    #[test]
    fn a_layer_of_one_sign_and_one_of_zeros() {
        assert_eq!(ternarise(&arr1(&[1.0f32, 3.0]).into_dyn(), 0.0), arr1(&[2.0f32, 2.0]).into_dyn());
        assert_eq!(ternarise(&arr1(&[0.0f32, 0.0]).into_dyn(), 0.0), arr1(&[0.0f32, 0.0]).into_dyn());
    }
}
