//! The safetensors container: 8 bytes of header length, the header (JSON), the tensors.
//!
//! The `safetensors` crate parses and checks headers; this module reads the tensors one at a time, so
//! that a file is never in memory twice, and writes the same bytes for the same content, which that crate
//! does not (it keeps metadata in a hash map).

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use dlis_formats::Weight;
use half::f16;
use ndarray::ArrayD;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value, json};

use super::error::ArtefactProblem;
use super::packed::{Elements, Part, parts};
use super::{MAX_FILE_BYTES, MAX_HEADER_BYTES};
use crate::WeightError;

/// Bytes of the header's length.
const LENGTH_BYTES: usize = 8;

/// An opened file whose header has been read and checked.
pub(super) struct Container<R> {
    reader: R,
    /// Offset of the tensors in the file.
    start: u64,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

impl<R: Read + Seek> Container<R> {
    /// Reads the header of a file of `file_bytes`. Allocates in proportion to the header, which the file
    /// holds in full; every tensor described lies within the file.
    pub(super) fn open(mut reader: R, file_bytes: u64) -> Result<Self, ArtefactProblem> {
        if file_bytes > MAX_FILE_BYTES {
            return Err(ArtefactProblem::FileSize { found: file_bytes, max: MAX_FILE_BYTES });
        }
        let Some(after_length) = file_bytes.checked_sub(LENGTH_BYTES as u64) else {
            return Err(ArtefactProblem::NoHeader { found: file_bytes });
        };
        let mut length = [0; LENGTH_BYTES];
        reader.read_exact(&mut length)?;
        let declared = u64::from_le_bytes(length);
        let max = after_length.min(MAX_HEADER_BYTES);
        if declared > max {
            return Err(ArtefactProblem::HeaderLength { declared, max });
        }
        let mut header = Vec::new();
        reader.by_ref().take(declared).read_to_end(&mut header)?;
        let text =
            std::str::from_utf8(&header).map_err(|error| ArtefactProblem::HeaderText { valid: error.valid_up_to() })?;
        // Not `SafeTensors::deserialize`: it adds offsets of the file's choosing, which may overflow.
        let header: Metadata = serde_json::from_str(text).map_err(ArtefactProblem::Header)?;
        let (expected, found) = (header.data_len() as u64, after_length - declared);
        if expected != found {
            return Err(ArtefactProblem::DataLength { expected, found });
        }
        let tensors = header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { reader, start: LENGTH_BYTES as u64 + declared, metadata, tensors })
    }

    /// A plain array, in the format that its type says.
    pub(super) fn read(&mut self, name: &str, info: &TensorInfo) -> Result<Weight, ArtefactProblem> {
        let expected = "F32 or F16";
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16) {
            let found = format!("{:?}", info.dtype);
            return Err(ArtefactProblem::Dtype { tensor: name.to_owned(), found, expected });
        }
        let elements = self.elements(name, info)?;
        let (count, shape) = (elements.len(), info.shape.clone());
        match elements {
            Elements::F32(elements) => ArrayD::from_shape_vec(shape, elements.into_owned()).map(Weight::F32),
            Elements::F16(elements) => ArrayD::from_shape_vec(shape, elements.into_owned()).map(Weight::F16),
            _ => unreachable!("the type was checked"),
        }
        .map_err(|_| {
            let (expected, found) = (info.shape.clone(), vec![count]);
            WeightError::Shape { name: name.to_owned(), expected, found }.into()
        })
    }

    /// The elements of a tensor, which lies within the file: allocates what the file holds.
    pub(super) fn elements(&mut self, name: &str, info: &TensorInfo) -> Result<Elements<'static>, ArtefactProblem> {
        self.reader.seek(SeekFrom::Start(self.start + info.data_offsets.0 as u64))?;
        let (reader, bytes) = (&mut self.reader, info.data_offsets.1 - info.data_offsets.0);
        Ok(match info.dtype {
            Dtype::F32 => Elements::F32(read_elements(reader, bytes, f32::from_le_bytes)?.into()),
            Dtype::F16 => Elements::F16(read_elements(reader, bytes, f16::from_le_bytes)?.into()),
            Dtype::U32 => Elements::U32(read_elements(reader, bytes, u32::from_le_bytes)?.into()),
            Dtype::U16 => Elements::U16(read_elements(reader, bytes, u16::from_le_bytes)?.into()),
            Dtype::U8 => Elements::U8(read_elements(reader, bytes, u8::from_le_bytes)?.into()),
            Dtype::I8 => Elements::I8(read_elements(reader, bytes, i8::from_le_bytes)?.into()),
            other => {
                let (tensor, found) = (name.to_owned(), format!("{other:?}"));
                return Err(ArtefactProblem::Dtype { tensor, found, expected: "F32, F16, U32, U16, U8 or I8" });
            }
        })
    }
}

/// Reads `bytes` bytes of elements of `N` bytes each.
fn read_elements<T, const N: usize>(
    reader: &mut impl Read,
    bytes: usize,
    element: fn([u8; N]) -> T,
) -> io::Result<Vec<T>> {
    let mut values = Vec::with_capacity(bytes / N);
    let mut buffer = vec![0; bytes.min(1 << 16)];
    let mut left = bytes;
    while left > 0 {
        // The buffer's length is a multiple of that of an element.
        let chunk = &mut buffer[..left.min(1 << 16)];
        reader.read_exact(chunk)?;
        values.extend(chunk.as_chunks().0.iter().copied().map(element));
        left -= chunk.len();
    }
    Ok(values)
}

/// Writes metadata and weights, the same bytes for the same content.
pub(super) fn write(
    writer: &mut impl Write,
    metadata: &BTreeMap<String, String>,
    weights: &BTreeMap<String, Weight>,
) -> Result<(), ArtefactProblem> {
    let mut tensors: Vec<(String, Part<'_>)> = Vec::with_capacity(weights.len());
    for (weight, part) in
        weights.iter().flat_map(|(name, weight)| parts(weight).into_iter().map(move |part| (name, part)))
    {
        let name = part.name.map_or_else(|| weight.clone(), |part| format!("{weight}.{part}"));
        tensors.push((name, part));
    }
    // As the format asks: larger types first, so that every tensor is aligned to its own type.
    tensors.sort_by_key(|(_, part)| std::cmp::Reverse(part.elements.dtype().1));
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!(metadata));
    let mut offset = 0u64;
    for (name, part) in &tensors {
        let (dtype, element_bytes) = part.elements.dtype();
        let end = offset + part.elements.len() as u64 * element_bytes;
        header.insert(name.clone(), json!({"dtype": dtype, "shape": part.shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
    let declared = header.len() as u64;
    if declared > MAX_HEADER_BYTES {
        return Err(ArtefactProblem::HeaderLength { declared, max: MAX_HEADER_BYTES });
    }
    let file_bytes = offset + declared + LENGTH_BYTES as u64;
    if file_bytes > MAX_FILE_BYTES {
        return Err(ArtefactProblem::FileSize { found: file_bytes, max: MAX_FILE_BYTES });
    }
    writer.write_all(&declared.to_le_bytes())?;
    writer.write_all(&header)?;
    tensors.iter().try_for_each(|(_, part)| part.elements.write(writer))?;
    Ok(())
}
