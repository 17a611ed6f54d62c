//! Training runs on the CPU with the embedded images: seconds, not minutes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlis_backend::Schedule;
use dlis_compress::{Constraint, Distill, FineTune, Trainer as _, TrainerError};
use dlis_eval::dataset::{Dataset, Normalization, cifar10};
use dlis_formats::Weight;
use dlis_model::{Graph, Network, Shape, Value, Window, zoo};
use dlis_runtime::{Planner, Policy, Session};
use dlis_train::{Device, Options, TorchTrainer, initial};

/// A network with every kind of layer that compression treats specially.
fn graph() -> Graph {
    let mut graph = Graph::builder("tiny", Shape::new(3, 32, 32));
    let x = graph.conv("conv1", Value::Input, 8, Window::square(3).with_stride(4).with_padding(1));
    let x = graph.batch_norm("bn1", x);
    let a = graph.relu("relu1", x);
    let x = graph.conv("conv2", a, 8, Window::square(3).with_padding(1));
    let x = graph.batch_norm("bn2", x);
    let x = graph.add("add", x, a);
    let x = graph.relu("relu2", x);
    let x = graph.depthwise("dw", x, Window::square(3).with_padding(1));
    let x = graph.batch_norm("bn3", x);
    let x = graph.relu("relu3", x);
    let x = graph.global_avg_pool("pool", x);
    let x = graph.linear("fc", x, 10);
    graph.finish(x).unwrap()
}

fn images() -> Dataset {
    cifar10::embedded()
}

fn task(key: &str) -> FineTune {
    FineTune {
        key: key.to_owned(),
        epochs: 3.0,
        batch: 50,
        peak_rate: 0.1,
        weight_decay: 5e-4,
        label_smoothing: 0.1,
        warmup: 0.2,
        distill: None,
        constraints: BTreeMap::new(),
        activations: None,
        seed: 7,
    }
}

fn every_ten() -> Options {
    Options { report_every: 10, ..Options::default() }
}

/// Trains; the losses reported, and the result.
fn train(network: &Network, task: &FineTune) -> (Vec<f64>, Network) {
    let mut trainer = TorchTrainer::new(&images(), &images(), every_ten()).unwrap();
    let mut losses = Vec::new();
    let trained = trainer.fine_tune(network, task, &mut |progress| losses.push(progress.loss)).unwrap();
    (losses, trained)
}

fn falls(losses: &[f64]) {
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < 0.99 * first, "{losses:?}");
}

#[test]
fn the_loss_falls_and_accuracy_beats_chance() {
    let network = initial(graph(), 1).unwrap();
    let (losses, trained) = train(&network, &task("plain"));
    falls(&losses);
    let mut trainer = TorchTrainer::new(&images(), &images(), Options::default()).unwrap();
    let accuracy = trainer.accuracy(&trained).unwrap();
    assert!(accuracy > 0.15, "{accuracy}");
}

#[test]
fn masks_hold_exactly() {
    let network = initial(graph(), 1).unwrap();
    let keep = |name: &str| network.weights()[name].to_f32().mapv(|value| value > -0.1);
    let names = ["conv2.weight", "fc.weight"];
    let constraints: BTreeMap<_, _> = names.map(|name| (name.to_owned(), Constraint::Mask(keep(name)))).into();
    let (losses, trained) = train(&network, &FineTune { constraints: constraints.clone(), ..task("masks") });
    falls(&losses);
    for (name, constraint) in &constraints {
        let weight = &trained.weights()[name];
        assert_eq!(constraint.broken_by(weight), None, "{name}");
        let zeros = weight.to_f32().iter().filter(|&&value| value == 0.0).count();
        assert_eq!(zeros, keep(name).iter().filter(|&&keep| !keep).count(), "{name}: the others are trained");
    }
}

