//! The NCHW algorithms against the definition, exactly, on shapes with awkward edges.

use dlis_backend::{Epilogue, Kernel, Layout, OpSpec, OpWeights, Operation, PrepareError, Support, TensorSpec};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;
use dlis_model::{Activation, Conv2d, Window};
use ndarray::ArrayD;

use super::{direct, im2col};
use crate::testing::{at, build, integers, run};

fn both() -> [&'static dyn Kernel; 2] {
    [direct::KERNELS[0], im2col::KERNELS[0]]
}

fn spec(conv: Conv2d, batch: usize, image: [usize; 2]) -> OpSpec {
    let [height, width] = conv.window.output(image).unwrap();
    OpSpec {
        operation: Operation::Conv2d(conv),
        inputs: vec![TensorSpec::f32(batch, [conv.in_channels, image[0], image[1]], Layout::Nchw)],
        output: TensorSpec::f32(batch, [conv.out_channels, height, width], Layout::Nchw),
        epilogue: Epilogue::NONE,
        weight: Some(Format::DenseF32),
    }
}

fn weight(conv: Conv2d) -> Weight {
    let dims = conv.weight_dims();
    Weight::F32(ArrayD::from_shape_vec(dims.to_vec(), integers(dims.iter().product(), 2)).unwrap())
}

/// The definition, element by element.
fn expected(op: &OpSpec, conv: Conv2d, input: &[f32], weights: OpWeights<'_>, residual: Option<&[f32]>) -> Vec<f32> {
    let weight = weights.weight.unwrap().to_f32();
    let Window { kernel, stride, padding, dilation } = conv.window;
    let (from, groups) = (op.inputs[0], conv.groups);
    build(&op.output, |[n, c, y, x]| {
        let mut sum = weights.bias.map_or(0.0, |bias| bias[c]);
        for i in 0..conv.in_channels / groups {
            for ky in 0..kernel[0] {
                for kx in 0..kernel[1] {
                    let y = (y * stride[0] + ky * dilation[0]).wrapping_sub(padding[0]);
                    let x = (x * stride[1] + kx * dilation[1]).wrapping_sub(padding[1]);
                    if y < from.height && x < from.width {
                        let channel = c / (conv.out_channels / groups) * (conv.in_channels / groups) + i;
                        sum += at(&from, input, [n, channel, y, x]) * weight[[c, i, ky, kx]];
                    }
                }
            }
        }
        sum += residual.map_or(0.0, |residual| at(&op.output, residual, [n, c, y, x]));
        op.epilogue.activation.map_or(sum, |activation| activation.apply(sum))
    })
}

fn check(conv: Conv2d, batch: usize, image: [usize; 2], epilogue: Epilogue) {
    let op = OpSpec { epilogue, ..spec(conv, batch, image) };
    let (input, weight) = (integers(op.inputs[0].elements(), 1), weight(conv));
    let bias = integers(conv.out_channels, 3);
    let weights = OpWeights { weight: Some(&weight), bias: conv.bias.then_some(&bias[..]), ..OpWeights::default() };
    let residual = integers(op.output.elements(), 4);
    let residual = epilogue.residual.then_some(&residual[..]);
    let expected = expected(&op, conv, &input, weights, residual);
    for kernel in both() {
        assert_eq!(run(kernel, &op, weights, &[&input], residual), expected, "{} {op} {conv:?}", kernel.id());
    }
}

fn conv(channels: [usize; 2], window: Window) -> Conv2d {
    Conv2d { in_channels: channels[0], out_channels: channels[1], groups: 1, window, bias: false }
}

#[test]
fn every_window_gives_the_definition() {
    let square = Window::square;
    let windows = [
        square(1),
        square(1).with_stride(2),
        square(1).with_padding(1),
        square(3),
        square(3).with_padding(1),
        square(3).with_padding(1).with_stride(2),
        square(5).with_padding(2).with_stride(3),
        Window { dilation: [2, 2], ..square(3).with_padding(2) },
        Window { dilation: [2, 3], ..square(2).with_padding(1).with_stride(2) },
        Window { kernel: [1, 4], stride: [1, 1], padding: [0, 3, 2, 0], dilation: [1, 1] },
        Window { kernel: [3, 2], stride: [2, 1], padding: [2, 0, 0, 1], dilation: [1, 2] },
        Window { kernel: [2, 2], stride: [3, 4], padding: [1, 1, 1, 1], dilation: [1, 1] },
    ];
    let mut ran = 0;
    for window in windows {
        for image in [[1, 1], [2, 2], [4, 4], [5, 7], [9, 3], [1, 8]] {
            for channels in [[1, 1], [3, 5], [8, 16], [9, 2]] {
                if window.output(image).is_some() {
                    check(conv(channels, window), 2, image, Epilogue::NONE);
                    ran += 1;
                }
            }
        }
    }
    assert!(ran > 200, "{ran}");
}

