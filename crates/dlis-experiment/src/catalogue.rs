//! Networks and backends by the names that stack points give them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dlis_backend::{Backend, Schedule};
use dlis_formats::Format;
use dlis_model::{Artefact, ArtefactError, Network, zoo};
use dlis_runtime::Policy;

/// The backends there are, by name.
pub const BACKENDS: [&str; 2] = ["rayon", "omp"];

/// The recipe of a network as it was trained.
pub const NO_RECIPE: &str = "none";

/// A network as a stack point names it, loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The network.
    pub network: Network,
    /// Bytes of its file; of its weights, where they were made up.
    pub disk_bytes: u64,
    /// Time that reading and converting took.
    pub load_time: Duration,
    /// Whether its weights are trained. Made-up ones are for timing alone.
    pub trained: bool,
}

/// Why a name of a stack point could not be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// Neither a network of the zoo nor a file.
    #[error("network `{name}`: {source}; a network may also be the path of a `.safetensors` artefact")]
    Network {
        /// The name.
        name: String,
        /// Why.
        source: zoo::UnknownNetwork,
    },
    /// The file of the weights could not be read.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    /// No such format, or one that the network cannot be converted to.
    #[error("network `{name}`: weights in format `{format}`: {reason}")]
    Format {
        /// The network.
        name: String,
        /// The format.
        format: String,
        /// Why not.
        reason: String,
    },
    /// No such recipe.
    #[error(
        "recipe `{recipe}`: expected `{NO_RECIPE}`; a compressed network is an artefact of its own, named by its path"
    )]
    Recipe {
        /// The recipe.
        recipe: String,
    },
    /// No such backend.
    #[error("backend `{name}`: expected one of {}", BACKENDS.join(", "))]
    Backend {
        /// The name.
        name: String,
    },
    /// The backend could not be started.
    #[error("backend `{name}` with {threads} threads: {reason}")]
    Start {
        /// The backend.
        name: String,
        /// Threads asked for.
        threads: usize,
        /// Why not.
        reason: String,
    },
}

/// Where networks are found.
#[derive(Clone, Debug)]
pub struct Catalogue {
    weights: PathBuf,
}

impl Catalogue {
    /// A catalogue whose trained weights lie in a folder, as `{network}.safetensors`.
    pub fn new(weights: impl Into<PathBuf>) -> Self {
        Self { weights: weights.into() }
    }

    /// Whether a name is that of a network.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::Network`] if it is neither in the zoo nor a file.
    pub fn knows(&self, name: &str) -> Result<(), CatalogueError> {
        match zoo::graph(name) {
            Err(source) if !Path::new(name).is_file() => Err(CatalogueError::Network { name: name.to_owned(), source }),
            _ => Ok(()),
        }
    }

    /// Loads the network of this name or path, its weights in this format.
    ///
    /// A network of the zoo without a file of weights gets made-up ones: dense kernels take the same time
    /// whatever the values.
    ///
    /// # Errors
    ///
    /// [`CatalogueError`] naming what could not be followed.
    pub fn network(&self, name: &str, recipe: &str, format: &str) -> Result<Loaded, CatalogueError> {
        if recipe != NO_RECIPE {
            return Err(CatalogueError::Recipe { recipe: recipe.to_owned() });
        }
        let start = Instant::now();
        let (network, path) = match zoo::graph(name) {
            Ok(graph) => {
                let path = self.weights.join(format!("{name}.safetensors"));
                if path.is_file() {
                    (Artefact::load_state_dict(&path, graph)?.network, Some(path))
                } else {
                    (Network::random(graph, 0), None)
                }
            }
            Err(_) if Path::new(name).is_file() => (Artefact::load(name)?.network, Some(PathBuf::from(name))),
            Err(source) => return Err(CatalogueError::Network { name: name.to_owned(), source }),
        };
        let network = convert(network, name, format)?;
        let load_time = start.elapsed();
        let size = path.as_ref().and_then(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len());
        let disk_bytes = size.unwrap_or(network.weight_bytes() as u64);
        Ok(Loaded { network, disk_bytes, load_time, trained: path.is_some() })
    }
}