#[test]
fn ternary_and_integer_weights_are_exact() {
    let network = initial(graph(), 1).unwrap();
    let mask = network.weights()["fc.weight"].to_f32().mapv(|value| value > -0.2);
    let constraints = BTreeMap::from([
        ("conv2.weight".to_owned(), Constraint::Ternary { threshold: 0.3 }),
        ("dw.weight".to_owned(), Constraint::Int { bits: 8, mask: None }),
        ("fc.weight".to_owned(), Constraint::Int { bits: 4, mask: Some(mask) }),
    ]);
    let task = FineTune { constraints: constraints.clone(), activations: Some(8), ..task("exact") };
    let (losses, trained) = train(&network, &task);
    falls(&losses);
    for (name, constraint) in &constraints {
        assert_eq!(constraint.broken_by(&trained.weights()[name]), None, "{name}");
    }
    let ternary = trained.weights()["conv2.weight"].to_f32();
    let some = |test: fn(f32) -> bool| ternary.iter().any(|&value| test(value));
    assert!(some(|value| value > 0.0) && some(|value| value < 0.0) && some(|value| value == 0.0));
}

#[test]
fn a_student_approaches_its_teacher() {
    let (_, teacher) = train(&initial(graph(), 1).unwrap(), &task("teacher"));
    let student = initial(graph(), 2).unwrap();
    let distill = Distill { teacher: Arc::new(teacher), weight: 1.0, temperature: 4.0 };
    let (losses, _) = train(&student, &FineTune { distill: Some(distill), ..task("student") });
    falls(&losses);
}

#[test]
fn a_killed_run_gives_the_same_result() {
    let network = initial(graph(), 1).unwrap();
    let constraints = BTreeMap::from([("conv2.weight".to_owned(), Constraint::Ternary { threshold: 0.3 })]);
    let task = FineTune { constraints, activations: Some(8), ..task("net/recipe/0-ternary") };
    let (_, whole) = train(&network, &task);
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Some(folder.path().to_owned());
    let options = Options { checkpoints, checkpoint_every: Duration::ZERO, ..every_ten() };
    // Ended in the middle of the second epoch, after a checkpoint at the end of the first.
    let killed = std::panic::catch_unwind(|| {
        let mut trainer = TorchTrainer::new(&images(), &images(), options.clone()).unwrap();
        let mut reports = 0;
        let _ = trainer.fine_tune(&network, &task, &mut |_| {
            reports += 1;
            assert!(reports < 3, "as if killed");
        });
    });
    assert!(killed.is_err());
    let mut trainer = TorchTrainer::new(&images(), &images(), options).unwrap();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    trainer.watch(move |progress| seen.lock().unwrap().push(progress.step));
    let resumed = trainer.fine_tune(&network, &task, &mut |_| ()).unwrap();
    assert_eq!(steps.lock().unwrap()[..], [30, 40, 50, 60], "goes on after step 20");
    assert_eq!(resumed, whole);
    // A finished run is not done again.
    steps.lock().unwrap().clear();
    assert_eq!(trainer.fine_tune(&network, &task, &mut |_| ()).unwrap(), whole);
    assert!(steps.lock().unwrap().is_empty());
    // A run of another length under the same key is refused.
    let error = trainer.fine_tune(&network, &FineTune { epochs: 4.0, ..task.clone() }, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("it is of a run of 60 steps, expected 80"), "{error}");
}

#[test]
fn fisher_signals_are_squared_derivatives_by_a_channels_factor() {
    // One image, so that the sum over images is one term. A channel of `pool` is multiplied by a factor if its
    // column of the last layer's weight is.
    let network = Network::random(graph(), 3);
    let data = images();
    let one = data.select("one", &[11]).unwrap();
    let mut trainer = TorchTrainer::new(&one, &data, Options::default()).unwrap();
    let find = |name: &str| Value::Layer(network.graph().layers().iter().position(|layer| layer.name == name).unwrap());
    let signals = trainer.fisher(&network, &[find("relu3"), find("pool")], 1, 0).unwrap();
    let mut input = vec![0.0; one.image_len()];
    one.batch_into(0..1, &Normalization::CIFAR10, &mut input).unwrap();
    let loss = |channel: usize, factor: f32| {
        let (graph, mut weights) = network.clone().into_parts();
        let mut last = weights["fc.weight"].to_f32().into_owned();
        last.index_axis_mut(ndarray::Axis(1), channel).mapv_inplace(|value| value * factor);
        weights.insert("fc.weight".into(), Weight::F32(last));
        let scaled = Network::new(graph, weights).unwrap();
        let logits = TorchTrainer::outputs(&scaled, &input, Device::Cpu).unwrap();
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        sum.ln() - f64::from(logits[usize::from(one.labels()[0])])
    };
    // Averaging commutes with the factor: both tensors have the same signals.
    for (channel, (&before, &after)) in signals[0].iter().zip(&signals[1]).enumerate() {
        let derivative = (loss(channel, 1.05) - loss(channel, 0.95)) / 0.1;
        let expected = derivative * derivative / 2.0;
        for signal in [before, after] {
            assert!((signal - expected).abs() < 5e-3 * expected + 1e-6, "{channel}: {signal} {expected}");
        }
    }
    assert!(signals[0].iter().any(|&signal| signal > 1e-4), "{signals:?}");
}

