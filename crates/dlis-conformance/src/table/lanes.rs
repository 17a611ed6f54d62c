//! Batches of whole groups of images, which can be in the layout of images as lanes.

use dlis_backend::{Layout, Operation};
use dlis_model::{Activation, Conv2d, Linear, Pool, Window};

use super::{case, oblong};
use crate::case::Case;

const ONE: usize = Layout::LANES;
const TWO: usize = 2 * Layout::LANES;

const SAME: Window = Window::square(3).with_padding(1);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = convolutions();
    cases.extend(pools());
    cases.extend(element_wise());
    cases.extend(moves());
    cases
}

fn conv(name: &str, [n, h, w]: [usize; 3], [inputs, outputs, groups]: [usize; 3], window: Window) -> Case {
    let conv = Conv2d { in_channels: inputs, out_channels: outputs, groups, window, bias: true };
    case(format!("{name}, batch {n}"), Operation::Conv2d(conv), &[[n, inputs, h, w]])
}

fn convolutions() -> Vec<Case> {
    let (square, strided) = (Window::square, SAME.with_stride(2));
    let two_groups = conv("2 groups", [ONE, 4, 5], [6, 4, 2], SAME);
    let uneven = Window { padding: [0, 1, 2, 3], stride: [2, 1], ..square(3) };
    let dilated = Window { dilation: [2, 1], ..square(3).with_padding(2) };
    vec![
        conv("3x3", [ONE, 5, 7], [3, 5, 1], SAME),
        conv("3x3", [TWO, 3, 5], [5, 9, 1], SAME),
        conv("3x3 with even channels", [ONE, 4, 4], [8, 16, 1], SAME),
        conv("3x3 on one pixel", [ONE, 1, 1], [4, 6, 1], SAME),
        conv("3x3 on one row", [ONE, 1, 9], [2, 3, 1], SAME),
        conv("3x3 of one channel", [ONE, 5, 4], [1, 4, 1], SAME),
        conv("3x3 to one channel", [TWO, 4, 3], [7, 1, 1], SAME),
        conv("3x3 stride 2", [ONE, 7, 5], [3, 6, 1], strided),
        conv("3x3 stride 2", [TWO, 4, 6], [4, 5, 1], strided),
        conv("valid 3x3", [ONE, 5, 6], [4, 4, 1], square(3)),
        conv("uneven padding and strides", [ONE, 6, 5], [3, 4, 1], uneven),
        conv("dilation", [ONE, 7, 5], [2, 4, 1], dilated),
        conv("5x5 wider than its input", [ONE, 3, 2], [2, 3, 1], square(5).with_padding(2)),
        conv("1x7", [ONE, 2, 9], [3, 2, 1], Window { padding: [0, 3, 0, 3], ..oblong([1, 7]) }),
        conv("1x1", [ONE, 3, 5], [17, 15, 1], square(1)),
        conv("1x1", [TWO, 2, 3], [9, 33, 1], square(1)),
        conv("1x1 on one pixel", [TWO, 1, 1], [33, 20, 1], square(1)),
        conv("1x1 stride 2", [ONE, 5, 4], [6, 7, 1], square(1).with_stride(2)),
        // As many channels as are read in several parts, and as many outputs as are divided among workers.
        conv("3x3 of many channels", [ONE, 4, 5], [44, 6, 1], SAME).with_activation(Activation::Relu),
        conv("1x1 of many channels", [ONE, 2, 4], [200, 3, 1], square(1)).with_residual(),
        conv("1x1 to many channels", [ONE, 2, 2], [3, 130, 1], square(1)),
        conv("one channel and one pixel", [ONE, 1, 1], [1, 1, 1], square(1)),
        conv("depthwise 3x3", [ONE, 5, 6], [7, 7, 7], SAME),
        conv("depthwise 3x3", [TWO, 3, 4], [5, 5, 5], SAME),
        conv("depthwise 3x3 stride 2", [TWO, 7, 5], [3, 3, 3], strided),
        conv("depthwise 5x5", [ONE, 4, 7], [2, 2, 2], square(5).with_padding(2)),
        two_groups.clone().named("2 groups, bare, batch 16"),
        two_groups.with_residual().with_activation(Activation::Relu),
        conv("3x3 with residual", [ONE, 3, 5], [4, 6, 1], SAME).with_residual(),
        conv("3x3 with relu6", [TWO, 4, 3], [3, 4, 1], SAME).with_activation(Activation::Relu6),
        conv("1x1 with sigmoid", [ONE, 3, 3], [5, 6, 1], square(1)).with_activation(Activation::Sigmoid),
        conv("1x1 with residual and relu", [TWO, 3, 2], [6, 10, 1], square(1))
            .with_residual()
            .with_activation(Activation::Relu),
        conv("depthwise with residual and relu6", [ONE, 4, 5], [6, 6, 6], SAME)
            .with_residual()
            .with_activation(Activation::Relu6),
        conv("3x3 over whole numbers", [ONE, 5, 3], [6, 8, 1], SAME).over_whole_numbers(),
        conv("1x1 over whole numbers", [TWO, 3, 3], [12, 9, 1], square(1)).over_whole_numbers(),
        // An infinity or NaN in one image, and so in one lane of it alone.
        conv("3x3 of NaN and infinities", [ONE, 4, 5], [3, 4, 1], SAME).map_inputs(specials),
        conv("1x1 of NaN and infinities", [ONE, 3, 3], [6, 5, 1], square(1)).map_inputs(specials),
        case(
            "linear, batch 16",
            Operation::Linear(Linear { in_features: 21, out_features: 11, bias: true }),
            &[[ONE, 21, 1, 1]],
        ),
    ]
}

