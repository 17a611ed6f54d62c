//! Reads the six files of the set from a folder or straight out of an archive.
//!
//! Nothing is ever unpacked to disk, and every read is bounded by the size a file of the set
//! has, so a hostile archive can neither write anywhere nor exhaust memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

use flate2::read::GzDecoder;
use tar::{Archive, EntryType};

use super::{DatasetError, Form, IMAGES_PER_FILE, Images, binary, png_rows};

/// Largest label file accepted; the published ones have 20,001 and 100,001 bytes.
const MAX_LABEL_BYTES: u64 = 1 << 20;
/// Bytes of an unpacked archive after which reading stops; the published ones have 184 MB and
/// 139 MB. A small archive that inflates without end is cut off here.
const MAX_UNPACKED_BYTES: u64 = 256 << 20;

/// One of the six files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Training images, file 1 to 5.
    Train(u8),
    /// Test images.
    Test,
}

impl Part {
    /// Training files in order, then the test file.
    pub(super) const ALL: [Self; 6] =
        [Self::Train(1), Self::Train(2), Self::Train(3), Self::Train(4), Self::Train(5), Self::Test];

    /// Name of the file with the images.
    pub(super) fn images_file(self, form: Form) -> String {
        let extension = if form.is_png() { "png" } else { "bin" };
        match self {
            Self::Train(number) => format!("data_batch_{number}.{extension}"),
            Self::Test => format!("test_batch.{extension}"),
        }
    }

    /// Name of the file with the labels, where they are apart. The package spells it so.
    fn labels_file(self) -> &'static str {
        match self {
            Self::Train(_) => "train_lables.json",
            Self::Test => "test_lables.json",
        }
    }

    /// How many files share the label file, and which of them this one is.
    fn place(self) -> (usize, usize) {
        match self {
            Self::Train(number) => (5, usize::from(number) - 1),
            Self::Test => (1, 0),
        }
    }
}

/// Reads `wanted` in that order.
pub(super) fn read(dir: &Path, form: Form, wanted: &[Part]) -> Result<Vec<Images>, DatasetError> {
    let path =
        form.path(dir).ok_or_else(|| DatasetError::Missing { file: dir.join(form.marker()).display().to_string() })?;
    let mut decoder = Decoder::new(form, wanted, path.display().to_string());
    match form {
        Form::BinaryFolder | Form::PngFolder => read_folder(&path, &mut decoder)?,
        Form::BinaryArchive | Form::PngArchive => read_archive(&path, &mut decoder)?,
    }
    decoder.finish()
}

fn read_folder(folder: &Path, decoder: &mut Decoder<'_>) -> Result<(), DatasetError> {
    for name in decoder.names() {
        let path = folder.join(&name);
        let file = path.display().to_string();
        let opened = match File::open(&path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DatasetError::Missing { file });
            }
            Err(source) => return Err(DatasetError::Io { file, source }),
        };
        let metadata = opened.metadata().map_err(|source| DatasetError::Io { file: file.clone(), source })?;
        decoder.accept(&name, &file, metadata.len(), opened)?;
    }
    Ok(())
}

fn read_archive(path: &Path, decoder: &mut Decoder<'_>) -> Result<(), DatasetError> {
    let file = path.display().to_string();
    let opened = File::open(path).map_err(|source| DatasetError::Io { file: file.clone(), source })?;
    let broken = |source| DatasetError::Archive { file: file.clone(), source };
    let unpacked = GzDecoder::new(BufReader::new(opened)).take(MAX_UNPACKED_BYTES);
    let mut archive = Archive::new(unpacked);
    // Raw: extension headers are skipped, where they would be read whole at the size they claim.
    // The names in these archives are short and need none.
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let entry = entry.map_err(broken)?;
        let member = entry.path().map_err(broken)?.into_owned();
        let inside = member.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(DatasetError::UnsafeMember { file, member: member.display().to_string() });
        }
        let name = member.file_name().and_then(|name| name.to_str());
        let (Some(name), EntryType::Regular) = (name, entry.header().entry_type()) else {
            continue;
        };
        if decoder.wants(name) {
            let label = format!("{file}: {}", member.display());
            let size = entry.size();
            let name = name.to_owned();
            decoder.accept(&name, &label, size, entry)?;
        }
        if decoder.is_complete() {
            // The rest of the archive cannot change the answer.
            return Ok(());
        }
    }
    Ok(())
}

