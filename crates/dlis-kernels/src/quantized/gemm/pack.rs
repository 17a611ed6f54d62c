//! Weights in the order in which they are read.

use dlis_backend::AlignedBytes;
use dlis_formats::Format;

use super::super::accepts::nibble;
use super::super::simd::Dot;
use super::Shape;

/// How many weights a byte holds, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// One.
    Bytes,
    /// Two: a block's first half lies in the low halves of its bytes, its second half in their high halves, so that
    /// it is unpacked in whole vectors.
    Nibbles,
    /// Four ternary codes: those of an input of each of four steps of four inputs, the first in the low bits.
    Codes,
}

impl Packing {
    /// Of the kernels for a format.
    pub(super) const fn of(format: Format) -> Self {
        match format {
            Format::Int4 => Self::Nibbles,
            Format::Ternary2Bit | Format::Ternary5In8 => Self::Codes,
            _ => Self::Bytes,
        }
    }

    /// Weights in a byte.
    pub(super) const fn per_byte(self) -> usize {
        match self {
            Self::Bytes => 1,
            Self::Nibbles => 2,
            Self::Codes => 4,
        }
    }

    /// Inputs that are read at once, which must be as many as lie side by side.
    pub(super) const fn inputs(self) -> usize {
        if matches!(self, Self::Codes) { 16 } else { 4 }
    }
}

/// `[group][block of output channels][four inputs][channel of the block][one of four]`, the inputs in the order of
/// taps, then channels. The last block of a group is as narrow as it is; inputs beyond the last are zeros.
#[derive(Debug)]
pub(super) struct Packed {
    packing: Packing,
    bytes: AlignedBytes,
    /// Of ternary weights, in the order of the slots of constants, what each channel's codes stand for, a byte each.
    tables: AlignedBytes,
    /// Weights of a group and of a full block.
    group: usize,
    block: usize,
}

impl Packed {
    /// Packs values in row-major order, `[out][channel][tap]`; `codes` are those of ternary ones.
    pub(super) fn new<D: Dot>(shape: &Shape, values: &[i8], codes: &[[i8; 2]]) -> Self {
        let Shape { conv, packing, depth, per_group, quads, .. } = *shape;
        let taps = conv.window.taps();
        let mut packed = Self {
            packing,
            bytes: AlignedBytes::zeroed(0),
            tables: AlignedBytes::zeroed(if codes.is_empty() { 0 } else { conv.groups * shape.slots::<D>() * 4 }),
            group: per_group * quads * 4,
            block: Shape::block::<D>() * quads * 4,
        };
        packed.bytes = AlignedBytes::zeroed(conv.groups * packed.group / packing.per_byte());
        for (out, &[one, two]) in codes.iter().enumerate() {
            let slot = shape.slot::<D>(out);
            packed.tables.as_mut_slice()[4 * slot..][..4].copy_from_slice(&[0, one, two, 0].map(i8::cast_unsigned));
        }
        for (out, row) in values.chunks(depth * taps).enumerate() {
            let (group, within) = (out / per_group, out % per_group);
            let (block, lane) = (within / Shape::block::<D>(), within % Shape::block::<D>());
            let width = shape.width::<D>(block);
            let start = (group * packed.group + block * packed.block) / packing.per_byte();
            let bytes = &mut packed.bytes.as_mut_slice()[start..];
            let half = width * quads * 2;
            for (index, &value) in row.iter().enumerate() {
                let (channel, tap) = (index / taps, index % taps);
                let input = tap * depth + channel;
                let place = |step: usize| (step * width + lane) * 4 + input % 4;
                let byte = value.cast_unsigned();
                match packing {
                    Packing::Bytes => bytes[place(input / 4)] = byte,
                    Packing::Nibbles if place(input / 4) < half => bytes[place(input / 4)] |= byte & 0x0f,
                    Packing::Nibbles => bytes[place(input / 4) - half] |= byte << 4,
                    Packing::Codes => {
                        let code = if value == 0 { 0 } else { 1 + u8::from(value != codes[out][0]) };
                        bytes[place(input / 16)] |= code << (2 * (input / 4 % 4));
                    }
                }
            }
        }
        packed
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.allocated() + self.tables.allocated()
    }

    /// What ternary codes stand for, four bytes a slot of the constants.
    pub(super) fn tables(&self) -> &[u8] {
        self.tables.as_slice()
    }

    /// The `len` weights of a block as they are packed.
    #[inline(always)]
    pub(super) fn packed(&self, group: usize, block: usize, len: usize) -> &[u8] {
        let per_byte = self.packing.per_byte();
        let start = (group * self.group + block * self.block) / per_byte;
        &self.bytes.as_slice()[start..start + len / per_byte]
    }

    /// The `len` weights of a block of integers, a byte each, from `scratch` if they have to be unpacked.
    #[inline(always)]
    pub(super) fn block<'a>(&'a self, group: usize, block: usize, len: usize, scratch: &'a mut [u8]) -> &'a [u8] {
        let bytes = self.packed(group, block, len);
        if self.packing == Packing::Bytes {
            return bytes;
        }
        let (low, high) = scratch[..len].split_at_mut(len / 2);
        for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
            *low = nibble(byte, 0).cast_unsigned();
            *high = nibble(byte, 1).cast_unsigned();
        }
        &scratch[..len]
    }
}
