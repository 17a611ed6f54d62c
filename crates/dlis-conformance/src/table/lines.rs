//! Maps whose lines are whole vectors of some SIMD level, or that are one vector or two altogether, and their neighbours
//! that are not.

use dlis_backend::Operation;
use dlis_model::{Activation, Conv2d, Window};

use super::{case, oblong};
use crate::case::Case;

const SAME: Window = Window::square(3).with_padding(1);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = sizes();
    cases.extend(windows());
    cases.extend(divisions());
    cases
}

fn conv(name: &str, [n, h, w]: [usize; 3], [inputs, outputs]: [usize; 2], window: Window) -> Case {
    let conv = Conv2d { in_channels: inputs, out_channels: outputs, groups: 1, window, bias: true };
    case(format!("lines: {name}, {inputs} to {outputs} on {n}x{h}x{w}"), Operation::Conv2d(conv), &[[n, inputs, h, w]])
}

/// Every number of lines of a tile, of one to eight vectors.
fn sizes() -> Vec<Case> {
    let heights = [(1..=9, 16), (1..=9, 8), (1..=5, 4), (1..=5, 32), (1..=3, 64)];
    let sizes = heights.into_iter().flat_map(|(heights, width)| heights.map(move |height| (height, width)));
    let same = sizes.map(|(h, w)| conv("3x3", [1, h, w], [3, 5], SAME));
    let small = [(2, 2), (1, 4), (4, 1), (2, 4), (4, 2), (2, 8), (8, 2), (8, 1), (16, 1), (3, 4), (2, 3)];
    let small = small.into_iter().map(|(h, w)| conv("small 3x3", [1, h, w], [9, 6], SAME));
    let pointwise = [(2, 8), (3, 16), (5, 16), (7, 16), (2, 32), (6, 8), (4, 12), (1, 48)];
    let pointwise = pointwise.into_iter().map(|(h, w)| conv("1x1", [1, h, w], [7, 9], Window::square(1)));
    same.chain(small).chain(pointwise).collect()
}

fn windows() -> Vec<Case> {
    let square = Window::square;
    let strided = |height, width, window: Window| Window { stride: [height, width], ..window };
    let before_only = Window { padding: [1, 1, 0, 0], ..square(3) };
    let mut cases = Vec::new();
    for [h, w] in [[4, 16], [4, 8], [4, 4], [2, 2]] {
        cases.extend([
            conv("5x5", [1, h, w], [2, 3], square(5).with_padding(2)),
            conv("7x7", [1, h, w], [2, 3], square(7).with_padding(3)),
            conv("9x9", [1, h, w], [1, 2], square(9).with_padding(4)),
            conv("1x3", [1, h, w], [3, 2], Window { padding: [0, 1, 0, 1], ..oblong([1, 3]) }),
            conv("3x1", [1, h, w], [3, 2], Window { padding: [1, 0, 1, 0], ..oblong([3, 1]) }),
            conv("dilated 3x3", [1, h, w], [2, 4], Window { dilation: [2, 2], ..square(3).with_padding(2) }),
            conv("3x3 stride 2", [2, 2 * h, 2 * w], [3, 4], strided(2, 2, SAME)),
            conv("3x3 stride 2 of odd extents", [1, 2 * h - 1, 2 * w - 1], [3, 4], strided(2, 2, SAME)),
            conv("3x3 stride 1x2", [1, h, 2 * w], [3, 4], strided(1, 2, SAME)),
            conv("3x3 stride 2x1", [1, 2 * h, w], [3, 4], strided(2, 1, SAME)),
            conv("3x3 stride 3", [1, 3 * h, 3 * w], [2, 4], strided(3, 3, SAME)),
            conv("1x1 stride 2", [1, 2 * h, 2 * w], [5, 4], strided(2, 2, square(1))),
            conv("2x2 stride 2", [1, 2 * h, 2 * w], [3, 4], strided(2, 2, square(2))),
            conv("valid 3x3", [1, h + 2, w + 2], [3, 4], square(3)),
            conv("3x3 padded before", [1, h + 1, w + 1], [3, 4], before_only),
            conv("3x3 padded widely", [1, h, w - 1], [3, 4], Window { padding: [1, 2, 1, 1], ..square(3) }),
        ]);
    }
    cases
}

/// Channels in several parts and groups, batches, residuals.
fn divisions() -> Vec<Case> {
    // As many channels as take several parts of the smallest maps.
    let mut cases =
        vec![conv("3x3 in parts", [1, 2, 2], [2700, 3], SAME), conv("3x3 in parts", [1, 4, 4], [700, 5], SAME)];
    for [h, w] in [[4, 16], [8, 8], [4, 4], [2, 2]] {
        cases.extend([
            conv("3x3 of many channels", [1, h, w], [150, 19], SAME).with_activation(Activation::Relu),
            conv("3x3 to many channels, residual", [3, h, w], [4, 37], SAME).with_residual(),
            conv("1x1 of many channels", [3, h, w], [400, 18], Window::square(1)).with_activation(Activation::Sigmoid),
            conv("to one channel, residual, relu6", [2, h, w], [6, 1], SAME)
                .with_residual()
                .with_activation(Activation::Relu6),
        ]);
    }
    cases
}
