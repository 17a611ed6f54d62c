//! Convolutions.

use dlis_backend::Operation;
use dlis_model::{Conv2d, Window};

use super::{ACTIVATIONS, ODD_CHANNELS, case, oblong};
use crate::case::Case;

fn conv(name: impl Into<String>, [n, h, w]: [usize; 3], conv: Conv2d) -> Case {
    case(name, Operation::Conv2d(conv), &[[n, conv.in_channels, h, w]])
}

fn dense(in_channels: usize, out_channels: usize, window: Window) -> Conv2d {
    Conv2d { in_channels, out_channels, groups: 1, window, bias: true }
}

fn depthwise(channels: usize, window: Window) -> Conv2d {
    Conv2d { groups: channels, ..dense(channels, channels, window) }
}

const SAME: Window = Window::square(3).with_padding(1);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(channel_counts());
    cases.extend(windows());
    cases.extend(groups());
    cases.extend(sizes());
    cases.extend(epilogues());
    cases
}

fn channel_counts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, channels) in ODD_CHANNELS.into_iter().enumerate() {
        let other = ODD_CHANNELS[ODD_CHANNELS.len() - 1 - index];
        cases.push(conv(format!("3x3, {channels} to {other} channels"), [1, 5, 7], dense(channels, other, SAME)));
        let pointwise = dense(other, channels, Window::square(1));
        cases.push(conv(format!("1x1, {other} to {channels} channels"), [2, 3, 5], pointwise));
        cases.push(conv(format!("depthwise 3x3, {channels} channels"), [1, 6, 5], depthwise(channels, SAME)));
    }
    for (inputs, outputs) in [(1, 1), (4, 8), (8, 4), (16, 16), (32, 64), (64, 32)] {
        cases.push(conv(format!("3x3, {inputs} to {outputs} channels, even"), [1, 8, 8], dense(inputs, outputs, SAME)));
    }
    cases
}

fn windows() -> Vec<Case> {
    let mut cases = Vec::new();
    for kernel in [[1, 1], [2, 2], [3, 3], [5, 5], [7, 7], [1, 7], [7, 1], [3, 1], [1, 3], [2, 3], [4, 4], [11, 11]] {
        let [height, width] = kernel;
        for stride in [1, 2, 3] {
            let padding = [height / 2, width / 2, height / 2, width / 2];
            let window = Window { stride: [stride; 2], padding, ..oblong(kernel) };
            cases.push(conv(format!("{height}x{width} stride {stride}"), [1, 9, 10], dense(3, 6, window)));
        }
    }
    let mut odd = |name: &str, size, window| cases.push(conv(name, size, dense(5, 9, window)));
    odd("valid 3x3", [1, 7, 9], Window::square(3));
    odd("valid 5x5 stride 2", [2, 10, 9], Window::square(5).with_stride(2));
    odd("strides 2 and 1", [1, 8, 7], Window { stride: [2, 1], ..SAME });
    odd("strides 1 and 3", [1, 8, 11], Window { stride: [1, 3], ..SAME });
    odd("stride beyond the window", [1, 11, 13], Window::square(2).with_stride(4));
    odd("pointwise stride 2", [2, 7, 5], Window::square(1).with_stride(2));
    odd("pointwise stride 3", [1, 9, 10], Window::square(1).with_stride(3));
    odd("1x1 with padding", [1, 3, 4], Window::square(1).with_padding(1));
    odd("1x1 stride 2 with padding", [1, 5, 4], Window::square(1).with_padding(1).with_stride(2));
    odd("padding at the top alone", [1, 5, 6], Window { padding: [2, 0, 0, 0], ..Window::square(3) });
    odd("padding at the left alone", [1, 5, 6], Window { padding: [0, 2, 0, 0], ..Window::square(3) });
    odd("padding at the bottom alone", [1, 5, 6], Window { padding: [0, 0, 2, 0], ..Window::square(3) });
    odd("padding at the right alone", [1, 5, 6], Window { padding: [0, 0, 0, 2], ..Window::square(3) });
    odd("four paddings, stride 2", [1, 6, 5], Window { padding: [0, 1, 2, 3], stride: [2, 2], ..Window::square(3) });
    odd("the padding of an even window", [1, 6, 6], Window { padding: [0, 0, 1, 1], ..Window::square(2) });
    odd("more padding than needed", [1, 4, 3], Window::square(3).with_padding(3));
    odd("padding wider than the input", [1, 10, 2], Window { padding: [0, 3, 0, 3], ..Window::square(1) });
    odd("little but padding", [1, 5, 4], Window { padding: [0, 14, 0, 14], ..Window::square(1) });
    odd("more padding than needed, stride 2", [2, 3, 4], Window::square(3).with_padding(4).with_stride(2));
    odd("dilation 2", [1, 9, 8], Window { dilation: [2, 2], ..Window::square(3).with_padding(2) });
    odd("dilation 3 and 1", [1, 10, 6], Window { dilation: [3, 1], ..SAME });
    odd("dilation 2 stride 2", [1, 9, 11], Window { dilation: [2, 2], ..SAME.with_stride(2) });
    odd(
        "dilation that reaches beyond the input",
        [1, 3, 3],
        Window { dilation: [4, 4], ..Window::square(3).with_padding(4) },
    );
    cases
}

