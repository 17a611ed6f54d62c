//! Says what machine this is and measures its peaks, for one thread and for all: `cargo run --release --example doctor`.

use std::io::Write;

use dlis_hw::energy::EnergyMeter;
use dlis_hw::{Hardware, Peaks};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let hw = Hardware::detect();
    writeln!(out, "{hw}")?;
    match EnergyMeter::open() {
        Ok(meter) => writeln!(out, "energy       {}", meter.zones().collect::<Vec<_>>().join(", "))?,
        Err(reason) => writeln!(out, "energy       {reason}")?,
    }
    let start = std::time::Instant::now();
    let peaks = Peaks::measure_on(&hw, &[1, hw.logical_cores], Peaks::DEFAULT_BUDGET);
    writeln!(out, "{peaks}\nmeasured in {:.2} s", start.elapsed().as_secs_f64())
}
