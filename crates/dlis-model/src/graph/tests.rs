use proptest::prelude::*;

use super::*;
use crate::Window;

const INPUT: Shape = Shape::new(4, 8, 8);

fn layer(name: &str, op: Op, inputs: &[Value]) -> Layer {
    Layer { name: name.to_owned(), op, inputs: inputs.to_vec() }
}

fn conv(out_channels: usize, window: Window) -> Op {
    Op::Conv2d(Conv2d { in_channels: 4, out_channels, groups: 1, window, bias: false })
}

/// The error of a graph of one layer.
fn error_of(op: Op) -> LayerError {
    match Graph::new("g".to_owned(), INPUT, vec![layer("a", op, &[Value::Input])], Value::Layer(0)) {
        Err(GraphError::Layer { source, .. }) => source,
        other => panic!("expected an error of a layer, found {other:?}"),
    }
}

#[test]
fn graphs_that_name_layers_wrongly_are_refused() {
    let add = |a, b| layer("add", Op::Add, &[a, b]);
    let graph = |layers, output| Graph::new("g".to_owned(), INPUT, layers, output);
    let messages = [
        graph(vec![], Value::Input),
        graph(vec![layer("a", Op::Softmax, &[Value::Input])], Value::Layer(1)),
        graph(vec![layer("", Op::Softmax, &[Value::Input])], Value::Layer(0)),
        graph(vec![add(Value::Input, Value::Layer(0))], Value::Layer(0)),
        graph(vec![add(Value::Input, Value::Input), add(Value::Input, Value::Input)], Value::Layer(0)),
        graph(vec![layer("cat", Op::Concat, &[])], Value::Layer(0)),
        Graph::new("g".to_owned(), Shape::new(0, 1, 1), vec![add(Value::Input, Value::Input)], Value::Layer(0)),
    ]
    .map(|result| result.unwrap_err().to_string());
    insta::assert_snapshot!(messages.join("\n"), @r"
    network `g`: 0 layers, expected 1 to 65536
    network `g`: the output is not one of its layers
    network `g`, layer ``: its name is empty or used by an earlier layer
    network `g`, layer `add`: an input is not an earlier layer
    network `g`, layer `add`: its name is empty or used by an earlier layer
    network `g`, layer `cat`: concat takes 1 input(s), found 0
    network `g`: an input of 0x1x1 has no elements or more than 4294967296
    ");
}

#[test]
fn the_number_of_layers_is_bounded() {
    let layers: Vec<_> = (0..=MAX_LAYERS).map(|i| layer(&i.to_string(), Op::Softmax, &[Value::Input])).collect();
    let error = Graph::new("g".to_owned(), INPUT, layers, Value::Layer(0)).unwrap_err();
    assert_eq!(error, GraphError::LayerCount { graph: "g".to_owned(), count: MAX_LAYERS + 1, max: MAX_LAYERS });
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let square = Window::square(3);
    let bad = [
        Window::square(0),
        Window::square(9),
        square.with_stride(0),
        Window { dilation: [0, 1], ..square },
        Window { dilation: [4, 1], ..square },
        square.with_padding(usize::MAX),
        Window { dilation: [usize::MAX, 1], ..square },
    ];
    for window in bad {
        assert_eq!(
            error_of(conv(1, window)),
            LayerError::Window { window: Box::new(window), input: INPUT },
            "{window:?}"
        );
    }
    // Pooling needs an element in each window.
    let window = square.with_padding(3);
    let pool = Pool { window, include_padding: true };
    assert_eq!(error_of(Op::AvgPool(pool)), LayerError::Window { window: Box::new(window), input: INPUT });
}

#[test]
fn sizes_that_nothing_could_hold_are_refused() {
    let wide = Window::square(1).with_padding(1 << 40);
    assert_eq!(error_of(conv(usize::MAX, Window::square(1))), LayerError::TooLarge);
    assert_eq!(error_of(conv(1, wide.with_stride(1 << 40))), LayerError::TooLarge, "a padded input is bounded");
    let huge = Window { kernel: [1 << 40; 2], stride: [1 << 40; 2], padding: [(1 << 40) - 1; 4], dilation: [1; 2] };
    assert_eq!(error_of(Op::MaxPool(Pool { window: huge, include_padding: false })), LayerError::TooLarge);
    // Each concatenation multiplies: the chain ends at the bound, not in an overflow.
    let mut graph = Graph::builder("chain", INPUT);
    let mut x = graph.input();
    for i in 0..100 {
        x = graph.add_layer(format!("cat{i}"), Op::Concat, &[x; 16]);
    }
    assert!(matches!(graph.finish(x), Err(GraphError::Layer { source: LayerError::TooLarge, .. })));
    // Even where the input is at fault already.
    let mut graph = Graph::builder("overflow", Shape::new(usize::MAX, 2, 2));
    let x = graph.flatten("flatten", Value::Input);
    assert!(graph.finish(x).is_err());
}

#[test]
fn counts_saturate() {
    // 2^30 taps at about 2^30 positions in each layer.
    let window = Window::square(1 << 15).with_padding(1 << 14);
    let op = Op::Conv2d(Conv2d { in_channels: 1, out_channels: 1, groups: 1, window, bias: false });
    let graph = |count: usize| {
        let layers = (0..count).map(|i| layer(&i.to_string(), op, &[Value::Input])).collect();
        Graph::new("g".to_owned(), Shape::new(1, 1 << 15, 1 << 15), layers, Value::Input).unwrap()
    };
    let each = ((1 << 15) + 1u64).pow(2) << 30;
    assert_eq!(graph(15).macs(), 15 * each);
    assert_eq!(graph(16).macs(), u64::MAX);
}

#[test]
fn unknown_keys_of_an_operation_are_refused() {
    for text in [
        r#"{"op":"conv2d","in_channels":1,"out_channels":1,"kernel":[1,1],"extra":1}"#,
        r#"{"op":"max_pool","kernel":[1,1],"extra":1}"#,
        r#"{"op":"batch_norm","channels":1,"eps":0.1,"extra":1}"#,
        r#"{"op":"activation","function":"relu","extra":1}"#,
        r#"{"op":"linear","in_features":1,"out_features":1,"extra":1}"#,
    ] {
        assert!(serde_json::from_str::<Op>(&text.replace(r#","extra":1"#, "")).is_ok(), "{text}");
        assert!(serde_json::from_str::<Op>(text).is_err(), "{text}");
    }
}

proptest! {
    /// The formula of the output's extent, against sliding the window.
    #[test]
    fn a_window_s_output_is_the_number_of_places_it_fits(
        input in 1usize..20,
        kernel in 1usize..5,
        stride in 1usize..4,
        padding in (0usize..4, 0usize..4),
        dilation in 1usize..4,
    ) {
        let window = Window {
            kernel: [kernel, 1],
            stride: [stride, 1],
            padding: [padding.0, 0, padding.1, 0],
            dilation: [dilation, 1],
        };
        let padded = input + padding.0 + padding.1;
        let places = (0..padded).step_by(stride).filter(|start| start + dilation * (kernel - 1) < padded).count();
        prop_assert_eq!(window.output([input, 1]), (places > 0).then_some([places, 1]));
    }
}
