//! One training run: its state, a step of it, and what comes out.

use dlis_compress::{FineTune, quantised_tensors};
use dlis_model::{Graph, Network};
use tch::{Device, Kind, Reduction, Tensor};

use crate::checkpoint::Entry;
use crate::constrain::Constrained;
use crate::data::{Batch, Images};
use crate::error::{TrainError, extent};
use crate::forward::Forward;
use crate::parameters::{Parameters, Views};
use crate::ranges::Ranges;

/// Momentum of gradient descent (Sutskever et al. 2013), as every reference training here.
const MOMENTUM: f64 = 0.9;

/// The state of one training run.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    graph: &'a Graph,
    task: &'a FineTune,
    kind: Kind,
    parameters: Parameters,
    constrained: Constrained,
    ranges: Option<Ranges>,
    /// Of weights, vectors and ternary magnitudes.
    velocities: [Tensor; 3],
    teacher: Option<Teacher<'a>>,
}

/// The network that a distillation imitates.
#[derive(Debug)]
struct Teacher<'a> {
    graph: &'a Graph,
    parameters: Parameters,
    views: Views,
    weight: f64,
    temperature: f64,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        network: &'a Network,
        task: &'a FineTune,
        device: Device,
        kind: Kind,
    ) -> Result<Self, TrainError> {
        check(task)?;
        let mut parameters = Parameters::new(network, device, true)?;
        let constrained = Constrained::new(&mut parameters, &task.constraints, &task.key)?;
        let ranges = match task.activations {
            Some(bits) => Some(Ranges::new(&quantised_tensors(network.graph()), bits, device)?),
            None => None,
        };
        let velocity = |tensor: &Tensor| tch::no_grad(|| tensor.f_zeros_like());
        let velocities =
            [velocity(&parameters.weights)?, velocity(&parameters.vectors)?, velocity(&constrained.scales)?];
        let teacher = match &task.distill {
            Some(distill) => {
                let parameters = Parameters::new(&distill.teacher, device, false)?;
                let views = parameters.views(kind, None)?;
                let graph = distill.teacher.graph();
                if graph.output_shape() != network.graph().output_shape() {
                    return Err(wrong(
                        task,
                        "distill.teacher",
                        format!("an output of {}", network.graph().output_shape()),
                        graph.output_shape().to_string(),
                    ));
                }
                Some(Teacher { graph, parameters, views, weight: distill.weight, temperature: distill.temperature })
            }
            None => None,
        };
        Ok(Self { graph: network.graph(), task, kind, parameters, constrained, ranges, velocities, teacher })
    }

    /// Everything that a step depends on beside the task and the step's number.
    pub(crate) fn state(&mut self) -> Vec<Entry<'_>> {
        let [weights, vectors, scales] = &mut self.velocities;
        let mut state = vec![
            ("weights".to_owned(), &mut self.parameters.weights),
            ("vectors".to_owned(), &mut self.parameters.vectors),
            ("statistics".to_owned(), &mut self.parameters.statistics),
            ("scales".to_owned(), &mut self.constrained.scales),
            ("weights.velocity".to_owned(), weights),
            ("vectors.velocity".to_owned(), vectors),
            ("scales.velocity".to_owned(), scales),
        ];
        if let Some(ranges) = &mut self.ranges {
            for (index, [low, high]) in ranges.limits.values_mut().enumerate() {
                state.push((format!("range.{index}.low"), low));
                state.push((format!("range.{index}.high"), high));
            }
        }
        state
    }

    /// To be called when `state` was read from a run that had begun.
    pub(crate) fn resumed(&mut self) {
        if let Some(ranges) = &mut self.ranges {
            ranges.begun = true;
        }
    }

    /// One step of gradient descent with Nesterov's momentum; the loss, on the device.
    pub(crate) fn step(&mut self, batch: &Batch, rate: f64) -> Result<Tensor, TrainError> {
        let loss = self.loss(batch)?;
        if let Some(ranges) = &mut self.ranges {
            ranges.begun = true;
        }
        let Self { parameters, constrained, velocities, task, .. } = self;
        let [mut weights, mut vectors, mut scales] =
            [&parameters.weights, &parameters.vectors, &constrained.scales].map(Tensor::shallow_clone);
        let leaves: Vec<&Tensor> = [&weights, &vectors, &scales].into_iter().filter(|leaf| leaf.numel() > 0).collect();
        let mut gradients = Tensor::f_run_backward(&[&loss], &leaves, false, false)?.into_iter();
        let mut gradient = |leaf: &Tensor| if leaf.numel() > 0 { gradients.next() } else { None };
        let found = [gradient(&weights), gradient(&vectors), gradient(&scales)];
        let _guard = tch::no_grad_guard();
        let leaves = [&mut weights, &mut vectors, &mut scales];
        for (index, ((leaf, gradient), velocity)) in leaves.into_iter().zip(found).zip(velocities).enumerate() {
            let Some(mut gradient) = gradient.filter(Tensor::defined) else { continue };
            match index {
                0 => constrained.add_decay(&mut gradient, leaf, task.weight_decay)?,
                2 => constrained.temper(&mut gradient)?,
                _ => {}
            }
            let _ = velocity.f_mul_scalar_(MOMENTUM)?;
            let _ = velocity.f_add_(&gradient)?;
            let _ = gradient.f_add_(&velocity.f_mul_scalar(MOMENTUM)?)?;
            let _ = leaf.f_add_(&gradient.f_mul_scalar_(-rate)?)?;
        }
        constrained.hold(&mut weights)?;
        if constrained.has_scales() {
            constrained.hold_scales()?;
        }
        Ok(loss.f_detach()?)
    }

    fn views(&self, kind: Kind) -> Result<Views, TrainError> {
        if !self.constrained.changes_weights() {
            return self.parameters.views(kind, None);
        }
        let magnitudes = self.constrained.magnitudes()?;
        self.parameters.views(kind, Some(&|index, weight| self.constrained.apply(index, weight, &magnitudes)))
    }

    fn loss(&mut self, batch: &Batch) -> Result<Tensor, TrainError> {
        let views = self.views(self.kind)?;
        let Self { graph, parameters, ranges, kind, .. } = self;
        let forward = Forward { graph, parameters, views: &views, training: true, kind: *kind };
        let output = forward.run(batch.images.shallow_clone(), &mut |value, tensor| match ranges {
            Some(ranges) => ranges.round(value, tensor, true),
            None => Ok(tensor),
        })?;
        let labels = |output: &Tensor| {
            output.f_cross_entropy_loss(&batch.labels, None::<Tensor>, Reduction::Mean, -100, self.task.label_smoothing)
        };
        let Some(teacher) = &self.teacher else { return Ok(labels(&output)?) };
        let target = tch::no_grad(|| {
            let Teacher { graph, parameters, views, .. } = teacher;
            let forward = Forward { graph, parameters, views, training: false, kind: self.kind };
            forward.run(batch.images.shallow_clone(), &mut |_, tensor| Ok(tensor))
        })?;
        let soft = |logits: &Tensor| logits.f_div_scalar(teacher.temperature)?.f_log_softmax(1, None::<Kind>);
        let count = batch.labels.numel() as f64;
        let divergence = soft(&output)?.f_kl_div(&soft(&target)?, Reduction::Sum, true)?;
        let divergence = divergence.f_mul_scalar(teacher.temperature * teacher.temperature / count * teacher.weight)?;
        if teacher.weight >= 1.0 {
            return Ok(divergence);
        }
        Ok(labels(&output)?.f_mul_scalar(1.0 - teacher.weight)?.f_add(&divergence)?)
    }

    /// Share of images classified correctly, constraints and rounding included.
    pub(crate) fn accuracy(&mut self, images: &Images, batch: usize) -> Result<f64, TrainError> {
        let _guard = tch::no_grad_guard();
        let views = self.views(self.kind)?;
        let Self { graph, parameters, ranges, kind, .. } = self;
        let forward = Forward { graph, parameters, views: &views, training: false, kind: *kind };
        correct(&forward, images, batch, &mut |value, tensor| match ranges {
            Some(ranges) => ranges.round(value, tensor, false),
            None => Ok(tensor),
        })
    }

    /// The network as it is now, exactly on its constraints.
    pub(crate) fn network(&self) -> Result<Network, TrainError> {
        let _guard = tch::no_grad_guard();
        if !self.constrained.changes_weights() {
            return self.parameters.to_network(self.graph, None);
        }
        let magnitudes = self.constrained.magnitudes()?;
        let constrain = |index, weight: &Tensor| self.constrained.apply(index, weight, &magnitudes);
        self.parameters.to_network(self.graph, Some(&constrain))
    }
}

