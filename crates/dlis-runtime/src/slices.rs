//! Which operations run a slice of the batch at a time, so that what one makes is in the cache for the next.

use dlis_backend::{AlignedBytes, Backend, Layout};
use dlis_formats::Weight;

use crate::choose::{Choices, choose};
use crate::error::PlanError;
use crate::lower::{Lowered, LoweredOp};
use crate::policy::Policy;
use crate::tune::Tuner;

/// Images of a slice, at most, for each thread: more amortise nothing that is left to amortise.
const MAX_IMAGES: u64 = 8;
/// Part of a network's time that dividing its batch must save: measurements are not surer than that.
pub(crate) const LEAST_GAIN: f64 = 0.02;

/// How a plan's operations share a batch: those of the head take a slice of it at a time, the others all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slicing {
    batch: usize,
    slices: usize,
    head: usize,
    /// Of every tensor, the network's input first: whether it is there for the whole batch, as an operation after the
    /// head wants it.
    whole: Vec<bool>,
}

impl Slicing {
    /// Every operation takes the whole batch.
    pub(crate) fn none(lowered: &Lowered, batch: usize) -> Self {
        Self { batch, slices: 1, head: 0, whole: vec![true; lowered.ops.len() + 1] }
    }

    /// The first `head` operations take one of so many equal slices at a time; `None` if a slice of a tensor that is
    /// there for the whole batch would not be aligned as tensors are.
    fn new(lowered: &Lowered, batch: usize, slices: usize, head: usize) -> Option<Self> {
        let mut whole = vec![false; lowered.ops.len() + 1];
        whole[head + 1..].fill(true);
        let wanted = lowered.ops[head..].iter().flat_map(LoweredOp::operands);
        wanted.chain([lowered.output]).for_each(|source| whole[source.tensor()] = true);
        // The input is handed in for the whole batch, and an element is a byte at least.
        whole[0] = true;
        let aligned = |tensor: usize| {
            let (_, shape) = lowered.tensor(tensor);
            (batch / slices * shape.elements()).is_multiple_of(AlignedBytes::ALIGNMENT)
        };
        (0..=head).all(|tensor| !whole[tensor] || aligned(tensor)).then_some(Self { batch, slices, head, whole })
    }

    /// Operations of the head.
    pub(crate) fn head(&self) -> usize {
        self.head
    }

    /// How often the head runs.
    pub(crate) fn slices(&self) -> usize {
        self.slices
    }

    /// How often an operation runs.
    pub(crate) fn runs_of(&self, op: usize) -> usize {
        if op < self.head { self.slices } else { 1 }
    }

    /// The images that an operation takes at a time.
    pub(crate) fn batch_of(&self, op: usize) -> usize {
        self.batch / self.runs_of(op)
    }

    /// The images of a whole run.
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// Whether a tensor is there for the whole batch, and not for a slice only.
    pub(crate) fn is_whole(&self, tensor: usize) -> bool {
        self.whole[tensor]
    }

    /// How often a tensor is made, or moved to another layout or element type.
    pub(crate) fn runs_of_tensor(&self, tensor: usize) -> usize {
        if self.is_whole(tensor) { 1 } else { self.slices }
    }
}

/// The head that saves time by what was measured, and the choices with it; `None` if there is none.
///
/// Worth measuring are the operations up to the last whose tensors do not fit the second-level caches of all threads,
/// as long as weights do beside them: what does not is read again for every slice. A slice has as many images as leave
/// a quarter of those caches for the rest.
pub(crate) fn head(
    lowered: &Lowered,
    backend: &dyn Backend,
    whole: &Choices,
    batch: usize,
    tuner: &mut Tuner<'_>,
) -> Result<Option<(Slicing, Choices)>, PlanError> {
    let Some(cache) = backend.hardware().l2.filter(|_| backend.divides_batches() && batch > 1) else { return Ok(None) };
    let own = cache.bytes / cache.shared_by.max(1) as u64;
    let weight_bytes = |op: &LoweredOp| op.weight.as_ref().map_or(0, Weight::bytes) as u64;
    let bytes = |op: &LoweredOp, batch| op.spec(batch, Layout::Nchw).activation_bytes();
    let light = lowered.ops.iter().take_while(|op| weight_bytes(op) <= own / 2).count();
    let spills = |op: &LoweredOp| bytes(op, batch) > own.saturating_mul(tuner.threads() as u64);
    let Some(last) = lowered.ops[..light].iter().rposition(spills) else { return Ok(None) };
    let most = lowered.ops[..=last].iter().map(|op| bytes(op, 1)).max().unwrap_or(1).max(1);
    let images = (own / 4 * 3 / most).clamp(1, MAX_IMAGES) as usize * tuner.threads();
    let Some(slice) = (1..=images.min(batch / 2)).rev().find(|&slice| batch.is_multiple_of(slice)) else {
        return Ok(None);
    };
    let slicing = |head| Slicing::new(lowered, batch, batch / slice, head);
    let heads: Vec<Slicing> = (1..=last + 1).filter_map(slicing).collect();
    let Some(longest) = heads.last() else { return Ok(None) };
    let sliced = choose(lowered, backend, &Policy::Measured, longest, tuner)?;
    // What the operations of every head save, and of all heads the one that saves most.
    let mut saved = vec![0.0; lowered.ops.len() + 1];
    for (op, (whole, sliced)) in whole.ops.iter().zip(&sliced.ops).enumerate() {
        saved[op + 1] = saved[op] + whole.chosen.cost - sliced.chosen.cost;
    }
    let Some(best) = heads.into_iter().max_by(|a, b| saved[a.head].total_cmp(&saved[b.head])) else { return Ok(None) };
    let choices = choose(lowered, backend, &Policy::Measured, &best, tuner)?;
    Ok((choices.cost < (1.0 - LEAST_GAIN) * whole.cost).then_some((best, choices)))
}

