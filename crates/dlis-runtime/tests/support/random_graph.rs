//! Random graphs: a list of numbers, read as instructions that append layers.

use dlis_model::{Activation, Conv2d, Graph, GraphBuilder, Linear, Op, Pool, Shape, Value, Window};
use proptest::collection::vec;
use proptest::prelude::*;

/// One instruction: what to append, and numbers that decide the rest.
pub(crate) type Instruction = (u8, [u8; 6]);

/// Channels of a tensor at most.
const MAX_CHANNELS: usize = 24;

/// A graph of up to a few dozen layers on images of up to 9 x 9.
pub(crate) fn any_graph() -> impl Strategy<Value = Graph> {
    let extent = prop_oneof![1 => Just(1usize), 4 => 2usize..10];
    let instructions = vec((0u8..14, any::<[u8; 6]>()), 1..14);
    (1usize..9, extent.clone(), extent, instructions, any::<u8>()).prop_map(
        |(channels, height, width, instructions, output)| {
            build(Shape::new(channels, height, width), &instructions, output)
        },
    )
}

/// The graph that the instructions describe. Whatever they say, it is valid.
pub(crate) fn build(input: Shape, instructions: &[Instruction], output: u8) -> Graph {
    let mut state = State { graph: Graph::builder("random", input), values: vec![Value::Input] };
    for (kind, numbers) in instructions {
        state.append(*kind, *numbers);
    }
    if state.values.len() == 1 {
        state.push(Op::Activation { function: Activation::Relu }, &[Value::Input]);
    }
    // Mostly the last, at times one in the middle or the input itself.
    let picked = match usize::from(output) {
        0..160 => state.values.len() - 1,
        other => other % state.values.len(),
    };
    state.graph.finish(state.values[picked]).unwrap()
}

struct State {
    graph: GraphBuilder,
    /// Everything that a layer may read.
    values: Vec<Value>,
}

impl State {
    fn push(&mut self, op: Op, inputs: &[Value]) -> Value {
        let name = format!("{}{}", op.name(), self.values.len());
        let value = self.graph.add_layer(name, op, inputs);
        self.values.push(value);
        value
    }

    /// A value; the latest more often than the others, so that there are chains to fuse.
    fn pick(&self, number: u8) -> Value {
        let number = usize::from(number);
        let last = self.values.len() - 1;
        self.values[if number < 150 { last } else { number % (last + 1) }]
    }

    /// A value that satisfies the condition, if any does.
    fn pick_where(&self, number: u8, condition: impl Fn(Shape) -> bool) -> Option<Value> {
        let fitting: Vec<Value> =
            self.values.iter().copied().filter(|&value| condition(self.graph.shape(value))).collect();
        (!fitting.is_empty()).then(|| fitting[usize::from(number) % fitting.len()])
    }

    fn append(&mut self, kind: u8, numbers: [u8; 6]) {
        let [a, b, ..] = numbers;
        match kind {
            0 | 1 => self.convolution(self.pick(a), numbers),
            2 => self.depthwise(self.pick(a), numbers),
            3 => self.batch_norm(self.pick(a)),
            4 | 5 => self.activation(self.pick(a), b),
            6 => {
                let one = self.pick(a);
                let shape = self.graph.shape(one);
                let other = self.pick_where(b, |other| other == shape).unwrap_or(one);
                let operands = if a % 2 == 0 { [one, other] } else { [other, one] };
                self.push(Op::Add, &operands)
            }
            7 => self.residual_block(self.pick(a), numbers),
            8 => self.concat(self.pick(a), numbers),
            9 => self.squeeze_and_excitation(self.pick(a), numbers),
            10 => self.pool(self.pick(a), numbers),
            11 => {
                let op = if b % 2 == 0 { Op::GlobalAvgPool } else { Op::Softmax };
                self.push(op, &[self.pick(a)])
            }
            12 => {
                let flat = self.push(Op::Flatten, &[self.pick(a)]);
                if b % 4 == 0 { flat } else { self.linear(flat, numbers) }
            }
            _ => match self.pick_where(a, |shape| shape.plane() == [1, 1]) {
                Some(value) => self.linear(value, numbers),
                None => self.activation(self.pick(a), b),
            },
        };
    }

    fn window(&self, x: Value, [_, kernel, stride, padding, dilation, _]: [u8; 6]) -> Window {
        let kernel = [[1, 1], [3, 3], [3, 3], [2, 3], [5, 5], [1, 3]][usize::from(kernel) % 6];
        let stride = [[1, 1], [1, 1], [2, 2], [1, 2], [3, 3]][usize::from(stride) % 5];
        let half = [kernel[0] / 2, kernel[1] / 2, kernel[0] / 2, kernel[1] / 2];
        let padding = [half, half, [0; 4], [1, 0, 2, 1]][usize::from(padding) % 4];
        let dilation = if dilation % 5 == 0 { [2, 1] } else { [1, 1] };
        let window = Window { kernel, stride, padding, dilation };
        match window.output(self.graph.shape(x).plane()) {
            Some(_) => window,
            None => Window::square(1),
        }
    }

