//! Artefact files: a network, and whatever is known of it, in one safetensors file.
//!
//! The tensors are the weights: a plain array under the weight's full name, a packed one as its parts, under
//! the weight's name, a dot and the part's (`conv1.weight.values`), each a vector. A weight takes in the file
//! what it takes in memory.
//!
//! | format            | tensors                                                                    |
//! |-------------------|----------------------------------------------------------------------------|
//! | `dense-*`         | the weight itself, F32 or F16                                              |
//! | `csr-*`           | `row_starts` U32, `columns` U16 or U32, `values` F32 or F16                |
//! | `bsr-*`           | `block_row_starts` U32, `block_columns` U16 or U32, `values` F32           |
//! | `two-four`        | `positions` U8, `values` F32                                               |
//! | `ternary-*`       | `positive` F32, `negative` F32, `codes` U8                                 |
//! | `int8`            | `values` I8, `scales` F32                                                  |
//! | `int4`            | `packed` U8, `scales` F32                                                  |
//! | `filter-csr`      | `row_starts` U32, `columns` U32, `values` F32 (the headers follow from it) |
//!
//! The metadata holds, beside the user's own entries:
//!
//! | key                | value                                                                            |
//! |--------------------|----------------------------------------------------------------------------------|
//! | `dlis.version`     | `1`                                                                              |
//! | `dlis.graph`       | the graph as JSON; layers name their inputs, `null` is the network's input       |
//! | `dlis.formats`     | the format of each weight as JSON; a plain array is converted to it, exactly     |
//! | `dlis.activations` | optional: scale and zero point of quantised tensors, by the layer whose output   |
//! |                    | they are, `""` for the network's input: `{"": [0.02, 118], "relu1": [0.01, 0]}`  |
//!
//! Files are read as if they came from an adversary: sizes are checked before anything is allocated, and
//! what is loaded has passed the checks of [`Graph::new`] and [`Network::new`].

mod container;
mod error;
mod graph_file;
mod packed;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::Path;

use dlis_formats::{Format, Quantization, Weight};

use self::container::Container;
pub use self::error::{ArtefactError, ArtefactProblem};
use self::packed::Packed;
use crate::{Graph, Network, Op, Value, WeightError};

/// Most bytes of a file: 16 GiB.
pub const MAX_FILE_BYTES: u64 = 16 << 30;
/// Most bytes of a file's header: 16 MiB, the graph and the names of tens of thousands of layers.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;

const VERSION: &str = "dlis.version";
const GRAPH: &str = "dlis.graph";
const FORMATS: &str = "dlis.formats";
const ACTIVATIONS: &str = "dlis.activations";
/// Name of the network's input among the layers of [`ACTIVATIONS`]; no layer's name is empty.
const INPUT: &str = "";
/// Keys that belong to the format.
const RESERVED: &str = "dlis.";
/// The version written, and the only one read.
const CURRENT: &str = "1";

/// A network and what is known of it.
///
/// ```
/// use dlis_model::{Artefact, Network, zoo};
///
/// let network = Network::random(zoo::mobilenet_cifar10(), 0);
/// let artefact = Artefact::new(network).with("seed", "0");
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("random.safetensors");
/// artefact.save(&path)?;
/// assert_eq!(Artefact::load(&path)?, artefact);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Artefact {
    /// The network.
    pub network: Network,
    /// What else is known: its recipe, its seed, its accuracy. Keys that begin with `dlis.` are taken.
    pub metadata: BTreeMap<String, String>,
}

impl Artefact {
    /// A network of which nothing else is known.
    pub fn new(network: Network) -> Self {
        Self { network, metadata: BTreeMap::new() }
    }

