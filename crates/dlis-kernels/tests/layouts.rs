//! What kernels must not take for a layout that they have.

use dlis_backend::{Epilogue, Kernel, KernelId, Layout, OpSpec, Operation, TensorSpec};
use dlis_formats::{DType, Format};
use dlis_hw::Hardware;
use dlis_model::{Activation, Conv2d, Linear, Pool, Window};

/// Every operation on tensors of a batch, the inputs in one layout and the output in another, with weights of every
/// format.
fn operations(batch: usize, [inputs, output]: [Layout; 2], [from, to]: [DType; 2]) -> Vec<OpSpec> {
    let window = Window::square(3).with_padding(1);
    let conv = |groups| Operation::Conv2d(Conv2d { in_channels: 16, out_channels: 16, groups, window, bias: true });
    let pool = Pool { window, include_padding: false };
    let (image, vector) = ([16, 5, 5], [16, 1, 1]);
    let cases = [
        (conv(1), vec![image], image),
        (conv(16), vec![image], image),
        (Operation::Linear(Linear { in_features: 16, out_features: 16, bias: true }), vec![vector], vector),
        (Operation::Affine, vec![image], image),
        (Operation::Activation(Activation::Relu), vec![image], image),
        (Operation::MaxPool(pool), vec![image], image),
        (Operation::AvgPool(pool), vec![image], image),
        (Operation::GlobalAvgPool, vec![image], vector),
        (Operation::Add, vec![image, image], image),
        (Operation::Concat, vec![image, image], [32, 5, 5]),
        (Operation::Softmax, vec![image], image),
        (Operation::Scale, vec![image, vector], image),
        (Operation::Reorder, vec![image], image),
        (Operation::Quantize, vec![image], image),
        (Operation::Dequantize, vec![image], image),
    ];
    let mut list = Vec::new();
    for (operation, dims_in, dims_out) in cases {
        let formats: Vec<Option<Format>> = match operation {
            Operation::Conv2d(_) | Operation::Linear(_) => Format::ALL.map(Some).to_vec(),
            Operation::Affine => vec![Some(Format::DenseF32)],
            _ => vec![None],
        };
        let tensor = |dims, layout, dtype| TensorSpec::f32(batch, dims, layout).with_dtype(dtype);
        let inputs: Vec<TensorSpec> = dims_in.into_iter().map(|dims| tensor(dims, inputs, from)).collect();
        let output = tensor(dims_out, output, to);
        let of = |weight| OpSpec { operation, inputs: inputs.clone(), output, epilogue: Epilogue::NONE, weight };
        list.extend(formats.into_iter().map(of));
    }
    list
}

/// The kernels that take one of the operations, but for those of which `expected` says so.
fn taken(operations: &[OpSpec], expected: impl Fn(&KernelId) -> bool) -> Vec<String> {
    let hw = Hardware::detect();
    let kernels = dlis_kernels::kernels().iter().filter(|kernel| !expected(&kernel.id()));
    let takes = |kernel: &&&dyn Kernel| operations.iter().any(|op| kernel.support(op, &hw).is_yes());
    kernels.filter(takes).map(|kernel| kernel.id().to_string()).collect()
}

const NONE: [String; 0] = [];

#[test]
fn tensors_of_several_layouts_are_for_reorders_alone() {
    for inputs in Layout::ALL {
        for output in Layout::ALL.into_iter().filter(|&output| output != inputs) {
            for dtype in [DType::F32, DType::U8] {
                // Vectors are the same bytes in both strided layouts.
                let strided = inputs != Layout::Nhwc16n && output != Layout::Nhwc16n;
                let mut operations = operations(16, [inputs, output], [dtype; 2]);
                operations.retain(|op| !strided || op.output.pixels() > 1);
                assert_eq!(taken(&operations, |id| id.op() == "reorder"), NONE, "{inputs} to {output}");
            }
        }
    }
}

#[test]
fn part_of_a_group_of_images_is_for_no_kernel() {
    for layouts in [[Layout::Nhwc16n; 2], [Layout::Nchw, Layout::Nhwc16n], [Layout::Nhwc16n, Layout::Nhwc]] {
        for dtypes in [[DType::F32; 2], [DType::U8; 2], [DType::F32, DType::U8], [DType::U8, DType::F32]] {
            assert_eq!(taken(&operations(24, layouts, dtypes), |_| false), NONE, "{layouts:?} {dtypes:?}");
        }
    }
}

#[test]
fn bytes_are_never_lanes() {
    for layouts in [[Layout::Nhwc16n; 2], [Layout::Nchw, Layout::Nhwc16n], [Layout::Nhwc16n, Layout::Nhwc]] {
        for dtypes in [[DType::U8; 2], [DType::F32, DType::U8], [DType::U8, DType::F32]] {
            assert_eq!(taken(&operations(16, layouts, dtypes), |_| false), NONE, "{layouts:?} {dtypes:?}");
        }
    }
}

/// Kernels with weights have layouts of their own: none takes an operation both in lanes and out of them.
#[test]
fn kernels_with_weights_are_written_for_lanes_or_for_others() {
    let weighted = |id: &KernelId| matches!(id.op(), "conv2d" | "linear");
    let of = |layout| taken(&operations(16, [layout; 2], [DType::F32; 2]), |id| !weighted(id));
    let lanes = of(Layout::Nhwc16n);
    let strided = [of(Layout::Nchw), of(Layout::Nhwc)].concat();
    assert!(!strided.is_empty() && lanes.iter().all(|id| !strided.contains(id)), "{lanes:?}");
}
