//! Where every tensor lies in the arena.

use std::ops::RangeInclusive;

use dlis_backend::AlignedBytes;

/// A piece of memory that is needed from the step that writes it to the last that reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    /// Bytes.
    pub(crate) bytes: usize,
    /// Steps, first and last among them.
    pub(crate) life: RangeInclusive<usize>,
}

/// Offsets of the buffers, and the bytes of the arena that holds them: two buffers that live at the same
/// time do not overlap.
///
/// Largest first, each at the lowest offset that is free throughout its life ("greedy by size" of
/// Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference").
pub(crate) fn assign(buffers: &[Buffer]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(buffers[index].bytes), *buffers[index].life.start()));
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(buffers.len());
    let mut arena = 0;
    for index in order {
        let buffer = &buffers[index];
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&other| {
                let life = &buffers[other].life;
                life.start() <= buffer.life.end() && buffer.life.start() <= life.end()
            })
            .map(|&other| (offsets[other], offsets[other] + AlignedBytes::round_up(buffers[other].bytes)))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + buffer.bytes <= start {
                break;
            }
            offset = offset.max(end);
        }
        offsets[index] = offset;
        arena = arena.max(offset + AlignedBytes::round_up(buffer.bytes));
        placed.push(index);
    }
    (offsets, arena)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_needs_its_two_largest_neighbours() {
        let buffer = |bytes, life| Buffer { bytes, life };
        let buffers = [buffer(64, 0..=1), buffer(256, 1..=2), buffer(128, 2..=3), buffer(64, 3..=4)];
        let (_, arena) = assign(&buffers);
        assert_eq!(arena, 256 + 128);
    }

    proptest! {
        #[test]
        fn buffers_alive_together_do_not_overlap(
            buffers in proptest::collection::vec((1usize..5000, 0usize..20, 0usize..10), 0..40),
        ) {
            let buffers: Vec<Buffer> =
                buffers.into_iter().map(|(bytes, from, len)| Buffer { bytes, life: from..=from + len }).collect();
            let (offsets, arena) = assign(&buffers);
            for (i, a) in buffers.iter().enumerate() {
                prop_assert!(offsets[i] % AlignedBytes::ALIGNMENT == 0);
                prop_assert!(offsets[i] + a.bytes <= arena);
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let together = a.life.start() <= b.life.end() && b.life.start() <= a.life.end();
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    prop_assert!(!together || apart, "{i} and {j} overlap");
                }
            }
        }
    }
}
