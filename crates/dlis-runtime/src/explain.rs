//! Why each kernel was chosen, and why every other was not.

use std::fmt;

use dlis_backend::{Backend, KernelId, Layout, OpSpec, Operation, Program, Step, Support};
use dlis_formats::{DType, Format};
use serde::{Deserialize, Serialize};

use crate::choose::Choice;
use crate::lower::LoweredOp;
use crate::policy::Policy;

/// Why a kernel was not chosen for a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelVerdict {
    /// The kernel.
    pub kernel: KernelId,
    /// A clause that completes "not chosen because …".
    pub reason: String,
}

/// The choice for one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepExplanation {
    /// The layer.
    pub layer: String,
    /// What is computed.
    pub op: String,
    /// How often: once, or for every slice and share of the batch.
    pub runs: usize,
    /// Layout of the output.
    pub layout: Layout,
    /// Element type of the inputs, then of the output.
    pub dtypes: [DType; 2],
    /// The format of the weight that is executed.
    pub format: Option<Format>,
    /// The format that it had, its batch-norm folded, where that is not executed.
    pub expanded: Option<Format>,
    /// The kernel chosen.
    pub kernel: KernelId,
    /// Why.
    pub reason: String,
    /// Every other kernel of the operation.
    pub others: Vec<KernelVerdict>,
}

/// The choices of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The policy.
    pub policy: String,
    /// Shares of the batch that run side by side, each on one thread; 1 if the threads share every step.
    pub shares: usize,
    /// Every step, in order.
    pub steps: Vec<StepExplanation>,
}

impl Explanation {
    pub(crate) fn new<'a>(
        policy: &Policy,
        program: &Program,
        choices: impl Iterator<Item = Option<(&'a LoweredOp, &'a Choice)>>,
        backend: &dyn Backend,
    ) -> Self {
        let steps = program.steps.iter().zip(choices).enumerate().map(|(index, (step, of))| {
            let (op, choice) = of.unzip();
            let (runs, expanded) = (program.runs_of(index), op.and_then(|op| op.expanded));
            StepExplanation { runs, expanded, ..explain(policy, step, choice, backend) }
        });
        let steps = steps.collect();
        Self { policy: policy.to_string(), shares: program.shares, steps }
    }
}

/// Whether a layer with integer weights runs in f32 by the backend's wish.
fn floats_preferred(op: &OpSpec, backend: &dyn Backend) -> bool {
    let integers = matches!(op.weight, Some(Format::Int8 | Format::Int4));
    integers && op.dtype() == Some(DType::F32) && backend.prefers_f32(op.output.batch)
}

fn explain(policy: &Policy, step: &Step, choice: Option<&Choice>, backend: &dyn Backend) -> StepExplanation {
    let cost = |cost: f64| match policy {
        Policy::Measured => format!("measured {:.1} µs", cost / 1e3),
        _ => format!("estimated {:.1} µs on the nominal machine", cost / 1e3),
    };
    // A pattern that nothing matches has decided nothing.
    let matching = match policy {
        Policy::Fixed(pattern) if pattern.matches(&step.kernel) => Some(pattern),
        _ => None,
    };
    let reason = match choice {
        None => match step.op.operation {
            Operation::Quantize => "a layer wants the tensor as u8".to_owned(),
            Operation::Dequantize => "a layer, or the result, wants the tensor as f32".to_owned(),
            _ => "a layer wants the tensor in another layout".to_owned(),
        },
        Some(choice) => match policy {
            Policy::Fixed(pattern) if matching.is_some() => format!("it matches `{pattern}`"),
            Policy::Fixed(pattern) => {
                format!("no kernel that matches `{pattern}` can execute the layer; {}", cost(choice.chosen.cost))
            }
            _ if floats_preferred(&step.op, backend) => {
                format!("{}; at this batch the backend is faster in f32 than in integers", cost(choice.chosen.cost))
            }
            _ => cost(choice.chosen.cost),
        },
    };
    let hw = backend.hardware();
    let rejected = |kernel: &&&'static dyn dlis_backend::Kernel| {
        kernel.id().op() == step.op.operation.name() && kernel.id() != step.kernel
    };
    let others = backend.kernels().iter().filter(rejected).map(|kernel| {
        let id = kernel.id();
        let candidates = choice.map_or(&[][..], |choice| &choice.candidates);
        let best =
            candidates.iter().filter(|candidate| candidate.kernel.id() == id).min_by(|a, b| a.cost.total_cmp(&b.cost));
        let reason = match (best, matching) {
            (Some(_), Some(pattern)) if !pattern.matches(&id) => format!("it does not match `{pattern}`"),
            (Some(candidate), _) if candidate.abandoned => {
                format!("it had taken {:.1} µs when measuring it was given up", candidate.cost / 1e3)
            }
            (Some(candidate), _) => {
                let layout = candidate.spec.output.layout;
                let chosen = choice.map_or(f64::INFINITY, |choice| choice.chosen.cost);
                if candidate.cost <= chosen && layout != step.op.output.layout {
                    format!("{}, but it needs {layout} tensors and reordering costs more", cost(candidate.cost))
                } else {
                    format!("{}, {:.2} times the chosen", cost(candidate.cost), candidate.cost / chosen)
                }
            }
            (None, _) => {
                let reason = |layout| match kernel.support(&step.op.in_layout(layout), hw) {
                    Support::No(reason) => reason.into_owned(),
                    Support::Yes => "another comes first".to_owned(),
                };
                let layouts = Layout::ALL.into_iter().filter(|layout| layout.takes(step.op.output.batch));
                let mut reasons: Vec<String> = Vec::new();
                for reason in layouts.map(reason) {
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
                reasons.join(" / ")
            }
        };
        KernelVerdict { kernel: id, reason }
    });
    StepExplanation {
        layer: step.layer.clone(),
        op: step.op.to_string(),
        runs: 1,
        layout: step.op.output.layout,
        dtypes: [step.op.dtype().unwrap_or(DType::F32), step.op.output.dtype],
        format: step.op.weight,
        expanded: None,
        kernel: step.kernel.clone(),
        reason,
        others: others.collect(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy: {}", self.policy)?;
        if self.shares > 1 {
            writeln!(f, "{} shares of the batch side by side, each on one thread: measured to be faster", self.shares)?;
        }
        for step in &self.steps {
            write!(f, "{} (", step.layer)?;
            if step.runs > 1 {
                write!(f, "{} times ", step.runs)?;
            }
            write!(f, "{}, {}", step.op, step.layout)?;
            let [input, output] = step.dtypes;
            if input == output { write!(f, ", {input}") } else { write!(f, ", {input} to {output}") }?;
            match (step.format, step.expanded) {
                (Some(format), None) => write!(f, ", {format}")?,
                (Some(format), Some(stored)) => write!(f, ", {stored} executed as {format}")?,
                (None, _) => {}
            }
            writeln!(f, ")")?;
            writeln!(f, "  chosen  {}: {}", step.kernel, step.reason)?;
            for other in &step.others {
                writeln!(f, "  not     {}: {}", other.kernel, other.reason)?;
            }
        }
        Ok(())
    }
}
