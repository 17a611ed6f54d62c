//! The layers of a graph as a table.

use std::fmt;

use crate::{Graph, Shape, Value};

/// One layer of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// Name of the layer.
    pub layer: String,
    /// Its operation.
    pub op: &'static str,
    /// Shape of its output for one image.
    pub output: Shape,
    /// Trainable parameters.
    pub parameters: u64,
    /// Multiply-accumulates for one image.
    pub macs: u64,
}

/// The layers of a graph with their counts and the sums; [`Display`](fmt::Display) makes a table of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Name of the network.
    pub graph: String,
    /// Shape of one input image.
    pub input: Shape,
    /// The layers, in execution order.
    pub rows: Vec<SummaryRow>,
    /// Trainable parameters of the network.
    pub parameters: u64,
    /// Multiply-accumulates of the network for one image.
    pub macs: u64,
}

impl Graph {
    /// The layers with their counts.
    ///
    /// ```
    /// let summary = dlis_model::zoo::resnet18_cifar10().summary();
    /// assert_eq!(summary.rows[0].layer, "conv1");
    /// assert_eq!(summary.rows[0].macs, 64 * 27 * 32 * 32);
    /// assert!(summary.to_string().starts_with("resnet18-cifar10: input 3x32x32"));
    /// ```
    pub fn summary(&self) -> Summary {
        let row = |(index, layer): (usize, &crate::Layer)| SummaryRow {
            layer: layer.name.clone(),
            op: layer.op.name(),
            output: self.shape(Value::Layer(index)),
            parameters: self.layer_parameters(index),
            macs: self.layer_macs(index),
        };
        Summary {
            graph: self.name().to_owned(),
            input: self.input_shape(),
            rows: self.layers().iter().enumerate().map(row).collect(),
            parameters: self.trainable_parameters(),
            macs: self.macs(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["layer", "op", "output", "parameters", "MACs"].map(str::to_owned);
        let cells = |row: &SummaryRow| {
            [
                row.layer.clone(),
                row.op.to_owned(),
                row.output.to_string(),
                row.parameters.to_string(),
                row.macs.to_string(),
            ]
        };
        let total =
            ["total".to_owned(), String::new(), String::new(), self.parameters.to_string(), self.macs.to_string()];
        let table: Vec<_> = [head].into_iter().chain(self.rows.iter().map(cells)).chain([total]).collect();
        let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let [layer, op, output, parameters, macs] = [0, 1, 2, 3, 4].map(width);
        write!(f, "{}: input {}", self.graph, self.input)?;
        for [a, b, c, d, e] in &table {
            write!(f, "\n{a:layer$}  {b:op$}  {c:>output$}  {d:>parameters$}  {e:>macs$}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Window;

    #[test]
    fn the_table_lines_up() {
        let mut graph = Graph::builder("tiny", Shape::new(3, 32, 32));
        let x = graph.conv("conv1", Value::Input, 16, Window::square(3).with_padding(1));
        let x = graph.batch_norm("conv1.normalised", x);
        let x = graph.global_avg_pool("pool", x);
        let x = graph.linear("fc", x, 10);
        insta::assert_snapshot!(graph.finish(x).unwrap().summary(), @r"
        tiny: input 3x32x32
        layer             op                 output  parameters    MACs
        conv1             conv2d           16x32x32         432  442368
        conv1.normalised  batch_norm       16x32x32          32       0
        pool              global_avg_pool    16x1x1           0       0
        fc                linear             10x1x1         170     160
        total                                               634  442528
        ");
    }

    #[test]
    fn the_sums_are_those_of_the_rows() {
        for entry in crate::zoo::ENTRIES {
            let summary = entry.graph().summary();
            assert_eq!(summary.rows.iter().map(|row| row.parameters).sum::<u64>(), summary.parameters);
            assert_eq!(summary.rows.iter().map(|row| row.macs).sum::<u64>(), summary.macs);
        }
    }
}
