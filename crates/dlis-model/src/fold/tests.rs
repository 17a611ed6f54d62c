use dlis_formats::Format;
use half::f16;
use ndarray::{Array3, ArrayD};
use proptest::prelude::*;

use super::*;
use crate::interpreter::evaluate;
use crate::{Activation, GraphBuilder, Pool, Shape, Window};

/// The names of the layers that are left.
fn names(network: &Network) -> Vec<&str> {
    network.graph().layers().iter().map(|layer| layer.name.as_str()).collect()
}

fn image(shape: Shape, seed: u64) -> Array3<f64> {
    let mut state = seed;
    Array3::from_shape_simple_fn([shape.channels, shape.height, shape.width], || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from((state >> 32) as u32) / f64::from(u32::MAX) * 2.0 - 1.0
    })
}

/// Folds, and checks that the result computes the same and is a fixed point.
fn fold_and_compare(network: Network, seed: u64) -> Network {
    let image = image(network.graph().input_shape(), seed);
    let expected = evaluate(&network, &image);
    let folded = fold_batch_norm(network).unwrap();
    let found = evaluate(&folded, &image);
    let largest = expected.iter().fold(1e-3, |largest: f64, value| largest.max(value.abs()));
    for (expected, found) in expected.iter().zip(&found) {
        assert!((expected - found).abs() <= 1e-4 * largest, "{expected} became {found}");
    }
    assert_eq!(fold_batch_norm(folded.clone()).unwrap(), folded);
    folded
}

#[test]
fn exact_values() {
    let mut graph = Graph::builder("g", Shape::new(1, 1, 1));
    let x = graph.linear("fc", Value::Input, 1);
    let x = graph.add_layer("bn", Op::BatchNorm { channels: 1, eps: 1.0 }, &[x]);
    let scalar = |name: &str, value: f32| {
        let dims = if name == "fc.weight" { vec![1, 1] } else { vec![1] };
        (name.to_owned(), Weight::F32(ArrayD::from_elem(dims, value)))
    };
    let weights = [
        scalar("fc.weight", 2.0),
        scalar("fc.bias", 5.0),
        scalar("bn.weight", 3.0),
        scalar("bn.bias", 0.5),
        scalar("bn.running_mean", 1.0),
        scalar("bn.running_var", 3.0),
    ];
    let network = Network::new(graph.finish(x).unwrap(), weights.into()).unwrap();
    let folded = fold_batch_norm(network).unwrap();
    // The scale is 3 / sqrt(3 + 1).
    let expected = BTreeMap::from([scalar("fc.weight", 3.0), scalar("fc.bias", 1.5 * (5.0 - 1.0) + 0.5)]);
    assert_eq!(folded.weights(), &expected);
    assert_eq!(folded.graph().output(), Value::Layer(0));
}

#[test]
fn what_cannot_be_folded_stays() {
    let input = Shape::new(3, 4, 4);
    let window = Window::square(3).with_padding(1);
    // Pre-activation (He et al. 2016b): the first batch-norm has no producer, the second a rectifier; the
    // output of the convolution is also that of the network.
    let mut graph = Graph::builder("pre", input);
    let x = graph.batch_norm("bn1", Value::Input);
    let x = graph.relu("relu1", x);
    let x = graph.batch_norm("bn2", x);
    let x = graph.conv("conv", x, 3, window);
    graph.batch_norm("bn3", x);
    let network = fold_and_compare(Network::random(graph.finish(x).unwrap(), 1), 1);
    assert_eq!(names(&network), ["bn1", "relu1", "bn2", "conv", "bn3"]);
    // Another layer reads the convolution; two batch-norms read the second.
    let mut graph = Graph::builder("shared", input);
    let a = graph.conv("conv1", Value::Input, 3, window);
    let b = graph.batch_norm("bn1", a);
    let sum = graph.add("add", a, b);
    let c = graph.conv("conv2", sum, 3, window);
    let (d, e) = (graph.batch_norm("bn2", c), graph.batch_norm("bn3", c));
    let x = graph.add("add2", d, e);
    let network = fold_and_compare(Network::random(graph.finish(x).unwrap(), 2), 2);
    assert_eq!(names(&network), ["conv1", "bn1", "add", "conv2", "bn2", "bn3", "add2"]);
}

