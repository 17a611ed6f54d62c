//! What a layer computes.

use serde::{Deserialize, Serialize};

/// A sliding window over height and width: that of a convolution or of a pooling layer.
///
/// Output extent along an axis: `(input + before + after - dilation * (kernel - 1) - 1) / stride + 1`,
/// rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Steps along height and width.
    #[serde(default = "ones", skip_serializing_if = "is_ones")]
    pub stride: [usize; 2],
    /// Rows or columns added at the top, left, bottom and right.
    #[serde(default, skip_serializing_if = "is_zeros")]
    pub padding: [usize; 4],
    /// Distance between neighbouring taps along height and width.
    #[serde(default = "ones", skip_serializing_if = "is_ones")]
    pub dilation: [usize; 2],
}

const fn ones() -> [usize; 2] {
    [1; 2]
}

fn is_ones(value: &[usize; 2]) -> bool {
    *value == ones()
}

fn is_zeros(value: &[usize; 4]) -> bool {
    *value == [0; 4]
}

impl Window {
    /// A square window of stride 1 without padding.
    pub const fn square(kernel: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [1; 2], padding: [0; 4], dilation: [1; 2] }
    }

    /// The same window with this stride along both axes.
    pub const fn with_stride(self, stride: usize) -> Self {
        Self { stride: [stride; 2], ..self }
    }

    /// The same window with this padding on all four sides.
    pub const fn with_padding(self, padding: usize) -> Self {
        Self { padding: [padding; 4], ..self }
    }

    /// Number of taps.
    pub const fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Height and width of an input with its padding; `None` on overflow.
    pub(crate) fn padded(&self, input: [usize; 2]) -> Option<[usize; 2]> {
        let axis = |i: usize| input[i].checked_add(self.padding[i])?.checked_add(self.padding[i + 2]);
        Some([axis(0)?, axis(1)?])
    }

    /// Extent of the output for an input of this height and width; `None` where the window is
    /// ill-formed (a zero extent, an overflow) or larger than the padded input.
    pub fn output(&self, input: [usize; 2]) -> Option<[usize; 2]> {
        let padded = self.padded(input)?;
        let axis = |i: usize| {
            let reach = self.dilation[i].checked_mul(self.kernel[i].checked_sub(1)?)?.checked_add(1)?;
            if self.dilation[i] == 0 {
                return None;
            }
            Some(padded[i].checked_sub(reach)?.checked_div(self.stride[i])? + 1)
        };
        Some([axis(0)?, axis(1)?])
    }

    /// Whether every output is a function of the one input at its own position.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1; 2] && self.stride == [1; 2] && self.padding == [0; 4]
    }
}

/// A two-dimensional convolution (cross-correlation, as in every framework).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Groups that input and output channels are divided into; each sees only its own.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
    /// The sliding window.
    #[serde(flatten)]
    pub window: Window,
    /// Whether a bias a channel is added.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bias: bool,
}

const fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_one(value: &usize) -> bool {
    *value == 1
}

impl Conv2d {
    /// Extents of the weight: `[out, in / groups, height, width]`.
    ///
    /// # Panics
    ///
    /// If there are no groups, which no valid graph has.
    pub const fn weight_dims(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.groups, self.window.kernel[0], self.window.kernel[1]]
    }

    /// Whether every channel is convolved on its own.
    pub const fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels && self.groups == self.out_channels
    }
}

/// A fully connected layer: `y = W x + b`, `W` of `[out, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Features of the input.
    pub in_features: usize,
    /// Features of the output.
    pub out_features: usize,
    /// Whether a bias a feature is added.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bias: bool,
}

/// A pooling layer's window and how it counts the padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The sliding window.
    #[serde(flatten)]
    pub window: Window,
    /// Average pooling only: whether the padding counts among the averaged elements.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub include_padding: bool,
}

/// An element-wise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

impl Activation {
    /// The function itself; the reference that every kernel is tested against. NaN stays NaN.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            // Not `f32::max`, which would turn NaN into 0.
            Self::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

/// What a layer computes. Activations are `[batch, channels, height, width]`; the features of a linear
/// layer are channels of a 1x1 image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// Two-dimensional convolution; parameters `weight` and, if so declared, `bias`.
    Conv2d(Conv2d),
    /// Fully connected layer over the channels of a 1x1 image; parameters as above.
    Linear(Linear),
    /// `(x - running_mean) / sqrt(running_var + eps) * weight + bias`, a channel at a time.
    BatchNorm {
        /// Channels of input and output.
        channels: usize,
        /// Added to the variance.
        eps: f32,
    },
    /// Element-wise non-linearity.
    Activation {
        /// Which one.
        function: Activation,
    },
    /// Maximum over a window; the padding never wins.
    MaxPool(Pool),
    /// Mean over a window.
    AvgPool(Pool),
    /// Mean over height and width: `[n, c, h, w]` to `[n, c, 1, 1]`.
    GlobalAvgPool,
    /// Element-wise sum of two inputs of one shape.
    Add,
    /// Concatenation of any number of inputs along the channels.
    Concat,
    /// `[n, c, h, w]` to `[n, c * h * w, 1, 1]`, in that order.
    Flatten,
    /// Softmax over the channels.
    Softmax,
    /// First input times the second, a factor a channel (`[n, c, 1, 1]`), as in squeeze-and-excitation
    /// (Hu et al. 2018, equation 4).
    Scale,
}

impl Op {
    /// The name used in kernel ids, files and records.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Conv2d(_) => "conv2d",
            Self::Linear(_) => "linear",
            Self::BatchNorm { .. } => "batch_norm",
            Self::Activation { .. } => "activation",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Add => "add",
            Self::Concat => "concat",
            Self::Flatten => "flatten",
            Self::Softmax => "softmax",
            Self::Scale => "scale",
        }
    }

    /// The parameters that the layer owns: name, extents, and whether training changes it (running
    /// statistics are not trained).
    pub fn parameters(&self) -> Vec<Parameter> {
        let parameter = |name, dims: &[usize], trainable| Parameter { name, dims: dims.to_vec(), trainable };
        match self {
            Self::Conv2d(conv) => {
                let mut list = vec![parameter("weight", &conv.weight_dims(), true)];
                list.extend(conv.bias.then(|| parameter("bias", &[conv.out_channels], true)));
                list
            }
            Self::Linear(linear) => {
                let mut list = vec![parameter("weight", &[linear.out_features, linear.in_features], true)];
                list.extend(linear.bias.then(|| parameter("bias", &[linear.out_features], true)));
                list
            }
            Self::BatchNorm { channels, .. } => ["weight", "bias", "running_mean", "running_var"]
                .into_iter()
                .map(|name| parameter(name, &[*channels], !name.starts_with("running")))
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// A tensor that a layer owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name within the layer, as PyTorch has it.
    pub name: &'static str,
    /// Its extents.
    pub dims: Vec<usize>,
    /// Whether training changes it.
    pub trainable: bool,
}
