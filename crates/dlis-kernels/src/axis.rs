//! One axis of a window that slides over an input: which taps read the input, and where.

use std::ops::Range;

use dlis_backend::TensorSpec;
use dlis_model::Window;

/// A window along height or width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// Extent of the input.
    pub(crate) input: usize,
    /// Extent of the output.
    pub(crate) output: usize,
    /// Taps.
    pub(crate) kernel: usize,
    /// Inputs from one output to the next.
    pub(crate) stride: usize,
    /// Inputs from one tap to the next.
    pub(crate) dilation: usize,
    /// Padding before the input.
    pub(crate) before: usize,
}

impl Axis {
    /// Both axes of a window, height first.
    pub(crate) fn both(window: &Window, input: &TensorSpec, output: &TensorSpec) -> [Self; 2] {
        let axis = |i: usize, input, output| Self {
            input,
            output,
            kernel: window.kernel[i],
            stride: window.stride[i],
            dilation: window.dilation[i],
            before: window.padding[i],
        };
        [axis(0, input.height, output.height), axis(1, input.width, output.width)]
    }

    /// The outputs at which `tap` reads the input rather than padding.
    pub(crate) fn outputs(&self, tap: usize) -> Range<usize> {
        self.positions(tap * self.dilation, self.output)
    }

    /// The positions `p` of `0..count` at which `p * stride + shift`, counted from the start of the
    /// padding, lies within the input.
    pub(crate) fn positions(&self, shift: usize, count: usize) -> Range<usize> {
        let start = self.before.saturating_sub(shift).div_ceil(self.stride).min(count);
        let end = (self.before + self.input).saturating_sub(shift).div_ceil(self.stride).min(count);
        start..end.max(start)
    }

    /// The taps of an output that read the input rather than padding.
    pub(crate) fn taps(&self, output: usize) -> Range<usize> {
        let shift = output * self.stride;
        let start = self.before.saturating_sub(shift).div_ceil(self.dilation).min(self.kernel);
        let end = (self.before + self.input).saturating_sub(shift).div_ceil(self.dilation).min(self.kernel);
        start..end.max(start)
    }

    /// The outputs all of whose taps read the input rather than padding.
    pub(crate) fn inside(&self) -> Range<usize> {
        let full = |output: &usize| self.taps(*output) == (0..self.kernel);
        let first = (0..self.output).find(full).unwrap_or(self.output);
        first..first + (first..self.output).take_while(full).count()
    }

    /// The input that `tap` of `output` reads, which is not padding.
    pub(crate) fn source(&self, output: usize, tap: usize) -> usize {
        output * self.stride + tap * self.dilation - self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ranges hold exactly the pairs whose input is in bounds.
    #[test]
    fn ranges_are_those_of_a_scan() {
        for input in 1..7usize {
            for kernel in 1..4 {
                for stride in 1..4 {
                    for dilation in 1..4 {
                        for (before, after) in [(0, 0), (1, 1), (2, 0), (0, 3), (5, 5)] {
                            let Some(span) = (input + before + after).checked_sub(dilation * (kernel - 1) + 1) else {
                                continue;
                            };
                            let axis = Axis { input, output: span / stride + 1, kernel, stride, dilation, before };
                            for output in 0..axis.output {
                                for tap in 0..kernel {
                                    let at = output * stride + tap * dilation;
                                    let inside = at >= before && at - before < input;
                                    assert_eq!(axis.outputs(tap).contains(&output), inside, "{axis:?} {output} {tap}");
                                    assert_eq!(axis.taps(output).contains(&tap), inside, "{axis:?} {output} {tap}");
                                    if inside {
                                        assert_eq!(axis.source(output, tap), at - before);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
