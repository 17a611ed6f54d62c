//! A whole program in u8 on an OpenCL device: f32 in, quantised, convolved, added, back to f32.

mod support;

use std::sync::Arc;

use dlis_backend::{
    Backend, Epilogue, Head, KernelId, Layout, OpQuantization, OpSpec, OpWeights, Operation, Program, Slot, SlotId,
    Step, TensorSpec,
};
use dlis_formats::{Format, Int8, Quantization, Weight};
use dlis_model::{Conv2d, Window};
use dlis_opencl::{OpenClBackend, Precision};

/// The first kernel that supports an operation.
fn kernel(op: &OpSpec, backend: &OpenClBackend) -> KernelId {
    let mut kernels = backend.kernels().iter();
    let found = kernels.find(|kernel| kernel.support(op, backend.hardware()).is_yes());
    found.unwrap_or_else(|| panic!("no kernel for {op}")).id()
}

/// Bytes of every slot's place in the arena.
const PLACE: usize = 192;

fn program(backend: &OpenClBackend) -> Program {
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
        kernel: kernel(op, backend),
        inputs: inputs.iter().map(|&slot| SlotId(slot)).collect(),
        residual: None,
        output: SlotId(output),
    });
    let slots = [floats, bytes, bytes, bytes, floats];
    Program {
        name: "bytes".into(),
        slots: slots.into_iter().enumerate().map(|(index, spec)| Slot::new(spec, index * PLACE)).collect(),
        steps: steps.collect(),
        head: Head::NONE,
        shares: 1,
        input: SlotId(0),
        output: SlotId(4),
        arena_bytes: 5 * PLACE,
    }
}

#[test]
fn bytes_flow_through_a_program_between_floats() {
    let Some(device) = support::device() else { return };
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
    let input: Vec<f32> = (0..36).map(|index| f32::from(i16::try_from(index).unwrap() - 18)).collect();
    // Whole numbers of two digits are the same in every precision.
    for precision in Precision::ALL {
        let Ok(backend) = OpenClBackend::new(Arc::clone(&device), precision) else { continue };
        let mut executable = backend.compile(&program(&backend), &weights).unwrap();
        let mut output = vec![f32::NAN; 36];
        executable.run(&input, &mut output).unwrap();
        assert_eq!(output, input.iter().map(|x| 3.0 * x).collect::<Vec<_>>(), "{precision}");
    }
}
