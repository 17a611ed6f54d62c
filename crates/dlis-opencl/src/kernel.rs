//! What a kernel is on a device.

use std::fmt;
use std::sync::Arc;

use dlis_backend::{KernelId, OpSpec, OpWeights, Support};

use crate::device::{Buffer, Device, Launch, Program};
use crate::error::OpenClError;
use crate::precision::Precision;

/// A tensor in a device's memory.
#[derive(Clone, Debug)]
pub struct Operand {
    /// The memory that it lies in.
    pub buffer: Buffer,
    /// Its first element, counted in elements of its stored type.
    pub offset: usize,
}

/// The tensors of one operation, and memory that lives only while it runs.
#[derive(Clone, Debug)]
pub struct Operands {
    /// The inputs, a residual not among them.
    pub inputs: Vec<Operand>,
    /// What is added before the activation.
    pub residual: Option<Operand>,
    /// The output.
    pub output: Operand,
    /// As many bytes as [`DeviceKernel::scratch_bytes`] asks for, or more.
    pub scratch: Option<Buffer>,
}

/// An operation about to be staged.
#[derive(Debug)]
pub struct Stage<'a> {
    /// Where.
    pub device: &'a Arc<Device>,
    /// How floats are stored and multiplied.
    pub precision: Precision,
    /// What.
    pub op: &'a OpSpec,
    /// Of what, and where to.
    pub operands: &'a Operands,
}

impl Stage<'_> {
    /// A program with the text of `common.cl` before it and the definitions that all programs share.
    ///
    /// # Errors
    ///
    /// [`OpenClError::Build`].
    pub fn program(&self, name: &'static str, source: &str, options: &str) -> Result<Program, OpenClError> {
        let source = format!("{}\n{source}", include_str!("kernels/common.cl"));
        let half = if self.precision == Precision::F16 { " -DREAL_HALF" } else { "" };
        self.device.program(name, &source, format!("{options}{half}").trim_start())
    }
}

/// An operation bound to its tensors: packed weights in the device's memory and the launches that compute it.
#[derive(Debug, Default)]
pub struct Staged {
    /// In this order.
    pub launches: Vec<Launch>,
    /// Bytes of packed weights and biases in the device's memory.
    pub weight_bytes: usize,
}

/// One algorithm for one operation and weight format, on devices of some kind.
///
/// A kernel is stateless, and says of itself all that choosing it needs.
pub trait DeviceKernel: Send + Sync {
    /// Its name at a precision.
    fn id(&self, precision: Precision) -> KernelId;

    /// Whether it is written for devices like this one, or why not. What is not is not listed by the device's backend.
    fn runs_on(&self, _device: &Device) -> Support {
        Support::Yes
    }

    /// Whether it can execute `op` on a device that it [runs on](Self::runs_on), or why not. That the extents of tensors fit together, and that they have fewer
    /// than 2^31 elements, has been checked.
    fn support(&self, op: &OpSpec, device: &Device, precision: Precision) -> Support;

    /// As [`Kernel::efficiency`](dlis_backend::Kernel::efficiency): a rough share of the device's roofline that it
    /// reaches, in (0, 1].
    fn efficiency(&self, op: &OpSpec, device: &Device) -> f32;

    /// Bytes of memory that it needs besides while it runs.
    fn scratch_bytes(&self, _op: &OpSpec, _device: &Device, _precision: Precision) -> usize {
        0
    }

    /// Packs and uploads the weights and binds the launches.
    ///
    /// # Errors
    ///
    /// [`OpenClError`] if the device has not the memory, or its compiler refuses.
    fn stage(&self, stage: &Stage<'_>, weights: OpWeights<'_>) -> Result<Staged, OpenClError>;

    /// How consecutive steps of this kernel become one, if they do.
    fn fusion(&self) -> Option<&'static dyn Fusion> {
        None
    }
}

impl fmt::Debug for dyn DeviceKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKernel({})", self.id(Precision::F32))
    }
}

/// One of several steps that are staged together.
#[derive(Debug)]
pub struct FusedStep<'a> {
    /// What is computed.
    pub op: &'a OpSpec,
    /// With what.
    pub weights: OpWeights<'a>,
    /// Of what, and where to.
    pub operands: &'a Operands,
    /// Whether the result is read by a later step that is not among these, or is the network's.
    pub is_read_later: bool,
}

/// Makes one of consecutive steps.
pub trait Fusion: Send + Sync {
    /// Its name: steps whose kernels name the same one are staged together.
    fn name(&self) -> &'static str;

    /// As [`DeviceKernel::scratch_bytes`], for all steps together.
    fn scratch_bytes(&self, ops: &[&OpSpec], device: &Device, precision: Precision) -> usize;

    /// As [`DeviceKernel::stage`]; weight bytes are told for each step. `scratch` is that of the first step.
    ///
    /// # Errors
    ///
    /// As [`DeviceKernel::stage`].
    fn stage(
        &self,
        device: &Arc<Device>,
        precision: Precision,
        steps: &[FusedStep<'_>],
    ) -> Result<(Vec<Launch>, Vec<usize>), OpenClError>;
}

impl fmt::Debug for dyn Fusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fusion({})", self.name())
    }
}
