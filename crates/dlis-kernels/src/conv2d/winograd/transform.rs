//! Winograd's transforms of one dimension (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks",
//! sections 4.1 and 4.3), of vectors whose lanes are channels.
//!
//! `TILE` neighbouring outputs of a filter of three taps are made of `TILE + 2` inputs; `TILE` is 2, 4 or 6. Arrays have
//! room for the largest: the elements beyond are not used. The polynomials meet at 0, 1, -1 and infinity, of 4 outputs at 2 and
//! -2 as well, of 6 also at 1/2 and -1/2.
//!
//! The paper's `G` has fractions. Here its rows are multiplied by what makes them whole numbers, of which sums and
//! differences are enough, and the columns of `A^T` divided by the same, times their common [`denominator`], by which
//! whoever has the outputs divides.

use crate::simd::Simd;

/// Inputs of the largest tile.
pub(super) const MOST: usize = 8;

/// `a + factor * b`.
#[inline(always)]
fn plus<S: Simd>(simd: S, a: S::Vector, factor: f32, b: S::Vector) -> S::Vector {
    simd.mul_add(simd.splat(factor), b, a)
}

/// `factor * a`.
#[inline(always)]
fn times<S: Simd>(simd: S, factor: f32, a: S::Vector) -> S::Vector {
    plus(simd, simd.splat(0.0), factor, a)
}

/// Of inputs: `B^T x`.
#[inline(always)]
pub(super) fn data<S: Simd, const TILE: usize>(simd: S, x: [S::Vector; MOST]) -> [S::Vector; MOST] {
    let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
    if TILE == 2 {
        return [simd.sub(x0, x2), simd.add(x1, x2), simd.sub(x2, x1), simd.sub(x1, x3), x4, x5, x6, x7];
    }
    if TILE == 6 {
        let (even, odd) = (plus(simd, simd.add(x2, x6), -4.25, x4), plus(simd, simd.add(x1, x5), -4.25, x3));
        let even_2 = plus(simd, plus(simd, x6, 0.25, x2), -1.25, x4);
        let odd_2 = plus(simd, plus(simd, times(simd, 0.5, x1), -2.5, x3), 2.0, x5);
        let even_half = plus(simd, plus(simd, x6, 4.0, x2), -5.0, x4);
        let odd_half = plus(simd, plus(simd, times(simd, 2.0, x1), -2.5, x3), 0.5, x5);
        return [
            plus(simd, simd.sub(x0, x6), 5.25, simd.sub(x4, x2)),
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.add(even_2, odd_2),
            simd.sub(even_2, odd_2),
            simd.add(even_half, odd_half),
            simd.sub(even_half, odd_half),
            plus(simd, simd.sub(x7, x1), 5.25, simd.sub(x3, x5)),
        ];
    }
    let (even, odd) = (plus(simd, x4, -4.0, x2), plus(simd, x3, -4.0, x1));
    let (near, far) = (simd.sub(x4, x2), simd.sub(x3, x1));
    [
        plus(simd, plus(simd, x4, -5.0, x2), 4.0, x0),
        simd.add(even, odd),
        simd.sub(even, odd),
        plus(simd, near, 2.0, far),
        plus(simd, near, -2.0, far),
        plus(simd, plus(simd, x5, -5.0, x3), 4.0, x1),
        x6,
        x7,
    ]
}

/// What outputs are too large by, in each dimension.
pub(super) const fn denominator(tile: usize) -> f32 {
    match tile {
        2 => 2.0,
        4 => 24.0,
        _ => 90.0,
    }
}

/// Of sums of products: `A^T m`, whose first `TILE` elements are the outputs times [`denominator`].
#[inline(always)]
pub(super) fn result<S: Simd, const TILE: usize>(simd: S, m: [S::Vector; MOST]) -> [S::Vector; MOST] {
    let [m0, m1, m2, m3, m4, m5, m6, m7] = m;
    let (sum, difference) = (simd.add(m1, m2), simd.sub(m1, m2));
    if TILE == 2 {
        return [plus(simd, sum, 2.0, m0), plus(simd, difference, -2.0, m3), m2, m3, m4, m5, m6, m7];
    }
    let (outer, outer_difference) = (simd.add(m3, m4), simd.sub(m3, m4));
    if TILE == 6 {
        let (near, near_difference) = (times(simd, -20.0, sum), times(simd, -20.0, difference));
        let (inner, inner_difference) = (simd.add(m5, m6), simd.sub(m5, m6));
        return [
            plus(simd, simd.add(near, outer), 16.0, plus(simd, inner, 5.625, m0)),
            plus(simd, plus(simd, near_difference, 2.0, outer_difference), 8.0, inner_difference),
            plus(simd, near, 4.0, simd.add(outer, inner)),
            plus(simd, plus(simd, near_difference, 8.0, outer_difference), 2.0, inner_difference),
            plus(simd, simd.add(near, inner), 16.0, outer),
            plus(
                simd,
                plus(simd, plus(simd, near_difference, 32.0, outer_difference), 0.5, inner_difference),
                90.0,
                m7,
            ),
            m6,
            m7,
        ];
    }
    let (near, near_difference) = (times(simd, -4.0, sum), times(simd, -4.0, difference));
    [
        plus(simd, simd.add(near, outer), 6.0, m0),
        plus(simd, near_difference, 2.0, outer_difference),
        plus(simd, near, 4.0, outer),
        plus(simd, plus(simd, near_difference, 8.0, outer_difference), 24.0, m5),
        m4,
        m5,
        m6,
        m7,
    ]
}

