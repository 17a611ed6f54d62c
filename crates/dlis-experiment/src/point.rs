//! The stack point: one choice on every layer of the stack, and the name of its result.

use std::fmt;

use dlis_backend::Schedule;
use dlis_runtime::Policy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::InvalidField;

/// Threads a point may ask for; more is taken for a mistake.
pub const MAX_THREADS: usize = 4096;
/// Images a batch may hold.
pub const MAX_BATCH: usize = 65_536;
/// Bytes a name (a network's path, say) may take.
const MAX_NAME_BYTES: usize = 4096;

/// One choice on every layer of the stack.
///
/// ```
/// use dlis_experiment::{StackLayer, StackPoint};
/// let point = StackPoint {
///     network: "resnet18-cifar10".into(),
///     recipe: "none".into(),
///     format: "dense-f32".into(),
///     algorithm: "fixed:direct".parse().unwrap(),
///     backend: "omp".into(),
///     threads: 4,
///     schedule: "dynamic,1".parse().unwrap(),
///     batch: 1,
///     hw: "0123456789abcdef".into(),
/// };
/// assert_eq!(StackLayer::Threads.value(&point), "4");
/// assert_eq!(point.id().len(), 16);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackPoint {
    /// Layer 1: a network of the zoo, or the path of an artefact.
    pub network: String,
    /// Layer 2: the compression recipe, `none` for the network as trained.
    pub recipe: String,
    /// Layer 3: the format of the weights.
    pub format: String,
    /// Layer 3: how the algorithm of each layer is chosen.
    pub algorithm: Policy,
    /// Layer 4: the backend.
    pub backend: String,
    /// Layer 4: its threads, the calling one among them.
    pub threads: usize,
    /// Layer 4: how a parallel loop is dealt out to them.
    pub schedule: Schedule,
    /// Layer 4: images per inference.
    pub batch: usize,
    /// Layer 5: the fingerprint of the machine.
    pub hw: String,
}

impl StackPoint {
    /// The name of this point's result: the first 16 hexadecimal digits of the SHA-256 of the point as
    /// JSON without white space, its fields in the order of declaration.
    ///
    /// # Panics
    ///
    /// Never: strings and integers always have a JSON form.
    pub fn id(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings and integers have a JSON form");
        Sha256::digest(json).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Checks that names are printable and numbers in range.
    ///
    /// # Errors
    ///
    /// Names the first field that is not.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let names = [
            ("point.network", &self.network),
            ("point.recipe", &self.recipe),
            ("point.format", &self.format),
            ("point.backend", &self.backend),
            ("point.hw", &self.hw),
        ];
        for (field, name) in names {
            if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
                return Err(InvalidField::new(
                    field,
                    "a non-empty name without control characters",
                    format!("{name:?}"),
                ));
            }
        }
        if !(1..=MAX_THREADS).contains(&self.threads) {
            return Err(InvalidField::new("point.threads", "1 to 4096", self.threads));
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return Err(InvalidField::new("point.batch", "1 to 65536", self.batch));
        }
        Ok(())
    }
}

/// All choices but the machine, from the network down.
impl fmt::Display for StackPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, recipe, format, algorithm, backend, threads, schedule, batch, hw: _ } = self;
        let s = if *threads == 1 { "" } else { "s" };
        write!(f, "{network} / {recipe} / {format} / {algorithm} / {backend}, {threads} thread{s}, {schedule}")?;
        if *batch == 1 { Ok(()) } else { write!(f, ", batch {batch}") }
    }
}

/// The layers of a stack point, in order: every table, filter and file of records lists them from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackLayer {
    /// The CNN.
    Network,
    /// The compression recipe.
    Recipe,
    /// The weight format.
    Format,
    /// The choice of algorithms.
    Algorithm,
    /// The backend.
    Backend,
    /// The threads.
    Threads,
    /// The schedule of parallel loops.
    Schedule,
    /// Images per inference.
    Batch,
    /// The machine.
    Hw,
}

