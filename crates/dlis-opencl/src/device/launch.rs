//! A kernel with its arguments, ready to be queued any number of times.

use std::fmt;

use ocl_core as cl;

use super::{Buffer, Program};
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

/// A kernel with its arguments and the work it is given.
pub struct Launch {
    kernel: cl::Kernel,
    name: &'static str,
    global: [usize; 3],
    local: Option<[usize; 3]>,
    /// Kept alive as long as the kernel may run.
    _buffers: Vec<Buffer>,
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
        Ok(Self { kernel, name, global, local, _buffers: buffers })
    }

    /// The kernel's name in its program.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn parts(&self) -> (&cl::Kernel, &[usize; 3], Option<[usize; 3]>) {
        (&self.kernel, &self.global, self.local)
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} by {:?}", self.name, self.global, self.local)
    }
}
