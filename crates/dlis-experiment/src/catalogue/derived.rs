//! Recipes that need no artefact: quantisation after training, made on the spot.

use std::path::Path;

use dlis_compress::{BUILT_IN, Recipe};
use dlis_eval::dataset::cifar10;
use dlis_model::{Artefact, Network};
use sha2::{Digest as _, Sha256};

use crate::CpuTrainer;
use crate::compress::compress;

/// A recipe that is made on the spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Derived {
    pub(super) name: &'static str,
}

/// All of them, each one of [`BUILT_IN`].
pub(super) const DERIVED: [Derived; 2] = [Derived { name: "int8" }, Derived { name: "int4" }];

/// What a kept artefact is recognised by.
const KEY: &str = "key";

impl Derived {
    pub(super) fn find(name: &str) -> Option<Self> {
        DERIVED.into_iter().find(|derived| derived.name == name)
    }

    /// Its recipe as TOML.
    fn text(self) -> &'static str {
        // A test finds each.
        BUILT_IN.iter().find(|(name, _)| *name == self.name).map_or("", |(_, text)| text)
    }

    fn recipe(self) -> Result<Recipe, String> {
        toml::from_str(self.text()).map_err(|error| error.to_string())
    }

    /// Names everything that the result depends on.
    fn key(self, network: &Network) -> String {
        let mut hash = Sha256::new();
        for text in [env!("CARGO_PKG_VERSION"), self.text(), cifar10::CALIBRATION_SHA256] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(format!("{:?}", network.graph()));
        hash.update(super::digest(network));
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The artefact of a network: that in the file where it is of this network, else made now and left there.
    /// Whatever is wrong with the file, it is made anew.
    pub(super) fn artefact(self, network: &Network, threads: usize, file: Option<&Path>) -> Result<Artefact, String> {
        let key = self.key(network);
        if let Some(file) = file
            && let Ok(kept) = Artefact::load(file)
            && kept.metadata.get(KEY) == Some(&key)
        {
            return Ok(kept);
        }
        let mut trainer = CpuTrainer::new().threads(threads);
        let (artefact, _) =
            compress(network, &self.recipe()?, &mut trainer, &mut |_| ()).map_err(|error| error.to_string())?;
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
        for derived in DERIVED {
            let recipe = derived.recipe().unwrap();
            recipe.validate().unwrap();
            assert_eq!(recipe.name, derived.name);
            assert!(!recipe.description.is_empty());
        }
    }
}
