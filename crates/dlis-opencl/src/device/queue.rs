//! The order in which a device works.

use std::sync::Arc;

use ocl_core as cl;

use super::launch::Work;
use super::{Buffer, Device, Launch};
use crate::error::{OpenClError, call};

/// A queue of a device: what is put in is done in that order.
#[derive(Debug)]
pub struct Queue {
    queue: cl::CommandQueue,
}

/// When something that was queued ran.
#[derive(Debug)]
pub struct Event {
    /// Before it, where it was more than one kernel.
    before: Option<cl::Event>,
    last: cl::Event,
}

impl From<cl::Event> for Event {
    fn from(last: cl::Event) -> Self {
        Self { before: None, last }
    }
}

impl Event {
    /// Start and end, in ns of the device's clock. To be asked after [`Queue::finish`].
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if it has not ended.
    pub fn span(&self) -> Result<[u64; 2], OpenClError> {
        let at = |event: &cl::Event, what| {
            call("reading a profile", cl::get_event_profiling_info(event, what))?
                .time()
                .map_err(|error| OpenClError::Call { call: "reading a profile", reason: error.to_string() })
        };
        let start = match &self.before {
            Some(before) => at(before, cl::ProfilingInfo::End)?,
            None => at(&self.last, cl::ProfilingInfo::Start)?,
        };
        Ok([start, at(&self.last, cl::ProfilingInfo::End)?])
    }
}

/// Memory of the host that a device reads and writes without the driver's own copy, where it can.
#[derive(Debug)]
pub struct Pinned {
    /// Keeps the mapping's memory alive.
    _buffer: Buffer,
    map: cl::MemMap<f32>,
    len: usize,
}

impl Pinned {
    /// The floats.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: the mapping was asked for this many floats, for reading and writing, and lives as long as `self`;
        // queued transfers to it have been waited for before it is looked at, as `Queue::read_later` demands.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.len) }
    }

    /// The floats, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_slice`; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr(), self.len) }
    }
}

impl Device {
    /// A queue that notes when things run.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the driver refuses.
    pub fn queue(self: &Arc<Self>) -> Result<Queue, OpenClError> {
        Queue::new(&self.context, self.id)
    }

    /// So many floats of pinned memory.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if there is not so much.
    pub fn pinned(self: &Arc<Self>, floats: usize, queue: &Queue) -> Result<Pinned, OpenClError> {
        let flags = cl::MemFlags::new().read_write().alloc_host_ptr();
        let len = floats.max(1);
        // SAFETY: no host pointer is passed; the driver allocates.
        let memory = unsafe { cl::create_buffer::<_, f32>(&self.context, flags, len, None) };
        let memory = call("allocating pinned memory", memory)?;
        let access = cl::MapFlags::new().read().write();
        // SAFETY: the range is that of the buffer, the call blocks, and the map is kept beside the buffer.
        let map = unsafe {
            cl::enqueue_map_buffer::<f32, _, _, _>(
                &queue.queue,
                &memory,
                true,
                access,
                0,
                len,
                None::<&cl::Event>,
                None::<&mut cl::Event>,
            )
        };
        let map = call("mapping pinned memory", map)?;
        Ok(Pinned { _buffer: Buffer::of(memory, len * size_of::<f32>()), map, len: floats })
    }
}

impl Queue {
    pub(super) fn new(context: &cl::Context, id: cl::DeviceId) -> Result<Self, OpenClError> {
        let properties = cl::CommandQueueProperties::new().profiling();
        let queue = cl::create_command_queue(context, id, Some(properties));
        Ok(Self { queue: call("creating a queue", queue)? })
    }

    /// Queues a launch.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device refuses.
    pub fn launch(&self, launch: &Launch) -> Result<(), OpenClError> {
        self.enqueue(launch, None)
    }

