//! What can go wrong with an OpenCL device.

/// Why a device could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenClError {
    /// There is no OpenCL on this machine: no driver is registered with the loader.
    #[error(
        "no OpenCL platform: {reason}. Install a driver (the GPU's own, or PoCL for the CPU: Debian's \
         `pocl-opencl-icd`)"
    )]
    NoPlatform {
        /// What the loader said.
        reason: String,
    },
    /// No device is called so.
    #[error("no OpenCL device `{asked}`; there are: {found}")]
    NoDevice {
        /// What was asked for.
        asked: String,
        /// The devices there are.
        found: String,
    },
    /// A name that cannot be understood.
    #[error(
        "`{name}` is no OpenCL backend: expected `opencl:DEVICE` or `opencl:DEVICE:PRECISION`, DEVICE an index or part of a name, PRECISION f32, tf32 or f16"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The device does not offer a precision.
    #[error("{device} does not offer {precision}: it needs an NVIDIA GPU of compute capability 8.0 or later")]
    Precision {
        /// The device.
        device: String,
        /// The precision.
        precision: &'static str,
    },
    /// A program did not compile.
    #[error("the OpenCL compiler of {device} refused `{program}` with {options}:\n{log}")]
    Build {
        /// The device.
        device: String,
        /// The program.
        program: &'static str,
        /// The compiler's options.
        options: String,
        /// What it said.
        log: String,
    },
    /// Any other call failed.
    #[error("OpenCL: {call}: {reason}")]
    Call {
        /// What was being done.
        call: &'static str,
        /// What the driver said.
        reason: String,
    },
}

/// Names the call in an error of the driver.
pub(crate) fn call<T>(call: &'static str, result: Result<T, ocl_core::Error>) -> Result<T, OpenClError> {
    result.map_err(|error| {
        // The library's messages are of many lines; the first that says something is enough.
        let text = error.to_string();
        let reason = text.lines().map(str::trim).find(|line| line.contains("CL_") || line.contains("rror"));
        OpenClError::Call { call, reason: reason.unwrap_or(text.trim()).to_owned() }
    })
}
