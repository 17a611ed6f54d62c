//! From a recipe to an artefact.

use dlis_compress::{CompressError, Event, Recipe, Report, Trainer};
use dlis_model::{Artefact, Network};

/// The entry of an artefact's metadata that has its [`Recipe`] as TOML.
pub const RECIPE_KEY: &str = "recipe";
/// The entry of an artefact's metadata that has the recipe's seed.
pub const SEED_KEY: &str = "seed";
/// The entry of an artefact's metadata that has the accuracy its trainer measured last, where it measured one: a
/// share of 1.
pub const ACCURACY_KEY: &str = "accuracy";

/// Compresses a network and makes an artefact of the result that says how. With a
/// [`CpuTrainer`](crate::CpuTrainer) it fails where the recipe asks for training.
///
/// # Errors
///
/// [`CompressError`].
///
/// ```
/// use dlis_compress::{Recipe, Untrained};
/// use dlis_experiment::compress::{RECIPE_KEY, compress};
/// use dlis_model::{Network, zoo};
///
/// let recipe: Recipe = toml::from_str("name = \"half\"\n[[steps]]\nkind = \"magnitude\"\nsparsity = 0.5")?;
/// let network = Network::random(zoo::mobilenet_cifar10(), 0);
/// let (artefact, report) = compress(&network, &recipe, &mut Untrained, &mut |_| ())?;
/// assert!(artefact.metadata[RECIPE_KEY].contains("half"));
/// assert_eq!(report.steps.len(), 2, "pruning and storing");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compress(
    network: &Network,
    recipe: &Recipe,
    trainer: &mut dyn Trainer,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<(Artefact, Report), CompressError> {
    let compressed = recipe.run(network, trainer, &mut (), watch)?;
    let report = compressed.report;
    Ok((artefact(compressed.network, recipe, &report), report))
}

/// An artefact of a network that says which recipe made it and how accurate its trainer found it.
pub fn artefact(network: Network, recipe: &Recipe, report: &Report) -> Artefact {
    let artefact = Artefact::new(network).with(RECIPE_KEY, text(recipe)).with(SEED_KEY, recipe.seed.to_string());
    match report.accuracy() {
        Some(accuracy) => artefact.with(ACCURACY_KEY, accuracy.to_string()),
        None => artefact,
    }
}

/// A recipe as its artefact has it.
pub fn text(recipe: &Recipe) -> String {
    // A valid recipe always has a TOML form.
    toml::to_string(recipe).unwrap_or_default()
}
