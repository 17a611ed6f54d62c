//! Steps as layers: what the kernel does in one go, with the places of its tensors, and the phases they run in.

use std::ops::Range;

use dlis_backend::{OpSpec, OpWeights, Operation, TensorSpec};
use dlis_model::{Activation, Window};

use super::tile::Shape;
use super::{MAX_SCATTERED, job};
use crate::device::Buffer;
use crate::error::OpenClError;
use crate::kernel::{FusedStep, Operand};
use crate::kernels::{direct, geometry};
use crate::precision::Precision;

/// Memories that a launch can name: the scratch memory, an operation's tensors.
pub(super) const MEMORIES: usize = 5;

/// A tensor somewhere in one of the memories.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) memory: u8,
    /// In bytes.
    pub(super) start: usize,
    pub(super) spec: TensorSpec,
}

impl Place {
    /// Steps, in bytes, from one image, channel, row and column to the next.
    pub(super) fn strides(&self, precision: Precision) -> [usize; 4] {
        geometry::steps(&self.spec).map(|stride| stride * precision.bytes())
    }

    fn range(&self, precision: Precision) -> Range<usize> {
        self.start..self.start + self.spec.elements() * precision.bytes()
    }

    fn meets(&self, other: &Self, precision: Precision) -> bool {
        let (a, b) = (self.range(precision), other.range(precision));
        self.memory == other.memory && a.start < b.end && b.start < a.end
    }
}

/// What makes the left operand of a product out of a layer's source.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before<'a> {
    /// A depthwise convolution.
    Depthwise { window: Window, weights: OpWeights<'a>, activation: Option<Activation> },
    /// The mean over all pixels.
    Mean { activation: Option<Activation> },
}

/// What a layer computes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work<'a> {
    /// A convolution or linear layer, with what comes before it and the maxima of non-overlapping windows after it.
    Product { window: Window, weights: OpWeights<'a>, before: Option<Before<'a>>, pool: [usize; 2] },
    /// Any other window, a single element being one as well.
    Window { mode: i32, window: Window, weights: OpWeights<'a> },
}

/// One or several steps.
#[derive(Clone, Debug)]
pub(super) struct Layer<'a> {
    pub(super) source: Place,
    pub(super) residual: Option<Place>,
    pub(super) output: Place,
    pub(super) activation: Option<Activation>,
    pub(super) work: Work<'a>,
    /// The steps, the last of which writes the output.
    pub(super) steps: Range<usize>,
}

/// The windows of operations that are not products.
fn plain_window(op: &OpSpec) -> Option<(i32, Window)> {
    let whole = [op.inputs[0].height, op.inputs[0].width];
    match op.operation {
        Operation::Conv2d(conv) if is_depthwise(op) => Some((job::WINDOW_DEPTHWISE, conv.window)),
        Operation::MaxPool(pool) => Some((job::WINDOW_MAX, pool.window)),
        Operation::AvgPool(pool) if pool.include_padding => Some((job::WINDOW_MEAN, pool.window)),
        Operation::AvgPool(pool) => Some((job::WINDOW_MEAN_VALID, pool.window)),
        Operation::GlobalAvgPool => Some((job::WINDOW_MEAN_VALID, Window { kernel: whole, ..Window::square(1) })),
        Operation::Add | Operation::Activation(_) | Operation::Reorder => Some((job::WINDOW_MAX, Window::square(1))),
        _ => None,
    }
}

/// Whether every channel is convolved alone, with one filter.
pub(super) fn is_depthwise(op: &OpSpec) -> bool {
    matches!(op.operation, Operation::Conv2d(conv)
        if conv.groups > 1 && conv.groups == conv.in_channels && conv.groups == conv.out_channels)
}

/// Whether an operation is a product of matrices.
pub(super) fn is_product(op: &OpSpec) -> bool {
    direct::window(op).is_some_and(|(_, groups)| groups == 1)
}

/// The memories of a launch, and the places of the steps' tensors in them.
#[derive(Debug)]
pub(super) struct Network<'a> {
    pub(super) layers: Vec<Layer<'a>>,
    /// The first is the scratch memory, where there is one.
    pub(super) memories: Vec<Buffer>,
}

