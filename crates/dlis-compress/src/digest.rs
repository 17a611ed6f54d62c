//! A digest that names results by what they depend on.

use dlis_model::Network;

/// FNV-1a over 64 bits: stable across runs, machines and versions of Rust, which `DefaultHasher` is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digest(u64);

impl Digest {
    /// The digest of a network: its graph's layers and all its weights.
    pub(crate) fn of(network: &Network) -> Self {
        let mut digest = Self(0xCBF2_9CE4_8422_2325);
        digest.text(network.graph().name());
        for layer in network.graph().layers() {
            digest.text(&format!("{layer:?}"));
        }
        for (name, weight) in network.weights() {
            digest.text(name);
            for &value in &weight.to_f32() {
                digest.word(u64::from(value.to_bits()));
            }
        }
        digest
    }

    pub(crate) fn text(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.word(u64::from(byte));
        }
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01B3);
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The upper half is mixed best.
        write!(f, "{:08x}", self.0 >> 32)
    }
}
