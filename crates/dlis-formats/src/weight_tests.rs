use half::f16;
use proptest::prelude::*;

use super::*;
use crate::{Indices, Quantization};

/// Extents that no packing divides: rows and columns of 0 and 1, ranks 1 to 4.
fn dims() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        proptest::collection::vec(0usize..20, 1..3),
        proptest::collection::vec(1usize..4, 3),
        (1usize..19, 1usize..11, 1usize..4, 1usize..4).prop_map(|(o, i, h, w)| vec![o, i, h, w]),
    ]
}

/// A dense tensor of values drawn by number, 0 being likely.
fn dense(dims: &[usize], choices: &[u8], value: impl Fn(usize, u8) -> f32) -> ArrayD<f32> {
    let columns = dims[1..].iter().product::<usize>().max(1);
    let elements = (0..dims.iter().product()).map(|index| value(index / columns, choices[index % choices.len()]));
    ArrayD::from_shape_vec(dims, elements.collect()).unwrap()
}

/// Equal element by element, NaN to NaN.
fn same(a: &Weight, b: &Weight) -> bool {
    let equal = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
    a.dims() == b.dims() && a.to_f32().iter().zip(b.to_f32().iter()).all(equal)
}

/// The bytes by the table of the crate's documentation.
fn expected_bytes(weight: &Weight) -> usize {
    let dense = weight.to_f32();
    let (rows, columns) = (weight.rows(), weight.columns());
    let stored = dense.iter().filter(|&&value| value != 0.0).count();
    let index = |columns: usize| if columns <= 65_536 { 2 } else { 4 };
    match weight.format() {
        Format::DenseF32 => rows * columns * 4,
        Format::DenseF16 => rows * columns * 2,
        Format::ScaledF16 => rows * (columns * 2 + 4),
        Format::CsrF32 => (rows + 1) * 4 + stored * (index(columns) + 4),
        Format::CsrF16 => (rows + 1) * 4 + stored * (index(columns) + 2),
        Format::Bsr1x4 | Format::Bsr4x1 | Format::Bsr8x1 | Format::Bsr16x1 => {
            let [height, width] = weight.format().block().unwrap();
            let across = columns.div_ceil(width);
            let blocks: std::collections::BTreeSet<_> = (0..rows * columns)
                .filter(|&at| dense.as_slice().unwrap()[at] != 0.0)
                .map(|at| (at / columns / height, at % columns / width))
                .collect();
            (rows.div_ceil(height) + 1) * 4 + blocks.len() * (index(across) + height * width * 4)
        }
        Format::TwoFour => {
            let dims = weight.dims();
            let inputs = dims.get(1).copied().unwrap_or(1);
            let groups = dims.iter().skip(2).product::<usize>() * inputs.div_ceil(4);
            rows * (groups.div_ceil(2) + groups * 8)
        }
        Format::Ternary2Bit => rows * (columns.div_ceil(4) + 8),
        Format::Ternary5In8 => rows * (columns.div_ceil(5) + 8),
        Format::Int8 => rows * (columns + 4),
        Format::Int4 => rows * (columns.div_ceil(2) + 4),
        Format::FilterCsr => {
            let dims = weight.dims();
            let (filters, height) = match dims.len() {
                0..3 => (1, rows),
                rank => (dims[..rank - 2].iter().product(), dims[rank - 2]),
            };
            filters * (40 + (height + 1) * 4) + stored * 8
        }
    }
}

/// What has every format: a tensor that is ternary by row, 2:4, and of small whole numbers.
fn for_all_formats(dims: &[usize], choices: &[u8]) -> Weight {
    let mut array = dense(dims, choices, |row, choice| match choice % 4 {
        0 => 1.0 + (row % 3) as f32,
        1 => -1.0 - (row % 5) as f32,
        _ => 0.0,
    });
    // No third value in a group of four input channels.
    let (inputs, taps) = (dims.get(1).copied().unwrap_or(1), dims.iter().skip(2).product::<usize>());
    for (index, value) in array.iter_mut().enumerate() {
        let channel = index / taps.max(1) % inputs.max(1);
        if channel % 4 > 1 {
            *value = 0.0;
        }
    }
    Weight::F32(array)
}

