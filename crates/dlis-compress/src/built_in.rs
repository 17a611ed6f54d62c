//! The recipes that come with this crate.

/// The text (TOML) of every recipe in this crate's folder `recipes`, by file name without ending, which is the
/// recipe's name. They are for CIFAR-10; each is based on others of them or on the dense network.
///
/// ```
/// use dlis_compress::{BUILT_IN, Library, Recipe};
///
/// let recipes: Result<Vec<Recipe>, _> = BUILT_IN.iter().map(|(_, text)| toml::from_str(text)).collect();
/// let library = Library::new(recipes?)?;
/// let chain: Vec<&str> = library.chain("prune-90")?.iter().map(|recipe| recipe.name.as_str()).collect();
/// assert_eq!(chain, ["prune-50", "prune-80", "prune-90"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const BUILT_IN: &[(&str, &str)] = &[
    ("block-80", include_str!("../recipes/block-80.toml")),
    ("channels-10", include_str!("../recipes/channels-10.toml")),
    ("channels-25-int8", include_str!("../recipes/channels-25-int8.toml")),
    ("channels-25", include_str!("../recipes/channels-25.toml")),
    ("channels-50-int8", include_str!("../recipes/channels-50-int8.toml")),
    ("channels-50-prune-80", include_str!("../recipes/channels-50-prune-80.toml")),
    ("channels-50-ternary", include_str!("../recipes/channels-50-ternary.toml")),
    ("channels-50", include_str!("../recipes/channels-50.toml")),
    ("channels-75", include_str!("../recipes/channels-75.toml")),
    ("even-90", include_str!("../recipes/even-90.toml")),
    ("even-95", include_str!("../recipes/even-95.toml")),
    ("int4-aware", include_str!("../recipes/int4-aware.toml")),
    ("int4", include_str!("../recipes/int4.toml")),
    ("int8-aware", include_str!("../recipes/int8-aware.toml")),
    ("int8", include_str!("../recipes/int8.toml")),
    ("prune-50", include_str!("../recipes/prune-50.toml")),
    ("prune-80-int8", include_str!("../recipes/prune-80-int8.toml")),
    ("prune-80", include_str!("../recipes/prune-80.toml")),
    ("prune-90", include_str!("../recipes/prune-90.toml")),
    ("prune-95", include_str!("../recipes/prune-95.toml")),
    ("prune-98", include_str!("../recipes/prune-98.toml")),
    ("ternary-0.01", include_str!("../recipes/ternary-0.01.toml")),
    ("ternary-0.1", include_str!("../recipes/ternary-0.1.toml")),
    ("ternary-0.2", include_str!("../recipes/ternary-0.2.toml")),
    ("ternary", include_str!("../recipes/ternary.toml")),
    ("two-four", include_str!("../recipes/two-four.toml")),
];
