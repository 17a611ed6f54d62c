//! The quantised part of the suite under test: one plain convolution that passes, and one copy of it for every
//! mistake that quantised kernels are prone to, each of which must be caught.

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared, Schedule, Scratch,
    Serial, Support,
};
use dlis_conformance::{QuantizedCase, Setup, Tolerance, prove_quantized, quantized_cases};
use dlis_formats::{DType, Format, Quantization, Weight};
use dlis_hw::{Hardware, SimdLevel};
use dlis_model::{Activation, Conv2d};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    CountsPaddingAsByteZero,
    SaturatesPairsAt16Bits,
    RoundsHalvesUp,
    Truncates,
    FusesMultiplyAndAdd,
    WrapsAround,
    ForgetsTheResidualsZeroPoint,
    ActivatesBeforeTheResidual,
    ForgetsSix,
    TakesOneScaleForAll,
    DropsTheBias,
}

/// Convolutions without groups, straight from the definition but for the fault.
struct Toy(Fault);

struct Ready {
    fault: Fault,
    op: OpSpec,
    conv: Conv2d,
    weight: Vec<i8>,
    scales: Vec<f32>,
    bias: Vec<f32>,
    input: Quantization,
    residual: Option<Quantization>,
    /// Of steps of 1 where the output is f32.
    output: Quantization,
}

impl Kernel for Toy {
    fn id(&self) -> KernelId {
        KernelId::new("conv2d", "u8", "int8", "toy", "portable")
    }

    fn support(&self, op: &OpSpec, _: &Hardware) -> Support {
        let plain = matches!(op.operation, Operation::Conv2d(conv) if conv.groups == 1);
        let types = op.dtype() == Some(DType::U8) && op.weight == Some(Format::Int8);
        Support::when(plain && types, "it is for plain convolutions of u8")
    }

