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
    /// Groups of [`LANES`](Self::LANES) images, and within a group height, width, channels and its images, so that
    /// the images are the lanes of vectors. Only batches of whole groups can be in it.
    Nhwc16n,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 3] = [Self::Nchw, Self::Nhwc, Self::Nhwc16n];

    /// Those in which the elements of each axis are equally far apart, so that there are
    /// [`strides`](TensorSpec::strides). Any batch can be in them.
    pub const STRIDED: [Self; 2] = [Self::Nchw, Self::Nhwc];

    /// Images of a group of [`Nhwc16n`](Self::Nhwc16n): as many as the widest vectors have lanes of f32.
    pub const LANES: usize = 16;

    /// The name used in plans and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nchw => "nchw",
            Self::Nhwc => "nhwc",
            Self::Nhwc16n => "nhwc16n",
        }
    }

    /// Whether tensors of so many images can be in it.
    pub const fn takes(self, batch: usize) -> bool {
        match self {
            Self::Nchw | Self::Nhwc => true,
            Self::Nhwc16n => batch.is_multiple_of(Self::LANES),
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

    /// Whether its bytes are those of the same tensor in `layout`: because that is its own, or where the layouts
    /// make no difference. NCHW and NHWC make none to images of one pixel or of one channel; whole groups of images
    /// as lanes are the same as either only if both are one.
    pub const fn is_in(&self, layout: Layout) -> bool {
        let (pixel, channel) = (self.pixels() == 1, self.channels == 1);
        match (self.layout, layout) {
            (Layout::Nchw, Layout::Nchw) | (Layout::Nhwc, Layout::Nhwc) | (Layout::Nhwc16n, Layout::Nhwc16n) => true,
            (Layout::Nchw, Layout::Nhwc) | (Layout::Nhwc, Layout::Nchw) => pixel || channel,
            (Layout::Nhwc16n, Layout::Nchw | Layout::Nhwc) | (Layout::Nchw | Layout::Nhwc, Layout::Nhwc16n) => {
                pixel && channel && Layout::Nhwc16n.takes(self.batch)
            }
        }
    }

    /// Whether `self` and `other` are the same bytes: equal but for a layout that makes no difference.
    pub fn same_bytes(&self, other: &Self) -> bool {
        *self == other.with_layout(self.layout) && self.is_in(other.layout)
    }

    /// Steps, in elements, from one image, channel, row and column to the next; `None` in a layout that is not
    /// [strided](Layout::STRIDED).
    pub const fn strides(&self) -> Option<[usize; 4]> {
        let image = self.channels * self.height * self.width;
        match self.layout {
            Layout::Nchw => Some([image, self.height * self.width, self.width, 1]),
            Layout::Nhwc => Some([image, 1, self.width * self.channels, self.channels]),
            Layout::Nhwc16n => None,
        }
    }

    /// The place, in elements, of an image, channel, row and column.
    pub const fn offset(&self, [image, channel, row, column]: [usize; 4]) -> usize {
        let Self { channels, height, width, .. } = *self;
        match self.layout {
            Layout::Nchw => ((image * channels + channel) * height + row) * width + column,
            Layout::Nhwc => ((image * height + row) * width + column) * channels + channel,
            Layout::Nhwc16n => {
                let (group, lane) = (image / Layout::LANES, image % Layout::LANES);
                (((group * height + row) * width + column) * channels + channel) * Layout::LANES + lane
            }
        }
    }

    /// The same bytes as a tensor in a [strided](Layout::STRIDED) layout, which is itself where it is in one. A group
    /// of images as lanes is one NHWC image with [`LANES`](Layout::LANES) times the channels, those of one channel
    /// side by side, so that whatever treats all channels alike need not know of the lanes.
    ///
    /// ```
    /// use dlis_backend::{Layout, TensorSpec};
    ///
    /// let lanes = TensorSpec::f32(32, [3, 8, 8], Layout::Nhwc16n);
    /// assert_eq!(lanes.folded(), TensorSpec::f32(2, [48, 8, 8], Layout::Nhwc));
    /// assert_eq!(lanes.folded().offset([1, 2 * 16 + 5, 7, 6]), lanes.offset([16 + 5, 2, 7, 6]));
    /// ```
    ///
    /// # Panics
    ///
    /// If the batch is not of whole groups, in a layout of groups:
    /// [`OpSpec::extents_agree`](crate::OpSpec::extents_agree) has ruled it out.
    pub const fn folded(self) -> Self {
        match self.layout {
            Layout::Nchw | Layout::Nhwc => self,
            Layout::Nhwc16n => {
                assert!(self.layout.takes(self.batch), "a batch of whole groups of images");
                let (batch, channels) = (self.batch / Layout::LANES, self.channels * Layout::LANES);
                Self { batch, channels, layout: Layout::Nhwc, ..self }
            }
        }
    }

    /// The same kind of tensor with one image. In a layout of groups no such tensor exists: it is for its extents alone.
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
    fn layouts_differ_unless_they_make_no_difference() {
        for (dims, strided, all) in
            [([3, 2, 2], false, false), ([3, 1, 1], true, false), ([1, 5, 4], true, false), ([1, 1, 1], true, true)]
        {
            let nchw = TensorSpec::f32(32, dims, Layout::Nchw);
            let [nhwc, lanes] = [Layout::Nhwc, Layout::Nhwc16n].map(|layout| nchw.with_layout(layout));
            for (one, other, same) in [(nchw, nhwc, strided), (nchw, lanes, all), (nhwc, lanes, all)] {
                assert_eq!((one.is_in(other.layout), other.is_in(one.layout)), (same, same), "{one} {other}");
                assert_eq!((one.same_bytes(&other), other.same_bytes(&one)), (same, same), "{one} {other}");
            }
            for tensor in [nchw, nhwc, lanes] {
                assert!(tensor.same_bytes(&tensor) && !tensor.same_bytes(&tensor.one_image()), "{tensor}");
            }
        }
        // What does not exist is not the same as anything.
        assert!(!TensorSpec::f32(2, [1, 1, 1], Layout::Nchw).is_in(Layout::Nhwc16n));
    }

    /// Every image, channel, row and column.
    fn places(spec: TensorSpec) -> impl Iterator<Item = [usize; 4]> {
        let TensorSpec { batch, channels, height, width, .. } = spec;
        (0..batch).flat_map(move |n| {
            (0..channels).flat_map(move |c| (0..height).flat_map(move |y| (0..width).map(move |x| [n, c, y, x])))
        })
    }

    #[test]
    fn what_is_said_to_be_in_a_layout_has_the_same_offsets_there() {
        for dims in [[3, 2, 2], [3, 1, 1], [1, 5, 4], [1, 1, 1], [2, 1, 3]] {
            for (from, to) in Layout::ALL.into_iter().flat_map(|from| Layout::ALL.map(|to| (from, to))) {
                let (spec, other) = (TensorSpec::f32(16, dims, from), TensorSpec::f32(16, dims, to));
                let same = places(spec).all(|place| spec.offset(place) == other.offset(place));
                assert_eq!(spec.is_in(to), same, "{spec} {to}");
            }
        }
    }

    #[test]
    fn extents_that_wrap_around_are_no_small_tensor() {
        let wrapping = TensorSpec::f32((1 << 62) + 1, [4, 1, 1], Layout::Nhwc);
        assert_eq!(wrapping.checked_bytes(), None);
        assert!(std::panic::catch_unwind(|| View::of(wrapping, &[0.0; 4])).is_err());
    }

    #[test]
    fn offsets_address_every_element_once_by_strides_where_there_are_some() {
        for layout in Layout::ALL {
            let spec = TensorSpec::f32(32, [3, 4, 5], layout);
            assert_eq!(spec.strides().is_some(), Layout::STRIDED.contains(&layout));
            let mut seen = vec![false; spec.elements()];
            for place in places(spec) {
                let offset = spec.offset(place);
                assert!(!std::mem::replace(&mut seen[offset], true), "{layout}: {place:?} twice");
                if let Some(strides) = spec.strides() {
                    assert_eq!(strides.iter().zip(place).map(|(step, at)| step * at).sum::<usize>(), offset);
                }
            }
            assert!(seen.into_iter().all(|seen| seen));
        }
    }

    #[test]
    fn folding_keeps_every_element_in_its_place() {
        for layout in Layout::ALL {
            let spec = TensorSpec::f32(32, [3, 4, 5], layout);
            let folded = spec.folded();
            assert_eq!((folded.elements(), folded.folded()), (spec.elements(), folded));
            for [n, c, y, x] in places(spec) {
                let place = if spec == folded { [n, c, y, x] } else { [n / 16, c * 16 + n % 16, y, x] };
                assert_eq!(folded.offset(place), spec.offset([n, c, y, x]), "{layout}");
            }
        }
        assert!(std::panic::catch_unwind(|| TensorSpec::f32(8, [3, 4, 5], Layout::Nhwc16n).folded()).is_err());
    }

    #[test]
    fn names_are_those_of_files() {
        for layout in Layout::ALL {
            assert_eq!(serde_json::to_value(layout).unwrap(), layout.name());
        }
    }
}
