//! The facade over the OpenCL library: devices, buffers, programs, launches and queues. Nothing outside this
//! module names a type of that library.

mod buffer;
pub(crate) mod cache;
pub(crate) mod clblast;
mod info;
mod launch;
mod program;
mod queue;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ocl_core as cl;

use crate::error::{OpenClError, call};

pub use buffer::Buffer;
pub use info::{DeviceInfo, DeviceKind, devices};
pub use launch::{Arg, Launch};
pub use program::Program;
pub use queue::{Event, Pinned, Queue};

/// An open device: its context and the programs that were compiled for it.
pub struct Device {
    info: DeviceInfo,
    id: cl::DeviceId,
    context: cl::Context,
    /// For weights and constants, which are waited for one by one.
    uploads: Queue,
    programs: Mutex<HashMap<String, Program>>,
    /// Time spent compiling programs, or loading compiled ones.
    compile_ns: AtomicU64,
}

impl Device {
    /// The device of this index among [`devices`], or the first whose name contains the text, whatever its case.
    /// A device is opened once in a process.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if there is no such device or its driver refuses.
    pub fn open(selector: &str) -> Result<Arc<Self>, OpenClError> {
        static OPEN: OnceLock<Mutex<HashMap<usize, Arc<Device>>>> = OnceLock::new();
        let all = info::found()?;
        let index = selector.parse::<usize>().ok().filter(|&index| index < all.len()).or_else(|| {
            let wanted = selector.to_lowercase();
            all.iter().position(|(info, _, _)| !wanted.is_empty() && info.name.to_lowercase().contains(&wanted))
        });
        let Some(index) = index else {
            let found: Vec<String> = all.iter().map(|(info, _, _)| format!("{} ({})", info.index, info.name)).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            return Err(OpenClError::NoDevice { asked: selector.to_owned(), found });
        };
        let mut open = OPEN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = open.get(&index) {
            return Ok(Arc::clone(device));
        }
        let (info, platform, id) = all.into_iter().nth(index).expect("the index was found among them");
        let properties = cl::ContextProperties::new().platform(platform);
        let context = call("creating a context", cl::create_context(Some(&properties), &[id], None, None))?;
        let uploads = Queue::new(&context, id)?;
        let (programs, compile_ns) = (Mutex::default(), AtomicU64::new(0));
        let device = Arc::new(Self { info, id, context, uploads, programs, compile_ns });
        open.insert(index, Arc::clone(&device));
        Ok(device)
    }

    /// Time that compiling programs has taken in this process, in ns.
    pub fn compile_ns(&self) -> u64 {
        self.compile_ns.load(Ordering::Relaxed)
    }

    /// What it says of itself.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.info)
    }
}
