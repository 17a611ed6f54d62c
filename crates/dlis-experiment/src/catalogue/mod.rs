//! Networks and backends by the names that stack points give them.

mod convert;
mod derived;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dlis_backend::{Backend, KernelId, Schedule};
use dlis_compress::Recipe;
use dlis_formats::Format;
use dlis_model::{Artefact, ArtefactError, Network, zoo};
use dlis_runtime::Policy;
use sha2::{Digest as _, Sha256};

use self::derived::{DERIVED, Derived};
use crate::compress::RECIPE_KEY;
use crate::record::Compression;

/// The backends that run on the host's threads, by name.
pub const BACKENDS: [&str; 2] = ["rayon", "omp"];

/// What the names of backends on OpenCL devices begin with: `opencl:DEVICE`, `opencl:DEVICE:PRECISION`.
pub const OPENCL: &str = "opencl:";

/// Whether a backend's parallel loops run on the host's threads; else threads and schedule are none of its choices.
pub fn runs_on_threads(backend: &str) -> bool {
    !backend.starts_with(OPENCL)
}

/// The recipe of a network as it was trained.
pub const NO_RECIPE: &str = "none";

/// The format of weights as the recipe left them, or as the file of a trained network has them.
pub const STORED: &str = "stored";

/// A network as a stack point names it, loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The network.
    pub network: Network,
    /// Bytes of its file: of the one it was read from where nothing was changed, else of the artefact that would
    /// be written. Of its weights, where they were made up.
    pub disk_bytes: u64,
    /// Time that reading and converting took.
    pub load_time: Duration,
    /// Whether its weights are trained. Made-up ones are for timing alone.
    pub trained: bool,
    /// What recipe and format left of it.
    pub compression: Compression,
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
    #[error("network `{network}`, recipe `{recipe}`: weights in format `{format}`: {reason}")]
    Format {
        /// The network.
        network: String,
        /// The recipe.
        recipe: String,
        /// The format.
        format: String,
        /// Why not.
        reason: String,
    },
    /// The network has no artefact of this recipe.
    #[error("network `{network}`: there is no recipe `{recipe}` of it: expected {expected}")]
    Recipe {
        /// The network.
        network: String,
        /// The recipe.
        recipe: String,
        /// What there is, or where it was looked for.
        expected: String,
    },
    /// The network cannot be compressed so.
    #[error("network `{network}`: recipe `{recipe}`: {reason}")]
    Compress {
        /// The network.
        network: String,
        /// The recipe.
        recipe: String,
        /// Why not.
        reason: String,
    },
    /// The size of an artefact could not be found by writing it.
    #[error("a temporary file: {0}")]
    Temporary(#[from] std::io::Error),
    /// No such backend.
    #[error("backend `{name}`: expected one of {}, or {OPENCL}DEVICE", BACKENDS.join(", "))]
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

impl CatalogueError {
    /// Whether it says that choices which each mean something do not go together: no such point exists, and an
    /// experiment passes over it.
    pub fn excludes(&self) -> bool {
        matches!(self, Self::Recipe { .. } | Self::Format { .. } | Self::Compress { .. })
    }
}

/// Where networks are found.
#[derive(Clone, Debug)]
pub struct Catalogue {
    weights: PathBuf,
    derived: Option<PathBuf>,
    threads: usize,
}

impl Catalogue {
    /// A catalogue whose weights lie in a folder: trained as `{network}.safetensors`, and compressed artefacts as
    /// `{network}.{recipe}.safetensors`.
    pub fn new(weights: impl Into<PathBuf>) -> Self {
        Self { weights: weights.into(), derived: None, threads: 1 }
    }

    /// The same, with a folder in which artefacts of recipes that are made on the spot are kept.
    #[must_use]
    pub fn keep_derived(self, folder: impl Into<PathBuf>) -> Self {
        Self { derived: Some(folder.into()), ..self }
    }

    /// The same, making them on so many threads.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// The recipes that there are, of any network: none, those made on the spot, those with an artefact. Of the last,
    /// there is [`RECIPE-int8`](Self::knows_recipe) too.
    pub fn recipes(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.weights).into_iter().flatten().flatten();
        let of_file = |name: &str| {
            let (network, recipe) = name.strip_suffix(".safetensors")?.split_once('.')?;
            zoo::graph(network).is_ok().then(|| recipe.to_owned())
        };
        let stored: BTreeSet<String> = files.filter_map(|file| of_file(file.file_name().to_str()?)).collect();
        let fixed = std::iter::once(NO_RECIPE).chain(DERIVED);
        fixed.map(str::to_owned).chain(stored).collect()
    }

    /// Whether a name is that of a recipe, of any network: one of [`recipes`](Self::recipes), or `RECIPE-int8`, an
    /// artefact of such a recipe whose activations, and weights where they are of more than 8 bits, are quantised to
    /// 8 bits on the spot.
    ///
    /// # Errors
    ///
    /// A message with the recipes there are.
    pub fn knows_recipe(&self, name: &str) -> Result<(), String> {
        let recipes = self.recipes();
        let known = |name: &str| recipes.iter().any(|recipe| recipe == name);
        let stored = |name: &str| known(name) && name != NO_RECIPE && Derived::find(name).is_none();
        let of_artefact = Derived::of_artefact(name).and_then(|derived| derived.base);
        if known(name) || of_artefact.is_some_and(stored) {
            return Ok(());
        }
        Err(format!("no recipe `{name}`; known: {}, and `RECIPE-int8` of those with a file", recipes.join(", ")))
    }

    /// Checks, without loading anything, that a network may have a recipe.
    ///
    /// # Errors
    ///
    /// [`CatalogueError::Recipe`] if it has no artefact of it.
    pub fn has_recipe(&self, name: &str, recipe: &str) -> Result<(), CatalogueError> {
        if recipe == NO_RECIPE || self.derived(name, recipe).is_some() || self.artefact(name, recipe).is_file() {
            return Ok(());
        }
        let expected = format!("the file `{}`", self.artefact(name, recipe).display());
        Err(CatalogueError::Recipe { network: name.to_owned(), recipe: recipe.to_owned(), expected })
    }

    /// How a recipe of a network is made on the spot, if it is: one that has an artefact is not.
    fn derived<'a>(&self, network: &str, recipe: &'a str) -> Option<Derived<'a>> {
        let there = |recipe: &str| self.artefact(network, recipe).is_file();
        let of_artefact = || Derived::of_artefact(recipe).filter(|of| !there(recipe) && of.base.is_some_and(there));
        Derived::find(recipe).or_else(of_artefact)
    }

    /// Where a network's artefact of a recipe is, if it is anywhere.
    pub fn artefact(&self, network: &str, recipe: &str) -> PathBuf {
        self.weights.join(format!("{network}.{recipe}.safetensors"))
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

    /// Loads the network of this name or path, compressed by this recipe, its compressed weights in this format.
    ///
    /// A network of the zoo without a file of weights gets made-up ones: dense kernels take the same time
    /// whatever the values.
    ///
    /// # Errors
    ///
    /// [`CatalogueError`] naming what could not be followed.
    pub fn network(&self, name: &str, recipe: &str, format: &str) -> Result<Loaded, CatalogueError> {
        self.knows(name)?;
        self.has_recipe(name, recipe)?;
        let format = as_format(format).map_err(|reason| CatalogueError::Format {
            network: name.to_owned(),
            recipe: recipe.to_owned(),
            format: format.to_owned(),
            reason,
        })?;
        let start = Instant::now();
        let Found { artefact, file, trained } = self.find(name, recipe)?;
        let Artefact { mut network, metadata } = artefact;
        let mut rewritten = false;
        if let Some(format) = format {
            let before = network.weight_bytes();
            network = convert::convert(network, format).map_err(|reason| CatalogueError::Format {
                network: name.to_owned(),
                recipe: recipe.to_owned(),
                format: format.to_string(),
                reason,
            })?;
            rewritten |= recipe != NO_RECIPE || before != network.weight_bytes();
        }
        let load_time = start.elapsed();
        let description = metadata.get(RECIPE_KEY).and_then(|text| toml::from_str::<Recipe>(text).ok());
        let compression = compression(&network, description.map_or_else(String::new, |recipe| recipe.description));
        let disk_bytes = match file {
            Some(file) if !rewritten => std::fs::metadata(file)?.len(),
            _ if !trained && recipe == NO_RECIPE => network.weight_bytes() as u64,
            _ => written_bytes(&Artefact { network: network.clone(), metadata })?,
        };
        Ok(Loaded { network, disk_bytes, load_time, trained, compression })
    }

    /// A network as its recipe stores it.
    fn find(&self, name: &str, recipe: &str) -> Result<Found, CatalogueError> {
        if let Some(derived) = self.derived(name, recipe) {
            let Found { artefact, trained, .. } = self.find(name, derived.base.unwrap_or(NO_RECIPE))?;
            // A path is no name of a file; what it names is told apart by its weights.
            let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("network");
            let kept = self.derived.as_ref().map(|folder| folder.join(format!("{stem}.{recipe}.safetensors")));
            let artefact = derived.artefact(&artefact, self.threads, kept.as_deref()).map_err(|reason| {
                CatalogueError::Compress { network: name.to_owned(), recipe: recipe.to_owned(), reason }
            })?;
            return Ok(Found { artefact, file: kept.filter(|file| file.is_file()), trained });
        }
        if recipe != NO_RECIPE {
            let file = self.artefact(name, recipe);
            return Ok(Found { artefact: Artefact::load(&file)?, file: Some(file), trained: true });
        }
        let Ok(graph) = zoo::graph(name) else {
            let (artefact, file) = (Artefact::load(name)?, Some(PathBuf::from(name)));
            return Ok(Found { artefact, file, trained: true });
        };
        let file = self.weights.join(format!("{name}.safetensors"));
        let trained = file.is_file();
        let network = match trained {
            true => Artefact::load_state_dict(&file, graph)?.network,
            false => Network::random(graph, 0),
        };
        Ok(Found { artefact: Artefact::new(network), file: trained.then_some(file), trained })
    }
}

