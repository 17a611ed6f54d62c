//! The backend.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dlis_backend::{Backend, CompileError, Executable, Kernel, KernelId, OpWeights, Program};
use dlis_hw::{Hardware, Roofline};

use crate::device::Device;
use crate::error::OpenClError;
use crate::executable::OpenClExecutable;
use crate::host::Bound;
use crate::kernels;
use crate::nvidia;
use crate::peaks;
use crate::precision::Precision;

/// An OpenCL device as a system of layer 4.
#[derive(Clone, Debug)]
pub struct OpenClBackend {
    name: String,
    device: Arc<Device>,
    precision: Precision,
    kernels: &'static [&'static Bound],
    listed: &'static [&'static dyn Kernel],
    hw: Hardware,
}

/// The kernels of a device at a precision, bound to it: for a planner, and for whoever stages them.
type Listed = (&'static [&'static Bound], &'static [&'static dyn Kernel]);

impl OpenClBackend {
    /// The backend of this device and precision.
    ///
    /// # Errors
    ///
    /// [`OpenClError::Precision`] if the device does not offer it.
    pub fn new(device: Arc<Device>, precision: Precision) -> Result<Self, OpenClError> {
        if precision == Precision::Tf32 && !device.info().has_tensor_cores() && !nvidia::emulates() {
            return Err(OpenClError::Precision { device: device.info().to_string(), precision: precision.name() });
        }
        let suffix = if precision == Precision::F32 { String::new() } else { format!(":{precision}") };
        let name = format!("opencl:{}{suffix}", device.info().index);
        let (kernels, listed) = listed(&device, precision);
        Ok(Self { name, device, precision, kernels, listed, hw: Hardware::detect() })
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// As [`compile`](Backend::compile), as what it is: to be asked where its time went, or run without transfers.
    ///
    /// # Errors
    ///
    /// As [`compile`](Backend::compile).
    pub fn compile_for_device(
        &self,
        program: &Program,
        weights: &[OpWeights<'_>],
    ) -> Result<OpenClExecutable, CompileError> {
        OpenClExecutable::new(self, self.kernels, program, weights)
    }
}

/// The names of all kernels, of whatever device and precision.
pub fn kernel_ids() -> impl Iterator<Item = KernelId> {
    Precision::ALL.into_iter().flat_map(|precision| kernels::kernels().iter().map(move |kernel| kernel.id(precision)))
}

/// Planners keep kernels for as long as the process lives, so that the kernels of a device are made once a precision
/// and never freed; devices are few.
fn listed(device: &Arc<Device>, precision: Precision) -> Listed {
    static ALL: OnceLock<Mutex<HashMap<(usize, Precision), Listed>>> = OnceLock::new();
    let mut all = ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    *all.entry((device.info().index, precision)).or_insert_with(|| {
        let bound = kernels::kernels()
            .iter()
            .filter(|kernel| kernel.runs_on(device).is_yes())
            .map(|&kernel| Bound::new(Arc::clone(device), precision, kernel));
        let bound: &'static [Bound] = Box::leak(bound.collect());
        let kernels: Vec<&'static Bound> = bound.iter().collect();
        let listed: Vec<&'static dyn Kernel> = bound.iter().map(|bound| bound as &dyn Kernel).collect();
        (Box::leak(kernels.into_boxed_slice()), Box::leak(listed.into_boxed_slice()))
    })
}

/// Of `opencl:DEVICE` or `opencl:DEVICE:PRECISION`.
impl FromStr for OpenClBackend {
    type Err = OpenClError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let error = || OpenClError::Name { name: name.to_owned() };
        let rest = name.strip_prefix("opencl:").ok_or_else(error)?;
        let (device, precision) = match rest.split_once(':') {
            None => (rest, Precision::F32),
            Some((device, text)) => {
                (device, Precision::ALL.into_iter().find(|precision| precision.name() == text).ok_or_else(error)?)
            }
        };
        if device.is_empty() {
            return Err(error());
        }
        Self::new(Device::open(device)?, precision)
    }
}

impl Backend for OpenClBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn hardware(&self) -> &Hardware {
        &self.hw
    }

    fn threads(&self) -> usize {
        1
    }

    fn configuration(&self) -> String {
        format!("{}, {}", self.device.info(), self.precision)
    }

    fn device(&self) -> Option<String> {
        Some(self.configuration())
    }

    fn measure_roofline(&self) -> Option<Roofline> {
        let measured = peaks::measure(&self.device, self.precision);
        measured.inspect_err(|error| tracing::warn!(%error, "the device's peaks could not be measured")).ok()
    }

    fn prefers_f32(&self, batch: usize) -> bool {
        nvidia::persistent::prefers_f32(&self.device, batch)
    }

    fn kernels(&self) -> &[&'static dyn Kernel] {
        self.listed
    }

    fn compile(&self, program: &Program, weights: &[OpWeights<'_>]) -> Result<Box<dyn Executable>, CompileError> {
        Ok(Box::new(self.compile_for_device(program, weights)?))
    }
}
