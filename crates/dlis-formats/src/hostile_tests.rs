//! Parts that an adversary, or a broken disk, might hand over.

use crate::*;

fn message<T: std::fmt::Debug>(result: Result<T, FormatError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn extents_are_bounded() {
    for dims in [vec![], vec![1 << 32], vec![usize::MAX, 2], vec![0, usize::MAX], vec![1 << 16, 1 << 16]] {
        assert!(matches!(Int8::new(dims.clone(), vec![], vec![]), Err(FormatError::Dims { .. })), "{dims:?}");
    }
}

#[test]
fn sparse_rows_are_checked() {
    let csr = |starts: &[u32], columns: &[u16], values: usize| {
        message(Csr::new(vec![2, 3], starts.to_vec(), Indices::U16(columns.to_vec()), Values::F32(vec![1.0; values])))
    };
    assert_eq!(csr(&[0, 1], &[0], 1), "`row_starts` has 2 elements, expected 3");
    assert_eq!(csr(&[1, 1, 1], &[0], 1), "`row_starts`[0] is 1, expected 0");
    assert_eq!(csr(&[0, 2, 1], &[0], 1), "`row_starts`[2] is 1, expected at least the start before it");
    assert_eq!(csr(&[0, 1, 2], &[0], 1), "`row_starts`[2] is 2, expected the number of values");
    assert_eq!(csr(&[0, 1, 1], &[0, 1], 1), "`columns` has 2 elements, expected 1");
    assert_eq!(csr(&[0, 1, 2], &[0, 3], 2), "`columns`[1] is 3, expected columns below 3, increasing along a row");
    assert!(csr(&[0, 2, 2], &[1, 1], 2).starts_with("`columns`[1] is 1"));
    let wide = Csr::new(vec![1, 3], vec![0, 0], Indices::U32(vec![]), Values::F32(vec![]));
    assert_eq!(message(wide), "`columns` are of 32 bits, expected 16 bits for 3 columns");
}

#[test]
fn blocks_are_checked() {
    let bsr = |block, columns: &[u16], values: Vec<f32>| {
        let starts = vec![0, u32::try_from(columns.len()).unwrap()];
        message(Bsr::new(vec![3, 2], block, starts, Indices::U16(columns.to_vec()), values))
    };
    assert_eq!(bsr([2, 2], &[], vec![]), "`block` is 2x2, expected 1x4, 4x1, 8x1 or 16x1");
    assert_eq!(bsr([0, 0], &[], vec![]), "`block` is 0x0, expected 1x4, 4x1, 8x1 or 16x1");
    assert_eq!(bsr([4, 1], &[1], vec![1.0; 3]), "`values` has 3 elements, expected 4");
    assert!(bsr([4, 1], &[2], vec![0.0; 4]).starts_with("`block_columns`[0] is 2"));
    assert_eq!(bsr([4, 1], &[1], vec![1.0; 4]), "`values`[3]: expected zeros where nothing of the tensor is stored");
}

#[test]
fn two_of_four_are_checked() {
    let packed =
        |positions: &[u8], values: &[f32]| message(TwoFour::new(vec![1, 5], positions.to_vec(), values.to_vec()));
    assert_eq!(packed(&[], &[0.0; 4]), "`positions` has 0 elements, expected 1");
    assert_eq!(packed(&[0x44], &[0.0; 3]), "`values` has 3 elements, expected 4");
    assert!(packed(&[0x40], &[0.0; 4]).starts_with("`positions`[0] is 64"), "equal places");
    // The second group has the one channel 4, so its second place is outside.
    assert!(packed(&[0x44], &[1.0; 4]).starts_with("`values`[3]"));
    let odd = TwoFour::new(vec![1, 4], vec![0x44], vec![0.0; 2]);
    assert!(message(odd).starts_with("`positions`[0]"), "a group that is not there");
}

#[test]
fn codes_are_checked() {
    let ternary = |packing, magnitude: f32, codes: &[u8]| {
        message(Ternary::new(vec![2, 3], packing, vec![magnitude; 2], vec![1.0; 2], codes.to_vec()))
    };
    use TernaryPacking::{FiveInEight, TwoBit};
    assert_eq!(ternary(TwoBit, 1.0, &[0]), "`codes` has 1 elements, expected 2");
    assert_eq!(ternary(TwoBit, f32::NAN, &[0, 0]), "`positive`[0] is NaN, expected a finite number");
    assert_eq!(ternary(TwoBit, 1.0, &[0, 12]), "`codes`[1] is 12, expected codes of 0 to 2, two bits each");
    assert_eq!(ternary(FiveInEight, 1.0, &[243, 0]), "`codes`[0] is 243, expected five digits of base 3, at most 242");
    assert!(ternary(TwoBit, 1.0, &[0, 64]).starts_with("`codes`[1]: expected zeros"));
    assert!(ternary(FiveInEight, 1.0, &[27, 0]).starts_with("`codes`[0]: expected zeros"));
    let signs = Ternary::from_signs(vec![1, 1], TwoBit, vec![1.0], vec![1.0], &[2]);
    assert_eq!(message(signs), "`signs`[0] is 2, expected -1, 0 or 1");
}

#[test]
fn steps_and_scales_are_checked() {
    assert_eq!(message(Int8::new(vec![1, 2], vec![1, -128], vec![1.0])), "`values`[1] is -128, expected -127 to 127");
    assert_eq!(message(Int8::new(vec![1, 2], vec![1], vec![1.0])), "`values` has 1 elements, expected 2");
    assert_eq!(message(Int8::new(vec![2], vec![1, 1], vec![1.0])), "`scales` has 1 elements, expected 2");
    let halves = |dims: &[usize], scales: &[f32]| {
        message(ScaledF16::new(dims.to_vec(), vec![half::f16::ONE; 2], scales.to_vec()))
    };
    assert_eq!(halves(&[1, 3], &[1.0]), "`values` has 2 elements, expected 3");
    assert_eq!(halves(&[2], &[1.0]), "`scales` has 1 elements, expected 2");
    assert!(halves(&[2], &[1.0, f32::NAN]).starts_with("`scales`[1]"));
    let infinite = Int8::new(vec![1], vec![1], vec![f32::INFINITY]);
    assert_eq!(message(infinite), "`scales`[0] is inf, expected a finite number");
    for byte in [0x08, 0x80] {
        let low = message(Int4::new(vec![1, 2], vec![byte], vec![1.0]));
        assert!(low.ends_with("expected two nibbles of -7 to 7"), "{low}");
    }
    assert!(message(Int4::new(vec![1, 1], vec![0x10], vec![1.0])).starts_with("`packed`[0]: expected zeros"));
    assert_eq!(message(Int4::new(vec![2, 1], vec![1], vec![1.0; 2])), "`packed` has 1 elements, expected 2");
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(Quantization::new(scale, 0).is_err(), "{scale}");
    }
    assert!(Quantization::from_range(f32::NAN, 1.0).is_err());
}

#[test]
fn filters_are_checked() {
    let sparse = |starts: &[u32], columns: &[u32], values: usize| {
        message(FilterCsr::new(vec![2, 1, 1, 3], starts.to_vec(), columns.to_vec(), vec![1.0; values]))
    };
    assert_eq!(sparse(&[0, 0, 0], &[], 0), "`row_starts` has 3 elements, expected 4");
    assert_eq!(sparse(&[0, 1, 1, 1], &[0], 1), "`row_starts`[2] is 1, expected 0");
    assert_eq!(sparse(&[0, 1, 0, 1], &[0], 1), "`row_starts`[3] is 1, expected at most the values left");
    assert_eq!(sparse(&[0, 1, 0, 0], &[0, 0], 2), "`values` has 2 elements, expected 1");
    assert!(sparse(&[0, 2, 0, 0], &[1, 0], 2).starts_with("`columns`[1] is 0"));
    assert!(sparse(&[0, 1, 0, 0], &[u32::MAX], 1).starts_with("`columns`[0] is 4294967295"));
}
