//! `cargo xtask ci`: everything that must hold before a change lands.

mod architecture;
pub(crate) mod packages;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::Failure;

/// Runs every check in turn; the first that fails ends the run.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    packages::install()?;
    step("architecture", || architecture::check(root))?;
    let cargo = |args: &'static [&'static str]| move || command(root, args);
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    step("lint", cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    step("test", cargo(&["test", "--workspace", "--no-fail-fast"]))?;
    step("documentation", cargo(&["doc", "--workspace", "--no-deps"]))
}

/// Announces a step, runs it and says how long it took.
fn step(name: &str, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    eprintln!("==> {name}");
    let start = Instant::now();
    work()?;
    eprintln!("==> {name}: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs cargo with these arguments, warnings of rustdoc denied.
fn command(root: &Path, args: &[&str]) -> Result<(), Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(args).current_dir(root).env("RUSTDOCFLAGS", "--deny warnings").status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("`cargo {}` failed ({status})", args.join(" ")))),
        Err(error) => Err(Failure::new(format!("`cargo {}` could not be started: {error}", args.join(" ")))),
    }
}