/// An artefact, and where it comes from.
struct Found {
    artefact: Artefact,
    /// The file that holds it, if any.
    file: Option<PathBuf>,
    trained: bool,
}

fn compression(network: &Network, description: String) -> Compression {
    let (zeros, all) = convert::zeros(network);
    Compression {
        description,
        sparsity: if all == 0 { 0.0 } else { zeros as f64 / all as f64 },
        weights: network.weights().values().map(|weight| weight.elements() as u64).sum(),
        stored_weight_bytes: network.weight_bytes() as u64,
        macs: network.graph().macs(),
    }
}

/// Bytes of the file that an artefact would be.
fn written_bytes(artefact: &Artefact) -> Result<u64, CatalogueError> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("artefact.safetensors");
    artefact.save(&file)?;
    Ok(std::fs::metadata(file)?.len())
}

/// Names the weights of a network and what its activations stand for: what its results depend on beside the
/// graph and the kernels.
pub(crate) fn digest(network: &Network) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, weight) in network.weights() {
        hash.update(format!("{}:{name}:{}:{:?}:", name.len(), weight.format(), weight.dims()));
        for value in weight.to_f32().iter() {
            hash.update(value.to_le_bytes());
        }
    }
    for (value, quantization) in network.quantizations() {
        hash.update(format!("{value:?}:{:x}:{}", quantization.scale().to_bits(), quantization.zero_point()));
    }
    hash.finalize().into()
}

