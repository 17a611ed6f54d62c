//! The record: one measured stack point with its provenance.

use std::fmt;

use dlis_eval::stats::{Interval, wilson_95};
use serde::{Deserialize, Serialize};

use crate::StackPoint;

/// The version of the record's form that is written, and the one that is read.
pub const SCHEMA: u32 = 2;

/// A value that no measurement can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {found}, expected {expected}")]
pub struct InvalidField {
    /// The path of the field, as in `latency.median_ns`.
    pub field: String,
    /// What would do.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl InvalidField {
    pub(crate) fn new(field: impl Into<String>, expected: impl Into<String>, found: impl fmt::Display) -> Self {
        Self { field: field.into(), expected: expected.into(), found: found.to_string() }
    }
}

/// What compression left of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// The recipe in a sentence; empty for the network as trained.
    pub description: String,
    /// Share of the convolutions' and linear layers' weights that are zero, 0 to 1.
    pub sparsity: f64,
    /// Elements of all weights, zeros included.
    pub weights: u64,
    /// Bytes of all weights in their formats, before any kernel packed them.
    pub stored_weight_bytes: u64,
    /// Multiply-accumulates of one image if zeros count like any other weight; channels that were removed do
    /// not.
    pub macs: u64,
}

/// How often the network was right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// The images: `embedded`, `cifar10`, ...
    pub dataset: String,
    /// How many of them were classified, at least 1.
    pub images: u64,
    /// The share whose class came first, 0 to 1.
    pub top1: f64,
    /// The share whose class was among the first five, 0 to 1.
    pub top5: f64,
    /// A hash of everything the outputs depend on (weights, kernels of each layer, images): points that
    /// share it compute the same numbers, so one measurement serves all of them.
    pub arithmetic: String,
}

impl Accuracy {
    /// The interval that holds the accuracy on the whole population with 95 % confidence, given that only
    /// [`images`](Self::images) were drawn (Wilson's score interval, 1927).
    ///
    /// ```
    /// # use dlis_experiment::Accuracy;
    /// let accuracy = Accuracy { dataset: "embedded".into(), images: 1000, top1: 0.93, top5: 0.99, arithmetic: "a".into() };
    /// let interval = accuracy.top1_interval();
    /// assert!((interval.low - 0.912).abs() < 1e-3 && (interval.high - 0.944).abs() < 1e-3);
    /// ```
    pub fn top1_interval(&self) -> Interval {
        wilson_95(self.top1, self.images)
    }

    /// Checks that the counts and shares are possible.
    pub(crate) fn validate(&self) -> Result<(), InvalidField> {
        let Self { images, top1, top5, .. } = *self;
        if images == 0 {
            return Err(InvalidField::new("accuracy.images", "at least 1", images));
        }
        for (field, value) in [("accuracy.top1", top1), ("accuracy.top5", top5)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(InvalidField::new(field, "0 to 1", value));
            }
        }
        if top5 < top1 {
            return Err(InvalidField::new("accuracy.top5", format!("at least top1, {top1}"), top5));
        }
        Ok(())
    }
}

/// How long one inference (of the point's batch) takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Half of the inferences took at most this long.
    pub median_ns: f64,
    /// A tenth took at most this long.
    pub p10_ns: f64,
    /// Nine tenths took at most this long.
    pub p90_ns: f64,
    /// Low end of the confidence interval of the median.
    pub ci_low_ns: f64,
    /// High end of the confidence interval of the median.
    pub ci_high_ns: f64,
    /// Inferences that were timed.
    pub samples: u64,
    /// Whether the machine was too unsteady for the figures to be trusted.
    pub noisy: bool,
    /// Why it is `noisy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<String>,
}

/// What the point occupies. Sizes are of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The artefact on disk.
    pub disk_bytes: u64,
    /// Weights as the kernels packed them.
    pub weight_bytes: u64,
    /// The arena of activations.
    pub activation_bytes: u64,
    /// Scratch of the kernels, all threads together.
    pub scratch_bytes: u64,
    /// What an allocator that counts saw alive at most; `None` where none counted.
    pub counted_bytes: Option<u64>,
    /// Peak resident set of the process; `None` where the system doesn't tell.
    pub peak_rss_bytes: Option<u64>,
}

impl Memory {
    /// Weights, activations and scratch: what fronts, constraints and tables call memory.
    pub const fn resident_bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.activation_bytes).saturating_add(self.scratch_bytes)
    }
}

/// What was expected of the point before it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicted {
    /// Multiply-accumulates per inference, as [`Compression::macs`] counts them.
    pub macs: u64,
    /// Bytes moved at least, per inference.
    pub bytes: u64,
    /// Least time per inference by the roofline, the layers added up; `None` where the machine's peaks are
    /// not known.
    pub roofline_ns: Option<f64>,
    /// The floating-point rate the roofline used.
    pub peak_flops_per_s: Option<f64>,
    /// The bandwidth the roofline used.
    pub bandwidth_bytes_per_s: Option<f64>,
}

/// What happens once, before the first inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Startup {
    /// Reading the network.
    pub load_ns: f64,
    /// Choosing algorithms, packing weights, laying out memory.
    pub prepare_ns: f64,
}

