//! Plain tensors, in the one layout the reference knows.

use dlis_backend::{Layout, TensorSpec};

/// An f32 tensor of four extents, outermost first and row-major: an activation as `[n, c, h, w]`, the
/// weight of a convolution as `[out, in / groups, h, w]`, of a linear layer as `[out, in, 1, 1]`, of an
/// affine operation as `[c, 1, 1, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dims: [usize; 4],
    values: Vec<f32>,
}

impl Tensor {
    /// A tensor of these values.
    ///
    /// # Panics
    ///
    /// If the values are not as many as the extents say.
    pub fn new(dims: [usize; 4], values: Vec<f32>) -> Self {
        assert_eq!(values.len(), dims.iter().product::<usize>(), "values of a tensor of {dims:?}");
        Self { dims, values }
    }

    /// The extents.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values, to change.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// One value, widened.
    ///
    /// # Panics
    ///
    /// If the index is out of bounds.
    pub fn at(&self, index: [usize; 4]) -> f64 {
        f64::from(self.values[offset(self.dims, index)])
    }

    /// What a kernel is told of it when it is an activation in this layout.
    pub fn spec(&self, layout: Layout) -> TensorSpec {
        spec(self.dims, layout)
    }

    /// The values in the order of this layout.
    pub fn in_layout(&self, layout: Layout) -> Vec<f32> {
        let spec = self.spec(layout);
        let mut out = vec![0.0; self.values.len()];
        for (index, &value) in indices(self.dims).zip(&self.values) {
            out[spec.offset(index)] = value;
        }
        out
    }

    /// The inverse of [`in_layout`](Self::in_layout).
    ///
    /// # Panics
    ///
    /// If the values are not as many as the extents say.
    pub fn from_layout(dims: [usize; 4], layout: Layout, values: &[f32]) -> Self {
        let spec = spec(dims, layout);
        let values = match layout {
            Layout::Nchw => values.to_vec(),
            Layout::Nhwc | Layout::Nhwc16n => indices(dims).map(|index| values[spec.offset(index)]).collect(),
        };
        Self::new(dims, values)
    }
}

/// What a kernel is told of an activation of these extents.
pub(crate) fn spec([n, c, h, w]: [usize; 4], layout: Layout) -> TensorSpec {
    TensorSpec::f32(n, [c, h, w], layout)
}

/// Every index, in row-major order.
pub(crate) fn indices([n, c, h, w]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    let pixels = h * w;
    (0..n * c * pixels)
        .map(move |index| [index / (c * pixels), index / pixels % c, index % pixels / w, index % pixels % w])
}

fn offset([_, c, h, w]: [usize; 4], [a, b, y, x]: [usize; 4]) -> usize {
    ((a * c + b) * h + y) * w + x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_last_puts_the_channels_of_a_pixel_side_by_side() {
        let tensor = Tensor::new([1, 2, 1, 3], vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
        let nhwc = tensor.in_layout(Layout::Nhwc);
        assert_eq!(nhwc, [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        assert_eq!(Tensor::from_layout([1, 2, 1, 3], Layout::Nhwc, &nhwc), tensor);
        assert_eq!(tensor.in_layout(Layout::Nchw), tensor.values());
        assert_eq!(tensor.at([0, 1, 0, 2]), 30.0);
    }

    #[test]
    fn lanes_put_the_images_of_a_group_side_by_side() {
        let dims = [32, 2, 1, 3];
        let tensor = Tensor::new(dims, indices(dims).map(|[n, c, _, x]| (100 * n + 10 * c + x) as f32).collect());
        let lanes = tensor.in_layout(Layout::Nhwc16n);
        let of = |column: usize, channel: usize| &lanes[(column * 2 + channel) * 16..][..2];
        assert_eq!([of(0, 0), of(0, 1), of(2, 1)], [[0.0, 100.0], [10.0, 110.0], [12.0, 112.0]]);
        // The second group begins where the first ends.
        assert_eq!(lanes[16 * 6], 1600.0);
        assert_eq!(Tensor::from_layout(dims, Layout::Nhwc16n, &lanes), tensor);
    }
}
