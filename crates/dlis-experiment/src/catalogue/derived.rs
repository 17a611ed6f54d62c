//! Recipes that need no artefact of their own: quantisation after training, made on the spot of the network as trained
//! or of the artefact of another recipe.

use std::path::Path;

use dlis_compress::{BUILT_IN, Recipe};
use dlis_eval::dataset::cifar10;
use dlis_model::{Artefact, Network};
use sha2::{Digest as _, Sha256};

use crate::CpuTrainer;
use crate::compress::{RECIPE_KEY, compress, text};

/// A recipe that is made on the spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Derived<'a> {
    /// One of [`DERIVED`].
    pub(super) name: &'static str,
    /// The recipe whose artefact it is made of, if not of the network as trained.
    pub(super) base: Option<&'a str>,
}

/// What is made of any network as trained, each one of [`BUILT_IN`].
pub(super) const DERIVED: [&str; 2] = ["int8", "int4"];
/// What is made of artefacts of other recipes, too.
const OF_ARTEFACTS: &str = "int8";

/// What a kept artefact is recognised by.
const KEY: &str = "key";

impl<'a> Derived<'a> {
    /// That of a network as trained.
    pub(super) fn find(recipe: &str) -> Option<Self> {
        DERIVED.into_iter().find(|name| *name == recipe).map(|name| Self { name, base: None })
    }

    /// `BASE-int8`: that of an artefact of another recipe.
    pub(super) fn of_artefact(recipe: &'a str) -> Option<Self> {
        let base = recipe.strip_suffix(OF_ARTEFACTS)?.strip_suffix('-')?;
        Some(Self { name: OF_ARTEFACTS, base: Some(base) })
    }

    /// Its recipe as TOML.
    fn text(self) -> &'static str {
        // A test finds each.
        BUILT_IN.iter().find(|(name, _)| *name == self.name).map_or("", |(_, text)| text)
    }

    /// The recipe; `described` is the description of that it is based on.
    fn recipe(self, described: &str) -> Result<Recipe, String> {
        let recipe: Recipe = toml::from_str(self.text()).map_err(|error| error.to_string())?;
        let Some(base) = self.base else { return Ok(recipe) };
        let described = if described.is_empty() { base } else { described };
        Ok(Recipe {
            name: format!("{base}-{}", recipe.name),
            description: format!(
                "{described}; then activations of 8 bits a tensor, and weights of 8 bits a channel where they were of \
                 more, after training"
            ),
            base: Some(base.to_owned()),
            ..recipe
        })
    }

    /// Names everything that the result of a recipe depends on.
    fn key(recipe: &Recipe, network: &Network) -> String {
        let mut hash = Sha256::new();
        for text in [env!("CARGO_PKG_VERSION"), &text(recipe), cifar10::CALIBRATION_SHA256] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(format!("{:?}", network.graph()));
        hash.update(super::digest(network));
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The artefact made of another: that in the file where it is of this network, else made now and left there.
    /// Whatever is wrong with the file, it is made anew.
    ///
    /// # Errors
    ///
    /// A clause that says why there is none.
    pub(super) fn artefact(self, of: &Artefact, threads: usize, file: Option<&Path>) -> Result<Artefact, String> {
        let network = &of.network;
        if !network.quantizations().is_empty() {
            return Err("its activations are quantised already".to_owned());
        }
        let described = of.metadata.get(RECIPE_KEY).and_then(|text| toml::from_str::<Recipe>(text).ok());
        let recipe = self.recipe(&described.map_or_else(String::new, |recipe| recipe.description))?;
        let key = Self::key(&recipe, network);
        if let Some(file) = file
            && let Ok(kept) = Artefact::load(file)
            && kept.metadata.get(KEY) == Some(&key)
        {
            return Ok(kept);
        }
        let mut trainer = CpuTrainer::new().threads(threads);
        let (artefact, _) = compress(network, &recipe, &mut trainer, &mut |_| ()).map_err(|error| error.to_string())?;
        let artefact = artefact.with(KEY, key);
        if let Some(file) = file {
            let folder = file.parent().unwrap_or(Path::new("."));
            let kept = std::fs::create_dir_all(folder)
                .map_err(|error| error.to_string())
                .and_then(|()| artefact.save(file).map_err(|error| error.to_string()));
            if let Err(error) = kept {
                // It is made again the next time, which takes seconds.
                tracing::warn!(file = %file.display(), error, "a derived artefact could not be kept");
            }
        }
        Ok(artefact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_valid_and_called_by_their_names() {
        for name in DERIVED {
            let recipe = Derived::find(name).unwrap().recipe("").unwrap();
            recipe.validate().unwrap();
            assert_eq!(recipe.name, name);
            assert!(!recipe.description.is_empty());
        }
        let of_artefact = Derived::of_artefact("ternary-0.1-int8").unwrap();
        assert_eq!(of_artefact.base, Some("ternary-0.1"));
        let recipe = of_artefact.recipe("Three values").unwrap();
        recipe.validate().unwrap();
        assert_eq!((recipe.name.as_str(), recipe.base.as_deref()), ("ternary-0.1-int8", Some("ternary-0.1")));
        assert!(recipe.description.starts_with("Three values; then"), "{}", recipe.description);
        for other in ["int8", "ternary", "ternary-int4", "fint8"] {
            assert_eq!(Derived::of_artefact(other), None);
        }
    }
}
