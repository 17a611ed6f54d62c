//! Weights in the bits they are stored in, in the order in which a product of blocks reads them.

use std::ops::Range;

use dlis_formats::{TernaryPacking, TwoFour, Weight};

use crate::half::widen;
use crate::simd::Simd;

/// A weight matrix, rows output channels, in one of the formats that are decoded block by block.
///
/// A block is a few neighbouring output channels. Within one, terms (the elements of a row, in an order of the
/// kernel's choosing) are outside and the block's channels inside, a byte holding several *terms* of one channel
/// where they are narrower than a byte: so decoding is the same few operations for all channels of a vector.
#[derive(Debug)]
pub(in crate::conv2d) struct Packed {
    rows: usize,
    terms: usize,
    /// Channels of a block, which may not reach from one group of channels into the next.
    block: usize,
    group: usize,
    codes: Codes,
}

#[derive(Debug)]
enum Codes {
    /// The bits of f16.
    F16(Vec<u16>),
    /// Steps of a scale for each row.
    Int8 { steps: Vec<i8>, scales: Vec<f32> },
    /// Two steps a byte, low bits first.
    Int4 { steps: Vec<u8>, scales: Vec<f32> },
    /// Codes 0, 1 and 2 of so many to a byte, and what they stand for in each row.
    Ternary { codes: Vec<u8>, packing: TernaryPacking, positive: Vec<f32>, negative: Vec<f32> },
    /// Groups of four terms of one tap: two places, the first in the low two bits of four, and two values, one
    /// block's first values before its second ones.
    TwoFour { places: Vec<u8>, values: Vec<f32>, depth: usize },
}

impl Packed {
    /// A weight whose terms are ordered `[tap][input channel]`; `block` channels to a block, of which none
    /// reaches across a multiple of `group` channels. `None` if its format is none of these.
    pub(in crate::conv2d) fn new(weight: &Weight, block: usize, group: usize) -> Option<Self> {
        let dims = weight.dims();
        let (rows, depth) = (dims[0], dims[1]);
        let taps: usize = dims[2..].iter().product();
        let terms = taps * depth;
        let column = |term: usize| term % depth * taps + term / depth;
        let empty = Codes::F16(Vec::new());
        let mut packed = Self { rows, terms, block, group, codes: empty };
        packed.codes = match weight {
            Weight::F16(array) => {
                // Row-major whatever the strides of the array.
                let bits: Vec<u16> = array.iter().map(|half| half.to_bits()).collect();
                Codes::F16(packed.fill(1, |row, term, _| bits[row * terms + column(term)]))
            }
            Weight::Int8(int8) => {
                let steps = packed.fill(1, |row, term, _| int8.values()[row * terms + column(term)]);
                Codes::Int8 { steps, scales: int8.scales().to_vec() }
            }
            Weight::Int4(int4) => {
                let nibble = |row, term: usize| match term < terms {
                    true => int4.step(row, column(term)).cast_unsigned() & 0x0f,
                    false => 0,
                };
                let steps = packed.fill(2, |row, term, _| nibble(row, term) | nibble(row, term + 1) << 4);
                Codes::Int4 { steps, scales: int4.scales().to_vec() }
            }
            Weight::Ternary(ternary) => {
                let packing = ternary.packing();
                let base: u8 = if packing == TernaryPacking::TwoBit { 4 } else { 3 };
                let codes = packed.fill(packing.per_byte(), |row, term, count| {
                    (term..term + count).rev().fold(0, |byte, term| byte * base + ternary.code(row, column(term)))
                });
                let (positive, negative) = (ternary.positive().to_vec(), ternary.negative().to_vec());
                Codes::Ternary { codes, packing, positive, negative }
            }
            Weight::TwoFour(two_four) => packed.two_four(two_four, depth),
            _ => return None,
        };
        Some(packed)
    }

