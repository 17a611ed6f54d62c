//! What a network costs with some of its channels.

use std::collections::BTreeMap;

use dlis_model::{Graph, Op, Value};

use super::dependencies::Dependencies;
use crate::selection::weighted;

/// What channels are pruned for.
pub(super) enum Cost<'a> {
    /// Multiply-accumulates for one image.
    Macs,
    /// Latencies of layers by output width, interpolated.
    Table(&'a BTreeMap<String, Vec<(usize, f64)>>),
}

impl Cost<'_> {
    /// The cost without the removed units.
    pub(super) fn of(&self, graph: &Graph, dependencies: &Dependencies, removed: &[bool]) -> f64 {
        let kept = |value: Value| dependencies.units(value).iter().filter(|&&unit| !removed[unit as usize]).count();
        let layer_cost = |index: usize| {
            let layer = &graph.layers()[index];
            let out = kept(Value::Layer(index)) as f64;
            match self {
                Self::Macs => {
                    // The share of outputs times that of the inputs each sees.
                    let out = out / graph.shape(Value::Layer(index)).channels as f64;
                    let inputs = match layer.op {
                        Op::Conv2d(conv) if conv.is_depthwise() => 1.0,
                        _ => kept(layer.inputs[0]) as f64 / graph.shape(layer.inputs[0]).channels as f64,
                    };
                    graph.layer_macs(index) as f64 * out * inputs
                }
                Self::Table(table) => table.get(&layer.name).map_or(0.0, |points| interpolate(points, out)),
            }
        };
        weighted(graph).map(layer_cost).sum()
    }
}

/// Linear between the points, in proportion below the first, constant beyond the last.
fn interpolate(points: &[(usize, f64)], width: f64) -> f64 {
    let mut before = (0.0, 0.0);
    for &(at, latency) in points {
        let at = at as f64;
        if width <= at {
            let [span, share] = [at - before.0, width - before.0];
            return if span > 0.0 { before.1 + (latency - before.1) * share / span } else { latency };
        }
        before = (at, latency);
    }
    before.1
}

/// Share of the network's multiply-accumulates that each unit takes part in: of the layers that make it, and of those
/// that read it.
pub(super) fn shares(graph: &Graph, dependencies: &Dependencies) -> Vec<f64> {
    let total = graph.macs().max(1) as f64;
    let mut shares = vec![0.0; dependencies.len()];
    for index in weighted(graph) {
        let share = graph.layer_macs(index) as f64 / total;
        let layer = &graph.layers()[index];
        let depthwise = matches!(layer.op, Op::Conv2d(conv) if conv.is_depthwise());
        let sides = [Some(Value::Layer(index)), (!depthwise).then(|| layer.inputs[0])];
        for units in sides.into_iter().flatten().map(|value| dependencies.units(value)) {
            for &unit in units {
                shares[unit as usize] += share / units.len() as f64;
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_interpolated() {
        let points = [(16, 2.0), (32, 3.0)];
        let at = |width| interpolate(&points, width);
        assert_eq!([at(8.0), at(16.0), at(24.0), at(32.0), at(64.0)], [1.0, 2.0, 2.5, 3.0, 3.0]);
        assert_eq!(interpolate(&[(0, 1.0), (10, 2.0)], 5.0), 1.5);
    }

    #[test]
    fn a_unit_s_share_is_what_goes_with_it() {
        let graph = dlis_model::zoo::resnet18_cifar10();
        let dependencies = Dependencies::new(&graph).unwrap();
        let shares = shares(&graph, &dependencies);
        let none = vec![false; dependencies.len()];
        let whole = Cost::Macs.of(&graph, &dependencies, &none);
        assert_eq!(whole, graph.macs() as f64);
        // Inside a block a unit has one layer before it and one after it: its share is exact.
        let index = graph.layers().iter().position(|layer| layer.name == "layer1.0.conv1").unwrap();
        let unit = dependencies.units(Value::Layer(index))[5] as usize;
        let mut removed = none;
        removed[unit] = true;
        let saved = 1.0 - Cost::Macs.of(&graph, &dependencies, &removed) / whole;
        assert!((saved - shares[unit]).abs() < 1e-12, "{saved} {}", shares[unit]);
    }
}
