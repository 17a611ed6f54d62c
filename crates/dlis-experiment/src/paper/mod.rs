//! The paper's figures and tables with ours beside them.

mod curve;
mod points;
mod quoted;
#[cfg(test)]
mod tests;
mod topics;

pub use curve::{CurvePoint, kept_curves, parse_curves, read_curves};
pub use points::Ours;
pub use quoted::{
    NETWORKS, Quoted, QuotedBars, QuotedChannels, QuotedCurves, QuotedFixed, QuotedMachine, QuotedMemory,
    QuotedNetwork, QuotedTimes, quoted,
};
pub use topics::{ParseTopicError, Topic, section};

pub(crate) use curve::{f32_bytes, sparsity};
