//! Every kernel is chosen or has a reason why it was not.

mod support;

use dlis_backend::Backend;
use dlis_model::{Graph, Network, Shape, Value, Window};
use dlis_runtime::{Explanation, StepExplanation};
use support::{POLICIES, omp, plan, small};

/// The explanation of a network, with what holds under any policy checked.
fn explain(network: &Network, text: &str) -> Explanation {
    let backend = omp(1);
    let plan = plan(network, &backend, text, 1);
    let explanation = plan.explain(&backend);
    assert_eq!(explanation.policy, text);
    assert_eq!(explanation.steps.len(), plan.program().steps.len());
    for (step, explained) in plan.program().steps.iter().zip(&explanation.steps) {
        assert_eq!((&explained.layer, &explained.kernel), (&step.layer, &step.kernel));
        let others = explained.others.iter().map(|other| &other.kernel);
        let mut named: Vec<String> = others.chain([&explained.kernel]).map(ToString::to_string).collect();
        let kernels = backend.kernels().iter().map(|kernel| kernel.id());
        let mut all: Vec<String> =
            kernels.filter(|id| id.op() == step.op.operation.name()).map(|id| id.to_string()).collect();
        named.sort();
        all.sort();
        assert_eq!(named, all, "{}", step.layer);
        for reason in explained.others.iter().map(|other| &other.reason).chain([&explained.reason]) {
            let number = !reason.contains("NaN") && !reason.contains("inf ");
            assert!(!reason.is_empty() && number, "{}: `{reason}`", step.layer);
        }
    }
    for op in plan.candidates() {
        let chosen: Vec<_> = op.candidates.iter().filter(|candidate| candidate.chosen).collect();
        assert!(matches!(chosen[..], [one] if one.ns.is_finite()), "{}: {chosen:?}", op.layer);
        assert!(op.candidates.is_sorted_by(|a, b| a.ns <= b.ns) && op.bytes > 0, "{}", op.layer);
    }
    explanation
}

fn step<'a>(explanation: &'a Explanation, layer: &str) -> &'a StepExplanation {
    explanation.steps.iter().find(|step| step.layer == layer && step.kernel.op() != "reorder").unwrap()
}

/// Why a kernel of this algorithm was not chosen.
fn reason<'a>(step: &'a StepExplanation, algorithm: &str) -> &'a str {
    &step.others.iter().find(|other| other.kernel.algorithm() == algorithm).unwrap().reason
}

#[test]
fn estimates_are_compared() {
    let explanation = explain(&small(10), "heuristic");
    let stem = step(&explanation, "stem");
    assert!(stem.reason.starts_with("estimated ") && stem.reason.contains("nominal machine"), "{}", stem.reason);
    let direct = reason(stem, "direct");
    assert!(direct.starts_with("estimated ") && direct.contains("µs"), "{direct}");
    assert!(reason(stem, "depthwise").contains("every channel on its own"), "{}", reason(stem, "depthwise"));
    let depthwise = step(&explanation, "block_conv2");
    assert_eq!(depthwise.kernel.algorithm(), "depthwise");
    // The text names every choice and every reason.
    let text = explanation.to_string();
    for step in &explanation.steps {
        assert!(text.contains(&format!("chosen  {}: {}", step.kernel, step.reason)), "{text}");
        for other in &step.others {
            assert!(text.contains(&format!("not     {}: {}", other.kernel, other.reason)), "{text}");
        }
    }
    let json = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), explanation);
}

#[test]
fn measurements_are_compared() {
    let explanation = explain(&small(10), "measured");
    let stem = step(&explanation, "stem");
    assert!(stem.reason.starts_with("measured "), "{}", stem.reason);
    let cost = |reason: &str| {
        let compared = reason.starts_with("measured ")
            && (reason.contains("times the chosen") || reason.contains("reordering costs more"));
        compared || (reason.starts_with("it had taken ") && reason.contains("given up"))
    };
    for algorithm in ["direct", "im2col-gemm", "implicit-gemm"] {
        if stem.kernel.algorithm() != algorithm {
            assert!(cost(reason(stem, algorithm)), "{}", reason(stem, algorithm));
        }
    }
}

#[test]
fn a_fixed_algorithm_is_chosen_wherever_it_can_be() {
    for algorithm in ["direct", "im2col-gemm"] {
        let explanation = explain(&small(10), &format!("fixed:{algorithm}"));
        for layer in ["stem", "block_conv1", "block_conv2", "block_shortcut", "excite"] {
            let step = step(&explanation, layer);
            assert_eq!(step.kernel.algorithm(), algorithm, "{layer}");
            assert_eq!(step.reason, format!("it matches `{algorithm}`"));
        }
        let stem = step(&explanation, "stem");
        assert_eq!(reason(stem, "implicit-gemm"), format!("it does not match `{algorithm}`"));
        // What cannot execute the layer says so, not that it does not match.
        assert!(reason(stem, "depthwise").contains("every channel on its own"), "{}", reason(stem, "depthwise"));
    }
}

#[test]
fn a_pattern_that_matches_nothing_leaves_the_choice_to_the_estimates() {
    let network = small(10);
    let (fixed, heuristic) = (explain(&network, "fixed:nonesuch"), explain(&network, "heuristic"));
    let mut others = 0;
    for (fixed, heuristic) in fixed.steps.iter().zip(&heuristic.steps) {
        assert_eq!(
            (&fixed.layer, &fixed.kernel, fixed.layout),
            (&heuristic.layer, &heuristic.kernel, heuristic.layout)
        );
        if fixed.kernel.op() != "reorder" {
            let expected = "no kernel that matches `nonesuch` can execute the layer; estimated ";
            assert!(fixed.reason.starts_with(expected), "{}", fixed.reason);
        }
        // The pattern has excluded the chosen as much as the others, so that it is no reason.
        assert_eq!(fixed.others, heuristic.others, "{}", fixed.layer);
        others += fixed.others.len();
    }
    assert!(others > 0);
    // One that matches nothing of some layers only.
    let depthwise = explain(&network, "fixed:conv2d/*/*/depthwise/*");
    assert!(step(&depthwise, "stem").reason.starts_with("no kernel that matches"));
    assert!(step(&depthwise, "block_conv2").reason.starts_with("it matches"));
}

#[test]
fn a_reorder_says_for_whom_it_is() {
    let mut graph = Graph::builder("flat", Shape::new(16, 8, 8));
    let x = graph.conv("conv", Value::Input, 32, Window::square(3).with_padding(1));
    let x = graph.flatten("flatten", x);
    let x = graph.linear("fc", x, 10);
    let network = Network::random(graph.finish(x).unwrap(), 0);
    let explanation = explain(&network, "fixed:implicit-gemm");
    let reorders: Vec<&StepExplanation> =
        explanation.steps.iter().filter(|step| step.kernel.op() == "reorder").collect();
    let layers: Vec<&str> = reorders.iter().map(|step| step.layer.as_str()).collect();
    assert_eq!(layers, ["conv", "fc"], "{explanation}");
    assert!(reorders.iter().all(|step| step.reason == "a layer wants the tensor in another layout"));
}

#[test]
fn every_policy_explains_every_kernel() {
    let network = small(3);
    for text in POLICIES {
        assert!(!explain(&network, text).steps.is_empty());
    }
}
