//! What can be wrong with an artefact file.

use std::io;
use std::path::{Path, PathBuf};

use dlis_formats::{ConvertError, Format, FormatError};

use crate::{GraphError, QuantizationError, WeightError};

/// A file that cannot be read or written, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ArtefactError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: ArtefactProblem,
}

impl ArtefactError {
    /// Names the file that has a problem.
    pub(super) fn at(path: &Path) -> impl FnOnce(ArtefactProblem) -> Self {
        move |problem| Self { path: path.to_owned(), problem }
    }
}

/// What can be wrong with an artefact file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtefactProblem {
    /// The operating system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A folder, a pipe or a device.
    #[error("expected a regular file")]
    NotAFile,
    /// Larger than any artefact may be.
    #[error("{found} bytes, expected at most {max}")]
    FileSize {
        /// Bytes of the file.
        found: u64,
        /// Most bytes allowed.
        max: u64,
    },
    /// The header is too long, or longer than the file.
    #[error("the header is {declared} bytes long, expected at most {max}")]
    HeaderLength {
        /// Bytes that the file, or the network to be written, declares.
        declared: u64,
        /// Most bytes allowed: a limit, or what the file holds.
        max: u64,
    },
    /// The file ends before its header begins.
    #[error("{found} bytes, expected at least the 8 of the header's length")]
    NoHeader {
        /// Bytes of the file.
        found: u64,
    },
    /// The header is not a text.
    #[error("the header is not UTF-8 from its byte {valid}")]
    HeaderText {
        /// Bytes of it that are.
        valid: usize,
    },
    /// The header is not that of a safetensors file.
    #[error("the header is not that of a safetensors file: {0}")]
    Header(#[source] serde_json::Error),
    /// Truncated, or something follows the tensors.
    #[error("{found} bytes of tensors, expected the {expected} that the header describes")]
    DataLength {
        /// Bytes that the header describes.
        expected: u64,
        /// Bytes after the header.
        found: u64,
    },
    /// The file is not an artefact.
    #[error("metadata `{key}` is missing (a plain file of weights is read together with a graph)")]
    MissingMetadata {
        /// The key.
        key: &'static str,
    },
    /// A key that is the format's own but that this version does not know, or that a user may not take.
    #[error("metadata `{key}` is not a key of this format, to which all of `dlis.*` belong")]
    UnknownMetadata {
        /// The key.
        key: String,
    },
    /// Another version of the format.
    #[error("metadata `dlis.version` is `{found}`, expected `{expected}`")]
    Version {
        /// Version of the file.
        found: String,
        /// The version that can be read.
        expected: &'static str,
    },
    /// Metadata that is not the JSON it should be.
    #[error("metadata `{key}`: {source}")]
    Json {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A layer that is not the JSON it should be.
    #[error("metadata `dlis.graph`, layer `{layer}`: {source}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A key that the operation of a layer does not have.
    #[error("metadata `dlis.graph`, layer `{layer}`: unknown field `{key}`, {op} has none")]
    LayerKey {
        /// Name of the layer.
        layer: String,
        /// Its operation.
        op: &'static str,
        /// The key.
        key: String,
    },
    /// An input that is no earlier layer: an unknown name, a later one, a cycle.
    #[error("metadata `dlis.graph`, layer `{layer}`: its input `{input}` is not an earlier layer")]
    Input {
        /// Name of the layer.
        layer: String,
        /// Name of the input.
        input: String,
    },
    /// The output is no layer.
    #[error("metadata `dlis.graph`: the output `{output}` is not a layer")]
    Output {
        /// The name found.
        output: String,
    },
    /// The graph is ill-formed.
    #[error("metadata `dlis.graph`: {0}")]
    Graph(#[source] Box<GraphError>),
    /// A tensor of a type that no weight has.
    #[error("tensor `{tensor}` is of type {found}, expected {expected}")]
    Dtype {
        /// Name of the tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// The types that it may be of.
        expected: &'static str,
    },
    /// A part of a packed weight is not there.
    #[error("tensor `{tensor}` is missing: {format} weights have it")]
    MissingPart {
        /// Name of the tensor.
        tensor: String,
        /// Format of the weight.
        format: Format,
    },
    /// A part of a packed weight is not a vector.
    #[error("tensor `{tensor}`: expected one extent, found shape {found:?}")]
    PartShape {
        /// Name of the tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// Parts that do not make a weight.
    #[error("weight `{weight}`, {format}: {source}")]
    Format {
        /// Name of the weight.
        weight: String,
        /// Its format.
        format: Format,
        /// What is wrong with its parts.
        source: FormatError,
    },
    /// A quantisation of the output of a layer that is not there.
    #[error("metadata `dlis.activations`: there is no layer `{layer}`")]
    UnknownActivation {
        /// The name found.
        layer: String,
    },
    /// The weights are not those of the graph.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A quantisation is not of a tensor of the graph.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
    /// A weight whose format is not told.
    #[error("metadata `dlis.formats`: weight `{weight}` is missing")]
    MissingFormat {
        /// Name of the weight.
        weight: String,
    },
    /// A format of a weight that is not there.
    #[error("metadata `dlis.formats`: there is no weight `{weight}`")]
    UnknownFormat {
        /// Name of the weight.
        weight: String,
    },
    /// A weight that its format cannot represent.
    #[error("weight `{weight}`: {source}")]
    Convert {
        /// Name of the weight.
        weight: String,
        /// The value that would change.
        source: ConvertError,
    },
}

impl From<GraphError> for ArtefactProblem {
    fn from(error: GraphError) -> Self {
        Self::Graph(Box::new(error))
    }
}
