//! Which channels go together.

use std::collections::BTreeMap;

use dlis_formats::Weight;
use dlis_model::{Conv2d, Graph, Layer, Linear, Network, Op, Value};
use ndarray::{ArrayD, Axis};

use crate::CompressError;

/// Most channels of all tensors together: a bound on memory that networks are far from.
const MAX_CHANNELS: usize = 1 << 26;

/// The dependency graph of a network's channels (Fang et al. 2023, *Towards Any Structural Pruning*): every
/// channel of every tensor belongs to a unit, and what is of one unit is pruned together or not at all.
///
/// Convolutions and linear layers make new units. Batch-norm, activations and pooling keep those of their input; an
/// addition and a scale unite those of both inputs; a depthwise convolution keeps them, a grouped one unites those at
/// the same place of each group; a concatenation lines them up; a flattening repeats each for its pixels. The network's
/// input and output, and what a softmax sees, cannot be pruned.
#[derive(Clone, Debug)]
pub(crate) struct Dependencies {
    /// Unit of each channel of each layer's output.
    units: Vec<Vec<u32>>,
    input: Vec<u32>,
    /// Units that stay.
    pinned: Vec<bool>,
}

/// Disjoint sets with path halving.
struct Sets(Vec<u32>);

impl Sets {
    fn fresh(&mut self, count: usize) -> Result<Vec<u32>, CompressError> {
        let start = self.0.len();
        if start.saturating_add(count) > MAX_CHANNELS {
            return Err(too_many());
        }
        let fresh = (start..start + count).map(|unit| u32::try_from(unit).map_err(|_| too_many()));
        let fresh: Vec<u32> = fresh.collect::<Result<_, _>>()?;
        self.0.extend(&fresh);
        Ok(fresh)
    }

    fn find(&mut self, mut unit: u32) -> u32 {
        while self.0[unit as usize] != unit {
            let parent = self.0[unit as usize];
            self.0[unit as usize] = self.0[parent as usize];
            unit = parent;
        }
        unit
    }

    fn unite(&mut self, a: u32, b: u32) {
        let [a, b] = [self.find(a), self.find(b)];
        self.0[a.max(b) as usize] = a.min(b);
    }
}

fn too_many() -> CompressError {
    let problem = format!("the network has more than {MAX_CHANNELS} channels");
    CompressError::Layer { layer: "(all)".to_owned(), problem }
}

/// What a layer does with channels.
pub(crate) enum Mixing {
    /// Every output channel depends on every input channel.
    Full,
    /// Every output channel depends on those of its group; depthwise excepted.
    Grouped(usize),
    /// Channel by channel.
    None,
}

impl Mixing {
    pub(crate) fn of(op: &Op) -> Self {
        match op {
            Op::Conv2d(conv) if conv.is_depthwise() => Self::None,
            Op::Conv2d(Conv2d { groups: 1, .. }) | Op::Linear(_) => Self::Full,
            Op::Conv2d(conv) => Self::Grouped(conv.groups),
            _ => Self::None,
        }
    }
}