#[test]
fn groups_see_only_their_own_channels() {
    let window = Window::square(3).with_padding(1);
    for (groups, channels) in [(2, [4, 6]), (3, [3, 3]), (5, [5, 15]), (4, [12, 4])] {
        for window in [window, window.with_stride(2), Window::square(1)] {
            check(Conv2d { groups, ..conv(channels, window) }, 2, [5, 4], Epilogue::NONE);
        }
    }
}

#[test]
fn epilogues_follow_the_sum() {
    for window in [Window::square(1), Window::square(3).with_padding(1), Window::square(3).with_stride(2)] {
        for bias in [false, true] {
            for residual in [false, true] {
                for activation in [None, Some(Activation::Relu), Some(Activation::Relu6), Some(Activation::Sigmoid)] {
                    let conv = Conv2d { bias, ..conv([3, 20], window) };
                    check(conv, 2, [4, 5], Epilogue { residual, activation });
                }
            }
        }
    }
}

/// A map whose columns take several strips, and a product that is divided along either side.
#[test]
fn strips_of_columns_meet() {
    check(conv([128, 3], Window::square(3).with_padding(1)), 1, [70, 63], Epilogue::NONE);
    check(conv([32, 40], Window::square(3)), 1, [4, 4], Epilogue::NONE);
}

#[test]
fn nan_reaches_the_pixels_that_see_it_and_no_others() {
    let conv = conv([1, 1], Window::square(3).with_padding(1));
    let op =
        OpSpec { epilogue: Epilogue { residual: false, activation: Some(Activation::Relu) }, ..spec(conv, 1, [4, 4]) };
    let weight = weight(conv);
    let mut input = [1.0; 16];
    input[0] = f32::NAN;
    for kernel in both() {
        let output =
            run(kernel, &op, OpWeights { weight: Some(&weight), bias: None, ..OpWeights::default() }, &[&input], None);
        let nan: Vec<usize> = (0..16).filter(|&i| output[i].is_nan()).collect();
        assert_eq!(nan, [0, 1, 4, 5], "{}", kernel.id());
    }
}

#[test]
fn what_is_not_supported_is_refused_with_a_reason() {
    let hw = Hardware::detect();
    let conv = conv([3, 4], Window::square(3).with_padding(1));
    let good = spec(conv, 1, [8, 8]);
    let nhwc = good.output.with_layout(Layout::Nhwc);
    let mut wrong_channels = good.clone();
    wrong_channels.inputs[0].channels = 2;
    let vast = Window { dilation: [1 << 40, 1], padding: [1 << 40, 1, 1 << 40, 1], ..Window::square(3) };
    for kernel in both() {
        assert!(kernel.support(&good, &hw).is_yes());
        let f16 = OpSpec { weight: Some(Format::DenseF16), ..good.clone() };
        for bad in [&f16, &OpSpec { output: nhwc, ..good.clone() }, &wrong_channels] {
            assert!(matches!(kernel.support(bad, &hw), Support::No(_)), "{bad:?}");
            // Without the check that `prepare_checked` makes first, too.
            let error = kernel.prepare(bad, OpWeights::default(), &hw).unwrap_err();
            assert!(matches!(error, PrepareError::Unsupported { .. }), "{error}");
        }
        let error = kernel.prepare(&good, OpWeights::default(), &hw).unwrap_err();
        assert!(matches!(error, PrepareError::Weight { .. }), "{error}");
        let (weight, bias) = (weight(conv), [0.0; 3]);
        let weights = OpWeights { weight: Some(&weight), bias: Some(&bias), ..OpWeights::default() };
        let error = kernel.prepare(&good, weights, &hw).unwrap_err();
        assert!(matches!(error, PrepareError::Bias { expected: 0, found: 3, .. }), "{error}");
    }
    let vast = spec(Conv2d { window: vast, ..conv }, 1, [8, 8]);
    assert!(!both()[0].support(&vast, &hw).is_yes(), "no scratch for 2^40 rows of padding");
}

#[test]
fn weights_are_counted_as_allocated() {
    let conv = Conv2d { bias: true, ..conv([3, 5], Window::square(3).with_padding(1)) };
    let op = spec(conv, 1, [8, 8]);
    let (weight, bias) = (weight(conv), [0.0; 5]);
    let weights = OpWeights { weight: Some(&weight), bias: Some(&bias), ..OpWeights::default() };
    // 5 * 27 weights in whole lines of 64 bytes, the biases in one, and for `direct` 27 offsets.
    let [direct, im2col] = both()
        .map(|kernel| kernel.prepare_checked(&op, weights, &Hardware::detect()).unwrap().footprint(2).weight_bytes);
    assert_eq!(im2col, 9 * 64 + 64);
    assert_eq!(direct, im2col + 27 * size_of::<usize>());
}
