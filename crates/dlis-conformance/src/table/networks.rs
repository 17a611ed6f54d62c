//! The layer shapes of VGG-16, ResNet-18 and MobileNet on 32x32 images, with an eighth of the channels
//! (and half the height and width of the first stages, which the reference takes long over).

use dlis_backend::Operation;
use dlis_model::{Activation, Conv2d, Linear, Pool, Window};

use super::case;
use crate::case::Case;

const SAME: Window = Window::square(3).with_padding(1);

fn conv(name: String, size: usize, in_channels: usize, out_channels: usize, groups: usize, window: Window) -> Case {
    let conv = Conv2d { in_channels, out_channels, groups, window, bias: true };
    case(name, Operation::Conv2d(conv), &[[1, in_channels, size, size]]).with_activation(Activation::Relu)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vgg();
    cases.extend(resnet());
    cases.extend(mobilenet());
    let linear = Linear { in_features: 64, out_features: 10, bias: true };
    cases.push(case("classifier", Operation::Linear(linear), &[[2, 64, 1, 1]]));
    cases.push(case("last pooling", Operation::GlobalAvgPool, &[[2, 64, 4, 4]]));
    cases
}

fn vgg() -> Vec<Case> {
    let stages =
        [(16, 3, 8), (16, 8, 8), (16, 8, 16), (16, 16, 16), (8, 16, 32), (8, 32, 32), (4, 32, 64), (2, 64, 64)];
    let mut cases = Vec::new();
    for (size, inputs, outputs) in stages {
        cases.push(conv(format!("vgg {inputs} to {outputs} on {size}x{size}"), size, inputs, outputs, 1, SAME));
    }
    for (size, channels) in [(16, 8), (8, 32), (4, 64), (2, 64)] {
        let pool = Pool { window: Window::square(2).with_stride(2), include_padding: false };
        let dims = [1, channels, size, size];
        cases.push(case(format!("vgg pooling of {dims:?}"), Operation::MaxPool(pool), &[dims]));
    }
    cases
}

fn resnet() -> Vec<Case> {
    let mut cases = Vec::new();
    for (size, channels) in [(16, 8), (16, 16), (8, 32), (4, 64)] {
        let name = format!("resnet {channels} on {size}x{size}");
        cases.push(conv(name.clone(), size, channels, channels, 1, SAME));
        cases.push(conv(format!("{name}, second of its block"), size, channels, channels, 1, SAME).with_residual());
    }
    for (size, channels) in [(16, 8), (16, 16), (8, 32)] {
        let name = format!("resnet {channels} to {} from {size}x{size}", 2 * channels);
        cases.push(conv(name.clone(), size, channels, 2 * channels, 1, SAME.with_stride(2)));
        let mut shortcut =
            conv(format!("{name}, shortcut"), size, channels, 2 * channels, 1, Window::square(1).with_stride(2));
        shortcut.op.epilogue.activation = None;
        cases.push(shortcut);
    }
    cases
}

fn mobilenet() -> Vec<Case> {
    let stages = [(16, 4, 8, 1), (16, 8, 16, 2), (8, 16, 16, 1), (8, 16, 32, 2), (4, 32, 64, 1), (4, 64, 128, 2)];
    let mut cases = Vec::new();
    for (size, inputs, outputs, stride) in stages {
        let name = format!("mobilenet {inputs} to {outputs} on {size}x{size} stride {stride}");
        cases.push(conv(format!("{name}, depthwise"), size, inputs, inputs, inputs, SAME.with_stride(stride)));
        cases.push(conv(format!("{name}, pointwise"), size / stride, inputs, outputs, 1, Window::square(1)));
    }
    cases
}