/// Of weights: `G`, a row for each of the `tile + 2` positions.
pub(super) fn weight(tile: usize) -> &'static [[f64; 3]] {
    const SMALL: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 1.0]];
    const LARGE: [[f64; 3]; 6] =
        [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 2.0, 4.0], [1.0, -2.0, 4.0], [0.0, 0.0, 1.0]];
    const LARGEST: [[f64; 3]; 8] = [
        [1.0, 0.0, 0.0],
        [1.0, 1.0, 1.0],
        [1.0, -1.0, 1.0],
        [1.0, 2.0, 4.0],
        [1.0, -2.0, 4.0],
        [4.0, 2.0, 1.0],
        [4.0, -2.0, 1.0],
        [0.0, 0.0, 1.0],
    ];
    match tile {
        2 => &SMALL,
        4 => &LARGE,
        _ => &LARGEST,
    }
}

/// The same of vectors: `G g`.
#[inline(always)]
pub(super) fn weights<S: Simd, const TILE: usize>(simd: S, g: [S::Vector; 3]) -> [S::Vector; MOST] {
    let [g0, g1, g2] = g;
    let outer = simd.add(g0, g2);
    let (sum, difference) = (simd.add(outer, g1), simd.sub(outer, g1));
    if TILE == 2 {
        return [g0, sum, difference, g2, g2, g2, g2, g2];
    }
    let (far, twice) = (plus(simd, g0, 4.0, g2), simd.add(g1, g1));
    let (far_sum, far_difference) = (simd.add(far, twice), simd.sub(far, twice));
    if TILE == 4 {
        return [g0, sum, difference, far_sum, far_difference, g2, g2, g2];
    }
    let near = plus(simd, g2, 4.0, g0);
    [g0, sum, difference, far_sum, far_difference, simd.add(near, twice), simd.sub(near, twice), g2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;
    use dlis_hw::Hardware;

    /// One dimension by the transforms against its definition, in exact numbers.
    fn check<const TILE: usize>() {
        let simd = Portable::new(&Hardware::detect()).unwrap();
        let inputs: Vec<f32> = (0..MOST).map(|i| [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, -6.0][i]).collect();
        let taps = [2.0f64, -6.0, 12.0];
        let mut x = [simd.splat(0.0); MOST];
        x.iter_mut().zip(&inputs).for_each(|(x, &input)| *x = simd.splat(input));
        let mut products = data::<_, TILE>(simd, x);
        #[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
        let of_vectors = weights::<_, TILE>(simd, taps.map(|tap| simd.splat(tap as f32)));
        for ((product, row), of_vectors) in products.iter_mut().zip(weight(TILE)).zip(of_vectors) {
            let tap: f64 = row.iter().zip(taps).map(|(factor, tap)| factor * tap).sum();
            #[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
            let tap = simd.splat(tap as f32);
            assert_eq!(tap, of_vectors);
            *product = simd.mul_add(*product, tap, simd.splat(0.0));
        }
        let outputs = result::<_, TILE>(simd, products);
        for (at, &output) in outputs.iter().enumerate().take(TILE) {
            let mut found = vec![0.0; Portable::LANES];
            // SAFETY: the vector has room.
            unsafe { simd.store(found.as_mut_ptr(), output) };
            found[0] /= denominator(TILE);
            let expected: f64 = (0..3).map(|tap| taps[tap] * f64::from(inputs[at + tap])).sum();
            assert!((f64::from(found[0]) - expected).abs() < 1e-4, "{TILE}: output {at}: {} {expected}", found[0]);
        }
    }

    #[test]
    fn transforms_compute_a_convolution() {
        check::<2>();
        check::<4>();
        check::<6>();
    }
}
