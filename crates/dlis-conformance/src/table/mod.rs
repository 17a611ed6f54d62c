//! The hand-written cases: the shapes on which kernels go wrong.

mod convolutions;
mod lanes;
mod layers;
mod lines;
mod networks;
mod specials;

use dlis_backend::Operation;
use dlis_model::{Activation, Window};

use crate::case::Case;

/// Around the widths of vectors and register blocks.
const ODD_CHANNELS: [usize; 11] = [1, 3, 5, 7, 9, 15, 17, 31, 33, 63, 65];

const ACTIVATIONS: [Activation; 3] = [Activation::Relu, Activation::Relu6, Activation::Sigmoid];

/// The hand-written cases, every operation among them. Their names are unique.
pub fn cases() -> Vec<Case> {
    let mut cases = convolutions::cases();
    cases.extend(layers::cases());
    cases.extend(lanes::cases());
    cases.extend(lines::cases());
    cases.extend(networks::cases());
    cases.extend(specials::cases());
    cases
}

/// A case of the table.
///
/// # Panics
///
/// If there is no such case: the table is wrong.
fn case(name: impl Into<String>, operation: Operation, inputs: &[[usize; 4]]) -> Case {
    Case::new(name, operation, inputs).unwrap_or_else(|error| panic!("the table is wrong: {error}"))
}

/// A window of this height and width, stride 1 and no padding.
const fn oblong(kernel: [usize; 2]) -> Window {
    Window { kernel, ..Window::square(1) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_operation_occurs() {
        let cases = cases();
        let mut names = BTreeSet::new();
        for case in &cases {
            assert!(names.insert(&case.name), "two cases are called `{}`", case.name);
        }
        let operations: BTreeSet<&str> = cases.iter().map(|case| case.op.operation.name()).collect();
        assert_eq!(operations.len(), 12, "{operations:?}");
    }

    #[test]
    fn no_case_takes_long() {
        for case in cases() {
            assert!(case.op.macs() <= 2_000_000, "{case:?}: {} multiply-accumulates", case.op.macs());
            assert!(case.op.activation_bytes() <= 1 << 20, "{case:?}: {} bytes", case.op.activation_bytes());
        }
    }
}
