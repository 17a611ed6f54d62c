//! A graph as JSON: layers in execution order, each naming its inputs.
//!
//! ```json
//! {"name": "tiny", "input": [3, 32, 32],
//!  "layers": [{"name": "conv1", "inputs": [null], "op": "conv2d", "in_channels": 3, ...},
//!             {"name": "relu1", "inputs": ["conv1"], "op": "activation", "function": "relu"}],
//!  "output": "relu1"}
//! ```
//!
//! `null` is the network's input: every text may be the name of a layer.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::error::ArtefactProblem;
use super::{GRAPH, json_error};
use crate::{Graph, Layer, Op, Shape, Value};

#[derive(Serialize)]
struct Written<'a> {
    name: &'a str,
    input: Shape,
    layers: Vec<WrittenLayer<'a>>,
    output: Option<&'a str>,
}

#[derive(Serialize)]
struct WrittenLayer<'a> {
    name: &'a str,
    inputs: Vec<Option<&'a str>>,
    #[serde(flatten)]
    op: &'a Op,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    name: String,
    input: Shape,
    layers: Vec<ReadLayer>,
    output: Option<String>,
}

#[derive(Deserialize)]
struct ReadLayer {
    name: String,
    inputs: Vec<Option<String>>,
    #[serde(flatten)]
    op: Map<String, serde_json::Value>,
}

pub(super) fn to_json(graph: &Graph) -> Result<String, ArtefactProblem> {
    let name = |value: Value| match value {
        Value::Input => None,
        Value::Layer(index) => Some(graph.layers()[index].name.as_str()),
    };
    let layers = graph.layers().iter().map(|layer| WrittenLayer {
        name: &layer.name,
        inputs: layer.inputs.iter().copied().map(name).collect(),
        op: &layer.op,
    });
    let written = Written {
        name: graph.name(),
        input: graph.input_shape(),
        layers: layers.collect(),
        output: name(graph.output()),
    };
    serde_json::to_string(&written).map_err(json_error(GRAPH))
}

pub(super) fn from_json(text: &str) -> Result<Graph, ArtefactProblem> {
    let read: Read = serde_json::from_str(text).map_err(json_error(GRAPH))?;
    let mut indices: HashMap<String, usize> = HashMap::with_capacity(read.layers.len());
    let mut layers = Vec::with_capacity(read.layers.len());
    for (index, ReadLayer { name, inputs, op }) in read.layers.into_iter().enumerate() {
        let find = |input: Option<String>| match input {
            None => Ok(Value::Input),
            Some(input) => match indices.get(&input) {
                Some(&index) => Ok(Value::Layer(index)),
                None => Err(ArtefactProblem::Input { layer: name.clone(), input }),
            },
        };
        let inputs = inputs.into_iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let op = read_op(&name, op)?;
        indices.insert(name.clone(), index);
        layers.push(Layer { name, op, inputs });
    }
    let output = match read.output {
        None => Value::Input,
        Some(output) => match indices.get(&output) {
            Some(&index) => Value::Layer(index),
            None => return Err(ArtefactProblem::Output { output }),
        },
    };
    Ok(Graph::new(read.name, read.input, layers, output)?)
}

fn read_op(layer: &str, fields: Map<String, serde_json::Value>) -> Result<Op, ArtefactProblem> {
    let error = |source| ArtefactProblem::Layer { layer: layer.to_owned(), source };
    let unexpected = fields.keys().find(|key| *key != "op").cloned();
    let op = Op::deserialize(serde_json::Value::Object(fields)).map_err(error)?;
    // Serde overlooks unknown fields of an operation that has no fields at all.
    if let Some(key) = unexpected
        && serde_json::to_value(op).map_err(error)?.as_object().is_none_or(|fields| fields.len() == 1)
    {
        return Err(ArtefactProblem::LayerKey { layer: layer.to_owned(), op: op.name(), key });
    }
    Ok(op)
}
