//! What tensors say of an operation before any kernel does: whether their extents and layouts fit together.

use dlis_model::Window;

use crate::op::{OpSpec, Operation};
use crate::tensor::{Layout, TensorSpec};

impl OpSpec {
    /// The layout that all of an operation's tensors [are in](TensorSpec::is_in); `None` if there is none. Where they
    /// are in several, channels are neighbours.
    pub fn common_layout(&self) -> Option<Layout> {
        let all = |layout: &Layout| self.inputs.iter().chain([&self.output]).all(|tensor| tensor.is_in(*layout));
        [Layout::Nhwc, Layout::Nchw, Layout::Nhwc16n].into_iter().find(all)
    }

    /// Whether inputs and output have the extents that the operation gives them, and their layouts take their batch.
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
        let exists =
            |spec: &TensorSpec| spec.layout.takes(spec.batch) && spec.checked_bytes().is_some_and(|bytes| bytes > 0);
        self.inputs.iter().chain([&out]).all(exists)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Epilogue;

    fn sum(inputs: [TensorSpec; 2], output: TensorSpec) -> OpSpec {
        let (operation, epilogue) = (Operation::Add, Epilogue::NONE);
        OpSpec { operation, inputs: inputs.to_vec(), output, epilogue, weight: None }
    }

    #[test]
    fn tensors_share_the_layout_that_all_are_in() {
        let common = |dims, layouts: [Layout; 3]| {
            let [a, b, output] = layouts.map(|layout| TensorSpec::f32(16, dims, layout));
            sum([a, b], output).common_layout()
        };
        let [nchw, nhwc, lanes] = Layout::ALL;
        for layout in Layout::ALL {
            assert_eq!(common([3, 2, 2], [layout; 3]), Some(layout));
        }
        assert_eq!(common([3, 2, 2], [nchw, nhwc, nchw]), None);
        // One pixel, one channel, and both.
        assert_eq!(common([3, 1, 1], [nchw, nhwc, nchw]), Some(nhwc));
        assert_eq!(common([1, 2, 2], [nchw; 3]), Some(nhwc));
        assert_eq!(common([3, 1, 1], [nchw, lanes, nchw]), None);
        assert_eq!(common([1, 2, 2], [lanes, lanes, nhwc]), None);
        assert_eq!(common([3, 1, 1], [lanes; 3]), Some(lanes));
        assert_eq!(common([1, 1, 1], [nchw, lanes, nhwc]), Some(nhwc));
        // A mean is of one pixel, its operand is not.
        let planes = TensorSpec::f32(16, [3, 2, 2], nchw);
        let pixel = TensorSpec::f32(16, [3, 1, 1], nhwc);
        let of = |input, output| sum([input; 2], output).common_layout();
        assert_eq!(of(planes, pixel), Some(nchw));
        assert_eq!(of(planes.with_layout(lanes), pixel), None);
    }

    #[test]
    fn images_as_lanes_come_in_whole_groups() {
        for batch in [1, 2, 15, 16, 24, 32] {
            for layout in Layout::ALL {
                let tensor = TensorSpec::f32(batch, [3, 2, 2], layout);
                let exists = layout != Layout::Nhwc16n || batch % 16 == 0;
                assert_eq!(sum([tensor; 2], tensor).extents_agree(), exists, "{tensor}");
            }
        }
        let empty = TensorSpec::f32(0, [3, 2, 2], Layout::Nhwc16n);
        assert!(!sum([empty; 2], empty).extents_agree());
    }
}
