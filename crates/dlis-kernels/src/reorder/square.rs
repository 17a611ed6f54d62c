//! Four rows of four floats as columns.

/// Rows and columns.
pub(super) const SQUARE: usize = 4;

type Rows = [[f32; SQUARE]; SQUARE];

/// The columns of these rows. Shuffles in registers, which the compiler does not make of the loops that say the same.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn columns(rows: Rows) -> Rows {
    use std::arch::x86_64::{__m128, _mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
    use std::mem::transmute;

    // SAFETY: either type is four floats, and SSE is part of x86-64.
    unsafe {
        let [a, b, c, d] = transmute::<Rows, [__m128; SQUARE]>(rows);
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        transmute::<[__m128; SQUARE], Rows>([
            _mm_movelh_ps(ab, cd),
            _mm_movehl_ps(cd, ab),
            _mm_movelh_ps(ab_high, cd_high),
            _mm_movehl_ps(cd_high, ab_high),
        ])
    }
}

/// The columns of these rows.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn columns(rows: Rows) -> Rows {
    std::array::from_fn(|column| rows.map(|row| row[column]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_the_rows() {
        let rows: Rows = std::array::from_fn(|row| [0.0, 1.0, 2.0, 3.0].map(|column| row as f32 * 4.0 + column));
        for (index, column) in columns(rows).into_iter().enumerate() {
            assert_eq!(column, rows.map(|row| row[index]));
        }
    }
}
