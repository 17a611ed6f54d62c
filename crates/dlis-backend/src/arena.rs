//! Memory that vectors can be loaded from without crossing a cache line.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use bytemuck::{Pod, Zeroable};

/// One cache line, which is also the widest vector.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; AlignedBytes::ALIGNMENT]);

/// Bytes of a huge page, of x86-64 and, as a rule, of aarch64.
const HUGE_PAGE: usize = 2 << 20;

/// Lines that start zeroed. Of two mebibytes or more they lie in huge pages where the system has such: a network's weights
/// are read from one end to the other again and again, and with pages of four kibibytes the processor spends up to a
/// fifth of that time on finding where they are.
struct Lines {
    first: NonNull<Line>,
    count: usize,
}

// SAFETY: the lines are owned as a vector's are, and are plain bytes.
unsafe impl Send for Lines {}
// SAFETY: as above; shared lines are only read.
unsafe impl Sync for Lines {}

impl Lines {
    /// `None` where there is not so much memory.
    fn try_zeroed(count: usize) -> Option<Self> {
        let layout = Self::layout(count)?;
        if layout.size() == 0 {
            return Some(Self { first: NonNull::dangling(), count });
        }
        let first = if layout.align() < HUGE_PAGE {
            // SAFETY: the layout is of some bytes.
            NonNull::new(unsafe { alloc_zeroed(layout) })?
        } else {
            // SAFETY: as above.
            let first = NonNull::new(unsafe { alloc(layout) })?;
            // Before the first byte is written, which is when pages are found for it.
            #[cfg(target_os = "linux")]
            // SAFETY: the pages are this allocation's own, and advice changes no byte of them. Where it is not taken,
            // they are ordinary ones.
            unsafe {
                libc::madvise(first.as_ptr().cast(), layout.size() / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE);
            }
            // SAFETY: the allocation is of so many bytes.
            unsafe { first.write_bytes(0, layout.size()) };
            first
        };
        Some(Self { first: first.cast(), count })
    }

    /// How so many lines are allocated; `None` where they would be more bytes than there are addresses.
    fn layout(count: usize) -> Option<Layout> {
        let lines = Layout::array::<Line>(count).ok()?;
        if lines.size() < HUGE_PAGE { Some(lines) } else { lines.align_to(HUGE_PAGE).ok() }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.count).filter(|layout| layout.size() > 0) {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.first.cast().as_ptr(), layout) };
        }
    }
}

impl Deref for Lines {
    type Target = [Line];

    #[inline]
    fn deref(&self) -> &[Line] {
        // SAFETY: so many lines were allocated, and zeroed, which is a line's value.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl DerefMut for Lines {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above; they are borrowed by nobody else.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.count) }
    }
}

/// A fixed number of zeroed bytes, aligned to [`AlignedBytes::ALIGNMENT`].
pub struct AlignedBytes {
    lines: Lines,
    len: usize,
}

// Kernels ask for them in their loops, where a call that is not inlined puts every vector register on the stack.
impl AlignedBytes {
    /// Alignment of the first byte.
    pub const ALIGNMENT: usize = 64;

    /// `len` zeroed bytes; the allocation is rounded up to whole lines.
    ///
    /// # Panics
    ///
    /// Where there is not so much memory.
    pub fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|| panic!("{len} bytes cannot be had"))
    }

    /// As [`zeroed`](Self::zeroed); `None` where there is not so much memory.
    pub fn try_zeroed(len: usize) -> Option<Self> {
        Some(Self { lines: Lines::try_zeroed(len.div_ceil(Self::ALIGNMENT))?, len })
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
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none were asked for.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes allocated: `len` rounded up to whole lines.
    #[inline]
    pub fn allocated(&self) -> usize {
        self.lines.len() * Self::ALIGNMENT
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines[..])[..self.len]
    }

    /// The bytes, to write.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines[..])[..self.len]
    }

    /// The bytes as floats; a rest of fewer than four bytes is left out.
    #[inline]
    pub fn f32(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines[..])[..self.len / size_of::<f32>()]
    }

    /// The bytes as numbers of two bytes each; a last odd byte is left out.
    #[inline]
    pub fn u16(&self) -> &[u16] {
        &bytemuck::cast_slice(&self.lines[..])[..self.len / size_of::<u16>()]
    }

    /// The bytes as numbers of two bytes each, to write.
    #[inline]
    pub fn u16_mut(&mut self) -> &mut [u16] {
        &mut bytemuck::cast_slice_mut(&mut self.lines[..])[..self.len / size_of::<u16>()]
    }

    /// The bytes as floats, to write.
    #[inline]
    pub fn f32_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines[..])[..self.len / size_of::<f32>()]
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
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

    /// Around the size from which there are huge pages, and of no size.
    #[test]
    fn bytes_are_zeroed_aligned_and_copied_whatever_pages_they_lie_in() {
        for len in [0, 1, 63, 64, HUGE_PAGE - 64, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 5] {
            let mut bytes = AlignedBytes::zeroed(len);
            assert!(bytes.as_slice().len() == len && bytes.as_slice().iter().all(|&byte| byte == 0), "{len}");
            assert!(bytes.as_slice().as_ptr().addr().is_multiple_of(AlignedBytes::ALIGNMENT));
            let fill = |bytes: &mut [u8], with: u8| bytes.iter_mut().for_each(|byte| *byte = with);
            fill(bytes.as_mut_slice(), 7);
            let copy = bytes.clone();
            fill(bytes.as_mut_slice(), 1);
            assert!(copy.as_slice().iter().all(|&byte| byte == 7) && copy.len() == len);
            assert_eq!((bytes.f32().len(), bytes.u16().len()), (len / 4, len / 2));
        }
    }
}
