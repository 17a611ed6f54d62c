//! What an operating system says of the machine.

use crate::Cache;

/// Everything an operating system may or may not tell; the part of [`Hardware`](crate::Hardware) that is
/// not a matter of the instruction set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) cpu_model: Option<String>,
    pub(crate) logical_cores: Option<usize>,
    pub(crate) physical_cores: Option<usize>,
    pub(crate) l1d: Option<Cache>,
    pub(crate) l2: Option<Cache>,
    pub(crate) l3: Option<Cache>,
    pub(crate) line_bytes: Option<usize>,
    pub(crate) memory_bytes: Option<u64>,
}

/// Longest processor name kept: names end up in records and on one line of a terminal.
const MAX_NAME: usize = 128;

/// `name` with runs of blanks made one and control characters dropped; `None` when nothing is left.
pub(crate) fn tidy_name(name: &str) -> Option<String> {
    let words: Vec<&str> =
        name.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let name: String = words.join(" ").chars().take(MAX_NAME).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tidied() {
        assert_eq!(tidy_name("  Intel(R)  Core(TM) \t i7\0\n"), Some("Intel(R) Core(TM) i7".to_owned()));
        assert_eq!(tidy_name(" \n\0"), None);
        assert_eq!(tidy_name(&"x".repeat(1000)).map(|n| n.len()), Some(MAX_NAME));
    }
}