/// Numbers that are none, here and there.
fn specials(index: usize, x: f32) -> f32 {
    match index % 97 {
        13 => f32::NAN,
        41 => f32::INFINITY,
        83 => f32::NEG_INFINITY,
        _ => x,
    }
}

fn pools() -> Vec<Case> {
    let windows = [
        ("2x2 stride 2", [ONE, 3, 4, 6], Window::square(2).with_stride(2)),
        ("3x3 stride 2 padded", [TWO, 5, 7, 5], SAME.with_stride(2)),
        ("3x3 padded", [ONE, 1, 3, 5], SAME),
        ("uneven padding", [ONE, 4, 5, 4], Window { padding: [0, 1, 2, 0], stride: [2, 1], ..Window::square(3) }),
    ];
    let mut cases = Vec::new();
    for (name, dims, window) in windows {
        let name = format!("{name}, batch {}", dims[0]);
        let pool = Pool { window, include_padding: false };
        cases.push(case(format!("max pool, {name}"), Operation::MaxPool(pool), &[dims]));
        let with_specials = case(format!("max pool of NaN and infinities, {name}"), Operation::MaxPool(pool), &[dims]);
        cases.push(with_specials.map_inputs(specials));
        cases.push(case(format!("average pool, {name}"), Operation::AvgPool(pool), &[dims]));
        let counting = Operation::AvgPool(Pool { include_padding: true, ..pool });
        cases.push(case(format!("average pool counting its padding, {name}"), counting, &[dims]));
    }
    for dims in [[ONE, 3, 5, 7], [TWO, 17, 2, 3], [ONE, 1, 4, 4], [TWO, 6, 1, 1]] {
        cases.push(case(format!("global average pool of {dims:?}"), Operation::GlobalAvgPool, &[dims]));
    }
    cases
}

/// Extents that leave a rest in whatever is not a group of images.
const EXTENTS: [[usize; 4]; 5] = [[ONE, 3, 5, 7], [TWO, 17, 3, 1], [TWO, 5, 1, 1], [ONE, 1, 3, 4], [TWO, 1, 1, 1]];

fn element_wise() -> Vec<Case> {
    let mut cases = Vec::new();
    for dims in EXTENTS {
        let [n, c, _, _] = dims;
        cases.push(case(format!("add of {dims:?}"), Operation::Add, &[dims; 2]));
        let relu = case(format!("add then relu of {dims:?}"), Operation::Add, &[dims; 2]);
        cases.push(relu.with_activation(Activation::Relu));
        cases.push(case(format!("relu of {dims:?}"), Operation::Activation(Activation::Relu), &[dims]));
        cases.push(case(format!("scale of {dims:?}"), Operation::Scale, &[dims, [n, c, 1, 1]]));
        cases.push(case(format!("affine of {dims:?}"), Operation::Affine, &[dims]));
        let relu6 = case(format!("affine then relu6 of {dims:?}"), Operation::Affine, &[dims]);
        cases.push(relu6.with_activation(Activation::Relu6).map_inputs(|_, x| 10.0 * x));
        cases.push(case(format!("softmax of {dims:?}"), Operation::Softmax, &[dims]));
    }
    cases
}

fn moves() -> Vec<Case> {
    let mut cases = Vec::new();
    // Around the squares and blocks in which places are moved, too.
    let extents = [[ONE, 16, 4, 4], [TWO, 33, 2, 2], [ONE, 18, 9, 7], [ONE, 1, 16, 17], [TWO, 40, 1, 1]];
    for dims in EXTENTS.into_iter().chain(extents) {
        cases.push(case(format!("reorder of {dims:?}"), Operation::Reorder, &[dims]));
    }
    let reorder = case("reorder of NaN and infinities, batch 16", Operation::Reorder, &[[ONE, 5, 6, 7]]);
    cases.push(reorder.map_inputs(specials));
    let parts = |n| [3, 1, 16].map(|channels| [n, channels, 3, 2]);
    cases.push(case("concat, batch 16", Operation::Concat, &parts(ONE)));
    cases.push(case("concat, batch 32", Operation::Concat, &parts(TWO)));
    cases
}