/// Where the next tensor of the scratch memory goes: tensors that are used only within a launch get places of their
/// own, so that none waits for another's memory to be free.
pub(super) fn scratch_after(start: usize, spec: &TensorSpec, precision: Precision) -> usize {
    (start + spec.elements() * precision.bytes()).next_multiple_of(256)
}

fn place(memories: &mut Vec<Buffer>, operand: &Operand, spec: TensorSpec, precision: Precision) -> Place {
    let index = memories.iter().position(|memory| memory.is(&operand.buffer)).unwrap_or_else(|| {
        memories.push(operand.buffer.clone());
        memories.len() - 1
    });
    let memory = u8::try_from(index).expect("a step has few tensors");
    Place { memory, start: operand.offset * precision.bytes(), spec }
}

impl<'a> Network<'a> {
    /// One layer for each step or more, with what is read by nobody else kept in scratch memory.
    pub(super) fn new(
        steps: &[FusedStep<'a>],
        scratch: &Buffer,
        precision: Precision,
        shape: Shape,
    ) -> Result<Self, OpenClError> {
        let mut memories = vec![scratch.clone()];
        let outside: Vec<Place> =
            steps.iter().map(|step| place(&mut memories, &step.operands.output, step.op.output, precision)).collect();
        let mut top = 0;
        let mut inside: Vec<Place> = Vec::with_capacity(steps.len());
        let mut layers = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let op = step.op;
            // What an earlier one of these steps has written last at this place is what is read.
            let source = |memories: &mut Vec<Buffer>, operand: &Operand, spec: TensorSpec| {
                let asked = place(memories, operand, spec, precision);
                let maker = (0..index).rev().find(|&earlier| outside[earlier].meets(&asked, precision));
                maker.map_or(asked, |maker| Place { spec, ..inside[maker] })
            };
            let mut inputs = Vec::with_capacity(2);
            for (operand, &spec) in step.operands.inputs.iter().zip(&op.inputs) {
                inputs.push(source(&mut memories, operand, spec));
            }
            let residual = step.operands.residual.as_ref().map(|operand| source(&mut memories, operand, op.output));
            // Whoever reads this place later reads what was written last.
            let overwritten = outside[index + 1..].iter().any(|later| later.meets(&outside[index], precision));
            inside.push(if step.is_read_later && !overwritten {
                outside[index]
            } else {
                let start = top;
                top = scratch_after(top, &op.output, precision);
                Place { memory: 0, start, spec: op.output }
            });
            let residual = if matches!(op.operation, Operation::Add) { inputs.get(1).copied() } else { residual };
            let activation = match op.operation {
                Operation::Activation(function) => Some(function),
                _ => op.epilogue.activation,
            };
            let weights = step.weights;
            let work = match plain_window(op) {
                Some((mode, window)) => Work::Window { mode, window, weights },
                None => {
                    let (window, _) = direct::window(op).expect("support has checked the operation");
                    Work::Product { window, weights, before: None, pool: [1, 1] }
                }
            };
            layers.push(Layer {
                source: inputs[0],
                residual,
                output: inside[index],
                activation,
                work,
                steps: index..index + 1,
            });
        }
        let end = |place: &Place| place.range(precision).end;
        let places = layers.iter().flat_map(|layer| [Some(layer.source), layer.residual, Some(layer.output)]);
        if places.flatten().any(|place| u32::try_from(end(&place)).is_err()) {
            let reason = "its tensors lie beyond the first 4 GiB of an arena".to_owned();
            return Err(OpenClError::Call { call: "planning a persistent launch", reason });
        }
        Ok(Self { layers: fuse(layers, precision, shape), memories })
    }

