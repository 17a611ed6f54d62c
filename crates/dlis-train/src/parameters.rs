//! A network's weights as a few flat tensors, so that an optimiser's step is a few kernels whatever the number
//! of layers.

use std::collections::{BTreeMap, HashMap};

use dlis_formats::Weight;
use dlis_model::{Graph, Network, Op};
use ndarray::{ArrayD, ArrayViewD};
use tch::{Device, Kind, Tensor};

use crate::error::{TrainError, extent, extents};

/// All parameters of a network on a device.
///
/// Convolutions' weights are stored `[out, height, width, in]`, so that their views are channels-last tensors and
/// no convolution has to copy its weight.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// Weights of convolutions and linear layers, one after another: those that weight decay applies to.
    pub(crate) weights: Tensor,
    /// Biases, and batch-norm's weight and bias.
    pub(crate) vectors: Tensor,
    /// Batch-norm's running means and variances, views of `statistics`.
    pub(crate) running: Vec<Tensor>,
    pub(crate) statistics: Tensor,
    layout: Layout,
}

/// Which parameter is where.
#[derive(Clone, Debug, Default)]
struct Layout {
    weights: Vec<Slot>,
    vectors: Vec<Slot>,
    statistics: Vec<Slot>,
    /// Group and position by full name.
    places: HashMap<String, (Group, usize)>,
}

#[derive(Clone, Debug)]
struct Slot {
    name: String,
    dims: Vec<usize>,
    offset: usize,
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Weights,
    Vectors,
    Statistics,
}

/// One parameter a tensor, as layers use them.
#[derive(Debug)]
pub(crate) struct Views {
    pub(crate) weights: Vec<Tensor>,
    pub(crate) vectors: Vec<Tensor>,
}

/// What the forward pass uses for the weight at a position, where that is not the weight itself.
pub(crate) type Constrain<'a> = dyn Fn(usize, &Tensor) -> Result<Option<Tensor>, TrainError> + 'a;

impl Layout {
    fn new(graph: &Graph) -> Self {
        let mut layout = Self::default();
        for layer in graph.layers() {
            for parameter in layer.op.parameters() {
                let (group, slots) = if !parameter.trainable {
                    (Group::Statistics, &mut layout.statistics)
                } else if matches!(layer.op, Op::BatchNorm { .. }) || parameter.dims.len() < 2 {
                    (Group::Vectors, &mut layout.vectors)
                } else {
                    (Group::Weights, &mut layout.weights)
                };
                let name = format!("{}.{}", layer.name, parameter.name);
                let len = parameter.dims.iter().product();
                let offset = slots.last().map_or(0, |last| last.offset + last.len);
                layout.places.insert(name.clone(), (group, slots.len()));
                slots.push(Slot { name, dims: parameter.dims, offset, len });
            }
        }
        layout
    }
}

impl Parameters {
    /// Those of a network; `trainable` ones are differentiated by.
    pub(crate) fn new(network: &Network, device: Device, trainable: bool) -> Result<Self, TrainError> {
        let layout = Layout::new(network.graph());
        let flat = |slots: &[Slot]| -> Result<Tensor, TrainError> {
            let mut values = Vec::with_capacity(slots.last().map_or(0, |last| last.offset + last.len));
            for slot in slots {
                // A `Network` has a weight for each parameter.
                if let Some(weight) = network.weights().get(&slot.name) {
                    stored(weight.to_f32().view(), &mut values);
                }
            }
            Ok(Tensor::f_from_slice(&values)?.f_to_device(device)?)
        };
        let statistics = flat(&layout.statistics)?;
        // Not `split`: batch-norm changes these in place, which libtorch forbids for parts of one split.
        let running =
            layout.statistics.iter().map(|slot| statistics.f_narrow(0, extent(slot.offset), extent(slot.len)));
        Ok(Self {
            weights: flat(&layout.weights)?.f_set_requires_grad(trainable)?,
            vectors: flat(&layout.vectors)?.f_set_requires_grad(trainable)?,
            running: running.collect::<Result<_, _>>()?,
            statistics,
            layout,
        })
    }

    /// The position of a weight among [`Views::weights`].
    pub(crate) fn weight(&self, name: &str) -> Option<usize> {
        self.find(name, Group::Weights)
    }

    /// The position of a bias or the like among [`Views::vectors`].
    pub(crate) fn vector(&self, name: &str) -> Option<usize> {
        self.find(name, Group::Vectors)
    }

    /// The position of a running statistic among `running`.
    pub(crate) fn statistic(&self, name: &str) -> Option<usize> {
        self.find(name, Group::Statistics)
    }