impl StackLayer {
    /// All of them, from the network down.
    pub const ALL: [Self; 9] = [
        Self::Network,
        Self::Recipe,
        Self::Format,
        Self::Algorithm,
        Self::Backend,
        Self::Threads,
        Self::Schedule,
        Self::Batch,
        Self::Hw,
    ];

    /// The word for it in files, columns and flags: the name of its field in [`StackPoint`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Recipe => "recipe",
            Self::Format => "format",
            Self::Algorithm => "algorithm",
            Self::Backend => "backend",
            Self::Threads => "threads",
            Self::Schedule => "schedule",
            Self::Batch => "batch",
            Self::Hw => "hw",
        }
    }

    /// The layer of the Deep Learning Inference Stack it belongs to: 1 network, 2 compression, 3 format and
    /// algorithm, 4 system, 5 hardware.
    pub const fn level(self) -> u8 {
        match self {
            Self::Network => 1,
            Self::Recipe => 2,
            Self::Format | Self::Algorithm => 3,
            Self::Backend | Self::Threads | Self::Schedule | Self::Batch => 4,
            Self::Hw => 5,
        }
    }

    /// The choice `point` makes on it, as text.
    pub fn value(self, point: &StackPoint) -> String {
        match self {
            Self::Network => point.network.clone(),
            Self::Recipe => point.recipe.clone(),
            Self::Format => point.format.clone(),
            Self::Algorithm => point.algorithm.to_string(),
            Self::Backend => point.backend.clone(),
            Self::Threads => point.threads.to_string(),
            Self::Schedule => point.schedule.to_string(),
            Self::Batch => point.batch.to_string(),
            Self::Hw => point.hw.clone(),
        }
    }
}

impl fmt::Display for StackLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point() -> StackPoint {
        StackPoint {
            network: "vgg16-cifar10".into(),
            recipe: "none".into(),
            format: "dense-f32".into(),
            algorithm: Policy::Measured,
            backend: "rayon".into(),
            threads: 2,
            schedule: Schedule::Static,
            batch: 1,
            hw: "0123456789abcdef".into(),
        }
    }

    /// Stores are keyed by these names: if this fails, every store in the world is measured anew.
    #[test]
    fn ids_are_pinned() {
        let json = r#"{"network":"vgg16-cifar10","recipe":"none","format":"dense-f32","algorithm":"measured","backend":"rayon","threads":2,"schedule":"static","batch":1,"hw":"0123456789abcdef"}"#;
        assert_eq!(serde_json::to_string(&point()).unwrap(), json);
        assert_eq!(point().id(), "cd3e846813ac7035");
    }

    #[test]
    fn every_layer_takes_part_in_the_id_and_is_listed_once() {
        let json = serde_json::to_value(point()).unwrap();
        let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(fields, StackLayer::ALL.map(StackLayer::name).each_ref().map(|name| *name).to_vec());
        for layer in StackLayer::ALL {
            let shown = json[layer.name()].as_str().map_or_else(|| json[layer.name()].to_string(), str::to_owned);
            assert_eq!(layer.value(&point()), shown);
        }
    }

    #[test]
    fn points_read_back_and_unknown_fields_are_refused() {
        let mut json = serde_json::to_value(point()).unwrap();
        assert_eq!(serde_json::from_value::<StackPoint>(json.clone()).unwrap(), point());
        json["colour"] = "red".into();
        assert!(serde_json::from_value::<StackPoint>(json).unwrap_err().to_string().contains("colour"));
    }

    #[test]
    fn odd_points_are_refused_by_field() {
        let refused = |change: fn(&mut StackPoint)| {
            let mut point = point();
            change(&mut point);
            point.validate().unwrap_err().field
        };
        assert_eq!(refused(|p| p.threads = 0), "point.threads");
        assert_eq!(refused(|p| p.batch = MAX_BATCH + 1), "point.batch");
        assert_eq!(refused(|p| p.backend.clear()), "point.backend");
        assert_eq!(refused(|p| p.network = "a\nb".into()), "point.network");
        point().validate().unwrap();
    }
}
