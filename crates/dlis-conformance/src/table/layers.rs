//! Everything but convolutions.

use dlis_backend::Operation;
use dlis_model::{Activation, Linear, Pool, Window};

use super::{ACTIVATIONS, ODD_CHANNELS, case, oblong};
use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(linear());
    cases.extend(pooling());
    cases.extend(elementwise());
    cases.extend(along_channels());
    cases
}

fn linear() -> Vec<Case> {
    let linear = |name: String, batch, in_features, out_features, bias| {
        let linear = Linear { in_features, out_features, bias };
        case(name, Operation::Linear(linear), &[[batch, in_features, 1, 1]])
    };
    let mut cases = Vec::new();
    for (index, features) in ODD_CHANNELS.into_iter().enumerate() {
        let other = ODD_CHANNELS[(index + 5) % ODD_CHANNELS.len()];
        let (batch, bias) = ([1, 2, 3, 5][index % 4], index % 3 != 0);
        cases.push(linear(format!("linear {features} to {other}, batch {batch}"), batch, features, other, bias));
    }
    cases.push(linear("linear 512 to 10".into(), 1, 512, 10, true));
    cases.push(linear("linear 1000 to 3, batch 4".into(), 4, 1000, 3, true));
    cases.push(linear("linear 2 to 200".into(), 2, 2, 200, false));
    for activation in ACTIVATIONS {
        let name = format!("linear with {activation:?}").to_lowercase();
        cases.push(linear(name.clone(), 3, 37, 21, true).with_activation(activation));
        let name = format!("{name} and a residual");
        cases.push(linear(name, 2, 18, 35, false).with_residual().with_activation(activation));
    }
    cases.push(linear("linear over whole numbers".into(), 3, 40, 19, true).over_whole_numbers());
    cases
}

fn pooling() -> Vec<Case> {
    let square = Window::square;
    let windows = [
        ("2x2 stride 2", [1, 3, 8, 8], square(2).with_stride(2)),
        ("2x2 stride 2 of long lines", [1, 2, 4, 71], square(2).with_stride(2)),
        ("2x2 stride 2 on odd sizes", [2, 5, 7, 9], square(2).with_stride(2)),
        ("3x3 stride 2 padded", [1, 17, 7, 8], square(3).with_stride(2).with_padding(1)),
        ("3x3 stride 1 padded", [1, 9, 5, 5], square(3).with_padding(1)),
        ("3x3 stride 3", [3, 1, 10, 11], square(3).with_stride(3)),
        ("5x5 padded", [1, 4, 3, 3], square(5).with_padding(2)),
        ("1x1", [1, 6, 3, 4], square(1)),
        ("1x1 stride 2", [1, 7, 5, 4], square(1).with_stride(2)),
        ("the whole image", [2, 33, 4, 4], square(4)),
        ("1x7", [1, 3, 2, 9], Window { padding: [0, 3, 0, 3], ..oblong([1, 7]) }),
        ("3x1", [1, 8, 6, 1], Window { padding: [1, 0, 1, 0], ..oblong([3, 1]) }),
        ("uneven padding", [1, 15, 6, 5], Window { padding: [0, 1, 2, 0], stride: [2, 1], ..square(3) }),
        ("dilation 2", [1, 5, 8, 7], Window { dilation: [2, 2], ..square(3).with_padding(1) }),
        ("one pixel", [1, 65, 1, 1], square(3).with_padding(1)),
        ("stride beyond the window", [1, 2, 9, 10], square(2).with_stride(4)),
    ];
    let mut cases = Vec::new();
    for (name, dims, window) in windows {
        let pool = Pool { window, include_padding: false };
        cases.push(case(format!("max pool, {name}"), Operation::MaxPool(pool), &[dims]));
        // All values below zero: a padding of zeros would win.
        let below = case(format!("max pool below zero, {name}"), Operation::MaxPool(pool), &[dims]);
        cases.push(below.map_inputs(|_, x| x - 2.0));
        cases.push(case(format!("average pool, {name}"), Operation::AvgPool(pool), &[dims]));
        let counting = Operation::AvgPool(Pool { include_padding: true, ..pool });
        cases.push(case(format!("average pool counting its padding, {name}"), counting, &[dims]));
    }
    for (index, channels) in ODD_CHANNELS.into_iter().enumerate() {
        let dims = [1 + index % 3, channels, 1 + index % 4, 1 + index * 3 % 7];
        cases.push(case(format!("global average pool of {dims:?}"), Operation::GlobalAvgPool, &[dims]));
    }
    cases
}

