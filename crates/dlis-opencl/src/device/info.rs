//! Which devices there are.

use std::fmt;
use std::sync::OnceLock;

use ocl_core as cl;

use crate::error::{OpenClError, call};

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// The host's processor: wide vectors, caches, no local memory worth its name.
    Cpu,
    /// A graphics processor, or an accelerator like one: many threads, local memory.
    Gpu,
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its place in the list of all platforms' devices.
    pub index: usize,
    /// The platform: the driver's maker.
    pub platform: String,
    /// Its name.
    pub name: String,
    /// Version of the driver.
    pub driver: String,
    /// Version of OpenCL.
    pub version: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Compute units: a GPU's multiprocessors, a CPU's threads.
    pub compute_units: usize,
    /// Bytes of local memory that a work-group is promised.
    pub local_bytes: usize,
    /// Largest work-group.
    pub max_work_group: usize,
    /// Bytes of memory.
    pub global_bytes: u64,
    /// Floats of the widest vectors that it calculates with, 1 if it has none.
    pub vector_floats: usize,
    /// NVIDIA's compute capability, `[major, minor]`, where the driver has one: 8.0 and later have tensor cores
    /// for tf32 and asynchronous copies, and understand inline PTX.
    pub compute_capability: Option<[u32; 2]>,
}

impl DeviceInfo {
    /// Whether the device understands the PTX that the `nvidia` kernels are written in.
    pub fn has_tensor_cores(&self) -> bool {
        self.compute_capability.is_some_and(|capability| capability >= [8, 0])
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, driver {})", self.name, self.platform, self.driver)
    }
}

/// Every device of every platform, in the order in which `opencl:INDEX` counts them.
///
/// # Errors
///
/// [`OpenClError::NoPlatform`] if no driver is registered.
pub fn devices() -> Result<Vec<DeviceInfo>, OpenClError> {
    Ok(found()?.into_iter().map(|(info, _, _)| info).collect())
}

/// A device with its handles.
pub(super) type Found = (DeviceInfo, cl::PlatformId, cl::DeviceId);

/// As [`devices`], with the handles. Asked once in a process: some drivers cannot be asked by two threads at once.
pub(super) fn found() -> Result<Vec<Found>, OpenClError> {
    static FOUND: OnceLock<Result<Vec<Found>, OpenClError>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> Result<Vec<Found>, OpenClError> {
    let none = |reason: String| OpenClError::NoPlatform { reason };
    let platforms = call("listing platforms", cl::get_platform_ids()).map_err(|error| none(error.to_string()))?;
    if platforms.is_empty() {
        return Err(none("the loader knows of none".to_owned()));
    }
    let mut all = Vec::new();
    for platform in platforms {
        let name = call("asking a platform", cl::get_platform_info(platform, cl::PlatformInfo::Name))?.to_string();
        // A platform without devices answers with an error.
        let Ok(ids) = cl::get_device_ids(platform, None, None) else { continue };
        for id in ids {
            all.push((describe(all.len(), name.clone(), id)?, platform, id));
        }
    }
    Ok(all)
}

/// `CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV` and `_MINOR_NV` of `cl_nv_device_attribute_query`.
const CAPABILITY: [u32; 2] = [0x4000, 0x4001];

fn describe(index: usize, platform: String, id: cl::DeviceId) -> Result<DeviceInfo, OpenClError> {
    let ask = |what: cl::DeviceInfo| call("asking a device", cl::get_device_info(id, what));
    let text = |what| Ok::<String, OpenClError>(ask(what)?.to_string().trim().to_owned());
    // What GPUs are given can be tested without one.
    let as_gpu = std::env::var_os("DLIS_OPENCL_AS_GPU").is_some_and(|value| !value.is_empty());
    let kind = match ask(cl::DeviceInfo::Type)? {
        _ if as_gpu => DeviceKind::Gpu,
        cl::DeviceInfoResult::Type(kind) if kind.contains(cl::DeviceType::CPU) => DeviceKind::Cpu,
        _ => DeviceKind::Gpu,
    };
    let compute_units = match ask(cl::DeviceInfo::MaxComputeUnits)? {
        cl::DeviceInfoResult::MaxComputeUnits(units) => units as usize,
        _ => 1,
    };
    let local_bytes = match ask(cl::DeviceInfo::LocalMemSize)? {
        cl::DeviceInfoResult::LocalMemSize(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        _ => 0,
    };
    let max_work_group = match ask(cl::DeviceInfo::MaxWorkGroupSize)? {
        cl::DeviceInfoResult::MaxWorkGroupSize(size) => size,
        _ => 1,
    };
    let global_bytes = match ask(cl::DeviceInfo::GlobalMemSize)? {
        cl::DeviceInfoResult::GlobalMemSize(bytes) => bytes,
        _ => 0,
    };
    let vector_floats = match ask(cl::DeviceInfo::NativeVectorWidthFloat)? {
        cl::DeviceInfoResult::NativeVectorWidthFloat(floats) => floats as usize,
        _ => 1,
    };
    let extensions = text(cl::DeviceInfo::Extensions)?;
    let attribute = |what| {
        let bytes = cl::get_device_info_raw(id, what).ok()?;
        Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
    };
    let capability = || Some([attribute(CAPABILITY[0])?, attribute(CAPABILITY[1])?]);
    Ok(DeviceInfo {
        index,
        platform,
        name: text(cl::DeviceInfo::Name)?,
        driver: text(cl::DeviceInfo::DriverVersion)?,
        version: text(cl::DeviceInfo::Version)?,
        kind,
        compute_units,
        local_bytes,
        max_work_group,
        global_bytes,
        vector_floats,
        compute_capability: extensions.contains("cl_nv_device_attribute_query").then(capability).flatten(),
    })
}
