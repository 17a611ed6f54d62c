//! Tensors as kernels see them: extents, element type and layout over bytes.

use std::fmt;

use dlis_formats::DType;
use serde::{Deserialize, Serialize};

/// The order of the elements of an activation in memory, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channels, height, width: planes of pixels. That of PyTorch, ONNX and the datasets.
    Nchw,
    /// Batch, height, width, channels: a pixel's channels are neighbours ("channels last").
    Nhwc,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 2] = [Self::Nchw, Self::Nhwc];

    /// The name used in plans and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nchw => "nchw",
            Self::Nhwc => "nhwc",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Extents, element type and layout of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Images.
    pub batch: usize,
    /// Channels, or features of a linear layer.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Element type.
    pub dtype: DType,
    /// Order in memory.
    pub layout: Layout,
}

impl TensorSpec {
    /// An f32 tensor.
    pub const fn f32(batch: usize, [channels, height, width]: [usize; 3], layout: Layout) -> Self {
        Self { batch, channels, height, width, dtype: DType::F32, layout }
    }

    /// A u8 tensor, whose elements stand for numbers by a [`Quantization`](dlis_formats::Quantization) that is
    /// told apart from it.
    pub const fn u8(batch: usize, dims: [usize; 3], layout: Layout) -> Self {
        Self::f32(batch, dims, layout).with_dtype(DType::U8)
    }

    /// The same tensor of another element type.
    pub const fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// The same tensor in another layout.
    pub const fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Bytes of the whole batch; `None` beyond the address space. Extents are plain data that anyone may fill
    /// in: check them with this before relying on [`elements`](Self::elements) or [`bytes`](Self::bytes).
    pub fn checked_bytes(&self) -> Option<usize> {
        let extents = [self.batch, self.channels, self.height, self.width, self.dtype.bytes()];
        extents.into_iter().try_fold(1, usize::checked_mul).filter(|&bytes| isize::try_from(bytes).is_ok())
    }

    /// Elements of the whole batch.
    ///
    /// # Panics
    ///
    /// If they are more than the address space holds: kernels rely on the count.
    pub fn elements(&self) -> usize {
        self.bytes() / self.dtype.bytes()
    }

    /// Pixels of one image.
    pub const fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Bytes of the whole batch.
    ///
    /// # Panics
    ///
    /// As [`elements`](Self::elements).
    pub fn bytes(&self) -> usize {
        self.checked_bytes().expect("a tensor fits the address space")
    }

    /// Whether all layouts are the same bytes: images of one pixel, or of one channel.
    pub const fn is_layout_free(&self) -> bool {
        self.pixels() == 1 || self.channels == 1
    }

    /// Whether `self` and `other` are the same bytes: equal but for a layout that makes no difference.
    pub fn same_bytes(&self, other: &Self) -> bool {
        *self == other.with_layout(self.layout) && (self.layout == other.layout || self.is_layout_free())
    }

    /// Steps, in elements, from one image, channel, row and column to the next.
    pub const fn strides(&self) -> [usize; 4] {
        let image = self.channels * self.height * self.width;
        match self.layout {
            Layout::Nchw => [image, self.height * self.width, self.width, 1],
            Layout::Nhwc => [image, 1, self.width * self.channels, self.channels],
        }
    }

    /// The same kind of tensor with one image.
    pub const fn one_image(self) -> Self {
        Self { batch: 1, ..self }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, channels, height, width, dtype, layout } = self;
        write!(f, "{batch}x{channels}x{height}x{width} {dtype} {layout}")
    }
}

/// A tensor to read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    spec: TensorSpec,
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// A tensor over bytes.
    ///
    /// # Panics
    ///
    /// If the number of bytes is not that of the spec.
    pub fn new(spec: TensorSpec, bytes: &'a [u8]) -> Self {
        assert_eq!(bytes.len(), spec.bytes(), "bytes of a tensor of {spec}");
        Self { spec, bytes }
    }

    /// An f32 tensor over floats.
    pub fn of(spec: TensorSpec, data: &'a [f32]) -> Self {
        Self::new(spec, bytemuck::cast_slice(data))
    }

    /// Its extents, element type and layout.
    pub fn spec(&self) -> TensorSpec {
        self.spec
    }

    /// Its elements.
    ///
    /// # Panics
    ///
    /// If the element type is not f32: [`Kernel::support`](crate::Kernel::support) has ruled it out.
    pub fn f32(&self) -> &'a [f32] {
        assert_eq!(self.spec.dtype, DType::F32, "element type of {}", self.spec);
        bytemuck::cast_slice(self.bytes)
    }

    /// Its elements.
    ///
    /// # Panics
    ///
    /// If the element type is not u8: [`Kernel::support`](crate::Kernel::support) has ruled it out.
    pub fn u8(&self) -> &'a [u8] {
        assert_eq!(self.spec.dtype, DType::U8, "element type of {}", self.spec);
        self.bytes
    }
}