#[test]
fn rounding_is_refused_and_located() {
    let weight = Weight::F32(ndarray::arr1(&[1.0, 0.1, 2.0]).into_dyn());
    for format in [Format::DenseF16, Format::ScaledF16, Format::CsrF16] {
        assert_eq!(weight.convert(format), Err(ConvertError::Value { index: 1, value: 0.1, format }));
    }
    assert!(Weight::F32(ndarray::arr1(&[1e6]).into_dyn()).convert(Format::DenseF16).is_err());
    let row = Weight::F32(ndarray::arr2(&[[0.0; 6], [0.5, -0.25, 0.5, 0.0, 0.3217, 0.0]]).into_dyn());
    let at = |format| match row.convert(format) {
        Err(ConvertError::Value { index, value, format: named }) if named == format => (index, value),
        other => panic!("{format}: {other:?}"),
    };
    assert_eq!(at(Format::Ternary2Bit), (10, 0.3217));
    assert_eq!(at(Format::Ternary5In8), (10, 0.3217));
    assert_eq!(at(Format::TwoFour), (8, 0.5));
    assert_eq!(at(Format::Int8), (10, 0.3217));
    assert_eq!(at(Format::Int4), (10, 0.3217));
    assert!(Weight::F32(ArrayD::zeros(vec![])).convert(Format::Int8).is_err(), "a scalar has no rows");
}

#[test]
fn what_is_not_finite_is_kept_by_sparse_formats_and_refused_by_scaled_ones() {
    let weight = Weight::F32(ndarray::arr2(&[[f32::NAN, 0.0, f32::NEG_INFINITY, 0.0]]).into_dyn());
    for format in Format::ALL {
        let scaled = matches!(format, Format::Ternary2Bit | Format::Ternary5In8 | Format::Int8 | Format::Int4);
        match weight.convert(format) {
            Ok(packed) => assert!(!scaled && same(&packed, &weight), "{format}"),
            Err(ConvertError::Value { index: 0, .. }) => assert!(scaled, "{format}"),
            Err(other) => panic!("{format}: {other}"),
        }
    }
    assert!(Int8::quantize(&ndarray::arr1(&[f32::NAN]).into_dyn(), vec![1.0]).is_err());
    assert!(Int4::quantize(&ndarray::arr1(&[f32::INFINITY]).into_dyn(), vec![1.0]).is_err());
}

#[test]
fn columns_take_32_bits_from_65_537_on() {
    for (columns, bits) in [(65_536, 16), (65_537, 32)] {
        let mut array = ArrayD::zeros(vec![1, columns]);
        array[[0, columns - 1]] = 1.0;
        let csr = Csr::from_dense(&array, DType::F32).unwrap();
        assert_eq!((csr.column_indices().bits(), csr.row(0).next()), (bits, Some((columns - 1, 1.0))));
        assert_eq!(Weight::Csr(csr.clone()).bytes(), expected_bytes(&Weight::Csr(csr)));
    }
    assert_eq!(Indices::for_columns(0).bits(), 16);
}

#[test]
fn folding_factors_that_a_scale_cannot_hold_make_a_weight_dense() {
    let weight = Weight::F32(ndarray::arr2(&[[0.0, 0.0], [3e38, 0.0]]).into_dyn());
    for format in [Format::Int8, Format::Int4, Format::Ternary2Bit] {
        let packed = weight.convert(format).unwrap();
        assert_eq!(packed.clone().scale_rows(&[1.0, 0.5]).format(), format);
        let scaled = packed.scale_rows(&[2.0, 1e3]);
        assert_eq!(
            (scaled.format(), scaled.find(|value| !value.is_finite())),
            (Format::DenseF32, Some((2, f32::INFINITY)))
        );
    }
    let scaled = Weight::F32(ndarray::arr2(&[[0.0, 0.0], [512.0, 0.0]]).into_dyn()).convert(Format::ScaledF16).unwrap();
    let scaled = scaled.scale_rows(&[1.0, 1e38]);
    assert_eq!(scaled.format(), Format::ScaledF16);
    assert_eq!(scaled.scale_rows(&[2.0, 1e3]).find(|value| !value.is_finite()), Some((2, f32::INFINITY)));
    // A third of an f16 is none.
    let half = Weight::F32(ndarray::arr2(&[[1.0, 0.0]]).into_dyn()).convert(Format::CsrF16).unwrap();
    assert_eq!(half.clone().scale_rows(&[0.5]).format(), Format::CsrF16);
    assert_eq!(half.scale_rows(&[1.0 / 3.0]).format(), Format::CsrF32);
}