    fn efficiency(&self, _: &OpSpec) -> f32 {
        0.01
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, _: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let (Operation::Conv2d(conv), Some(Weight::Int8(weight))) = (op.operation, weights.weight) else {
            unreachable!()
        };
        Ok(Box::new(Ready {
            fault: self.0,
            op: op.clone(),
            conv,
            weight: weight.values().to_vec(),
            scales: weight.scales().to_vec(),
            bias: weights.bias.map_or_else(|| vec![0.0; conv.out_channels], <[f32]>::to_vec),
            input: weights.quantization.inputs[0],
            residual: weights.quantization.residual,
            output: weights.quantization.output.unwrap_or(Quantization::new(1.0, 0).unwrap()),
        }))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
fn narrow(x: f64) -> f32 {
    x as f32
}

impl Ready {
    fn sum(&self, input: &[u8], [n, out, y, x]: [usize; 4]) -> i32 {
        let (spec, window) = (self.op.inputs[0], self.conv.window);
        let mut products = Vec::new();
        for c in 0..self.conv.in_channels {
            for ky in 0..window.kernel[0] {
                for kx in 0..window.kernel[1] {
                    let iy = (y * window.stride[0] + ky * window.dilation[0]).wrapping_sub(window.padding[0]);
                    let ix = (x * window.stride[1] + kx * window.dilation[1]).wrapping_sub(window.padding[1]);
                    let inside = iy < spec.height && ix < spec.width;
                    let byte = match inside {
                        true => input[spec.offset([n, c, iy, ix])],
                        false if self.fault == Fault::CountsPaddingAsByteZero => 0,
                        false => self.input.zero_point(),
                    };
                    let tap = ((out * self.conv.in_channels + c) * window.kernel[0] + ky) * window.kernel[1] + kx;
                    products.push((byte, self.weight[tap]));
                }
            }
        }
        let plain = |&(byte, weight): &(u8, i8)| i32::from(byte) * i32::from(weight);
        let zeros: i32 = products.iter().map(|&(_, w)| i32::from(self.input.zero_point()) * i32::from(w)).sum();
        let sum: i32 = if self.fault == Fault::SaturatesPairsAt16Bits {
            products.chunks(2).map(|pair| pair.iter().map(plain).sum::<i32>().clamp(-32768, 32767)).sum()
        } else {
            products.iter().map(plain).sum()
        };
        sum - zeros
    }

    fn activate(&self, v: f32) -> f32 {
        let six = narrow(6.0 / f64::from(self.output.scale()));
        match self.op.epilogue.activation {
            None => v,
            Some(Activation::Relu6) if self.fault != Fault::ForgetsSix => v.max(0.0).min(six),
            Some(_) => v.max(0.0),
        }
    }

    /// The result before a residual.
    fn scaled(&self, sum: i32, channel: usize) -> f32 {
        let scale = f64::from(self.output.scale());
        let of_weight = self.scales[if self.fault == Fault::TakesOneScaleForAll { 0 } else { channel }];
        let multiplier = narrow(f64::from(self.input.scale()) * f64::from(of_weight) / scale);
        let bias = if self.fault == Fault::DropsTheBias { 0.0 } else { narrow(f64::from(self.bias[channel]) / scale) };
        match self.fault {
            Fault::FusesMultiplyAndAdd => (sum as f32).mul_add(multiplier, bias),
            _ => sum as f32 * multiplier + bias,
        }
    }

    fn float(&self, sum: i32, channel: usize, residual: Option<f32>) -> f32 {
        let v = self.scaled(sum, channel);
        if self.fault == Fault::ActivatesBeforeTheResidual {
            return self.op.epilogue.activation.map_or(v, |f| f.apply(v)) + residual.unwrap_or(0.0);
        }
        let v = residual.map_or(v, |residual| v + residual);
        match self.op.epilogue.activation {
            Some(Activation::Relu6) if self.fault == Fault::ForgetsSix => Activation::Relu.apply(v),
            Some(function) => function.apply(v),
            None => v,
        }
    }

    fn byte(&self, sum: i32, channel: usize, residual: Option<u8>) -> u8 {
        let scale = f64::from(self.output.scale());
        let mut v = self.scaled(sum, channel);
        if self.fault == Fault::ActivatesBeforeTheResidual {
            v = self.activate(v);
        }
        if let (Some(byte), Some(of)) = (residual, self.residual) {
            let zero_point = if self.fault == Fault::ForgetsTheResidualsZeroPoint { 0 } else { of.zero_point() };
            let steps = f32::from(i16::from(byte) - i16::from(zero_point));
            v += steps * narrow(f64::from(of.scale()) / scale);
        }
        if self.fault != Fault::ActivatesBeforeTheResidual {
            v = self.activate(v);
        }
        let whole = match self.fault {
            Fault::RoundsHalvesUp => (v + 0.5).floor(),
            Fault::Truncates => v.trunc(),
            _ => v.round_ties_even(),
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, or wraps as a fault")]
        let byte = match self.fault {
            Fault::WrapsAround => (whole as i32).wrapping_add(i32::from(self.output.zero_point())) as u8,
            _ => (whole as i32).saturating_add(i32::from(self.output.zero_point())).clamp(0, 255) as u8,
        };
        byte
    }
}

impl Prepared for Ready {
    fn footprint(&self, _: usize) -> Footprint {
        Footprint { weight_bytes: self.weight.len(), ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _: &mut Scratch<'_>, _: Parallel<'_>) {
        let spec = self.op.output;
        let (input, residual) = (io.input(0).u8(), io.residual());
        for n in 0..spec.batch {
            for out in 0..spec.channels {
                for y in 0..spec.height {
                    for x in 0..spec.width {
                        let at = spec.offset([n, out, y, x]);
                        let sum = self.sum(input, [n, out, y, x]);
                        if spec.dtype == DType::U8 {
                            let residual = residual.map(|residual| residual.u8()[at]);
                            io.output().u8()[at] = self.byte(sum, out, residual);
                        } else {
                            let residual = residual.map(|residual| residual.f32()[at]);
                            io.output().f32()[at] = self.float(sum, out, residual);
                        }
                    }
                }
            }
        }
    }
}

/// The names of the cases that a toy fails.
fn failures(fault: Fault) -> Vec<String> {
    let hardware = Hardware::detect().with_simd(SimdLevel::Portable);
    let setup =
        Setup { executors: &[&Serial], schedules: &[Schedule::Static], hardware: &hardware, tolerance: Tolerance::of };
    let cases: Vec<QuantizedCase> = quantized_cases()
        .into_iter()
        .filter(|case| case.op.macs() < 50_000 && Toy(fault).support(&case.op, &hardware).is_yes())
        .collect();
    assert!(cases.len() > 100);
    let report = prove_quantized(&[&Toy(fault)], &cases, &setup);
    let tally = report.kernels().next().unwrap().1;
    assert_eq!(report.verdict().is_err(), !tally.failed.is_empty(), "{report}");
    assert!(tally.failed.iter().all(|(_, detail)| detail.contains("expected ")), "{:?}", tally.failed);
    tally.failed.iter().map(|(case, _)| case.clone()).collect()
}

#[test]
fn a_right_kernel_passes_every_case() {
    assert_eq!(failures(Fault::None), Vec::<String>::new());
}

#[test]
fn every_mistake_is_caught() {
    for fault in [
        Fault::CountsPaddingAsByteZero,
        Fault::SaturatesPairsAt16Bits,
        Fault::RoundsHalvesUp,
        Fault::Truncates,
        Fault::FusesMultiplyAndAdd,
        Fault::WrapsAround,
        Fault::ForgetsTheResidualsZeroPoint,
        Fault::ActivatesBeforeTheResidual,
        Fault::ForgetsSix,
        Fault::TakesOneScaleForAll,
        Fault::DropsTheBias,
    ] {
        let failed = failures(fault);
        assert!(!failed.is_empty(), "{fault:?} was not caught");
        let only = match fault {
            Fault::ForgetsTheResidualsZeroPoint | Fault::ActivatesBeforeTheResidual => "residual",
            Fault::ForgetsSix => "relu6",
            _ => "",
        };
        let elsewhere = |name: &&String| !name.contains(only) && !name.contains("second of its block");
        assert_eq!(failed.iter().find(elsewhere), None, "{fault:?}");
    }
}