    /// The phase of each layer: after the phase of every earlier layer that it shares memory with, unless both only
    /// read it. Layers of one phase run at once.
    pub(super) fn phases(&self, precision: Precision) -> Vec<usize> {
        let mut phases: Vec<usize> = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let conflicts = |earlier: &Layer<'_>| {
                let reads = |layer: &Layer<'_>, place: &Place| {
                    layer.source.meets(place, precision)
                        || layer.residual.is_some_and(|residual| residual.meets(place, precision))
                };
                reads(layer, &earlier.output)
                    || reads(earlier, &layer.output)
                    || layer.output.meets(&earlier.output, precision)
            };
            let before = (0..index).filter(|&earlier| conflicts(&self.layers[earlier]));
            phases.push(before.map(|earlier| phases[earlier] + 1).max().unwrap_or(0));
        }
        phases
    }
}

/// Makes one layer of neighbours where the second is the only reader of the first, and no barrier is needed between.
fn fuse<'a>(layers: Vec<Layer<'a>>, precision: Precision, shape: Shape) -> Vec<Layer<'a>> {
    let readers = |of: &Place| {
        let reads = |place: &Place| usize::from(place.meets(of, precision));
        layers.iter().map(|layer| reads(&layer.source) + layer.residual.as_ref().map_or(0, reads)).sum::<usize>()
    };
    let alone: Vec<bool> = layers.iter().map(|layer| layer.output.memory == 0 && readers(&layer.output) == 1).collect();
    let mut fused: Vec<Layer<'a>> = Vec::with_capacity(layers.len());
    let mut last_alone = false;
    for (layer, alone) in layers.into_iter().zip(alone) {
        let both = fused
            .last()
            .filter(|last| last_alone && last.output.start == layer.source.start && layer.source.memory == 0);
        let one = both.and_then(|last| before(last, &layer).or_else(|| after(last, &layer)));
        // What it reads must not be where it writes: its tiles are computed in any order.
        let one = one.filter(|one| !one.source.meets(&one.output, precision) && shape.fits(one));
        if let Some(one) = one {
            fused.pop();
            fused.push(one);
        } else {
            fused.push(layer);
        }
        last_alone = alone;
    }
    fused
}

/// A depthwise convolution or mean, and the product of its result; or a change of the layout of so few channels that
/// the product can fetch them one by one.
fn before<'a>(first: &Layer<'a>, second: &Layer<'a>) -> Option<Layer<'a>> {
    let Work::Product { window, weights, before: None, pool } = second.work else { return None };
    if let Work::Window { mode: job::WINDOW_MAX, window: of_one, .. } = first.work
        && of_one == Window::square(1)
        && (first.residual, first.activation) == (None, None)
        && second.source.spec.channels <= MAX_SCATTERED
    {
        return Some(Layer { source: first.source, steps: first.steps.start..second.steps.end, ..second.clone() });
    }
    if window != Window::square(1) || first.residual.is_some() {
        return None;
    }
    let activation = first.activation;
    let before = match first.work {
        Work::Window { mode: job::WINDOW_DEPTHWISE, window, weights } => {
            Before::Depthwise { window, weights, activation }
        }
        Work::Window { mode: job::WINDOW_MEAN_VALID, window, .. }
            if window.kernel == [first.source.spec.height, first.source.spec.width] && window.padding == [0; 4] =>
        {
            Before::Mean { activation }
        }
        _ => return None,
    };
    let work = Work::Product { window, weights, before: Some(before), pool };
    Some(Layer { source: first.source, work, steps: first.steps.start..second.steps.end, ..second.clone() })
}

/// A product, and the maxima of windows of its result that do not overlap.
fn after<'a>(first: &Layer<'a>, second: &Layer<'a>) -> Option<Layer<'a>> {
    let Work::Product { window, weights, before, pool: [1, 1] } = first.work else { return None };
    let Work::Window { mode: job::WINDOW_MAX, window: pool, .. } = second.work else { return None };
    let whole = [first.output.spec.height, first.output.spec.width].iter().zip(pool.kernel).all(|(e, k)| e % k == 0);
    let fits = pool.kernel == pool.stride && pool.padding == [0; 4] && pool.dilation == [1, 1] && whole;
    let plain = first.residual.is_none() && second.residual.is_none() && second.activation.is_none();
    if !fits || !plain || pool.kernel == [1, 1] {
        return None;
    }
    let work = Work::Product { window, weights, before, pool: pool.kernel };
    Some(Layer { output: second.output, work, steps: first.steps.start..second.steps.end, ..first.clone() })
}

