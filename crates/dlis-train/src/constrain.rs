//! What constraints make of weights in the forward pass, and what keeps them through a step.

use std::collections::BTreeMap;

use dlis_compress::Constraint;
use tch::{Kind, Tensor};

use crate::error::{TrainError, extent};
use crate::parameters::{Parameters, stored};

/// The constraints of a run, on its device.
#[derive(Debug)]
pub(crate) struct Constrained {
    /// Like the flat weights: 0 where an element must stay zero.
    mask: Option<Tensor>,
    /// Like the flat weights: 0 where weight decay does not apply.
    decay: Option<Tensor>,
    /// By position of the weight.
    rules: BTreeMap<usize, Rule>,
    /// The two magnitudes of each ternary weight, one after another.
    pub(crate) scales: Tensor,
    /// What a scale's gradient is multiplied by in a step, and the least it may be.
    step: Tensor,
    least: Tensor,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Threshold, and which pair of `scales`.
    Ternary(f64, usize),
    /// Largest magnitude of the integers.
    Int(f64),
}

impl Constrained {
    /// Checks the constraints, brings masked elements to zero, and ternary weights into the range of -1 to 1.
    ///
    /// Zhu et al. (2017, section 3) train such normalised weights. Their magnitudes begin as the mean magnitudes
    /// of the elements that each stands for, which is the nearest ternary weight of that support.
    pub(crate) fn new(
        parameters: &mut Parameters,
        constraints: &BTreeMap<String, Constraint>,
        key: &str,
    ) -> Result<Self, TrainError> {
        let _guard = tch::no_grad_guard();
        let device = parameters.weights.device();
        let mut mask: Option<Tensor> = None;
        let mut decay: Option<Tensor> = None;
        let mut rules = BTreeMap::new();
        let (mut scales, mut step) = (Vec::new(), Vec::new());
        for (name, constraint) in constraints {
            let wrong = |expected: String, found: String| {
                let field = format!("constraint of `{name}`");
                TrainError::Task { key: key.to_owned(), field, expected, found }
            };
            let Some(weight) = parameters.weight(name) else {
                return Err(wrong("the weight of a convolution or linear layer".into(), "no such weight".into()));
            };
            let (_, len) = parameters.range(weight);
            let mut hide = |array: &ndarray::ArrayD<bool>| -> Result<(), TrainError> {
                if array.shape() != parameters.dims(weight) {
                    return Err(wrong(
                        format!("a mask of {:?}", parameters.dims(weight)),
                        format!("{:?}", array.shape()),
                    ));
                }
                let mut kept = Vec::with_capacity(len);
                stored(array.view(), &mut kept);
                let kept = Tensor::f_from_slice(&kept)?.f_to_device(device)?.f_to_kind(Kind::Float)?;
                let flat = match &mask {
                    Some(mask) => mask,
                    None => mask.insert(parameters.weights.f_ones_like()?),
                };
                parameters.part(flat, weight)?.f_copy_(&kept)?;
                Ok(())
            };
            match constraint {
                Constraint::Mask(array) => hide(array)?,
                Constraint::Int { bits, mask } => {
                    if !(2..=8).contains(bits) {
                        return Err(wrong("2 to 8 bits".into(), bits.to_string()));
                    }
                    if let Some(mask) = mask {
                        hide(mask)?;
                    }
                    rules.insert(weight, Rule::Int(f64::from((1_i32 << (bits - 1)) - 1)));
                }
                Constraint::Ternary { threshold } => {
                    if !(0.0..1.0).contains(threshold) {
                        return Err(wrong("a threshold from 0 to below 1".into(), threshold.to_string()));
                    }
                    let mut latent = parameters.part(&parameters.weights, weight)?;
                    let largest = latent.f_abs()?.f_max()?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
                    let normalised = latent.f_div(&largest)?;
                    for set in [normalised.f_gt(*threshold)?, normalised.f_lt(-threshold)?] {
                        let set = set.f_to_kind(Kind::Float)?;
                        let count = set.f_sum(None::<Kind>)?.f_clamp_min(1.0)?;
                        let mean = latent.f_abs()?.f_mul(&set)?.f_sum(None::<Kind>)?.f_div(&count)?;
                        // A set without elements may gain some: it begins with a magnitude that is small, not 0.
                        scales.push(mean.f_maximum(&largest.f_mul_scalar(1e-3)?)?);
                        step.push(1.0 / (len as f32).sqrt());
                    }
                    latent.f_copy_(&normalised)?;
                    let flat = match &decay {
                        Some(decay) => decay,
                        None => decay.insert(parameters.weights.f_ones_like()?),
                    };
                    let _ = parameters.part(flat, weight)?.f_zero_()?;
                    rules.insert(weight, Rule::Ternary(*threshold, scales.len() / 2 - 1));
                }
                other => return Err(wrong("a mask, ternary or integers".into(), format!("{other:?}"))),
            }
        }
        let scales = match scales.is_empty() {
            true => Tensor::f_zeros([0], (Kind::Float, device))?,
            false => Tensor::f_stack(&scales, 0)?,
        };
        let least = scales.f_mul_scalar(1e-3)?;
        let scales = scales.f_set_requires_grad(!rules.is_empty())?;
        let step = Tensor::f_from_slice(&step)?.f_to_device(device)?;
        let constrained = Self { mask, decay, rules, scales, step, least };
        constrained.hold(&mut parameters.weights)?;
        Ok(constrained)
    }

