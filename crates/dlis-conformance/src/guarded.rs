//! Memory with a watch on both sides.

use dlis_backend::AlignedBytes;

/// Bytes of each guard: several vectors of the widest kind, so that a store that runs over lands there.
const GUARD: usize = 4 * AlignedBytes::ALIGNMENT;

/// Aligned bytes between two guards. The end is not rounded up: the guard begins with the next byte.
#[derive(Debug)]
pub(crate) struct Guarded {
    bytes: AlignedBytes,
    len: usize,
    guard: u8,
}

impl Guarded {
    /// `len` bytes, they and the guards filled with these patterns.
    pub(crate) fn new(len: usize, fill: u8, guard: u8) -> Self {
        let mut bytes = AlignedBytes::zeroed(GUARD + len + GUARD);
        bytes.as_mut_slice().fill(guard);
        bytes.as_mut_slice()[GUARD..GUARD + len].fill(fill);
        Self { bytes, len, guard }
    }

    /// A copy of bytes.
    pub(crate) fn of_bytes(bytes: &[u8], guard: u8) -> Self {
        let mut guarded = Self::new(bytes.len(), 0, guard);
        guarded.bytes_mut().copy_from_slice(bytes);
        guarded
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes.as_slice()[GUARD..GUARD + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes.as_mut_slice()[GUARD..GUARD + self.len]
    }

    pub(crate) fn f32(&self) -> &[f32] {
        &self.bytes.f32()[GUARD / size_of::<f32>()..][..self.len / size_of::<f32>()]
    }

    pub(crate) fn f32_mut(&mut self) -> &mut [f32] {
        &mut self.bytes.f32_mut()[GUARD / size_of::<f32>()..][..self.len / size_of::<f32>()]
    }

    /// Where the guards were written to: bytes before the start (negative) or from the end on.
    pub(crate) fn breach(&self) -> Option<String> {
        let bytes = self.bytes.as_slice();
        let touched = |range: &[u8]| range.iter().position(|&byte| byte != self.guard);
        let before = touched(&bytes[..GUARD]).map(|at| format!("{} bytes before the start", GUARD - at));
        before.or_else(|| touched(&bytes[GUARD + self.len..]).map(|at| format!("{at} bytes past the end")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guards_notice_a_write() {
        let mut guarded = Guarded::of_bytes(&[0x3f; 12], 0xa5);
        assert_eq!((guarded.bytes(), guarded.breach()), (&[0x3f; 12][..], None));
        assert!(guarded.bytes().as_ptr().addr().is_multiple_of(AlignedBytes::ALIGNMENT));
        guarded.f32_mut().fill(4.0);
        assert_eq!((guarded.f32(), guarded.breach()), (&[4.0; 3][..], None));
        guarded.bytes.as_mut_slice()[GUARD + 12] = 0;
        assert_eq!(guarded.breach().as_deref(), Some("0 bytes past the end"));
        guarded.bytes.as_mut_slice()[GUARD - 4] = 0;
        assert_eq!(guarded.breach().as_deref(), Some("4 bytes before the start"));
    }
}