/// Collects the members of a set in whatever order they come.
struct Decoder<'a> {
    form: Form,
    wanted: &'a [Part],
    place: String,
    pixels: BTreeMap<String, Images>,
    labels: BTreeMap<String, Vec<u8>>,
}

impl<'a> Decoder<'a> {
    fn new(form: Form, wanted: &'a [Part], place: String) -> Self {
        Self { form, wanted, place, pixels: BTreeMap::new(), labels: BTreeMap::new() }
    }

    /// Names of the files needed, labels first because they are the quickest to refuse.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.form.is_png() {
            names.extend(self.wanted.iter().map(|part| part.labels_file().to_owned()));
            names.dedup();
        }
        names.extend(self.wanted.iter().map(|part| part.images_file(self.form)));
        names
    }

    fn wants(&self, name: &str) -> bool {
        self.names().iter().any(|wanted| wanted == name)
    }

    fn has(&self, name: &str) -> bool {
        self.pixels.contains_key(name) || self.labels.contains_key(name)
    }

    fn is_complete(&self) -> bool {
        self.names().iter().all(|name| self.has(name))
    }

    /// Reads and checks the wanted member `name`, which claims to have `size` bytes.
    fn accept(&mut self, name: &str, file: &str, size: u64, reader: impl Read) -> Result<(), DatasetError> {
        if self.has(name) {
            return Err(DatasetError::field(file, "members", "one", "a second"));
        }
        if let Some(part) = self.wanted.iter().find(|p| p.labels_file() == name) {
            let bytes = read_bounded(file, size, MAX_LABEL_BYTES, reader)?;
            let labels = png_rows::labels(file, &bytes, part.place().0 * IMAGES_PER_FILE)?;
            self.labels.insert(name.to_owned(), labels);
            return Ok(());
        }
        let images = if self.form.is_png() {
            let bytes = read_bounded(file, size, png_rows::MAX_BYTES, reader)?;
            Images { pixels: png_rows::pixels(file, &bytes)?, labels: Vec::new() }
        } else {
            if size != binary::FILE_BYTES {
                let expected = format!("{} bytes", binary::FILE_BYTES);
                return Err(DatasetError::field(file, "size", expected, size));
            }
            binary::images(file, &read_bounded(file, size, binary::FILE_BYTES, reader)?)?
        };
        self.pixels.insert(name.to_owned(), images);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Images>, DatasetError> {
        if let Some(missing) = self.names().iter().find(|name| !self.has(name)) {
            return Err(DatasetError::Missing { file: format!("{}: {missing}", self.place) });
        }
        let mut parts = Vec::with_capacity(self.wanted.len());
        for part in self.wanted {
            let Some(mut images) = self.pixels.remove(&part.images_file(self.form)) else {
                continue; // `names` listed it, and it was there.
            };
            if let Some(labels) = self.labels.get(part.labels_file()) {
                let start = part.place().1 * IMAGES_PER_FILE;
                images.labels = labels[start..start + IMAGES_PER_FILE].to_vec();
            }
            parts.push(images);
        }
        Ok(parts)
    }
}

/// Reads `size` bytes, refusing a size above `limit` before anything is allocated for it.
fn read_bounded(file: &str, size: u64, limit: u64, reader: impl Read) -> Result<Vec<u8>, DatasetError> {
    if size > limit {
        let expected = format!("at most {limit} bytes");
        return Err(DatasetError::field(file, "size", expected, size));
    }
    let mut bytes = Vec::new(); // grows with what arrives, not with what the header claims
    let read = reader.take(size).read_to_end(&mut bytes);
    read.map_err(|source| DatasetError::Io { file: file.to_owned(), source })?;
    if u64::try_from(bytes.len()).is_ok_and(|found| found == size) {
        Ok(bytes)
    } else {
        let expected = format!("{size} bytes");
        Err(DatasetError::field(file, "size", expected, bytes.len()))
    }
}
