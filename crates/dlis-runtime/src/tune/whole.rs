//! Measures whole programs beside each other.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use dlis_backend::{Backend, Executable, OpWeights, Program};
use dlis_formats::Weight;

use super::cache::Timing;
use super::{Tuner, density};
use crate::choose::Choice;
use crate::emit::{Emitted, Origin};
use crate::error::{PlanError, SessionError};
use crate::lower::{Lowered, LoweredOp};
use crate::plan::Draft;

/// Runs of a whole program, at least and at most, and the time after which no more are added.
const MIN_WHOLE_RUNS: usize = 5;
const MAX_WHOLE_RUNS: usize = 25;
const ENOUGH_WHOLE: Duration = Duration::from_millis(500);

impl Tuner<'_> {
    /// What programs of one network take, in ns, measured in turns.
    pub(crate) fn compare(&mut self, lowered: &Lowered, drafts: [&Draft; 2]) -> Result<[f64; 2], PlanError> {
        let keys = drafts.map(|draft| format!("{}|{}", self.key, name_of(lowered, &draft.emitted.program)));
        if let [Some(one), Some(other)] = keys.each_ref().map(|key| self.cache.timings.get(key)) {
            return Ok([one.ns, other.ns]);
        }
        let failed = |source| PlanError::MeasureNetwork { network: lowered.name.clone(), source: Box::new(source) };
        let [one, other] = drafts.map(|draft| Whole::new(self.backend, lowered, draft));
        let mut programs = [one.map_err(failed)?, other.map_err(failed)?];
        let start = Instant::now();
        while programs[1].times.len() < MIN_WHOLE_RUNS
            || (programs[1].times.len() < MAX_WHOLE_RUNS && start.elapsed() < ENOUGH_WHOLE)
        {
            for program in &mut programs {
                program.run().map_err(failed)?;
            }
        }
        let times = programs.map(|program| program.median());
        for (key, ns) in keys.into_iter().zip(times) {
            self.cache.timings.insert(key, Timing { ns, abandoned: false });
        }
        self.cache.dirty = true;
        Ok(times)
    }
}

/// Names a program and how sparse its weights are, for a measurement's key.
fn name_of(lowered: &Lowered, program: &Program) -> String {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(program).unwrap_or_default().hash(&mut hasher);
    lowered.ops.iter().for_each(|op| density(op).hash(&mut hasher));
    format!("{} {:016x}", lowered.name, hasher.finish())
}

/// A whole program, ready to run.
struct Whole {
    executable: Box<dyn Executable>,
    input: Vec<f32>,
    output: Vec<f32>,
    times: Vec<Duration>,
}

impl Whole {
    /// Runs it once, for what happens the first time only.
    fn new(backend: &dyn Backend, lowered: &Lowered, draft: &Draft) -> Result<Self, SessionError> {
        let Draft { choices, emitted: Emitted { program, origins }, .. } = draft;
        let of = |(op, choice): (&LoweredOp, &Choice)| op.converted(choice.chosen.spec.weight);
        let converted: Vec<Option<Weight>> = lowered.ops.iter().zip(&choices.ops).map(of).collect();
        let weights = origins.iter().map(|origin| match origin {
            Origin::Conversion(quantization) => {
                OpWeights { quantization: quantization.borrow(), ..OpWeights::default() }
            }
            Origin::Op(index) => {
                let op = &lowered.ops[*index];
                let weight = converted[*index].as_ref().or(op.weight.as_ref());
                OpWeights { weight, bias: op.bias.as_deref(), quantization: op.quantization.borrow() }
            }
        });
        let executable = backend.compile(program, &weights.collect::<Vec<_>>())?;
        let input = vec![0.5; program.input_spec().elements()];
        let output = vec![0.0; program.output_spec().elements()];
        let mut whole = Self { executable, input, output, times: Vec::new() };
        whole.run()?;
        whole.times.clear();
        Ok(whole)
    }

    fn run(&mut self) -> Result<(), SessionError> {
        let start = Instant::now();
        self.executable.run(&self.input, &mut self.output)?;
        self.times.push(start.elapsed());
        Ok(())
    }

    fn median(mut self) -> f64 {
        self.times.sort_unstable();
        // No time is too short for the clock's resolution.
        self.times.get(self.times.len() / 2).map_or(f64::INFINITY, |time| (time.as_nanos() as f64).max(1.0))
    }
}
