//! The shapes of the f32 cases, with quantised operands.

use dlis_backend::Operation;
use dlis_formats::DType;
use dlis_model::{Conv2d, Window};
use proptest::prelude::*;

use super::case::{Elements, Flavour, QuantizedCase};
use crate::case::Case;

/// Those of any operation, then that of weights alone.
const FLAVOURS: [Flavour; 6] =
    [Flavour::Plain, Flavour::FourBits, Flavour::Extreme, Flavour::Saturating, Flavour::Halves, Flavour::Ternary];

/// The hand-written cases, every quantised operation among them. Their names are unique.
///
/// All shapes of the f32 [`cases`](crate::cases) occur; the flavours and types take turns, so that neighbours in
/// that table, which differ in little, are each tried in another way.
pub fn quantized_cases() -> Vec<QuantizedCase> {
    let mut cases = Vec::new();
    for (index, case) in crate::cases().iter().filter(|case| !case.has_specials()).enumerate() {
        cases.extend(QuantizedCase::of(case, DType::U8, FLAVOURS[index % 5]));
        cases.extend(QuantizedCase::of(case, DType::U8, FLAVOURS[(index + 1 + index / 5 % 4) % 5]));
        if index % 3 == 0 || case.op.epilogue.activation.is_some() {
            cases.extend(QuantizedCase::of(case, DType::F32, FLAVOURS[index % 2]));
        }
        if matches!(case.op.operation, Operation::Conv2d(_) | Operation::Linear(_)) {
            let output = if index % 4 == 1 { DType::F32 } else { DType::U8 };
            cases.extend(QuantizedCase::of(case, output, Flavour::Ternary));
        }
        if case.op.operation == Operation::Reorder {
            cases.extend(conversion(case, Operation::Quantize));
            cases.extend(conversion(case, Operation::Dequantize));
        }
    }
    cases.extend([224, 229, 230, 231].map(widest));
    cases
}

/// Windows of 3x3 whose sums reach as far to either side as those of so many channels can: all bytes 255, and of two
/// output channels all weights the largest there is or the least; of a third, half of them each. With 230 channels they span less than 2^26.
fn widest(channels: usize) -> QuantizedCase {
    let window = Window::square(3).with_padding(1);
    let conv = Conv2d { in_channels: channels, out_channels: 3, groups: 1, window, bias: false };
    let name = format!("the widest sums of {channels} channels");
    let case = Case::new(name, Operation::Conv2d(conv), &[[1, channels, 5, 6]]).expect("a valid layer");
    let mut case = QuantizedCase::of(&case, DType::F32, Flavour::Extreme).expect("convolutions are computed on u8");
    let of_channel = 9 * channels;
    let weight = |index: usize| match index / of_channel {
        0 => 127,
        1 => -127,
        _ => [127, -127][index % of_channel * 2 / of_channel],
    };
    case.weight = Some((0..3 * of_channel).map(weight).collect());
    case.inputs = vec![Elements::Bytes(vec![255; channels * 5 * 6])];
    case
}

/// A reorder's tensors going into or out of u8.
fn conversion(case: &Case, operation: Operation) -> Option<QuantizedCase> {
    let dims = case.inputs[0].dims();
    let name = format!("{} as in {}", operation.name(), case.name);
    let case = Case::new(name, operation, &[dims]).ok()?;
    let specials = |index: usize, x: f32| match index % 13 {
        3 => f32::NAN,
        5 => f32::INFINITY,
        7 => f32::NEG_INFINITY,
        9 => -0.0,
        _ => x / 5.0,
    };
    match operation {
        Operation::Quantize => QuantizedCase::of(&case.map_inputs(specials), DType::U8, Flavour::Plain),
        _ => QuantizedCase::of(&case, DType::F32, Flavour::Plain),
    }
}

/// Any valid quantised case of a bounded size, of the shapes of [`any_case`](crate::any_case).
pub fn any_quantized_case() -> impl Strategy<Value = QuantizedCase> + Clone {
    (crate::any_case(), 0..FLAVOURS.len(), any::<bool>())
        .prop_filter_map("not computed on u8", |(case, flavour, float)| {
            QuantizedCase::of(&case, if float { DType::F32 } else { DType::U8 }, FLAVOURS[flavour])
                .or_else(|| QuantizedCase::of(&case, DType::U8, FLAVOURS[flavour]))
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dlis_formats::Format;

    use super::super::Elements;
    use super::super::reference::quantized_reference;
    use super::*;

    #[test]
    fn names_are_unique_and_every_operation_occurs() {
        let cases = quantized_cases();
        let mut names = BTreeSet::new();
        for case in &cases {
            assert!(names.insert(&case.name), "two cases are called `{}`", case.name);
        }
        let operations: BTreeSet<&str> = cases.iter().map(|case| case.op.operation.name()).collect();
        assert_eq!(operations.len(), 11, "{operations:?}");
    }

    /// A weight is ternary where it is meant to be, whatever its row's ratio, but for rows of one weight, which have
    /// one magnitude of two.
    #[test]
    fn ternary_cases_have_ternary_weights() {
        let cases: Vec<_> = quantized_cases().into_iter().filter(|case| case.name.contains("ternary")).collect();
        assert!(cases.len() > 40, "{}", cases.len());
        for case in cases.iter().filter(|case| case.weight.as_ref().unwrap().len() > case.op.output.channels) {
            let formats: BTreeSet<_> = case.variants().iter().filter_map(|op| op.weight).collect();
            assert!(formats.contains(&Format::Ternary2Bit) && formats.contains(&Format::Ternary5In8), "{case:?}");
        }
    }

    /// Most results are neither all saturated nor all the same, else the table would prove little.
    #[test]
    fn results_are_spread_over_the_bytes_and_reach_both_ends() {
        let (mut spread, mut all, mut low, mut high) = (0, 0, 0, 0);
        for case in quantized_cases().iter().filter(|case| case.op.output.elements() > 30) {
            let Elements::Bytes(bytes) = quantized_reference(case) else { continue };
            let distinct: BTreeSet<u8> = bytes.iter().copied().collect();
            all += 1;
            spread += usize::from(distinct.len() > 8);
            low += usize::from(distinct.contains(&0));
            high += usize::from(distinct.contains(&255));
        }
        assert!(spread * 2 > all && low * 4 > all && high * 4 > all, "{spread} {low} {high} of {all}");
    }
}
