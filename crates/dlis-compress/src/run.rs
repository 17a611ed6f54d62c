//! Running recipes.

use std::collections::BTreeMap;
use std::sync::Arc;

use dlis_model::{Graph, Network};

use crate::bounds::Fields;
use crate::digest::Digest;
use crate::{
    Checkpoints, CompressError, Compressed, Compressor, Context, Event, Recipe, Report, Step, StepReport, Trainer,
    Treatment,
};

/// Longest chain of recipes.
pub const MAX_CHAIN: usize = 64;

impl Compressor for Step {
    fn compress(&self, network: Network, context: &mut Context<'_>) -> Result<Network, CompressError> {
        match self {
            Self::Magnitude(magnitude) => magnitude.compress(network, context),
            Self::Channels(channels) => channels.compress(network, context),
            Self::Ternary(ternary) => ternary.compress(network, context),
            Self::Quantise(quantise) => quantise.compress(network, context),
        }
    }
}

impl Step {
    /// What later training must hold of the layers that this step works on.
    fn treatments(&self, graph: &Graph) -> Result<BTreeMap<String, Treatment>, CompressError> {
        let (layers, treatment) = match self {
            Self::Magnitude(magnitude) => (&magnitude.layers, Treatment::Pruned),
            Self::Ternary(ternary) => (&ternary.layers, Treatment::Ternary { threshold: ternary.threshold }),
            Self::Channels(_) | Self::Quantise(_) => return Ok(BTreeMap::new()),
        };
        let name = |index: usize| graph.layers()[index].name.clone();
        Ok(layers.of(graph)?.into_iter().map(|index| (name(index), treatment)).collect())
    }
}

impl Recipe {
    /// Compresses `network`, from which its [`base`](Self::base) is taken to be done already, if it has one;
    /// distillation imitates `network` too. [`Library::run`] does the base as well.
    ///
    /// Finished steps are kept in `checkpoints`; `watch` hears what happens.
    ///
    /// ```
    /// use dlis_compress::{Recipe, Untrained};
    /// use dlis_formats::Format;
    /// use dlis_model::{Network, zoo};
    ///
    /// let recipe: Recipe = toml::from_str(
    ///     r#"
    ///     name = "prune-90"
    ///     [[steps]]
    ///     kind = "magnitude"
    ///     sparsity = 0.9
    ///     [store]
    ///     compressed = "csr-f16"
    ///     rest = "dense-f16"
    ///     "#,
    /// )?;
    /// let network = Network::random(zoo::resnet18_cifar10(), 0);
    /// let compressed = recipe.run(&network, &mut Untrained, &mut (), &mut |_| {})?;
    /// let weight = compressed.network.weight("layer1.0.conv1", "weight").unwrap();
    /// assert_eq!(weight.format(), Format::CsrF16);
    /// assert!(compressed.network.weight_bytes() * 6 < network.weight_bytes());
    /// assert_eq!(compressed.report.steps.len(), 2, "pruning and storing");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CompressError`].
    pub fn run(
        &self,
        network: &Network,
        trainer: &mut dyn Trainer,
        checkpoints: &mut dyn Checkpoints,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compressed, CompressError> {
        self.validate()?;
        run(&[self], network, trainer, checkpoints, watch)
    }
}

/// Recipes that may be based on each other.
#[derive(Clone, Debug, Default)]
pub struct Library(BTreeMap<String, Recipe>);

impl Library {
    /// Checks every recipe, and that every base is among them.
    ///
    /// # Errors
    ///
    /// [`CompressError::Recipe`]: a recipe that does not validate, two of one name, a base that is not there, recipes
    /// based on each other in a circle, or a step that cannot follow one of its base.
    pub fn new(recipes: impl IntoIterator<Item = Recipe>) -> Result<Self, CompressError> {
        let mut library = BTreeMap::new();
        for recipe in recipes {
            recipe.validate()?;
            if let Some(other) = library.insert(recipe.name.clone(), recipe) {
                return Err(Fields::new(&other.name).error("name", "another recipe has it too".to_owned()));
            }
        }
        let library = Self(library);
        for name in library.0.keys() {
            let chain = library.chain(name)?;
            let mut steps = Vec::new();
            for recipe in chain {
                steps.extend(recipe.steps.iter());
                crate::recipe::check_order(recipe, &steps)?;
            }
        }
        Ok(library)
    }

