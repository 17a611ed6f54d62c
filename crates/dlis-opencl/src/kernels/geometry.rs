//! The extents of a sliding window and of the tensors it slides over, as programs take them.

use std::sync::Arc;

use dlis_backend::{OpSpec, TensorSpec};
use dlis_model::Window;

use crate::device::{Buffer, Device};
use crate::error::OpenClError;

/// Names of [`values`], in their order.
const NAMES: [&str; 26] = [
    "C",
    "H",
    "W",
    "XN",
    "XC",
    "XH",
    "XW",
    "K",
    "OH",
    "OW",
    "YN",
    "YC",
    "YH",
    "YW",
    "KH",
    "KW",
    "SH",
    "SW",
    "PT",
    "PL",
    "DH",
    "DW",
    "GROUP_IN",
    "GROUP_OUT",
    "PB",
    "PR",
];

/// Steps, in elements, from one image, channel, row and column of a tensor to the next.
pub(crate) fn steps(spec: &TensorSpec) -> [usize; 4] {
    spec.strides().expect("no kernel supports a layout without strides")
}

fn values(op: &OpSpec, window: Window, groups: usize) -> [usize; NAMES.len()] {
    let (x, y) = (op.inputs[0], op.output);
    let ([xn, xc, xh, xw], [yn, yc, yh, yw]) = (steps(&x), steps(&y));
    let Window { kernel: [kh, kw], stride: [sh, sw], padding: [pt, pl, pb, pr], dilation: [dh, dw] } = window;
    [
        x.channels,
        x.height,
        x.width,
        xn,
        xc,
        xh,
        xw,
        y.channels,
        y.height,
        y.width,
        yn,
        yc,
        yh,
        yw,
        kh,
        kw,
        sh,
        sw,
        pt,
        pl,
        dh,
        dw,
        x.channels / groups,
        y.channels / groups,
        pb,
        pr,
    ]
}

/// Whether every number fits the 32 bits that programs count in, sums of a few of them included.
pub(crate) fn fits(window: Window) -> bool {
    let Window { kernel, stride, padding, dilation } = window;
    kernel.iter().chain(&stride).chain(&padding).chain(&dilation).all(|&value| value < 1 << 24)
        && (0..2).all(|axis| kernel[axis] * dilation[axis] < 1 << 30)
}

/// The definitions that let a program name the extents: `C` is `g[0]` of its argument `__constant int *g`, and so on.
pub(crate) fn definitions() -> String {
    let define = |(index, name): (usize, &&str)| format!("#define {name} g[{index}]\n");
    NAMES.iter().enumerate().map(define).collect()
}

/// For programs whose work-items each compute an element of the output, in any layout: `OUTPUT_PLACE` names its channel,
/// row, column and image.
pub(crate) const OUTPUT_PLACE: &str = include_str!("output_place.cl");

/// The extents in the device's memory.
pub(crate) fn upload(device: &Arc<Device>, op: &OpSpec, window: Window, groups: usize) -> Result<Buffer, OpenClError> {
    let values = values(op, window, groups).map(|value| i32::try_from(value).expect("support has checked the extents"));
    device.upload(&values)
}
