//! Which layers a step works on.

use dlis_model::{Graph, Op};
use serde::{Deserialize, Serialize};

use crate::CompressError;
use crate::bounds::Fields;

/// Which convolutions and linear layers a step works on: by default all but the network's first (it sees three
/// channels and decides what all others get), its last (it decides the classes) and depthwise convolutions (few
/// weights, each of much consequence).
///
/// Patterns are layers' names in which `*` stands for any run of characters.
///
/// ```
/// use dlis_compress::Selection;
/// use dlis_model::zoo;
///
/// let graph = zoo::mobilenet_cifar10();
/// let selected = Selection::default().of(&graph)?;
/// assert_eq!(selected.len(), 13, "the pointwise convolutions");
/// let late = Selection { only: vec!["layers.12.*".to_owned()], depthwise: true, ..Selection::default() };
/// assert_eq!(late.of(&graph)?.len(), 2);
/// # Ok::<(), dlis_compress::CompressError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Whether the first layer is among them.
    pub first: bool,
    /// Whether the last layer is.
    pub last: bool,
    /// Whether depthwise convolutions are.
    pub depthwise: bool,
    /// If not empty: only layers that match one of these.
    pub only: Vec<String>,
    /// No layer that matches one of these.
    pub except: Vec<String>,
}

impl Selection {
    /// Every convolution and linear layer.
    pub fn all() -> Self {
        Self { first: true, last: true, depthwise: true, ..Self::default() }
    }

    /// Indices of the selected layers, in execution order.
    ///
    /// # Errors
    ///
    /// [`CompressError::NoLayers`] if there is none, or none for one of the patterns in `only`.
    pub fn of(&self, graph: &Graph) -> Result<Vec<usize>, CompressError> {
        let weighted: Vec<usize> = weighted(graph).collect();
        let name = |index: usize| graph.layers()[index].name.as_str();
        let none = |selection: String| CompressError::NoLayers { network: graph.name().to_owned(), selection };
        for pattern in &self.only {
            if !weighted.iter().any(|&index| matches(pattern, name(index))) {
                return Err(none(format!("the pattern `{pattern}`")));
            }
        }
        let selected = |&index: &usize| {
            let depthwise = matches!(graph.layers()[index].op, Op::Conv2d(conv) if conv.is_depthwise());
            let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name(index)));
            (self.first || weighted.first() != Some(&index))
                && (self.last || weighted.last() != Some(&index))
                && (self.depthwise || !depthwise)
                && (self.only.is_empty() || any(&self.only))
                && !any(&self.except)
        };
        let indices: Vec<usize> = weighted.iter().copied().filter(selected).collect();
        if indices.is_empty() { Err(none(format!("{self:?}"))) } else { Ok(indices) }
    }

    pub(crate) fn check(&self, fields: &Fields<'_>) -> Result<(), CompressError> {
        for (field, patterns) in [("layers.only", &self.only), ("layers.except", &self.except)] {
            fields.count(field, patterns.len(), 0, 1000)?;
            for pattern in patterns {
                fields.count(field, pattern.len(), 1, 1000)?;
            }
        }
        Ok(())
    }
}

/// Indices of convolutions and linear layers.
pub(crate) fn weighted(graph: &Graph) -> impl Iterator<Item = usize> {
    let has_weight = |(index, layer): (usize, &dlis_model::Layer)| {
        matches!(layer.op, Op::Conv2d(_) | Op::Linear(_)).then_some(index)
    };
    graph.layers().iter().enumerate().filter_map(has_weight)
}

/// Whether `name` is `pattern` with each `*` replaced by some text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    // Taking each part where it is found first leaves the most for those that follow.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use dlis_model::zoo;

    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in [("a", "a"), ("*", ""), ("a*", "ab"), ("*b", "ab"), ("a*c*e", "abcde"), ("*a*", "a")] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("a*", "ba"), ("a*a", "a"), ("a*b*b", "ab"), ("", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn defaults_leave_the_ends_out() {
        let graph = zoo::resnet18_cifar10();
        let names = |selection: &Selection| -> Vec<String> {
            selection.of(&graph).unwrap().into_iter().map(|index| graph.layers()[index].name.clone()).collect()
        };
        let default = names(&Selection::default());
        assert_eq!(default.len(), 19);
        assert!(!default.iter().any(|name| name == "conv1" || name == "fc"));
        assert_eq!(names(&Selection::all()).len(), 21);
        let shortcuts = Selection { only: vec!["*.downsample.0".to_owned()], ..Selection::default() };
        assert_eq!(names(&shortcuts), ["layer2.0.downsample.0", "layer3.0.downsample.0", "layer4.0.downsample.0"]);
        let others = Selection { except: vec!["*.downsample.*".to_owned()], ..Selection::default() };
        assert_eq!(names(&others).len(), 16);
    }

    #[test]
    fn selecting_nothing_is_an_error_that_names_the_pattern() {
        let selection = Selection { only: vec!["conv9".to_owned()], ..Selection::default() };
        let error = selection.of(&zoo::vgg16_cifar10()).unwrap_err();
        assert!(error.to_string().contains("`conv9`"), "{error}");
    }
}