    /// The same with one more entry of metadata.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Writes the file, whole or not at all: to a temporary file beside it that then takes its name.
    /// The same artefact is always the same bytes.
    ///
    /// # Errors
    ///
    /// [`ArtefactError`] if a key of the metadata begins with `dlis.`, if the file would be larger than can
    /// be read, or if the operating system refuses. The file that was there before is then still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ArtefactError> {
        let path = path.as_ref();
        self.save_whole(path).map_err(ArtefactError::at(path))
    }

    /// Reads a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// [`ArtefactError`] naming the file, the field and what was expected.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ArtefactError> {
        let path = path.as_ref();
        open(path).and_then(Self::read).map_err(ArtefactError::at(path))
    }

    /// Reads the weights of `graph` from a plain safetensors file, such as a state dictionary of PyTorch:
    /// every weight of the graph by its full name and no other tensor, except for the
    /// `num_batches_tracked` of batch-norms, which inference does not use. Tensors are F32 or F16 and stay
    /// so. The metadata is the file's own.
    ///
    /// # Errors
    ///
    /// [`ArtefactError`] naming the file, the tensor and what was expected.
    pub fn load_state_dict(path: impl AsRef<Path>, graph: Graph) -> Result<Self, ArtefactError> {
        let path = path.as_ref();
        open(path).and_then(|container| Self::read_state_dict(container, graph)).map_err(ArtefactError::at(path))
    }

    fn save_whole(&self, path: &Path) -> Result<(), ArtefactProblem> {
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".dlis-").suffix(".tmp");
        // Not the private mode of a temporary file but that of any other, less the user's mask.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        let mut writer = BufWriter::with_capacity(1 << 20, file.as_file_mut());
        self.write(&mut writer)?;
        writer.flush()?;
        drop(writer);
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        // The new name is an entry of the folder, which has to reach the disk too.
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    }

    fn write(&self, writer: &mut impl Write) -> Result<(), ArtefactProblem> {
        if let Some(key) = self.metadata.keys().find(|key| key.starts_with(RESERVED)) {
            return Err(ArtefactProblem::UnknownMetadata { key: key.clone() });
        }
        let formats: BTreeMap<&str, Format> =
            self.network.weights().iter().map(|(name, weight)| (name.as_str(), weight.format())).collect();
        let mut metadata = self.metadata.clone();
        metadata.insert(VERSION.to_owned(), CURRENT.to_owned());
        metadata.insert(GRAPH.to_owned(), graph_file::to_json(self.network.graph())?);
        metadata.insert(FORMATS.to_owned(), serde_json::to_string(&formats).map_err(json_error(FORMATS))?);
        let quantizations = self.network.quantizations();
        if !quantizations.is_empty() {
            let layers = self.network.graph().layers();
            let name = |value: Value| match value {
                Value::Input => INPUT,
                Value::Layer(index) => layers[index].name.as_str(),
            };
            let named: BTreeMap<&str, Quantization> =
                quantizations.iter().map(|(&value, &of)| (name(value), of)).collect();
            metadata.insert(ACTIVATIONS.to_owned(), serde_json::to_string(&named).map_err(json_error(ACTIVATIONS))?);
        }
        container::write(writer, &metadata, self.network.weights())
    }

    fn read<R: Read + Seek>(mut container: Container<R>) -> Result<Self, ArtefactProblem> {
        let mut metadata = std::mem::take(&mut container.metadata);
        let mut take = |key| metadata.remove(key).ok_or(ArtefactProblem::MissingMetadata { key });
        let version = take(VERSION)?;
        if version != CURRENT {
            return Err(ArtefactProblem::Version { found: version, expected: CURRENT });
        }
        let graph = graph_file::from_json(&take(GRAPH)?)?;
        let mut formats: BTreeMap<String, Format> =
            serde_json::from_str(&take(FORMATS)?).map_err(json_error(FORMATS))?;
        let quantization = match metadata.remove(ACTIVATIONS) {
            Some(text) => read_activations(&text, &graph)?,
            None => BTreeMap::new(),
        };
        if let Some(key) = metadata.keys().find(|key| key.starts_with(RESERVED)) {
            return Err(ArtefactProblem::UnknownMetadata { key: key.clone() });
        }
        let mut weights = read_weights(&mut container, &graph, &formats)?;
        for (name, weight) in &mut weights {
            let Some(format) = formats.remove(name) else {
                return Err(ArtefactProblem::MissingFormat { weight: name.clone() });
            };
            if weight.format() != format {
                *weight = weight
                    .convert(format)
                    .map_err(|source| ArtefactProblem::Convert { weight: name.clone(), source })?;
            }
        }
        if let Some((weight, _)) = formats.pop_first() {
            return Err(ArtefactProblem::UnknownFormat { weight });
        }
        let network = Network::new(graph, weights)?.with_quantization(quantization)?;
        Ok(Self { network, metadata })
    }

    fn read_state_dict<R: Read + Seek>(mut container: Container<R>, graph: Graph) -> Result<Self, ArtefactProblem> {
        let mut metadata = std::mem::take(&mut container.metadata);
        metadata.retain(|key, _| !key.starts_with(RESERVED));
        for layer in graph.layers().iter().filter(|layer| matches!(layer.op, Op::BatchNorm { .. })) {
            container.tensors.remove(&format!("{}.num_batches_tracked", layer.name));
        }
        let weights = read_weights(&mut container, &graph, &BTreeMap::new())?;
        Ok(Self { network: Network::new(graph, weights)?, metadata })
    }
}

