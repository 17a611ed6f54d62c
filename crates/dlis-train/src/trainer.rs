//! Training on libtorch behind the trait of `dlis-compress`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dlis_compress::{FineTune, Observed, Trainer, TrainerError, TrainingProgress};
use dlis_eval::dataset::{Dataset, Normalization};
use dlis_model::{Graph, Network, Value};
use tch::{Kind, Tensor};

use crate::checkpoint::{Checkpoints, Entry};
use crate::data::Images;
use crate::error::{TrainError, extent};
use crate::forward::Forward;
use crate::observe;
use crate::parameters::Parameters;
use crate::random::Random;
use crate::run::{Run, correct, squared_signals};
use crate::schedule::OneCycle;

/// Images of one forward pass where nothing is trained.
const PASS: usize = 250;

/// Where tensors live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU, in f32.
    #[default]
    Cpu,
    /// The first CUDA device: activations in bf16 while training, everything else in f32.
    Cuda,
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("no device `{text}`; known: cpu, cuda")),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

/// How a [`TorchTrainer`] works; the default is the CPU without checkpoints.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where tensors live.
    pub device: Device,
    /// What brings bytes to a network's input.
    pub normalization: Normalization,
    /// Folder for checkpoints, one file a training run. A run whose file is there goes on from it.
    pub checkpoints: Option<PathBuf>,
    /// At the end of an epoch a checkpoint is written if the last one is this old.
    pub checkpoint_every: Duration,
    /// Steps between two reports. Each waits for the device.
    pub report_every: usize,
    /// Most steps of a training run, to try recipes out.
    pub steps_limit: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            normalization: Normalization::CIFAR10,
            checkpoints: None,
            checkpoint_every: Duration::from_secs(20),
            report_every: 100,
            steps_limit: None,
        }
    }
}

/// How far a training run has come, for logs and progress bars.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress<'a> {
    /// The run's key.
    pub key: &'a str,
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Epochs done.
    pub epoch: f64,
    /// Epochs in all.
    pub epochs: f64,
    /// Mean loss of the steps since the last report.
    pub loss: f64,
    /// The last step's learning rate.
    pub rate: f64,
    /// Training images a second since the last report.
    pub images_per_s: f64,
    /// Seconds since the run began or went on.
    pub seconds: f64,
    /// Share of test images classified correctly; at the end of each epoch.
    pub accuracy: Option<f64>,
}

type Watch = Box<dyn FnMut(&Progress<'_>)>;

/// Trains networks with libtorch.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use dlis_compress::{FineTune, Trainer as _};
/// use dlis_eval::dataset::cifar10;
/// use dlis_model::{Graph, Shape, Window};
/// use dlis_train::{Options, TorchTrainer, initial};
///
/// let mut graph = Graph::builder("tiny", Shape::new(3, 32, 32));
/// let x = graph.conv("conv", graph.input(), 4, Window::square(3).with_stride(4));
/// let x = graph.relu("relu", x);
/// let x = graph.global_avg_pool("pool", x);
/// let x = graph.linear("fc", x, 10);
/// let network = initial(graph.finish(x)?, 0)?;
///
/// let images = cifar10::embedded();
/// let mut trainer = TorchTrainer::new(&images, &images, Options::default())?;
/// let task = FineTune {
///     key: "tiny".into(),
///     epochs: 1.0,
///     batch: 100,
///     peak_rate: 0.1,
///     weight_decay: 5e-4,
///     label_smoothing: 0.1,
///     warmup: 0.2,
///     distill: None,
///     constraints: BTreeMap::new(),
///     activations: None,
///     seed: 0,
/// };
/// let trained = trainer.fine_tune(&network, &task, &mut |progress| assert!(progress.loss < 3.0))?;
/// assert!(trainer.accuracy(&trained)? > 0.05);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TorchTrainer {
    options: Options,
    device: tch::Device,
    /// The type of activations while training.
    kind: Kind,
    train: Images,
    test: Images,
    checkpoints: Option<Checkpoints>,
    watch: Option<Watch>,
}

impl std::fmt::Debug for TorchTrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TorchTrainer").field("options", &self.options).finish_non_exhaustive()
    }
}

