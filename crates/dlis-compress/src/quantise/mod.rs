//! Integer weights and activations.

mod range;
mod tensors;
mod weights;

use std::collections::BTreeMap;

use dlis_formats::{Quantization, Weight};
use dlis_model::{Activation, Network, Op, Value, fold_batch_norm};
use serde::{Deserialize, Serialize};

use crate::bounds::Fields;
use crate::recipe::Tuning;
use crate::weights::{dense, weight_name};
use crate::{CompressError, Compressor, Constraint, Context, Observed, Selection, Treatment};

pub use tensors::quantised_tensors;
pub(crate) use weights::integers;

/// Quantisation: integer weights with a scale an output channel, and 8-bit affine activations with a scale and zero
/// point a tensor (Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient
/// Integer-Arithmetic-Only Inference*).
///
/// The result has no batch-norm that can be folded: what executes a network folds first, and scales are of what is
/// executed. Every tensor gets a quantisation but the result, the network's input (unless the first layer is selected),
/// sigmoids and softmaxes; which of them are written to memory as bytes is the runtime's decision. Layers that are not
/// selected compute in f32.
///
/// ```
/// use std::sync::Arc;
///
/// use dlis_compress::{Compressor, Context, Quantise, Untrained};
/// use dlis_formats::Format;
/// use dlis_model::{Network, zoo};
///
/// let network = Network::random(zoo::resnet18_cifar10(), 0);
/// let mut ignore = |_: dlis_compress::Event<'_>| {};
/// let mut trainer = Untrained;
/// let mut context = Context::new(&mut trainer, "example", 0, Arc::new(network.clone()), &mut ignore);
/// let quantised = Quantise::to_bits(8).compress(network, &mut context)?;
/// assert_eq!(quantised.weight("layer1.0.conv1", "weight").unwrap().format(), Format::Int8);
/// assert_eq!(quantised.weight("conv1", "weight").unwrap().format(), Format::DenseF32);
/// # Ok::<(), dlis_compress::CompressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantise {
    /// Bits of a weight: 8 or 4.
    #[serde(default = "Quantise::eight")]
    pub weights: u8,
    /// Bits of an activation: 8, or absent for activations in f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<u8>,
    /// How the range of a tensor is chosen.
    #[serde(default)]
    pub calibration: Calibration,
    /// Training images that ranges are chosen by, 1 to a million.
    #[serde(default = "Quantise::images")]
    pub images: usize,
    /// Which layers have integer weights. Those that an earlier step made ternary stay so; without training, so do all
    /// that the network has in as few bits.
    #[serde(default = "Quantise::selection")]
    pub layers: Selection,
    /// Quantisation-aware training; without it this is post-training quantisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<Tuning>,
}

/// How the range of an activation tensor is chosen from what it was seen to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Calibration {
    /// From the smallest to the largest value.
    #[default]
    MinMax,
    /// The magnitude that this share of the values does not exceed bounds the range on both sides; more than 0.5, at
    /// most 1 (`{ percentile = 0.9999 }`).
    Percentile(f64),
    /// The magnitude with the least expected squared error bounds the range on both sides. Without training, weights'
    /// scales are chosen likewise.
    Mse,
}

impl Quantise {
    /// Weights of so many bits (4 or 8), activations in f32, without training.
    pub fn to_bits(weights: u8) -> Self {
        Self {
            weights,
            activations: None,
            calibration: Calibration::MinMax,
            images: Self::images(),
            layers: Self::selection(),
            fine_tune: None,
        }
    }

    const fn eight() -> u8 {
        8
    }

    const fn images() -> usize {
        1024
    }

    fn selection() -> Selection {
        Selection { depthwise: true, ..Selection::default() }
    }

    pub(crate) fn check(&self, fields: &Fields<'_>) -> Result<(), CompressError> {
        if !matches!(self.weights, 4 | 8) {
            return Err(fields.error("weights", format!("{}: expected 8 or 4", self.weights)));
        }
        if !matches!(self.activations, None | Some(8)) {
            return Err(fields.error("activations", "expected 8 or nothing".to_owned()));
        }
        if let Calibration::Percentile(share) = self.calibration {
            fields.range("calibration.percentile", share, 0.5, 1.0)?;
        }
        fields.count("images", self.images, 1, 1_000_000)?;
        self.layers.check(fields)?;
        self.fine_tune.iter().try_for_each(|tuning| tuning.check(&fields.within("fine_tune.")))
    }
}

