//! From the sums of one channel to its outputs: bias, residual and activation.

use dlis_model::Activation;

use super::tile::rectify;
use crate::simd::{Portable, Simd};

/// Finishes neighbouring sums of one channel.
#[inline(always)]
pub(super) fn finish<S: Simd>(
    simd: S,
    (to, sums): (&mut [f32], &[f32]),
    bias: f32,
    residual: Option<&[f32]>,
    activation: Option<Activation>,
) {
    let done = finish_vectors(simd, 0, to, sums, bias, residual, activation);
    let done = finish_vectors(Portable, done, to, sums, bias, residual, activation);
    for index in done..sums.len() {
        let sum = sums[index] + bias + residual.map_or(0.0, |residual| residual[index]);
        to[index] = match activation {
            None | Some(Activation::Sigmoid) => sum,
            Some(activation) => activation.apply(sum),
        };
    }
    if activation == Some(Activation::Sigmoid) {
        to.iter_mut().for_each(|x| *x = Activation::Sigmoid.apply(*x));
    }
}

/// Finishes whole vectors from `done` on, but for a sigmoid, and returns how many elements are done then.
#[inline(always)]
fn finish_vectors<S: Simd>(
    simd: S,
    done: usize,
    to: &mut [f32],
    sums: &[f32],
    bias: f32,
    residual: Option<&[f32]>,
    activation: Option<Activation>,
) -> usize {
    let end = done + (sums.len() - done) / S::LANES * S::LANES;
    assert!(to.len() >= end && residual.is_none_or(|residual| residual.len() >= end), "room for the sums");
    for at in (done..end).step_by(S::LANES) {
        // SAFETY: `end` is no more than the length of each.
        unsafe {
            let mut sum = simd.add(simd.load(sums.as_ptr().add(at)), simd.splat(bias));
            if let Some(residual) = residual {
                sum = simd.add(sum, simd.load(residual.as_ptr().add(at)));
            }
            simd.store(to.as_mut_ptr().add(at), rectify(simd, activation, sum));
        }
    }
    end
}