    /// Whether the forward pass uses other weights than the stored ones.
    pub(crate) fn changes_weights(&self) -> bool {
        !self.rules.is_empty()
    }

    pub(crate) fn has_scales(&self) -> bool {
        self.scales.numel() > 0
    }

    /// The magnitudes one by one; to be asked for once a forward pass.
    pub(crate) fn magnitudes(&self) -> Result<Vec<Tensor>, TrainError> {
        Ok(if self.has_scales() { self.scales.f_unbind(0)? } else { Vec::new() })
    }

    /// What the forward pass uses for a stored weight; `None` for the weight itself.
    pub(crate) fn apply(
        &self,
        index: usize,
        weight: &Tensor,
        magnitudes: &[Tensor],
    ) -> Result<Option<Tensor>, TrainError> {
        Ok(match self.rules.get(&index) {
            Some(&Rule::Int(levels)) => Some(integers(weight, levels)?),
            Some(&Rule::Ternary(threshold, pair)) => {
                Some(ternary(weight, threshold, &magnitudes[2 * pair], &magnitudes[2 * pair + 1])?)
            }
            None => None,
        })
    }

    /// Adds the gradient of `decay / 2 * |weights|^2` to `gradient`, for weights that decay.
    pub(crate) fn add_decay(&self, gradient: &mut Tensor, weights: &Tensor, decay: f64) -> Result<(), TrainError> {
        let mut term = weights.f_detach()?.f_mul_scalar(decay)?;
        if let Some(applies) = &self.decay {
            let _ = term.f_mul_(applies)?;
        }
        let _ = gradient.f_add_(&term)?;
        Ok(())
    }

    /// Divides the magnitudes' gradients by the square root of the number of elements that share them (Esser et
    /// al. 2020, section 2.2): a sum over a million weights would otherwise move them a thousand times
    /// as far as a weight moves.
    pub(crate) fn temper(&self, gradient: &mut Tensor) -> Result<(), TrainError> {
        let _ = gradient.f_mul_(&self.step)?;
        Ok(())
    }

    /// Brings masked elements back to zero after a step.
    pub(crate) fn hold(&self, weights: &mut Tensor) -> Result<(), TrainError> {
        if let Some(mask) = &self.mask {
            let _ = weights.f_mul_(mask)?;
        }
        Ok(())
    }

    /// Keeps the magnitudes positive after a step.
    pub(crate) fn hold_scales(&mut self) -> Result<(), TrainError> {
        let held = self.scales.f_maximum(&self.least)?;
        self.scales.f_copy_(&held)?;
        Ok(())
    }
}

