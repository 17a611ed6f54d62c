//! Memory of a device.

use std::sync::Arc;

use bytemuck::Pod;
use ocl_core as cl;

use super::Device;
use crate::error::{OpenClError, call};

/// A piece of a device's memory. Clones are the same memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    memory: cl::Mem,
    bytes: usize,
}

impl Buffer {
    /// Bytes asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether both are the same memory.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.memory.as_ptr() == other.memory.as_ptr()
    }

    pub(super) fn of(memory: cl::Mem, bytes: usize) -> Self {
        Self { memory, bytes }
    }

    pub(super) fn memory(&self) -> &cl::Mem {
        &self.memory
    }
}

impl Device {
    /// Memory whose contents are undefined.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device has not so much left.
    pub fn buffer(self: &Arc<Self>, bytes: usize) -> Result<Buffer, OpenClError> {
        // No device has buffers of no bytes; whole lines let kernels load vectors at the end.
        let whole = bytes.max(1).next_multiple_of(64);
        // SAFETY: no host pointer is passed, so that the flags ask nothing of the host's memory.
        let memory =
            unsafe { cl::create_buffer::<_, u8>(&self.context, cl::MemFlags::new().read_write(), whole, None) };
        Ok(Buffer { memory: call("allocating a buffer", memory)?, bytes })
    }

    /// Memory that holds these values.
    ///
    /// # Errors
    ///
    /// As [`buffer`](Self::buffer).
    pub fn upload<T: Pod>(self: &Arc<Self>, values: &[T]) -> Result<Buffer, OpenClError> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = self.buffer(bytes.len())?;
        if !bytes.is_empty() {
            self.uploads.write_now(&buffer, 0, bytes)?;
        }
        Ok(buffer)
    }
}
