//! What tensors say of an operation before any kernel does: whether their extents and layouts fit together.

use dlis_model::Window;

use crate::op::{OpSpec, Operation};
use crate::tensor::{Layout, TensorSpec};

impl OpSpec {
    /// The layout of an operation's tensors, but for those that are the same in every layout; `None` if they
    /// differ. Where all are the same in every layout, channels are neighbours.
    pub fn common_layout(&self) -> Option<Layout> {
        let mut layouts = self.inputs.iter().chain([&self.output]).filter(|t| !t.is_layout_free()).map(|t| t.layout);
        let first = layouts.next().unwrap_or(Layout::Nhwc);
        layouts.all(|layout| layout == first).then_some(first)
    }

    /// Whether inputs and output have the extents that the operation gives them.
    pub fn extents_agree(&self) -> bool {
        let dims = |spec: &TensorSpec| [spec.batch, spec.channels, spec.height, spec.width];
        let out = self.output;
        let output = dims(&out);
        let Some(&first) = self.inputs.first() else { return false };
        let [batch, channels, height, width] = dims(&first);
        let windowed = |window: Window, channels| {
            window.output([height, width]).is_some_and(|[height, width]| output == [batch, channels, height, width])
        };
        let one = self.inputs.len() == 1;
        let filled = self.inputs.iter().chain([&out]).all(|spec| spec.checked_bytes().is_some_and(|bytes| bytes > 0));
        filled
            && match self.operation {
                Operation::Conv2d(conv) => {
                    let divides = |channels: usize| conv.groups > 0 && channels.is_multiple_of(conv.groups);
                    one && channels == conv.in_channels
                        && divides(conv.in_channels)
                        && divides(conv.out_channels)
                        && windowed(conv.window, conv.out_channels)
                }
                Operation::Linear(linear) => {
                    one && dims(&first) == [batch, linear.in_features, 1, 1]
                        && output == [batch, linear.out_features, 1, 1]
                }
                Operation::MaxPool(pool) | Operation::AvgPool(pool) => one && windowed(pool.window, channels),
                Operation::GlobalAvgPool => one && output == [batch, channels, 1, 1],
                Operation::Affine
                | Operation::Activation(_)
                | Operation::Softmax
                | Operation::Reorder
                | Operation::Quantize
                | Operation::Dequantize => one && output == dims(&first),
                Operation::Add => self.inputs.len() == 2 && self.inputs.iter().all(|input| dims(input) == output),
                Operation::Concat => {
                    self.inputs.iter().map(|input| input.channels).sum::<usize>() == out.channels
                        && self.inputs.iter().all(|input| dims(input) == [batch, input.channels, height, width])
                        && [out.batch, out.height, out.width] == [batch, height, width]
                }
                Operation::Scale => {
                    self.inputs.len() == 2 && output == dims(&first) && dims(&self.inputs[1]) == [batch, channels, 1, 1]
                }
            }
    }
}
