//! Fetches CIFAR-10 into a folder and checks it:
//!
//! ```sh
//! cargo run --release -p dlis-eval --example fetch_cifar10 -- <folder>
//! ```
#![expect(clippy::print_stdout, reason = "a program, run by hand")]

use std::error::Error;
use std::path::PathBuf;

use dlis_eval::{dataset::cifar10, fetch};

fn main() -> Result<(), Box<dyn Error>> {
    let dest = std::env::args_os().nth(1).map(PathBuf::from).ok_or("give a folder")?;
    let mut told = None;
    let report = fetch::fetch_cifar10(&dest, &mut |now| {
        let percent = now.bytes * 100 / now.total;
        let line = format!("{}: {:?} {percent} %", now.source, now.phase);
        if told.as_ref() != Some(&line) {
            println!("{line}");
            told = Some(line);
        }
    })
    .map_err(|error| error.to_string())?; // the message has lines of its own
    for attempt in &report.failed {
        println!("did not work: {attempt}");
    }
    let how = if report.already_there { "already there" } else { "fetched" };
    println!("{how}: {}", report.path.display());
    let set = cifar10::load(&dest)?;
    println!("{} training and {} test images, authentic: {}", set.train.len(), set.test.len(), set.is_authentic());
    Ok(())
}
