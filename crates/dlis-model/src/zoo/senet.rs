//! SENet-154 (Hu et al. 2018): a ResNet-152 of grouped bottlenecks with squeeze-and-excitation.

use super::{IMAGENET, finish};
use crate::{Activation, Conv2d, Graph, GraphBuilder, Op, Value, Window};

pub(super) const IMAGENET_NAME: &str = "senet154-imagenet";

/// Groups of the 3x3 convolutions.
const GROUPS: usize = 64;
/// Channels of a block over those of the bottleneck of its squeeze-and-excitation.
const REDUCTION: usize = 16;

/// SENet-154 for ImageNet, with the names of the PyTorch port of the authors' weights (`senet154` of
/// Cadene's pretrained models).
pub fn senet154_imagenet() -> Graph {
    let three = Window::square(3).with_padding(1);
    let mut graph = Graph::builder(IMAGENET_NAME, IMAGENET);
    let mut x = graph.input();
    for (index, (channels, stride)) in [(64, 2), (64, 1), (128, 1)].into_iter().enumerate() {
        let n = index + 1;
        x = graph.conv(format!("layer0.conv{n}"), x, channels, three.with_stride(stride));
        x = graph.batch_norm(format!("layer0.bn{n}"), x);
        x = graph.relu(format!("layer0.relu{n}"), x);
    }
    // The original rounds the pooled size up: 112 rows become 56, the last from two rows.
    let pool = Window { padding: [0, 0, 1, 1], ..Window::square(3).with_stride(2) };
    x = graph.max_pool("layer0.pool", x, pool);
    for (stage, (planes, blocks)) in [(64, 3), (128, 8), (256, 36), (512, 3)].into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = bottleneck(&mut graph, &format!("layer{}.{block}", stage + 1), x, planes, stride);
        }
    }
    let x = graph.global_avg_pool("avg_pool", x);
    let x = graph.linear("last_linear", x, 1000);
    finish(graph, x)
}

/// 1x1, grouped 3x3 and 1x1 convolutions, recalibrated and added to the input; where the shape changes,
/// the input goes through a convolution of its own, 3x3 where it also shrinks.
fn bottleneck(graph: &mut GraphBuilder, name: &str, x: Value, planes: usize, stride: usize) -> Value {
    let layer = |suffix: &str| format!("{name}.{suffix}");
    let three = Window::square(3).with_padding(1).with_stride(stride);
    let y = graph.conv(layer("conv1"), x, 2 * planes, Window::square(1));
    let y = graph.batch_norm(layer("bn1"), y);
    let y = graph.relu(layer("relu1"), y);
    let grouped =
        Conv2d { in_channels: 2 * planes, out_channels: 4 * planes, groups: GROUPS, window: three, bias: false };
    let y = graph.add_layer(layer("conv2"), Op::Conv2d(grouped), &[y]);
    let y = graph.batch_norm(layer("bn2"), y);
    let y = graph.relu(layer("relu2"), y);
    let y = graph.conv(layer("conv3"), y, 4 * planes, Window::square(1));
    let y = graph.batch_norm(layer("bn3"), y);
    let shortcut = if graph.shape(x) == graph.shape(y) {
        x
    } else {
        let window = if stride == 1 { Window::square(1) } else { three };
        let x = graph.conv(layer("downsample.0"), x, 4 * planes, window);
        graph.batch_norm(layer("downsample.1"), x)
    };
    let y = squeeze_excite(graph, &layer("se_module"), y);
    let y = graph.add(layer("add"), y, shortcut);
    graph.relu(layer("relu3"), y)
}

/// A factor a channel from the means of all channels (equations 2 to 4 of the paper).
fn squeeze_excite(graph: &mut GraphBuilder, name: &str, x: Value) -> Value {
    let channels = graph.shape(x).channels;
    let pointwise = |in_channels, out_channels| {
        Op::Conv2d(Conv2d { in_channels, out_channels, groups: 1, window: Window::square(1), bias: true })
    };
    let s = graph.global_avg_pool(format!("{name}.avg_pool"), x);
    let s = graph.add_layer(format!("{name}.fc1"), pointwise(channels, channels / REDUCTION), &[s]);
    let s = graph.relu(format!("{name}.relu"), s);
    let s = graph.add_layer(format!("{name}.fc2"), pointwise(channels / REDUCTION, channels), &[s]);
    let s = graph.add_layer(format!("{name}.sigmoid"), Op::Activation { function: Activation::Sigmoid }, &[s]);
    graph.add_layer(format!("{name}.scale"), Op::Scale, &[x, s])
}