/// The format of this name; `None` for [`STORED`].
///
/// # Errors
///
/// A message with the formats there are.
pub fn as_format(name: &str) -> Result<Option<Format>, String> {
    if name == STORED {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|error| format!("{error}; or `{STORED}`"))
}

/// Whether a fixed choice names a kernel: one of any instruction set, as an experiment may be written for
/// another machine.
///
/// # Errors
///
/// A message with the algorithms of convolution there are.
pub fn has_kernel(policy: &Policy) -> Result<(), String> {
    let Policy::Fixed(pattern) = policy else { return Ok(()) };
    let kernels = kernel_ids();
    if kernels.clone().any(|id| pattern.matches_on_any_isa(&id)) {
        return Ok(());
    }
    let mut names: Vec<String> = kernels.filter(|id| id.op() == "conv2d").map(|id| id.algorithm().to_owned()).collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Err(format!("no kernel matches `{pattern}`; algorithms of convolution: {}", names.join(", ")))
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
        _ if !runs_on_threads(name) => opencl(name).map_err(start),
        _ => Err(CatalogueError::Backend { name: name.to_owned() }),
    }
}

/// Whether there is a backend of this name.
///
/// # Errors
///
/// A message with the backends there are, or why the device cannot be had.
pub fn has_backend(name: &str) -> Result<(), String> {
    if BACKENDS.contains(&name) {
        return Ok(());
    }
    if runs_on_threads(name) {
        return Err(format!("no backend `{name}`; known: {}, {OPENCL}DEVICE", BACKENDS.join(", ")));
    }
    opencl(name).map(|_| ())
}

/// Every OpenCL device, as a sentence for each.
///
/// # Errors
///
/// Why there are none.
#[cfg(feature = "opencl")]
pub fn opencl_devices() -> Result<Vec<String>, String> {
    let devices = dlis_opencl::devices().map_err(|error| error.to_string())?;
    Ok(devices.iter().map(|device| format!("{OPENCL}{}: {device}", device.index)).collect())
}

