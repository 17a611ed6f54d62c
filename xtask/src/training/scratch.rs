//! `cargo xtask train`: a network from scratch.

use std::collections::BTreeMap;

use dlis_compress::{FineTune, Trainer as _};
use dlis_model::{Artefact, zoo};
use dlis_train::initial;

use super::TrainArgs;
use super::setting::{Setting, checkpoints};
use crate::Failure;
use crate::output::say;

pub(crate) fn run(args: &TrainArgs) -> Result<(), Failure> {
    let graph = zoo::graph(&args.network)?;
    let Setting { mut trainer, journal, out } = Setting::new(&args.place)?;
    let network = initial(graph, args.seed)?;
    let name = &args.network;
    let task = FineTune {
        key: format!("{name}/scratch-{}-{}-{}-{}", args.epochs, args.batch, args.rate, args.seed),
        epochs: args.epochs,
        batch: args.batch,
        peak_rate: args.rate,
        weight_decay: 5e-4,
        label_smoothing: 0.1,
        warmup: 0.2,
        distill: None,
        constraints: BTreeMap::new(),
        activations: None,
        seed: args.seed,
    };
    journal.open(&out, name)?;
    let trained = trainer.fine_tune(&network, &task, &mut |_| ())?;
    let accuracy = trainer.accuracy(&trained)?;
    journal.close()?;
    let path = out.join(format!("{name}.safetensors"));
    Artefact::new(trained)
        .with("recipe", "none")
        .with("seed", args.seed.to_string())
        .with("accuracy", accuracy.to_string())
        .with("epochs", args.epochs.to_string())
        .save(&path)?;
    // The artefact is there: what only served to go on after a kill is not needed any more.
    let _ = std::fs::remove_file(checkpoints(&out).join(format!("{}.checkpoint.safetensors", task.key)));
    say!("{}: accuracy {:.2} %", path.display(), 100.0 * accuracy);
    Ok(())
}
