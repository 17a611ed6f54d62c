//! The layout of every operation, so that kernels and the conversions between them cost least in sum.

use dlis_backend::Layout;

use crate::lower::{Lowered, Source};

/// What a layout costs at one operation; infinite where no kernel has it.
pub(crate) type LayoutCosts = [f64; Layout::STRIDED.len()];

/// Whether a tensor is wanted in the element type in which it is made, or converted to the other.
pub(crate) const MADE: usize = 0;
pub(crate) const CONVERTED: usize = 1;

/// What moving one tensor costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct TensorCosts {
    /// To the other layout, as made and converted, by the layout it is in.
    pub(crate) reorder: [LayoutCosts; 2],
    /// From the element type in which it is made to the other, by layout.
    pub(crate) convert: LayoutCosts,
}

impl TensorCosts {
    /// Whether a tensor made in `has`, wanted converted and in the other layout, is converted first.
    pub(crate) fn converts_first(&self, has: Layout) -> bool {
        let there = other(has) as usize;
        self.convert[has as usize] + self.reorder[CONVERTED][has as usize]
            <= self.reorder[MADE][has as usize] + self.convert[there]
    }

    /// What it costs to have the tensor in every form that is wanted, each made once.
    fn of(&self, has: Layout, wants: &Wants) -> f64 {
        let (here, there) = (has as usize, other(has) as usize);
        let mut cost = 0.0;
        let reordered = wants[MADE][there] > 0;
        if reordered {
            cost += self.reorder[MADE][here];
        }
        let converted = wants[CONVERTED][here] > 0;
        if converted {
            cost += self.convert[here];
        }
        if wants[CONVERTED][there] > 0 {
            let reorder_first = self.convert[there] + if reordered { 0.0 } else { self.reorder[MADE][here] };
            let convert_first = self.reorder[CONVERTED][here] + if converted { 0.0 } else { self.convert[here] };
            cost += reorder_first.min(convert_first);
        }
        cost
    }
}

/// How many operands want a tensor: as made or converted, by layout.
type Wants = [[u32; Layout::STRIDED.len()]; 2];

/// One operand of an operation.
#[derive(Clone, Copy, Debug)]
struct Operand {
    tensor: usize,
    converted: usize,
    /// Whether it is wanted in NCHW whatever the operation's layout.
    flat: bool,
}

pub(crate) const fn other(layout: Layout) -> Layout {
    match layout {
        Layout::Nchw => Layout::Nhwc,
        Layout::Nhwc | Layout::Nhwc16n => Layout::Nchw,
    }
}

/// The layout of every operation: the least sum of the operations' costs and of the conversions between them.
/// `tensors` are the network's input, then every operation's result.
///
/// Coordinate descent from each uniform choice: operations are visited in turn and take the layout
/// that is cheapest given their neighbours', until none changes. A chain of operations that would gain
/// only by changing together is found by the other uniform start.
pub(crate) fn layouts(lowered: &Lowered, costs: &[LayoutCosts], tensors: &[TensorCosts]) -> Vec<Layout> {
    let starts = Layout::STRIDED.map(|start| {
        let uniform = costs.iter().map(|costs| if costs[start as usize].is_finite() { start } else { other(start) });
        let mut descent = Descent::new(lowered, costs, tensors, uniform.collect());
        descent.run();
        (descent.total(), descent.layouts)
    });
    let [first, second] = starts;
    if second.0 < first.0 { second.1 } else { first.1 }
}

/// Layouts that are being improved.
struct Descent<'a> {
    costs: &'a [LayoutCosts],
    tensors: &'a [TensorCosts],
    operands: Vec<Vec<Operand>>,
    layouts: Vec<Layout>,
    /// Of every tensor.
    wants: Vec<Wants>,
    /// The tensors that changing an operation's layout touches: its distinct operands and its result.
    touched: Vec<Vec<usize>>,
}

impl<'a> Descent<'a> {
    /// Sweeps over all operations, at most. Two or three do; rounding might make it go round in circles.
    const MAX_SWEEPS: usize = 64;

    fn new(lowered: &Lowered, costs: &'a [LayoutCosts], tensors: &'a [TensorCosts], layouts: Vec<Layout>) -> Self {
        let operand = |source: Source, dtype| {
            let tensor = source.tensor();
            let converted = if lowered.made_as(tensor) == dtype { MADE } else { CONVERTED };
            Operand { tensor, converted, flat: matches!(source, Source::Flat { .. }) }
        };
        let operands: Vec<Vec<Operand>> =
            lowered.ops.iter().map(|op| op.wanted().map(|(source, dtype)| operand(source, dtype)).collect()).collect();
        let touched = operands.iter().enumerate().map(|(op, operands)| {
            let mut touched: Vec<usize> = operands.iter().filter(|o| !o.flat).map(|o| o.tensor).collect();
            touched.push(op + 1);
            touched.sort_unstable();
            touched.dedup();
            touched
        });
        let touched = touched.collect();
        let mut wants: Vec<Wants> = vec![Default::default(); tensors.len()];
        for (operands, &layout) in operands.iter().zip(&layouts) {
            for operand in operands {
                let layout = if operand.flat { Layout::Nchw } else { layout };
                wants[operand.tensor][operand.converted][layout as usize] += 1;
            }
        }
        let result = operand(lowered.output, dlis_formats::DType::F32);
        wants[result.tensor][result.converted][Layout::Nchw as usize] += 1;
        Self { costs, tensors, operands, layouts, wants, touched }
    }

