//! Operations on u8 activations: their exact arithmetic, cases, and the proof of kernels for them.

mod case;
mod check;
mod reference;
mod table;

pub use case::{Elements, Flavour, QuantizedCase};
pub use check::{check_quantized, prove_quantized};
pub use reference::quantized_reference;
pub use table::{any_quantized_case, quantized_cases};