/// Share of images that a network classifies correctly.
pub(crate) fn correct(
    forward: &Forward<'_>,
    images: &Images,
    batch: usize,
    after: &mut crate::forward::After<'_>,
) -> Result<f64, TrainError> {
    let _guard = tch::no_grad_guard();
    let order: Vec<usize> = (0..images.count()).collect();
    let epoch = images.chosen(&order)?;
    let mut total: Option<Tensor> = None;
    for start in (0..images.count()).step_by(batch.max(1)) {
        let range = start..images.count().min(start + batch.max(1));
        let batch = images.batch(&epoch, range, forward.kind)?;
        let output = forward.run(batch.images, after)?;
        let right = output.f_argmax(1, false)?.f_eq_tensor(&batch.labels)?.f_sum(Kind::Int64)?;
        total = Some(match total {
            Some(total) => total.f_add(&right)?,
            None => right,
        });
    }
    let right = total.map(|total| total.f_int64_value(&[])).transpose()?.unwrap_or(0);
    Ok(right as f64 / images.count() as f64)
}

fn wrong(task: &FineTune, field: &str, expected: impl Into<String>, found: impl Into<String>) -> TrainError {
    TrainError::Task { key: task.key.clone(), field: field.into(), expected: expected.into(), found: found.into() }
}

