//! Event files for `TensorBoard`, written by hand: three small messages of protocol buffers in records with
//! checksums (`tensorflow/core/util/event.proto`, `tensorflow/core/lib/io/record_writer.h`).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::TrainError;

/// Appends scalars to an event file.
///
/// ```
/// use dlis_train::EventWriter;
///
/// let folder = tempfile::tempdir()?;
/// let mut events = EventWriter::create(folder.path(), "prune-90")?;
/// events.scalar("loss", 0, 2.3)?;
/// assert!(events.path().is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Begins a new file in `folder`, its name made of the time, the process and `suffix`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn create(folder: &Path, suffix: &str) -> Result<Self, TrainError> {
        fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let time = now();
        let name = format!("events.out.tfevents.{}.{}.{suffix}", time.floor(), std::process::id());
        let path = folder.join(name);
        let file = File::create(&path).map_err(TrainError::io(&path))?;
        let mut writer = Self { file, path };
        // `file_version`, field 3, is the first event of every file.
        let mut event = wall_time(time);
        bytes(&mut event, 3, b"brain.Event:2");
        writer.write(&event)?;
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a value of the series `tag`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> Result<(), TrainError> {
        let event = scalar_event(now(), tag, step, value);
        self.write(&event)
    }

    fn write(&mut self, event: &[u8]) -> Result<(), TrainError> {
        self.file.write_all(&record(event)).map_err(TrainError::io(&self.path))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// An `Event` with a `Summary` (field 5) of one `Value`: its tag (field 1) and `simple_value` (field 2).
fn scalar_event(time: f64, tag: &str, step: u64, value: f32) -> Vec<u8> {
    let mut entry = Vec::new();
    bytes(&mut entry, 1, tag.as_bytes());
    entry.push(2 << 3 | 5);
    entry.extend(value.to_le_bytes());
    let mut summary = Vec::new();
    bytes(&mut summary, 1, &entry);
    let mut event = wall_time(time);
    event.push(2 << 3);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    event
}

/// Field 1 of an `Event`, a double.
fn wall_time(time: f64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(time.to_le_bytes());
    event
}

fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, value.len() as u64);
    message.extend(value);
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// Length, its checksum, the data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

/// A checksum that stays one when it is itself part of what is summed.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli), bit by bit: records are a few dozen bytes.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in data {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn an_event_has_the_known_bytes() {
        let event = scalar_event(1.0, "loss", 300, 0.5);
        let wall = [0x09, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F];
        let step = [0x10, 0xAC, 0x02];
        let summary = [0x2A, 13, 0x0A, 11, 0x0A, 4, b'l', b'o', b's', b's', 0x15, 0, 0, 0, 0x3F];
        assert_eq!(event, [&wall[..], &step, &summary].concat());
        let record = record(&event);
        assert_eq!(record[..8], (event.len() as u64).to_le_bytes());
        assert_eq!(record.len(), event.len() + 16);
    }
}
