//! Zeros, subnormal numbers, infinities and NaN in the inputs.

use dlis_backend::Operation;
use dlis_model::{Activation, Conv2d, Linear, Pool, Window};

use super::case;
use crate::case::Case;

const DIMS: [usize; 4] = [1, 6, 5, 7];

/// Every operation, once.
fn operations() -> Vec<(&'static str, Operation, Vec<[usize; 4]>)> {
    let conv = |out_channels, groups, window| {
        Operation::Conv2d(Conv2d { in_channels: 6, out_channels, groups, window, bias: true })
    };
    let same = Window::square(3).with_padding(1);
    let pool = Pool { window: same.with_stride(2), include_padding: false };
    let linear = Linear { in_features: 21, out_features: 10, bias: true };
    vec![
        ("3x3", conv(9, 1, same), vec![DIMS]),
        ("3x3 stride 2", conv(5, 1, same.with_stride(2)), vec![DIMS]),
        ("1x1", conv(9, 1, Window::square(1)), vec![DIMS]),
        ("depthwise", conv(6, 6, same), vec![DIMS]),
        ("linear", Operation::Linear(linear), vec![[2, 21, 1, 1]]),
        ("affine", Operation::Affine, vec![DIMS]),
        ("relu", Operation::Activation(Activation::Relu), vec![DIMS]),
        ("relu6", Operation::Activation(Activation::Relu6), vec![DIMS]),
        ("sigmoid", Operation::Activation(Activation::Sigmoid), vec![DIMS]),
        ("max pool", Operation::MaxPool(pool), vec![DIMS]),
        ("average pool", Operation::AvgPool(pool), vec![DIMS]),
        ("global average pool", Operation::GlobalAvgPool, vec![DIMS]),
        ("add", Operation::Add, vec![DIMS; 2]),
        ("concat", Operation::Concat, vec![DIMS; 2]),
        ("softmax", Operation::Softmax, vec![DIMS]),
        ("scale", Operation::Scale, vec![DIMS, [1, 6, 1, 1]]),
        ("reorder", Operation::Reorder, vec![DIMS]),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, operation, inputs) in operations() {
        let plain = |text: &str| case(format!("{name} of {text}"), operation, &inputs);
        cases.push(plain("zeros").map_inputs(|_, _| 0.0));
        cases.push(plain("negative zeros").map_inputs(|_, _| -0.0));
        cases.push(plain("subnormal numbers").map_inputs(|_, x| x * 1e-39));
        cases.push(plain("small and large numbers").map_inputs(|i, x| if i % 3 == 0 { x * 1e6 } else { x * 1e-6 }));
        // Far enough apart that some outputs see one, some none.
        for (text, special) in [("NaN", f32::NAN), ("infinity", f32::INFINITY), ("minus infinity", f32::NEG_INFINITY)] {
            cases.push(plain(text).map_inputs(|i, x| if i % 37 == 11 { special } else { x }));
        }
        let mixed = plain("NaN and both infinities");
        cases.push(mixed.map_inputs(|i, x| match i % 41 {
            3 => f32::NAN,
            17 => f32::INFINITY,
            29 => f32::NEG_INFINITY,
            _ => x,
        }));
    }
    let conv =
        Conv2d { in_channels: 4, out_channels: 6, groups: 1, window: Window::square(3).with_padding(1), bias: true };
    for function in super::ACTIVATIONS {
        let name = format!("3x3 of NaN and infinity with a residual, {function:?}").to_lowercase();
        let case = case(name, Operation::Conv2d(conv), &[[1, 4, 6, 6]]).with_residual().with_activation(function);
        cases.push(case.map_inputs(|i, x| match i % 50 {
            7 => f32::NAN,
            31 => f32::INFINITY,
            _ => x,
        }));
    }
    cases
}