/// Whether some kernel executes weights in this format.
///
/// # Errors
///
/// A message with the formats there are.
pub fn executes(format: &str) -> Result<(), String> {
    match format.parse::<Format>().map_err(|error| error.to_string())? {
        Format::DenseF32 => Ok(()),
        other => Err(format!("no kernel executes {other} weights yet: expected `dense-f32`")),
    }
}

/// Whether a fixed choice names a kernel: one of any instruction set, as an experiment may be written for
/// another machine.
///
/// # Errors
///
/// A message with the algorithms of convolution there are.
pub fn has_kernel(policy: &Policy) -> Result<(), String> {
    let Policy::Fixed(pattern) = policy else { return Ok(()) };
    let kernels = dlis_kernels::kernels().iter().map(|kernel| kernel.id());
    if kernels.clone().any(|id| pattern.matches_on_any_isa(&id)) {
        return Ok(());
    }
    let mut names: Vec<String> = kernels.filter(|id| id.op() == "conv2d").map(|id| id.algorithm().to_owned()).collect();
    names.dedup();
    Err(format!("no kernel matches `{pattern}`; algorithms of convolution: {}", names.join(", ")))
}

/// The network with its weights in this format.
fn convert(network: Network, name: &str, format: &str) -> Result<Network, CatalogueError> {
    let error = |reason: String| CatalogueError::Format { name: name.to_owned(), format: format.to_owned(), reason };
    executes(format).map_err(error)?;
    Ok(network.to_f32())
}

/// The backend of this name.
///
/// # Errors
///
/// [`CatalogueError`] if there is none of this name, or its threads cannot be started.
pub fn backend(name: &str, threads: usize, schedule: Schedule) -> Result<Box<dyn Backend>, CatalogueError> {
    let start = |reason: String| CatalogueError::Start { name: name.to_owned(), threads, reason };
    let count = threads.try_into().map_err(|_| start("expected at least one thread".to_owned()))?;
    match name {
        "rayon" => Ok(Box::new(dlis_cpu_rayon::backend(count, schedule).map_err(|error| start(error.to_string()))?)),
        "omp" => Ok(Box::new(dlis_cpu_omp::backend(count, schedule).map_err(|error| start(error.to_string()))?)),
        _ => Err(CatalogueError::Backend { name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_refused_with_what_there_is() {
        let catalogue = Catalogue::new("nowhere");
        let refused =
            |name: &str, recipe: &str, format: &str| catalogue.network(name, recipe, format).unwrap_err().to_string();
        assert!(refused("vgg16", "none", "dense-f32").contains("vgg16-cifar10"));
        assert!(refused("vgg16-cifar10", "prune", "dense-f32").contains("`none`"));
        assert!(refused("mobilenet-cifar10", "none", "csr").contains("dense-f32"));
        let error = backend("openmp", 1, Schedule::Static).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("rayon, omp"), "{error}");
        assert!(backend("omp", 0, Schedule::Static).is_err());
    }

    #[test]
    fn a_network_without_a_file_has_made_up_weights_and_says_so() {
        let loaded = Catalogue::new("nowhere").network("mobilenet-cifar10", NO_RECIPE, "dense-f32").unwrap();
        assert!(!loaded.trained);
        assert_eq!(loaded.disk_bytes, loaded.network.weight_bytes() as u64);
    }

    #[test]
    fn an_artefact_is_named_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        let network = Network::random(zoo::mobilenet_cifar10(), 1);
        Artefact::new(network.clone()).save(&path).unwrap();
        let catalogue = Catalogue::new("nowhere");
        let loaded = catalogue.network(path.to_str().unwrap(), NO_RECIPE, "dense-f32").unwrap();
        assert!(loaded.trained && catalogue.knows(path.to_str().unwrap()).is_ok());
        assert_eq!(loaded.network, network);
        std::fs::write(&path, b"no artefact").unwrap();
        let error = catalogue.network(path.to_str().unwrap(), NO_RECIPE, "dense-f32").unwrap_err().to_string();
        assert!(error.contains("net.safetensors"), "{error}");
    }
}
