//! Where finished steps are kept.

use std::collections::BTreeMap;
use std::error::Error;

use dlis_model::Network;

/// Keeps the network that each step results in, so that a recipe that was killed goes on after its last finished
/// step, and recipes with a common base compute it once.
///
/// A key (see [`FineTune::key`](crate::FineTune::key)) ends with a digest of everything that the network depends on:
/// what is found under it is what the step would compute, as far as training repeats itself.
pub trait Checkpoints {
    /// The network saved under this key, if there is one.
    ///
    /// # Errors
    ///
    /// Whatever prevents reading it.
    fn load(&mut self, key: &str) -> Result<Option<Network>, Box<dyn Error + Send + Sync>>;

    /// Saves a network under this key, whole or not at all.
    ///
    /// # Errors
    ///
    /// Whatever prevents writing it.
    fn save(&mut self, key: &str, network: &Network) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Keeps nothing.
impl Checkpoints for () {
    fn load(&mut self, _: &str) -> Result<Option<Network>, Box<dyn Error + Send + Sync>> {
        Ok(None)
    }

    fn save(&mut self, _: &str, _: &Network) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

/// Keeps everything in memory.
impl Checkpoints for BTreeMap<String, Network> {
    fn load(&mut self, key: &str) -> Result<Option<Network>, Box<dyn Error + Send + Sync>> {
        Ok(self.get(key).cloned())
    }

    fn save(&mut self, key: &str, network: &Network) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.insert(key.to_owned(), network.clone());
        Ok(())
    }
}
