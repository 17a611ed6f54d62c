//! Weights in the order in which products of blocks of output channels read them.

use std::ops::Range;

/// Input channels, and output channels, that are moved at a time: what is read from and written to again and again is in
/// a cache, whose lines are few for strides of powers of two.
const TOGETHER: usize = 8;

/// Copies the weights of the output channels `outs`, of which `source` has `depth` input channels of `taps` each, to a
/// block of `width` channels: an input channel and a tap come to the place of their row of the block, `row(channel, tap)`.
/// What belongs to channels beyond the last is left as it is.
pub(super) fn pack_block<T: Copy>(
    source: &[T],
    (depth, taps): (usize, usize),
    outs: Range<usize>,
    width: usize,
    to: &mut [T],
    row: impl Fn(usize, usize) -> usize,
) {
    for first in (0..depth).step_by(TOGETHER) {
        let channels = first..depth.min(first + TOGETHER);
        for lane in (0..outs.len()).step_by(TOGETHER) {
            let some = outs.start + lane..outs.end.min(outs.start + lane + TOGETHER);
            let of = |out: usize| &source[out * depth * taps..][..depth * taps];
            if some.len() == TOGETHER {
                // As many of the block's channels as one store writes.
                let from: [&[T]; TOGETHER] = std::array::from_fn(|index| of(some.start + index));
                for channel in channels.clone() {
                    for tap in 0..taps {
                        let to = &mut to[row(channel, tap) * width + lane..][..TOGETHER];
                        to.iter_mut().zip(&from).for_each(|(to, from)| *to = from[channel * taps + tap]);
                    }
                }
            } else {
                for (index, from) in some.map(of).enumerate() {
                    for channel in channels.clone() {
                        for tap in 0..taps {
                            to[row(channel, tap) * width + lane + index] = from[channel * taps + tap];
                        }
                    }
                }
            }
        }
    }
}
