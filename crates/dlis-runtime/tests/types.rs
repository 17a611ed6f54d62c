//! Element types: where a network runs in u8, and where tensors are converted.

mod support;

use std::collections::BTreeMap;

use dlis_backend::{Backend, CompileError, Executable, HostBackend, Kernel, OpWeights, Program};
use dlis_formats::{DType, Format, Int8, Quantization, Ternary, TernaryPacking, Weight};
use dlis_hw::Hardware;
use dlis_model::{Activation, Graph, GraphBuilder, Network, Shape, Value, Window};
use dlis_runtime::{Plan, PlanError, Planner};
use support::anything::without;

/// A network whose layers of these names have int8 weights, and whose tensors of these names a quantisation
/// (`input` is the network's), a different one each.
fn network(build: impl FnOnce(&mut GraphBuilder) -> Value, integers: &[&str], tensors: &[&str]) -> Network {
    let mut graph = Graph::builder("types", Shape::new(4, 6, 6));
    let output = build(&mut graph);
    let network = Network::random(graph.finish(output).unwrap(), 1);
    let (graph, mut weights) = network.into_parts();
    for layer in integers {
        let weight = weights.get_mut(&format!("{layer}.weight")).unwrap();
        let dense = weight.to_f32().into_owned();
        *weight = Weight::Int8(Int8::quantize(&dense, Int8::max_abs_scales(&dense)).unwrap());
    }
    let value = |name: &str| match graph.layers().iter().position(|layer| layer.name == name) {
        Some(layer) => Value::Layer(layer),
        None => Value::Input,
    };
    let quantization = |index: usize| Quantization::new(0.01 + 0.001 * index as f32, 128).unwrap();
    let quantizations: BTreeMap<Value, Quantization> =
        tensors.iter().enumerate().map(|(index, name)| (value(name), quantization(index))).collect();
    Network::new(graph, weights).unwrap().with_quantization(quantizations).unwrap()
}

fn plan(network: &Network) -> Plan {
    let plan = Planner::new(&without(&[])).plan(network).unwrap();
    plan.program().validate().unwrap();
    consistent(&plan);
    plan
}

/// Every step as `layer:operation input>output`.
fn steps(program: &Program) -> Vec<String> {
    let name = |dtype: DType| dtype.name();
    let text = |step: &dlis_backend::Step| {
        let op = &step.op;
        format!("{}:{} {}>{}", step.layer, op.operation.name(), name(op.dtype().unwrap()), name(op.output.dtype))
    };
    program.steps.iter().filter(|step| step.op.operation.name() != "reorder").map(text).collect()
}

/// Checks that exactly the u8 tensors of every step have a quantisation.
fn consistent(plan: &Plan) {
    for (step, weights) in plan.program().steps.iter().zip(plan.weights()) {
        let is_u8 = |dtype: DType| usize::from(dtype == DType::U8);
        let (op, quantization) = (&step.op, weights.quantization);
        let inputs: usize = op.inputs.iter().map(|input| is_u8(input.dtype)).sum();
        assert_eq!(quantization.inputs.len(), inputs, "{}", step.layer);
        assert_eq!(usize::from(quantization.output.is_some()), is_u8(op.output.dtype), "{}", step.layer);
        let residual = if op.epilogue.residual { is_u8(op.output.dtype) } else { 0 };
        assert_eq!(usize::from(quantization.residual.is_some()), residual, "{}", step.layer);
    }
}

const SAME: Window = Window::square(3).with_padding(1);

