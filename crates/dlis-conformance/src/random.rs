//! Random cases.

use dlis_backend::{Layout, Operation};
use dlis_model::{Activation, Conv2d, Linear, Pool, Window};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::case::Case;

/// Any valid case of a bounded size: at most 40 channels, images of at most 12x12 in
/// batches of 3 or 6x6 in batches of 16. It
/// shrinks towards few channels, small images and plain windows.
pub fn any_case() -> impl Strategy<Value = Case> + Clone {
    let case = prop_oneof![
        4 => convolution(),
        2 => depthwise(),
        1 => linear(),
        2 => pooling(),
        2 => elementwise(),
        1 => concat(),
    ];
    (case, any::<u32>(), prop::option::of(activation()), any::<bool>(), any::<bool>())
        .prop_filter_map("a window larger than the padded input, or in the padding", |parts| {
            let ((operation, inputs), seed, activation, residual, whole) = parts;
            let fused = matches!(operation, Operation::Conv2d(_) | Operation::Linear(_) | Operation::Affine);
            let mut case = Case::new(format!("random {seed:08x}"), operation, &inputs).ok()?;
            if fused && residual {
                case = case.with_residual();
            }
            if let Some(activation) = activation.filter(|_| fused || operation == Operation::Add) {
                case = case.with_activation(activation);
            }
            Some(if whole { case.over_whole_numbers() } else { case })
        })
        .boxed()
}

type Parts = (Operation, Vec<[usize; 4]>);

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![Just(Activation::Relu), Just(Activation::Relu6), Just(Activation::Sigmoid)]
}

fn window() -> impl Strategy<Value = Window> {
    let kernel = prop_oneof![3 => Just([1, 1]), 4 => Just([3, 3]), 3 => [1_usize..6, 1_usize..6]];
    let stride = prop_oneof![3 => Just([1, 1]), 2 => Just([2, 2]), 1 => [1_usize..4, 1_usize..4]];
    let padding = prop_oneof![2 => Just([0; 4]), 3 => Just([1; 4]), 2 => prop::array::uniform4(0_usize..4)];
    let dilation = prop_oneof![5 => Just([1, 1]), 1 => [1_usize..4, 1_usize..4]];
    (kernel, stride, padding, dilation).prop_map(|(kernel, stride, padding, dilation)| Window {
        kernel,
        stride,
        padding,
        dilation,
    })
}

fn image() -> impl Strategy<Value = [usize; 3]> {
    let few = (1_usize..4, 1_usize..13, 1_usize..13);
    // A whole group of images, which can be lanes.
    let group = (Just(Layout::LANES), 1_usize..7, 1_usize..7);
    prop_oneof![3 => few, 1 => group].prop_map(|(n, h, w)| [n, h, w])
}

fn convolution() -> impl Strategy<Value = Parts> {
    let groups = prop_oneof![4 => Just(1_usize), 1 => 2_usize..4];
    (groups, 1_usize..14, 1_usize..14, window(), any::<bool>(), image()).prop_map(
        |(groups, inputs, outputs, window, bias, [n, h, w])| {
            let (in_channels, out_channels) = (groups * inputs, groups * outputs);
            let conv = Conv2d { in_channels, out_channels, groups, window, bias };
            (Operation::Conv2d(conv), vec![[n, in_channels, h, w]])
        },
    )
}

fn depthwise() -> impl Strategy<Value = Parts> {
    (1_usize..40, window(), any::<bool>(), image()).prop_map(|(channels, window, bias, [n, h, w])| {
        let conv = Conv2d { in_channels: channels, out_channels: channels, groups: channels, window, bias };
        (Operation::Conv2d(conv), vec![[n, channels, h, w]])
    })
}

fn linear() -> impl Strategy<Value = Parts> {
    (1_usize..6, 1_usize..80, 1_usize..40, any::<bool>()).prop_map(|(n, in_features, out_features, bias)| {
        (Operation::Linear(Linear { in_features, out_features, bias }), vec![[n, in_features, 1, 1]])
    })
}

fn pooling() -> impl Strategy<Value = Parts> {
    (0..4, 1_usize..40, window(), image()).prop_map(|(kind, channels, window, [n, h, w])| {
        let pool = |include_padding| Pool { window, include_padding };
        let operation = match kind {
            0 => Operation::MaxPool(pool(false)),
            1 => Operation::AvgPool(pool(false)),
            2 => Operation::AvgPool(pool(true)),
            _ => Operation::GlobalAvgPool,
        };
        (operation, vec![[n, channels, h, w]])
    })
}

fn elementwise() -> impl Strategy<Value = Parts> {
    (0..6, activation(), 1_usize..40, image()).prop_map(|(kind, function, c, [n, h, w])| {
        let dims = [n, c, h, w];
        match kind {
            0 => (Operation::Affine, vec![dims]),
            1 => (Operation::Activation(function), vec![dims]),
            2 => (Operation::Add, vec![dims; 2]),
            3 => (Operation::Softmax, vec![dims]),
            4 => (Operation::Scale, vec![dims, [n, c, 1, 1]]),
            _ => (Operation::Reorder, vec![dims]),
        }
    })
}

fn concat() -> impl Strategy<Value = Parts> {
    (vec(1_usize..20, 1..10), image())
        .prop_map(|(channels, [n, h, w])| (Operation::Concat, channels.into_iter().map(|c| [n, c, h, w]).collect()))
}
