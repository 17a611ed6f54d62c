//! Weights in the order in which the kernel streams them.

use std::ops::Range;

use half::f16;

use super::tile::UNIT_BYTES;
use crate::precision::Precision;

/// Bytes that the kernel copies at a time.
const VECTOR: usize = 16;

/// The weights of a launch, one block after another.
#[derive(Debug, Default)]
pub(super) struct Pack {
    pub(super) bytes: Vec<u8>,
}

/// A block of weights, in vectors of 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) start: u32,
    pub(super) count: usize,
}

/// A dense weight, `[out, in, height, width]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dense<'a> {
    pub(super) values: &'a [f32],
    pub(super) out_channels: usize,
    pub(super) channels: usize,
    pub(super) taps: usize,
}

impl Dense<'_> {
    /// Zero beyond the last channel of either side.
    fn at(&self, out: usize, channel: usize, tap: usize) -> f32 {
        if out < self.out_channels && channel < self.channels {
            self.values[(out * self.channels + channel) * self.taps + tap]
        } else {
            0.0
        }
    }
}

/// The nearest number of 10 bits of mantissa, ties away from zero, as the tensor cores' own conversion has it.
fn tf32(value: f32) -> f32 {
    if value.is_finite() { f32::from_bits(value.to_bits().wrapping_add(0x1000) & 0xffff_e000) } else { value }
}

fn push(bytes: &mut Vec<u8>, value: f32, precision: Precision) {
    match precision {
        Precision::F32 => bytes.extend(value.to_ne_bytes()),
        Precision::Tf32 => bytes.extend(tf32(value).to_ne_bytes()),
        Precision::F16 => bytes.extend(f16::from_f32(value).to_ne_bytes()),
    }
}

impl Pack {
    fn block(&mut self, from: usize) -> Block {
        self.bytes.resize(self.bytes.len().next_multiple_of(VECTOR), 0);
        // A launch's weights are bounded by the device's largest buffer, which has far fewer vectors.
        let start = u32::try_from(from / VECTOR).expect("weights are fewer than 2^32 vectors");
        Block { start, count: (self.bytes.len() - from) / VECTOR }
    }

    /// The right operand of a tile: `columns` output channels from `first_out` on, the units of 64 bytes of these
    /// channels, tap after tap. Each unit has 16 bytes for each of four lanes a column: what the lane holds of two
    /// steps of the inner dimension (PTX ISA, "Matrix Fragments for mma.m16n8k16" and "m16n8k8").
    pub(super) fn product(
        &mut self,
        weight: &Dense<'_>,
        first_out: usize,
        columns: usize,
        units: Range<usize>,
        precision: Precision,
    ) -> Block {
        let from = self.bytes.len();
        let unit = UNIT_BYTES / precision.bytes();
        // Elements of a lane that are neighbours in the inner dimension.
        let pair = 4 / precision.bytes();
        self.bytes.reserve(weight.taps * units.len() * columns * UNIT_BYTES);
        for tap in 0..weight.taps {
            for channel in units.clone().map(|index| index * unit) {
                for column in 0..columns {
                    for lane in 0..4 {
                        for quarter in 0..4 {
                            for element in 0..pair {
                                let inner = quarter * unit / 4 + lane * pair + element;
                                push(&mut self.bytes, weight.at(first_out + column, channel + inner, tap), precision);
                            }
                        }
                    }
                }
            }
        }
        self.block(from)
    }

    /// A depthwise weight, channels innermost, and its biases as f32.
    pub(super) fn depthwise(
        &mut self,
        weight: &Dense<'_>,
        bias: Option<&[f32]>,
        channels: Range<usize>,
        precision: Precision,
    ) -> Block {
        let from = self.bytes.len();
        // Not rounded to tf32: these are multiplied as f32.
        let stored = if precision == Precision::Tf32 { Precision::F32 } else { precision };
        for tap in 0..weight.taps {
            for channel in channels.clone() {
                push(&mut self.bytes, weight.at(channel, 0, tap), stored);
            }
        }
        for channel in channels {
            let bias = bias.and_then(|bias| bias.get(channel)).copied().unwrap_or(0.0);
            self.bytes.extend(bias.to_ne_bytes());
        }
        self.block(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_hold_the_fragments_of_the_tensor_cores() {
        // One output channel whose weights are their own index.
        let values: Vec<f32> = (0..32_u8).map(f32::from).collect();
        let dense = Dense { values: &values, out_channels: 1, channels: 32, taps: 1 };
        let mut pack = Pack::default();
        let block = pack.product(&dense, 0, 4, 0..1, Precision::F16);
        assert_eq!((block.start, block.count), (0, 16));
        let held: Vec<f32> = pack.bytes[16..32].chunks(2).map(|b| f16::from_ne_bytes([b[0], b[1]]).to_f32()).collect();
        // Lane 1 of m16n8k16: rows 2, 3 and 10, 11 of both steps.
        assert_eq!(held, [2.0, 3.0, 10.0, 11.0, 18.0, 19.0, 26.0, 27.0]);
        assert!(pack.bytes[64..].iter().all(|&byte| byte == 0), "columns beyond the last are zero");

        let block = pack.product(&dense, 0, 4, 0..2, Precision::F32);
        assert_eq!((block.start, block.count), (16, 32));
        let lane = &pack.bytes[256 + 16..256 + 32];
        let held: Vec<f32> = lane.as_chunks().0.iter().map(|&bytes| f32::from_ne_bytes(bytes)).collect();
        assert_eq!(held, [1.0, 5.0, 9.0, 13.0]);
    }

    #[test]
    fn tf32_rounds_to_nearest() {
        assert_eq!(tf32(1.0 + 1.0 / 2048.0), 1.0 + 1.0 / 1024.0);
        assert_eq!(tf32(1.0 + 1.0 / 4096.0), 1.0);
        assert!(tf32(f32::NAN).is_nan());
        assert_eq!(tf32(f32::INFINITY), f32::INFINITY);
    }
}