impl TorchTrainer {
    /// Brings both sets of images to the device.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoCuda`], [`TrainError::NoImages`], [`TrainError::Torch`] if the device has no room.
    pub fn new(train: &Dataset, test: &Dataset, options: Options) -> Result<Self, TrainError> {
        let (device, kind) = match options.device {
            Device::Cpu => (tch::Device::Cpu, Kind::Float),
            Device::Cuda if tch::Cuda::is_available() => (tch::Device::Cuda(0), Kind::BFloat16),
            Device::Cuda => return Err(TrainError::NoCuda),
        };
        if device.is_cuda() {
            // Shapes stay the same from step to step: trying cuDNN's algorithms pays.
            tch::Cuda::cudnn_set_benchmark(true);
        }
        let normalization = &options.normalization;
        Ok(Self {
            train: Images::training(train, normalization, device)?,
            test: Images::plain(test, normalization, device)?,
            checkpoints: options.checkpoints.as_ref().map(Checkpoints::new),
            device,
            kind,
            options,
            watch: None,
        })
    }

    /// Calls `watch` every [`Options::report_every`] steps and at the end of each epoch.
    pub fn watch(&mut self, watch: impl FnMut(&Progress<'_>) + 'static) {
        self.watch = Some(Box::new(watch));
    }

    fn check(&self, graph: &Graph) -> Result<(), TrainError> {
        let expected = <[usize; 3]>::from(graph.input_shape());
        for images in [&self.train, &self.test] {
            if images.shape() != expected {
                return Err(TrainError::Images { network: graph.name().to_owned(), expected, found: images.shape() });
            }
        }
        Ok(())
    }

    fn train(
        &mut self,
        network: &Network,
        task: &FineTune,
        progress: &mut dyn FnMut(&TrainingProgress),
    ) -> Result<Network, TrainError> {
        self.check(network.graph())?;
        let mut run = Run::new(network, task, self.device, self.kind)?;
        let batch = task.batch.min(self.train.count());
        let epoch_steps = self.train.count() / batch;
        let steps = whole(task.epochs * epoch_steps as f64).min(self.options.steps_limit.unwrap_or(usize::MAX));
        let mut done = self.resume(&mut run, task, steps)?;
        let cycle = OneCycle { peak: task.peak_rate, warmup: task.warmup, steps };
        let mut clock = Clock::new(done);
        let mut sum = tch::no_grad(|| Tensor::f_zeros([], (Kind::Float, self.device)))?;
        while done < steps {
            let epoch = self.train.epoch(task.seed, done / epoch_steps)?;
            let end = steps.min((done / epoch_steps + 1) * epoch_steps);
            while done < end {
                let first = done % epoch_steps * batch;
                let images = self.train.batch(&epoch, first..first + batch, self.kind)?;
                let rate = cycle.rate(done);
                let _ = sum.f_add_(&run.step(&images, rate)?)?;
                done += 1;
                if done < end && (done - clock.reported) < self.options.report_every {
                    continue;
                }
                let epochs_done = done as f64 / epoch_steps as f64;
                let loss = sum.f_double_value(&[])? / (done - clock.reported) as f64;
                let _ = sum.f_zero_()?;
                if !loss.is_finite() {
                    return Err(TrainError::Diverged { key: task.key.clone(), epoch: epochs_done });
                }
                let images_per_s = clock.images_per_s(done, batch);
                let accuracy = (done == end).then(|| run.accuracy(&self.test, PASS)).transpose()?;
                let report = Progress {
                    key: &task.key,
                    step: done,
                    steps,
                    epoch: epochs_done,
                    epochs: steps as f64 / epoch_steps as f64,
                    loss,
                    rate,
                    images_per_s,
                    seconds: clock.begun.elapsed().as_secs_f64(),
                    accuracy,
                };
                if let Some(watch) = &mut self.watch {
                    watch(&report);
                }
                progress(&TrainingProgress {
                    key: task.key.clone(),
                    epoch: report.epoch,
                    epochs: report.epochs,
                    loss,
                    accuracy,
                });
                clock.reported_at = Instant::now();
            }
            if clock.saved.elapsed() >= self.options.checkpoint_every || done == steps {
                self.save(&mut run, task, done, steps)?;
                clock.saved = Instant::now();
            }
        }
        run.network()
    }

    /// Goes on from the run's checkpoint if there is one; how many steps it had done.
    fn resume(&self, run: &mut Run<'_>, task: &FineTune, steps: usize) -> Result<usize, TrainError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(0) };
        let mut total = Tensor::f_from_slice(&[0_i64])?;
        let found = checkpoints.load(&task.key, &mut with_total(run.state(), &mut total))?;
        let Some(done) = found else { return Ok(0) };
        let stored = total.f_int64_value(&[0])?;
        if stored != extent(steps) || done > steps {
            let problem = format!("it is of a run of {stored} steps, expected {steps}");
            return Err(TrainError::Checkpoint { path: checkpoints.path(&task.key)?, problem });
        }
        if done > 0 {
            run.resumed();
        }
        Ok(done)
    }

    fn save(&self, run: &mut Run<'_>, task: &FineTune, done: usize, steps: usize) -> Result<(), TrainError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        let mut total = Tensor::f_from_slice(&[extent(steps)])?;
        checkpoints.save(&task.key, done, &mut with_total(run.state(), &mut total))
    }

    fn signals(
        &self,
        network: &Network,
        tensors: &[Value],
        images: usize,
        seed: u64,
    ) -> Result<Vec<Vec<f64>>, TrainError> {
        let graph = network.graph();
        self.check(graph)?;
        let parameters = Parameters::new(network, self.device, false)?;
        let views = parameters.views(Kind::Float, None)?;
        let forward = Forward { graph, parameters: &parameters, views: &views, training: false, kind: Kind::Float };
        let count = images.clamp(1, self.train.count());
        let mut order = Random::new(seed, 0).permutation(self.train.count());
        order.truncate(count);
        let chosen = self.train.chosen(&order)?;
        let mut sums: BTreeMap<Value, Tensor> = BTreeMap::new();
        for start in (0..count).step_by(PASS) {
            let batch = self.train.batch(&chosen, start..count.min(start + PASS), Kind::Float)?;
            let images = batch.labels.size()[0];
            let mut masks: Vec<(Value, Tensor)> = Vec::with_capacity(tensors.len());
            let output = forward.run(batch.images, &mut |value, tensor| {
                if !tensors.contains(&value) {
                    return Ok(tensor);
                }
                let channels = extent(graph.shape(value).channels);
                let mask = Tensor::f_ones([images, channels, 1, 1], (Kind::Float, self.device))?;
                let mask = mask.f_set_requires_grad(true)?;
                let masked = tensor.f_mul(&mask)?;
                masks.push((value, mask));
                Ok(masked)
            })?;
            // The sum, so that each image's gradient is that of its own loss.
            let loss = output.f_cross_entropy_loss(&batch.labels, None::<Tensor>, tch::Reduction::Sum, -100, 0.0)?;
            let leaves: Vec<&Tensor> = masks.iter().map(|(_, mask)| mask).collect();
            if leaves.is_empty() {
                break;
            }
            let gradients = Tensor::f_run_backward(&[&loss], &leaves, false, false)?;
            let _guard = tch::no_grad_guard();
            for ((value, _), gradient) in masks.iter().zip(gradients) {
                // A tensor that the output does not depend on has none.
                if !gradient.defined() {
                    continue;
                }
                let signals = squared_signals(&gradient)?;
                match sums.get_mut(value) {
                    Some(sum) => drop(sum.f_add_(&signals)?),
                    None => drop(sums.insert(*value, signals)),
                }
            }
        }
        let signal = |value: &Value| {
            let channels = match *value {
                Value::Layer(index) if index >= graph.layers().len() => 0,
                value => graph.shape(value).channels,
            };
            let mut signal = vec![0.0; channels];
            if let Some(sum) = sums.get(value) {
                sum.f_to_device(tch::Device::Cpu)?.f_copy_data(&mut signal, channels)?;
            }
            Ok(signal.into_iter().map(|sum: f64| sum / (2.0 * count as f64)).collect())
        };
        tensors.iter().map(signal).collect()
    }

    fn observed(&self, network: &Network, images: usize) -> Result<BTreeMap<Value, Observed>, TrainError> {
        let graph = network.graph();
        self.check(graph)?;
        let _guard = tch::no_grad_guard();
        let parameters = Parameters::new(network, self.device, false)?;
        let views = parameters.views(Kind::Float, None)?;
        let forward = Forward { graph, parameters: &parameters, views: &views, training: false, kind: Kind::Float };
        let count = images.clamp(1, self.train.count());
        let mut order = Random::new(0, 1).permutation(self.train.count());
        order.truncate(count);
        observe::observe(&forward, &self.train, &order, PASS)
    }

    fn measure(&self, network: &Network) -> Result<f64, TrainError> {
        let graph = network.graph();
        self.check(graph)?;
        let _guard = tch::no_grad_guard();
        let parameters = Parameters::new(network, self.device, false)?;
        let views = parameters.views(Kind::Float, None)?;
        let forward = Forward { graph, parameters: &parameters, views: &views, training: false, kind: Kind::Float };
        correct(&forward, &self.test, PASS, &mut |_, tensor| Ok(tensor))
    }

    /// The network's output for its input `[n, channels, height, width]`, as inference would compute it: for
    /// comparison with other engines.
    ///
    /// # Errors
    ///
    /// [`TrainError::Images`] if `images` is no whole number of inputs, [`TrainError::Torch`].
    pub fn outputs(network: &Network, images: &[f32], device: Device) -> Result<Vec<f32>, TrainError> {
        let graph = network.graph();
        let shape = <[usize; 3]>::from(graph.input_shape());
        let len: usize = shape.iter().product();
        if images.is_empty() || !images.len().is_multiple_of(len) {
            let network = graph.name().to_owned();
            return Err(TrainError::Images { network, expected: shape, found: [images.len(), 1, 1] });
        }
        let device = match device {
            Device::Cpu => tch::Device::Cpu,
            Device::Cuda if tch::Cuda::is_available() => tch::Device::Cuda(0),
            Device::Cuda => return Err(TrainError::NoCuda),
        };
        let _guard = tch::no_grad_guard();
        let [channels, height, width] = shape.map(extent);
        let input = Tensor::f_from_slice(images)?.f_view([-1, channels, height, width])?.f_to_device(device)?;
        let parameters = Parameters::new(network, device, false)?;
        let views = parameters.views(Kind::Float, None)?;
        let forward = Forward { graph, parameters: &parameters, views: &views, training: false, kind: Kind::Float };
        let output = forward.run(input, &mut |_, tensor| Ok(tensor))?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        let mut values = vec![0.0; output.numel()];
        let len = values.len();
        output.f_copy_data(&mut values, len)?;
        Ok(values)
    }
}

impl Trainer for TorchTrainer {
    fn fine_tune(
        &mut self,
        network: &Network,
        task: &FineTune,
        progress: &mut dyn FnMut(&TrainingProgress),
    ) -> Result<Network, TrainerError> {
        self.train(network, task, progress).map_err(|error| error.while_doing(format!("training run `{}`", task.key)))
    }

