//! Artefact files: a network, and whatever is known of it, in one safetensors file.
//!
//! The tensors are the weights under their full names. The metadata holds, beside the user's own entries:
//!
//! | key            | value                                                                        |
//! |----------------|------------------------------------------------------------------------------|
//! | `dlis.version` | `1`                                                                          |
//! | `dlis.graph`   | the graph as JSON; layers name their inputs, `null` is the network's input   |
//! | `dlis.formats` | the format of each weight as JSON; what is no plain array is stored as dense |
//!
//! Files are read as if they came from an adversary: sizes are checked before anything is allocated, and
//! what is loaded has passed the checks of [`Graph::new`] and [`Network::new`].

mod container;
mod error;
mod graph_file;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::Path;

use dlis_formats::{Format, Weight};

use self::container::Container;
pub use self::error::{ArtefactError, ArtefactProblem};
use crate::{Graph, Network, Op, WeightError};

/// Most bytes of a file: 16 GiB.
pub const MAX_FILE_BYTES: u64 = 16 << 30;
/// Most bytes of a file's header: 16 MiB, the graph and the names of tens of thousands of layers.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;

const VERSION: &str = "dlis.version";
const GRAPH: &str = "dlis.graph";
const FORMATS: &str = "dlis.formats";
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
        if let Some(key) = metadata.keys().find(|key| key.starts_with(RESERVED)) {
            return Err(ArtefactProblem::UnknownMetadata { key: key.clone() });
        }
        let mut weights = read_weights(&mut container, &graph)?;
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
        Ok(Self { network: Network::new(graph, weights)?, metadata })
    }

    fn read_state_dict<R: Read + Seek>(mut container: Container<R>, graph: Graph) -> Result<Self, ArtefactProblem> {
        let mut metadata = std::mem::take(&mut container.metadata);
        metadata.retain(|key, _| !key.starts_with(RESERVED));
        for layer in graph.layers().iter().filter(|layer| matches!(layer.op, Op::BatchNorm { .. })) {
            container.tensors.remove(&format!("{}.num_batches_tracked", layer.name));
        }
        let weights = read_weights(&mut container, &graph)?;
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

/// Reads the weights of the graph, which must be all tensors of the file. Names and shapes are compared
/// before any tensor is read.
fn read_weights<R: Read + Seek>(
    container: &mut Container<R>,
    graph: &Graph,
) -> Result<BTreeMap<String, Weight>, ArtefactProblem> {
    let mut tensors = std::mem::take(&mut container.tensors);
    let mut wanted = Vec::with_capacity(tensors.len());
    for layer in graph.layers() {
        for parameter in layer.op.parameters() {
            let name = format!("{}.{}", layer.name, parameter.name);
            let Some(info) = tensors.remove(&name) else {
                return Err(WeightError::Missing { name, expected: parameter.dims }.into());
            };
            if info.shape != parameter.dims {
                return Err(WeightError::Shape { name, expected: parameter.dims, found: info.shape }.into());
            }
            wanted.push((name, info));
        }
    }
    if let Some((name, _)) = tensors.pop_first() {
        return Err(WeightError::Unknown { name, graph: graph.name().to_owned() }.into());
    }
    let mut weights = BTreeMap::new();
    for (name, info) in wanted {
        let weight = container.read(&name, &info)?;
        weights.insert(name, weight);
    }
    Ok(weights)
}

fn json_error(key: &'static str) -> impl FnOnce(serde_json::Error) -> ArtefactProblem {
    move |source| ArtefactProblem::Json { key, source }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