/// The numbers of a task that would otherwise train nonsense.
fn check(task: &FineTune) -> Result<(), TrainError> {
    let range = |field: &str, value: f64, low: f64, high: f64| {
        let fits = (low..=high).contains(&value);
        if fits { Ok(()) } else { Err(wrong(task, field, format!("{low} to {high}"), value.to_string())) }
    };
    range("epochs", task.epochs, 0.0, 1e6)?;
    range("batch", task.batch as f64, 1.0, 1e6)?;
    range("peak_rate", task.peak_rate, 0.0, 1e3)?;
    range("weight_decay", task.weight_decay, 0.0, 1.0)?;
    range("label_smoothing", task.label_smoothing, 0.0, 1.0)?;
    range("warmup", task.warmup, 0.0, 1.0)?;
    if let Some(bits) = task.activations {
        range("activations", f64::from(bits), 2.0, 8.0)?;
    }
    if let Some(distill) = &task.distill {
        range("distill.weight", distill.weight, 0.0, 1.0)?;
        range("distill.temperature", distill.temperature, 1e-3, 1e3)?;
    }
    Ok(())
}

/// Removes the last axes of a mask's gradient and squares it.
pub(crate) fn squared_signals(gradient: &Tensor) -> Result<Tensor, TrainError> {
    let [images, channels] = [gradient.size()[0], gradient.size()[1]];
    Ok(gradient.f_view([images, channels])?.f_to_kind(Kind::Double)?.f_square()?.f_sum_dim_intlist(
        &[extent(0)][..],
        false,
        None::<Kind>,
    )?)
}
