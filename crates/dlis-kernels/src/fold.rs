//! Operations that treat all channels of an image alike, or all images, as ones on tensors of two orders: images as
//! lanes are channels like any others to them.

use dlis_backend::{Layout, OpSpec};

/// What lies side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The pixels of a channel, as in NCHW.
    Planes,
    /// The channels of a pixel, as in NHWC.
    Pixels,
}

impl Order {
    /// Elements of so many channels that lie side by side and belong to one place of a window.
    pub(crate) const fn inner(self, channels: usize) -> usize {
        match self {
            Self::Planes => 1,
            Self::Pixels => channels,
        }
    }
}

/// The operation on the same bytes with all tensors [folded](dlis_backend::TensorSpec::folded), and their order;
/// `None` if they are not of one layout or do not fit together.
pub(crate) fn folded(op: &OpSpec) -> Option<(Order, OpSpec)> {
    let layout = op.common_layout().filter(|_| op.extents_agree())?;
    let order = match layout {
        Layout::Nchw => Order::Planes,
        Layout::Nhwc | Layout::Nhwc16n => Order::Pixels,
    };
    let mut op = op.in_layout(layout);
    op.inputs.iter_mut().chain([&mut op.output]).for_each(|tensor| *tensor = tensor.folded());
    Some((order, op))
}
