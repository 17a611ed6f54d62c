//! Weights in blocks of 16 output channels, in the bits of their format.

use dlis_formats::{Format, Ternary, TernaryPacking, TwoFour, Weight};
use half::f16;

/// Channels of a block.
pub(super) const BLOCK: usize = 16;
/// Powers of 3, the weights of the five terms of a byte.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// How the rows and columns of a weight become blocks and terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Groups of output channels that share no block.
    pub(super) groups: usize,
    /// Output channels of a group.
    pub(super) channels: usize,
    /// Input channels of a group.
    pub(super) inputs: usize,
    /// The same as terms count them: a multiple of four in the format of two of four.
    pub(super) depth: usize,
    pub(super) taps: usize,
}

impl Shape {
    pub(super) fn new(format: Format, groups: usize, channels: usize, inputs: usize, taps: usize) -> Self {
        let depth = if format == Format::TwoFour { inputs.next_multiple_of(4) } else { inputs };
        Self { groups, channels, inputs, depth, taps }
    }

    /// Terms of an output, `[tap][channel]`.
    pub(super) fn terms(&self) -> usize {
        self.taps * self.depth
    }

    /// Blocks of a group.
    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    /// Values of one of each channel, as the blocks have them.
    pub(super) fn per_channel(&self, of: impl Fn(usize) -> f32) -> Vec<f32> {
        let mut all = vec![0.0; self.groups * self.blocks() * BLOCK];
        self.rows().for_each(|(row, block, channel)| all[block * BLOCK + channel] = of(row));
        all
    }

    /// Each row with its block and its place in it.
    fn rows(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        (0..self.groups * self.channels).map(|row| {
            let (group, channel) = (row / self.channels, row % self.channels);
            (row, group * self.blocks() + channel / BLOCK, channel % BLOCK)
        })
    }

    /// Each element: its row, column and term, its block and its place in it.
    fn elements(&self) -> impl Iterator<Item = ([usize; 3], usize, usize)> + '_ {
        self.rows().flat_map(move |(row, block, channel)| {
            (0..self.inputs * self.taps).map(move |column| {
                let term = column % self.taps * self.depth + column / self.taps;
                ([row, column, term], block, channel)
            })
        })
    }
}

/// A packed weight.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    pub(super) codes: Vec<u8>,
    pub(super) values: Vec<f32>,
    /// What a step or a code of 1 stands for, in each channel of each block.
    pub(super) positive: Vec<f32>,
    /// What a code of 2 stands for.
    pub(super) negative: Vec<f32>,
}

impl Packed {
    pub(super) fn new(weight: &Weight, shape: Shape) -> Self {
        let ones = || shape.per_channel(|_| 1.0);
        let per_term = shape.groups * shape.blocks() * shape.terms();
        match weight {
            Weight::Int8(int8) => {
                let mut codes = vec![0; per_term * BLOCK];
                for ([row, column, term], block, channel) in shape.elements() {
                    let value = int8.values()[row * int8.columns() + column];
                    codes[(block * shape.terms() + term) * BLOCK + channel] = value.cast_unsigned();
                }
                let positive = shape.per_channel(|row| int8.scales()[row]);
                Self { codes, negative: positive.clone(), positive, ..Self::default() }
            }
            Weight::Int4(int4) => {
                let mut codes = vec![0; per_term * BLOCK / 2];
                for ([row, column, term], block, channel) in shape.elements() {
                    let bits = int4.step(row, column).cast_unsigned() & 15;
                    codes[(block * shape.terms() + term) * 8 + channel % 8] |= bits << (channel / 8 * 4);
                }
                let positive = shape.per_channel(|row| int4.scales()[row]);
                Self { codes, negative: positive.clone(), positive, ..Self::default() }
            }
            Weight::Ternary(ternary) => Self::ternary(ternary, shape),
            Weight::TwoFour(packed) => Self::two_four(packed, shape),
            other => {
                let dense = other.to_f32();
                let mut values = vec![0.0; per_term * BLOCK];
                for (([_, _, term], block, channel), &value) in shape.elements().zip(dense.iter()) {
                    values[(block * shape.terms() + term) * BLOCK + channel] = value;
                }
                Self { values, positive: ones(), negative: ones(), ..Self::default() }
            }
        }
    }

    fn ternary(ternary: &Ternary, shape: Shape) -> Self {
        let blocks = shape.groups * shape.blocks();
        let mut codes = match ternary.packing() {
            TernaryPacking::TwoBit => vec![0; blocks * shape.terms() * BLOCK / 4],
            TernaryPacking::FiveInEight => vec![0; blocks * shape.terms().div_ceil(5) * BLOCK],
        };
        for ([row, column, term], block, channel) in shape.elements() {
            let code = ternary.code(row, column);
            match ternary.packing() {
                TernaryPacking::TwoBit => {
                    codes[(block * shape.terms() + term) * 4 + channel / 4] |= code << (channel % 4 * 2);
                }
                TernaryPacking::FiveInEight => {
                    let five = block * shape.terms().div_ceil(5) + term / 5;
                    codes[five * BLOCK + channel] += code * POWERS[term % 5];
                }
            }
        }
        Self {
            codes,
            positive: shape.per_channel(|row| ternary.positive()[row]),
            negative: shape.per_channel(|row| -ternary.negative()[row]),
            ..Self::default()
        }
    }

    fn two_four(packed: &TwoFour, shape: Shape) -> Self {
        let fours = shape.terms() / 4;
        let blocks = shape.groups * shape.blocks();
        let mut codes = vec![0; blocks * fours * 8];
        let mut values = vec![0.0; blocks * fours * 2 * BLOCK];
        for (row, block, channel) in shape.rows() {
            for four in 0..fours {
                let [first, second] = packed.places(row, four).map(|place| place.to_le_bytes()[0]);
                let at = block * fours + four;
                codes[at * 8 + channel % 8] |= (first | second << 2) << (channel / 8 * 4);
                let pair = &packed.values()[(row * fours + four) * 2..][..2];
                values[at * 2 * BLOCK + channel] = pair[0];
                values[(at * 2 + 1) * BLOCK + channel] = pair[1];
            }
        }
        let ones = shape.per_channel(|_| 1.0);
        Self { codes, values, positive: ones.clone(), negative: ones }
    }

    /// The values as halves.
    pub(super) fn halves(&self) -> Vec<f16> {
        self.values.iter().map(|&value| f16::from_f32(value)).collect()
    }
}