    fn convolution(&mut self, x: Value, numbers: [u8; 6]) -> Value {
        let window = self.window(x, numbers);
        let in_channels = self.graph.shape(x).channels;
        let number = usize::from(numbers[5]);
        let mut groups = 1 + number % 4;
        if !in_channels.is_multiple_of(groups) {
            groups = 1;
        }
        // Often as many channels as there were, so that there is something to add the result to.
        let out_channels = if numbers[0].is_multiple_of(2) {
            in_channels
        } else {
            groups * (1 + number / 4 % (MAX_CHANNELS / groups))
        };
        let bias = numbers[4].is_multiple_of(2);
        self.push(Op::Conv2d(Conv2d { in_channels, out_channels, groups, window, bias }), &[x])
    }

    fn depthwise(&mut self, x: Value, numbers: [u8; 6]) -> Value {
        let window = self.window(x, numbers);
        let channels = self.graph.shape(x).channels;
        let bias = numbers[4].is_multiple_of(2);
        let conv = Conv2d { in_channels: channels, out_channels: channels, groups: channels, window, bias };
        self.push(Op::Conv2d(conv), &[x])
    }

    fn batch_norm(&mut self, x: Value) -> Value {
        self.push(Op::BatchNorm { channels: self.graph.shape(x).channels, eps: 1e-5 }, &[x])
    }

    fn activation(&mut self, x: Value, number: u8) -> Value {
        let functions = [Activation::Relu, Activation::Relu, Activation::Relu6, Activation::Sigmoid];
        self.push(Op::Activation { function: functions[usize::from(number) % 4] }, &[x])
    }

    fn linear(&mut self, x: Value, [.., bias, out]: [u8; 6]) -> Value {
        let in_features = self.graph.shape(x).channels;
        let out_features = 1 + usize::from(out) % MAX_CHANNELS;
        self.push(Op::Linear(Linear { in_features, out_features, bias: bias % 3 != 0 }), &[x])
    }

    /// Two branches that are added in either order, each possibly normalised; the shortcut is the input
    /// itself where the shapes allow, else a convolution that comes before or after the other branch.
    fn residual_block(&mut self, x: Value, numbers: [u8; 6]) -> Value {
        let order = numbers[0];
        let one = self.convolution(x, numbers);
        let one = if order & 1 == 0 { self.batch_norm(one) } else { one };
        let shape = self.graph.shape(one);
        let other = if self.graph.shape(x) == shape && order & 2 == 0 {
            x
        } else {
            let Value::Layer(_) = one else { return one };
            // The same window again has the same output, whatever came of the instruction.
            let other = self.convolution(x, numbers);
            if order & 4 == 0 { self.batch_norm(other) } else { other }
        };
        let sum = self.push(Op::Add, &if order & 8 == 0 { [one, other] } else { [other, one] });
        if order & 16 == 0 { self.activation(sum, order >> 5) } else { sum }
    }

    fn concat(&mut self, x: Value, [_, count, picks @ ..]: [u8; 6]) -> Value {
        let plane = self.graph.shape(x).plane();
        let mut parts = vec![x];
        for &number in &picks[..usize::from(count) % 4] {
            let part = self.pick_where(number, |shape| shape.plane() == plane).unwrap_or(x);
            let channels: usize = parts.iter().chain([&part]).map(|&part| self.graph.shape(part).channels).sum();
            if channels <= 2 * MAX_CHANNELS {
                parts.insert(usize::from(number) % (parts.len() + 1), part);
            }
        }
        self.push(Op::Concat, &parts)
    }

    fn squeeze_and_excitation(&mut self, x: Value, [_, kind, middle, ..]: [u8; 6]) -> Value {
        let channels = self.graph.shape(x).channels;
        let mut factors = self.push(Op::GlobalAvgPool, &[x]);
        let widths = [1 + usize::from(middle) % MAX_CHANNELS, channels];
        for (out, function) in widths.into_iter().zip([Activation::Relu, Activation::Sigmoid]) {
            let inputs = self.graph.shape(factors).channels;
            let op = if kind % 2 == 0 {
                Op::Linear(Linear { in_features: inputs, out_features: out, bias: true })
            } else {
                let window = Window::square(1);
                Op::Conv2d(Conv2d { in_channels: inputs, out_channels: out, groups: 1, window, bias: true })
            };
            let y = self.push(op, &[factors]);
            factors = self.push(Op::Activation { function }, &[y]);
        }
        self.push(Op::Scale, &[x, factors])
    }

    fn pool(&mut self, x: Value, [_, kind, kernel, stride, padding, _]: [u8; 6]) -> Value {
        let kernel = 1 + usize::from(kernel) % 3;
        let padding = usize::from(padding) % 2 * (kernel / 2);
        let window = Window::square(kernel).with_stride(1 + usize::from(stride) % 3).with_padding(padding);
        let plane = self.graph.shape(x).plane();
        let window = if window.output(plane).is_some() { window } else { Window::square(1) };
        let pool = Pool { window, include_padding: kind & 2 == 0 };
        self.push(if kind % 2 == 0 { Op::MaxPool(pool) } else { Op::AvgPool(pool) }, &[x])
    }
}