/// Trained ternary quantisation (Zhu et al. 2017): `+positive` above `threshold * max |w|`, `-negative` below its
/// negative, 0 between.
///
/// Gradients are those of the paper's equations 7 and 8: a magnitude's is the sum over the elements that it stands
/// for; an element's own is multiplied by the magnitude it stands for, by 1 where it stands for 0.
pub(crate) fn ternary(
    weight: &Tensor,
    threshold: f64,
    positive: &Tensor,
    negative: &Tensor,
) -> Result<Tensor, TrainError> {
    let (above, below, factor) = tch::no_grad(|| -> Result<_, TrainError> {
        let threshold = weight.f_abs()?.f_max()?.f_mul_scalar(threshold)?;
        let above = weight.f_gt_tensor(&threshold)?.f_to_kind(Kind::Float)?;
        let below = weight.f_lt_tensor(&threshold.f_neg()?)?.f_to_kind(Kind::Float)?;
        let zero = above.f_add(&below)?.f_neg()?.f_add_scalar(1.0)?;
        let factor = above.f_mul(positive)?.f_add(&below.f_mul(negative)?)?.f_add(&zero)?;
        Ok((above, below, factor))
    })?;
    let value = above.f_mul(positive)?.f_sub(&below.f_mul(negative)?)?;
    // The difference is exactly 0; its gradient is the factor.
    let through = weight.f_sub(&weight.f_detach()?)?.f_mul(&factor)?;
    Ok(value.f_add(&through)?)
}

/// Each row rounded to multiples of `max |row| / levels`, the gradient passing straight through (Bengio et al. 2013).
pub(crate) fn integers(weight: &Tensor, levels: f64) -> Result<Tensor, TrainError> {
    let rounded = tch::no_grad(|| -> Result<_, TrainError> {
        let axes: Vec<i64> = (1..weight.dim()).map(extent).collect();
        let largest = weight.f_abs()?.f_amax(&axes[..], true)?;
        // The same division that a compressor makes of the result, so that both find the same integers.
        let scale = largest.f_div_scalar(levels)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        Ok(weight.f_div(&scale)?.f_round()?.f_clamp(-levels, levels)?.f_mul(&scale)?)
    })?;
    // The difference is exactly 0; its gradient is 1.
    Ok(rounded.f_add(&weight.f_sub(&weight.f_detach()?)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(tensor.to_kind(Kind::Double).contiguous().view([-1])).unwrap()
    }

    /// Gradients of `sum(output * upstream)`.
    fn gradients(output: &Tensor, upstream: &Tensor, leaves: &[&Tensor]) -> Vec<Vec<f64>> {
        let loss = (output * upstream).sum(Kind::Float);
        Tensor::run_backward(&[&loss], leaves, false, false).iter().map(values).collect()
    }

    #[test]
    fn ternary_gradients_are_the_papers() {
        let weight = Tensor::from_slice(&[1.0_f32, 0.6, 0.1, -0.2, -0.9]).set_requires_grad(true);
        let positive = Tensor::from(0.5_f32).set_requires_grad(true);
        let negative = Tensor::from(0.25_f32).set_requires_grad(true);
        let upstream = Tensor::from_slice(&[1.0_f32, 2.0, 4.0, 8.0, 16.0]);
        let output = ternary(&weight, 0.3, &positive, &negative).unwrap();
        assert_eq!(values(&output), [0.5, 0.5, 0.0, 0.0, -0.25]);
        let gradients = gradients(&output, &upstream, &[&weight, &positive, &negative]);
        assert_eq!(gradients[0], [0.5, 1.0, 4.0, 8.0, 4.0]);
        // The sums over the sets; an element of the negative set falls as its magnitude grows.
        assert_eq!(gradients[1..], [vec![3.0], vec![-16.0]]);
    }

    #[test]
    fn integers_are_on_each_rows_grid_and_gradients_pass() {
        let weight = Tensor::from_slice2(&[[0.7_f32, -0.24, 0.04], [0.0, 0.0, 0.0]]).set_requires_grad(true);
        let output = integers(&weight, 7.0).unwrap();
        let expected = [0.7, -0.2, 0.0, 0.0, 0.0, 0.0];
        assert!(values(&output).iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6));
        let upstream = Tensor::from_slice2(&[[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        assert_eq!(gradients(&output, &upstream, &[&weight])[0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