proptest! {
    /// Every f16 bit pattern, NaN and infinities among them, survives the way to f32 and back.
    #[test]
    fn f16_round_trips_through_f32(bits in proptest::collection::vec(any::<u16>(), 0..200)) {
        let values: Vec<f16> = bits.iter().copied().map(f16::from_bits).collect();
        let weight = Weight::F16(ArrayD::from_shape_vec(vec![values.len()], values).unwrap());
        for through in [Format::DenseF32, Format::ScaledF16, Format::CsrF32, Format::CsrF16, Format::Bsr8x1, Format::FilterCsr] {
            let back = weight.convert(through).unwrap().convert(Format::DenseF16).unwrap();
            prop_assert_eq!(back.bytes(), weight.bytes());
            prop_assert!(same(&back, &weight), "{}", through);
        }
    }

    /// From any format to any other and back: the same values, in the bytes documented, and what is stored
    /// passes the checks that hostile parts have to pass.
    #[test]
    fn all_pairs_of_formats_round_trip(dims in dims(), choices in proptest::collection::vec(any::<u8>(), 1..200)) {
        let weight = for_all_formats(&dims, &choices);
        for from in Format::ALL {
            let packed = weight.convert(from).unwrap();
            prop_assert_eq!(packed.format(), from);
            prop_assert!(same(&packed, &weight), "{}: {:?}", from, packed);
            prop_assert_eq!(packed.zeros(), weight.to_f32().iter().filter(|&&value| value == 0.0).count());
            prop_assert_eq!(packed.bytes(), expected_bytes(&packed), "{}", from);
            prop_assert_eq!(rebuilt(&packed), packed.clone());
            for to in Format::ALL {
                let other = packed.convert(to).unwrap();
                prop_assert!(other.format() == to && same(&other, &weight), "{} to {}", from, to);
            }
            let stored = weight.to_f32();
            let first = stored.iter().copied().enumerate().find(|(_, value)| *value < 0.0);
            prop_assert_eq!(packed.find(|value| value < 0.0), first, "{}", from);
            prop_assert_eq!(packed.find(|value| value == 0.0), stored.iter().copied().enumerate().find(|(_, v)| *v == 0.0));
        }
    }

    /// Any finite values survive the sparse formats, and multiplying rows is the same in each of them.
    #[test]
    fn sparse_formats_keep_any_value(dims in dims(), choices in proptest::collection::vec(any::<u8>(), 1..200)) {
        let weight = Weight::F32(dense(&dims, &choices, |row, choice| {
            if choice < 200 { 0.0 } else { (row as f32 + 0.1) * (f32::from(choice) - 227.3) }
        }));
        let factors: Vec<f32> = (0..dims[0]).map(|row| 0.7 - row as f32 * 0.3).collect();
        let scaled = weight.clone().scale_rows(&factors);
        for format in [Format::CsrF32, Format::Bsr1x4, Format::Bsr4x1, Format::Bsr8x1, Format::Bsr16x1, Format::FilterCsr] {
            let packed = weight.convert(format).unwrap();
            prop_assert!(same(&packed, &weight), "{}", format);
            let packed = packed.scale_rows(&factors);
            prop_assert!(packed.format() == format && same(&packed, &scaled), "{}", format);
        }
    }

    /// Powers of two change no digit, so that every format must agree on the product.
    #[test]
    fn every_format_scales_rows(dims in dims(), choices in proptest::collection::vec(any::<u8>(), 1..200)) {
        let weight = for_all_formats(&dims, &choices);
        let factors: Vec<f32> = (0..dims[0]).map(|row| [0.5, -2.0, 0.0, 1.0][row % 4]).collect();
        let scaled = weight.clone().scale_rows(&factors);
        for format in Format::ALL {
            let packed = weight.convert(format).unwrap().scale_rows(&factors);
            prop_assert!(packed.format() == format && same(&packed, &scaled), "{}", format);
        }
    }

    /// Rounding is to the nearest step, and what was rounded once is represented exactly.
    #[test]
    fn quantised_weights_are_near_and_then_exact(
        rows in 1usize..5, columns in 1usize..20,
        values in proptest::collection::vec(-3.0f32..3.0, 100), shift in -100i32..100,
    ) {
        let values = values[..rows * columns].iter().map(|value| value * (shift as f32).exp2()).collect();
        let array = ArrayD::from_shape_vec(vec![rows, columns], values).unwrap();
        let int8 = Int8::quantize(&array, Int8::max_abs_scales(&array)).unwrap();
        let int4 = Int4::quantize(&array, Int4::max_abs_scales(&array)).unwrap();
        for (weight, scales) in [(Weight::Int8(int8.clone()), int8.scales()), (Weight::Int4(int4.clone()), int4.scales())] {
            for ((index, near), value) in weight.to_f32().iter().enumerate().zip(&array) {
                prop_assert!((near - value).abs() <= scales[index / columns] * 0.500_1, "{} for {}", near, value);
            }
            let dense = weight.convert(Format::DenseF32).unwrap();
            let back = dense.convert(weight.format());
            prop_assert!(back.as_ref().is_ok_and(|back| same(back, &dense)), "{:?}", back);
        }
    }

    /// A range is covered: its ends are within half a step of a byte, and 0 is exact.
    #[test]
    fn ranges_are_covered(a in -1e6f32..1e6, b in -1e6f32..1e6) {
        let of = Quantization::from_range(a, b).unwrap();
        prop_assert_eq!(of.dequantize(of.quantize(0.0)), 0.0);
        for end in [a, b] {
            prop_assert!((of.dequantize(of.quantize(end)) - end).abs() <= of.scale() * 1.001, "{} in {:?}", end, of);
        }
        for q in 0..=255 {
            prop_assert_eq!(of.quantize(of.dequantize(q)), q);
        }
    }
}

