//! What follows an operation: bias, residual, activation, in this order, on parts of the output that are
//! still in the cache.

use dlis_model::Activation;

/// [`Activation::Relu`], in a form that is inlined into loops.
#[inline(always)]
fn relu(x: f32) -> f32 {
    // Not `f32::max`, which would turn NaN into 0.
    if x < 0.0 { 0.0 } else { x }
}

/// [`Activation::Relu6`], in a form that is inlined into loops.
#[inline(always)]
fn relu6(x: f32) -> f32 {
    let x = relu(x);
    if x > 6.0 { 6.0 } else { x }
}

/// Applies an activation to every element.
pub(crate) fn activate(activation: Option<Activation>, data: &mut [f32]) {
    match activation {
        None => {}
        Some(Activation::Relu) => data.iter_mut().for_each(|x| *x = relu(*x)),
        Some(Activation::Relu6) => data.iter_mut().for_each(|x| *x = relu6(*x)),
        Some(function @ Activation::Sigmoid) => data.iter_mut().for_each(|x| *x = function.apply(*x)),
    }
}

/// Finishes elements of one channel.
///
/// # Panics
///
/// If the residual is shorter than the data.
pub(crate) fn finish_channel(data: &mut [f32], bias: f32, residual: Option<&[f32]>, activation: Option<Activation>) {
    match residual {
        Some(residual) => {
            let residual = &residual[..data.len()];
            data.iter_mut().zip(residual).for_each(|(x, &r)| *x = *x + bias + r);
        }
        None => data.iter_mut().for_each(|x| *x += bias),
    }
    activate(activation, data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_those_of_the_model() {
        let values = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -0.0, 0.0, -1.0, 0.5, 6.0, 6.5, f32::MIN_POSITIVE];
        for function in [Activation::Relu, Activation::Relu6, Activation::Sigmoid] {
            let mut data = values;
            activate(Some(function), &mut data);
            let expected = values.map(|x| function.apply(x));
            assert_eq!(data.map(f32::to_bits), expected.map(f32::to_bits), "{function:?}");
        }
    }

    #[test]
    fn bias_and_residual_come_before_the_activation() {
        let mut data = [1.0, 2.0, -9.0];
        finish_channel(&mut data, 3.0, Some(&[-5.0, 10.0, 1.0]), Some(Activation::Relu6));
        assert_eq!(data, [0.0, 6.0, 0.0]);
        finish_channel(&mut data, -1.0, None, None);
        assert_eq!(data, [-1.0, 5.0, -1.0]);
    }
}
