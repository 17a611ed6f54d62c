//! A command's answer, on standard output.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

/// Writes a line. A reader that has gone away, as `head` does, ends the program quietly; any other failure
/// is told.
pub(crate) fn line(text: Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("error: standard output: {error}");
        }
        std::process::exit(i32::from(error.kind() != ErrorKind::BrokenPipe));
    }
}

/// Writes a line to standard output; formatted as by `println!`.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::line(format_args!($($text)*))
    };
}

pub(crate) use say;