#[test]
fn observations_cover_every_tensor() {
    let network = Network::random(graph(), 3);
    let data = images();
    let mut trainer = TorchTrainer::new(&data, &data, Options::default()).unwrap();
    let observed = trainer.observe(&network, 300).unwrap();
    assert_eq!(observed.len(), network.graph().layers().len() + 1);
    for (value, observed) in &observed {
        let elements = network.graph().shape(*value).elements() * 300;
        assert_eq!(observed.counts().iter().sum::<u64>(), elements as u64, "{value:?}");
        assert!(observed.counts().last() > Some(&0), "the largest magnitude is in the last bin: {value:?}");
    }
    assert_eq!(observed[&Value::Layer(2)].min(), 0.0, "a rectifier's output");
}

#[test]
fn outputs_are_those_of_the_runtime() {
    let data = images();
    let mut input = vec![0.0; 2 * data.image_len()];
    data.batch_into(0..2, &Normalization::CIFAR10, &mut input).unwrap();
    let backend = dlis_cpu_rayon::backend(1.try_into().unwrap(), Schedule::Static).unwrap();
    for name in ["resnet18-cifar10", "vgg16-cifar10", "mobilenet-cifar10"] {
        let network = Network::random(zoo::graph(name).unwrap(), 5);
        let found = TorchTrainer::outputs(&network, &input, Device::Cpu).unwrap();
        let plan = Planner::new(&backend).policy(Policy::Heuristic).batch(2).plan(&network).unwrap();
        let mut session = Session::new(&backend, plan).unwrap();
        let mut expected = vec![0.0; session.output_len()];
        session.run(&input, &mut expected).unwrap();
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-4 * largest.max(1.0), "{name}: {found} {expected}");
        }
    }
}

#[test]
fn impossible_tasks_are_refused() {
    let network = initial(graph(), 1).unwrap();
    let mut trainer = TorchTrainer::new(&images(), &images(), Options::default()).unwrap();
    let mut refuse = |change: &dyn Fn(&mut FineTune), text: &str| {
        let mut task = task("bad");
        change(&mut task);
        let error = trainer.fine_tune(&network, &task, &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    refuse(&|task| task.epochs = f64::NAN, "epochs");
    refuse(&|task| task.batch = 0, "batch");
    let constraint = |name: &'static str, constraint: Constraint| {
        move |task: &mut FineTune| drop(task.constraints.insert(name.to_owned(), constraint.clone()))
    };
    refuse(&constraint("bn1.weight", Constraint::Ternary { threshold: 0.1 }), "bn1.weight");
    refuse(&constraint("fc.weight", Constraint::Int { bits: 1, mask: None }), "2 to 8 bits");
    let mask = ndarray::ArrayD::from_elem(vec![2, 2], true);
    refuse(&constraint("fc.weight", Constraint::Mask(mask)), "a mask of [10, 8]");
}

#[test]
fn a_diverging_run_is_told() {
    let network = initial(graph(), 1).unwrap();
    let mut trainer = TorchTrainer::new(&images(), &images(), every_ten()).unwrap();
    let task = FineTune { peak_rate: 1e3, weight_decay: 1.0, ..task("diverges") };
    let result = trainer.fine_tune(&network, &task, &mut |_| ());
    assert!(matches!(result, Err(TrainerError::Diverged { .. })), "{result:?}");
}
