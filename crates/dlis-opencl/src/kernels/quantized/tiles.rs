//! How layers with weights are cut into pieces that are computed together, and their weights packed for it.

use dlis_backend::OpSpec;
use dlis_formats::Format;

use crate::kernels::direct::window;

/// Output channels of a processor's vector.
const LANES: usize = 16;

/// How a layer is cut into the pieces that a work-item computes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    pub(super) groups: usize,
    /// Input and output channels of a group.
    pub(super) depth: usize,
    pub(super) per_group: usize,
    taps: usize,
    /// Output pixels of the batch.
    pub(super) pixels: usize,
    /// Pixels and output channels of a tile.
    pub(super) rows: usize,
    pub(super) block: usize,
}

impl Tiles {
    /// Tiles whose sums fit a processor's vector registers. There are few kinds, as each is compiled by itself.
    pub(super) fn in_registers(op: &OpSpec) -> Option<Self> {
        Self::of(op, |pixels, per_group| match (pixels, per_group) {
            (..4, _) => [1, 2 * LANES],
            (4..8, _) => [4, 2 * LANES],
            (8.., ..=LANES) => [8, LANES],
            (8.., _) => [8, 2 * LANES],
        })
    }

    /// Square tiles that a work-group of a graphics processor computes: as large as leaves enough of them.
    pub(super) fn of_work_groups(op: &OpSpec, compute_units: usize) -> Option<Self> {
        Self::of(op, |pixels, per_group| {
            let count = pixels.div_ceil(64) * per_group.div_ceil(64);
            if count >= 2 * compute_units { [64; 2] } else { [32; 2] }
        })
    }

    /// Tiles of few pixels, whose sums work-items share.
    pub(super) fn of_slices(op: &OpSpec, pixels: usize) -> Option<Self> {
        Self::of(op, |_, _| [pixels, 2 * LANES])
    }

    fn of(op: &OpSpec, tile: impl Fn(usize, usize) -> [usize; 2]) -> Option<Self> {
        let (window, groups) = window(op)?;
        let (depth, per_group) = (op.inputs[0].channels / groups, op.output.channels / groups);
        let pixels = op.output.batch * op.output.pixels();
        let [rows, block] = tile(pixels, per_group);
        Some(Self { groups, depth, per_group, taps: window.taps(), pixels, rows, block })
    }

    /// Blocks of a group.
    pub(super) fn blocks(&self) -> usize {
        self.per_group.div_ceil(self.block)
    }

    /// Places of channels, those that fill blocks up among them.
    pub(super) fn slots(&self) -> usize {
        self.groups * self.blocks() * self.block
    }

    /// The place of a channel.
    pub(super) fn slot(&self, channel: usize) -> usize {
        channel / self.per_group * self.blocks() * self.block + channel % self.per_group
    }

    /// Values, of one channel after the other, at the places of the channels.
    pub(super) fn scatter<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        let mut slots = vec![T::default(); self.slots()];
        values.iter().enumerate().for_each(|(channel, &value)| slots[self.slot(channel)] = value);
        slots
    }

    /// The weights, `[out][in][tap]`, as `[block][tap][four in][channel of the block][one of four]`. Of four bits, eight
    /// inputs go to the lane of a channel, each half of 16 bits taking those that are multiplied in pairs.
    pub(super) fn pack(&self, values: &[i8], format: Format) -> Vec<u8> {
        let four_bits = format == Format::Int4;
        let step = if four_bits { 8 } else { 4 };
        let steps = self.depth.div_ceil(step);
        let mut packed = vec![0_u8; self.slots() * self.taps * steps * 4];
        for (channel, row) in values.chunks(self.depth * self.taps).enumerate() {
            let slot = self.slot(channel);
            let (block, lane) = (slot / self.block, slot % self.block);
            for (index, &value) in row.iter().enumerate() {
                let (input, tap) = (index / self.taps, index % self.taps);
                let word = ((block * self.taps + tap) * steps + input / step) * self.block + lane;
                let value = value.cast_unsigned();
                if four_bits {
                    // Inputs 0, 1, 4 and 5 are the nibbles of the low half, 2, 3, 6 and 7 those of the high one.
                    let within = input % 8;
                    let (half, nibble) = (within / 2 % 2, within / 4 * 2 + within % 2);
                    packed[word * 4 + half * 2 + nibble / 2] |= (value & 15) << (nibble % 2 * 4);
                } else {
                    packed[word * 4 + input % 4] = value;
                }
            }
        }
        packed
    }
}