    /// Queues a launch, to be asked when it ran.
    ///
    /// # Errors
    ///
    /// As [`launch`](Self::launch).
    pub fn launch_timed(&self, launch: &Launch) -> Result<Event, OpenClError> {
        let before = match launch.work() {
            Work::Kernel { .. } => None,
            // The library tells of its last kernel only: a marker tells when the first could begin.
            Work::Gemm(_) => {
                let mut event = cl::Event::null();
                let marker = cl::enqueue_marker_with_wait_list(&self.queue, None::<&cl::Event>, Some(&mut event), None);
                call("queueing a marker", marker)?;
                Some(event)
            }
        };
        let mut last = cl::Event::null();
        self.enqueue(launch, Some(&mut last))?;
        Ok(Event { before, last })
    }

    /// Queues a kernel, or a library's call; what the latter's event is of is the library's affair.
    fn enqueue(&self, launch: &Launch, event: Option<&mut cl::Event>) -> Result<(), OpenClError> {
        match launch.work() {
            Work::Kernel { kernel, global, local, .. } => {
                let no_wait = None::<&cl::Event>;
                // SAFETY: the kernel's arguments were set when the launch was made, its buffers are kept by it, and
                // kernels of this crate stay within the buffers they are given (which the conformance suite checks).
                let queued =
                    unsafe { cl::enqueue_kernel(&self.queue, kernel, 3, None, global, *local, no_wait, event) };
                call(launch.name(), queued)
            }
            Work::Gemm(gemm) => gemm.enqueue(self, event),
        }
    }

    pub(super) fn handle(&self) -> &cl::CommandQueue {
        &self.queue
    }

    /// Queues a copy of floats to a buffer, from its float `offset` on. The floats must not change until
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device refuses.
    pub fn write(&self, buffer: &Buffer, offset: usize, from: &Pinned) -> Result<Event, OpenClError> {
        let mut event = cl::Event::null();
        // SAFETY: the floats are pinned memory that outlives the queue's work: an executable that holds both waits
        // for it before it goes on.
        let queued = unsafe {
            cl::enqueue_write_buffer(
                &self.queue,
                buffer.memory(),
                false,
                offset,
                from.as_slice(),
                None::<&cl::Event>,
                Some(&mut event),
            )
        };
        call("writing a buffer", queued)?;
        Ok(event.into())
    }

    /// Queues a copy of floats from a buffer, from its float `offset` on; they are there after
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device refuses.
    pub fn read(&self, buffer: &Buffer, offset: usize, to: &mut Pinned) -> Result<Event, OpenClError> {
        let mut event = cl::Event::null();
        // SAFETY: as in `write`.
        let queued = unsafe {
            cl::enqueue_read_buffer(
                &self.queue,
                buffer.memory(),
                false,
                offset,
                to.as_mut_slice(),
                None::<&cl::Event>,
                Some(&mut event),
            )
        };
        call("reading a buffer", queued)?;
        Ok(event.into())
    }

    /// Copies bytes to a buffer and waits.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device refuses.
    pub fn write_now(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<(), OpenClError> {
        // SAFETY: the call blocks, so that the bytes are not needed afterwards.
        let queued = unsafe {
            let (none, no_event) = (None::<&cl::Event>, None::<&mut cl::Event>);
            cl::enqueue_write_buffer(&self.queue, buffer.memory(), true, offset, bytes, none, no_event)
        };
        call("writing a buffer", queued)
    }

    /// Copies bytes from a buffer and waits.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device refuses, or something queued before has failed.
    pub fn read_now(&self, buffer: &Buffer, offset: usize, bytes: &mut [u8]) -> Result<(), OpenClError> {
        // SAFETY: the call blocks, so that the bytes are there when it returns.
        let queued = unsafe {
            let (none, no_event) = (None::<&cl::Event>, None::<&mut cl::Event>);
            cl::enqueue_read_buffer(&self.queue, buffer.memory(), true, offset, bytes, none, no_event)
        };
        call("reading a buffer", queued)
    }

    /// Waits for all that was queued.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if something failed.
    pub fn finish(&self) -> Result<(), OpenClError> {
        call("waiting for the device", cl::finish(&self.queue))
    }
}
