//! MobileNet v1 of width 1 (Howard et al. 2017).

use super::{CIFAR10, IMAGENET, finish};
use crate::{Graph, Shape, Window};

pub(super) const CIFAR10_NAME: &str = "mobilenet-cifar10";
pub(super) const IMAGENET_NAME: &str = "mobilenet-imagenet";

/// Output channels and stride of each depthwise-separable block (table 1 of the paper).
const BLOCKS: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// MobileNet v1 for CIFAR-10: as for ImageNet but a first convolution of stride 1.
pub fn mobilenet_cifar10() -> Graph {
    build(CIFAR10_NAME, CIFAR10, 1, 10)
}

/// MobileNet v1 for ImageNet.
pub fn mobilenet_imagenet() -> Graph {
    build(IMAGENET_NAME, IMAGENET, 2, 1000)
}

fn build(name: &str, input: Shape, stem_stride: usize, classes: usize) -> Graph {
    let window = Window::square(3).with_padding(1);
    let mut graph = Graph::builder(name, input);
    let x = graph.conv("conv1", graph.input(), 32, window.with_stride(stem_stride));
    let x = graph.batch_norm("bn1", x);
    let mut x = graph.relu("relu", x);
    for (index, (channels, stride)) in BLOCKS.into_iter().enumerate() {
        let layer = |suffix: &str| format!("layers.{index}.{suffix}");
        let y = graph.depthwise(layer("conv1"), x, window.with_stride(stride));
        let y = graph.batch_norm(layer("bn1"), y);
        let y = graph.relu(layer("relu1"), y);
        let y = graph.conv(layer("conv2"), y, channels, Window::square(1));
        let y = graph.batch_norm(layer("bn2"), y);
        x = graph.relu(layer("relu2"), y);
    }
    let x = graph.global_avg_pool("avgpool", x);
    let x = graph.linear("fc", x, classes);
    finish(graph, x)
}
