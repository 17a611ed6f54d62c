//! Compressed weights against dense f32 on one thread, f32 activations: medians of interleaved runs on layer
//! shapes of networks for CIFAR-10. Times of other formats are given as dense time / time.
//!
//! `cargo run --release -p dlis-kernels --example formats [simd level] [batch] [part of a layer's name]`
#![allow(clippy::print_stdout, reason = "an example that prints a table")]

mod support;

use dlis_backend::{
    AlignedBytes, Epilogue, Footprint, Kernel, Layout, OpSpec, OpWeights, Operation, Prepared, TensorSpec,
};
use dlis_formats::{Format, Int4, Int8, Weight};
use dlis_hw::{Hardware, SimdLevel};
use ndarray::ArrayD;

use crate::support::{Shape, conv, linear, medians, same};

/// One layer in one format, ready to run.
struct Layer {
    name: String,
    op: OpSpec,
    prepared: Box<dyn Prepared>,
    input: AlignedBytes,
    output: AlignedBytes,
    shared: AlignedBytes,
    worker: AlignedBytes,
    /// Resident bytes a byte of the weight in its format.
    bytes: f64,
}

/// A weight in this format, of which this share is zero (by blocks, where the format has them).
fn weight(dims: &[usize], format: Format, sparsity: f64) -> Option<Weight> {
    let mut random = support::random();
    let columns: usize = dims[1..].iter().product();
    let taps: usize = dims[2..].iter().product();
    let [height, width] = format.block().unwrap_or([1, 1]);
    let across = columns.div_ceil(width);
    let blocks: Vec<bool> = (0..dims[0].div_ceil(height) * across).map(|_| random() >= sparsity).collect();
    // Multiples of 1/64, which are f16, and not 0.
    #[expect(clippy::cast_possible_truncation, reason = "few numbers, which f32 has")]
    let coarse = |random: f64| ((random * 126.0).floor() / 64.0 - 63.5 / 64.0) as f32;
    let mut values: Vec<f32> = (0..dims[0] * columns).map(|_| coarse(random())).collect();
    for (index, value) in values.iter_mut().enumerate() {
        let (row, column) = (index / columns, index % columns);
        *value = match format {
            format if format.keeps_zeros() => *value,
            Format::Ternary2Bit | Format::Ternary5In8 if value.abs() < 0.5 => 0.0,
            Format::Ternary2Bit | Format::Ternary5In8 => value.signum() * 0.75,
            Format::TwoFour if column / taps % 4 >= 2 => 0.0,
            Format::TwoFour => *value,
            _ if blocks[row / height * across + column / width] => *value,
            _ => 0.0,
        };
    }
    let dense = ArrayD::from_shape_vec(dims.to_vec(), values).ok()?;
    match format {
        Format::Int8 => Int8::quantize(&dense, Int8::max_abs_scales(&dense)).ok().map(Weight::Int8),
        Format::Int4 => Int4::quantize(&dense, Int4::max_abs_scales(&dense)).ok().map(Weight::Int4),
        _ => Weight::F32(dense).convert(format).ok(),
    }
}

impl Layer {
    fn new(
        operation: Operation,
        [input, output]: [TensorSpec; 2],
        (format, sparsity): (Format, f64),
        hw: &Hardware,
    ) -> Option<Self> {
        let dims = match operation {
            Operation::Conv2d(conv) => conv.weight_dims().to_vec(),
            _ => vec![output.channels, input.channels],
        };
        let weight = weight(&dims, format, sparsity)?;
        let specs = Layout::ALL.map(|layout| OpSpec {
            operation,
            inputs: vec![input.with_layout(layout)],
            output: output.with_layout(layout),
            epilogue: Epilogue::NONE,
            weight: Some(format),
        });
        let mut best: Option<(&dyn Kernel, &OpSpec)> = None;
        for op in &specs {
            for &kernel in dlis_kernels::kernels().iter().filter(|kernel| kernel.support(op, hw).is_yes()) {
                let efficiency = |(kernel, op): (&dyn Kernel, &OpSpec)| kernel.efficiency(op);
                if best.is_none_or(|best| efficiency((kernel, op)) > efficiency(best)) {
                    best = Some((kernel, op));
                }
            }
        }
        let (kernel, op) = best?;
        let weights = OpWeights { weight: Some(&weight), ..OpWeights::default() };
        let prepared = kernel.prepare_checked(op, weights, hw).ok()?;
        let Footprint { weight_bytes, scratch_bytes, worker_scratch_bytes } = prepared.footprint(1);
        let mut bytes = AlignedBytes::zeroed(input.bytes());
        bytes.f32_mut().iter_mut().enumerate().for_each(|(index, x)| *x = (index % 17) as f32 - 8.0);
        let share = if sparsity > 0.0 { format!(" {:.0} %", 100.0 * sparsity) } else { String::new() };
        let name = format!("{format}{share} {}/{}", kernel.id().algorithm(), kernel.id().isa());
        Some(Self {
            name,
            op: op.clone(),
            prepared,
            input: bytes,
            output: AlignedBytes::zeroed(output.bytes()),
            shared: AlignedBytes::zeroed(scratch_bytes),
            worker: AlignedBytes::zeroed(worker_scratch_bytes),
            bytes: weight_bytes as f64 / weight.bytes() as f64,
        })
    }

