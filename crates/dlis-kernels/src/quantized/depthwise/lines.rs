//! The three rows of the input that a row of windows of three by three reads, column by column.

use dlis_backend::TensorSpec;
use dlis_model::Conv2d;

use super::super::simd::Dot;
use super::PreparedDepthwise;

/// Rows and columns of a window.
pub(super) const SIDE: usize = 3;

/// Whether a layer's windows are three by three without gaps, at stride 1 or 2, on whole vectors of channels.
pub(super) fn suits<D: Dot>(conv: &Conv2d, from: &TensorSpec) -> bool {
    let window = &conv.window;
    let usual = window.kernel == [SIDE; 2] && window.dilation == [1; 2] && (1..=2).contains(&window.stride[1]);
    usual && from.channels.is_multiple_of(D::LANES)
}

/// What a row of windows reads of a vector of channels.
pub(super) struct Lines<'a> {
    /// Where the next column of each row is that is not padding, and how many elements the one after it is away.
    lines: [(*const u8, usize); SIDE],
    /// A column in the padding.
    padding: &'a [u8],
    /// Columns of the input.
    width: usize,
    /// The next column; beyond `width`, before the first as well, lies the padding.
    column: usize,
}

impl<'a> Lines<'a> {
    /// Of a row of the output, its image and its place within that, and the `lanes` channels from `channel` on.
    #[inline(always)]
    pub(super) fn new<D>(
        prepared: &'a PreparedDepthwise<D>,
        input: &[u8],
        (channel, lanes): (usize, usize),
        [image, y]: [usize; 2],
    ) -> Self {
        let PreparedDepthwise { conv, from, to, padding, .. } = prepared;
        let [above, left, ..] = conv.window.padding;
        let padding = &padding.as_slice()[channel..][..lanes];
        // A row in the padding is the same wherever it is read.
        let mut lines = [(padding.as_ptr(), 0); SIDE];
        for (tap, line) in lines.iter_mut().enumerate() {
            // In the padding the difference wraps to a huge number, which the comparison rules out.
            let from_y = (y * conv.window.stride[0] + tap).wrapping_sub(above);
            if from_y < from.height {
                let first = (image * from.height + from_y) * from.width * to.channels + channel;
                *line = (input[first..].as_ptr(), to.channels);
            }
        }
        Self { lines, padding, width: from.width, column: 0usize.wrapping_sub(left) }
    }

    /// Where the next column is in each row.
    #[inline(always)]
    pub(super) fn next(&mut self) -> [*const u8; SIDE] {
        let mut places = [self.padding.as_ptr(); SIDE];
        if self.column < self.width {
            for (place, (next, step)) in places.iter_mut().zip(&mut self.lines) {
                *place = *next;
                *next = next.wrapping_add(*step);
            }
        }
        self.column = self.column.wrapping_add(1);
        places
    }
}
