//! Weights as the tensors of a file: one for a plain array, under the weight's own name; for a packed format
//! one for each of its parts, under the weight's name, a dot and the part's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, Write};

use dlis_formats::{
    Bsr, Csr, FilterCsr, Format, FormatError, Indices, Int4, Int8, ScaledF16, Ternary, TernaryPacking, TwoFour, Values,
    Weight,
};
use half::f16;
use safetensors::tensor::TensorInfo;

use super::container::Container;
use super::error::ArtefactProblem;

/// The elements of a tensor of a file, of one of the types that weights have.
pub(super) enum Elements<'a> {
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [f16]>),
    U32(Cow<'a, [u32]>),
    U16(Cow<'a, [u16]>),
    U8(Cow<'a, [u8]>),
    I8(Cow<'a, [i8]>),
}

impl Elements<'_> {
    /// The type's name in the header, and the bytes of one element.
    pub(super) fn dtype(&self) -> (&'static str, u64) {
        match self {
            Self::F32(_) => ("F32", 4),
            Self::U32(_) => ("U32", 4),
            Self::F16(_) => ("F16", 2),
            Self::U16(_) => ("U16", 2),
            Self::U8(_) => ("U8", 1),
            Self::I8(_) => ("I8", 1),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(elements) => elements.len(),
            Self::F16(elements) => elements.len(),
            Self::U32(elements) => elements.len(),
            Self::U16(elements) => elements.len(),
            Self::U8(elements) => elements.len(),
            Self::I8(elements) => elements.len(),
        }
    }

    /// Writes the elements, least significant bytes first.
    pub(super) fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        match self {
            Self::F32(elements) => elements.iter().try_for_each(|element| writer.write_all(&element.to_le_bytes())),
            Self::F16(elements) => elements.iter().try_for_each(|element| writer.write_all(&element.to_le_bytes())),
            Self::U32(elements) => elements.iter().try_for_each(|element| writer.write_all(&element.to_le_bytes())),
            Self::U16(elements) => elements.iter().try_for_each(|element| writer.write_all(&element.to_le_bytes())),
            Self::U8(elements) => writer.write_all(elements),
            Self::I8(elements) => elements.iter().try_for_each(|element| writer.write_all(&element.to_le_bytes())),
        }
    }
}

/// One tensor of a weight.
pub(super) struct Part<'a> {
    /// What follows the weight's name and a dot; nothing for a plain array.
    pub(super) name: Option<&'static str>,
    pub(super) shape: Vec<usize>,
    pub(super) elements: Elements<'a>,
}

impl<'a> Part<'a> {
    fn new(name: &'static str, elements: Elements<'a>) -> Self {
        Self { name: Some(name), shape: vec![elements.len()], elements }
    }

    fn indices(name: &'static str, indices: &'a Indices) -> Self {
        Self::new(
            name,
            match indices {
                Indices::U16(indices) => Elements::U16(indices.into()),
                Indices::U32(indices) => Elements::U32(indices.into()),
            },
        )
    }

    fn f32(name: &'static str, elements: &'a [f32]) -> Self {
        Self::new(name, Elements::F32(elements.into()))
    }

    fn u32(name: &'static str, elements: &'a [u32]) -> Self {
        Self::new(name, Elements::U32(elements.into()))
    }

    fn u8(name: &'static str, elements: &'a [u8]) -> Self {
        Self::new(name, Elements::U8(elements.into()))
    }
}

