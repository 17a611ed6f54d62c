//! What tensors hold over many images.

use std::collections::BTreeMap;

use dlis_compress::Observed;
use dlis_model::Value;
use tch::{Device, Kind, Tensor};

use crate::data::Images;
use crate::error::{TrainError, extent};
use crate::forward::Forward;

/// Ranges and histograms of magnitudes of every tensor, in two passes: the second knows the ranges.
pub(crate) fn observe(
    forward: &Forward<'_>,
    images: &Images,
    order: &[usize],
    pass: usize,
) -> Result<BTreeMap<Value, Observed>, TrainError> {
    let chosen = images.chosen(order)?;
    let each = |after: &mut crate::forward::After<'_>| -> Result<(), TrainError> {
        for start in (0..order.len()).step_by(pass.max(1)) {
            let batch = images.batch(&chosen, start..order.len().min(start + pass.max(1)), forward.kind)?;
            let _ = forward.run(batch.images, after)?;
        }
        Ok(())
    };
    let mut limits: BTreeMap<Value, [Tensor; 2]> = BTreeMap::new();
    each(&mut |value, tensor| {
        let (low, high) = tensor.f_aminmax(None::<i64>, false)?;
        let limit = match limits.remove(&value) {
            Some([least, most]) => [least.f_minimum(&low)?, most.f_maximum(&high)?],
            None => [low, high],
        };
        limits.insert(value, limit);
        Ok(tensor)
    })?;
    let mut ranges: BTreeMap<Value, [f64; 2]> = BTreeMap::new();
    for (value, [low, high]) in &limits {
        ranges.insert(*value, [low.f_double_value(&[])?, high.f_double_value(&[])?]);
    }
    let mut counts: BTreeMap<Value, Tensor> = BTreeMap::new();
    let bins = extent(Observed::BINS);
    each(&mut |value, tensor| {
        let magnitude = ranges.get(&value).map_or(0.0, |[low, high]| low.abs().max(high.abs()));
        let per_value = if magnitude > 0.0 { Observed::BINS as f64 / magnitude } else { 0.0 };
        let bin = tensor.f_abs()?.f_mul_scalar(per_value)?.f_to_kind(Kind::Int64)?.f_clamp(0, bins - 1)?;
        let count = bin.f_flatten(0, -1)?.f_bincount(None::<Tensor>, bins)?;
        let count = match counts.remove(&value) {
            Some(sum) => sum.f_add(&count)?,
            None => count,
        };
        counts.insert(value, count);
        Ok(tensor)
    })?;
    let mut observed = BTreeMap::new();
    for (value, [low, high]) in ranges {
        let mut of_value = vec![0_i64; Observed::BINS];
        if let Some(count) = counts.get(&value) {
            count.f_to_device(Device::Cpu)?.f_copy_data(&mut of_value, Observed::BINS)?;
        }
        let of_value = of_value.into_iter().map(|count| u64::try_from(count).unwrap_or(0)).collect();
        #[expect(clippy::cast_possible_truncation, reason = "they were f32")]
        let entry = Observed::new(low as f32, high as f32, of_value)?;
        observed.insert(value, entry);
    }
    Ok(observed)
}