/// A tensor to write.
#[derive(Debug)]
pub struct ViewMut<'a> {
    spec: TensorSpec,
    bytes: &'a mut [u8],
}

impl<'a> ViewMut<'a> {
    /// A tensor over bytes.
    ///
    /// # Panics
    ///
    /// If the number of bytes is not that of the spec.
    pub fn new(spec: TensorSpec, bytes: &'a mut [u8]) -> Self {
        assert_eq!(bytes.len(), spec.bytes(), "bytes of a tensor of {spec}");
        Self { spec, bytes }
    }

    /// An f32 tensor over floats.
    pub fn of(spec: TensorSpec, data: &'a mut [f32]) -> Self {
        Self::new(spec, bytemuck::cast_slice_mut(data))
    }

    /// Its extents, element type and layout.
    pub fn spec(&self) -> TensorSpec {
        self.spec
    }

    /// Its elements.
    ///
    /// # Panics
    ///
    /// As [`View::f32`].
    pub fn f32(&mut self) -> &mut [f32] {
        assert_eq!(self.spec.dtype, DType::F32, "element type of {}", self.spec);
        bytemuck::cast_slice_mut(self.bytes)
    }

    /// Its elements.
    ///
    /// # Panics
    ///
    /// As [`View::u8`].
    pub fn u8(&mut self) -> &mut [u8] {
        assert_eq!(self.spec.dtype, DType::U8, "element type of {}", self.spec);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_element_type() {
        let spec = TensorSpec::u8(2, [3, 4, 5], Layout::Nhwc);
        assert_eq!((spec.elements(), spec.bytes(), spec.with_dtype(DType::F32).bytes()), (120, 120, 480));
        let mut bytes = [7; 120];
        ViewMut::new(spec, &mut bytes).u8()[119] = 9;
        assert_eq!(View::new(spec, &bytes).u8()[118..], [7, 9]);
        assert!(std::panic::catch_unwind(|| View::new(spec, &[0; 120]).f32()).is_err());
    }

    #[test]
    fn layouts_differ_unless_images_have_one_pixel_or_one_channel() {
        for (dims, free) in [([3, 2, 2], false), ([3, 1, 1], true), ([1, 5, 4], true)] {
            let nchw = TensorSpec::f32(2, dims, Layout::Nchw);
            let nhwc = nchw.with_layout(Layout::Nhwc);
            assert_eq!((nchw.is_layout_free(), nchw.same_bytes(&nhwc)), (free, free), "{nchw}");
            assert!(nchw.same_bytes(&nchw) && !nchw.same_bytes(&nchw.one_image()));
        }
    }

    #[test]
    fn extents_that_wrap_around_are_no_small_tensor() {
        let wrapping = TensorSpec::f32((1 << 62) + 1, [4, 1, 1], Layout::Nhwc);
        assert_eq!(wrapping.checked_bytes(), None);
        assert!(std::panic::catch_unwind(|| View::of(wrapping, &[0.0; 4])).is_err());
    }

    #[test]
    fn strides_address_every_element_once() {
        for layout in Layout::ALL {
            let spec = TensorSpec::f32(2, [3, 4, 5], layout);
            let [n, c, h, w] = spec.strides();
            let mut seen = vec![false; spec.elements()];
            for at in (0..2)
                .flat_map(|i| (0..3).flat_map(move |j| (0..4).flat_map(move |k| (0..5).map(move |l| [i, j, k, l]))))
            {
                let index = at[0] * n + at[1] * c + at[2] * h + at[3] * w;
                assert!(!std::mem::replace(&mut seen[index], true), "{layout}: {at:?} twice");
            }
            assert!(seen.into_iter().all(|seen| seen));
        }
    }
}