/// The tensors that a weight is written as.
pub(super) fn parts(weight: &Weight) -> Vec<Part<'_>> {
    let plain = |elements| vec![Part { name: None, shape: weight.dims().to_vec(), elements }];
    match weight {
        Weight::F32(array) => plain(Elements::F32(
            array.as_slice().map_or_else(|| array.iter().copied().collect::<Vec<_>>().into(), Cow::Borrowed),
        )),
        Weight::F16(array) => plain(Elements::F16(
            array.as_slice().map_or_else(|| array.iter().copied().collect::<Vec<_>>().into(), Cow::Borrowed),
        )),
        Weight::ScaledF16(scaled) => {
            vec![Part::new("values", Elements::F16(scaled.values().into())), Part::f32("scales", scaled.scales())]
        }
        Weight::Csr(csr) => vec![
            Part::u32("row_starts", csr.row_starts()),
            Part::indices("columns", csr.column_indices()),
            match csr.values() {
                Values::F32(values) => Part::f32("values", values),
                Values::F16(values) => Part::new("values", Elements::F16(values.into())),
            },
        ],
        Weight::Bsr(bsr) => vec![
            Part::u32("block_row_starts", bsr.block_row_starts()),
            Part::indices("block_columns", bsr.block_columns()),
            Part::f32("values", bsr.values()),
        ],
        Weight::TwoFour(packed) => {
            vec![Part::u8("positions", packed.positions()), Part::f32("values", packed.values())]
        }
        Weight::Ternary(ternary) => vec![
            Part::f32("positive", ternary.positive()),
            Part::f32("negative", ternary.negative()),
            Part::u8("codes", ternary.codes()),
        ],
        Weight::Int8(int8) => {
            vec![Part::new("values", Elements::I8(int8.values().into())), Part::f32("scales", int8.scales())]
        }
        Weight::Int4(int4) => vec![Part::u8("packed", int4.packed()), Part::f32("scales", int4.scales())],
        Weight::FilterCsr(sparse) => vec![
            Part::u32("row_starts", sparse.row_starts()),
            Part::u32("columns", sparse.column_indices()),
            Part::f32("values", sparse.values()),
        ],
    }
}

/// The names of the parts of a packed format; none of a plain array.
const fn part_names(format: Format) -> &'static [&'static str] {
    match format {
        Format::DenseF32 | Format::DenseF16 => &[],
        Format::CsrF32 | Format::CsrF16 | Format::FilterCsr => &["row_starts", "columns", "values"],
        Format::Bsr1x4 | Format::Bsr4x1 | Format::Bsr8x1 | Format::Bsr16x1 => {
            &["block_row_starts", "block_columns", "values"]
        }
        Format::TwoFour => &["positions", "values"],
        Format::Ternary2Bit | Format::Ternary5In8 => &["positive", "negative", "codes"],
        Format::ScaledF16 | Format::Int8 => &["values", "scales"],
        Format::Int4 => &["packed", "scales"],
    }
}

/// A weight of a packed format whose parts are in a file.
pub(super) struct Packed {
    weight: String,
    format: Format,
    dims: Vec<usize>,
    infos: BTreeMap<&'static str, TensorInfo>,
}

impl Packed {
    /// Takes the parts of a weight from the tensors of a file; `None` if the format has no parts.
    pub(super) fn take(
        weight: &str,
        format: Format,
        dims: Vec<usize>,
        tensors: &mut BTreeMap<String, TensorInfo>,
    ) -> Result<Option<Self>, ArtefactProblem> {
        let mut infos = BTreeMap::new();
        for &part in part_names(format) {
            let tensor = format!("{weight}.{part}");
            let Some(info) = tensors.remove(&tensor) else {
                return Err(ArtefactProblem::MissingPart { tensor, format });
            };
            if info.shape.len() != 1 {
                return Err(ArtefactProblem::PartShape { tensor, found: info.shape });
            }
            infos.insert(part, info);
        }
        Ok((!infos.is_empty()).then(|| Self { weight: weight.to_owned(), format, dims, infos }))
    }