/// The weight built again of its parts, as a reader of a file does.
fn rebuilt(weight: &Weight) -> Weight {
    let dims = weight.dims().to_vec();
    match weight {
        Weight::F32(_) | Weight::F16(_) => Ok(weight.clone()),
        Weight::ScaledF16(w) => ScaledF16::new(dims, w.values().to_vec(), w.scales().to_vec()).map(Weight::ScaledF16),
        Weight::Csr(w) => {
            Csr::new(dims, w.row_starts().to_vec(), w.column_indices().clone(), w.values().clone()).map(Weight::Csr)
        }
        Weight::Bsr(w) => {
            let (starts, columns) = (w.block_row_starts().to_vec(), w.block_columns().clone());
            Bsr::new(dims, w.block(), starts, columns, w.values().to_vec()).map(Weight::Bsr)
        }
        Weight::TwoFour(w) => TwoFour::new(dims, w.positions().to_vec(), w.values().to_vec()).map(Weight::TwoFour),
        Weight::Ternary(w) => {
            let (positive, negative) = (w.positive().to_vec(), w.negative().to_vec());
            Ternary::new(dims, w.packing(), positive, negative, w.codes().to_vec()).map(Weight::Ternary)
        }
        Weight::Int8(w) => Int8::new(dims, w.values().to_vec(), w.scales().to_vec()).map(Weight::Int8),
        Weight::Int4(w) => Int4::new(dims, w.packed().to_vec(), w.scales().to_vec()).map(Weight::Int4),
        Weight::FilterCsr(w) => {
            let (starts, columns) = (w.row_starts().to_vec(), w.column_indices().to_vec());
            FilterCsr::new(dims, starts, columns, w.values().to_vec()).map(Weight::FilterCsr)
        }
    }
    .unwrap()
}