#[test]
fn integers_follow_integers_and_conversions_stand_at_the_borders() {
    let build = |g: &mut GraphBuilder| {
        let x = g.conv("stem", Value::Input, 8, SAME);
        let x = g.relu("stem_relu", x);
        let x = g.conv("conv1", x, 8, SAME);
        let x = g.batch_norm("bn1", x);
        let x = g.relu("relu1", x);
        let x = g.max_pool("pool", x, Window::square(2).with_stride(2));
        let x = g.conv("conv2", x, 8, SAME);
        let x = g.relu("relu2", x);
        let x = g.global_avg_pool("mean", x);
        let x = g.flatten("flatten", x);
        g.linear("fc", x, 5)
    };
    let all = network(build, &["conv1", "conv2", "fc"], &["stem_relu", "relu1", "relu2", "mean"]);
    let plan = plan(&all);
    assert_eq!(
        steps(plan.program()),
        [
            "stem:conv2d f32>f32",
            "conv1:quantize f32>u8",
            "conv1:conv2d u8>u8",
            // The network says nothing of it, but it only moves elements.
            "pool:max_pool u8>u8",
            "conv2:conv2d u8>u8",
            "mean:global_avg_pool u8>u8",
            "fc:linear u8>f32",
        ]
    );
    // The quantisation is that of the value that is written: after the activation.
    let weights = plan.weights();
    assert_eq!(weights[2].quantization.inputs[0].scale(), 0.01);
    assert_eq!(weights[2].quantization.output.unwrap().scale(), 0.011);
    assert_eq!(weights[3].quantization.output, weights[3].quantization.inputs.first().copied());

    // Without a quantisation of its input a layer with integer weights runs in f32.
    let floats = network(build, &["conv1", "conv2", "fc"], &[]);
    assert!(steps(self::plan(&floats).program()).iter().all(|step| step.ends_with("f32>f32")));
    // With one but without integer weights, too.
    let floats = network(build, &[], &["input", "stem_relu", "relu1", "relu2", "mean"]);
    assert!(steps(self::plan(&floats).program()).iter().all(|step| step.ends_with("f32>f32")));
    // Where the result has none, it is f32; what follows is f32 until an integer layer.
    let some = network(build, &["conv1", "conv2"], &["stem_relu", "relu2"]);
    assert_eq!(
        steps(self::plan(&some).program())[1..],
        [
            "conv1:quantize f32>u8",
            "conv1:conv2d u8>f32",
            "pool:max_pool f32>f32",
            "conv2:conv2d f32>f32",
            "mean:global_avg_pool f32>f32",
            "fc:linear f32>f32",
        ]
    );
}

#[test]
fn ternary_weights_are_multiplied_with_bytes_where_their_input_has_a_quantisation() {
    let build = |g: &mut GraphBuilder| {
        let x = g.conv("conv1", Value::Input, 8, SAME);
        let x = g.conv("conv2", x, 8, SAME);
        let x = g.global_avg_pool("mean", x);
        let x = g.flatten("flatten", x);
        g.linear("fc", x, 5)
    };
    for packing in [TernaryPacking::TwoBit, TernaryPacking::FiveInEight] {
        let of = |tensors: &[&str]| {
            let network = network(build, &["conv1"], tensors);
            let ternary = ["conv2", "fc"].map(|layer| {
                let dense =
                    network.weight(layer, "weight").unwrap().to_f32().mapv(|w| (4.0 * w).round().clamp(-1.0, 1.0));
                (format!("{layer}.weight"), Weight::Ternary(Ternary::from_dense(&dense, packing).unwrap()))
            });
            steps(plan(&network.with_weights(ternary).unwrap()).program())
        };
        assert_eq!(
            of(&["input", "conv1", "conv2", "mean"]),
            [
                "conv1:quantize f32>u8",
                "conv1:conv2d u8>u8",
                "conv2:conv2d u8>u8",
                "mean:global_avg_pool u8>u8",
                "fc:linear u8>f32"
            ]
        );
        assert!(of(&[]).iter().all(|step| step.ends_with("f32>f32")));
    }
}

#[test]
fn a_tensor_is_converted_once_for_all_who_want_it() {
    let build = |g: &mut GraphBuilder| {
        let x = g.conv("stem", Value::Input, 8, SAME);
        let a = g.conv("a", x, 8, SAME);
        let b = g.conv("b", x, 8, SAME);
        let c = g.conv("c", x, 8, SAME);
        g.add_layer("concat", dlis_model::Op::Concat, &[a, b, c])
    };
    let of = |tensors: &[&str]| steps(plan(&network(build, &["a", "b"], tensors)).program());
    let all = of(&["stem", "a", "b", "c", "concat"]);
    assert_eq!(all.iter().filter(|step| step.contains("quantize")).count(), 3, "{all:?}");
    // The third branch is f32, so that the concatenation is too, and the others are converted back.
    assert_eq!(all[1], "a:quantize f32>u8");
    assert_eq!(all[5..], ["concat:dequantize u8>f32", "concat:dequantize u8>f32", "concat:concat f32>f32"], "{all:?}");
}

#[test]
fn residuals_have_the_type_of_the_result() {
    let build = |g: &mut GraphBuilder| {
        let x = g.conv("stem", Value::Input, 8, SAME);
        let y = g.conv("conv1", x, 8, SAME);
        let y = g.relu("relu1", y);
        let y = g.conv("conv2", y, 8, SAME);
        let x = g.add("add", x, y);
        g.relu("relu2", x)
    };
    let of = |tensors: &[&str]| steps(plan(&network(build, &["conv1", "conv2"], tensors)).program());
    // The residual is made as f32 and converted for the convolution, which has it converted for the sum as well.
    assert_eq!(
        of(&["stem", "relu1", "relu2"]),
        [
            "stem:conv2d f32>f32",
            "conv1:quantize f32>u8",
            "conv1:conv2d u8>u8",
            "conv2:conv2d u8>u8",
            "output:dequantize u8>f32"
        ]
    );
    // A residual of no quantisation keeps the result f32.
    assert_eq!(
        of(&["relu1", "relu2"]),
        ["stem:conv2d f32>f32", "conv1:conv2d f32>f32", "conv2:quantize f32>u8", "conv2:conv2d u8>f32"]
    );
    // One that is u8 is converted where the result is not.
    let both = network(build, &["stem", "conv1", "conv2"], &["input", "stem", "relu1"]);
    assert_eq!(
        steps(plan(&both).program())[1..],
        ["stem:conv2d u8>u8", "conv1:conv2d u8>u8", "conv2:dequantize u8>f32", "conv2:conv2d u8>f32"]
    );
}