/// Opens a regular file; a pipe would block and a device may never end.
fn open(path: &Path) -> Result<Container<File>, ArtefactProblem> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(ArtefactProblem::NotAFile);
    }
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Container::open(file, bytes)
}

/// Reads the weights of the graph, which must be all tensors of the file: plain arrays, or the parts of a
/// packed format. Names and shapes are compared before any tensor is read.
fn read_weights<R: Read + Seek>(
    container: &mut Container<R>,
    graph: &Graph,
    formats: &BTreeMap<String, Format>,
) -> Result<BTreeMap<String, Weight>, ArtefactProblem> {
    let mut tensors = std::mem::take(&mut container.tensors);
    let mut plain = Vec::with_capacity(tensors.len());
    let mut packed = Vec::new();
    for layer in graph.layers() {
        for parameter in layer.op.parameters() {
            let name = format!("{}.{}", layer.name, parameter.name);
            if let Some(info) = tensors.remove(&name) {
                if info.shape != parameter.dims {
                    return Err(WeightError::Shape { name, expected: parameter.dims, found: info.shape }.into());
                }
                plain.push((name, info));
                continue;
            }
            let parts = match formats.get(&name) {
                Some(&format) => Packed::take(&name, format, parameter.dims.clone(), &mut tensors)?,
                None => None,
            };
            packed.push(parts.ok_or(WeightError::Missing { name, expected: parameter.dims })?);
        }
    }
    if let Some((name, _)) = tensors.pop_first() {
        return Err(WeightError::Unknown { name, graph: graph.name().to_owned() }.into());
    }
    let mut weights = BTreeMap::new();
    for (name, info) in plain {
        let weight = container.read(&name, &info)?;
        weights.insert(name, weight);
    }
    for parts in packed {
        let (name, weight) = parts.read(container)?;
        weights.insert(name, weight);
    }
    Ok(weights)
}

/// Quantisations by the tensors that the names stand for.
fn read_activations(text: &str, graph: &Graph) -> Result<BTreeMap<Value, Quantization>, ArtefactProblem> {
    let named: BTreeMap<String, Quantization> = serde_json::from_str(text).map_err(json_error(ACTIVATIONS))?;
    let layers: HashMap<&str, usize> =
        graph.layers().iter().enumerate().map(|(index, layer)| (layer.name.as_str(), index)).collect();
    let value = |(name, of): (String, Quantization)| match layers.get(name.as_str()) {
        Some(&index) => Ok((Value::Layer(index), of)),
        None if name == INPUT => Ok((Value::Input, of)),
        None => Err(ArtefactProblem::UnknownActivation { layer: name }),
    };
    named.into_iter().map(value).collect()
}

fn json_error(key: &'static str) -> impl FnOnce(serde_json::Error) -> ArtefactProblem {
    move |source| ArtefactProblem::Json { key, source }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod packed_tests;
#[cfg(test)]
mod tests;
