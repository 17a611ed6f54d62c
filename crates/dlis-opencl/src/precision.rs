//! What activations are stored in and multiplied as.

use std::fmt;

/// What float activations are stored in, and what they and the weights are multiplied as. Sums are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// Stored and multiplied as f32.
    #[default]
    F32,
    /// Stored as f32; convolutions and linear layers multiply with 10 bits of mantissa, in tensor cores.
    Tf32,
    /// Stored and multiplied as f16.
    F16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::F16];

    /// The name used in backends and kernels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
        }
    }

    /// Bytes of a stored activation.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::F16 => 2,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