    fn find(&self, name: &str, group: Group) -> Option<usize> {
        self.layout.places.get(name).filter(|place| place.0 == group).map(|place| place.1)
    }

    /// Extents of a weight as the network has them.
    pub(crate) fn dims(&self, weight: usize) -> &[usize] {
        &self.layout.weights[weight].dims
    }

    /// Where a weight's elements begin in `weights`, and how many there are.
    pub(crate) fn range(&self, weight: usize) -> (usize, usize) {
        let slot = &self.layout.weights[weight];
        (slot.offset, slot.len)
    }

    /// A weight's part of a flat tensor like `weights`.
    pub(crate) fn part(&self, flat: &Tensor, weight: usize) -> Result<Tensor, TrainError> {
        let (offset, len) = self.range(weight);
        Ok(flat.f_narrow(0, extent(offset), extent(len))?)
    }

    /// Every parameter as a tensor of its own, weights in `kind`, what `constrain` makes of them where it makes
    /// something.
    pub(crate) fn views(&self, kind: Kind, constrain: Option<&Constrain<'_>>) -> Result<Views, TrainError> {
        let slots = &self.layout.weights;
        let weights = match constrain {
            // One conversion for all.
            None => shaped(split(&self.weights.f_to_kind(kind)?, slots)?, slots)?,
            Some(constrain) => {
                let shaped = shaped(split(&self.weights, slots)?, slots)?;
                let constrained = shaped.into_iter().enumerate().map(|(index, weight)| {
                    let weight = constrain(index, &weight)?.unwrap_or(weight);
                    Ok(weight.f_to_kind(kind)?)
                });
                constrained.collect::<Result<_, TrainError>>()?
            }
        };
        Ok(Views { weights, vectors: split(&self.vectors, &self.layout.vectors)? })
    }

    /// The network of these parameters, weights as `constrain` makes them.
    pub(crate) fn to_network(&self, graph: &Graph, constrain: Option<&Constrain<'_>>) -> Result<Network, TrainError> {
        let _guard = tch::no_grad_guard();
        let views = self.views(Kind::Float, constrain)?;
        let mut weights = BTreeMap::new();
        let groups = [
            (&self.layout.weights, &views.weights),
            (&self.layout.vectors, &views.vectors),
            (&self.layout.statistics, &self.running),
        ];
        for (slots, tensors) in groups {
            for (slot, tensor) in slots.iter().zip(tensors) {
                weights.insert(slot.name.clone(), Weight::F32(to_array(tensor, &slot.dims)?));
            }
        }
        Ok(Network::new(graph.clone(), weights)?)
    }
}

/// Copies a tensor into an array of these extents.
fn to_array(tensor: &Tensor, dims: &[usize]) -> Result<ArrayD<f32>, TrainError> {
    let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut array = ArrayD::<f32>::zeros(dims);
    let len = array.len();
    // A new array is contiguous.
    if let Some(values) = array.as_slice_mut() {
        tensor.f_copy_data(values, len)?;
    }
    Ok(array)
}

/// Appends an array's elements in the order in which they are stored here.
pub(crate) fn stored<T: Copy>(array: ArrayViewD<'_, T>, values: &mut Vec<T>) {
    if array.ndim() == 4 {
        values.extend(array.permuted_axes(vec![0, 2, 3, 1]).iter());
    } else {
        values.extend(array.iter());
    }
}

fn split(flat: &Tensor, slots: &[Slot]) -> Result<Vec<Tensor>, TrainError> {
    if slots.is_empty() {
        return Ok(Vec::new());
    }
    let sizes: Vec<i64> = slots.iter().map(|slot| extent(slot.len)).collect();
    Ok(flat.f_split_with_sizes(&sizes[..], 0)?)
}

fn shaped(parts: Vec<Tensor>, slots: &[Slot]) -> Result<Vec<Tensor>, TrainError> {
    let shape = |(part, slot): (Tensor, &Slot)| match slot.dims[..] {
        [out, channels, height, width] => {
            let stored = [out, height, width, channels].map(extent);
            Ok(part.f_view(stored)?.f_permute([0, 3, 1, 2])?)
        }
        _ => Ok(part.f_view(&extents(&slot.dims)[..])?),
    };
    parts.into_iter().zip(slots).map(shape).collect()
}

#[cfg(test)]
mod tests {
    use dlis_model::zoo;

    use super::*;

    #[test]
    fn a_network_survives_the_round_trip() {
        let network = Network::random(zoo::mobilenet_cifar10(), 3);
        let parameters = Parameters::new(&network, Device::Cpu, true).unwrap();
        assert_eq!(parameters.to_network(network.graph(), None).unwrap(), network);
    }
}
