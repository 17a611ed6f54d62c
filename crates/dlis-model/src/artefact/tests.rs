use std::io::Cursor;
use std::path::PathBuf;

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::{Activation, Conv2d, Linear, Pool, Shape, Value, Window, fold_batch_norm, zoo};

/// A network with every operation, attributes that differ from their defaults, and both formats.
pub(super) fn sample() -> Artefact {
    let mut graph = Graph::builder("sample", Shape::new(4, 9, 8));
    let window = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0, 2, 1], dilation: [1, 2] };
    let conv = Conv2d { in_channels: 4, out_channels: 6, groups: 2, window, bias: true };
    let x = graph.add_layer("conv", Op::Conv2d(conv), &[Value::Input]);
    let x = graph.add_layer("bn", Op::BatchNorm { channels: 6, eps: 0.1 + f32::EPSILON }, &[x]);
    let x = graph.add_layer("relu6", Op::Activation { function: Activation::Relu6 }, &[x]);
    let y = graph.max_pool("max", x, Window::square(3).with_padding(1));
    let pool = Pool { window: Window::square(3).with_padding(1), include_padding: true };
    let z = graph.add_layer("avg", Op::AvgPool(pool), &[x]);
    let x = graph.add("add", y, z);
    let s = graph.global_avg_pool("gap", x);
    let s = graph.add_layer("sigmoid", Op::Activation { function: Activation::Sigmoid }, &[s]);
    let x = graph.add_layer("scale", Op::Scale, &[x, s]);
    let x = graph.add_layer("cat", Op::Concat, &[x, y, x]);
    let x = graph.flatten("flatten", x);
    let (in_features, out_features) = (graph.shape(x).channels, 2);
    let x = graph.add_layer("fc", Op::Linear(Linear { in_features, out_features, bias: false }), &[x]);
    let x = graph.add_layer("naïve \"softmax\"\n", Op::Softmax, &[x]);
    let (graph, mut weights) = Network::random(graph.finish(x).unwrap(), 0).into_parts();
    for name in ["conv.weight", "bn.bias"] {
        let half = weights[name].to_f32().mapv(f16::from_f32);
        weights.insert(name.to_owned(), Weight::F16(half));
    }
    let network = Network::new(graph, weights).unwrap();
    Artefact::new(network).with("accuracy", "93.53 %").with("recipe", "{\"kind\": \"none\"}").with("", "\u{0}")
}

pub(super) fn bytes_of(artefact: &Artefact) -> Vec<u8> {
    let mut bytes = Vec::new();
    artefact.write(&mut bytes).unwrap();
    bytes
}

pub(super) fn read(bytes: &[u8]) -> Result<Artefact, ArtefactProblem> {
    Container::open(Cursor::new(bytes), bytes.len() as u64).and_then(Artefact::read)
}

#[test]
fn what_is_written_is_read() {
    let artefact = sample();
    let bytes = bytes_of(&artefact);
    assert_eq!(read(&bytes).unwrap(), artefact);
    assert_eq!(bytes_of(&artefact), bytes, "the same artefact is the same bytes");
    // The container is what others read too.
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), artefact.network.weights().len());
    assert_eq!(tensors.tensor("conv.weight").unwrap().dtype(), safetensors::Dtype::F16);
}

#[test]
fn the_output_may_be_the_input_or_any_layer() {
    for output in [Value::Input, Value::Layer(0)] {
        let mut graph = Graph::builder("g", Shape::new(1, 1, 1));
        let x = graph.relu("input", Value::Input);
        graph.relu("null", x);
        let artefact = Artefact::new(Network::random(graph.finish(output).unwrap(), 0));
        assert_eq!(read(&bytes_of(&artefact)).unwrap(), artefact);
    }
}

#[test]
fn the_zoo_round_trips_as_json() {
    for entry in zoo::ENTRIES {
        let graph = entry.graph();
        assert_eq!(graph_file::from_json(&graph_file::to_json(&graph).unwrap()).unwrap(), graph);
    }
}

#[test]
fn the_json_of_a_graph_is_stable() {
    let mut graph = Graph::builder("tiny", Shape::new(3, 8, 8));
    let x = graph.conv("conv1", Value::Input, 16, Window::square(3).with_padding(1));
    let x = graph.batch_norm("bn1", x);
    let x = graph.relu("relu1", x);
    insta::assert_snapshot!(graph_file::to_json(&graph.finish(x).unwrap()).unwrap(), @r##"{"name":"tiny","input":[3,8,8],"layers":[{"name":"conv1","inputs":[null],"op":"conv2d","in_channels":3,"out_channels":16,"kernel":[3,3],"padding":[1,1,1,1]},{"name":"bn1","inputs":["conv1"],"op":"batch_norm","channels":16,"eps":0.00001},{"name":"relu1","inputs":["bn1"],"op":"activation","function":"relu"}],"output":"relu1"}"##);
}

#[test]
fn saving_replaces_the_file_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let old = sample();
    old.save(&path).unwrap();
    assert!(old.clone().with("dlis.graph", "mine").save(&path).is_err());
    assert_eq!(Artefact::load(&path).unwrap(), old, "a failure leaves what was there");
    let new = sample().with("seed", "1");
    new.save(&path).unwrap();
    assert_eq!(Artefact::load(&path).unwrap(), new);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["model.safetensors"], "no temporary file stays");
    assert!(matches!(
        new.save(folder.path().join("absent").join("model.safetensors")),
        Err(ArtefactError { problem: ArtefactProblem::Io(_), .. })
    ));
}

fn dataset(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets").join(format!("{name}.safetensors"))
}

/// The trained weights fit the zoo by name, survive an artefact, and fold.
#[test]
fn the_trained_networks_load_fold_and_round_trip() {
    for (name, accuracy) in [("vgg16-cifar10", "93.53"), ("resnet18-cifar10", "94.88"), ("mobilenet-cifar10", "92.22")]
    {
        let graph = zoo::graph(name).unwrap();
        let artefact = Artefact::load_state_dict(dataset(name), graph).unwrap();
        assert_eq!(artefact.metadata["test_accuracy_percent"], accuracy);
        let trainable = artefact.network.graph().trainable_parameters();
        assert!(artefact.network.weight_bytes() as u64 > 2 * trainable, "statistics come on top");
        assert_eq!(read(&bytes_of(&artefact)).unwrap(), artefact);
        let folded = fold_batch_norm(artefact.network).unwrap();
        assert!(folded.graph().layers().iter().all(|layer| !matches!(layer.op, Op::BatchNorm { .. })));
    }
}

proptest! {
    /// The one attribute that is not an integer is read back to the bit.
    #[test]
    fn epsilons_round_trip(eps in any::<f32>().prop_filter("valid", |eps| eps.is_finite() && *eps >= 0.0)) {
        let mut graph = Graph::builder("g", Shape::new(1, 1, 1));
        let x = graph.add_layer("bn", Op::BatchNorm { channels: 1, eps }, &[Value::Input]);
        let graph = graph.finish(x).unwrap();
        prop_assert_eq!(graph_file::from_json(&graph_file::to_json(&graph).unwrap()).unwrap(), graph);
    }
}
