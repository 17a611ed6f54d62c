//! What a kernel executes: a graph's layers after folding and fusion.

use std::fmt;

use dlis_formats::{DType, Format};
use dlis_model::{Activation, Conv2d, Linear, Pool};
use serde::{Deserialize, Serialize};

use crate::tensor::TensorSpec;

/// An executable operation. The graph's batch-norms are folded or have become [`Affine`](Self::Affine);
/// its flattens are renamings of bytes; [`Reorder`](Self::Reorder), [`Quantize`](Self::Quantize) and
/// [`Dequantize`](Self::Dequantize) are the runtime's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Two-dimensional convolution.
    Conv2d(Conv2d),
    /// Fully connected layer.
    Linear(Linear),
    /// `x * scale + shift`, a channel at a time; the scale is the op's weight, the shift its bias.
    Affine,
    /// Element-wise non-linearity.
    Activation(Activation),
    /// Maximum over a window.
    MaxPool(Pool),
    /// Mean over a window.
    AvgPool(Pool),
    /// Mean over height and width.
    GlobalAvgPool,
    /// Element-wise sum of two inputs.
    Add,
    /// Concatenation along the channels.
    Concat,
    /// Softmax over the channels.
    Softmax,
    /// First input times the second, a factor a channel.
    Scale,
    /// The input in the output's layout.
    Reorder,
    /// An f32 input as u8: each element the nearest that the output's quantisation has.
    Quantize,
    /// A u8 input as f32: the numbers that its elements stand for.
    Dequantize,
}

impl Operation {
    /// The name used in kernel ids and records.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Conv2d(_) => "conv2d",
            Self::Linear(_) => "linear",
            Self::Affine => "affine",
            Self::Activation(_) => "activation",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Add => "add",
            Self::Concat => "concat",
            Self::Softmax => "softmax",
            Self::Scale => "scale",
            Self::Reorder => "reorder",
            Self::Quantize => "quantize",
            Self::Dequantize => "dequantize",
        }
    }
}

/// What is done to an operation's result before it is stored, in this order. A bias, where the
/// operation has one, comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epilogue {
    /// Whether a tensor of the output's shape and layout is added.
    pub residual: bool,
    /// The non-linearity applied last.
    pub activation: Option<Activation>,
}

impl Epilogue {
    /// Nothing.
    pub const NONE: Self = Self { residual: false, activation: None };
}

/// All that a kernel is chosen by: the operation, its tensors and the format of its weights.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpSpec {
    /// What is computed.
    pub operation: Operation,
    /// The inputs, a residual not among them.
    pub inputs: Vec<TensorSpec>,
    /// The output.
    pub output: TensorSpec,
    /// What follows the operation.
    pub epilogue: Epilogue,
    /// Format of the weight, where there is one.
    pub weight: Option<Format>,
}

impl OpSpec {
    /// The same operation with all its tensors in one layout.
    #[must_use]
    pub fn in_layout(&self, layout: crate::Layout) -> Self {
        let inputs = self.inputs.iter().map(|input| input.with_layout(layout)).collect();
        Self { inputs, output: self.output.with_layout(layout), ..self.clone() }
    }

    /// Element type of the inputs, which is that of a kernel's [id](crate::KernelId::dtype); `None` where they
    /// differ, which no kernel executes, or there are none.
    pub fn dtype(&self) -> Option<DType> {
        let first = self.inputs.first()?.dtype;
        self.inputs.iter().all(|input| input.dtype == first).then_some(first)
    }

    /// Whether a tensor is u8, so that the operation needs an [`OpQuantization`](crate::OpQuantization).
    pub fn is_quantized(&self) -> bool {
        self.inputs.iter().chain([&self.output]).any(|tensor| tensor.dtype == DType::U8)
    }

    /// Multiply-accumulates for the whole batch, of convolutions and linear layers.
    pub fn macs(&self) -> u64 {
        match self.operation {
            Operation::Conv2d(conv) => {
                let [_, per_group, height, width] = conv.weight_dims();
                self.output.elements() as u64 * (per_group * height * width) as u64
            }
            Operation::Linear(linear) => self.output.elements() as u64 * linear.in_features as u64,
            _ => 0,
        }
    }

    /// Bytes that must move at least once: inputs, residual and output. Weights are the kernel's to
    /// count ([`Footprint::weight_bytes`](crate::Footprint)), as their format decides.
    pub fn activation_bytes(&self) -> u64 {
        let residual = if self.epilogue.residual { self.output.bytes() } else { 0 };
        (self.inputs.iter().map(TensorSpec::bytes).sum::<usize>() + self.output.bytes() + residual) as u64
    }
}

impl fmt::Display for OpSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation.name())?;
        match self.operation {
            Operation::Conv2d(Conv2d { window, groups, .. }) => {
                write!(f, " {}x{}", window.kernel[0], window.kernel[1])?;
                if window.stride != [1, 1] {
                    write!(f, "/{}", window.stride[0])?;
                }
                if groups > 1 {
                    write!(f, " g{groups}")?;
                }
            }
            Operation::MaxPool(pool) | Operation::AvgPool(pool) => {
                write!(f, " {}x{}/{}", pool.window.kernel[0], pool.window.kernel[1], pool.window.stride[0])?;
            }
            Operation::Activation(function) => write!(f, " {function:?}")?,
            _ => {}
        }
        for (index, input) in self.inputs.iter().enumerate() {
            write!(
                f,
                "{} {}x{}x{}x{}",
                if index == 0 { "" } else { " +" },
                input.batch,
                input.channels,
                input.height,
                input.width
            )?;
            if input.dtype != DType::F32 {
                write!(f, " {}", input.dtype)?;
            }
        }
        let out = self.output;
        write!(f, " -> {}x{}x{}x{}", out.batch, out.channels, out.height, out.width)?;
        if out.dtype != DType::F32 {
            write!(f, " {}", out.dtype)?;
        }
        if self.epilogue.residual {
            f.write_str(" + residual")?;
        }
        if let Some(activation) = self.epilogue.activation {
            write!(f, " + {}", format!("{activation:?}").to_lowercase())?;
        }
        Ok(())
    }
}