    fn run(&mut self) {
        for _ in 0..Self::MAX_SWEEPS {
            let mut changed = false;
            for op in 0..self.layouts.len() {
                let before = self.around(op);
                self.flip(op);
                // Only what the change touches is counted again, so that a sweep takes linear time.
                if self.around(op) < before {
                    changed = true;
                } else {
                    self.flip(op);
                }
            }
            if !changed {
                break;
            }
        }
    }

    fn flip(&mut self, op: usize) {
        let from = self.layouts[op];
        let to = other(from);
        self.layouts[op] = to;
        for operand in self.operands[op].iter().filter(|operand| !operand.flat) {
            let wants = &mut self.wants[operand.tensor][operand.converted];
            wants[from as usize] -= 1;
            wants[to as usize] += 1;
        }
    }

    /// The costs that the layout of an operation has a say in.
    fn around(&self, op: usize) -> f64 {
        let tensors: f64 = self.touched[op].iter().map(|&tensor| self.of_tensor(tensor)).sum();
        self.costs[op][self.layouts[op] as usize] + tensors
    }

    fn of_tensor(&self, tensor: usize) -> f64 {
        let has = tensor.checked_sub(1).map_or(Layout::Nchw, |op| self.layouts[op]);
        self.tensors[tensor].of(has, &self.wants[tensor])
    }

    fn total(&self) -> f64 {
        let ops: f64 = self.costs.iter().zip(&self.layouts).map(|(costs, &layout)| costs[layout as usize]).sum();
        ops + (0..self.tensors.len()).map(|tensor| self.of_tensor(tensor)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dlis_model::{Graph, Network, Shape, Value, Window};
    use proptest::prelude::*;

    use crate::lower::{Fusion, lower};

    /// A chain of convolutions with a skip over every second.
    fn chain(ops: usize) -> Lowered {
        let mut graph = Graph::builder("chain", Shape::new(2, 3, 3));
        let mut x = Value::Input;
        for index in 0..ops {
            let y = graph.conv(format!("conv{index}"), x, 2, Window::square(1));
            x = if index % 2 == 1 { graph.add(format!("add{index}"), y, x) } else { y };
        }
        lower(&Network::random(graph.finish(x).unwrap(), 0), Fusion::Full).unwrap()
    }

    fn numbers(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f64 / 1e4
        }
    }

    proptest! {
        /// What a change costs around an operation is what it costs in all, and no single change is left that pays.
        #[test]
        fn descents_end_where_no_single_change_pays(seed in any::<u64>(), ops in 1usize..12) {
            let lowered = chain(ops);
            let mut next = numbers(seed);
            let costs: Vec<LayoutCosts> = lowered.ops.iter().map(|_| [next(), next()]).collect();
            let tensor = |next: &mut dyn FnMut() -> f64| TensorCosts {
                reorder: [[next(), next()], [next(), next()]],
                convert: [next(), next()],
            };
            let tensors: Vec<TensorCosts> = (0..=lowered.ops.len()).map(|_| tensor(&mut next)).collect();
            let found = layouts(&lowered, &costs, &tensors);
            let total = |layouts: &[Layout]| Descent::new(&lowered, &costs, &tensors, layouts.to_vec()).total();
            let least = total(&found);
            for op in 0..found.len() {
                let mut descent = Descent::new(&lowered, &costs, &tensors, found.clone());
                let before = descent.around(op);
                descent.flip(op);
                let locally = descent.around(op) - before;
                let globally = total(&descent.layouts) - least;
                prop_assert!((locally - globally).abs() <= 1e-6 * least, "{} and {}", locally, globally);
                prop_assert!((descent.total() - total(&descent.layouts)).abs() <= 1e-6 * least);
                prop_assert!(globally >= -1e-6 * least, "operation {}: {}", op, globally);
            }
        }
    }

    /// A hundred thousand operations: quadratic time would be hours.
    #[test]
    fn long_networks_take_linear_time() {
        let mut lowered = chain(1);
        let op = lowered.ops[0].clone();
        for index in 1..100_000 {
            let mut op = op.clone();
            op.inputs = vec![Source::Op(index - 1)];
            lowered.ops.push(op);
        }
        lowered.output = Source::Op(99_999);
        let mut next = numbers(1);
        let costs: Vec<LayoutCosts> = lowered.ops.iter().map(|_| [next(), next()]).collect();
        let tensors = vec![TensorCosts { reorder: [[300.0; 2]; 2], convert: [0.0; 2] }; lowered.ops.len() + 1];
        let found = layouts(&lowered, &costs, &tensors);
        assert!(Layout::STRIDED.iter().all(|layout| found.contains(layout)));
    }
}