    /// Every recipe, by name.
    pub fn recipes(&self) -> impl Iterator<Item = &Recipe> {
        self.0.values()
    }

    /// The recipes that lead to this one, the one that starts from the dense network first.
    ///
    /// # Errors
    ///
    /// [`CompressError::Recipe`] if there is no such recipe or base, or the chain has no end.
    pub fn chain(&self, name: &str) -> Result<Vec<&Recipe>, CompressError> {
        let missing = |name: &str| Fields::new(name).error("name", "there is no such recipe".to_owned());
        let mut chain = vec![self.0.get(name).ok_or_else(|| missing(name))?];
        while let Some(base) = chain.last().and_then(|recipe| recipe.base.as_ref()) {
            if chain.len() >= MAX_CHAIN {
                let problem = format!("more than {MAX_CHAIN} recipes lead to it, or a circle of them");
                return Err(Fields::new(name).error("base", problem));
            }
            let missing = || Fields::new(name).error("base", format!("there is no recipe `{base}`"));
            chain.push(self.0.get(base).ok_or_else(missing)?);
        }
        chain.reverse();
        Ok(chain)
    }

    /// Compresses the dense `network` by a recipe and everything that it is based on; distillation imitates the dense
    /// network throughout.
    ///
    /// # Errors
    ///
    /// [`CompressError`].
    pub fn run(
        &self,
        name: &str,
        network: &Network,
        trainer: &mut dyn Trainer,
        checkpoints: &mut dyn Checkpoints,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Compressed, CompressError> {
        run(&self.chain(name)?, network, trainer, checkpoints, watch)
    }
}

/// The parts of names that a path may have, and nothing else.
fn path_safe(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
    name.chars().take(100).map(safe).collect()
}

/// Runs the steps of all recipes of a chain, and stores as the last one says.
fn run(
    chain: &[&Recipe],
    network: &Network,
    trainer: &mut dyn Trainer,
    checkpoints: &mut dyn Checkpoints,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Compressed, CompressError> {
    let teacher = Arc::new(network.clone());
    let network_name = path_safe(network.graph().name());
    let mut digest = Digest::of(network);
    let mut network = network.clone();
    let mut treatments = BTreeMap::new();
    let mut steps = Vec::new();
    for recipe in chain {
        for (index, step) in recipe.steps.iter().enumerate() {
            digest.text(&format!("{step:?} {}", recipe.seed));
            let name = format!("{}/{index}-{}", recipe.name, step.kind());
            let key = format!("{network_name}/{name}-{digest}");
            let later = step.treatments(network.graph())?;
            let failed = |source| CompressError::Checkpoint { key: key.clone(), source };
            let found = checkpoints.load(&key).map_err(failed)?;
            watch(Event::Step { key: &key, resumed: found.is_some() });
            tracing::debug!(key, resumed = found.is_some(), "step");
            let mut context = Context::new(&mut *trainer, key.clone(), recipe.seed, Arc::clone(&teacher), &mut *watch)
                .with_treatments(treatments.clone());
            let after = match found {
                Some(found) => found,
                None => {
                    let after = step.compress(network.clone(), &mut context)?;
                    checkpoints.save(&key, &after).map_err(failed)?;
                    after
                }
            };
            let accuracy = context.accuracy(&after)?;
            steps.push(StepReport::new(name, &network, &after, accuracy));
            treatments.extend(later);
            network = after;
        }
    }
    let (recipe, store) = chain.last().map_or_else(Default::default, |recipe| (recipe.name.clone(), recipe.store));
    let trained = network;
    let network = store.apply(trained.clone(), &treatments)?;
    steps.push(StepReport::new("store", &trained, &network, None));
    let report = Report { recipe, network: network.graph().name().to_owned(), steps };
    Ok(Compressed { network, trained, report })
}