impl Compressor for Quantise {
    fn compress(&self, network: Network, context: &mut Context<'_>) -> Result<Network, CompressError> {
        self.check(&Fields::new(context.key()))?;
        let names: Vec<String> = {
            let graph = network.graph();
            let trains = self.fine_tune.is_some_and(|tuning| tuning.epochs > 0.0);
            let stays = |layer: &usize| {
                let name = &graph.layers()[*layer].name;
                let weight = network.weights().get(&weight_name(graph, *layer));
                matches!(context.treatments().get(name), Some(Treatment::Ternary { .. }))
                    || !trains && weight.is_some_and(|weight| self.is_of_as_few_bits(weight))
            };
            let selected = self.layers.of(graph)?.into_iter().filter(|layer| !stays(layer));
            selected.map(|layer| weight_name(graph, layer)).collect()
        };
        let tuning = self.fine_tune.filter(|tuning| tuning.epochs > 0.0);
        let network = match tuning {
            Some(tuning) => {
                let constraints = self.constraints(&network, &names, context);
                context.fine_tune(&network.to_f32(), &tuning, constraints, self.activations, "aware")?
            }
            None => network,
        };
        let network = fold_batch_norm(network)?;
        let search = tuning.is_none() && self.calibration == Calibration::Mse;
        let mut changed = Vec::with_capacity(names.len());
        for (name, weight) in names.iter().zip(dense(&network, &names)?) {
            let problem = |error: dlis_formats::FormatError| CompressError::Layer {
                layer: name.trim_end_matches(".weight").to_owned(),
                problem: error.to_string(),
            };
            changed.push((name.clone(), integers(&weight, self.weights, search).map_err(problem)?));
        }
        let network = network.with_weights(changed)?;
        match self.activations {
            Some(_) => self.calibrate(network, context),
            None => Ok(network),
        }
    }
}

impl Quantise {
    /// Whether a weight is of integers or ternary, and of no more bits than it would get.
    fn is_of_as_few_bits(&self, weight: &Weight) -> bool {
        match weight {
            Weight::Ternary(_) | Weight::Int4(_) => true,
            Weight::Int8(_) => self.weights == 8,
            _ => false,
        }
    }

    /// The grids of the selected layers; what was pruned stays so.
    fn constraints(&self, network: &Network, names: &[String], context: &Context<'_>) -> BTreeMap<String, Constraint> {
        let constraint = |name: &String| {
            let pruned = context.treatments().get(name.trim_end_matches(".weight")) == Some(&Treatment::Pruned);
            let zeros = |weight: &Weight| weight.to_f32().mapv(|value| value != 0.0);
            let mask = network.weights().get(name).filter(|_| pruned).map(zeros);
            (name.clone(), Constraint::Int { bits: self.weights, mask })
        };
        names.iter().map(constraint).collect()
    }

    /// Quantisations from what the trainer observes.
    fn calibrate(&self, network: Network, context: &mut Context<'_>) -> Result<Network, CompressError> {
        let doing = "calibration".to_owned();
        let observed = context.trainer().observe(&network, self.images);
        let observed = observed.map_err(|source| CompressError::Trainer { doing: doing.clone(), source })?;
        let graph = network.graph();
        let mut quantizations: BTreeMap<Value, Quantization> = BTreeMap::new();
        let of = |value: Value| -> Result<Quantization, CompressError> {
            let contract = |problem: String| CompressError::Contract { doing: doing.clone(), problem };
            let observed: &Observed =
                observed.get(&value).ok_or_else(|| contract(format!("there is no entry for {value:?}")))?;
            let [min, max] = self.calibration.range(observed);
            Quantization::from_range(min, max).map_err(|error| contract(error.to_string()))
        };
        if self.layers.first {
            quantizations.insert(Value::Input, of(Value::Input)?);
        }
        for (index, layer) in graph.layers().iter().enumerate() {
            let value = Value::Layer(index);
            if value == graph.output() {
                continue;
            }
            match layer.op {
                Op::Softmax | Op::Activation { function: Activation::Sigmoid } => {}
                // What passes values on keeps what stands for them.
                Op::MaxPool(_) | Op::Flatten => {
                    if let Some(&same) = layer.inputs.first().and_then(|input| quantizations.get(input)) {
                        quantizations.insert(value, same);
                    }
                }
                _ => {
                    quantizations.insert(value, of(value)?);
                }
            }
        }
        let contract = |error: dlis_model::QuantizationError| CompressError::Contract {
            doing: "calibration".to_owned(),
            problem: error.to_string(),
        };
        network.with_quantization(quantizations).map_err(contract)
    }
}
