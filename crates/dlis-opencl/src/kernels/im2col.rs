//! Convolutions and linear layers as products of matrices by a library, CLBlast: what hand-tuned kernels are to be
//! compared with.
//!
//! Nothing but the copy to columns and what follows the product is ours. Sums are f32 at every precision: f16 tensors
//! are widened on the way, as the library's product of halves sums up halves.

use dlis_backend::{KernelId, OpSpec, OpWeights, Operation, Support};
use dlis_model::Window;

use crate::device::clblast::{self, Matrix};
use crate::device::{Arg, Buffer, Device, DeviceKind, Launch};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Stage, Staged};
use crate::kernels::{direct, geometry, support};
use crate::precision::Precision;

const SOURCE: &str = concat!(include_str!("epilogue.cl"), include_str!("im2col.cl"));

/// Most floats of columns at a time, at least one image's.
const MAX_COLUMNS: usize = 64 << 20;

/// `conv2d/*/dense/im2col-gemm/clblast`, and `linear/*/dense/gemm/clblast`: of the operation that it names.
pub(crate) struct Gemm(pub(crate) &'static str);

/// The extents of the products.
struct Products {
    window: Window,
    groups: usize,
    /// Floats of a row of columns, those of all groups.
    row: usize,
    /// Whether the input is its own columns.
    is_input: bool,
    /// Images whose columns are made at a time.
    images: usize,
    /// Floats of scratch for columns, and for the product where it is not the output.
    scratch: [usize; 2],
}

impl Products {
    fn new(op: &OpSpec, precision: Precision) -> Option<Self> {
        let (window, groups) = direct::window(op)?;
        let (x, y) = (op.inputs[0], op.output);
        let row = x.channels.checked_mul(window.kernel[0])?.checked_mul(window.kernel[1])?;
        let image = row.checked_mul(y.pixels())?;
        let is_wide = precision.bytes() == size_of::<f32>();
        let is_input = is_wide && window == Window::square(1);
        let images = (MAX_COLUMNS / image.max(1)).clamp(1, y.batch);
        let columns = if is_input { 0 } else { image.checked_mul(images).filter(|&all| i32::try_from(all).is_ok())? };
        let scratch = [columns, if is_wide { 0 } else { y.elements() }];
        Some(Self { window, groups, row, is_input, images, scratch })
    }

    fn launches(&self, stage: &Stage<'_>, weight: &Buffer, bias: Option<&[f32]>) -> Result<Vec<Launch>, OpenClError> {
        let op = stage.op;
        let program = stage.program("im2col", &format!("{}{SOURCE}", geometry::definitions()), "")?;
        let extents = geometry::upload(stage.device, op, self.window, self.groups)?;
        let operands = stage.operands;
        let (x, y) = (&operands.inputs[0], &operands.output);
        let scratch = operands.scratch.as_ref().unwrap_or(&y.buffer);
        let (product, product_at) = match self.scratch {
            [_, 0] => (&y.buffer, y.offset),
            [columns, _] => (scratch, columns),
        };
        let (channels, pixels) = (op.output.channels, op.output.pixels());
        let (inner, outer) = (self.row / self.groups, channels / self.groups);
        let mut launches = Vec::new();
        for first in (0..op.output.batch).step_by(self.images) {
            let rows = self.images.min(op.output.batch - first) * pixels;
            let first = first * pixels;
            let (columns, columns_at) = match self.is_input {
                true => (&x.buffer, x.offset + first * self.row),
                false => (scratch, 0),
            };
            if !self.is_input {
                let args = [
                    Arg::Buffer(&extents),
                    Arg::Buffer(&x.buffer),
                    Arg::int(x.offset),
                    Arg::Buffer(columns),
                    Arg::int(first),
                    Arg::int(self.row),
                ];
                let (global, local) = support::in_groups([self.row, rows, 1]);
                launches.push(Launch::new(&program, "im2col", &args, global, local)?);
            }
            for group in 0..self.groups {
                let matrix = |buffer: &Buffer, offset, stride| Matrix { buffer: buffer.clone(), offset, stride };
                let gemm = clblast::Gemm {
                    extents: [rows, outer, inner],
                    a: matrix(columns, columns_at + group * inner, self.row),
                    b: matrix(weight, group * inner * outer, outer),
                    c: matrix(product, product_at + first * channels + group * outer, channels),
                };
                launches.push(Launch::gemm(stage.device, gemm)?);
            }
        }
        let residual = operands.residual.as_ref().unwrap_or(y);
        let args = [
            Arg::Buffer(product),
            Arg::int(product_at),
            Arg::Buffer(&stage.upload_bias(bias)?),
            Arg::Buffer(&residual.buffer),
            Arg::int(residual.offset),
            Arg::Buffer(&y.buffer),
            Arg::int(y.offset),
            Arg::int(channels),
            support::epilogue(op.epilogue),
            Arg::int(op.output.elements()),
        ];
        let (global, local) = support::in_groups([op.output.elements(), 1, 1]);
        launches.push(Launch::new(&program, "finish", &args, global, local)?);
        Ok(launches)
    }
}

/// The weights as the products take them: `[group][row][column][channel in][channel out]`.
fn pack(dense: &[f32], window: Window, groups: usize, channels: usize) -> Vec<f32> {
    let taps = window.kernel[0] * window.kernel[1];
    let terms = dense.len() / channels.max(1);
    let (depth, outer) = (terms / taps, channels / groups);
    let mut packed = vec![0.0; dense.len()];
    for (index, &value) in dense.iter().enumerate() {
        let (channel, term) = (index / terms, index % terms);
        let row = term % taps * depth + term / taps;
        packed[(channel / outer * terms + row) * outer + channel % outer] = value;
    }
    packed
}

impl DeviceKernel for Gemm {
    fn id(&self, precision: Precision) -> KernelId {
        let algorithm = if self.0 == "linear" { "gemm" } else { "im2col-gemm" };
        KernelId::new(self.0, precision.name(), "dense", algorithm, "clblast")
    }

    fn support(&self, op: &OpSpec, _: &Device, precision: Precision) -> Support {
        if op.operation.name() != self.0 {
            return support::another_operation();
        }
        let depthwise = matches!(op.operation, Operation::Conv2d(conv) if conv.is_depthwise() && conv.groups > 1);
        support::floats(op)
            .and(|| support::dense(op))
            .and(|| support::channels_last(op))
            .and(|| Support::when(!depthwise, "a product of matrices a channel would be of a few elements"))
            .and(|| {
                let fits = direct::window(op).is_some_and(|(window, _)| geometry::fits(window))
                    && Products::new(op, precision).is_some();
                Support::when(fits, "an image's columns would be too large")
            })
            .and(|| match clblast::is_installed() {
                Ok(()) => Support::Yes,
                Err(reason) => Support::No(reason.into()),
            })
    }

    fn efficiency(&self, _: &OpSpec, device: &Device) -> f32 {
        match device.info().kind {
            DeviceKind::Cpu => 0.03,
            DeviceKind::Gpu => 0.08,
        }
    }

    fn scratch_bytes(&self, op: &OpSpec, _: &Device, precision: Precision) -> usize {
        let floats = Products::new(op, precision).map_or(0, |products| products.scratch.iter().sum());
        floats * size_of::<f32>()
    }

    fn stage(&self, to: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError> {
        let products = Products::new(to.op, to.precision).expect("support has checked the extents");
        let dense = support::elements(weights);
        let channels = to.op.output.channels;
        let packed = pack(&dense, products.window, products.groups, channels);
        let weight = to.device.upload(&packed)?;
        let launches = products.launches(to, &weight, weights.bias)?;
        Ok(Staged { launches, weight_bytes: weight.bytes() + channels * size_of::<f32>() })
    }
}
