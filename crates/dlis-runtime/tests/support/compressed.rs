//! Networks with weights in every format.

use std::collections::BTreeMap;

use dlis_formats::{Format, Int4, Int8, Quantization, Weight};
use dlis_model::{Network, Op, Value, fold_batch_norm};
use dlis_runtime::{Observer, Planner};
use half::f16;
use ndarray::ArrayD;

use super::{omp, values};

/// A dense weight near this one that a format holds exactly: pruned, rounded or both.
fn fitted(weight: &ArrayD<f32>, format: Format) -> Weight {
    let rows = weight.shape()[0];
    let per_row = weight.len() / rows;
    let mut dense = weight.as_standard_layout().into_owned();
    let elements = dense.as_slice_mut().unwrap();
    // Two of three are zero, in no regular pattern.
    let prune = |elements: &mut [f32]| {
        for (index, value) in elements.iter_mut().enumerate() {
            if index * 2_654_435_761 % 97 < 64 {
                *value = 0.0;
            }
        }
    };
    match format {
        Format::DenseF32 => {}
        Format::DenseF16 | Format::ScaledF16 => {
            elements.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
        }
        Format::CsrF16 => {
            prune(elements);
            elements.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
        }
        Format::CsrF32 | Format::FilterCsr | Format::Bsr1x4 | Format::Bsr4x1 | Format::Bsr8x1 | Format::Bsr16x1 => {
            prune(elements);
        }
        Format::TwoFour => {
            let taps: usize = weight.shape()[2..].iter().product();
            let channels = per_row / taps;
            for (index, value) in elements.iter_mut().enumerate() {
                let channel = index % per_row / taps;
                if channels > 2 && channel % 4 >= 2 {
                    *value = 0.0;
                }
            }
        }
        Format::Ternary2Bit | Format::Ternary5In8 => {
            for row in elements.chunks_mut(per_row) {
                let mean = row.iter().map(|value| value.abs()).sum::<f32>() / per_row as f32;
                for value in row {
                    *value = if value.abs() < 0.7 * mean {
                        0.0
                    } else if *value > 0.0 {
                        mean
                    } else {
                        -0.8 * mean
                    };
                }
            }
        }
        Format::Int8 => return Weight::Int8(Int8::quantize(&dense, Int8::max_abs_scales(&dense)).unwrap()),
        Format::Int4 => return Weight::Int4(Int4::quantize(&dense, Int4::max_abs_scales(&dense)).unwrap()),
    }
    Weight::F32(dense).convert(format).unwrap()
}

/// The network, its batch-norms folded and the weights of its convolutions and linear layers in this format,
/// which has to change them.
pub(crate) fn compressed(network: Network, format: Format) -> Network {
    let (graph, mut weights) = fold_batch_norm(network).unwrap().into_parts();
    for layer in graph.layers().iter().filter(|layer| matches!(layer.op, Op::Conv2d(_) | Op::Linear(_))) {
        let weight = weights.get_mut(&format!("{}.weight", layer.name)).unwrap();
        *weight = fitted(&weight.to_f32().into_owned(), format);
    }
    Network::new(graph, weights).unwrap()
}

/// The network with int8 weights, and every tensor quantised by what it holds on a few images of noise.
pub(crate) fn integers(network: Network) -> Network {
    let network = compressed(network, Format::Int8);
    let backend = omp(1);
    let mut observer = Observer::new(&backend, Planner::new(&backend), &network).unwrap();
    let mut ranges: BTreeMap<Value, (f32, f32)> = BTreeMap::new();
    for seed in 0..2 {
        let images = values(observer.input_len(), seed);
        observer
            .run(&images, &mut |tensor| {
                let (min, max) = ranges.entry(tensor.value).or_insert((0.0, 0.0));
                for &value in tensor.elements {
                    (*min, *max) = (min.min(value), max.max(value));
                }
            })
            .unwrap();
    }
    let mut quantizations: BTreeMap<Value, Quantization> = BTreeMap::new();
    for (value, (min, max)) in ranges {
        let own = Quantization::from_range(min, max).unwrap();
        // What only moves elements keeps what they stand for.
        let moved = match value {
            Value::Layer(index) => {
                let layer = &network.graph().layers()[index];
                matches!(layer.op, Op::MaxPool(_) | Op::Flatten).then(|| layer.inputs[0])
            }
            Value::Input => None,
        };
        quantizations.insert(value, moved.map_or(own, |from| quantizations[&from]));
    }
    network.with_quantization(quantizations).unwrap()
}
