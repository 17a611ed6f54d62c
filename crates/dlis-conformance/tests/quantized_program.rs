//! A whole program in u8 on a backend: f32 in, quantised, convolved, added, back to f32.

use std::sync::Arc;

use dlis_backend::{
    Backend, Epilogue, Head, HostBackend, Kernel, KernelId, Layout, OpQuantization, OpSpec, OpWeights, Operation,
    Program, Schedule, Serial, Slot, SlotId, Step, TensorSpec,
};
use dlis_formats::{Format, Int4, Int8, Quantization, Ternary, TernaryPacking, Weight};
use dlis_hw::Hardware;
use dlis_kernels::kernels;
use dlis_model::{Conv2d, Window};

/// The first kernel that supports an operation.
fn kernel(op: &OpSpec, hardware: &Hardware) -> KernelId {
    let supports = |kernel: &&&dyn Kernel| kernel.support(op, hardware).is_yes();
    kernels().iter().find(supports).unwrap_or_else(|| panic!("no kernel for {op}")).id()
}

#[test]
fn bytes_flow_through_a_program_between_floats() {
    let hardware = Hardware::detect();
    let floats = TensorSpec::f32(1, [4, 3, 3], Layout::Nhwc);
    let bytes = TensorSpec::u8(1, [4, 3, 3], Layout::Nhwc);
    let conv = Conv2d { in_channels: 4, out_channels: 4, groups: 1, window: Window::square(1), bias: false };
    let op = |operation, inputs: &[TensorSpec], output, weight| OpSpec {
        operation,
        inputs: inputs.to_vec(),
        output,
        epilogue: Epilogue::NONE,
        weight,
    };
    let ops = [
        op(Operation::Quantize, &[floats], bytes, None),
        op(Operation::Conv2d(conv), &[bytes], bytes, Some(Format::Int8)),
        op(Operation::Add, &[bytes, bytes], bytes, None),
        op(Operation::Dequantize, &[bytes], floats, None),
    ];
    let places: [(&[usize], usize); 4] = [(&[0], 1), (&[1], 2), (&[1, 2], 3), (&[3], 4)];
    let steps = ops.iter().zip(places).map(|(op, (inputs, output))| Step {
        layer: op.operation.name().into(),
        op: op.clone(),
        kernel: kernel(op, &hardware),
        inputs: inputs.iter().map(|&slot| SlotId(slot)).collect(),
        residual: None,
        output: SlotId(output),
    });
    let slot = |index: usize, spec| Slot::new(spec, index * 192);
    let slots = [floats, bytes, bytes, bytes, floats];
    let program = Program {
        name: "bytes".into(),
        slots: slots.into_iter().enumerate().map(|(index, spec)| slot(index, spec)).collect(),
        steps: steps.collect(),
        head: Head::NONE,
        shares: 1,
        input: SlotId(0),
        output: SlotId(4),
        arena_bytes: 5 * 192,
    };
    // Twice the identity, in steps of a half; the sum is then three times the input.
    let values = (0..16).map(|index| if index % 5 == 0 { 4 } else { 0 }).collect();
    let weight = Weight::Int8(Int8::new(vec![4, 4, 1, 1], values, vec![0.5; 4]).unwrap());
    let of = |scale, zero_point| Quantization::new(scale, zero_point).unwrap();
    let (one, two, four) = (of(1.0, 100), of(0.5, 128), of(1.0, 77));
    let (of_conv, of_add, of_last) = ([one], [one, two], [four]);
    let quantization = |inputs, output| OpQuantization { inputs, residual: None, output };
    let weights = [
        OpWeights { quantization: quantization(&[], Some(one)), ..OpWeights::default() },
        OpWeights { weight: Some(&weight), quantization: quantization(&of_conv, Some(two)), ..OpWeights::default() },
        OpWeights { quantization: quantization(&of_add, Some(four)), ..OpWeights::default() },
        OpWeights { quantization: quantization(&of_last, None), ..OpWeights::default() },
    ];
    let backend = HostBackend::new("host", kernels(), Arc::new(Serial), Schedule::Static);
    let mut executable = backend.compile(&program, &weights).unwrap();
    let input: Vec<f32> = (0..36).map(|index| f32::from(i16::try_from(index).unwrap() - 18)).collect();
    let mut output = vec![f32::NAN; 36];
    executable.run(&input, &mut output).unwrap();
    assert_eq!(output, input.iter().map(|x| 3.0 * x).collect::<Vec<_>>());

    // A u8 tensor without a quantisation, and an f32 one with, are refused by name.
    let mut lacking = weights;
    lacking[1].quantization.output = None;
    let error = backend.compile(&program, &lacking).unwrap_err().to_string();
    assert!(error.contains("`conv2d`") && error.contains("quantisation of the output"), "{error}");
    let mut superfluous = weights;
    superfluous[3].quantization.output = Some(one);
    let error = backend.compile(&program, &superfluous).unwrap_err().to_string();
    assert!(error.contains("`dequantize`") && error.contains("expected none, found 1"), "{error}");
}

