//! The layout of every operation, so that kernels and the conversions between them cost least in sum.

use dlis_backend::Layout;

use crate::forms::{ByForm, CONVERTED, Form, LayoutCosts, MADE, TensorCosts};
use crate::lower::{Lowered, Source};

/// How many operands want a tensor, by form.
type Wants = ByForm<u32>;

/// One operand of an operation.
#[derive(Clone, Copy, Debug)]
struct Operand {
    tensor: usize,
    kind: usize,
    /// Whether it is wanted in NCHW whatever the operation's layout.
    flat: bool,
}

/// The least sum of the operations' costs, which are infinite in layouts in which no kernel executes them, and of the
/// conversions between them; and the layout of every operation with which it comes to that. `tensors` are the network's
/// input, then every operation's result.
///
/// Coordinate descent from each uniform choice, or what comes closest: operations are visited in turn and take the
/// layout that is cheapest given their neighbours', until none changes. A chain of operations that would gain
/// only by changing together is found by another uniform start.
pub(crate) fn layouts(lowered: &Lowered, costs: &[LayoutCosts], tensors: &[TensorCosts]) -> (f64, Vec<Layout>) {
    let cost = |costs: &LayoutCosts, layout: &Layout| costs[*layout as usize];
    let cheapest = |costs: &LayoutCosts| {
        let better = |best, layout| if cost(costs, &layout) < cost(costs, &best) { layout } else { best };
        Layout::ALL.into_iter().fold(Layout::Nchw, better)
    };
    let starts = Layout::ALL.into_iter().filter(|start| costs.iter().any(|costs| cost(costs, start).is_finite()));
    let found = starts.map(|start| {
        let uniform = costs.iter().map(|costs| if cost(costs, &start).is_finite() { start } else { cheapest(costs) });
        let mut descent = Descent::new(lowered, costs, tensors, uniform.collect());
        descent.run();
        (descent.total(), descent.layouts)
    });
    found.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default()
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
            let kind = if lowered.made_as(tensor) == dtype { MADE } else { CONVERTED };
            Operand { tensor, kind, flat: matches!(source, Source::Flat { .. }) }
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
                wants[operand.tensor][Form { kind: operand.kind, layout }] += 1;
            }
        }
        let result = operand(lowered.output, dlis_formats::DType::F32);
        wants[result.tensor][Form { kind: result.kind, layout: Layout::Nchw }] += 1;
        Self { costs, tensors, operands, layouts, wants, touched }
    }

    fn run(&mut self) {
        for _ in 0..Self::MAX_SWEEPS {
            let mut changed = false;
            for op in 0..self.layouts.len() {
                // Only what the change touches is counted again, so that a sweep takes linear time.
                let mut least = self.around(op);
                for layout in Layout::ALL.into_iter().filter(|&layout| self.costs[op][layout as usize].is_finite()) {
                    let before = self.set(op, layout);
                    let cost = self.around(op);
                    if cost < least {
                        (least, changed) = (cost, true);
                    } else {
                        self.set(op, before);
                    }
                }
            }
            if !changed {
                break;
            }
        }
    }

    /// Brings an operation into a layout and says which it was in.
    fn set(&mut self, op: usize, to: Layout) -> Layout {
        let from = std::mem::replace(&mut self.layouts[op], to);
        for operand in self.operands[op].iter().filter(|operand| !operand.flat) {
            let wants = &mut self.wants[operand.tensor];
            wants[Form { kind: operand.kind, layout: from }] -= 1;
            wants[Form { kind: operand.kind, layout: to }] += 1;
        }
        from
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
        lower(Network::random(graph.finish(x).unwrap(), 0), Fusion::Full).unwrap()
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

    const LAYOUTS: usize = Layout::ALL.len();

    fn costs_of(next: &mut dyn FnMut() -> f64) -> LayoutCosts {
        std::array::from_fn(|_| next())
    }

    /// Of a tensor, moving which costs nothing within a form.
    fn tensor_of(next: &mut dyn FnMut() -> f64) -> TensorCosts {
        let mut reorder: [[LayoutCosts; LAYOUTS]; 2] = [[[0.0; LAYOUTS]; LAYOUTS]; 2];
        for (from, costs) in reorder.iter_mut().flat_map(|kind| kind.iter_mut().enumerate()) {
            *costs = costs_of(next);
            costs[from] = 0.0;
        }
        TensorCosts { reorder, convert: costs_of(next) }
    }

    proptest! {
        /// What a change costs around an operation is what it costs in all, and no single change is left that pays.
        /// What no kernel executes is not chosen where another layout has one.
        #[test]
        fn descents_end_where_no_single_change_pays(
            seed in any::<u64>(),
            lacking in prop::collection::vec(prop::sample::subsequence(vec![0, 1, 2], 0..3), 12),
            ops in 1usize..12,
        ) {
            let lowered = chain(ops);
            let mut next = numbers(seed);
            let mut costs: Vec<LayoutCosts> = lowered.ops.iter().map(|_| costs_of(&mut next)).collect();
            for (costs, lacking) in costs.iter_mut().zip(&lacking) {
                lacking.iter().for_each(|&layout| costs[layout] = f64::INFINITY);
            }
            let tensors: Vec<TensorCosts> = (0..=lowered.ops.len()).map(|_| tensor_of(&mut next)).collect();
            let (sum, found) = layouts(&lowered, &costs, &tensors);
            let total = |layouts: &[Layout]| Descent::new(&lowered, &costs, &tensors, layouts.to_vec()).total();
            let least = total(&found);
            prop_assert!(least.is_finite() && (sum - least).abs() <= 1e-6 * least);
            for (op, layout) in (0..found.len()).flat_map(|op| Layout::ALL.map(|layout| (op, layout))) {
                let mut descent = Descent::new(&lowered, &costs, &tensors, found.clone());
                let before = descent.around(op);
                prop_assert_eq!(descent.set(op, layout), found[op]);
                let locally = descent.around(op) - before;
                let globally = total(&descent.layouts) - least;
                if costs[op][layout as usize].is_infinite() {
                    prop_assert!(locally.is_infinite() && globally.is_infinite());
                    continue;
                }
                prop_assert!((locally - globally).abs() <= 1e-6 * least, "{} and {}", locally, globally);
                prop_assert!((descent.total() - total(&descent.layouts)).abs() <= 1e-6 * least);
                prop_assert!(globally >= -1e-6 * least, "operation {} in {}: {}", op, layout, globally);
            }
        }

        /// No uniform choice that all operations have is cheaper.
        #[test]
        fn uniform_choices_are_no_better(seed in any::<u64>(), ops in 1usize..12) {
            let lowered = chain(ops);
            let mut next = numbers(seed);
            let costs: Vec<LayoutCosts> = lowered.ops.iter().map(|_| costs_of(&mut next)).collect();
            let tensors: Vec<TensorCosts> = (0..=lowered.ops.len()).map(|_| tensor_of(&mut next)).collect();
            let total = |layouts: Vec<Layout>| Descent::new(&lowered, &costs, &tensors, layouts).total();
            let (least, _) = layouts(&lowered, &costs, &tensors);
            for layout in Layout::ALL {
                let uniform = total(vec![layout; lowered.ops.len()]);
                prop_assert!(least <= uniform * (1.0 + 1e-9), "{}: {} and {}", layout, uniform, least);
            }
        }
    }

    /// Reorders that cost more than any single operation gains: only all together do they pay.
    #[test]
    fn chains_change_together_where_the_layout_pays_for_the_way_there_and_back() {
        let lowered = chain(6);
        let ops = lowered.ops.len();
        let reorder = std::array::from_fn(|from| std::array::from_fn(|to| if from == to { 0.0 } else { 5.0 }));
        let tensors = vec![TensorCosts { reorder: [reorder; 2], convert: [0.0; LAYOUTS] }; ops + 1];
        let of = |lanes: f64| layouts(&lowered, &vec![[4.0, 4.0, lanes]; ops], &tensors).1;
        assert_eq!(of(1.0), vec![Layout::Nhwc16n; ops]);
        assert_eq!(of(3.0), vec![Layout::Nchw; ops]);
        assert_eq!(of(f64::INFINITY), vec![Layout::Nchw; ops]);
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
        let costs: Vec<LayoutCosts> = lowered.ops.iter().map(|_| costs_of(&mut next)).collect();
        let reorder = [[300.0; LAYOUTS]; LAYOUTS];
        let tensors = vec![TensorCosts { reorder: [reorder; 2], convert: [0.0; LAYOUTS] }; lowered.ops.len() + 1];
        let (_, found) = layouts(&lowered, &costs, &tensors);
        assert!(Layout::ALL.iter().all(|layout| found.contains(layout)));
    }
}
