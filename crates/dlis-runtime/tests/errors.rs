//! What cannot be planned or run is refused with an error that names it.

mod support;

use std::sync::Arc;

use dlis_backend::{CompileError, ExecuteError, HostBackend, Kernel, KernelId, Schedule, Serial};
use dlis_model::{Graph, Network, Shape, Value, Window};
use dlis_runtime::{PlanError, Planner, Session, SessionError};
use support::{omp, plan, small, values};

/// A backend of the kernels that satisfy a condition.
fn backend_with(condition: impl Fn(&KernelId) -> bool) -> HostBackend {
    let kernels = dlis_kernels::kernels().iter().copied().filter(|kernel| condition(&kernel.id()));
    let kernels: &'static [&'static dyn Kernel] = kernels.collect::<Vec<_>>().leak();
    HostBackend::new("partial", kernels, Arc::new(Serial), Schedule::Static)
}

#[test]
fn a_batch_of_none_or_of_too_many_is_refused() {
    let network = small(10);
    let backend = omp(1);
    for batch in [0, 1 << 32, usize::MAX] {
        let error = Planner::new(&backend).batch(batch).plan(&network).unwrap_err();
        assert!(matches!(error, PlanError::Batch { batch: named, .. } if named == batch), "{error}");
        assert!(error.to_string().contains(&format!("a batch of {batch}")), "{error}");
    }
    // The largest tensor decides: 16 channels of 12 x 12, so that one image more is one too many.
    let most = (1 << 32) / (16 * 12 * 12);
    assert!(Planner::new(&backend).batch(most).plan(&network).is_ok());
    assert!(matches!(Planner::new(&backend).batch(most + 1).plan(&network), Err(PlanError::Batch { .. })));
}

#[test]
fn a_layer_without_a_kernel_is_named() {
    let network = small(10);
    let refused = |backend: &HostBackend| match Planner::new(backend).plan(&network).unwrap_err() {
        PlanError::NoKernel { backend: named, layer, op, reasons } => {
            assert_eq!(named, "partial");
            (layer, op, reasons)
        }
        error => panic!("{error}"),
    };
    let (layer, op, reasons) = refused(&backend_with(|_| false));
    assert_eq!(layer, "stem");
    assert!(op.starts_with("conv2d 3x3 1x3x12x12 -> 1x16x12x12"), "{op}");
    assert_eq!(reasons, " none is for this operation");

    assert_eq!(refused(&backend_with(|id| id.op() != "linear")).0, "fc");
    assert_eq!(refused(&backend_with(|id| id.op() != "affine")).0, "pre_bn");

    // Kernels for the operation that cannot execute this one say why.
    let (layer, _, reasons) = refused(&backend_with(|id| id.op() != "conv2d" || id.algorithm() == "depthwise"));
    assert_eq!(layer, "stem");
    assert!(reasons.contains("depthwise") && reasons.contains("every channel on its own"), "{reasons}");
}

#[test]
fn a_backend_that_cannot_reorder_is_told_so() {
    let mut graph = Graph::builder("flat", Shape::new(16, 8, 8));
    let x = graph.conv("conv", Value::Input, 32, Window::square(3).with_padding(1));
    let x = graph.flatten("flatten", x);
    let network = Network::random(graph.finish(x).unwrap(), 0);
    let channels_last = backend_with(|id| id.algorithm() == "implicit-gemm" && id.op() == "conv2d");
    let error = Planner::new(&channels_last).plan(&network).unwrap_err();
    assert!(matches!(&error, PlanError::NoKernel { layer, .. } if layer == "conv"), "{error}");
    assert!(error.to_string().contains("none reorders"), "{error}");
    // Where a kernel of the other layout spares the reorder, it is chosen, however slow.
    let both = backend_with(|id| id.op() == "conv2d");
    let made = Planner::new(&both).plan(&network).unwrap();
    assert_eq!(made.program().steps.len(), 1);
}

#[test]
fn a_session_needs_the_backend_of_its_plan_and_slices_of_its_sizes() {
    let network = small(10);
    let backend = omp(1);
    let made = plan(&network, &backend, "fixed:direct", 2);
    let other = backend_with(|id| id.algorithm() != "direct");
    let error = Session::new(&other, made.clone()).unwrap_err();
    let expected = |error: &CompileError| matches!(error, CompileError::UnknownKernel { layer, .. } if layer == "stem");
    assert!(matches!(&error, SessionError::Compile(error) if expected(error)), "{error}");

    let mut session = Session::new(&backend, made).unwrap();
    let (inputs, outputs) = (session.input_len(), session.output_len());
    assert_eq!((session.batch(), inputs, outputs), (2, 2 * 3 * 12 * 12, 2 * 10));
    let input = values(inputs + 1, 0);
    let mut output = vec![0.0; outputs + 1];
    let size = |result: Result<(), SessionError>| match result.unwrap_err() {
        SessionError::Execute(ExecuteError::Size { what, expected, found }) => (what, expected, found),
        error => panic!("{error}"),
    };
    for found in [0, 1, inputs - 1, inputs + 1] {
        let result = session.run(&input[..found], &mut output[..outputs]);
        assert_eq!(size(result), ("input", inputs, found));
        assert_eq!(size(session.profile(&input[..found], 1).map(drop)), ("input", inputs, found));
        assert_eq!(size(session.trace(&input[..found], 1).map(drop)), ("input", inputs, found));
    }
    for found in [0, outputs - 1, outputs + 1] {
        let result = session.run(&input[..inputs], &mut output[..found]);
        assert_eq!(size(result), ("output", outputs, found));
    }
    // A refusal does no harm.
    session.run(&input[..inputs], &mut output[..outputs]).unwrap();

    // As arrays: the same results, and extents are checked.
    let images = ndarray::Array4::from_shape_vec((2, 3, 12, 12), input[..inputs].to_vec()).unwrap();
    let results = session.infer(images.view()).unwrap();
    assert_eq!((results.shape(), results.as_slice().unwrap()), (&[2, 10][..], &output[..outputs]));
    let error = session.infer(images.view().permuted_axes([0, 2, 3, 1])).unwrap_err();
    assert!(matches!(error, SessionError::Images { expected: [2, 3, 12, 12], .. }), "{error}");
}
