//! `cargo xtask ci`: everything that must hold before a change lands.

mod architecture;
mod cross;
mod libtorch;
pub(crate) mod packages;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::Failure;
use crate::ci::libtorch::Libtorch;

/// Runs every check in turn; the first that fails ends the run.
pub(crate) fn run(root: &Path, training: bool) -> Result<(), Failure> {
    packages::install(training)?;
    step("architecture", || architecture::check(root))?;
    let cargo = |args: &'static [&'static str]| move || command(root, args, &[]);
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    // What links libtorch has its own steps: all else builds without.
    let all = ["--workspace", "--exclude", "dlis-train", "--features", "xtask/opencl"];
    let deny = ["--all-targets", "--", "--deny", "warnings"];
    step("lint", || command(root, &[&["clippy"][..], &all, &deny].concat(), &[]))?;
    // The default build is without OpenCL: two crates differ.
    let default = ["-p", "dlis-experiment", "-p", "xtask"];
    step("lint the default build", || command(root, &[&["clippy"][..], &default, &deny].concat(), &[]))?;
    match cross::find_or_fetch(root) {
        Ok(target) => step(&format!("lint for {target}"), || command(root, &cross::LINT, &[]))?,
        // Without a network that is no fault of the change.
        Err(reason) => eprintln!("==> lint for another architecture: skipped, {reason}"),
    }
    step("test", || command(root, &[&["test"][..], &all, &["--no-fail-fast"]].concat(), &[]))?;
    step("documentation", || command(root, &[&["doc"][..], &all, &["--no-deps"]].concat(), &[]))?;
    if training { self::training(root) } else { Ok(()) }
}

/// Checks what links libtorch.
fn training(root: &Path) -> Result<(), Failure> {
    let environment = Libtorch::find_or_fetch(root)?.environment();
    let train = ["-p", "dlis-train", "-p", "xtask", "--features", "xtask/train"];
    step("lint training", || {
        command(root, &[&["clippy"][..], &train, &["--all-targets", "--", "--deny", "warnings"]].concat(), &environment)
    })?;
    step("test training", || command(root, &["test", "-p", "dlis-train", "--no-fail-fast"], &environment))?;
    step("document training", || command(root, &["doc", "-p", "dlis-train", "--no-deps"], &environment))
}

/// Announces a step, runs it and says how long it took.
fn step(name: &str, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    eprintln!("==> {name}");
    let start = Instant::now();
    work()?;
    eprintln!("==> {name}: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs cargo with these arguments and environment, warnings of rustdoc denied.
fn command(root: &Path, args: &[&str], environment: &[(&'static str, OsString)]) -> Result<(), Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root).env("RUSTDOCFLAGS", "--deny warnings");
    match command.envs(environment.iter().cloned()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("`cargo {}` failed ({status})", args.join(" ")))),
        Err(error) => Err(Failure::new(format!("`cargo {}` could not be started: {error}", args.join(" ")))),
    }
}
