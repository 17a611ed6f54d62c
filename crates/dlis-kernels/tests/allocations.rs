//! Running a kernel allocates nothing; the one exception is named.

use std::alloc::System;

use dlis_backend::{
    AlignedBytes, Epilogue, Io, Layout, OpSpec, OpWeights, Operation, Parallel, Schedule, Scratch, Serial, TensorSpec,
    View, ViewMut,
};
use dlis_formats::{Format, Weight};
use dlis_hw::Hardware;
use dlis_model::{Activation, Conv2d, Linear, Pool, Window};
use ndarray::ArrayD;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Kernels whose library packs the factors of every product into a buffer of its own.
const ALLOCATING: [&str; 1] = ["conv2d/f32/dense/im2col-gemm/matrixmultiply"];

/// Operations that every kernel executes one of.
fn operations() -> Vec<OpSpec> {
    let window = Window::square(3).with_padding(1);
    let conv = |groups| Operation::Conv2d(Conv2d { in_channels: 16, out_channels: 16, groups, window, bias: true });
    let few = Operation::Conv2d(Conv2d { in_channels: 8, out_channels: 8, groups: 1, window, bias: true });
    let pool = Pool { window, include_padding: false };
    let mut list = Vec::new();
    for layout in Layout::ALL {
        let batch = if layout == Layout::Nhwc16n { Layout::LANES } else { 2 };
        let image = TensorSpec::f32(batch, [16, 9, 9], layout);
        // Lines that are whole vectors.
        let lines = [8, 16].map(|width| TensorSpec::f32(batch, [8, 3, width], layout));
        let vector = TensorSpec::f32(batch, [16, 1, 1], layout);
        let other = if layout == Layout::Nchw { Layout::Nhwc } else { Layout::Nchw };
        let cases = [
            (conv(1), vec![image], image),
            (conv(16), vec![image], image),
            (few, vec![lines[0]], lines[0]),
            (few, vec![lines[1]], lines[1]),
            (Operation::Linear(Linear { in_features: 16, out_features: 16, bias: true }), vec![vector], vector),
            (Operation::Affine, vec![image], image),
            (Operation::Activation(Activation::Sigmoid), vec![image], image),
            (Operation::MaxPool(pool), vec![image], image),
            (Operation::AvgPool(pool), vec![image], image),
            (Operation::GlobalAvgPool, vec![image], vector),
            (Operation::Add, vec![image, image], image),
            (Operation::Concat, vec![image, image], TensorSpec { channels: 32, ..image }),
            (Operation::Softmax, vec![image], image),
            (Operation::Scale, vec![image, vector], image),
            (Operation::Reorder, vec![image.with_layout(other)], image),
        ];
        for (operation, inputs, output) in cases {
            let formats: Vec<Option<Format>> = match operation {
                Operation::Conv2d(_) | Operation::Linear(_) => Format::ALL.map(Some).to_vec(),
                Operation::Affine => vec![Some(Format::DenseF32)],
                _ => vec![None],
            };
            for weight in formats {
                list.push(OpSpec { operation, inputs: inputs.clone(), output, epilogue: Epilogue::NONE, weight });
            }
        }
    }
    list
}

fn weight(op: &OpSpec) -> Option<Weight> {
    let dims = match op.operation {
        Operation::Conv2d(conv) => conv.weight_dims().to_vec(),
        Operation::Linear(linear) => vec![linear.out_features, linear.in_features],
        Operation::Affine => vec![op.output.channels],
        _ => return None,
    };
    let format = op.weight?;
    // Two of four input channels, which every format holds.
    let filled = |at: ndarray::IxDyn| if dims.len() == 1 || at[1] % 4 < 2 { 0.5 } else { 0.0 };
    Some(Weight::F32(ArrayD::from_shape_fn(&dims[..], filled)).convert(format).unwrap())
}

// The counters are the whole process's, so this is the only test here.
#[test]
fn kernels_allocate_nothing_while_they_run() {
    let hw = Hardware::detect();
    let mut ran = Vec::new();
    for op in operations() {
        for kernel in dlis_kernels::kernels().iter().filter(|kernel| kernel.support(&op, &hw).is_yes()) {
            let weight = weight(&op);
            let bias = vec![0.5; op.output.channels];
            let weights =
                OpWeights { weight: weight.as_ref(), bias: weight.is_some().then_some(&bias), ..OpWeights::default() };
            let prepared = kernel.prepare_checked(&op, weights, &hw).unwrap();
            let footprint = prepared.footprint(1);
            let mut shared = AlignedBytes::zeroed(footprint.scratch_bytes);
            let mut worker = AlignedBytes::zeroed(footprint.worker_scratch_bytes);
            let inputs: Vec<Vec<f32>> = op.inputs.iter().map(|spec| vec![1.0; spec.elements()]).collect();
            let views: Vec<View<'_>> = op.inputs.iter().zip(&inputs).map(|(&spec, x)| View::of(spec, x)).collect();
            let mut output = vec![0.0; op.output.elements()];
            let mut run = || {
                let mut io = Io::new(&views, None, ViewMut::of(op.output, &mut output));
                let mut scratch = Scratch::new(shared.as_mut_slice(), worker.as_mut_slice(), 1);
                prepared.run(&mut io, &mut scratch, Parallel::new(&Serial, Schedule::Static));
            };
            // Whatever a library sets up once is not the kernel's.
            run();
            let region = Region::new(ALLOCATOR);
            run();
            let change = region.change();
            let id = kernel.id().to_string();
            if ALLOCATING.contains(&&*id) {
                assert!(change.allocations > 0, "{id} {op} no longer allocates: take it off the list");
                assert_eq!(change.bytes_allocated, change.bytes_deallocated, "{id} {op}");
            } else {
                assert_eq!(change.allocations + change.reallocations, 0, "{id} {op}");
            }
            ran.push(id);
        }
    }
    for kernel in dlis_kernels::kernels() {
        let id = kernel.id().to_string();
        // Whatever takes or makes u8 is tried by the conformance suite, which has the operands.
        let quantized = kernel.id().dtype() == "u8" || kernel.id().op() == "quantize";
        // A kernel is named after its instruction set, which this machine may lack, or after a library.
        let available = hw.has_isa(kernel.id().isa()) && !quantized;
        assert!(ran.contains(&id) || !available, "{id} executes none of the operations here");
    }
}
