//! Winograd's transforms of one dimension (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks",
//! sections 4.1 and 4.3), of vectors whose lanes are channels.
//!
//! `TILE` neighbouring outputs of a filter of three taps are made of `TILE + 2` inputs; `TILE` is 2 or 4. Arrays have
//! room for the larger: the elements beyond are not used.

use crate::simd::Simd;

/// Inputs of the largest tile.
pub(super) const MOST: usize = 6;

/// `a - b`.
#[inline(always)]
fn sub<S: Simd>(simd: S, a: S::Vector, b: S::Vector) -> S::Vector {
    simd.mul_add(simd.splat(-1.0), b, a)
}

/// `a + factor * b`.
#[inline(always)]
fn plus<S: Simd>(simd: S, a: S::Vector, factor: f32, b: S::Vector) -> S::Vector {
    simd.mul_add(simd.splat(factor), b, a)
}

/// Of inputs: `B^T x`.
#[inline(always)]
pub(super) fn data<S: Simd, const TILE: usize>(simd: S, x: [S::Vector; MOST]) -> [S::Vector; MOST] {
    let [x0, x1, x2, x3, x4, x5] = x;
    if TILE == 2 {
        return [sub(simd, x0, x2), simd.add(x1, x2), sub(simd, x2, x1), sub(simd, x1, x3), x4, x5];
    }
    let (even, odd) = (plus(simd, x4, -4.0, x2), plus(simd, x3, -4.0, x1));
    let (near, far) = (sub(simd, x4, x2), sub(simd, x3, x1));
    [
        plus(simd, plus(simd, x4, -5.0, x2), 4.0, x0),
        simd.add(even, odd),
        sub(simd, even, odd),
        plus(simd, near, 2.0, far),
        plus(simd, near, -2.0, far),
        plus(simd, plus(simd, x5, -5.0, x3), 4.0, x1),
    ]
}

/// Of sums of products: `A^T m`, whose first `TILE` elements are the outputs.
#[inline(always)]
pub(super) fn result<S: Simd, const TILE: usize>(simd: S, m: [S::Vector; MOST]) -> [S::Vector; MOST] {
    let [m0, m1, m2, m3, m4, m5] = m;
    let (sum, difference) = (simd.add(m1, m2), sub(simd, m1, m2));
    if TILE == 2 {
        return [simd.add(m0, sum), sub(simd, difference, m3), m2, m3, m4, m5];
    }
    let (outer, outer_difference) = (simd.add(m3, m4), sub(simd, m3, m4));
    [
        simd.add(m0, simd.add(sum, outer)),
        plus(simd, difference, 2.0, outer_difference),
        plus(simd, sum, 4.0, outer),
        simd.add(m5, plus(simd, difference, 8.0, outer_difference)),
        m4,
        m5,
    ]
}

/// Of weights: `G`, a row for each of the `tile + 2` positions.
pub(super) fn weight(tile: usize) -> &'static [[f64; 3]] {
    const SMALL: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
    const LARGE: [[f64; 3]; 6] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    if tile == 2 { &SMALL } else { &LARGE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;
    use dlis_hw::Hardware;

    /// One dimension by the transforms against its definition, in exact numbers.
    fn check<const TILE: usize>() {
        let simd = Portable::new(&Hardware::detect()).unwrap();
        let inputs: Vec<f32> = (0..MOST).map(|i| [3.0, -1.0, 4.0, 1.0, -5.0, 9.0][i]).collect();
        let taps = [2.0f64, -6.0, 12.0];
        let mut x = [simd.splat(0.0); MOST];
        x.iter_mut().zip(&inputs).for_each(|(x, &input)| *x = simd.splat(input));
        let mut products = data::<_, TILE>(simd, x);
        for (product, row) in products.iter_mut().zip(weight(TILE)) {
            let tap: f64 = row.iter().zip(taps).map(|(factor, tap)| factor * tap).sum();
            #[expect(clippy::cast_possible_truncation, reason = "small halves and quarters")]
            let tap = simd.splat(tap as f32);
            *product = simd.mul_add(*product, tap, simd.splat(0.0));
        }
        let outputs = result::<_, TILE>(simd, products);
        for (at, &output) in outputs.iter().enumerate().take(TILE) {
            let mut found = vec![0.0; Portable::LANES];
            // SAFETY: the vector has room.
            unsafe { simd.store(found.as_mut_ptr(), output) };
            let expected: f64 = (0..3).map(|tap| taps[tap] * f64::from(inputs[at + tap])).sum();
            assert!((f64::from(found[0]) - expected).abs() < 1e-4, "{TILE}: output {at}: {} {expected}", found[0]);
        }
    }

    #[test]
    fn transforms_compute_a_convolution() {
        check::<2>();
        check::<4>();
    }
}
