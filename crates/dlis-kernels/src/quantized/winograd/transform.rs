//! Winograd's transforms of one dimension for four outputs of three taps (Lavin and Gray 2016, "Fast Algorithms for
//! Convolutional Neural Networks", section 4.3), in whole numbers.
//!
//! Rows of the paper's `G` are multiplied by what makes them whole, and the columns of `A^T` divided by the same, times
//! 24, so that outputs are 24 times too large in each dimension.
//!
//! Inputs and weights have 16 bits. Transformed twice, a byte of up to 255 is between -12750 and 17340, and a weight of up to
//! 127 at most 49 times as large.

use super::super::simd::Dot;

/// Inputs of a tile, along each axis.
pub(super) const SIDE: usize = 6;
/// Its outputs.
pub(super) const TILE: usize = 4;

/// Of inputs: `B^T x`.
#[inline(always)]
pub(super) fn data<D: Dot>(d: D, x: [D::Ints; SIDE]) -> [D::Ints; SIDE] {
    let [x0, x1, x2, x3, x4, x5] = x;
    let (near, far) = (d.sub_words(x4, x2), d.sub_words(x3, x1));
    let even = d.sub_words(x4, d.shift_words::<2>(x2));
    let odd = d.sub_words(x3, d.shift_words::<2>(x1));
    let twice = d.add_words(far, far);
    [
        d.add_words(d.shift_words::<2>(d.sub_words(x0, x2)), near),
        d.add_words(even, odd),
        d.sub_words(even, odd),
        d.add_words(near, twice),
        d.sub_words(near, twice),
        d.sub_words(d.sub_words(x5, x3), d.add_words(twice, twice)),
    ]
}

/// Of weights: `G g`.
#[inline(always)]
pub(super) fn weights<D: Dot>(d: D, g: [D::Ints; 3]) -> [D::Ints; SIDE] {
    let [g0, g1, g2] = g;
    let outer = d.add_words(g0, g2);
    let (far, twice) = (d.add_words(g0, d.shift_words::<2>(g2)), d.add_words(g1, g1));
    [g0, d.add_words(outer, g1), d.sub_words(outer, g1), d.add_words(far, twice), d.sub_words(far, twice), g2]
}

/// `G g` of three rows of three taps: two of its rows, and which they are. There are three `stage`s.
#[inline(always)]
pub(super) fn weight_rows<D: Dot>(d: D, stage: usize, g: &[[D::Ints; 3]; 3]) -> ([usize; 2], [[D::Ints; 3]; 2]) {
    let mut rows = [g[0], g[2]];
    if stage == 0 {
        return ([0, SIDE - 1], rows);
    }
    let [above, below] = &mut rows;
    for x in 0..3 {
        let (outer, inner) = if stage == 1 {
            (d.add_words(g[0][x], g[2][x]), g[1][x])
        } else {
            (d.add_words(g[0][x], d.shift_words::<2>(g[2][x])), d.add_words(g[1][x], g[1][x]))
        };
        (above[x], below[x]) = (d.add_words(outer, inner), d.sub_words(outer, inner));
    }
    ([2 * stage - 1, 2 * stage], rows)
}

/// Of sums of products, of 32 bits: `A^T m`, 24 times the outputs.
#[inline(always)]
pub(super) fn result<D: Dot>(d: D, m: [D::Ints; SIDE]) -> [D::Ints; TILE] {
    let [m0, m1, m2, m3, m4, m5] = m;
    let (sum, difference) = (d.add_ints(m1, m2), d.sub(m1, m2));
    let (outer, outer_difference) = (d.add_ints(m3, m4), d.sub(m3, m4));
    let (near, near_difference) = (d.shift_ints::<2>(sum), d.shift_ints::<2>(difference));
    let (six_first, twice_last) = (d.shift_ints::<1>(d.add_ints(d.add_ints(m0, m0), m0)), d.shift_ints::<3>(m5));
    let last = d.add_ints(twice_last, d.shift_ints::<4>(m5));
    [
        d.add_ints(six_first, d.sub(outer, near)),
        d.sub(d.shift_ints::<1>(outer_difference), near_difference),
        d.sub(d.shift_ints::<2>(outer), near),
        d.add_ints(last, d.sub(d.shift_ints::<3>(outer_difference), near_difference)),
    ]
}

#[cfg(test)]
mod tests {
    use dlis_hw::Hardware;

    use super::super::super::simd::Portable;
    use super::*;

    #[test]
    fn transforms_compute_a_convolution_and_extremes_fit_16_bits() {
        let d = Portable::new(&Hardware::detect()).unwrap();
        // Two words a lane, of which both are the same.
        let word = |x: i16| d.splat_int(i32::from(x.cast_unsigned()) | i32::from(x) << 16);
        let low = |x: [i32; 4]| i64::from(x[0] << 16 >> 16);
        for (inputs, taps) in [([3, 255, 0, 17, 128, 9], [2, -127, 12]), ([255, 0, 255, 255, 0, 255], [127, 127, 127])]
        {
            let (x, g) = (data(d, inputs.map(word)), weights(d, taps.map(word)));
            let mut m = [d.splat_int(0); SIDE];
            for (m, (&x, &g)) in m.iter_mut().zip(x.iter().zip(&g)) {
                *m = d.splat_int(i32::try_from(low(x) * low(g)).unwrap());
            }
            for (at, &output) in result(d, m).iter().enumerate() {
                let expected: i32 = (0..3).map(|tap| i32::from(taps[tap]) * i32::from(inputs[at + tap])).sum();
                assert_eq!(output[0], 24 * expected, "{inputs:?} {taps:?} output {at}");
            }
        }
        // Each of 64 patterns is the extreme of some element: of rows, then of columns whose rows are at either end.
        let mut ends = [i64::MAX, i64::MIN];
        let (mut lows, mut highs) = ([i64::MAX; SIDE], [i64::MIN; SIDE]);
        for pattern in 0..1 << SIDE {
            let x: [i16; SIDE] = std::array::from_fn(|i| 255 * (pattern >> i & 1));
            for (at, x) in data(d, x.map(word)).into_iter().enumerate() {
                (lows[at], highs[at]) = (lows[at].min(low(x)), highs[at].max(low(x)));
            }
        }
        for (&least, &most) in lows.iter().zip(&highs) {
            for pattern in 0..1 << SIDE {
                let x: [i16; SIDE] = std::array::from_fn(|i| {
                    i16::try_from(if pattern >> i & 1 == 1 { most } else { least }).expect("one dimension fits")
                });
                let exact = |f: [i64; SIDE]| f.iter().zip(x).map(|(f, x)| f * i64::from(x)).sum::<i64>();
                let rows = [
                    [4, 0, -5, 0, 1, 0],
                    [0, -4, -4, 1, 1, 0],
                    [0, 4, -4, -1, 1, 0],
                    [0, -2, -1, 2, 1, 0],
                    [0, 2, -1, -2, 1, 0],
                    [0, 4, 0, -5, 0, 1],
                ];
                for row in rows.map(exact) {
                    ends = [ends[0].min(row), ends[1].max(row)];
                }
            }
        }
        assert_eq!(ends, [-50 * 255, 68 * 255], "as the module says");
        assert!(ends[0] >= i64::from(i16::MIN) && ends[1] <= i64::from(i16::MAX));
    }
}
