//! Four rows of four elements as columns.

/// Rows and columns.
pub(super) const SQUARE: usize = 4;

/// What tensors are of.
pub(crate) trait Element: Copy + Send + Sync {
    /// The columns of these rows.
    #[inline(always)]
    fn columns(rows: [[Self; SQUARE]; SQUARE]) -> [[Self; SQUARE]; SQUARE] {
        let mut columns = rows;
        for (index, column) in columns.iter_mut().enumerate() {
            for (to, row) in column.iter_mut().zip(&rows) {
                *to = row[index];
            }
        }
        columns
    }
}

impl Element for u8 {}

impl Element for f32 {
    /// Shuffles in registers, which the compiler does not make of the loops that say the same.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn columns(rows: [[Self; SQUARE]; SQUARE]) -> [[Self; SQUARE]; SQUARE] {
        use std::arch::x86_64::{__m128, _mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
        use std::mem::transmute;

        // SAFETY: either type is four floats, and SSE is part of x86-64.
        unsafe {
            let [a, b, c, d] = transmute::<[[Self; SQUARE]; SQUARE], [__m128; SQUARE]>(rows);
            let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            transmute::<[__m128; SQUARE], [[Self; SQUARE]; SQUARE]>([
                _mm_movelh_ps(ab, cd),
                _mm_movehl_ps(cd, ab),
                _mm_movelh_ps(ab_high, cd_high),
                _mm_movehl_ps(cd_high, ab_high),
            ])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_the_rows() {
        let rows: [[u8; SQUARE]; SQUARE] = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]];
        let turned = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]];
        assert_eq!(u8::columns(rows), turned);
        assert_eq!(f32::columns(rows.map(|row| row.map(f32::from))), turned.map(|row| row.map(f32::from)));
    }
}