/// Every OpenCL device, as a sentence for each.
///
/// # Errors
///
/// Always: this build knows of none.
#[cfg(not(feature = "opencl"))]
pub fn opencl_devices() -> Result<Vec<String>, String> {
    Err(WITHOUT_OPENCL.to_owned())
}

#[cfg(feature = "opencl")]
fn opencl(name: &str) -> Result<Box<dyn Backend>, String> {
    let backend: dlis_opencl::OpenClBackend =
        name.parse().map_err(|error: dlis_opencl::OpenClError| error.to_string())?;
    Ok(Box::new(backend))
}

#[cfg(not(feature = "opencl"))]
fn opencl(_: &str) -> Result<Box<dyn Backend>, String> {
    Err(WITHOUT_OPENCL.to_owned())
}

#[cfg(not(feature = "opencl"))]
const WITHOUT_OPENCL: &str = "this build is without OpenCL: `cargo run -p xtask --features opencl --release -- ...`, with a \
                              driver installed (Debian's `pocl-opencl-icd ocl-icd-opencl-dev` make a device of the CPU)";

#[cfg(feature = "opencl")]
fn kernel_ids() -> impl Iterator<Item = KernelId> + Clone {
    let ids: Vec<KernelId> =
        dlis_kernels::kernels().iter().map(|kernel| kernel.id()).chain(dlis_opencl::kernel_ids()).collect();
    ids.into_iter()
}

#[cfg(not(feature = "opencl"))]
fn kernel_ids() -> impl Iterator<Item = KernelId> + Clone {
    dlis_kernels::kernels().iter().map(|kernel| kernel.id())
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
        assert!(refused("vgg16-cifar10", "prune", STORED).contains("vgg16-cifar10.prune.safetensors"));
        assert!(refused("mobilenet-cifar10", "none", "csr").contains("csr-f32"));
        assert!(refused("mobilenet-cifar10", "none", "csr-f32").contains("no layer of it is compressed"));
        assert!(catalogue.knows_recipe("prune").unwrap_err().contains("none, int8, int4"));
        let error = backend("openmp", 1, Schedule::Static).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("rayon, omp, or opencl:DEVICE"), "{error}");
        assert!(has_backend("openmp").unwrap_err().contains("rayon, omp, opencl:DEVICE"));
        assert!(has_backend("opencl:no such device").is_err());
        assert!(backend("omp", 0, Schedule::Static).is_err());
    }

    #[test]
    fn a_network_without_a_file_has_made_up_weights_and_says_so() {
        let loaded = Catalogue::new("nowhere").network("mobilenet-cifar10", NO_RECIPE, "dense-f32").unwrap();
        assert!(!loaded.trained);
        assert_eq!(loaded.disk_bytes, loaded.network.weight_bytes() as u64);
    }

    #[test]
    fn artefacts_can_be_quantised_on_the_spot() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::new(folder.path());
        let save = |recipe: &str, network: &Network| {
            Artefact::new(network.clone()).save(catalogue.artefact("mobilenet-cifar10", recipe)).unwrap();
        };
        save("small", &Network::random(zoo::mobilenet_cifar10(), 1));
        assert!(catalogue.knows_recipe("small-int8").is_ok());
        assert!(catalogue.has_recipe("mobilenet-cifar10", "small-int8").is_ok());
        assert!(catalogue.has_recipe("vgg16-cifar10", "small-int8").is_err());
        for unknown in ["none-int8", "int8-int8", "small-int4", "large-int8"] {
            assert!(catalogue.knows_recipe(unknown).unwrap_err().contains("RECIPE-int8"), "{unknown}");
        }
        let loaded = catalogue.network("mobilenet-cifar10", "small-int8", STORED).unwrap();
        assert!(loaded.compression.description.starts_with("small; then"), "{}", loaded.compression.description);
        let formats: BTreeSet<_> =
            convert::layer_weights(&loaded.network).map(|name| loaded.network.weights()[&name].format()).collect();
        assert_eq!(formats, [Format::Int8].into());
        assert!(!loaded.network.quantizations().is_empty());

        // What is quantised is not quantised again, and an artefact goes before what could be made.
        save("other", &loaded.network);
        let refused = catalogue.network("mobilenet-cifar10", "other-int8", STORED).unwrap_err();
        assert!(refused.excludes() && refused.to_string().contains("quantised already"), "{refused}");
        save("other-int8", &Network::random(zoo::mobilenet_cifar10(), 2));
        let stored = catalogue.network("mobilenet-cifar10", "other-int8", STORED).unwrap();
        assert!(stored.network.quantizations().is_empty());
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
