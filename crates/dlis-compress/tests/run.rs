//! Running recipes with a trainer that changes weights.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use dlis_compress::{BUILT_IN, CompressError, Compressed, Constraint, Event, Library, Recipe};
use dlis_formats::{Format, Weight};
use dlis_model::{Graph, Network, Op, Shape, Value, Window, zoo};
use support::Rough;

/// A small network of residual blocks, depthwise and pointwise convolutions.
fn small() -> Network {
    let three = Window::square(3).with_padding(1);
    let mut graph = Graph::builder("small", Shape::new(3, 8, 8));
    let x = graph.conv("stem", Value::Input, 32, three);
    let x = graph.batch_norm("stem.bn", x);
    let x = graph.relu("stem.relu", x);
    let y = graph.conv("a", x, 64, three);
    let y = graph.batch_norm("a.bn", y);
    let y = graph.relu("a.relu", y);
    let y = graph.conv("b", y, 32, three);
    let y = graph.batch_norm("b.bn", y);
    let x = graph.add("add", y, x);
    let x = graph.relu("relu", x);
    let x = graph.max_pool("max", x, Window::square(2).with_stride(2));
    let x = graph.depthwise("dw", x, three);
    let x = graph.batch_norm("dw.bn", x);
    let x = graph.conv("pw", x, 96, Window::square(1));
    let x = graph.batch_norm("pw.bn", x);
    let x = graph.relu("pw.relu", x);
    let x = graph.global_avg_pool("pool", x);
    let x = graph.linear("fc", x, 10);
    Network::random(graph.finish(x).unwrap(), 3)
}

fn library() -> Library {
    Library::new(BUILT_IN.iter().map(|(_, text)| toml::from_str(text).unwrap())).unwrap()
}

fn run(
    name: &str,
    trainer: &mut Rough,
    checkpoints: &mut BTreeMap<String, Network>,
) -> Result<Compressed, CompressError> {
    library().run(name, &small(), trainer, checkpoints, &mut |_| {})
}

#[test]
fn every_recipe_runs_and_every_constraint_holds_in_what_is_stored() {
    let mut checkpoints = BTreeMap::new();
    for (name, _) in BUILT_IN {
        let compressed = run(name, &mut Rough::default(), &mut checkpoints);
        let compressed = compressed.unwrap_or_else(|error| panic!("{name}: {error}"));
        let after = compressed.report.steps.last().unwrap().after;
        let formats: BTreeSet<String> = ["a", "b", "pw"]
            .map(|layer| compressed.network.weight(layer, "weight").unwrap().format().to_string())
            .into();
        let formats: Vec<&str> = formats.iter().map(String::as_str).collect();
        let sparsity = compressed.report.steps.iter().rev().nth(1).unwrap().layers.iter();
        let selected = sparsity.filter(|layer| ["a", "b", "pw"].contains(&layer.layer.as_str()));
        let [zeros, weights] = selected.fold([0, 0], |[zeros, weights], layer| {
            [zeros + layer.after.weights - layer.after.non_zeros, weights + layer.after.weights]
        });
        let sparsity = zeros as f64 / weights as f64;
        let expected = match *name {
            "prune-50" | "two-four" => Some(0.5),
            "prune-80" | "block-80" | "channels-50-prune-80" | "prune-80-int8" => Some(0.8),
            "prune-90" | "even-90" => Some(0.9),
            "prune-95" | "even-95" => Some(0.95),
            "prune-98" => Some(0.98),
            _ => None,
        };
        if let Some(expected) = expected {
            assert!(sparsity >= expected - 1e-4 && sparsity < expected + 0.01, "{name}: {sparsity}");
        }
        let format = match *name {
            "two-four" => "two-four",
            "block-80" => "bsr-16x1",
            name if name.contains("int8") => "int8",
            name if name.contains("int4") => "int4",
            name if name.contains("ternary") => "ternary-5in8",
            name if name.contains("prune") || name.contains("even") => "csr-f16",
            _ => "dense-f16",
        };
        assert_eq!(formats, [format], "{name}");
        let ends = if name.contains("int8") || name.contains("ternary") { Format::Int8 } else { Format::DenseF16 };
        assert_eq!(compressed.network.weight("stem", "weight").unwrap().format(), ends, "{name}");
        assert!(!compressed.network.graph().layers().iter().any(|layer| matches!(layer.op, Op::BatchNorm { .. })));
        if let Some((_, share)) = [("channels-75", 0.75), ("channels-50", 0.5), ("channels-25", 0.25)]
            .iter()
            .find(|(channels, _)| name.starts_with(channels))
        {
            let share = share * small().graph().macs() as f64;
            assert!(after.macs as f64 <= share, "{name}: {} of {share}", after.macs);
        }
        assert_eq!(compressed.network.quantizations().is_empty(), !name.contains("int8"), "{name}");
        assert!(after.bytes < small().weight_bytes() as u64, "{name}");
        assert_eq!(compressed.report.accuracy(), Some(0.9));
    }
}