#[cfg(test)]
mod tests {
    use dlis_backend::{Backend, Schedule};
    use dlis_hw::{Cache, Hardware};
    use dlis_model::{Graph, Network, Shape, Value, Window};
    use proptest::prelude::*;

    use super::*;
    use crate::emit::{Emitted, Emitter, Origin, Reuse};
    use crate::lower::{Fusion, lower};
    use crate::plan::Planner;
    use crate::session::Session;
    use crate::tune::TuneCache;

    /// A stem, a block with a skip, one with a projection, pooling and a classifier: tensors that several operations
    /// want, early and late.
    fn network() -> Network {
        let mut graph = Graph::builder("blocks", Shape::new(4, 8, 8));
        let stem = graph.conv("stem", Value::Input, 8, Window::square(3).with_padding(1));
        let stem = graph.relu("relu", stem);
        let first = graph.conv("first", stem, 8, Window::square(3).with_padding(1));
        let sum = graph.add("sum", first, stem);
        let second = graph.conv("second", sum, 16, Window::square(3).with_padding(1).with_stride(2));
        let skip = graph.conv("skip", sum, 16, Window::square(1).with_stride(2));
        let sum = graph.add("sum2", second, skip);
        let pool = graph.max_pool("pool", sum, Window::square(2).with_stride(2));
        let flat = graph.flatten("flat", pool);
        let result = graph.linear("classifier", flat, 16);
        Network::random(graph.finish(result).unwrap(), 3)
    }

    /// What the network makes of some images in so many shares, `slicing` of each made of the lowered network.
    fn run(threads: usize, shares: usize, slicing: impl Fn(&Lowered) -> Option<Slicing>) -> Option<Vec<f32>> {
        let backend = dlis_cpu_rayon::backend(threads.try_into().unwrap(), Schedule::Static).unwrap();
        let lowered = lower(network(), Fusion::Full).unwrap();
        let slicing = slicing(&lowered)?;
        let mut cache = TuneCache::in_memory();
        let mut tuner = Tuner::new(&backend, &mut cache, None);
        let policy = "fixed:direct".parse().unwrap();
        let choices = choose(&lowered, &backend, &policy, &slicing, &mut tuner).unwrap();
        let Emitted { mut program, origins } =
            Emitter::new(&lowered, &choices, &backend, &slicing).emit(Reuse::Memory).unwrap();
        let weights: Vec<dlis_backend::OpWeights<'_>> = origins
            .iter()
            .map(|origin| match origin {
                Origin::Op(op) => {
                    let LoweredOp { weight, bias, quantization, .. } = &lowered.ops[*op];
                    let quantization = quantization.borrow();
                    dlis_backend::OpWeights { weight: weight.as_ref(), bias: bias.as_deref(), quantization }
                }
                Origin::Conversion(quantization) => {
                    dlis_backend::OpWeights { quantization: quantization.borrow(), ..Default::default() }
                }
            })
            .collect();
        assert_eq!(program.head.slices, slicing.slices());
        program.shares = shares;
        let mut executable = backend.compile(&program, &weights).unwrap();
        let input: Vec<f32> =
            (0..program.input_spec().elements()).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let mut output = vec![f32::NAN; program.output_spec().elements()];
        // The second run finds whatever the first left.
        for _ in 0..2 {
            executable.run(&input, &mut output).unwrap();
        }
        Some(output)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever the head, every image gets what it gets alone.
        #[test]
        fn slices_and_shares_change_no_result(
            images in 1usize..5,
            slices in 1usize..5,
            shares in 1usize..4,
            head in 0usize..9,
            threads in 1usize..3,
        ) {
            let batch = images * slices;
            let whole = run(1, 1, |lowered| Some(Slicing::none(lowered, shares * batch))).unwrap();
            let shared = run(1, shares, |lowered| Some(Slicing::none(lowered, batch))).unwrap();
            // The classifier's kernel is chosen by the batch, and with it the order of its additions.
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * (1.0 + a.abs());
            prop_assert!(whole.len() == shared.len() && whole.iter().zip(&shared).all(near), "{:?} {:?}", whole, shared);
            let sliced = run(threads, shares, |lowered| {
                // Activations and sums are fused, so that there are fewer operations than layers.
                Slicing::new(lowered, batch, slices, head.min(lowered.ops.len()))
            });
            if let Some(sliced) = sliced {
                prop_assert_eq!(shared, sliced);
            }
        }
    }

