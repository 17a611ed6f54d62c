//! Small tables worked out by hand.

use dlis_model::{Conv2d, Linear, Pool, Window};

use super::*;

fn tensor(dims: [usize; 4], values: &[f32]) -> Tensor {
    Tensor::new(dims, values.to_vec())
}

/// The reference's values for an operation on these operands.
fn compute(operation: Operation, inputs: &[Tensor], weight: Option<&[f32]>, bias: Option<&[f32]>) -> Tensor {
    reference(&case(operation, inputs, weight, bias)).values()
}

fn case(operation: Operation, inputs: &[Tensor], weight: Option<&[f32]>, bias: Option<&[f32]>) -> Case {
    let dims: Vec<_> = inputs.iter().map(Tensor::dims).collect();
    let mut case = Case::new("by hand", operation, &dims).unwrap();
    case.inputs = inputs.to_vec();
    assert_eq!(case.weight.is_some(), weight.is_some());
    case.weight = case.weight.zip(weight).map(|(old, new)| tensor(old.dims(), new));
    assert_eq!(case.bias.is_some(), bias.is_some());
    case.bias = bias.map(<[f32]>::to_vec);
    case
}

const NINE: [f32; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];

fn conv(in_channels: usize, out_channels: usize, window: Window) -> Conv2d {
    Conv2d { in_channels, out_channels, groups: 1, window, bias: false }
}

#[test]
fn convolution_is_a_cross_correlation() {
    // Not flipped: the weight's first tap meets the first pixel.
    let input = tensor([1, 1, 3, 3], &NINE);
    let weight = [1.0, 10.0, 100.0, 1000.0];
    let out = compute(Operation::Conv2d(conv(1, 1, Window::square(2))), &[input], Some(&weight), None);
    assert_eq!(out, tensor([1, 1, 2, 2], &[5421.0, 6532.0, 8754.0, 9865.0]));
}

#[test]
fn stride_padding_and_dilation_apply_to_their_own_axis_and_side() {
    let input = tensor([1, 1, 3, 3], &NINE);
    // One row above, two columns to the right; rows in steps of two.
    let window = Window { kernel: [2, 1], stride: [2, 1], padding: [1, 0, 0, 2], dilation: [1, 1] };
    let out = compute(Operation::Conv2d(conv(1, 1, window)), std::slice::from_ref(&input), Some(&[1.0, 10.0]), None);
    assert_eq!(out, tensor([1, 1, 2, 5], &[10.0, 20.0, 30.0, 0.0, 0.0, 74.0, 85.0, 96.0, 0.0, 0.0]));
    let dilated = Window { dilation: [2, 1], ..Window { kernel: [2, 2], ..Window::square(2) } };
    let out = compute(Operation::Conv2d(conv(1, 1, dilated)), &[input], Some(&[1.0, 10.0, 100.0, 1000.0]), None);
    assert_eq!(out, tensor([1, 1, 1, 2], &[8721.0, 9832.0]));
}

#[test]
fn channels_sum_and_groups_keep_to_themselves() {
    let input = tensor([2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0]);
    let weight = [1.0, 10.0, 100.0, 1000.0];
    let dense = Conv2d { bias: true, ..conv(2, 2, Window::square(1)) };
    let out = compute(Operation::Conv2d(dense), std::slice::from_ref(&input), Some(&weight), Some(&[0.0, 5.0]));
    assert_eq!(out, tensor([2, 2, 1, 1], &[21.0, 2105.0, 43.0, 4305.0]));
    // Two outputs a group: outputs 0 and 1 see channel 0.
    let grouped = Conv2d { groups: 2, ..conv(2, 4, Window::square(1)) };
    let out = compute(Operation::Conv2d(grouped), &[input], Some(&weight), None);
    assert_eq!(out, tensor([2, 4, 1, 1], &[1.0, 10.0, 200.0, 2000.0, 3.0, 30.0, 400.0, 4000.0]));
}

#[test]
fn linear_is_a_matrix_times_a_column() {
    let linear = Linear { in_features: 3, out_features: 2, bias: true };
    let input = tensor([1, 3, 1, 1], &[1.0, 2.0, 3.0]);
    let out = compute(Operation::Linear(linear), &[input], Some(&[1.0, 1.0, 1.0, 3.0, 2.0, 1.0]), Some(&[0.5, -0.5]));
    assert_eq!(out, tensor([1, 2, 1, 1], &[6.5, 9.5]));
}