    /// The blocks: each its channels.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let (block, group, rows) = (self.block, self.group, self.rows);
        (0..rows).step_by(group).flat_map(move |first| {
            let end = (first + group).min(rows);
            (first..end).step_by(block).map(move |first| first..(first + block).min(end))
        })
    }

    /// One number for every channel and `together` terms: `of(row, first term, terms)`.
    fn fill<T>(&self, together: usize, of: impl Fn(usize, usize, usize) -> T) -> Vec<T> {
        let mut all = Vec::with_capacity(self.rows * self.terms.div_ceil(together));
        for rows in self.blocks() {
            for term in (0..self.terms).step_by(together) {
                all.extend(rows.clone().map(|row| of(row, term, together.min(self.terms - term))));
            }
        }
        all
    }

    fn two_four(&self, weight: &TwoFour, depth: usize) -> Codes {
        let (mut places, mut values) = (Vec::new(), Vec::new());
        places.reserve_exact(self.rows * weight.row_groups());
        values.reserve_exact(self.rows * weight.row_groups() * 2);
        for rows in self.blocks() {
            for group in 0..weight.row_groups() {
                for row in rows.clone() {
                    let [first, second] = weight.places(row, group);
                    places.push(u8::try_from(first | second << 2).unwrap_or(0));
                }
                for which in 0..2 {
                    let at = |row: usize| (row * weight.row_groups() + group) * 2 + which;
                    values.extend(rows.clone().map(|row| weight.values()[at(row)]));
                }
            }
        }
        Codes::TwoFour { places, values, depth }
    }

    /// Bytes in all.
    pub(in crate::conv2d) fn bytes(&self) -> usize {
        match &self.codes {
            Codes::F16(halves) => size_of_val(&halves[..]),
            Codes::Int8 { steps, scales } => size_of_val(&steps[..]) + size_of_val(&scales[..]),
            Codes::Int4 { steps, scales } => size_of_val(&steps[..]) + size_of_val(&scales[..]),
            Codes::Ternary { codes, positive, negative, .. } => {
                size_of_val(&codes[..]) + size_of_val(&positive[..]) + size_of_val(&negative[..])
            }
            Codes::TwoFour { places, values, .. } => size_of_val(&places[..]) + size_of_val(&values[..]),
        }
    }

    /// Writes the terms `terms` of the channels `rows`, which are a block, to `to`: term after term, `stride`
    /// elements apart.
    #[inline(always)]
    pub(in crate::conv2d) fn decode<S: Simd>(
        &self,
        simd: S,
        rows: Range<usize>,
        terms: Range<usize>,
        stride: usize,
        to: &mut [f32],
    ) {
        if let Codes::TwoFour { places, values, depth } = &self.codes {
            return self.decode_two_four((places, values, *depth), rows, terms, stride, to);
        }
        let to = to.chunks_mut(stride);
        match &self.codes {
            Codes::TwoFour { .. } => {}
            Codes::F16(halves) => {
                for (term, to) in terms.zip(to) {
                    let from = self.line(halves, &rows, term, 1);
                    let whole = from.len() / S::LANES * S::LANES;
                    let to = &mut to[..from.len()];
                    for at in (0..whole).step_by(S::LANES) {
                        // SAFETY: both have at least `whole` elements.
                        unsafe { simd.store(to.as_mut_ptr().add(at), simd.load_half(from.as_ptr().add(at))) };
                    }
                    to[whole..].iter_mut().zip(&from[whole..]).for_each(|(to, &half)| *to = widen(half));
                }
            }
            Codes::Int8 { steps, scales } => {
                let scales = &scales[rows.clone()];
                for (term, to) in terms.zip(to) {
                    let from = self.line(steps, &rows, term, 1);
                    to.iter_mut().zip(from).zip(scales).for_each(|((to, &step), scale)| *to = f32::from(step) * scale);
                }
            }
            Codes::Int4 { steps, scales } => {
                let scales = &scales[rows.clone()];
                for (term, to) in terms.zip(to) {
                    let from = self.line(steps, &rows, term, 2);
                    let to = to.iter_mut().zip(from).zip(scales);
                    // The upper half is where an arithmetic shift extends its sign.
                    if term % 2 == 0 {
                        to.for_each(|((to, &byte), scale)| *to = f32::from((byte << 4).cast_signed() >> 4) * scale);
                    } else {
                        to.for_each(|((to, &byte), scale)| *to = f32::from(byte.cast_signed() >> 4) * scale);
                    }
                }
            }
            Codes::Ternary { codes, packing, positive, negative } => {
                let magnitudes = (&positive[rows.clone()], &negative[rows.clone()]);
                let together = packing.per_byte();
                for (term, to) in terms.zip(to) {
                    let from = self.line(codes, &rows, term, together);
                    // Constants, so that shifts and divisions are multiplications and masks.
                    match (packing, term % together) {
                        (TernaryPacking::TwoBit, 0) => signs(to, from, magnitudes, |byte| byte & 3),
                        (TernaryPacking::TwoBit, 1) => signs(to, from, magnitudes, |byte| byte >> 2 & 3),
                        (TernaryPacking::TwoBit, 2) => signs(to, from, magnitudes, |byte| byte >> 4 & 3),
                        (TernaryPacking::TwoBit, _) => signs(to, from, magnitudes, |byte| byte >> 6),
                        (TernaryPacking::FiveInEight, 0) => signs(to, from, magnitudes, |byte| byte % 3),
                        (TernaryPacking::FiveInEight, 1) => signs(to, from, magnitudes, |byte| byte / 3 % 3),
                        (TernaryPacking::FiveInEight, 2) => signs(to, from, magnitudes, |byte| byte / 9 % 3),
                        (TernaryPacking::FiveInEight, 3) => signs(to, from, magnitudes, |byte| byte / 27 % 3),
                        (TernaryPacking::FiveInEight, _) => signs(to, from, magnitudes, |byte| byte / 81),
                    }
                }
            }
        }
    }

    /// As [`decode`](Self::decode): the terms of a group together, as far as they are asked for.
    #[inline(always)]
    fn decode_two_four(
        &self,
        (places, values, depth): (&[u8], &[f32], usize),
        rows: Range<usize>,
        terms: Range<usize>,
        stride: usize,
        to: &mut [f32],
    ) {
        let channel_groups = depth.div_ceil(4);
        let row_groups = self.terms / depth * channel_groups;
        let mut to = to.chunks_mut(stride);
        let mut term = terms.start;
        while term < terms.end {
            let (tap, channel) = (term / depth, term % depth);
            let at = rows.start * row_groups + (tap * channel_groups + channel / 4) * rows.len();
            let places = &places[at..][..rows.len()];
            let (first, second) = values[2 * at..][..2 * rows.len()].split_at(rows.len());
            let end = (4 - channel % 4).min(depth - channel).min(terms.end - term);
            for place in (0..4u8).skip(channel % 4).take(end) {
                let Some(to) = to.next() else { return };
                for (((to, &both), &first), &second) in to.iter_mut().zip(places).zip(first).zip(second) {
                    let second = if both >> 2 == place { second } else { 0.0 };
                    *to = if both & 3 == place { first } else { second };
                }
            }
            term += end;
        }
    }

    /// The numbers that hold a term of a block's channels, of which each holds `together`.
    #[inline(always)]
    fn line<'a, T>(&self, all: &'a [T], rows: &Range<usize>, term: usize, together: usize) -> &'a [T] {
        &all[rows.start * self.terms.div_ceil(together) + term / together * rows.len()..][..rows.len()]
    }
}