    #[test]
    fn slices_that_would_lie_askew_are_refused() {
        let lowered = lower(network(), Fusion::Full).unwrap();
        let all = lowered.ops.len();
        // The classifier's 16 results an image.
        assert!(Slicing::new(&lowered, 8, 2, all).is_some());
        assert_eq!(Slicing::new(&lowered, 8, 4, all), None);
        assert!(Slicing::new(&lowered, 8, 4, all - 1).is_some());
    }

    #[test]
    fn tensors_within_the_head_are_a_slice_only() {
        let lowered = lower(network(), Fusion::Full).unwrap();
        let slicing = Slicing::new(&lowered, 8, 4, 2).unwrap();
        assert_eq!((slicing.batch_of(1), slicing.batch_of(2), slicing.runs_of(1)), (2, 8, 4));
        // The input; the stem's result, which the second operation takes; that one's, which later ones take.
        assert_eq!((0..4).map(|tensor| slicing.is_whole(tensor)).collect::<Vec<_>>(), [true, false, true, true]);
    }

    /// Whether all threads share every operation or each takes a share of the batch is measured once, and then known.
    #[test]
    fn shares_of_a_batch_are_tried_where_there_are_threads() {
        let mut cache = TuneCache::in_memory();
        let mut plan = |threads: usize, batch| {
            let backend = dlis_cpu_rayon::backend(threads.try_into().unwrap(), Schedule::Static).unwrap();
            let planner = Planner::new(&backend).policy(Policy::Measured).batch(batch).cache(&mut cache);
            let plan = planner.plan(&network()).unwrap();
            let mut session = Session::new(&backend, plan.clone()).unwrap();
            assert_eq!(session.batch(), batch);
            let input = vec![0.5; session.input_len()];
            let profile = session.profile(&input, 2).unwrap();
            (plan.program().shares, profile.iter().map(|layer| layer.macs).sum::<u64>(), cache.len())
        };
        let (alone, shared) = (plan(1, 4), plan(2, 4));
        // What is faster is the machine's to say.
        assert!(alone.0 == 1 && shared.0 <= 2);
        assert_eq!(alone.1, shared.1);
        assert_eq!(plan(2, 4), shared);
        assert_eq!(plan(2, 3).0, 1, "what cannot be divided is not");
        let of_shares = format!("{cache:?}").matches("|2 shares").count();
        assert!(of_shares > 0, "operations are measured as in shares");
    }

    /// A machine on which everything spills gets a head to measure, and one on which nothing does gets none.
    #[test]
    fn heads_are_looked_for_where_tensors_spill() {
        let plan = |l2| {
            let backend = dlis_cpu_rayon::backend(1.try_into().unwrap(), Schedule::Static).unwrap();
            let hw = Hardware { l2: Some(Cache { bytes: l2, shared_by: 1 }), ..Hardware::detect() };
            let backend = backend.with_hardware(hw);
            let mut cache = TuneCache::in_memory();
            let planner = Planner::new(&backend).policy(Policy::Measured).batch(32).cache(&mut cache);
            let plan = planner.plan(&network()).unwrap();
            let mut session = Session::new(&backend, plan.clone()).unwrap();
            let input = vec![0.5; session.input_len()];
            let profile = session.profile(&input, 2).unwrap();
            let macs: u64 = profile.iter().map(|layer| layer.macs).sum();
            (plan.program().head.slices, macs, cache.len())
        };
        let (small, large) = (plan(16 << 10), plan(1 << 30));
        assert_eq!(large.0, 1);
        // What is measured, and whether a head saves time, is the machine's to say; the work is the same.
        assert!(small.2 > large.2);
        assert_eq!(small.1, large.1);
    }
}
