use std::sync::Arc;

use dlis_formats::Weight;
use dlis_model::interpreter::evaluate;
use dlis_model::{Conv2d, GraphBuilder, Op, Pool, Shape, Window, zoo};
use ndarray::Array3;
use proptest::prelude::*;

use super::*;
use crate::{Event, Untrained};

/// A pseudo-random image.
fn image(shape: Shape, seed: u64) -> Array3<f64> {
    let mut state = seed | 1;
    Array3::from_shape_simple_fn([shape.channels, shape.height, shape.width], || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
}

/// A random network of everything that couples channels, 10 classes at the end.
fn random_graph(choices: &[(u8, u8, u8)]) -> Graph {
    let three = Window::square(3).with_padding(1);
    let mut graph = Graph::builder("random", Shape::new(3, 6, 6));
    let mut values = vec![graph.conv("stem", Value::Input, 8, three)];
    for (index, &(kind, a, b)) in choices.iter().enumerate() {
        let pick = |values: &[Value], choice: u8| values[usize::from(choice) % values.len()];
        let x = pick(&values, a);
        let width = 4 * (1 + usize::from(b) % 3);
        let name = |suffix: &str| format!("l{index}.{suffix}");
        let shape = graph.shape(x);
        let y = match kind % 9 {
            0 => graph.conv(name("conv"), x, width, three),
            1 => {
                let y = graph.batch_norm(name("bn"), x);
                graph.relu(name("relu"), y)
            }
            2 => graph.depthwise(name("dw"), x, three),
            3 => residual(&mut graph, &values, x, b, &name),
            4 => {
                let same: Vec<Value> =
                    values.iter().copied().filter(|&v| graph.shape(v).plane() == shape.plane()).collect();
                let other = pick(&same, b);
                if graph.shape(other).channels + shape.channels > 40 {
                    continue;
                }
                graph.add_layer(name("concat"), Op::Concat, &[x, other])
            }
            5 => {
                let conv = Conv2d {
                    in_channels: shape.channels,
                    out_channels: width,
                    groups: if shape.channels.is_multiple_of(2) { 2 } else { 1 },
                    window: three,
                    bias: true,
                };
                graph.add_layer(name("grouped"), Op::Conv2d(conv), &[x])
            }
            6 => {
                let s = graph.global_avg_pool(name("pool"), x);
                let s = graph.conv(name("squeeze"), s, 4, Window::square(1));
                let s = graph.conv(name("excite"), s, shape.channels, Window::square(1));
                let sigmoid = Op::Activation { function: dlis_model::Activation::Sigmoid };
                let s = graph.add_layer(name("sigmoid"), sigmoid, &[s]);
                graph.add_layer(name("scale"), Op::Scale, &[x, s])
            }
            7 if shape.height > 2 => graph.max_pool(name("max"), x, Window::square(2)),
            8 if shape.height > 2 => {
                let pool = Pool { window: Window::square(2), include_padding: false };
                graph.add_layer(name("avg"), Op::AvgPool(pool), &[x])
            }
            _ => continue,
        };
        values.push(y);
    }
    let x = *values.last().unwrap();
    let x = graph.flatten("flatten", x);
    let x = graph.linear("hidden", x, 12);
    let x = graph.relu("relu", x);
    let x = graph.linear("fc", x, 10);
    graph.finish(x).unwrap()
}

/// The input added to a convolution of it, or to an earlier tensor of its shape.
fn residual(graph: &mut GraphBuilder, values: &[Value], x: Value, choice: u8, name: &dyn Fn(&str) -> String) -> Value {
    let shape = graph.shape(x);
    let same: Vec<Value> = values.iter().copied().filter(|&v| graph.shape(v) == shape).collect();
    let other = match choice % 2 {
        0 => graph.conv(name("branch"), x, shape.channels, Window::square(3).with_padding(1)),
        _ => same[usize::from(choice) % same.len()],
    };
    graph.add(name("add"), x, other)
}

/// The network in which layers give no weight to removed channels of what they read.
fn masked(network: &Network, dependencies: &Dependencies, removed: &[bool]) -> Network {
    let mut changed = Vec::new();
    for index in weighted(network.graph()) {
        let layer = &network.graph().layers()[index];
        let mut weight = network.weight(&layer.name, "weight").unwrap().to_f32().into_owned();
        let groups = match layer.op {
            Op::Conv2d(conv) if conv.is_depthwise() => continue,
            Op::Conv2d(conv) => conv.groups,
            _ => 1,
        };
        let units = dependencies.units(layer.inputs[0]);
        let [rows, per_group] = [weight.shape()[0], weight.shape()[1]];
        for row in 0..rows {
            let group = row / (rows / groups);
            for column in 0..per_group {
                if removed[units[group * per_group + column] as usize] {
                    weight.index_axis_mut(ndarray::Axis(0), row).index_axis_mut(ndarray::Axis(0), column).fill(0.0);
                }
            }
        }
        changed.push((format!("{}.weight", layer.name), Weight::F32(weight)));
    }
    network.clone().with_weights(changed).unwrap()
}

fn compress(channels: &Channels, network: &Network) -> Result<Network, CompressError> {
    let mut watch = |_: Event<'_>| {};
    let mut trainer = Untrained;
    let mut context = Context::new(&mut trainer, "test", 0, Arc::new(network.clone()), &mut watch);
    channels.compress(network.clone(), &mut context)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Over random graphs: what is left computes what the whole computes without what went.
    #[test]
    fn a_pruned_network_computes_what_the_masked_one_computes(
        choices in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..9),
        seed in any::<u64>(),
        cut in proptest::collection::vec(any::<u8>(), 16),
    ) {
        let network = Network::random(random_graph(&choices), seed);
        let dependencies = Dependencies::new(network.graph()).unwrap();
        let mut removed: Vec<bool> = (0..dependencies.len())
            .map(|unit| cut[unit % 16] < 100 && !dependencies.is_pinned(u32::try_from(unit).unwrap()))
            .collect();
        // Every layer keeps a channel.
        for index in weighted(network.graph()) {
            let units = dependencies.units(Value::Layer(index));
            if units.iter().all(|&unit| removed[unit as usize]) {
                removed[units[0] as usize] = false;
            }
        }
        let pruned = dependencies.prune(&network, &removed).unwrap();
        let masked = masked(&network, &dependencies, &removed);
        let image = image(network.graph().input_shape(), seed);
        let [a, b] = [&pruned, &masked].map(|network| evaluate(network, &image));
        for (a, b) in a.iter().zip(&b) {
            prop_assert!((a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{a} {b}");
        }
        let cost = Cost::Macs.of(network.graph(), &dependencies, &removed);
        prop_assert!((cost - pruned.graph().macs() as f64).abs() <= 1e-6 * cost);
    }
}

#[test]
fn budgets_are_met_closely_and_widths_are_multiples() {
    for graph in [zoo::vgg16_cifar10(), zoo::resnet18_cifar10(), zoo::mobilenet_cifar10()] {
        let network = Network::random(graph, 1);
        for (share, round_to, criterion) in
            [(0.5, 8, Criterion::L1), (0.25, 1, Criterion::BatchNorm), (0.1, 16, Criterion::L1)]
        {
            let channels = Channels { criterion, round_to, rounds: 2, ..Channels::to_macs(share) };
            let pruned = compress(&channels, &network).unwrap();
            let reached = pruned.graph().macs() as f64 / network.graph().macs() as f64;
            assert!(reached <= share && reached > share - 0.06, "{share} {reached}");
            for index in weighted(pruned.graph()) {
                let width = pruned.graph().shape(Value::Layer(index)).channels;
                assert!(width.is_multiple_of(round_to) || width == 10, "{width}");
            }
        }
    }
}

#[test]
fn latencies_are_met_and_unknown_layers_refused() {
    let network = Network::random(zoo::vgg16_cifar10(), 1);
    let table =
        BTreeMap::from([("features.0".to_owned(), vec![(64, 4.0)]), ("features.3".to_owned(), vec![(64, 6.0)])]);
    let latency = |at_most, table: &BTreeMap<_, _>| Channels {
        criterion: Criterion::L1,
        budget: Budget::Latency(Latency { at_most, table: table.clone() }),
        ..Channels::to_macs(1.0)
    };
    let pruned = compress(&latency(5.0, &table), &network).unwrap();
    let width = |layer: &str| pruned.weight(layer, "weight").unwrap().dims()[0] as f64;
    let reached = width("features.0") * 4.0 / 64.0 + width("features.3") * 6.0 / 64.0;
    assert!((4.8..=5.0).contains(&reached), "{reached}");
    let unknown = BTreeMap::from([("conv9".to_owned(), vec![(64, 4.0)])]);
    assert!(
        matches!(compress(&latency(5.0, &unknown), &network), Err(CompressError::Layer { layer, .. }) if layer == "conv9")
    );
}

#[test]
fn a_budget_below_what_must_stay_is_an_error() {
    let network = Network::random(zoo::resnet18_cifar10(), 1);
    let channels = Channels { criterion: Criterion::L1, keep: 0.5, ..Channels::to_macs(0.1) };
    assert!(matches!(compress(&channels, &network), Err(CompressError::Budget { .. })));
}

/// A trainer to which channels of even index matter.
struct Even;

impl crate::Trainer for Even {
    fn fine_tune(
        &mut self,
        network: &Network,
        _: &crate::FineTune,
        _: &mut dyn FnMut(&crate::TrainingProgress),
    ) -> Result<Network, crate::TrainerError> {
        Ok(network.clone())
    }

    fn fisher(
        &mut self,
        network: &Network,
        tensors: &[Value],
        _: usize,
        _: u64,
    ) -> Result<Vec<Vec<f64>>, crate::TrainerError> {
        let signal = |&value: &Value| {
            let channels = network.graph().shape(value).channels;
            (0..channels).map(|channel| if channel % 2 == 0 { 1.0 } else { 1e-6 }).collect()
        };
        Ok(tensors.iter().map(signal).collect())
    }

    fn observe(&mut self, _: &Network, _: usize) -> Result<BTreeMap<Value, crate::Observed>, crate::TrainerError> {
        Ok(BTreeMap::new())
    }

    fn accuracy(&mut self, _: &Network) -> Result<f64, crate::TrainerError> {
        Ok(0.5)
    }
}

#[test]
fn what_matters_by_its_fisher_signal_stays() {
    for graph in [zoo::resnet18_cifar10(), zoo::mobilenet_cifar10(), zoo::vgg16_cifar10()] {
        let network = Network::random(graph, 1);
        let mut watch = |_: Event<'_>| {};
        let mut trainer = Even;
        let mut context = Context::new(&mut trainer, "test", 0, Arc::new(network.clone()), &mut watch);
        // A quarter of the computations is left when every odd channel has gone.
        let pruned =
            Channels { penalty: 0.0, ..Channels::to_macs(0.3) }.compress(network.clone(), &mut context).unwrap();
        for index in weighted(pruned.graph()) {
            let name = &pruned.graph().layers()[index].name;
            let [whole, left] = [&network, &pruned].map(|network| network.weight(name, "weight").unwrap().dims()[0]);
            assert!(2 * left >= whole, "{name}: {left} of {whole}");
        }
    }
}

#[test]
fn a_residual_stream_is_one_unit() {
    let graph = zoo::resnet18_cifar10();
    let dependencies = Dependencies::new(&graph).unwrap();
    let units = |name: &str| {
        let index = graph.layers().iter().position(|layer| layer.name == name).unwrap();
        dependencies.units(Value::Layer(index)).to_vec()
    };
    for name in ["layer1.0.conv2", "layer1.1.conv2", "layer1.1.relu2"] {
        assert_eq!(units("conv1"), units(name));
    }
    assert_ne!(units("conv1"), units("layer1.0.conv1"));
    assert_eq!(units("layer2.0.conv2"), units("layer2.0.downsample.0"));
    assert!(units("fc").iter().all(|&unit| dependencies.is_pinned(unit)));
}