/// The bytes on disk that formats are for, on the networks they are for.
#[test]
fn sizes_are_what_the_formats_promise() {
    for (graph, name, least) in [
        (zoo::resnet18_cifar10(), "prune-90", 6.0),
        (zoo::resnet18_cifar10(), "ternary", 14.0),
        (zoo::mobilenet_cifar10(), "int8", 3.9),
    ] {
        let network = Network::random(graph, 0);
        let recipe = library().chain(name).unwrap().last().map(|recipe| Recipe { base: None, ..(*recipe).clone() });
        let compressed = recipe.unwrap().run(&network, &mut Rough::default(), &mut (), &mut |_| {}).unwrap();
        let times = network.weight_bytes() as f64 / compressed.network.weight_bytes() as f64;
        assert!(times >= least, "{name}: {times}");
    }
}

#[test]
fn what_is_quantised_is_everything_but_the_result() {
    let compressed = run("int8", &mut Rough::default(), &mut BTreeMap::new()).unwrap().network;
    let graph = compressed.graph();
    let index = |name: &str| Value::Layer(graph.layers().iter().position(|layer| layer.name == name).unwrap());
    assert!(compressed.quantization(Value::Input).is_some());
    assert_eq!(compressed.quantization(graph.output()), None);
    assert!(compressed.quantization(index("stem.relu")).is_some());
    assert_eq!(compressed.quantization(index("max")), compressed.quantization(index("relu")));
    assert!(matches!(compressed.weight("dw", "weight"), Some(Weight::Int8(_))));
}

/// After training, what a network has in as few bits is kept to the bit, in its own format; the activations are what
/// is new.
#[test]
fn weights_of_few_bits_are_not_quantised_again() {
    let ternary = run("ternary-0.1", &mut Rough::default(), &mut BTreeMap::new()).unwrap().network;
    let recipe = |name| -> Recipe { toml::from_str(BUILT_IN.iter().find(|(of, _)| *of == name).unwrap().1).unwrap() };
    let again = recipe("int8").run(&ternary, &mut Rough::default(), &mut (), &mut |_| {}).unwrap().network;
    assert_eq!(again.weight("a", "weight").unwrap().format(), Format::Ternary5In8);
    assert_eq!(again.weight("stem", "weight").unwrap().format(), Format::Int8);
    assert_eq!(again.weights(), ternary.weights());
    assert!(!again.quantizations().is_empty());
}

#[test]
fn a_killed_recipe_goes_on_after_its_last_step_and_gives_the_same() {
    let mut checkpoints = BTreeMap::new();
    let whole = run("prune-90", &mut Rough::default(), &mut BTreeMap::new()).unwrap();
    // Four stages a recipe: the sixth run is in the second one.
    let mut killed = Rough { fails_at: Some(5), ..Rough::default() };
    let error = run("prune-90", &mut killed, &mut checkpoints).unwrap_err();
    assert!(matches!(&error, CompressError::Trainer { .. }), "{error}");
    assert_eq!(checkpoints.len(), 1);
    let mut resumed = Rough::default();
    let mut steps = Vec::new();
    let mut watch = |event: Event<'_>| {
        if let Event::Step { resumed, .. } = event {
            steps.push(resumed);
        }
    };
    let result = library().run("prune-90", &small(), &mut resumed, &mut checkpoints, &mut watch).unwrap();
    assert_eq!(steps, [true, false, false]);
    assert_eq!(result.network, whole.network);
    assert_eq!(result.report, whole.report);
    // The run that failed is asked for again under its key.
    let mut uninterrupted = Rough::default();
    run("prune-90", &mut uninterrupted, &mut BTreeMap::new()).unwrap();
    let keys = |trainer: &Rough| trainer.runs.iter().map(|task| task.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&uninterrupted)[4..], keys(&resumed));
    assert_eq!(keys(&uninterrupted).iter().collect::<BTreeSet<_>>().len(), 12, "a key a run");
    assert!(keys(&resumed)[0].starts_with("small/prune-80/0-magnitude-"), "{}", keys(&resumed)[0]);
}