    /// Reads the parts, each of which lies in the file, and checks that they make the weight.
    pub(super) fn read<R: Read + Seek>(
        self,
        container: &mut Container<R>,
    ) -> Result<(String, Weight), ArtefactProblem> {
        let dims = self.dims.clone();
        let weight = match self.format {
            Format::DenseF32 | Format::DenseF16 => unreachable!("plain arrays have no parts"),
            Format::CsrF32 | Format::CsrF16 => {
                let row_starts = self.u32("row_starts", container)?;
                let columns = self.indices("columns", container)?;
                let values = match self.format {
                    Format::CsrF32 => Values::F32(self.f32("values", container)?),
                    _ => match self.elements("values", container)? {
                        Elements::F16(values) => Values::F16(values.into_owned()),
                        other => return Err(self.other_type("values", &other, "F16")),
                    },
                };
                Csr::new(dims, row_starts, columns, values).map(Weight::Csr)
            }
            Format::ScaledF16 => {
                let values = match self.elements("values", container)? {
                    Elements::F16(values) => values.into_owned(),
                    other => return Err(self.other_type("values", &other, "F16")),
                };
                ScaledF16::new(dims, values, self.f32("scales", container)?).map(Weight::ScaledF16)
            }
            Format::Bsr1x4 | Format::Bsr4x1 | Format::Bsr8x1 | Format::Bsr16x1 => {
                let starts = self.u32("block_row_starts", container)?;
                let columns = self.indices("block_columns", container)?;
                let block = self.format.block().unwrap_or_default();
                Bsr::new(dims, block, starts, columns, self.f32("values", container)?).map(Weight::Bsr)
            }
            Format::TwoFour => {
                let positions = self.u8("positions", container)?;
                TwoFour::new(dims, positions, self.f32("values", container)?).map(Weight::TwoFour)
            }
            Format::Ternary2Bit => self.ternary(TernaryPacking::TwoBit, container)?,
            Format::Ternary5In8 => self.ternary(TernaryPacking::FiveInEight, container)?,
            Format::Int8 => {
                let values = match self.elements("values", container)? {
                    Elements::I8(values) => values.into_owned(),
                    other => return Err(self.other_type("values", &other, "I8")),
                };
                Int8::new(dims, values, self.f32("scales", container)?).map(Weight::Int8)
            }
            Format::Int4 => {
                let packed = self.u8("packed", container)?;
                Int4::new(dims, packed, self.f32("scales", container)?).map(Weight::Int4)
            }
            Format::FilterCsr => {
                let row_starts = self.u32("row_starts", container)?;
                let columns = self.u32("columns", container)?;
                FilterCsr::new(dims, row_starts, columns, self.f32("values", container)?).map(Weight::FilterCsr)
            }
        };
        match weight {
            Ok(weight) => Ok((self.weight, weight)),
            Err(source) => Err(ArtefactProblem::Format { weight: self.weight, format: self.format, source }),
        }
    }

    fn ternary<R: Read + Seek>(
        &self,
        packing: TernaryPacking,
        container: &mut Container<R>,
    ) -> Result<Result<Weight, FormatError>, ArtefactProblem> {
        let positive = self.f32("positive", container)?;
        let negative = self.f32("negative", container)?;
        let codes = self.u8("codes", container)?;
        Ok(Ternary::new(self.dims.clone(), packing, positive, negative, codes).map(Weight::Ternary))
    }

    fn tensor(&self, part: &str) -> String {
        format!("{}.{part}", self.weight)
    }

    fn elements<R: Read + Seek>(
        &self,
        part: &'static str,
        container: &mut Container<R>,
    ) -> Result<Elements<'static>, ArtefactProblem> {
        container.elements(&self.tensor(part), &self.infos[part])
    }

    fn other_type(&self, part: &str, found: &Elements<'_>, expected: &'static str) -> ArtefactProblem {
        ArtefactProblem::Dtype { tensor: self.tensor(part), found: found.dtype().0.to_owned(), expected }
    }

    fn f32<R: Read + Seek>(
        &self,
        part: &'static str,
        container: &mut Container<R>,
    ) -> Result<Vec<f32>, ArtefactProblem> {
        match self.elements(part, container)? {
            Elements::F32(elements) => Ok(elements.into_owned()),
            other => Err(self.other_type(part, &other, "F32")),
        }
    }

    fn u32<R: Read + Seek>(
        &self,
        part: &'static str,
        container: &mut Container<R>,
    ) -> Result<Vec<u32>, ArtefactProblem> {
        match self.elements(part, container)? {
            Elements::U32(elements) => Ok(elements.into_owned()),
            other => Err(self.other_type(part, &other, "U32")),
        }
    }

    fn u8<R: Read + Seek>(&self, part: &'static str, container: &mut Container<R>) -> Result<Vec<u8>, ArtefactProblem> {
        match self.elements(part, container)? {
            Elements::U8(elements) => Ok(elements.into_owned()),
            other => Err(self.other_type(part, &other, "U8")),
        }
    }

    fn indices<R: Read + Seek>(
        &self,
        part: &'static str,
        container: &mut Container<R>,
    ) -> Result<Indices, ArtefactProblem> {
        match self.elements(part, container)? {
            Elements::U16(elements) => Ok(Indices::U16(elements.into_owned())),
            Elements::U32(elements) => Ok(Indices::U32(elements.into_owned())),
            other => Err(self.other_type(part, &other, "U16 or U32")),
        }
    }
}