#[test]
fn pooling_never_counts_padding_unless_told_to() {
    let input = tensor([1, 1, 3, 3], &NINE.map(|x| -x));
    let pool = |include_padding| Pool { window: Window::square(2).with_stride(2).with_padding(1), include_padding };
    let on = |operation| compute(operation, std::slice::from_ref(&input), None, None);
    let dims = [1, 1, 2, 2];
    assert_eq!(on(Operation::MaxPool(pool(false))), tensor(dims, &[-1.0, -2.0, -4.0, -5.0]));
    assert_eq!(on(Operation::AvgPool(pool(false))), tensor(dims, &[-1.0, -2.5, -5.5, -7.0]));
    assert_eq!(on(Operation::AvgPool(pool(true))), tensor(dims, &[-0.25, -1.25, -2.75, -7.0]));
    assert_eq!(on(Operation::GlobalAvgPool), tensor([1, 1, 1, 1], &[-5.0]));
}

#[test]
fn channelwise_operations() {
    let x = tensor([1, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
    let y = tensor([1, 1, 1, 2], &[7.0, 8.0]);
    let on = |operation, inputs: &[&Tensor]| {
        compute(operation, &inputs.iter().copied().cloned().collect::<Vec<_>>(), None, None)
    };
    let affine = compute(Operation::Affine, std::slice::from_ref(&x), Some(&[2.0, 10.0]), Some(&[1.0, 0.0]));
    assert_eq!(affine.values(), [3.0, 5.0, 30.0, 40.0]);
    assert_eq!(on(Operation::Add, &[&x, &x]).values(), [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(on(Operation::Concat, &[&y, &x, &y]).values(), [7.0, 8.0, 1.0, 2.0, 3.0, 4.0, 7.0, 8.0]);
    assert_eq!(on(Operation::Scale, &[&x, &tensor([1, 2, 1, 1], &[2.0, 10.0])]).values(), [2.0, 4.0, 30.0, 40.0]);
    assert_eq!(on(Operation::Reorder, &[&x]), x);
    let even = on(Operation::Softmax, &[&tensor([1, 2, 1, 2], &[5.0, 1e30, 5.0, -1e30])]);
    assert_eq!(even.values(), [0.5, 1.0, 0.5, 0.0]);
}

#[test]
fn the_epilogue_is_bias_then_residual_then_activation() {
    let input = tensor([1, 1, 1, 3], &[-1.0, 2.0, 9.0]);
    let mut case = case(Operation::Affine, std::slice::from_ref(&input), Some(&[1.0]), Some(&[1.0])).with_residual();
    case.residual = Some(tensor([1, 1, 1, 3], &[-1.0, 1.0, 1.0]));
    let with = |activation| reference(&case.clone().with_activation(activation)).values();
    assert_eq!(reference(&case).values().values(), [-1.0, 4.0, 11.0]);
    assert_eq!(with(Activation::Relu).values(), [0.0, 4.0, 11.0]);
    assert_eq!(with(Activation::Relu6).values(), [0.0, 4.0, 6.0]);
    let zero = tensor([1, 1, 1, 1], &[0.0]);
    assert_eq!(compute(Operation::Activation(Activation::Sigmoid), &[zero], None, None).values(), [0.5]);
}

#[test]
fn nan_and_infinities_go_where_the_definition_takes_them() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let pool = Pool { window: Window { kernel: [1, 2], ..Window::square(1) }, include_padding: false };
    let on = |operation, values: &[f32]| {
        compute(operation, &[tensor([1, 1, 1, values.len()], values)], None, None).values().to_vec()
    };
    let max = on(Operation::MaxPool(pool), &[nan, 1.0, inf, -inf, -inf]);
    assert!(max[0].is_nan());
    assert_eq!(max[1..], [inf, inf, -inf]);
    let relu6 = on(Operation::Activation(Activation::Relu6), &[nan, inf, -inf]);
    assert!(relu6[0].is_nan());
    assert_eq!(relu6[1..], [6.0, 0.0]);
    let relu6 =
        reference(&case(Operation::Activation(Activation::Relu6), &[tensor([1, 1, 1, 2], &[inf, 1.0])], None, None));
    assert_eq!(relu6.elements[0], Element { value: 6.0, bound: 0.0, magnitude: 0.0, special: true, or_nan: false });
    assert_eq!(relu6.elements[1], Element { value: 1.0, bound: 0.0, magnitude: 1.0, special: false, or_nan: false });
}

#[test]
fn bounds_follow_the_absolute_terms() {
    // 1 * 100 - 1 * 100 + 0.5 * 0: the result is 0, its possible error is not.
    let linear = Linear { in_features: 3, out_features: 1, bias: false };
    let input = tensor([1, 3, 1, 1], &[100.0, 100.0, 0.5]);
    let sum = reference(&case(Operation::Linear(linear), &[input], Some(&[1.0, -1.0, 0.0]), None)).elements[0];
    assert_eq!((sum.value, sum.bound), (0.0, 4.0 * (200.0 + UNDERFLOW)));
    let moved = reference(&case(Operation::Reorder, &[tensor([1, 1, 1, 1], &[3.0])], None, None)).elements[0];
    assert_eq!(moved.bound, 0.0);
}