#[test]
fn a_changed_recipe_or_network_has_other_keys() {
    let recipe = |sparsity: f64, seed: u64| -> Recipe {
        let text = format!(
            "name = 'r'\nseed = {seed}\n[[steps]]\nkind = 'magnitude'\nsparsity = {sparsity}\nfine_tune = {{ epochs = 1 }}"
        );
        toml::from_str(&text).unwrap()
    };
    let key = |recipe: &Recipe, network: &Network| {
        let mut trainer = Rough::default();
        recipe.run(network, &mut trainer, &mut (), &mut |_| {}).unwrap();
        trainer.runs.remove(0).key
    };
    let other = Network::random(small().graph().clone(), 4);
    let keys = [
        key(&recipe(0.5, 0), &small()),
        key(&recipe(0.6, 0), &small()),
        key(&recipe(0.5, 1), &small()),
        key(&recipe(0.5, 0), &other),
    ];
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 4, "{keys:?}");
    assert_eq!(keys[0], key(&recipe(0.5, 0), &small()));
}

#[test]
fn a_trainer_that_breaks_its_constraints_is_caught() {
    for name in ["prune-50", "ternary", "int8-aware"] {
        let mut careless = Rough { careless: true, ..Rough::default() };
        let error = run(name, &mut careless, &mut BTreeMap::new()).unwrap_err();
        assert!(matches!(error, CompressError::Contract { .. }), "{name}: {error}");
    }
}

#[test]
fn later_training_holds_what_earlier_steps_did() {
    let recipe: Recipe = toml::from_str(
        "name = 'r'
        [[steps]]
        kind = 'magnitude'
        sparsity = 0.8
        layers = { only = ['a'] }
        [[steps]]
        kind = 'ternary'
        layers = { only = ['b'] }
        fine_tune = { epochs = 1 }
        [[steps]]
        kind = 'quantise'
        fine_tune = { epochs = 1, distill = { weight = 0.5, temperature = 2 } }",
    )
    .unwrap();
    let mut trainer = Rough::default();
    let compressed = recipe.run(&small(), &mut trainer, &mut (), &mut |_| {}).unwrap();
    let of = |run: usize, name: &str| trainer.runs[run].constraints.get(name);
    assert!(matches!(of(0, "a.weight"), Some(Constraint::Mask(_))));
    assert!(matches!(of(0, "b.weight"), Some(Constraint::Ternary { .. })));
    assert!(matches!(of(1, "a.weight"), Some(Constraint::Int { bits: 8, mask: Some(_) })));
    assert!(matches!(of(1, "b.weight"), Some(Constraint::Ternary { .. })));
    assert!(matches!(of(1, "pw.weight"), Some(Constraint::Int { bits: 8, mask: None })));
    assert!(trainer.runs[0].distill.is_none() && trainer.runs[1].distill.is_some());
    let format = |layer: &str| compressed.network.weight(layer, "weight").unwrap().format();
    assert_eq!(["a", "b", "pw"].map(format), [Format::Int8, Format::Ternary2Bit, Format::Int8]);
    let weight = compressed.network.weight("a", "weight").unwrap().to_f32();
    let zeros = weight.iter().filter(|&&value| value == 0.0).count();
    assert!(zeros as f64 >= 0.8 * weight.len() as f64 - 1.0, "{zeros}");
}
