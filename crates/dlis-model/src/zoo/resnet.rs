//! ResNet-18 (He et al. 2016).

use super::{CIFAR10, IMAGENET, finish};
use crate::{Graph, GraphBuilder, Value, Window};

pub(super) const CIFAR10_NAME: &str = "resnet18-cifar10";
pub(super) const IMAGENET_NAME: &str = "resnet18-imagenet";

/// ResNet-18 for CIFAR-10: a 3x3 first convolution of stride 1 and no pooling after it.
pub fn resnet18_cifar10() -> Graph {
    let mut graph = Graph::builder(CIFAR10_NAME, CIFAR10);
    let x = graph.conv("conv1", graph.input(), 64, Window::square(3).with_padding(1));
    let x = graph.batch_norm("bn1", x);
    let x = graph.relu("relu", x);
    stages(graph, x, 10)
}

/// ResNet-18 for ImageNet as torchvision's `resnet18` has it.
pub fn resnet18_imagenet() -> Graph {
    let mut graph = Graph::builder(IMAGENET_NAME, IMAGENET);
    let x = graph.conv("conv1", graph.input(), 64, Window::square(7).with_stride(2).with_padding(3));
    let x = graph.batch_norm("bn1", x);
    let x = graph.relu("relu", x);
    let x = graph.max_pool("maxpool", x, Window::square(3).with_stride(2).with_padding(1));
    stages(graph, x, 1000)
}

fn stages(mut graph: GraphBuilder, mut x: Value, classes: usize) -> Graph {
    for (stage, channels) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = basic_block(&mut graph, &format!("layer{}.{block}", stage + 1), x, channels, stride);
        }
    }
    let x = graph.global_avg_pool("avgpool", x);
    let x = graph.linear("fc", x, classes);
    finish(graph, x)
}

/// Two 3x3 convolutions and the input added; where the shape changes, a 1x1 convolution of the input
/// (option B of the paper).
fn basic_block(graph: &mut GraphBuilder, name: &str, x: Value, channels: usize, stride: usize) -> Value {
    let window = Window::square(3).with_padding(1);
    let y = graph.conv(format!("{name}.conv1"), x, channels, window.with_stride(stride));
    let y = graph.batch_norm(format!("{name}.bn1"), y);
    let y = graph.relu(format!("{name}.relu1"), y);
    let y = graph.conv(format!("{name}.conv2"), y, channels, window);
    let y = graph.batch_norm(format!("{name}.bn2"), y);
    let shortcut = if graph.shape(x) == graph.shape(y) {
        x
    } else {
        let x = graph.conv(format!("{name}.downsample.0"), x, channels, Window::square(1).with_stride(stride));
        graph.batch_norm(format!("{name}.downsample.1"), x)
    };
    let y = graph.add(format!("{name}.add"), y, shortcut);
    graph.relu(format!("{name}.relu2"), y)
}