#[cfg(test)]
mod tests {
    use dlis_backend::Layout;

    use super::*;

    const PRECISION: Precision = Precision::F16;
    const SHAPE: Shape = Shape { groups: 132, weight_bytes: 73_728, tile_bytes: 74_752, precision: PRECISION };

    /// A tensor of `[channels, height, width]` in a mebibyte of its own.
    fn tensor(index: usize, dims: [usize; 3]) -> Place {
        Place { memory: 0, start: index << 20, spec: TensorSpec::f32(1, dims, Layout::Nhwc) }
    }

    fn layer(step: usize, source: Place, output: Place, work: Work<'static>) -> Layer<'static> {
        Layer { source, residual: None, output, activation: None, work, steps: step..step + 1 }
    }

    fn product(window: Window) -> Work<'static> {
        Work::Product { window, weights: OpWeights::default(), before: None, pool: [1, 1] }
    }

    fn plain(mode: i32, window: Window) -> Work<'static> {
        Work::Window { mode, window, weights: OpWeights::default() }
    }

    const THREE: Window = Window::square(3).with_padding(1);

    #[test]
    fn neighbours_become_one_layer_where_nobody_else_reads_between() {
        let dims = [64, 8, 8];
        let (x, y, z) = (tensor(0, dims), tensor(1, dims), tensor(2, dims));
        let depthwise = || layer(0, x, y, plain(job::WINDOW_DEPTHWISE, THREE));
        let pointwise = || layer(1, y, z, product(Window::square(1)));
        let fused = fuse(vec![depthwise(), pointwise()], PRECISION, SHAPE);
        assert_eq!(fused.len(), 1);
        assert_eq!((fused[0].source, fused[0].output, fused[0].steps.clone()), (x, z, 0..2));
        assert!(matches!(fused[0].work, Work::Product { before: Some(Before::Depthwise { .. }), .. }));

        let other = layer(2, y, tensor(3, dims), plain(job::WINDOW_MAX, Window::square(1)));
        assert_eq!(fuse(vec![depthwise(), pointwise(), other], PRECISION, SHAPE).len(), 3);
        // A window of 3x3 would need its neighbours' depthwise results as well.
        assert_eq!(fuse(vec![depthwise(), layer(1, y, z, product(THREE))], PRECISION, SHAPE).len(), 2);
        // The result would overwrite what other tiles have yet to read.
        assert_eq!(fuse(vec![depthwise(), layer(1, y, x, product(Window::square(1)))], PRECISION, SHAPE).len(), 2);
    }

    #[test]
    fn maxima_are_taken_as_tiles_are_stored_unless_they_overlap() {
        let (x, y) = (tensor(0, [64, 8, 8]), tensor(1, [64, 8, 8]));
        let pooled = |window| layer(1, y, tensor(2, [64, 4, 4]), plain(job::WINDOW_MAX, window));
        let convolution = || layer(0, x, y, product(THREE));
        let fused = fuse(vec![convolution(), pooled(Window::square(2).with_stride(2))], PRECISION, SHAPE);
        assert!(matches!(fused[..], [Layer { work: Work::Product { pool: [2, 2], .. }, .. }]));
        assert_eq!(fuse(vec![convolution(), pooled(THREE.with_stride(2))], PRECISION, SHAPE).len(), 2);
    }

    #[test]
    fn layers_of_one_phase_do_not_need_each_other() {
        let dims = [64, 8, 8];
        let [x, a, shortcut, sum] = [0, 1, 2, 3].map(|index| tensor(index, dims));
        let mut second = layer(2, a, sum, product(THREE));
        second.residual = Some(shortcut);
        let one = Window::square(1);
        let layers = vec![
            layer(0, x, a, product(THREE)),
            layer(1, x, shortcut, product(one)),
            second,
            // Writes where the first two read.
            layer(3, sum, x, product(one)),
        ];
        assert_eq!(Network { layers, memories: Vec::new() }.phases(PRECISION), [0, 0, 1, 2]);
    }
}
