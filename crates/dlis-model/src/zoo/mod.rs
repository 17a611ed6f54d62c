//! Well-known networks: their graphs, without weights.
//!
//! Layers are named as in PyTorch's and torchvision's state dictionaries, so that a file of weights fits
//! by name; layers without weights have names in the same manner. Dropout is absent: it does nothing at
//! inference. Where an original pads only at the bottom and right to round a pooling size up, the window
//! has that padding.
//!
//! ```
//! use dlis_model::zoo;
//!
//! let graph = zoo::graph("resnet18-cifar10")?;
//! assert_eq!(graph.trainable_parameters(), 11_173_962);
//! let error = zoo::graph("resnet-18").unwrap_err();
//! assert_eq!(error.nearest, "resnet18-cifar10");
//! # Ok::<(), zoo::UnknownNetwork>(())
//! ```

mod alexnet;
mod mobilenet;
mod resnet;
mod senet;
mod vgg;

pub use alexnet::alexnet_imagenet;
pub use mobilenet::{mobilenet_cifar10, mobilenet_imagenet};
pub use resnet::{resnet18_cifar10, resnet18_imagenet};
pub use senet::senet154_imagenet;
pub use vgg::{vgg16_cifar10, vgg16_imagenet};

use crate::{Graph, GraphBuilder, Shape, Value};

const CIFAR10: Shape = Shape::new(3, 32, 32);
const IMAGENET: Shape = Shape::new(3, 224, 224);

/// One network of the zoo.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name that [`graph()`] takes and that its graph has.
    pub name: &'static str,
    /// What it is and who described it.
    pub description: &'static str,
    build: fn() -> Graph,
}

impl Entry {
    /// Its graph.
    pub fn graph(&self) -> Graph {
        (self.build)()
    }
}

/// Every network of the zoo, in the order in which they are listed to users.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: vgg::CIFAR10_NAME,
        description: "VGG-16 with batch-norm and a 512-512-10 classifier, 32x32 inputs (Simonyan and Zisserman 2015)",
        build: vgg16_cifar10,
    },
    Entry {
        name: resnet::CIFAR10_NAME,
        description: "ResNet-18 with a 3x3 stem of stride 1, 32x32 inputs (He et al. 2016)",
        build: resnet18_cifar10,
    },
    Entry {
        name: mobilenet::CIFAR10_NAME,
        description: "MobileNet v1 of width 1 with a stem of stride 1, 32x32 inputs (Howard et al. 2017)",
        build: mobilenet_cifar10,
    },
    Entry {
        name: alexnet::IMAGENET_NAME,
        description: "AlexNet in its one-tower form, 224x224 inputs (Krizhevsky 2014)",
        build: alexnet_imagenet,
    },
    Entry {
        name: vgg::IMAGENET_NAME,
        description: "VGG-16 without batch-norm, 224x224 inputs (Simonyan and Zisserman 2015)",
        build: vgg16_imagenet,
    },
    Entry {
        name: resnet::IMAGENET_NAME,
        description: "ResNet-18, 224x224 inputs (He et al. 2016)",
        build: resnet18_imagenet,
    },
    Entry {
        name: mobilenet::IMAGENET_NAME,
        description: "MobileNet v1 of width 1, 224x224 inputs (Howard et al. 2017)",
        build: mobilenet_imagenet,
    },
    Entry {
        name: senet::IMAGENET_NAME,
        description: "SENet-154, squeeze-and-excitation over a grouped ResNet, 224x224 inputs (Hu et al. 2018)",
        build: senet154_imagenet,
    },
];

/// The graph of the network with this name.
///
/// # Errors
///
/// [`UnknownNetwork`] with the names there are.
pub fn graph(name: &str) -> Result<Graph, UnknownNetwork> {
    match ENTRIES.iter().find(|entry| entry.name == name) {
        Some(entry) => Ok(entry.graph()),
        None => Err(UnknownNetwork::new(name)),
    }
}

/// A name that no network of the zoo has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no network is called `{name}`; did you mean `{nearest}`? There are {}", names())]
pub struct UnknownNetwork {
    /// The name asked for.
    pub name: String,
    /// The name that differs from it by the fewest letters.
    pub nearest: &'static str,
}

impl UnknownNetwork {
    fn new(name: &str) -> Self {
        // Beyond this length nothing is near, and the distance takes time in proportion.
        let asked: Vec<char> = name.chars().take(64).flat_map(char::to_lowercase).collect();
        let distance = |entry: &&Entry| edit_distance(&asked, entry.name);
        let nearest = ENTRIES.iter().min_by_key(distance).map_or("", |entry| entry.name);
        Self { name: name.to_owned(), nearest }
    }
}

fn names() -> String {
    ENTRIES.iter().map(|entry| format!("`{}`", entry.name)).collect::<Vec<_>>().join(", ")
}

/// Letters to insert, delete or replace to turn one text into the other (Wagner and Fischer 1974).
fn edit_distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, letter) in b.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..a.len() {
            let replaced = diagonal + usize::from(a[j] != letter);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[a.len()]
}

fn finish(graph: GraphBuilder, output: Value) -> Graph {
    graph.finish(output).expect("the networks of the zoo are constants, and a test builds each")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters are those that the published models have. MACs come from an independent description of
    /// the networks; those of AlexNet are torchvision's 0.71 G, those of SENet-154 its paper's 20.7 G.
    #[test]
    fn counts_are_the_published_ones() {
        let expected = [
            ("vgg16-cifar10", 14_986_698, 313_463_808),
            ("resnet18-cifar10", 11_173_962, 555_422_720),
            ("mobilenet-cifar10", 3_217_226, 46_354_432),
            ("alexnet-imagenet", 61_100_840, 714_188_480),
            ("vgg16-imagenet", 138_357_544, 15_470_264_320),
            ("resnet18-imagenet", 11_689_512, 1_814_073_344),
            ("mobilenet-imagenet", 4_231_976, 568_740_352),
            ("senet154-imagenet", 115_088_984, 20_688_363_520),
        ];
        let found: Vec<_> = ENTRIES
            .iter()
            .map(|entry| (entry.name, entry.graph().trainable_parameters(), entry.graph().macs()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn graphs_carry_their_entry_s_name_and_end_in_classes() {
        for entry in ENTRIES {
            let graph = graph(entry.name).unwrap();
            assert_eq!(graph.name(), entry.name);
            let (input, classes) = if entry.name.ends_with("-cifar10") { (CIFAR10, 10) } else { (IMAGENET, 1000) };
            assert_eq!(graph.input_shape(), input, "{}", entry.name);
            assert_eq!(graph.output_shape(), Shape::new(classes, 1, 1), "{}", entry.name);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        for (asked, nearest) in [
            ("resnet18_cifar10", "resnet18-cifar10"),
            ("VGG16-ImageNet", "vgg16-imagenet"),
            ("senet-154", "senet154-imagenet"),
            ("mobilnet-cifar10", "mobilenet-cifar10"),
        ] {
            assert_eq!(graph(asked).unwrap_err().nearest, nearest);
        }
        insta::assert_snapshot!(graph("alexnet").unwrap_err(), @"no network is called `alexnet`; did you mean `alexnet-imagenet`? There are `vgg16-cifar10`, `resnet18-cifar10`, `mobilenet-cifar10`, `alexnet-imagenet`, `vgg16-imagenet`, `resnet18-imagenet`, `mobilenet-imagenet`, `senet154-imagenet`");
    }

    #[test]
    fn edit_distances() {
        let distance = |a: &str, b| edit_distance(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
