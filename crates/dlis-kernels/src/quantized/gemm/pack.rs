//! Weights in the order in which they are read.

use dlis_backend::AlignedBytes;

use super::super::accepts::nibble;
use super::super::simd::Dot;
use super::Shape;

/// `[group][block of output channels][four inputs][channel of the block][one of four]`, the inputs in the order of
/// taps, then channels. The last block of a group is as narrow as it is; inputs beyond the last are zeros.
///
/// Of four bits, a block is half as many bytes: its first half lies in their low halves, its second half in
/// their high halves, so that it is unpacked in whole vectors.
#[derive(Debug)]
pub(super) struct Packed {
    bytes: AlignedBytes,
    /// Weights in a byte.
    per_byte: usize,
    /// Weights of a group and of a full block.
    group: usize,
    block: usize,
}

impl Packed {
    /// Packs values in row-major order, `[out][channel][tap]`.
    pub(super) fn new<D: Dot>(shape: &Shape, values: &[i8], four_bits: bool) -> Self {
        let Shape { conv, depth, per_group, quads, .. } = *shape;
        let taps = conv.window.taps();
        let mut packed = Self {
            bytes: AlignedBytes::zeroed(0),
            per_byte: if four_bits { 2 } else { 1 },
            group: per_group * quads * 4,
            block: Shape::block::<D>() * quads * 4,
        };
        packed.bytes = AlignedBytes::zeroed(conv.groups * packed.group / packed.per_byte);
        for (out, row) in values.chunks(depth * taps).enumerate() {
            let (group, within) = (out / per_group, out % per_group);
            let (block, lane) = (within / Shape::block::<D>(), within % Shape::block::<D>());
            let width = shape.width::<D>(block);
            let start = (group * packed.group + block * packed.block) / packed.per_byte;
            let half = width * quads * 2;
            for (index, &value) in row.iter().enumerate() {
                let (channel, tap) = (index / taps, index % taps);
                let input = tap * depth + channel;
                let place = (input / 4 * width + lane) * 4 + input % 4;
                let value = value.cast_unsigned();
                if !four_bits {
                    packed.bytes.as_mut_slice()[start + place] = value;
                } else if place < half {
                    packed.bytes.as_mut_slice()[start + place] |= value & 0x0f;
                } else {
                    packed.bytes.as_mut_slice()[start + place - half] |= value << 4;
                }
            }
        }
        packed
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.allocated()
    }

    /// Whether a block has to be unpacked before it can be multiplied with.
    pub(super) fn is_packed_twice(&self) -> bool {
        self.per_byte == 2
    }

    /// The `len` weights of a block, from `scratch` if they have to be unpacked.
    #[inline(always)]
    pub(super) fn block<'a>(&'a self, group: usize, block: usize, len: usize, scratch: &'a mut [u8]) -> &'a [u8] {
        let start = (group * self.group + block * self.block) / self.per_byte;
        let bytes = &self.bytes.as_slice()[start..start + len / self.per_byte];
        if self.per_byte == 1 {
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