/// One step of the network as it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerProfile {
    /// The layer's name in the network.
    pub layer: String,
    /// The operation in words: `conv2d 3x3 64->128, relu`.
    pub op: String,
    /// The kernel that ran it.
    pub kernel: String,
    /// Median time.
    pub median_ns: f64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Bytes moved at least.
    pub bytes: u64,
    /// Least time by the roofline; `None` where the machine's peaks are not known.
    pub roofline_ns: Option<f64>,
}

/// Where a record comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of DLIS.
    pub dlis_version: String,
    /// Its git revision, where it was built from a checkout.
    pub git_revision: Option<String>,
    /// The compiler.
    pub rustc: Option<String>,
    /// When the point was measured: milliseconds since 1970 began, UTC.
    pub unix_ms: u64,
    /// The machine's processor, or the name its owner gave it.
    pub machine: String,
    /// The machine in a few lines.
    pub machine_summary: String,
    /// Operating system.
    pub os: String,
    /// The device, its driver and the precision of activations, where it was not the host's processor that computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// One measured stack point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`StackPoint::id`] of `point`.
    pub id: String,
    /// What was measured.
    pub point: StackPoint,
    /// What its recipe and format left of the network.
    pub compression: Compression,
    /// How often it was right.
    pub accuracy: Accuracy,
    /// How long an inference takes.
    pub latency: Latency,
    /// Images per second, one inference after the other.
    pub throughput_images_per_s: f64,
    /// What it occupies.
    pub memory: Memory,
    /// What was expected of it.
    pub predicted: Predicted,
    /// What it costs to start.
    pub startup: Startup,
    /// The steps of the network, in the order of execution.
    pub layers: Vec<LayerProfile>,
    /// Energy of one inference, where the machine has counters.
    pub energy_joules: Option<f64>,
    /// Where the record comes from.
    pub provenance: Provenance,
    /// Anything a reader should know.
    pub notes: Vec<String>,
}

impl Record {
    /// Checks everything the types don't: finite numbers, ranges, the order of quantiles, and that the
    /// id is that of the point.
    ///
    /// # Errors
    ///
    /// Names the first field that is wrong.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.schema != SCHEMA {
            return Err(InvalidField::new("schema", SCHEMA.to_string(), self.schema));
        }
        self.point.validate()?;
        let id = self.point.id();
        if self.id != id {
            return Err(InvalidField::new("id", format!("`{id}`, the id of its point"), format!("`{}`", self.id)));
        }
        if !(0.0..=1.0).contains(&self.compression.sparsity) {
            return Err(InvalidField::new("compression.sparsity", "0 to 1", self.compression.sparsity));
        }
        self.accuracy.validate()?;
        self.validate_latency()?;
        positive("throughput_images_per_s", self.throughput_images_per_s)?;
        for (field, value) in [
            ("predicted.roofline_ns", self.predicted.roofline_ns),
            ("predicted.peak_flops_per_s", self.predicted.peak_flops_per_s),
            ("predicted.bandwidth_bytes_per_s", self.predicted.bandwidth_bytes_per_s),
            ("energy_joules", self.energy_joules),
        ] {
            not_negative(field, value.unwrap_or(0.0))?;
        }
        not_negative("startup.load_ns", self.startup.load_ns)?;
        not_negative("startup.prepare_ns", self.startup.prepare_ns)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let times = [("median_ns", layer.median_ns), ("roofline_ns", layer.roofline_ns.unwrap_or(0.0))];
            for (field, value) in times {
                // The path is built on failure alone: there may be thousands of layers.
                not_negative(field, value)
                    .map_err(|e| InvalidField { field: format!("layers[{index}].{field}"), ..e })?;
            }
        }
        Ok(())
    }

    fn validate_latency(&self) -> Result<(), InvalidField> {
        let Latency { median_ns, p10_ns, p90_ns, ci_low_ns, ci_high_ns, samples, .. } = self.latency;
        if samples == 0 {
            return Err(InvalidField::new("latency.samples", "at least 1", samples));
        }
        positive("latency.median_ns", median_ns)?;
        let low = [("latency.p10_ns", p10_ns), ("latency.ci_low_ns", ci_low_ns)];
        let high = [("latency.p90_ns", p90_ns), ("latency.ci_high_ns", ci_high_ns)];
        for (field, value) in low {
            not_negative(field, value)?;
            if value > median_ns {
                return Err(InvalidField::new(field, format!("at most the median, {median_ns}"), value));
            }
        }
        for (field, value) in high {
            not_negative(field, value)?;
            if value < median_ns {
                return Err(InvalidField::new(field, format!("at least the median, {median_ns}"), value));
            }
        }
        Ok(())
    }
}

fn not_negative(field: &str, value: f64) -> Result<(), InvalidField> {
    let fine = value.is_finite() && value >= 0.0;
    if fine { Ok(()) } else { Err(InvalidField::new(field, "a finite number of at least 0", value)) }
}

fn positive(field: &str, value: f64) -> Result<(), InvalidField> {
    let fine = value.is_finite() && value > 0.0;
    if fine { Ok(()) } else { Err(InvalidField::new(field, "a finite number above 0", value)) }
}