    /// Seconds of one run.
    fn run(&mut self) -> f64 {
        let scratch = [self.shared.as_mut_slice(), self.worker.as_mut_slice()];
        support::time(&self.op, &*self.prepared, self.input.as_slice(), self.output.as_mut_slice(), scratch)
    }
}

fn layers() -> Vec<Shape> {
    vec![
        conv("3x3 64->64 @32", 64, 64, 32, same(3), 1),
        conv("3x3 64->128 @16", 64, 128, 16, same(3), 1),
        conv("3x3 128->128 @16", 128, 128, 16, same(3), 1),
        conv("3x3 128->256 @8", 128, 256, 8, same(3), 1),
        conv("3x3 256->256 @8", 256, 256, 8, same(3), 1),
        conv("3x3 256->512 @4", 256, 512, 4, same(3), 1),
        conv("3x3 512->512 @4", 512, 512, 4, same(3), 1),
        conv("3x3 512->512 @2", 512, 512, 2, same(3), 1),
        conv("3x3/2 64->128 @32", 64, 128, 32, same(3).with_stride(2), 1),
        conv("3x3/2 256->512 @8", 256, 512, 8, same(3).with_stride(2), 1),
        conv("1x1/2 64->128 @32", 64, 128, 32, same(1).with_stride(2), 1),
        conv("1x1 32->64 @32", 32, 64, 32, same(1), 1),
        conv("1x1 128->128 @16", 128, 128, 16, same(1), 1),
        conv("1x1 256->256 @8", 256, 256, 8, same(1), 1),
        conv("1x1 512->512 @4", 512, 512, 4, same(1), 1),
        conv("1x1 1024->1024 @2", 1024, 1024, 2, same(1), 1),
        conv("depthwise 64 @32", 64, 64, 32, same(3), 64),
        conv("depthwise 512 @4", 512, 512, 4, same(3), 512),
        linear("linear 512->512", 512, 512),
        linear("linear 512->10", 512, 10),
    ]
}

/// The formats, and of those that have zeros what share.
const FORMATS: [(Format, f64); 16] = [
    (Format::DenseF32, 0.0),
    (Format::CsrF16, 0.8),
    (Format::CsrF16, 0.9),
    (Format::CsrF16, 0.95),
    (Format::CsrF32, 0.9),
    (Format::Bsr1x4, 0.9),
    (Format::Bsr4x1, 0.9),
    (Format::Bsr8x1, 0.9),
    (Format::Bsr16x1, 0.9),
    (Format::FilterCsr, 0.9),
    (Format::TwoFour, 0.0),
    (Format::DenseF16, 0.0),
    (Format::Int8, 0.0),
    (Format::Int4, 0.0),
    (Format::Ternary2Bit, 0.0),
    (Format::Ternary5In8, 0.0),
];

fn main() {
    let argument = |index| std::env::args().nth(index);
    let level = argument(1).and_then(|level| level.parse().ok()).unwrap_or(SimdLevel::Avx512);
    let batch = argument(2).and_then(|batch| batch.parse().ok()).unwrap_or(1);
    let part = argument(3).unwrap_or_default();
    let hw = Hardware::detect().with_simd(level);
    for (text, operation, input, output) in layers().into_iter().filter(|layer| layer.0.contains(&part)) {
        let specs = [input, output].map(|dims| TensorSpec::f32(batch, dims, Layout::Nchw));
        let mut runs: Vec<Layer> =
            FORMATS.into_iter().filter_map(|format| Layer::new(operation, specs, format, &hw)).collect();
        let medians = medians(&mut runs, Layer::run, 2.0, 1000.0);
        println!("{text}, batch {batch}");
        for (layer, median) in runs.iter().zip(&medians) {
            println!(
                "  {:<46} {:>9.1} us  {:>6.2}x  {:.3} of its weight's bytes",
                layer.name,
                1e6 * median,
                medians[0] / median,
                layer.bytes
            );
        }
    }
}