    fn fisher(
        &mut self,
        network: &Network,
        tensors: &[Value],
        images: usize,
        seed: u64,
    ) -> Result<Vec<Vec<f64>>, TrainerError> {
        self.signals(network, tensors, images, seed).map_err(|error| error.while_doing("Fisher signals"))
    }

    fn observe(&mut self, network: &Network, images: usize) -> Result<BTreeMap<Value, Observed>, TrainerError> {
        self.observed(network, images).map_err(|error| error.while_doing("ranges of activations"))
    }

    fn accuracy(&mut self, network: &Network) -> Result<f64, TrainerError> {
        self.measure(network).map_err(|error| error.while_doing("accuracy"))
    }
}

/// Times of a run.
struct Clock {
    begun: Instant,
    reported_at: Instant,
    saved: Instant,
    /// Steps at the last report.
    reported: usize,
}

impl Clock {
    fn new(done: usize) -> Self {
        let now = Instant::now();
        Self { begun: now, reported_at: now, saved: now, reported: done }
    }

    /// The speed since the last report, which becomes this one.
    fn images_per_s(&mut self, done: usize, batch: usize) -> f64 {
        let images = (done - self.reported) * batch;
        self.reported = done;
        images as f64 / self.reported_at.elapsed().as_secs_f64().max(1e-9)
    }
}

fn with_total<'a>(mut state: Vec<Entry<'a>>, total: &'a mut Tensor) -> Vec<Entry<'a>> {
    state.push(("steps".to_owned(), total));
    state
}

/// The nearest whole number of steps.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be at least 0; saturates")]
fn whole(steps: f64) -> usize {
    steps.round() as usize
}
