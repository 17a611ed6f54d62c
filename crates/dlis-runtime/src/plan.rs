//! Plans: which kernel, which layout and which memory for every operation.

use dlis_backend::{Backend, KernelId, Layout, OpWeights, OwnedWeights, Program};
use dlis_formats::{Format, Weight};
use dlis_model::{Network, graph::MAX_ELEMENTS};

use crate::choose::{Choice, Choices, choose};
use crate::emit::{Emitted, Emitter, Origin, Reuse};
use crate::error::PlanError;
use crate::explain::Explanation;
use crate::lower::{Fusion, Lowered, LoweredOp, lower};
use crate::policy::Policy;
use crate::slices::{LEAST_GAIN, Slicing, head};
use crate::tune::{Evictor, TuneCache, Tuner, bytes_read};
use crate::types::assign_types;

/// Makes plans for one backend.
#[derive(Debug)]
pub struct Planner<'a> {
    backend: &'a dyn Backend,
    policy: Policy,
    batch: usize,
    cold: bool,
    cache: Option<&'a mut TuneCache>,
}

impl<'a> Planner<'a> {
    /// A planner of batches of one, by [`Policy::Heuristic`].
    pub fn new(backend: &'a dyn Backend) -> Self {
        Self { backend, policy: Policy::Heuristic, batch: 1, cold: false, cache: None }
    }

    /// How kernels are chosen.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Images of a run.
    #[must_use]
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Whether [`Policy::Measured`] puts the weights of a layer out of the caches before each run in any case, and not
    /// only where those of the network do not fit them: for a layer alone that is to run as in a larger network.
    #[must_use]
    pub fn cold(self, cold: bool) -> Self {
        Self { cold, ..self }
    }

    /// Where [`Policy::Measured`] finds and leaves its measurements.
    #[must_use]
    pub fn cache(self, cache: &'a mut TuneCache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Plans a network.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if a batch-norm cannot be folded, the batch is too large, or the backend has no kernel
    /// for a layer.
    pub fn plan(self, network: &Network) -> Result<Plan, PlanError> {
        self.plan_owned(network.clone())
    }

    /// Plans a network that nobody needs afterwards, so that its weights are not in memory twice; they are while
    /// [`Policy::Measured`] runs what it has not measured yet, and, where it divides a batch, three times.
    ///
    /// # Errors
    ///
    /// As [`plan`](Self::plan).
    pub fn plan_owned(self, network: Network) -> Result<Plan, PlanError> {
        self.plan_as(network, Fusion::Full, Reuse::Memory)
    }

    /// Plans a network, its layers fused and its memory reused or not.
    pub(crate) fn plan_as(self, network: Network, fusion: Fusion, reuse: Reuse) -> Result<Plan, PlanError> {
        let mut lowered = lower(network, fusion)?;
        let shapes = lowered.ops.iter().map(|op| op.output_shape).chain([lowered.input]);
        let largest = shapes.map(|shape| shape.elements()).max().unwrap_or(0);
        if self.batch == 0 || largest.checked_mul(self.batch).is_none_or(|elements| elements > MAX_ELEMENTS) {
            return Err(PlanError::Batch { batch: self.batch, max_elements: MAX_ELEMENTS });
        }
        // Whoever fixes the kernels may want those in integers.
        let integers = matches!(self.policy, Policy::Fixed(_)) || !self.backend.prefers_f32(self.batch);
        assign_types(&mut lowered, self.backend, self.batch, integers);
        let mut unsaved = TuneCache::in_memory();
        let weight_bytes = lowered.ops.iter().filter_map(|op| op.weight.as_ref()).map(bytes_read).sum();
        let measured = self.policy == Policy::Measured;
        let weight_bytes = if self.cold { usize::MAX } else { weight_bytes };
        let evictor = measured.then(|| Evictor::of(self.backend, weight_bytes)).flatten();
        let mut tuner = Tuner::new(self.backend, self.cache.unwrap_or(&mut unsaved), evictor);
        let mut draft = Draft::new(&lowered, self.backend, &self.policy, self.batch, reuse, &mut tuner)?;
        // Where tensors stay, they are those of the whole batch.
        let shares = Some(self.backend.threads()).filter(|&threads| {
            let divides = threads > 1 && self.backend.divides_batches() && self.batch.is_multiple_of(threads);
            divides && measured && reuse == Reuse::Memory
        });
        if let Some(shares) = shares {
            let (backend, policy) = (self.backend, &self.policy);
            let mut of_shares = tuner.of_shares(shares);
            let shared = Draft::new(&lowered, backend, policy, self.batch / shares, reuse, &mut of_shares);
            let faster = shared.and_then(|mut shared| {
                shared.emitted.program.shares = shares;
                let [whole, parts] = tuner.compare(&lowered, [&draft, &shared])?;
                Ok((parts < (1.0 - LEAST_GAIN) * whole).then_some(shared))
            });
            // There is a plan already: what cannot be had in shares, for want of memory as a rule, is not had in shares.
            if let Ok(Some(shared)) = faster {
                draft = shared;
            }
        }
        let Draft { slicing, choices, emitted: Emitted { program, origins } } = draft;
        for (op, choice) in lowered.ops.iter_mut().zip(&choices.ops) {
            if choice.chosen.spec.weight == Some(Format::DenseF32) {
                op.expand();
            }
        }
        Ok(Plan { program, origins, ops: lowered.ops, choices: choices.ops, slicing, policy: self.policy })
    }
}

/// A program, and how it came about.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) slicing: Slicing,
    pub(crate) choices: Choices,
    pub(crate) emitted: Emitted,
}