#[test]
fn what_no_kernel_does_in_u8_is_done_in_f32() {
    let build = |g: &mut GraphBuilder| {
        let x = g.conv("conv", Value::Input, 8, SAME);
        let x = support::activation(g, "relu", x, Activation::Relu);
        let x = g.max_pool("pool", x, Window::square(2));
        g.global_avg_pool("mean", x)
    };
    let network = network(build, &["conv"], &["input", "relu", "pool", "mean"]);
    // Two quantisations that differ: the pooling would have to change elements.
    assert_eq!(
        steps(plan(&network).program()),
        [
            "conv:quantize f32>u8",
            "conv:conv2d u8>u8",
            "pool:dequantize u8>f32",
            "pool:max_pool f32>f32",
            "mean:global_avg_pool f32>f32",
        ]
    );
    let error = Planner::new(&without(&["dequantize"])).plan(&network).unwrap_err();
    assert!(matches!(&error, PlanError::NoKernel { layer, .. } if layer == "pool"), "{error}");
    assert!(error.to_string().contains("none changes the element type"), "{error}");
}

#[test]
fn weights_that_no_kernel_executes_are_expanded_and_say_so() {
    let mut graph = Graph::builder("expanded", Shape::new(4, 6, 6));
    let x = graph.depthwise("conv", Value::Input, SAME);
    let (graph, mut weights) = Network::random(graph.finish(x).unwrap(), 1).into_parts();
    let weight = weights.get_mut("conv.weight").unwrap();
    *weight = weight.convert(Format::FilterCsr).unwrap();
    let network = Network::new(graph, weights).unwrap();
    let backend = support::omp(1);
    let made = Planner::new(&backend).plan(&network).unwrap();
    let op = &made.ops()[0];
    let format = op.weight.as_ref().unwrap().format();
    // If some day a kernel does execute it, nothing is expanded.
    match op.expanded {
        Some(stored) => assert_eq!((stored, format), (Format::FilterCsr, Format::DenseF32)),
        None => assert_eq!(format, Format::FilterCsr),
    }
    let text = made.explain(&backend).to_string();
    assert_eq!(text.contains("filter-csr executed as dense-f32"), op.expanded.is_some(), "{text}");
}

/// A backend that is faster in f32 up to two images.
#[derive(Debug)]
struct PrefersF32(HostBackend);

impl Backend for PrefersF32 {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn hardware(&self) -> &Hardware {
        self.0.hardware()
    }

    fn threads(&self) -> usize {
        self.0.threads()
    }

    fn prefers_f32(&self, batch: usize) -> bool {
        batch <= 2
    }

    fn kernels(&self) -> &[&'static dyn Kernel] {
        self.0.kernels()
    }

    fn compile(&self, program: &Program, weights: &[OpWeights<'_>]) -> Result<Box<dyn Executable>, CompileError> {
        self.0.compile(program, weights)
    }
}

#[test]
fn integers_give_way_where_the_backend_prefers_floats() {
    let build = |g: &mut GraphBuilder| {
        let x = g.conv("conv1", Value::Input, 8, SAME);
        g.conv("conv2", x, 8, SAME)
    };
    let network = network(build, &["conv1", "conv2"], &["input", "conv1"]);
    let backend = PrefersF32(without(&[]));
    let plan = |policy: &str, batch| {
        Planner::new(&backend).policy(policy.parse().unwrap()).batch(batch).plan(&network).unwrap()
    };
    let integers = ["conv1:quantize f32>u8", "conv1:conv2d u8>u8", "conv2:conv2d u8>f32"];
    let floats = plan("heuristic", 2);
    assert_eq!(steps(floats.program()), ["conv1:conv2d f32>f32", "conv2:conv2d f32>f32"]);
    assert_eq!(floats.program().steps[0].op.weight, Some(Format::Int8));
    let reason = &floats.explain(&backend).steps[0].reason;
    assert!(reason.contains("faster in f32 than in integers"), "{reason}");
    assert_eq!(steps(plan("heuristic", 3).program()), integers);
    // Whoever names the kernels has asked for what they execute.
    assert_eq!(steps(plan("fixed:conv2d/u8/*/*/*", 1).program()), integers);
}
