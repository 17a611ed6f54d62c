//! A device's kernel as the host sees it: chosen like any other, and able to run on tensors in the host's memory.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use dlis_backend::{
    Footprint, Io, Kernel, KernelId, OpSpec, OpWeights, Parallel, PrepareError, Prepared, Scratch, Support, TensorSpec,
};
use dlis_formats::DType;
use dlis_hw::Hardware;

use crate::device::{Device, Queue};
use crate::error::OpenClError;
use crate::kernel::{DeviceKernel, Operand, Operands, Stage, Staged};
use crate::precision::Precision;

/// A kernel on a device at a precision.
pub(crate) struct Bound {
    device: Arc<Device>,
    precision: Precision,
    kernel: &'static dyn DeviceKernel,
}

impl Bound {
    pub(crate) fn new(device: Arc<Device>, precision: Precision, kernel: &'static dyn DeviceKernel) -> Self {
        Self { device, precision, kernel }
    }

    pub(crate) fn kernel(&self) -> &'static dyn DeviceKernel {
        self.kernel
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.id(), self.device.info())
    }
}

/// Bytes of a tensor as it is stored at a precision.
pub(crate) fn stored_bytes(spec: TensorSpec, precision: Precision) -> usize {
    spec.elements() * if spec.dtype == DType::F32 { precision.bytes() } else { spec.dtype.bytes() }
}

impl Kernel for Bound {
    fn id(&self) -> KernelId {
        self.kernel.id(self.precision)
    }

    fn support(&self, op: &OpSpec, _: &Hardware) -> Support {
        let tensors = || op.inputs.iter().chain([&op.output]);
        let few = |spec: &TensorSpec| spec.checked_bytes().is_some_and(|bytes| i32::try_from(bytes).is_ok());
        Support::when(tensors().all(few), "its tensors must be of less than 2 GiB")
            // Of every kernel, so that none has to: their programs step from one image to the next.
            .and(|| {
                Support::when(
                    tensors().all(|spec| spec.strides().is_some()),
                    "it computes on nchw or nhwc activations only",
                )
            })
            .and(|| Support::when(op.extents_agree(), "the extents of its tensors do not fit together"))
            .and(|| self.kernel.support(op, &self.device, self.precision))
    }

    fn efficiency(&self, op: &OpSpec) -> f32 {
        self.kernel.efficiency(op, &self.device)
    }

    fn prepare(&self, op: &OpSpec, weights: OpWeights<'_>, _: &Hardware) -> Result<Box<dyn Prepared>, PrepareError> {
        let alone = Alone::new(self, op, weights)
            .map_err(|error| PrepareError::Device { kernel: Box::new(self.id()), reason: error.to_string() })?;
        let weight_bytes = alone.staged.weight_bytes;
        Ok(Box::new(OnHost { alone: Mutex::new(alone), weight_bytes }))
    }
}

/// One operation with tensors of its own in the device's memory.
struct Alone {
    op: OpSpec,
    precision: Precision,
    queue: Queue,
    operands: Operands,
    staged: Staged,
}

impl Alone {
    fn new(bound: &Bound, op: &OpSpec, weights: OpWeights<'_>) -> Result<Self, OpenClError> {
        let (device, precision) = (&bound.device, bound.precision);
        let place = |spec: TensorSpec| {
            Ok::<Operand, OpenClError>(Operand { buffer: device.buffer(stored_bytes(spec, precision))?, offset: 0 })
        };
        let scratch = bound.kernel.scratch_bytes(op, device, precision);
        let operands = Operands {
            inputs: op.inputs.iter().map(|&spec| place(spec)).collect::<Result<_, _>>()?,
            residual: op.epilogue.residual.then(|| place(op.output)).transpose()?,
            output: place(op.output)?,
            scratch: (scratch > 0).then(|| device.buffer(scratch)).transpose()?,
        };
        let staged = bound.kernel.stage(&Stage { device, precision, op, operands: &operands }, weights)?;
        Ok(Self { op: op.clone(), precision, queue: device.queue()?, operands, staged })
    }

    fn write(&self, spec: TensorSpec, to: &Operand, bytes: &[u8]) -> Result<(), OpenClError> {
        if spec.dtype == DType::F32 && self.precision == Precision::F16 {
            let halves: Vec<half::f16> =
                bytes.as_chunks().0.iter().map(|&b| half::f16::from_f32(f32::from_ne_bytes(b))).collect();
            self.queue.write_now(&to.buffer, 0, bytemuck::cast_slice(&halves))
        } else {
            self.queue.write_now(&to.buffer, 0, bytes)
        }
    }

    fn run(&self, io: &mut Io<'_>) -> Result<(), OpenClError> {
        let bytes = |view: dlis_backend::View<'_>| match view.spec().dtype {
            DType::F32 => bytemuck::cast_slice(view.f32()).to_vec(),
            _ => view.u8().to_vec(),
        };
        for (index, operand) in self.operands.inputs.iter().enumerate() {
            self.write(self.op.inputs[index], operand, &bytes(io.input(index)))?;
        }
        if let (Some(operand), Some(view)) = (&self.operands.residual, io.residual()) {
            self.write(self.op.output, operand, &bytes(view))?;
        }
        for launch in &self.staged.launches {
            self.queue.launch(launch)?;
        }
        let buffer = &self.operands.output.buffer;
        match (self.op.output.dtype, self.precision) {
            (DType::F32, Precision::F16) => {
                let mut halves = vec![half::f16::ZERO; self.op.output.elements()];
                self.queue.read_now(buffer, 0, bytemuck::cast_slice_mut(&mut halves))?;
                io.output().f32().iter_mut().zip(halves).for_each(|(out, half)| *out = half.to_f32());
                Ok(())
            }
            (DType::F32, _) => self.queue.read_now(buffer, 0, bytemuck::cast_slice_mut(io.output().f32())),
            _ => self.queue.read_now(buffer, 0, io.output().u8()),
        }
    }
}

/// An operation that takes its tensors to the device and back.
struct OnHost {
    alone: Mutex<Alone>,
    weight_bytes: usize,
}

impl Prepared for OnHost {
    fn footprint(&self, _: usize) -> Footprint {
        Footprint { weight_bytes: self.weight_bytes, ..Footprint::default() }
    }

    /// # Panics
    ///
    /// If the device fails: this way of running an operation is for tests.
    fn run(&self, io: &mut Io<'_>, _: &mut Scratch<'_>, _: Parallel<'_>) {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = alone.run(io) {
            panic!("{error}");
        }
    }
}
