//! AlexNet in the one-tower form of Krizhevsky 2014 (after Krizhevsky et al. 2012).

use super::{IMAGENET, finish};
use crate::{Conv2d, Graph, GraphBuilder, Op, Value, Window};

pub(super) const IMAGENET_NAME: &str = "alexnet-imagenet";

/// AlexNet for ImageNet as torchvision's `alexnet` has it.
pub fn alexnet_imagenet() -> Graph {
    let mut graph = Graph::builder(IMAGENET_NAME, IMAGENET);
    let pool = Window::square(3).with_stride(2);
    let three = Window::square(3).with_padding(1);
    let x = graph.input();
    let x = conv_relu(&mut graph, 0, x, 64, Window::square(11).with_stride(4).with_padding(2));
    let x = graph.max_pool("features.2", x, pool);
    let x = conv_relu(&mut graph, 3, x, 192, Window::square(5).with_padding(2));
    let x = graph.max_pool("features.5", x, pool);
    let x = conv_relu(&mut graph, 6, x, 384, three);
    let x = conv_relu(&mut graph, 8, x, 256, three);
    let x = conv_relu(&mut graph, 10, x, 256, three);
    let x = graph.max_pool("features.12", x, pool);
    let x = graph.flatten("flatten", x);
    let x = graph.linear("classifier.1", x, 4096);
    let x = graph.relu("classifier.2", x);
    let x = graph.linear("classifier.4", x, 4096);
    let x = graph.relu("classifier.5", x);
    let x = graph.linear("classifier.6", x, 1000);
    finish(graph, x)
}

/// The convolution `features.{index}`, with bias, and the rectifier after it.
fn conv_relu(graph: &mut GraphBuilder, index: usize, x: Value, out_channels: usize, window: Window) -> Value {
    let in_channels = graph.shape(x).channels;
    let conv = Conv2d { in_channels, out_channels, groups: 1, window, bias: true };
    let x = graph.add_layer(format!("features.{index}"), Op::Conv2d(conv), &[x]);
    graph.relu(format!("features.{}", index + 1), x)
}