impl Dependencies {
    pub(crate) fn new(graph: &Graph) -> Result<Self, CompressError> {
        let mut sets = Sets(Vec::new());
        let input = sets.fresh(graph.input_shape().channels)?;
        let mut pinned = input.clone();
        let mut units: Vec<Vec<u32>> = Vec::with_capacity(graph.layers().len());
        let mut channels = input.len();
        for (index, layer) in graph.layers().iter().enumerate() {
            let shape = graph.shape(Value::Layer(index));
            channels = channels.saturating_add(shape.channels);
            if channels > MAX_CHANNELS {
                return Err(too_many());
            }
            let of = |value: Value| match value {
                Value::Input => &input,
                Value::Layer(from) => &units[from],
            };
            let first = of(layer.inputs[0]);
            let out = match (layer.op, Mixing::of(&layer.op)) {
                (_, Mixing::Full) => sets.fresh(shape.channels)?,
                (_, Mixing::Grouped(groups)) => {
                    let out = sets.fresh(shape.channels)?;
                    for side in [first, &out] {
                        let (start, others) = side.split_at(side.len() / groups);
                        for group in others.chunks(start.len().max(1)) {
                            start.iter().zip(group).for_each(|(&a, &b)| sets.unite(a, b));
                        }
                    }
                    out
                }
                (Op::Add | Op::Scale, _) => {
                    first.iter().zip(of(layer.inputs[1])).for_each(|(&a, &b)| sets.unite(a, b));
                    first.clone()
                }
                (Op::Concat, _) => layer.inputs.iter().flat_map(|&value| of(value).iter().copied()).collect(),
                (Op::Flatten, _) => {
                    let pixels = shape.channels / first.len().max(1);
                    first.iter().flat_map(|&unit| std::iter::repeat_n(unit, pixels)).collect()
                }
                (Op::Softmax, _) => {
                    pinned.extend(first);
                    first.clone()
                }
                _ => first.clone(),
            };
            units.push(out);
        }
        match graph.output() {
            Value::Input => {}
            Value::Layer(index) => pinned.extend(&units[index]),
        }
        let root = |sets: &mut Sets, list: &mut Vec<u32>| list.iter_mut().for_each(|unit| *unit = sets.find(*unit));
        let mut input = input;
        root(&mut sets, &mut input);
        units.iter_mut().for_each(|list| root(&mut sets, list));
        let mut is_pinned = vec![false; sets.0.len()];
        for unit in pinned {
            is_pinned[sets.find(unit) as usize] = true;
        }
        Ok(Self { units, input, pinned: is_pinned })
    }

    /// The unit of each channel of a tensor, an index below [`len`](Self::len).
    pub(crate) fn units(&self, value: Value) -> &[u32] {
        match value {
            Value::Input => &self.input,
            Value::Layer(index) => &self.units[index],
        }
    }

    /// An upper bound of units.
    pub(crate) fn len(&self) -> usize {
        self.pinned.len()
    }

    pub(crate) fn is_pinned(&self, unit: u32) -> bool {
        self.pinned[unit as usize]
    }

    pub(crate) fn pin(&mut self, unit: u32) {
        self.pinned[unit as usize] = true;
    }

    /// Channels of a tensor that stay.
    fn kept(&self, value: Value, removed: &[bool]) -> Vec<usize> {
        let units = self.units(value).iter().enumerate();
        units.filter(|&(_, &unit)| !removed[unit as usize]).map(|(channel, _)| channel).collect()
    }

    /// The network without the units that are true in `removed`.
    pub(crate) fn prune(&self, network: &Network, removed: &[bool]) -> Result<Network, CompressError> {
        let graph = network.graph();
        let mut layers = Vec::with_capacity(graph.layers().len());
        let mut weights: BTreeMap<String, Weight> = BTreeMap::new();
        for (index, layer) in graph.layers().iter().enumerate() {
            let outputs = self.kept(Value::Layer(index), removed);
            let inputs = || self.kept(layer.inputs[0], removed);
            let (op, columns) = match layer.op {
                Op::Conv2d(conv) if conv.is_depthwise() => {
                    let width = outputs.len();
                    let conv = Conv2d { in_channels: width, out_channels: width, groups: width, ..conv };
                    (Op::Conv2d(conv), None)
                }
                Op::Conv2d(conv) => {
                    let inputs = inputs();
                    let per_group = conv.in_channels / conv.groups;
                    let columns = inputs.iter().copied().filter(|&channel| channel < per_group).collect();
                    let conv = Conv2d { in_channels: inputs.len(), out_channels: outputs.len(), ..conv };
                    (Op::Conv2d(conv), Some(columns))
                }
                Op::Linear(linear) => {
                    let inputs = inputs();
                    let linear = Linear { in_features: inputs.len(), out_features: outputs.len(), ..linear };
                    (Op::Linear(linear), Some(inputs))
                }
                Op::BatchNorm { eps, .. } => (Op::BatchNorm { channels: outputs.len(), eps }, None),
                op => (op, None),
            };
            for parameter in layer.op.parameters() {
                let name = format!("{}.{}", layer.name, parameter.name);
                let Some(weight) = network.weights().get(&name) else { continue };
                let mut array: ArrayD<f32> = weight.to_f32().select(Axis(0), &outputs);
                if let (Some(columns), true) = (&columns, parameter.dims.len() > 1) {
                    array = array.select(Axis(1), columns);
                }
                // A selection may be laid out as it likes.
                weights.insert(name, Weight::F32(array.as_standard_layout().into_owned()));
            }
            layers.push(Layer { name: layer.name.clone(), op, inputs: layer.inputs.clone() });
        }
        let graph = Graph::new(graph.name().to_owned(), graph.input_shape(), layers, graph.output())?;
        Ok(Network::new(graph, weights)?)
    }
}

