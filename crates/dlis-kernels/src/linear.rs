//! Fully connected layers.

use dlis_backend::{
    AlignedBytes, Disjoint, Epilogue, Footprint, Io, Kernel, KernelId, Layout, OpSpec, OpWeights, Operation, Parallel,
    PrepareError, Prepared, Scratch, Support,
};
use dlis_formats::Format;
use dlis_hw::Hardware;
use dlis_model::Linear;

use crate::accepts::{self, Accepts};
use crate::epilogue::finish_channel;

/// Independent partial sums: four vectors of four, so that no addition waits for the one before.
const SUMS: usize = 16;

/// `linear/f32/dense/dot/portable`: a dot product for each feature of the output.
///
/// With one image every weight is used once, so that this is as fast as the weights arrive from memory.
#[derive(Debug)]
struct Dot;

const ACCEPTS: Accepts =
    Accepts { layouts: &Layout::STRIDED, weight: Some(Format::DenseF32), residual: true, activation: true };

impl Kernel for Dot {
    fn id(&self) -> KernelId {
        KernelId::new("linear", "f32", "dense", "dot", "portable")
    }

    fn support(&self, op: &OpSpec, _hw: &Hardware) -> Support {
        let Operation::Linear(_) = op.operation else { return accepts::another_operation() };
        ACCEPTS.check(op)
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        // Bound by memory with one image, by its lack of reuse with many.
        if op.output.batch == 1 { 0.5 } else { 0.1 }
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, hw: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let support = self.support(op, hw);
        let (Operation::Linear(linear), true) = (op.operation, support.is_yes()) else {
            return Err(accepts::unsupported(self, op, support));
        };
        let weight =
            AlignedBytes::from_f32(&accepts::dense_f32(self, weights, &[linear.out_features, linear.in_features])?);
        let bias = accepts::bias(self, weights, if linear.bias { linear.out_features } else { 0 })?;
        Ok(Box::new(PreparedDot { linear, epilogue: op.epilogue, weight, bias }))
    }
}

#[derive(Debug)]
struct PreparedDot {
    linear: Linear,
    epilogue: Epilogue,
    /// `[out, in]`.
    weight: AlignedBytes,
    bias: AlignedBytes,
}

impl Prepared for PreparedDot {
    fn footprint(&self, _threads: usize) -> Footprint {
        Footprint { weight_bytes: self.weight.allocated() + self.bias.allocated(), ..Footprint::default() }
    }

    fn run(&self, io: &mut Io<'_>, _scratch: &mut Scratch<'_>, parallel: Parallel<'_>) {
        let Linear { in_features, out_features, .. } = self.linear;
        let (input, residual) = (io.input(0).f32(), io.residual().map(|residual| residual.f32()));
        let output = Disjoint::new(io.output().f32());
        // Features outside, images inside: a row of weights is fetched once for the whole batch.
        parallel.for_each(out_features, |_, features| {
            for feature in features {
                let weights = &self.weight.f32()[feature * in_features..][..in_features];
                let bias = self.bias.f32().get(feature).copied().unwrap_or(0.0);
                for (image, input) in input.chunks(in_features).enumerate() {
                    let place = image * out_features + feature;
                    // SAFETY: the executor passes every feature once, and this element is that feature's alone.
                    let output = unsafe { output.slice(place..place + 1) };
                    output[0] = dot(weights, input);
                    let residual = residual.map(|residual| &residual[place..=place]);
                    finish_channel(output, bias, residual, self.epilogue.activation);
                }
            }
        });
    }
}

/// The sum of the products of two slices of one length.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, last_a), (b, last_b)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    let mut sums = [0.0; SUMS];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = last_a.iter().zip(last_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

pub(crate) static KERNELS: &[&dyn Kernel] = &[&Dot];

#[cfg(test)]
mod tests {
    use dlis_backend::TensorSpec;
    use dlis_formats::Weight;
    use dlis_model::Activation;
    use ndarray::ArrayD;

    use super::*;
    use crate::testing::{integers, run};

    #[test]
    fn every_length_gives_the_definition() {
        for (batch, inputs, outputs) in [(1, 1, 1), (1, 15, 3), (2, 16, 10), (3, 33, 7), (2, 512, 10)] {
            for (bias, residual, activation) in
                [(false, false, None), (true, false, Some(Activation::Relu)), (true, true, Some(Activation::Relu6))]
            {
                let op = OpSpec {
                    operation: Operation::Linear(Linear { in_features: inputs, out_features: outputs, bias }),
                    inputs: vec![TensorSpec::f32(batch, [inputs, 1, 1], Layout::Nchw)],
                    output: TensorSpec::f32(batch, [outputs, 1, 1], Layout::Nhwc),
                    epilogue: Epilogue { residual, activation },
                    weight: Some(Format::DenseF32),
                };
                let (x, w, b) = (integers(batch * inputs, 1), integers(inputs * outputs, 2), integers(outputs, 3));
                let r = integers(batch * outputs, 4);
                let expected: Vec<f32> = (0..batch * outputs)
                    .map(|i| {
                        let (image, feature) = (i / outputs, i % outputs);
                        let row = &w[feature * inputs..][..inputs];
                        let sum: f32 = row.iter().zip(&x[image * inputs..]).map(|(w, x)| w * x).sum();
                        let sum = sum + if bias { b[feature] } else { 0.0 } + if residual { r[i] } else { 0.0 };
                        activation.map_or(sum, |activation| activation.apply(sum))
                    })
                    .collect();
                let weight = Weight::F32(ArrayD::from_shape_vec(vec![outputs, inputs], w).unwrap());
                let weights = OpWeights { weight: Some(&weight), bias: bias.then_some(&b[..]), ..OpWeights::default() };
                assert_eq!(run(&Dot, &op, weights, &[&x], residual.then_some(&r[..])), expected, "{op}");
            }
        }
    }
}
