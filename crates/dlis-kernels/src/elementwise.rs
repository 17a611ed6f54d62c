//! Operations on each element by itself: sums, activations, a scale and shift a channel, a factor a
//! channel.

use dlis_backend::{
    AlignedBytes, Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Operation, Parallel, PrepareError, Prepared,
    Scratch, Support,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::Activation;

use crate::accepts::{self, Accepts};
use crate::blocks::{BLOCK, for_each_block};
use crate::epilogue::activate;
use crate::fold::{Order, folded};

/// `add/f32/none/direct/portable`.
#[derive(Debug)]
struct Add;

/// `activation/f32/none/direct/portable`.
#[derive(Debug)]
struct Activate;

/// `affine/f32/dense/direct/portable`.
#[derive(Debug)]
struct Affine;

/// `scale/f32/none/direct/portable`.
#[derive(Debug)]
struct Scale;

impl Kernel for Add {
    fn id(&self) -> KernelId {
        KernelId::new("add", "f32", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Add = op.operation else { return accepts::another_operation() };
        Accepts { activation: true, ..Accepts::ANY_LAYOUT }.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.5
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match self.support(op, hw) {
            Support::Yes => Ok(Box::new(PreparedAdd { activation: op.epilogue.activation })),
            no => Err(accepts::unsupported(self, op, no)),
        }
    }
}

#[derive(Debug)]
struct PreparedAdd {
    activation: Option<Activation>,
}

impl Prepared for PreparedAdd {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (a, b) = (io.input(0).f32(), io.input(1).f32());
        for_each_block(parallel, io.output().f32(), BLOCK, |elements, output| {
            let terms = a[elements.clone()].iter().zip(&b[elements]);
            output.iter_mut().zip(terms).for_each(|(to, (a, b))| *to = a + b);
            activate(self.activation, output);
        });
    }
}

impl Kernel for Activate {
    fn id(&self) -> KernelId {
        KernelId::new("activation", "f32", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Activation(_) = op.operation else { return accepts::another_operation() };
        Accepts::ANY_LAYOUT.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.5
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match (op.operation, self.support(op, hw)) {
            (Operation::Activation(function), Support::Yes) => Ok(Box::new(PreparedActivate { function })),
            (_, support) => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedActivate {
    function: Activation,
}

impl Prepared for PreparedActivate {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).f32();
        for_each_block(parallel, io.output().f32(), BLOCK, |elements, output| {
            output.copy_from_slice(&input[elements]);
            activate(Some(self.function), output);
        });
    }
}

/// Runs that are multiplied alike: planes by one factor each in NCHW, pixels by all channels' factors in NHWC, where
/// images are lanes by those of a group of images.
#[derive(Clone, Copy, Debug)]
struct Runs {
    order: Order,
    /// Of the folded tensors.
    channels: usize,
    pixels: usize,
}

impl Runs {
    fn of(op: &OpSpec) -> Option<Self> {
        let (order, folded) = folded(op)?;
        Some(Self { order, channels: folded.output.channels, pixels: folded.output.pixels() })
    }

    /// Elements of one run.
    fn len(&self) -> usize {
        match self.order {
            Order::Planes => self.pixels,
            Order::Pixels => self.channels,
        }
    }

    /// The image and the channels of a run.
    fn place(&self, run: usize) -> (usize, std::ops::Range<usize>) {
        match self.order {
            Order::Planes => (run / self.channels, run % self.channels..run % self.channels + 1),
            Order::Pixels => (run / self.pixels, 0..self.channels),
        }
    }
}

impl Kernel for Affine {
    fn id(&self) -> KernelId {
        KernelId::new("affine", "f32", "dense", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Affine = op.operation else { return accepts::another_operation() };
        Accepts { weight: Some(Format::DenseF32), activation: true, ..Accepts::ANY_LAYOUT }.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.5
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match (Runs::of(op), self.support(op, hw)) {
            (Some(runs), Support::Yes) => {
                let channels = op.output.channels;
                let scale = accepts::dense_f32(self, weights, &[channels])?;
                let shift = accepts::bias(self, weights, channels)?;
                // A channel of each of several images is a channel by itself in folded tensors.
                let images = runs.channels / channels;
                let [scale, shift] = [&scale, shift.f32()].map(|factors| repeated(factors, images));
                Ok(Box::new(PreparedAffine { runs, activation: op.epilogue.activation, scale, shift }))
            }
            (_, support) => Err(accepts::unsupported(self, op, support)),
        }
    }
}

/// Each value so many times.
fn repeated(values: &[f32], times: usize) -> AlignedBytes {
    let values = values.iter().flat_map(|&value| std::iter::repeat_n(value, times));
    AlignedBytes::from_f32(&values.collect::<Vec<f32>>())
}

#[derive(Debug)]
struct PreparedAffine {
    runs: Runs,
    activation: Option<Activation>,
    scale: AlignedBytes,
    shift: AlignedBytes,
}

impl Prepared for PreparedAffine {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint { weight_bytes: self.scale.allocated() + self.shift.allocated(), ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let input = io.input(0).f32();
        let len = self.runs.len();
        parallel.for_each_row(io.output().f32(), len, |_, first, outputs| {
            let inputs = input[first * len..].chunks(len);
            for (run, (output, input)) in (first..).zip(outputs.chunks_mut(len).zip(inputs)) {
                let (_, channels) = self.runs.place(run);
                match (&self.scale.f32()[channels.clone()], &self.shift.f32()[channels]) {
                    ([scale], [shift]) => output.iter_mut().zip(input).for_each(|(to, x)| *to = x * scale + shift),
                    (scales, shifts) => {
                        let factors = scales.iter().zip(shifts);
                        for ((to, x), (scale, shift)) in output.iter_mut().zip(input).zip(factors) {
                            *to = x * scale + shift;
                        }
                    }
                }
                activate(self.activation, output);
            }
        });
    }
}

impl Kernel for Scale {
    fn id(&self) -> KernelId {
        KernelId::new("scale", "f32", "none", "direct", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Scale = op.operation else { return accepts::another_operation() };
        Accepts::ANY_LAYOUT.check(op)
    }

    fn efficiency(&self, _op: &OpSpec) -> f32 {
        0.5
    }

    fn prepare(&self, op: &OpSpec, _weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        match (Runs::of(op), self.support(op, hw)) {
            (Some(runs), Support::Yes) => Ok(Box::new(PreparedScale { runs })),
            (_, support) => Err(accepts::unsupported(self, op, support)),
        }
    }
}

#[derive(Debug)]
struct PreparedScale {
    runs: Runs,
}

impl Prepared for PreparedScale {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint::default()
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let (input, factors) = (io.input(0).f32(), io.input(1).f32());
        let len = self.runs.len();
        parallel.for_each_row(io.output().f32(), len, |_, first, outputs| {
            let inputs = input[first * len..].chunks(len);
            for (run, (output, input)) in (first..).zip(outputs.chunks_mut(len).zip(inputs)) {
                let (image, channels) = self.runs.place(run);
                match &factors[image * self.runs.channels..][channels] {
                    [factor] => output.iter_mut().zip(input).for_each(|(to, x)| *to = x * factor),
                    factors => {
                        output.iter_mut().zip(input).zip(factors).for_each(|((to, x), factor)| *to = x * factor);
                    }
                }
            }
        });
    }
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[&Add, &Activate, &Affine, &Scale];

#[cfg(test)]
mod tests {
    use dlis_backend::{Epilogue, Layout, TensorSpec};
    use dlis_formats::Weight;
    use ndarray::ArrayD;

    use super::*;
    use crate::testing::{at, batch_of, build, integers, run};

    fn specs() -> impl Iterator<Item = TensorSpec> {
        let extents = [[1, 1, 1], [3, 1, 1], [5, 4, 3], [1, 6, 2], [17, 40, 20]];
        Layout::ALL
            .into_iter()
            .flat_map(move |layout| extents.map(|extents| TensorSpec::f32(batch_of(layout), extents, layout)))
    }

    fn spec(operation: Operation, inputs: &[TensorSpec], activation: Option<Activation>) -> OpSpec {
        let weight = (operation == Operation::Affine).then_some(Format::DenseF32);
        let epilogue = Epilogue { residual: false, activation };
        OpSpec { operation, inputs: inputs.to_vec(), output: inputs[0], epilogue, weight }
    }

    #[test]
    fn sums_and_activations_are_element_by_element() {
        for tensor in specs() {
            let (a, b) = (integers(tensor.elements(), 1), integers(tensor.elements(), 2));
            for activation in [None, Some(Activation::Relu)] {
                let op = spec(Operation::Add, &[tensor, tensor], activation);
                let sums = a.iter().zip(&b).map(|(a, b)| a + b);
                let expected: Vec<f32> = sums.map(|x| activation.map_or(x, |f| f.apply(x))).collect();
                assert_eq!(run(&Add, &op, OpWeights::default(), &[&a, &b], None), expected, "{op}");
            }
            for function in [Activation::Relu, Activation::Relu6, Activation::Sigmoid] {
                let op = spec(Operation::Activation(function), &[tensor], None);
                let expected: Vec<f32> = a.iter().map(|&x| function.apply(x)).collect();
                assert_eq!(run(&Activate, &op, OpWeights::default(), &[&a], None), expected, "{op}");
            }
        }
    }

    #[test]
    fn factors_are_those_of_the_channel() {
        for tensor in specs() {
            let channels = tensor.channels;
            let (x, factors) = (integers(tensor.elements(), 1), integers(tensor.batch * channels, 2));
            let shift = integers(channels, 3);
            let weight = Weight::F32(ArrayD::from_shape_vec(vec![channels], factors[..channels].to_vec()).unwrap());
            let op = spec(Operation::Affine, &[tensor], Some(Activation::Relu));
            let weights = OpWeights { weight: Some(&weight), bias: Some(&shift), ..OpWeights::default() };
            let expected = build(&tensor, |place| {
                Activation::Relu.apply(at(&tensor, &x, place) * factors[place[1]] + shift[place[1]])
            });
            assert_eq!(run(&Affine, &op, weights, &[&x], None), expected, "{op}");

            let pixel = TensorSpec { height: 1, width: 1, ..tensor };
            let op = spec(Operation::Scale, &[tensor, pixel], None);
            let expected =
                build(&tensor, |place| at(&tensor, &x, place) * at(&pixel, &factors, [place[0], place[1], 0, 0]));
            assert_eq!(run(&Scale, &op, OpWeights::default(), &[&x, &factors], None), expected, "{op}");
        }
    }

    #[test]
    fn mixed_layouts_and_unknown_epilogues_are_refused() {
        let hw = Hardware::detect();
        let nchw = TensorSpec::f32(1, [3, 4, 4], Layout::Nchw);
        let mixed = spec(Operation::Add, &[nchw, nchw.with_layout(Layout::Nhwc)], None);
        assert!(!Add.support(&mixed, &hw).is_yes());
        let residual = Epilogue { residual: true, activation: None };
        let op = OpSpec { epilogue: residual, ..spec(Operation::Add, &[nchw, nchw], None) };
        assert!(!Add.support(&op, &hw).is_yes());
        let op = spec(Operation::Activation(Activation::Relu), &[nchw], Some(Activation::Relu));
        assert!(!Activate.support(&op, &hw).is_yes());
        // One pixel is the same in every layout.
        let pixel = TensorSpec::f32(1, [3, 1, 1], Layout::Nchw);
        assert!(Add.support(&spec(Operation::Add, &[pixel, pixel.with_layout(Layout::Nhwc)], None), &hw).is_yes());
    }
}
