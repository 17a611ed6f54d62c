//! Memory that vectors can be loaded from without crossing a cache line.

use bytemuck::{Pod, Zeroable};

/// One cache line, which is also the widest vector.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; AlignedBytes::ALIGNMENT]);

/// A fixed number of zeroed bytes, aligned to [`AlignedBytes::ALIGNMENT`].
#[derive(Clone)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// Alignment of the first byte.
    pub const ALIGNMENT: usize = 64;

    /// `len` zeroed bytes; the allocation is rounded up to whole lines.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line::zeroed(); len.div_ceil(Self::ALIGNMENT)], len }
    }

    /// As [`zeroed`](Self::zeroed); `None` where there is not so much memory.
    pub fn try_zeroed(len: usize) -> Option<Self> {
        let count = len.div_ceil(Self::ALIGNMENT);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).ok()?;
        lines.resize(count, Line::zeroed());
        Some(Self { lines, len })
    }

    /// The least multiple of the alignment that is not below `bytes`.
    pub const fn round_up(bytes: usize) -> usize {
        bytes.next_multiple_of(Self::ALIGNMENT)
    }

    /// A copy of floats.
    pub fn from_f32(values: &[f32]) -> Self {
        let mut bytes = Self::zeroed(size_of_val(values));
        bytes.f32_mut().copy_from_slice(values);
        bytes
    }

    /// Bytes asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none were asked for.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes allocated: `len` rounded up to whole lines.
    pub fn allocated(&self) -> usize {
        self.lines.len() * Self::ALIGNMENT
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }

    /// The bytes as floats; a rest of fewer than four bytes is left out.
    pub fn f32(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len / size_of::<f32>()]
    }

    /// The bytes as floats, to write.
    pub fn f32_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len / size_of::<f32>()]
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_had_is_refused() {
        assert!(AlignedBytes::try_zeroed(usize::MAX - 64).is_none());
        let bytes = AlignedBytes::try_zeroed(65).unwrap();
        assert_eq!((bytes.len(), bytes.allocated()), (65, 128));
    }
}
