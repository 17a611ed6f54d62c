//! How the input lies in scratch so that a weight meets its inputs a fixed distance from the outputs.

use dlis_backend::{Layout, OpSpec};
use dlis_model::Window;

/// Least width of a map whose rows fill vectors; the images of narrower ones lie side by side.
const WIDE: usize = 16;
/// Elements behind the last plane that vectors may reach over.
const SLACK: usize = 128;

/// A copy of the input with its padding, `[images][channel][row phase][column phase][row][column][inner image]`.
///
/// With stride 1 the outputs of a channel lie as its padded input does, at the same pitch: output `lane` sees tap
/// `(r, s)` at `lane` and a distance that is the same for all. Larger strides sort rows and columns into phases,
/// those that a tap reads being neighbours again. Lanes that are padding between rows are computed with the others
/// and not stored.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    window: Window,
    channels: usize,
    /// Images that lie side by side.
    pub(super) inner: usize,
    /// How many times so many there are.
    pub(super) outer: usize,
    /// Of rows and of columns.
    pub(super) phases: [usize; 2],
    /// Rows and columns of a phase's plane.
    pub(super) plane: [usize; 2],
    /// From the first to behind the last output of a channel.
    pub(super) lanes: usize,
    /// Whether the input lies so already.
    is_input: bool,
}

impl Planes {
    /// `None` if the copy would be too large.
    pub(super) fn new(op: &OpSpec, window: Window) -> Option<Self> {
        let (x, y) = (op.inputs[0], op.output);
        let inner = if y.width < WIDE { y.batch } else { 1 };
        let reach = [0, 1].map(|axis| (window.kernel[axis] - 1) * window.dilation[axis]);
        let phases = [0, 1].map(|axis: usize| window.stride[axis].min(reach[axis] + 1));
        let plane = [y.height + reach[0] / window.stride[0], y.width + reach[1] / window.stride[1]];
        let lanes = ((y.height - 1).checked_mul(plane[1])? + y.width).checked_mul(inner)?;
        let is_input = window.stride == [1, 1] && window.padding == [0; 4] && inner == 1 && x.is_in(Layout::Nchw);
        let planes =
            Self { window, channels: x.channels, inner, outer: y.batch / inner, phases, plane, lanes, is_input };
        let extents = [phases[0], phases[1], plane[0], plane[1], inner, x.channels, planes.outer];
        let all = extents.into_iter().try_fold(1, usize::checked_mul)?.checked_add(SLACK)?;
        i32::try_from(all).is_ok().then_some(planes)
    }

    /// Elements of one channel.
    pub(super) fn channel_len(&self) -> usize {
        self.phases.iter().chain(&self.plane).product::<usize>() * self.inner
    }

    /// Elements of the images that lie side by side.
    pub(super) fn image_len(&self) -> usize {
        self.channels * self.channel_len()
    }

    /// Elements of the copy.
    pub(super) fn len(&self) -> usize {
        self.outer * self.image_len() + SLACK
    }

    /// Whether vectors of so many lanes can read the input where it is: they must not reach over its end.
    pub(super) fn is_input(&self, vector: usize) -> bool {
        self.is_input && self.lanes.is_multiple_of(vector)
    }

    /// The distance of an input channel's tap, counted in row-major order, from the output that it belongs to.
    pub(super) fn place(&self, channel: usize, tap: usize) -> usize {
        let Window { kernel: [_, width], stride, dilation, .. } = self.window;
        let [row, column] = [tap / width * dilation[0], tap % width * dilation[1]];
        let phase = row % stride[0] * self.phases[1] + column % stride[1];
        let plane = phase * self.plane[0] + row / stride[0];
        let at = plane * self.plane[1] + column / stride[1];
        channel * self.channel_len() + at * self.inner
    }
}