/// Extents on which blocks and vectors leave a rest.
const ODD: [[usize; 4]; 8] = [
    [1, 1, 1, 1],
    [1, 1, 5, 7],
    [2, 3, 1, 1],
    [1, 17, 3, 5],
    [3, 33, 2, 2],
    [1, 64, 4, 4],
    [5, 7, 3, 1],
    [2, 65, 1, 9],
];

fn elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for dims in ODD {
        let [n, c, _, _] = dims;
        for function in ACTIVATIONS {
            let name = format!("{function:?} of {dims:?}").to_lowercase();
            cases.push(case(name, Operation::Activation(function), &[dims]).map_inputs(|_, x| 8.0 * x));
        }
        cases.push(case(format!("add of {dims:?}"), Operation::Add, &[dims; 2]));
        cases.push(
            case(format!("add then relu of {dims:?}"), Operation::Add, &[dims; 2]).with_activation(Activation::Relu),
        );
        cases.push(case(format!("scale of {dims:?}"), Operation::Scale, &[dims, [n, c, 1, 1]]));
        cases.push(case(format!("affine of {dims:?}"), Operation::Affine, &[dims]));
        let relu6 = case(format!("affine then relu6 of {dims:?}"), Operation::Affine, &[dims]);
        cases.push(relu6.with_activation(Activation::Relu6).map_inputs(|_, x| 10.0 * x));
        cases.push(case(format!("affine and a residual of {dims:?}"), Operation::Affine, &[dims]).with_residual());
        cases.push(case(format!("reorder of {dims:?}"), Operation::Reorder, &[dims]));
    }
    let steep = case("sigmoid of large magnitudes", Operation::Activation(Activation::Sigmoid), &[[1, 3, 5, 7]]);
    cases.push(steep.map_inputs(|_, x| 200.0 * x));
    cases
}

fn along_channels() -> Vec<Case> {
    let mut cases = Vec::new();
    for dims in [[1, 10, 1, 1], [3, 10, 1, 1], [1, 1, 1, 1], [2, 1000, 1, 1], [1, 7, 3, 5], [2, 33, 2, 3], [5, 2, 1, 1]]
    {
        let softmax = |name: &str| case(format!("softmax{name} of {dims:?}"), Operation::Softmax, &[dims]);
        cases.push(softmax(""));
        cases.push(softmax(" spread widely").map_inputs(|_, x| 80.0 * x));
        cases.push(softmax(" far above zero").map_inputs(|_, x| x + 1e4));
        cases.push(softmax(" of huge magnitudes").map_inputs(|_, x| 1e30 * x));
        cases.push(softmax(" of equal values").map_inputs(|_, _| -3.0));
    }
    let widths = [3, 1, 16, 7, 33, 2, 8, 5, 65];
    for count in 1..=widths.len() {
        let (n, h, w) = (1 + count % 2, 1 + count % 3, 1 + count % 5);
        let inputs: Vec<_> = widths[..count].iter().map(|&channels| [n, channels, h, w]).collect();
        cases.push(case(format!("concat of {count}"), Operation::Concat, &inputs));
    }
    cases.push(case("concat of 4 even widths", Operation::Concat, &[[2, 16, 4, 4]; 4]));
    cases
}
