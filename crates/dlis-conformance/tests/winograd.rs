//! The tolerances granted to Winograd's algorithms: enough for a plain F(4x4, 3x3) and F(6x6, 3x3) in f32, and needed.

use dlis_backend::Operation;
use dlis_conformance::{Case, Tensor, Tolerance, cases, reference};
use dlis_model::{Conv2d, Window};

/// The transforms of data, weight and result (Lavin and Gray 2016, section 4.3).
const DATA: [[f32; 6]; 6] = [
    [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
    [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
    [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
    [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
    [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
    [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
];
const WEIGHT: [[f32; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];
const RESULT: [[f32; 6]; 4] = [
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
    [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
    [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
];

/// Those of F(6x6, 3x3), whose polynomials meet at 1/2 and -1/2 as well.
const DATA_6: [[f32; 8]; 8] = [
    [1.0, 0.0, -5.25, 0.0, 5.25, 0.0, -1.0, 0.0],
    [0.0, 1.0, 1.0, -4.25, -4.25, 1.0, 1.0, 0.0],
    [0.0, -1.0, 1.0, 4.25, -4.25, -1.0, 1.0, 0.0],
    [0.0, 0.5, 0.25, -2.5, -1.25, 2.0, 1.0, 0.0],
    [0.0, -0.5, 0.25, 2.5, -1.25, -2.0, 1.0, 0.0],
    [0.0, 2.0, 4.0, -2.5, -5.0, 0.5, 1.0, 0.0],
    [0.0, -2.0, 4.0, 2.5, -5.0, -0.5, 1.0, 0.0],
    [0.0, -1.0, 0.0, 5.25, 0.0, -5.25, 0.0, 1.0],
];
const WEIGHT_6: [[f32; 3]; 8] = [
    [1.0, 0.0, 0.0],
    [-2.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0],
    [-2.0 / 9.0, 2.0 / 9.0, -2.0 / 9.0],
    [1.0 / 90.0, 1.0 / 45.0, 2.0 / 45.0],
    [1.0 / 90.0, -1.0 / 45.0, 2.0 / 45.0],
    [32.0 / 45.0, 16.0 / 45.0, 8.0 / 45.0],
    [32.0 / 45.0, -16.0 / 45.0, 8.0 / 45.0],
    [0.0, 0.0, 1.0],
];
const RESULT_6: [[f32; 8]; 6] = [
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 0.0],
    [0.0, 1.0, 1.0, 4.0, 4.0, 0.25, 0.25, 0.0],
    [0.0, 1.0, -1.0, 8.0, -8.0, 0.125, -0.125, 0.0],
    [0.0, 1.0, 1.0, 16.0, 16.0, 0.0625, 0.0625, 0.0],
    [0.0, 1.0, -1.0, 32.0, -32.0, 0.03125, -0.03125, 1.0],
];

/// The transforms of tiles of `TILE` outputs a side.
struct Transforms<const TILE: usize, const SIDE: usize> {
    data: [[f32; SIDE]; SIDE],
    weight: [[f32; 3]; SIDE],
    result: [[f32; SIDE]; TILE],
}

/// `m x m^T`.
fn around<const R: usize, const C: usize>(m: &[[f32; C]; R], x: &[[f32; C]; C]) -> [[f32; R]; R] {
    let half: [[f32; C]; R] = std::array::from_fn(|r| std::array::from_fn(|c| (0..C).map(|i| m[r][i] * x[i][c]).sum()));
    std::array::from_fn(|r| std::array::from_fn(|c| (0..C).map(|i| half[r][i] * m[c][i]).sum()))
}

/// A case by these transforms, tile after tile.
fn winograd<const TILE: usize, const SIDE: usize>(case: &Case, conv: &Conv2d, by: &Transforms<TILE, SIDE>) -> Tensor {
    let [batch, outputs, height, width] = case.output_dims();
    let [_, inputs, rows, columns] = case.inputs[0].dims();
    let (data, weight) = (case.inputs[0].values(), case.weight.as_ref().unwrap().values());
    let mut result = Tensor::new(case.output_dims(), vec![0.0; case.op.output.elements()]);
    let tiles = (0..height.div_ceil(TILE)).flat_map(|y| (0..width.div_ceil(TILE)).map(move |x| [TILE * y, TILE * x]));
    for [top, left] in tiles {
        for (n, out) in (0..batch).flat_map(|n| (0..outputs).map(move |out| (n, out))) {
            let mut sum = [[0.0_f32; SIDE]; SIDE];
            for channel in 0..inputs {
                let at = |y: usize, x: usize| {
                    let y = (top + y).checked_sub(conv.window.padding[0]).filter(|&y| y < rows);
                    let x = (left + x).checked_sub(conv.window.padding[1]).filter(|&x| x < columns);
                    y.zip(x).map_or(0.0, |(y, x)| data[((n * inputs + channel) * rows + y) * columns + x])
                };
                let taps = &weight[(out * inputs + channel) * 9..][..9];
                let tile = around(&by.data, &std::array::from_fn(|y| std::array::from_fn(|x| at(y, x))));
                let taps = around(&by.weight, &std::array::from_fn(|y| std::array::from_fn(|x| taps[3 * y + x])));
                for (y, x) in (0..SIDE * SIDE).map(|i| (i / SIDE, i % SIDE)) {
                    sum[y][x] += tile[y][x] * taps[y][x];
                }
            }
            let sums = around(&by.result, &sum);
            for (y, x) in
                (0..TILE * TILE).map(|i| (i / TILE, i % TILE)).filter(|(y, x)| top + y < height && left + x < width)
            {
                let place = ((n * outputs + out) * height + top + y) * width + left + x;
                let mut value = sums[y][x] + case.bias.as_ref().map_or(0.0, |bias| bias[out]);
                value += case.residual.as_ref().map_or(0.0, |residual| residual.values()[place]);
                let activation = case.op.epilogue.activation;
                result.values_mut()[place] = activation.map_or(value, |function| function.apply(value));
            }
        }
    }
    result
}

/// Tests a tolerance on all cases that such a convolution executes.
fn check<const TILE: usize, const SIDE: usize>(by: &Transforms<TILE, SIDE>, tolerance: Tolerance) {
    let (mut tested, mut beyond_direct) = (0, 0);
    for case in cases().into_iter().filter(|case| !case.has_specials()) {
        let Operation::Conv2d(conv) = case.op.operation else { continue };
        let suits = Window { padding: conv.window.padding, ..Window::square(3) } == conv.window && conv.groups == 1;
        if !suits {
            continue;
        }
        let (expected, found) = (reference(&case), winograd(&case, &conv, by));
        assert_eq!(tolerance.compare(&expected, &found), Ok(()), "{case:?}");
        tested += 1;
        beyond_direct += usize::from(Tolerance::DIRECT.compare(&expected, &found).is_err());
    }
    assert!(tested > 50 && beyond_direct > 0, "{tested} cases, {beyond_direct} beyond the direct tolerance");
}

#[test]
fn the_tolerance_fits_an_f4x4_3x3() {
    check(&Transforms { data: DATA, weight: WEIGHT, result: RESULT }, Tolerance::WINOGRAD);
}

#[test]
fn the_tolerance_fits_an_f6x6_3x3() {
    check(&Transforms { data: DATA_6, weight: WEIGHT_6, result: RESULT_6 }, Tolerance::WINOGRAD_6X6);
}
