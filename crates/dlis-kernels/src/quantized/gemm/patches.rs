//! Gathering what the windows of some output pixels see.

use super::Shape;

impl Shape {
    /// Writes the inputs of the window of each output pixel from `first` on (counted over the whole batch) to one
    /// row of `patches`, taps then channels; in the padding they are `zero_point`. What is left of a row is
    /// multiplied with zeros.
    #[inline(always)]
    pub(super) fn gather(&self, input: &[u8], group: usize, first: usize, zero_point: u8, patches: &mut [u8]) {
        let Self { conv, input: from, output, depth, .. } = *self;
        let [_, kernel_width] = conv.window.kernel;
        let channels = from.channels;
        // Neighbouring taps are neighbours in memory, too.
        let contiguous = conv.window.dilation[1] == 1 && conv.groups == 1;
        let taps_row = kernel_width * depth;
        for (pixel, patch) in (first..).zip(patches.chunks_exact_mut(4 * self.quads)) {
            let (image, within) = (pixel / output.pixels(), pixel % output.pixels());
            let (y, x) = (within / output.width, within % output.width);
            // Before the first where the padding is, which as an unsigned number is beyond the last.
            let along = |position: usize, axis: usize| {
                (position * conv.window.stride[axis]).wrapping_sub(conv.window.padding[axis])
            };
            let (top, left) = (along(y, 0), along(x, 1));
            for (tap_y, to) in patch.chunks_exact_mut(taps_row).enumerate() {
                let y = top.wrapping_add(tap_y * conv.window.dilation[0]);
                if y >= from.height {
                    to.fill(zero_point);
                    continue;
                }
                let row = (image * from.height + y) * from.width;
                if contiguous && left < from.width && left + kernel_width <= from.width {
                    copy(&input[(row + left) * channels..][..taps_row], to);
                    continue;
                }
                for (tap_x, to) in to.chunks_exact_mut(depth).enumerate() {
                    let x = left.wrapping_add(tap_x * conv.window.dilation[1]);
                    if x < from.width {
                        copy(&input[(row + x) * channels + group * depth..][..depth], to);
                    } else {
                        to.fill(zero_point);
                    }
                }
            }
        }
    }
}

/// Copies a few bytes without the call that `copy_from_slice` is.
#[inline(always)]
fn copy(from: &[u8], to: &mut [u8]) {
    if to.len() > 16 {
        to.copy_from_slice(from);
        return;
    }
    let (from, from_rest) = from.as_chunks::<4>();
    let (to, to_rest) = to.as_chunks_mut::<4>();
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = *from);
}
