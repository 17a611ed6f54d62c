//! u8 against f32 on one thread: medians of interleaved runs, on layer shapes of networks for CIFAR-10.
//!
//! `cargo run --release -p dlis-kernels --example quantized [simd level]`
#![allow(clippy::print_stdout, reason = "an example that prints a table")]

mod support;

use dlis_backend::{
    AlignedBytes, Epilogue, Footprint, Layout, OpQuantization, OpSpec, OpWeights, Operation, Prepared, TensorSpec,
};
use dlis_formats::{DType, Format, Int4, Int8, Quantization, Ternary, TernaryPacking, Weight};
use dlis_hw::{Hardware, SimdLevel};
use ndarray::ArrayD;

use crate::support::{conv, linear, medians, same};

/// One layer in one type and format, ready to run.
struct Layer {
    op: OpSpec,
    name: String,
    prepared: Box<dyn Prepared>,
    input: AlignedBytes,
    output: AlignedBytes,
    scratch: [AlignedBytes; 2],
}

impl Layer {
    fn new(operation: Operation, input: TensorSpec, output: TensorSpec, format: Format, hw: &Hardware) -> Option<Self> {
        let dtype = if format == Format::DenseF32 { DType::F32 } else { DType::U8 };
        let op = OpSpec {
            operation,
            inputs: vec![input.with_dtype(dtype)],
            output: output.with_dtype(dtype),
            epilogue: Epilogue::NONE,
            weight: Some(format),
        };
        let dims = match operation {
            Operation::Conv2d(conv) => conv.weight_dims().to_vec(),
            _ => vec![output.channels, input.channels],
        };
        let mut uniform = support::random();
        #[expect(clippy::cast_possible_truncation, reason = "24 bits, which f32 has")]
        let mut random = || uniform() as f32 - 0.5;
        let dense = ArrayD::from_shape_fn(dims, |_| random());
        let weight = match format {
            Format::Int8 => Weight::Int8(Int8::quantize(&dense, Int8::max_abs_scales(&dense)).ok()?),
            Format::Int4 => Weight::Int4(Int4::quantize(&dense, Int4::max_abs_scales(&dense)).ok()?),
            Format::Ternary2Bit => {
                let ternary = dense.mapv(|value: f32| if value.abs() < 0.15 { 0.0 } else { value.signum() * 0.1 });
                Weight::Ternary(Ternary::from_dense(&ternary, TernaryPacking::TwoBit).ok()?)
            }
            _ => Weight::F32(dense),
        };
        let quantization = [Quantization::new(0.02, 3).ok()?];
        let quantization = match dtype {
            DType::U8 => OpQuantization { inputs: &quantization, residual: None, output: Some(quantization[0]) },
            _ => OpQuantization::default(),
        };
        let weights = OpWeights { weight: Some(&weight), bias: None, quantization };
        let supports = |kernel: &&&dyn dlis_backend::Kernel| kernel.support(&op, hw).is_yes();
        // The lists are in the order of preference; a depthwise layer has kernels of its own.
        let mut kernels = dlis_kernels::kernels().iter().filter(supports);
        let best = match operation {
            Operation::Conv2d(conv) if conv.is_depthwise() => {
                kernels.find(|kernel| kernel.id().algorithm() == "depthwise")
            }
            _ => kernels.find(|kernel| kernel.id().algorithm() == "implicit-gemm"),
        }?;
        let prepared = best.prepare_checked(&op, weights, hw).ok()?;
        let Footprint { weight_bytes, scratch_bytes, worker_scratch_bytes } = prepared.footprint(1);
        let mut bytes = AlignedBytes::zeroed(op.inputs[0].bytes());
        if dtype == DType::F32 {
            bytes.f32_mut().iter_mut().for_each(|x| *x = random());
        } else {
            bytes.as_mut_slice().iter_mut().zip(0..=255u8).for_each(|(x, q)| *x = q);
        }
        Some(Self {
            name: format!("{} ({:.3} of its weight's bytes)", best.id(), weight_bytes as f64 / weight.bytes() as f64),
            prepared,
            input: bytes,
            output: AlignedBytes::zeroed(op.output.bytes()),
            scratch: [scratch_bytes, worker_scratch_bytes].map(AlignedBytes::zeroed),
            op,
        })
    }

    /// Seconds of one run.
    fn run(&mut self) -> f64 {
        let scratch = self.scratch.each_mut().map(AlignedBytes::as_mut_slice);
        support::time(&self.op, &*self.prepared, self.input.as_slice(), self.output.as_mut_slice(), scratch)
    }
}

fn main() {
    let level = std::env::args().nth(1).and_then(|level| level.parse().ok()).unwrap_or(SimdLevel::Avx512);
    let mut hw = Hardware::detect().with_simd(level);
    if level == SimdLevel::Avx2 && std::env::args().nth(2).as_deref() == Some("plain") {
        hw.isa_flags.retain(|flag| flag != "avx_vnni");
    }
    let layers = [
        conv("vgg first 3->64 @32", 3, 64, 32, same(3), 1),
        conv("vgg 64->64 @32", 64, 64, 32, same(3), 1),
        conv("vgg 64->128 @16", 64, 128, 16, same(3), 1),
        conv("vgg 128->128 @16", 128, 128, 16, same(3), 1),
        conv("vgg 256->256 @8", 256, 256, 8, same(3), 1),
        conv("vgg 512->512 @4", 512, 512, 4, same(3), 1),
        conv("vgg 512->512 @2", 512, 512, 2, same(3), 1),
        conv("pruned 53->61 @32", 53, 61, 32, same(3), 1),
        conv("resnet 64->128 @32 /2", 64, 128, 32, same(3).with_stride(2), 1),
        conv("resnet 1x1 64->128 @32 /2", 64, 128, 32, same(1).with_stride(2), 1),
        conv("mobilenet 1x1 32->64 @32", 32, 64, 32, same(1), 1),
        conv("mobilenet 1x1 128->128 @16", 128, 128, 16, same(1), 1),
        conv("mobilenet 1x1 512->512 @4", 512, 512, 4, same(1), 1),
        conv("mobilenet 1x1 1024->1024 @2", 1024, 1024, 2, same(1), 1),
        conv("mobilenet dw 32 @32", 32, 32, 32, same(3), 32),
        conv("mobilenet dw 64 @32 /2", 64, 64, 32, same(3).with_stride(2), 64),
        conv("mobilenet dw 128 @16", 128, 128, 16, same(3), 128),
        conv("mobilenet dw 512 @4", 512, 512, 4, same(3), 512),
        linear("linear", 512, 512),
        linear("linear", 512, 10),
    ];
    for (text, operation, input, output) in layers {
        let tensor = |dims| TensorSpec::f32(1, dims, Layout::Nhwc);
        let mut runs: Vec<Layer> = [Format::DenseF32, Format::Int8, Format::Int4, Format::Ternary2Bit]
            .into_iter()
            .filter_map(|format| Layer::new(operation, tensor(input), tensor(output), format, &hw))
            .collect();
        let medians = medians(&mut runs, Layer::run, 0.5, 2000.0);
        let ratios: Vec<String> =
            medians.iter().map(|m| format!("{:8.1} us ({:5.2}x)", 1e6 * m, medians[0] / m)).collect();
        println!("{text:28} {}  {}", ratios.join("  "), runs.get(1).map_or("", |layer| &layer.name));
    }
}