fn groups() -> Vec<Case> {
    let mut cases = Vec::new();
    let grouped = |inputs, outputs, groups, window| Conv2d { groups, ..dense(inputs, outputs, window) };
    for (inputs, outputs, groups) in
        [(4, 6, 2), (6, 9, 3), (32, 16, 2), (34, 34, 2), (51, 48, 3), (8, 16, 8), (9, 3, 3)]
    {
        let name = format!("{groups} groups, {inputs} to {outputs} channels");
        cases.push(conv(name.clone(), [1, 5, 6], grouped(inputs, outputs, groups, SAME)));
        cases.push(conv(format!("1x1, {name}"), [2, 4, 3], grouped(inputs, outputs, groups, Window::square(1))));
    }
    cases.push(conv("2 groups, stride 2", [1, 7, 8], grouped(10, 14, 2, SAME.with_stride(2))));
    for stride in [1, 2, 3] {
        for (size, channels) in [([1, 1, 1], 3), ([1, 7, 7], 9), ([2, 8, 5], 17), ([1, 13, 3], 33), ([3, 2, 9], 8)] {
            let [n, h, w] = size;
            let name = format!("depthwise stride {stride}, {n}x{channels}x{h}x{w}");
            cases.push(conv(name, size, depthwise(channels, SAME.with_stride(stride))));
        }
    }
    let mut each = |name: &str, size, channels, window| cases.push(conv(name, size, depthwise(channels, window)));
    // Rows that are whole vectors of one level or another, and planes that are one.
    for [h, w] in [[1, 8], [3, 16], [2, 48], [4, 4], [2, 2], [2, 8]] {
        each(&format!("depthwise 3x3 on {h}x{w}"), [1, h, w], 3, SAME);
        each(&format!("depthwise 3x3 stride 2 to {h}x{w}"), [1, 2 * h, 2 * w], 3, SAME.with_stride(2));
    }
    // Whole vectors of channels of every level, on rows that are long enough for windows to slide along.
    for (channels, [n, h, w]) in [(16, [2, 3, 8]), (32, [1, 4, 13]), (48, [1, 1, 19]), (16, [3, 2, 17])] {
        let name = |what: &str| format!("depthwise 3x3 {what}, {n}x{channels}x{h}x{w}");
        each(&name("along rows"), [n, h, w], channels, SAME);
        each(&name("along rows, stride 2"), [n, h, 2 * w], channels, SAME.with_stride(2));
        let uneven = Window { padding: [2, 0, 1, 4], stride: [2, 1], ..Window::square(3) };
        each(&name("along rows, uneven padding"), [n, h, w], channels, uneven);
        each(
            &name("along rows, without padding"),
            [n, h + 2, 2 * w + 2],
            channels,
            Window { stride: [1, 2], ..Window::square(3) },
        );
    }
    // Small maps, whose rows are few or short, of more channels than a task takes.
    for ([n, h, w], channels) in
        [([1, 4, 4], 72), ([2, 8, 3], 16), ([3, 2, 2], 136), ([1, 6, 1], 8), ([1, 12, 4], 64), ([2, 4, 5], 32)]
    {
        each(&format!("depthwise 3x3, small, {n}x{channels}x{h}x{w}"), [n, h, w], channels, SAME);
    }
    // Rows that are walked in several strips, and windows of which rows, or all, lie in the padding.
    for stride in [1, 2] {
        let window = Window::square(3).with_padding(3).with_stride(stride);
        each(&format!("depthwise 3x3 on long rows, stride {stride}"), [2, 3, 40 * stride], 48, window);
    }
    each("depthwise 5x5", [1, 7, 9], 11, Window::square(5).with_padding(2));
    each("depthwise 7x7 stride 2", [1, 9, 11], 18, Window::square(7).with_padding(3).with_stride(2));
    each("depthwise 1x1", [1, 4, 5], 6, Window::square(1));
    each("depthwise 1x7", [1, 4, 9], 5, Window { padding: [0, 3, 0, 3], ..oblong([1, 7]) });
    each("depthwise 3x1 without padding", [2, 5, 4], 7, oblong([3, 1]));
    each("depthwise without padding", [1, 6, 7], 16, Window::square(3));
    each("depthwise with uneven padding", [1, 6, 7], 16, Window { padding: [1, 0, 2, 3], ..Window::square(3) });
    each("depthwise dilation 2", [1, 8, 9], 10, Window { dilation: [2, 2], ..Window::square(3).with_padding(2) });
    each("depthwise with more padding than needed", [1, 3, 3], 4, Window::square(3).with_padding(3));
    each("depthwise wider than its input", [1, 2, 2], 9, Window::square(7).with_padding(3));
    cases
}

fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (height, width) in [(1, 1), (1, 2), (2, 1), (1, 17), (17, 1), (2, 2), (3, 33), (4, 4), (6, 6), (13, 7)] {
        cases.push(conv(format!("3x3 on {height}x{width}"), [1, height, width], dense(4, 5, SAME)));
        let pointwise = dense(9, 8, Window::square(1));
        cases.push(conv(format!("1x1 on {height}x{width}"), [1, height, width], pointwise));
    }
    for batch in [2, 3, 5] {
        cases.push(conv(format!("3x3, batch {batch}"), [batch, 4, 5], dense(6, 10, SAME)));
        cases.push(conv(format!("1x1, batch {batch}"), [batch, 3, 3], dense(7, 18, Window::square(1))));
        cases.push(conv(format!("depthwise, batch {batch}"), [batch, 5, 3], depthwise(6, SAME.with_stride(2))));
    }
    // Pixels and channels of a few tiles, and of some more.
    let (one, two) = (Window::square(1), Window::square(1).with_stride(2));
    for (size, inputs, outputs, window) in [
        ([1, 8, 8], 64, 64, one),
        ([1, 9, 9], 45, 70, one),
        ([3, 5, 6], 33, 35, one),
        ([5, 4, 4], 32, 96, one),
        ([2, 17, 13], 40, 33, two),
        ([1, 17, 19], 37, 40, SAME.with_stride(2)),
    ] {
        let [n, h, w] = size;
        let [kernel, _] = window.kernel;
        let name = format!("{kernel}x{kernel}, {inputs} to {outputs} channels on {n}x{h}x{w}");
        cases.push(conv(name, size, dense(inputs, outputs, window)));
    }
    cases.push(conv("narrower than the window", [1, 9, 2], dense(3, 4, Window::square(5).with_padding(2))));
    cases.push(conv("lower than the window", [1, 2, 9], dense(3, 4, Window::square(5).with_padding(2))));
    cases.push(conv("the window is the input", [2, 4, 4], dense(5, 7, Window::square(4))));
    cases.push(conv("7x7 on one pixel", [1, 1, 1], dense(3, 5, Window::square(7).with_padding(3))));
    cases.push(conv("one pixel alone, padded to an image", [1, 1, 1], dense(2, 3, Window::square(2).with_padding(2))));
    cases
}

fn epilogues() -> Vec<Case> {
    let mut cases = Vec::new();
    let convs = [
        ("3x3", dense(7, 13, SAME)),
        ("3x3 stride 2", dense(5, 16, SAME.with_stride(2))),
        ("1x1", dense(20, 11, Window::square(1))),
        ("depthwise", depthwise(19, SAME)),
        ("2 groups", Conv2d { groups: 2, ..dense(6, 18, SAME) }),
    ];
    for (name, with_bias) in convs {
        for bias in [false, true] {
            let plain = |text: &str| {
                let bias_text = if bias { "bias" } else { "no bias" };
                conv(format!("{name}, {bias_text}{text}"), [2, 6, 5], Conv2d { bias, ..with_bias })
            };
            cases.push(plain(", bare"));
            cases.push(plain(", residual").with_residual());
            for activation in ACTIVATIONS {
                let text = format!(", {activation:?}").to_lowercase();
                cases.push(plain(&text).with_activation(activation));
                cases.push(plain(&format!(", residual{text}")).with_residual().with_activation(activation));
            }
        }
    }
    // f32 is exact here, so whatever adds up in another order must still agree to the bit.
    for (name, with_bias) in convs {
        cases.push(conv(format!("{name} over whole numbers"), [1, 7, 6], with_bias).over_whole_numbers());
    }
    cases
}