#[test]
fn chains_fold_as_far_as_they_are_read_once() {
    let mut graph = Graph::builder("chain", Shape::new(3, 4, 4));
    let x = graph.conv("conv", Value::Input, 4, Window::square(3));
    let x = graph.batch_norm("bn1", x);
    let x = graph.batch_norm("bn2", x);
    let y = graph.batch_norm("bn3", x);
    let x = graph.add("add", x, y);
    let network = fold_and_compare(Network::random(graph.finish(x).unwrap(), 3), 3);
    assert_eq!(names(&network), ["conv", "bn3", "add"]);
}

#[test]
fn folded_halves_gain_a_scale_and_others_keep_their_format() {
    let mut graph = Graph::builder("half", Shape::new(3, 4, 4));
    let x = graph.conv("conv", Value::Input, 4, Window::square(3));
    let x = graph.batch_norm("bn", x);
    let x = graph.global_avg_pool("pool", x);
    let x = graph.linear("fc", x, 2);
    let (graph, weights) = Network::random(graph.finish(x).unwrap(), 4).into_parts();
    let half = |weight: Weight| Weight::F16(weight.to_f32().mapv(f16::from_f32));
    let weights = weights.into_iter().map(|(name, weight)| (name, half(weight))).collect();
    let network = fold_and_compare(Network::new(graph, weights).unwrap(), 4);
    let formats: Vec<_> = network.weights().iter().map(|(name, weight)| (name.as_str(), weight.format())).collect();
    let (dense, half, scaled) = (Format::DenseF32, Format::DenseF16, Format::ScaledF16);
    assert_eq!(formats, [("conv.bias", dense), ("conv.weight", scaled), ("fc.bias", half), ("fc.weight", half)]);
    assert!(network.to_f32().weights().values().all(|weight| weight.format() == dense));
}

/// A convolution and a batch-norm of two channels, of this epsilon, variance and weight.
fn conv_bn(eps: f32, variance: [f32; 2], gamma: f32) -> Network {
    let mut graph = Graph::builder("g", Shape::new(1, 1, 1));
    let x = graph.conv("conv", Value::Input, 2, Window::square(1));
    let x = graph.add_layer("bn", Op::BatchNorm { channels: 2, eps }, &[x]);
    let (graph, mut weights) = Network::random(graph.finish(x).unwrap(), 0).into_parts();
    weights.insert("bn.running_var".to_owned(), Weight::F32(ndarray::arr1(&variance).into_dyn()));
    weights.insert("bn.weight".to_owned(), Weight::F32(ndarray::arr1(&[gamma; 2]).into_dyn()));
    Network::new(graph, weights).unwrap()
}

