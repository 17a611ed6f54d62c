//! VGG-16 (Simonyan and Zisserman 2015, configuration D).

use super::{CIFAR10, IMAGENET, finish};
use crate::{Conv2d, Graph, GraphBuilder, Op, Value, Window};

pub(super) const CIFAR10_NAME: &str = "vgg16-cifar10";
pub(super) const IMAGENET_NAME: &str = "vgg16-imagenet";

/// Output channels of the convolutions of each stage; a pooling layer ends a stage.
const STAGES: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256; 3], &[512; 3], &[512; 3]];

/// VGG-16 for CIFAR-10: batch-norm after each convolution, and two fully connected layers (512, 10)
/// instead of the three of the original.
pub fn vgg16_cifar10() -> Graph {
    let mut graph = Graph::builder(CIFAR10_NAME, CIFAR10);
    let x = features(&mut graph, true);
    let x = graph.linear("classifier.0", x, 512);
    let x = graph.relu("classifier.1", x);
    let x = graph.linear("classifier.2", x, 10);
    finish(graph, x)
}

/// VGG-16 for ImageNet as torchvision's `vgg16` has it: without batch-norm.
pub fn vgg16_imagenet() -> Graph {
    let mut graph = Graph::builder(IMAGENET_NAME, IMAGENET);
    let x = features(&mut graph, false);
    let x = graph.flatten("flatten", x);
    let x = graph.linear("classifier.0", x, 4096);
    let x = graph.relu("classifier.1", x);
    let x = graph.linear("classifier.3", x, 4096);
    let x = graph.relu("classifier.4", x);
    let x = graph.linear("classifier.6", x, 1000);
    finish(graph, x)
}

/// The convolutional part. Batch-norm makes the bias of a convolution redundant, so that each has one or
/// the other.
fn features(graph: &mut GraphBuilder, batch_norm: bool) -> Value {
    let mut names = (0..).map(|index| format!("features.{index}"));
    let mut name = || names.next().unwrap_or_default();
    let mut x = graph.input();
    for stage in STAGES {
        for &out_channels in stage {
            let in_channels = graph.shape(x).channels;
            let window = Window::square(3).with_padding(1);
            let conv = Conv2d { in_channels, out_channels, groups: 1, window, bias: !batch_norm };
            x = graph.add_layer(name(), Op::Conv2d(conv), &[x]);
            if batch_norm {
                x = graph.batch_norm(name(), x);
            }
            x = graph.relu(name(), x);
        }
        x = graph.max_pool(name(), x, Window::square(2).with_stride(2));
    }
    x
}
