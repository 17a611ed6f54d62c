//! A kernel with its arguments, ready to be queued any number of times.

use std::fmt;
use std::sync::Arc;

use ocl_core as cl;

use super::clblast::Gemm;
use super::{Buffer, Device, Program};
use crate::error::{OpenClError, call};

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// `__global` memory.
    Buffer(&'a Buffer),
    /// `int`.
    I32(i32),
    /// `uint`.
    U32(u32),
    /// `float`.
    F32(f32),
    /// `__local` memory of so many bytes.
    Local(usize),
}

impl Arg<'_> {
    /// An `int` of a count or an offset.
    ///
    /// # Panics
    ///
    /// Beyond `i32::MAX`: [`support`](crate::DeviceKernel::support) has ruled tensors of so many elements out.
    pub fn int(value: usize) -> Self {
        Self::I32(i32::try_from(value).expect("kernels count in 32 bits"))
    }
}

/// A kernel with its arguments and the work it is given, or a library's call with its.
pub struct Launch {
    name: &'static str,
    work: Work,
}

/// What is queued.
pub(super) enum Work {
    /// A kernel of a program.
    Kernel {
        kernel: cl::Kernel,
        global: [usize; 3],
        local: Option<[usize; 3]>,
        /// Kept alive as long as the kernel may run.
        _buffers: Vec<Buffer>,
    },
    /// Whatever kernels the library takes for it.
    Gemm(Gemm),
}

impl Launch {
    /// Binds a kernel of a program to arguments. `local` divides `global`; without it the driver chooses.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the program has no such kernel, or not of these arguments.
    pub fn new(
        program: &Program,
        name: &'static str,
        args: &[Arg<'_>],
        global: [usize; 3],
        local: Option<[usize; 3]>,
    ) -> Result<Self, OpenClError> {
        let kernel = call(name, cl::create_kernel(program.handle(), name))?;
        let mut buffers = Vec::new();
        for (index, arg) in (0..).zip(args) {
            let value = match arg {
                Arg::Buffer(buffer) => {
                    buffers.push((*buffer).clone());
                    cl::ArgVal::mem(buffer.memory())
                }
                Arg::I32(value) => cl::ArgVal::scalar(value),
                Arg::U32(value) => cl::ArgVal::scalar(value),
                Arg::F32(value) => cl::ArgVal::scalar(value),
                Arg::Local(bytes) => cl::ArgVal::local::<u8>(bytes),
            };
            call(name, cl::set_kernel_arg(&kernel, index, value))?;
        }
        Ok(Self { name, work: Work::Kernel { kernel, global, local, _buffers: buffers } })
    }

    /// A product of matrices by CLBlast. It is computed once, as the library compiles its kernels when it first needs
    /// them: what `c` holds is lost.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if there is no such library, or it refuses.
    pub(crate) fn gemm(device: &Arc<Device>, gemm: Gemm) -> Result<Self, OpenClError> {
        let queue = device.queue()?;
        gemm.enqueue(&queue, None)?;
        queue.finish()?;
        Ok(Self { name: "CLBlastSgemm", work: Work::Gemm(gemm) })
    }

    /// The kernel's name in its program, or the library's function.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn work(&self) -> &Work {
        &self.work
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.work {
            Work::Kernel { global, local, .. } => write!(f, "{} {global:?} by {local:?}", self.name),
            Work::Gemm(gemm) => write!(f, "{} {:?}", self.name, gemm.extents),
        }
    }
}