impl Draft {
    fn new(
        lowered: &Lowered,
        backend: &dyn Backend,
        policy: &Policy,
        batch: usize,
        reuse: Reuse,
        tuner: &mut Tuner<'_>,
    ) -> Result<Self, PlanError> {
        let mut slicing = Slicing::none(lowered, batch);
        let mut choices = choose(lowered, backend, policy, &slicing, tuner)?;
        // As above.
        if *policy == Policy::Measured && reuse == Reuse::Memory {
            let found = head(lowered, backend, &choices, batch, tuner)?;
            (slicing, choices) = found.unwrap_or((slicing, choices));
        }
        let emitted = Emitter::new(lowered, &choices, backend, &slicing).emit(reuse)?;
        Ok(Self { slicing, choices, emitted })
    }
}

/// One way in which an operation could run.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateTime {
    /// By what.
    pub kernel: KernelId,
    /// Layout of its tensors.
    pub layout: Layout,
    /// What it takes, for the whole batch.
    pub ns: f64,
    /// Whether measuring it was given up as hopeless, so that `ns` is the faster of its first runs.
    pub abandoned: bool,
    /// Whether it is the one that the plan runs.
    pub chosen: bool,
}

/// An operation of a plan and all the ways in which it could run, the fastest first.
#[derive(Clone, Debug, PartialEq)]
pub struct OpCandidates {
    /// The layer that it executes, the first where several were fused.
    pub layer: String,
    /// What is computed, of a slice or share of the batch where it takes one at a time.
    pub op: String,
    /// Multiply-accumulates of the whole batch.
    pub macs: u64,
    /// Bytes that must move: activations and weights as stored, once each.
    pub bytes: u64,
    /// The ways, of every layout.
    pub candidates: Vec<CandidateTime>,
}

/// A network ready to be compiled by the backend that it was planned for.
#[derive(Clone, Debug)]
pub struct Plan {
    program: Program,
    /// What each step is for.
    origins: Vec<Origin>,
    ops: Vec<LoweredOp>,
    choices: Vec<Choice>,
    slicing: Slicing,
    policy: Policy,
}

impl Plan {
    /// What the backend will execute.
    pub fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn program_mut(&mut self) -> &mut Program {
        &mut self.program
    }

    /// The operations of the lowered network, in order.
    pub fn ops(&self) -> &[LoweredOp] {
        &self.ops
    }

    /// The operation that each step executes, by its place among [`ops`](Self::ops); `None` where the step moves
    /// a tensor to another layout or element type.
    pub fn step_ops(&self) -> Vec<Option<usize>> {
        self.origins.iter().map(Origin::op).collect()
    }

    /// The policy that it was made by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The weights of each step.
    pub fn weights(&self) -> Vec<OpWeights<'_>> {
        self.origins.iter().map(|origin| self.weights_of(origin)).collect()
    }

    /// What the backend will execute, and the weights of each step.
    pub(crate) fn into_parts(mut self) -> (Program, Vec<OwnedWeights>) {
        let of = |origin: Origin| match origin {
            Origin::Conversion(quantization) => OwnedWeights { quantization, ..OwnedWeights::default() },
            Origin::Op(op) => {
                // An operation is one step, so that nobody else needs its weight.
                let LoweredOp { weight, bias, quantization, .. } = &mut self.ops[op];
                OwnedWeights { weight: weight.take(), bias: bias.take(), quantization: std::mem::take(quantization) }
            }
        };
        let weights = self.origins.into_iter().map(of).collect();
        (self.program, weights)
    }

    fn weights_of<'a>(&'a self, origin: &'a Origin) -> OpWeights<'a> {
        match origin {
            Origin::Conversion(quantization) => {
                OpWeights { quantization: quantization.borrow(), ..OpWeights::default() }
            }
            Origin::Op(op) => {
                let op = &self.ops[*op];
                OpWeights {
                    weight: op.weight.as_ref(),
                    bias: op.bias.as_deref(),
                    quantization: op.quantization.borrow(),
                }
            }
        }
    }

    /// For every operation all the ways in which it could run, and what each takes: measured under
    /// [`Policy::Measured`], otherwise a rough estimate.
    pub fn candidates(&self) -> Vec<OpCandidates> {
        let of = |(index, (op, choice)): (usize, (&LoweredOp, &Choice))| {
            let (spec, runs) = (&choice.chosen.spec, (self.slicing.runs_of(index) * self.program.shares) as u64);
            let candidates = choice.candidates.iter().map(|candidate| CandidateTime {
                kernel: candidate.kernel.id(),
                layout: candidate.spec.output.layout,
                ns: candidate.cost,
                abandoned: candidate.abandoned,
                chosen: candidate.kernel.id() == choice.chosen.kernel.id() && candidate.spec == *spec,
            });
            let mut candidates: Vec<CandidateTime> = candidates.collect();
            candidates.sort_by(|a, b| a.ns.total_cmp(&b.ns));
            OpCandidates {
                layer: op.layer.clone(),
                op: spec.to_string(),
                macs: spec.macs() * runs,
                bytes: spec.activation_bytes() * runs + op.weight.as_ref().map_or(0, Weight::bytes) as u64,
                candidates,
            }
        };
        self.ops.iter().zip(&self.choices).enumerate().map(of).collect()
    }

    /// For every step the kernel chosen, and for every other kernel of the operation why it was not.
    pub fn explain(&self, backend: &dyn Backend) -> Explanation {
        let of = |origin: &Origin| origin.op().map(|op| (&self.ops[op], &self.choices[op]));
        Explanation::new(&self.policy, &self.program, self.origins.iter().map(of), backend)
    }
}