/// Weights stay as small as they are stored: layers of ordinary size take at most 15 percent more, constants of
/// the arithmetic included, and ternary ones, which have more constants to a channel and fewer bits, 25. So do those of AVX2
/// in sets that say where their inputs are, of light weights as here; large ones take more. Of up to 512 inputs, on 64 pixels
/// and more, sets are of one output channel each, and take 75: such layers have few weights.
#[test]
fn weights_stay_packed() {
    let hardware = Hardware::detect();
    for (inputs, outputs, size, kernel) in [(64, 64, 32, 3), (53, 61, 32, 3), (512, 512, 4, 3), (128, 128, 16, 1)] {
        let window = Window::square(kernel).with_padding(kernel / 2);
        let conv = Conv2d { in_channels: inputs, out_channels: outputs, groups: 1, window, bias: false };
        let count = conv.weight_dims().iter().product::<usize>();
        let scales = vec![1.0 / 64.0; outputs];
        let int8 = Weight::Int8(Int8::new(conv.weight_dims().to_vec(), vec![1; count], scales.clone()).unwrap());
        let columns = count / outputs;
        let mut packed = vec![0x11; outputs * columns.div_ceil(2)];
        // The last byte of an odd row is half empty.
        if columns % 2 == 1 {
            packed.chunks_mut(columns.div_ceil(2)).for_each(|row| row[row.len() - 1] = 1);
        }
        let int4 = Int4::new(conv.weight_dims().to_vec(), packed, scales).unwrap();
        let signs: Vec<i8> = (0..count).map(|index| [1, -1, 0][index % 3]).collect();
        let (positive, negative) = (vec![0.5; outputs], vec![0.25; outputs]);
        let dims = conv.weight_dims().to_vec();
        let ternary = Ternary::from_signs(dims, TernaryPacking::TwoBit, positive, negative, &signs).unwrap();
        for weight in [int8, Weight::Int4(int4), Weight::Ternary(ternary)] {
            let op = OpSpec {
                operation: Operation::Conv2d(conv),
                inputs: vec![TensorSpec::u8(1, [inputs, size, size], Layout::Nhwc)],
                output: TensorSpec::u8(1, [outputs, size, size], Layout::Nhwc),
                epilogue: Epilogue::NONE,
                weight: Some(weight.format()),
            };
            let of = [Quantization::new(0.1, 7).unwrap()];
            let quantization = OpQuantization { inputs: &of, residual: None, output: Some(of[0]) };
            for &kernel in kernels().iter().filter(|kernel| kernel.support(&op, &hardware).is_yes()) {
                let weights = OpWeights { weight: Some(&weight), quantization, ..OpWeights::default() };
                let held = kernel.prepare_checked(&op, weights, &hardware).unwrap().footprint(1).weight_bytes;
                let in_sets = matches!(weight, Weight::Int8(_)) && kernel.id().isa() == "avx2";
                let most = match &weight {
                    Weight::Int8(_) if in_sets && columns <= 512 => 175,
                    Weight::Int8(_) if in_sets => 125,
                    Weight::Ternary(_) => 125,
                    _ => 115,
                };
                // In integers: hundredths.
                assert!(100 * held <= most * weight.bytes(), "{} {op}: {held} of {}", kernel.id(), weight.bytes());
            }
        }
    }
}
