//! Activations rounded to a few bits in the forward pass.

use std::collections::BTreeMap;

use dlis_model::Value;
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;

/// Share of a batch's range in the running one.
const MOMENTUM: f64 = 0.01;

/// Running ranges of the tensors that inference materialises (Jacob et al. 2018, section 3.1).
#[derive(Debug)]
pub(crate) struct Ranges {
    /// Largest integer.
    levels: i64,
    /// Smallest and largest value of each tensor.
    pub(crate) limits: BTreeMap<Value, [Tensor; 2]>,
    /// Whether the limits hold anything yet.
    pub(crate) begun: bool,
}

impl Ranges {
    pub(crate) fn new(values: &[Value], bits: u8, device: Device) -> Result<Self, TrainError> {
        let zeros = || Tensor::f_zeros([1], (Kind::Float, device));
        let mut limits = BTreeMap::new();
        for &value in values {
            limits.insert(value, [zeros()?, zeros()?]);
        }
        Ok(Self { levels: (1_i64 << bits) - 1, limits, begun: false })
    }

    /// The tensor rounded to its range, which `training` updates first. The gradient passes straight through
    /// within the range and is 0 beyond it.
    pub(crate) fn round(&mut self, value: Value, tensor: Tensor, training: bool) -> Result<Tensor, TrainError> {
        let Some([low, high]) = self.limits.get_mut(&value) else { return Ok(tensor) };
        let dense = tensor.f_to_kind(Kind::Float)?;
        let (scale, zero) = tch::no_grad(|| -> Result<_, TrainError> {
            if training {
                let (min, max) = dense.f_detach()?.f_aminmax(None::<i64>, false)?;
                // The first batch's range is all that is known.
                let share = if self.begun { MOMENTUM } else { 1.0 };
                let _ = low.f_lerp_(&min.f_clamp_max(0.0)?.f_view([1])?, share)?;
                let _ = high.f_lerp_(&max.f_clamp_min(0.0)?.f_view([1])?, share)?;
            }
            let scale = high.f_sub(low)?.f_div_scalar(self.levels as f64)?.f_clamp_min(1e-10)?;
            let zero = low.f_neg()?.f_div(&scale)?.f_round()?.f_to_kind(Kind::Int)?;
            Ok((scale, zero))
        })?;
        let rounded = dense.f_fake_quantize_per_tensor_affine_tensor_qparams(&scale, &zero, 0, self.levels)?;
        Ok(rounded.f_to_kind(tensor.kind())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_the_range_and_gradients_end_at_its_ends() {
        let mut ranges = Ranges::new(&[Value::Input], 8, Device::Cpu).unwrap();
        let first = Tensor::from_slice(&[-1.0_f32, 0.301, 1.55]);
        let rounded = Vec::<f32>::try_from(ranges.round(Value::Input, first, true).unwrap()).unwrap();
        // 255 steps of 0.01 from -1.
        for (found, expected) in rounded.iter().zip([-1.0, 0.3, 1.55]) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
        ranges.begun = true;
        let tensor = Tensor::from_slice(&[-2.0_f32, 0.5, 3.0]).set_requires_grad(true);
        let output = ranges.round(Value::Input, tensor.shallow_clone(), false).unwrap();
        let gradient = Tensor::run_backward(&[output.sum(Kind::Float)], &[&tensor], false, false);
        assert_eq!(Vec::<f32>::try_from(&gradient[0]).unwrap(), [0.0, 1.0, 0.0]);
        // A later batch moves the range by a hundredth of the way.
        let _ = ranges.round(Value::Input, Tensor::from_slice(&[-2.0_f32, 1.0]), true).unwrap();
        let [low, high] = &ranges.limits[&Value::Input];
        assert!((low.double_value(&[0]) + 1.01).abs() < 1e-6);
        assert!((high.double_value(&[0]) - 1.5445).abs() < 1e-6);
        // Other tensors stay as they are.
        let other = Tensor::from_slice(&[0.12345_f32]);
        assert_eq!(ranges.round(Value::Layer(0), other.shallow_clone(), true).unwrap(), other);
    }
}
