//! What can go wrong in compression.

use dlis_model::{FoldError, GraphError, QuantizationError, WeightError};

use crate::TrainerError;

/// What can go wrong in compression. The largest of what it passes on is boxed: every result has room for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// A recipe asks for something that does not exist or is out of bounds.
    #[error("recipe `{recipe}`, {field}: {problem}")]
    Recipe {
        /// Name of the recipe.
        recipe: String,
        /// The field, as in `steps[0].sparsity`.
        field: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A layer cannot be compressed as asked.
    #[error("layer `{layer}`: {problem}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A selection of layers matches none.
    #[error("network `{network}`: no layer is selected by {selection}")]
    NoLayers {
        /// Name of the network.
        network: String,
        /// The selection.
        selection: String,
    },
    /// A budget lies below what the criterion can reach.
    #[error("network `{network}`: the budget of {budget} cannot be met, the least is {reached}")]
    Budget {
        /// Name of the network.
        network: String,
        /// What was asked for.
        budget: f64,
        /// The least that can be reached.
        reached: f64,
    },
    /// Training failed.
    #[error("{doing}: {source}")]
    Trainer {
        /// What it was asked for.
        doing: String,
        /// What went wrong.
        source: TrainerError,
    },
    /// A trainer's answer breaks its contract.
    #[error("the trainer's answer to {doing} breaks its contract: {problem}")]
    Contract {
        /// What it was asked for.
        doing: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// A checkpoint cannot be read or written.
    #[error("checkpoint `{key}`: {source}")]
    Checkpoint {
        /// Its key.
        key: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The compressed network's graph would be ill-formed.
    #[error(transparent)]
    Graph(Box<GraphError>),
    /// A compressed weight is ill-formed.
    #[error(transparent)]
    Weight(Box<WeightError>),
    /// A quantisation is of no tensor of the network.
    #[error(transparent)]
    Quantization(#[from] QuantizationError),
    /// Batch-norm cannot be folded.
    #[error(transparent)]
    Fold(Box<FoldError>),
}

impl From<GraphError> for CompressError {
    fn from(error: GraphError) -> Self {
        Self::Graph(Box::new(error))
    }
}

impl From<WeightError> for CompressError {
    fn from(error: WeightError) -> Self {
        Self::Weight(Box::new(error))
    }
}

impl From<FoldError> for CompressError {
    fn from(error: FoldError) -> Self {
        Self::Fold(Box::new(error))
    }
}
