//! The command line of DLIS.
fn main() {}