/// What ternary codes stand for.
#[inline(always)]
fn signs(to: &mut [f32], from: &[u8], (positive, negative): (&[f32], &[f32]), code: impl Fn(u8) -> u8) {
    for (((to, &byte), &positive), &negative) in to.iter_mut().zip(from).zip(positive).zip(negative) {
        let code = code(byte);
        let other = if code == 2 { -negative } else { 0.0 };
        *to = if code == 1 { positive } else { other };
    }
}

#[cfg(test)]
mod tests {
    use dlis_formats::{Format, Int4, Int8};
    use ndarray::ArrayD;

    use super::*;

    /// Every format decodes to what it says of itself, in every block and from every term on.
    #[test]
    fn what_is_decoded_is_the_weight() {
        for dims in [vec![7, 5, 3, 1], vec![32, 8, 1, 1], vec![12, 21], vec![6, 3, 2, 2]] {
            let (rows, depth) = (dims[0], dims[1]);
            let taps: usize = dims[2..].iter().product();
            let value = |at: usize| [0.5, -0.25, 0.0, 0.5, 0.0, -0.25, 0.5][at * at % 7 % 7];
            let dense = ArrayD::from_shape_fn(dims.clone(), |at| {
                let column = (1..dims.len()).fold(0, |sum, axis| sum * 11 + at[axis]);
                value(at[0] * 5 + column)
            });
            let halved = ArrayD::from_shape_fn(dims.clone(), |at| if at[1] % 4 < 2 { dense[&at] } else { 0.0 });
            let weights = [
                Weight::F32(dense.clone()).convert(Format::DenseF16).unwrap(),
                Weight::F32(dense.clone()).convert(Format::Ternary2Bit).unwrap(),
                Weight::F32(dense.clone()).convert(Format::Ternary5In8).unwrap(),
                Weight::F32(halved).convert(Format::TwoFour).unwrap(),
                Weight::Int8(Int8::quantize(&dense, vec![0.125; rows]).unwrap()),
                Weight::Int4(Int4::quantize(&dense, vec![0.125; rows]).unwrap()),
            ];
            for weight in weights {
                let expected = weight.to_f32();
                let expected: Vec<f32> = expected.iter().copied().collect();
                for (block, group) in [(4, rows), (32, rows), (4, rows.div_ceil(2))] {
                    let packed = Packed::new(&weight, block, group).unwrap();
                    for rows in packed.blocks() {
                        for first in [0, 1, 7, 13].into_iter().filter(|&first| first < taps * depth) {
                            let terms = first..taps * depth;
                            let mut found = vec![f32::NAN; terms.len() * 33];
                            packed.decode(crate::simd::Portable, rows.clone(), terms.clone(), 33, &mut found);
                            for (place, term) in terms.enumerate() {
                                for (lane, row) in rows.clone().enumerate() {
                                    let column = term % depth * taps + term / depth;
                                    let expected = expected[row * taps * depth + column];
                                    assert_eq!(found[place * 33 + lane], expected, "{} {row} {term}", weight.format());
                                }
                                assert!(found[place * 33 + rows.len()].is_nan(), "beyond the block");
                            }
                        }
                    }
                }
            }
        }
    }
}