#[test]
fn a_division_by_zero_and_an_overflow_are_named() {
    let zero = fold_batch_norm(conv_bn(0.0, [1.0, 0.0], 1.0)).unwrap_err();
    assert_eq!(zero, FoldError::ZeroVariance { layer: "bn".to_owned(), channel: 1 });
    assert!(fold_batch_norm(conv_bn(1e-5, [1.0, 0.0], 1.0)).is_ok(), "the epsilon is there for this");
    let overflow = fold_batch_norm(conv_bn(0.0, [1.0, 1e-30], f32::MAX)).unwrap_err();
    assert!(matches!(&overflow, FoldError::Overflow { layer, .. } if layer == "bn"), "{overflow}");
    insta::assert_snapshot!(format!("{zero}\n{overflow}"), @r"
    batch-norm `bn`: channel 1 has a variance of 0 and the epsilon is 0: it divides by zero
    batch-norm `bn` cannot be folded: weight `conv.weight`: element 1 is -inf, expected a finite number
    ");
}

#[test]
fn every_batch_norm_of_the_zoo_folds() {
    for entry in crate::zoo::ENTRIES.iter().filter(|entry| entry.name.ends_with("-cifar10")) {
        let network = Network::random(entry.graph(), 5);
        let macs = network.graph().macs();
        let folded = fold_batch_norm(network).unwrap();
        assert!(folded.graph().layers().iter().all(|layer| !matches!(layer.op, Op::BatchNorm { .. })));
        assert_eq!(folded.graph().macs(), macs);
    }
}

/// Grows a random graph: every choice is a number, whatever its size.
fn grow(choices: &[(u8, u8, u8)]) -> Graph {
    let mut graph = Graph::builder("random", Shape::new(2, 6, 5));
    let mut values = vec![Value::Input];
    for (index, &(kind, from, detail)) in choices.iter().enumerate() {
        let detail = usize::from(detail);
        // Mostly the latest value, so that depth builds up.
        let x = match usize::from(from) {
            from if from < 64 => values[from % values.len()],
            _ => values[values.len() - 1],
        };
        let shape = graph.shape(x);
        let name = format!("l{index}");
        let y = grow_one(&mut graph, name, kind, x, shape, detail, &values);
        values.push(y);
    }
    let output = values[values.len() - 1];
    graph.finish(output).unwrap()
}

fn grow_one(
    graph: &mut GraphBuilder,
    name: String,
    kind: u8,
    x: Value,
    shape: Shape,
    detail: usize,
    values: &[Value],
) -> Value {
    let fits = shape.height >= 3 && shape.width >= 3;
    let three = Window { stride: [1 + detail % 2, 1], ..Window::square(3).with_padding(detail / 2 % 2) };
    match kind % 16 {
        0..=3 => {
            let window = if fits { three } else { Window::square(1) };
            let groups = if detail.is_multiple_of(3) && shape.channels.is_multiple_of(2) { 2 } else { 1 };
            let (in_channels, out_channels) = (shape.channels, groups * (1 + detail / 4 % 3));
            let conv = Conv2d { in_channels, out_channels, groups, window, bias: detail.is_multiple_of(5) };
            graph.add_layer(name, Op::Conv2d(conv), &[x])
        }
        4..=8 => graph.batch_norm(name, x),
        9 => graph.relu(name, x),
        10 => graph.add_layer(name, Op::Activation { function: Activation::Sigmoid }, &[x]),
        11 if fits => graph.max_pool(name, x, three),
        12 if fits => graph.add_layer(name, Op::AvgPool(Pool { window: three, include_padding: detail > 99 }), &[x]),
        13 => {
            let other = values.iter().copied().find(|&value| graph.shape(value) == shape).unwrap_or(x);
            graph.add(name, x, other)
        }
        14 if shape.channels < 16 => graph.add_layer(name, Op::Concat, &[x, x]),
        15 => {
            let x = graph.flatten(format!("{name}.flatten"), x);
            graph.linear(name, x, 1 + detail % 4)
        }
        _ => {
            let s = graph.global_avg_pool(format!("{name}.pool"), x);
            graph.add_layer(name, Op::Scale, &[x, s])
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Folding changes no result, keeps no batch-norm that only a convolution or linear layer feeds, and
    /// is idempotent.
    #[test]
    fn folding_preserves_the_function(
        choices in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..14),
        seed in any::<u64>(),
    ) {
        let folded = fold_and_compare(Network::random(grow(&choices), seed), seed);
        let layers = folded.graph().layers();
        for layer in layers.iter().filter(|layer| matches!(layer.op, Op::BatchNorm { .. })) {
            if let Value::Layer(from) = layer.inputs[0] && with_bias(&layers[from].op).is_some() {
                prop_assert!(folded.graph().uses()[from] > 1, "{}", layer.name);
            }
        }
    }
}
