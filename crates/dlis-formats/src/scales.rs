//! Symmetric quantisation with a scale a row: what [`Int8`](crate::Int8) and [`Int4`](crate::Int4) share.

use ndarray::ArrayD;

use crate::error::{check_finite, check_length};
use crate::extents::Extents;
use crate::{ConvertError, Format, FormatError};

/// Scale of a row of zeros: any would do, and one never underflows in a product.
const SCALE_OF_ZEROS: f32 = 1.0;

/// The scale of each row by which its largest magnitude becomes `levels` steps.
pub(crate) fn max_abs(dense: &ArrayD<f32>, levels: i8) -> Vec<f32> {
    let rows = dense.shape().first().copied().unwrap_or(1);
    let (elements, columns) = (dense.as_standard_layout(), dense.len() / rows.max(1));
    let largest = |row: usize| {
        elements.iter().skip(row * columns).take(columns).fold(0.0f32, |largest, value| largest.max(value.abs()))
    };
    (0..rows).map(|row| scale_for(largest(row), levels)).collect()
}

/// The scale by which `largest` becomes `levels` steps.
fn scale_for(largest: f32, levels: i8) -> f32 {
    if largest == 0.0 {
        return SCALE_OF_ZEROS;
    }
    // The smallest numbers divided by the levels would else be zero.
    (largest / f32::from(levels)).max(f32::from_bits(1))
}

/// The steps nearest to a finite value, ties to even, at most `levels`. A scale of zero has only zeros.
fn steps(value: f32, scale: f32, levels: i8) -> i8 {
    let levels = f32::from(levels);
    let steps = (value / scale).round_ties_even().clamp(-levels, levels);
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the levels, and NaN (0 / 0) becomes 0")]
    return steps as i8;
}

/// The elements of a tensor as steps of their rows' scales, rounded.
///
/// # Errors
///
/// [`FormatError`] if the tensor is too large, there is not one finite scale a row, or an element is not
/// finite.
pub(crate) fn quantize(dense: &ArrayD<f32>, scales: &[f32], levels: i8) -> Result<(Extents, Vec<i8>), FormatError> {
    let extents = Extents::new(dense.shape().to_vec())?;
    check_length("scales", scales.len(), extents.rows())?;
    check_finite("scales", scales)?;
    let columns = extents.columns();
    let dense = dense.as_standard_layout();
    if let Some((index, &value)) = dense.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return Err(FormatError::Number { field: "dense", index, value, expected: "a finite number" });
    }
    let steps = dense.iter().enumerate().map(|(index, &value)| steps(value, scales[index / columns], levels));
    let steps = steps.collect();
    Ok((extents, steps))
}

/// The elements as exact steps, with the scales found.
///
/// # Errors
///
/// [`ConvertError`] if a row has no scale by which each of its elements is a whole number of steps.
pub(crate) fn exact(
    dims: &[usize],
    elements: &[f32],
    levels: i8,
    format: Format,
) -> Result<(Extents, Vec<i8>, Vec<f32>), ConvertError> {
    let extents = Extents::new(dims.to_vec()).map_err(|source| ConvertError::Tensor { format, source })?;
    let columns = extents.columns();
    let mut all = Vec::with_capacity(elements.len());
    let mut scales = Vec::with_capacity(extents.rows());
    for row in 0..extents.rows() {
        let elements = &elements[row * columns..][..columns];
        let scale = exact_scale(elements, levels).map_err(|column| {
            let (index, value) = (row * columns + column, elements[column]);
            ConvertError::Value { index, value, format }
        })?;
        all.extend(elements.iter().map(|&value| steps(value, scale, levels)));
        scales.push(scale);
    }
    Ok((extents, all, scales))
}

/// A scale by which each element of a row is exactly a whole number of steps; else the first element that no
/// scale represents together with those before it.
///
/// The largest magnitude is some number of steps, so its quotients by all of them are tried, the finest
/// first. A quotient of a rounded product is within two units in the last place of the factor.
fn exact_scale(elements: &[f32], levels: i8) -> Result<f32, usize> {
    if let Some(column) = elements.iter().position(|value| !value.is_finite()) {
        return Err(column);
    }
    let largest = elements.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    if largest == 0.0 {
        return Ok(SCALE_OF_ZEROS);
    }
    let mut furthest = 0;
    for count in (1..=levels).rev() {
        let quotient = scale_for(largest, count);
        let (down, up) = (quotient.next_down(), quotient.next_up());
        for scale in [quotient, down, up, down.next_down(), up.next_up()] {
            if !(scale > 0.0 && scale.is_finite()) {
                continue;
            }
            let wrong = |&value: &f32| f32::from(steps(value, scale, levels)) * scale != value;
            match elements.iter().position(wrong) {
                None => return Ok(scale),
                Some(column) => furthest = furthest.max(column),
            }
        }
    }
    Err(furthest)
}

/// Each number times a factor; `None` unless all are finite.
pub(crate) fn product(numbers: &[f32], factors: &[f32]) -> Option<Vec<f32>> {
    let products: Vec<f32> = numbers.iter().zip(factors).map(|(number, factor)| number * factor).collect();
    products.iter().all(|product| product.is_finite()).then_some(products)
}
