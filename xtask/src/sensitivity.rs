//! `cargo xtask sensitivity`.

use std::num::NonZeroU32;

use clap::Args;
use dlis_compress::Selection;
use dlis_compress::sensitivity::{Probe, Sensitivity};
use dlis_experiment::CpuTrainer;
use dlis_experiment::catalogue::NO_RECIPE;
use dlis_experiment::quantity::{parse_share, share};
use dlis_experiment::spec::{AccuracySpec, Dataset};
use dlis_hw::Hardware;

use crate::Failure;
use crate::laboratory::{catalogue, dataset};
use crate::output::{bar, say};

/// The sparsities that are tried unless others are asked for.
const SPARSITIES: [f64; 4] = [0.5, 0.8, 0.9, 0.95];

#[derive(Debug, Args)]
pub(crate) struct SensitivityArgs {
    /// A network of the zoo, or the path of an artefact.
    network: String,
    /// Sparsities that each layer is pruned to, separated by commas [default: 0.5, 0.8, 0.9, 0.95].
    #[arg(long, value_delimiter = ',', value_parser = parse_share)]
    sparsities: Vec<f64>,
    /// Bits that each layer's weights are rounded to instead, 4 or 8, separated by commas.
    #[arg(long, value_delimiter = ',', conflicts_with = "sparsities")]
    bits: Vec<u8>,
    /// Test images that accuracy is measured on: the 1,000 built in, or as many of the 10,000 of CIFAR-10.
    #[arg(long, default_value_t = NonZeroU32::new(1000).unwrap_or(NonZeroU32::MIN))]
    images: NonZeroU32,
    /// Layers that cost more than this share of accuracy are named.
    #[arg(long, default_value = "1%", value_parser = parse_share)]
    drop: f64,
}

pub(crate) fn run(args: &SensitivityArgs) -> Result<(), Failure> {
    let network = catalogue().network(&args.network, NO_RECIPE, "dense-f32")?.network;
    let embedded = args.images.get() <= 1000;
    let spec = AccuracySpec {
        dataset: if embedded { Dataset::Embedded } else { Dataset::Cifar10 },
        images: Some(args.images),
    };
    let mut trainer = CpuTrainer::new().test_on(dataset(&spec)?).threads(Hardware::detect().logical_cores);
    let probe = match (&args.sparsities[..], &args.bits[..]) {
        ([], []) => Probe::Sparsities(SPARSITIES.to_vec()),
        (sparsities, []) => Probe::Sparsities(sparsities.to_vec()),
        (_, bits) => Probe::Bits(bits.to_vec()),
    };
    let bar = bar(1);
    let scan = Sensitivity::scan(&network, &probe, &Selection::all(), &mut trainer, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(format!("{done} of {total} measured"));
    });
    bar.finish_and_clear();
    let scan = scan?;

    let levels: Vec<String> = match &probe {
        Probe::Sparsities(levels) => levels.iter().map(|level| format!("{} zero", share(*level))).collect(),
        Probe::Bits(levels) => levels.iter().map(|bits| format!("{bits} bits")).collect(),
    };
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(std::iter::once("layer alone".to_owned()).chain(levels.iter().cloned()));
    for points in scan.points.chunks(levels.len()) {
        let accuracies = points.iter().map(|point| share(point.accuracy).to_string());
        table.add_row(std::iter::once(points[0].layer.clone()).chain(accuracies));
    }
    say!("{table}");
    say!("as it is: {} of {} test images", share(scan.whole), args.images);
    let costly = scan.costly(args.drop);
    if costly.is_empty() {
        say!("no layer alone costs more than {}", share(args.drop));
    } else {
        say!("more than {}, the costliest first: {}", share(args.drop), costly.join(", "));
    }
    Ok(())
}