/// The network with only these output channels of convolutions and linear layers, by layer name, and of all layers that
/// depend on them; layers that are not named keep what they have. Weights become dense f32.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use dlis_compress::channels::prune;
/// use dlis_model::{Network, Op, zoo};
///
/// let network = Network::random(zoo::resnet18_cifar10(), 0);
/// // The first convolution of a block is coupled with no other.
/// let half: Vec<usize> = (0..32).collect();
/// let pruned = prune(&network, &BTreeMap::from([("layer1.0.conv1".to_owned(), half.clone())]))?;
/// assert_eq!(pruned.weight("layer1.0.conv1", "weight").unwrap().dims(), [32, 64, 3, 3]);
/// assert_eq!(pruned.weight("layer1.0.conv2", "weight").unwrap().dims(), [64, 32, 3, 3]);
/// // The second is added to the shortcut, so that it cannot be cut alone.
/// assert!(prune(&network, &BTreeMap::from([("layer1.0.conv2".to_owned(), half)])).is_err());
/// # Ok::<(), dlis_compress::CompressError>(())
/// ```
///
/// # Errors
///
/// [`CompressError::Layer`] if there is no such layer or channel, none is kept, a channel that goes is coupled with one
/// that is named as staying or belongs to the network's input or output.
pub fn prune(network: &Network, kept: &BTreeMap<String, Vec<usize>>) -> Result<Network, CompressError> {
    let graph = network.graph();
    let dependencies = Dependencies::new(graph)?;
    let mut removed = vec![false; dependencies.len()];
    let error = |layer: &str, problem: String| CompressError::Layer { layer: layer.to_owned(), problem };
    let find = |name: &str| {
        let index = crate::selection::weighted(graph).find(|&index| graph.layers()[index].name == name);
        index.ok_or_else(|| error(name, "there is no such convolution or linear layer".to_owned()))
    };
    for (name, channels) in kept {
        let units = dependencies.units(Value::Layer(find(name)?));
        let mut stays = vec![false; units.len()];
        for &channel in channels {
            let slot = stays.get_mut(channel);
            *slot.ok_or_else(|| error(name, format!("channel {channel} of {}", units.len())))? = true;
        }
        for (&unit, _) in units.iter().zip(&stays).filter(|&(_, &stays)| !stays) {
            if dependencies.is_pinned(unit) {
                return Err(error(name, "its channels are the network's, which stay".to_owned()));
            }
            removed[unit as usize] = true;
        }
    }
    // Whoever shares a unit must agree, by name: a silent cut elsewhere would surprise.
    for index in crate::selection::weighted(graph) {
        let layer = &graph.layers()[index];
        let left = dependencies.kept(Value::Layer(index), &removed);
        if left.is_empty() {
            return Err(error(&layer.name, "no channel would be left".to_owned()));
        }
        let depthwise = matches!(layer.op, Op::Conv2d(conv) if conv.is_depthwise());
        let agrees = match kept.get(&layer.name) {
            Some(channels) => left.iter().all(|channel| channels.contains(channel)) && left.len() == distinct(channels),
            None => depthwise || left.len() == dependencies.units(Value::Layer(index)).len(),
        };
        if !agrees {
            let problem = "its channels are coupled with those of another layer, of which others are kept";
            return Err(error(&layer.name, problem.to_owned()));
        }
    }
    dependencies.prune(network, &removed)
}

fn distinct(channels: &[usize]) -> usize {
    channels.iter().collect::<std::collections::BTreeSet<_>>().len()
}
