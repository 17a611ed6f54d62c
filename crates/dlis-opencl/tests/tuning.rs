//! What a search finds is kept. The environment says whether to search and where to keep, so that the work is done in
//! processes of their own.
//!
//! Without a device nothing can be tested: the test fails unless `DLIS_OPENCL_OPTIONAL` is set.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dlis_backend::{Backend as _, Epilogue, Layout, OpSpec, OpWeights, Operation, TensorSpec};
use dlis_formats::{Format, Weight};
use dlis_model::Linear;
use dlis_opencl::{DeviceKind, OpenClBackend, devices};
use ndarray::ArrayD;

fn backend() -> OpenClBackend {
    let selector = std::env::var("DLIS_OPENCL_DEVICE").unwrap_or_else(|_| "0".to_owned());
    format!("opencl:{selector}").parse().unwrap()
}

/// Prepares a layer in every way that the device has.
#[test]
#[ignore = "it does the work of another test"]
fn prepare() {
    let backend = backend();
    let op = OpSpec {
        operation: Operation::Linear(Linear { in_features: 96, out_features: 80, bias: false }),
        inputs: vec![TensorSpec::f32(1, [96, 1, 1], Layout::Nhwc)],
        output: TensorSpec::f32(1, [80, 1, 1], Layout::Nhwc),
        epilogue: Epilogue::NONE,
        weight: Some(Format::DenseF32),
    };
    let weight = Weight::F32(ArrayD::from_elem(vec![80, 96], 0.5));
    let weights = OpWeights { weight: Some(&weight), ..OpWeights::default() };
    for kernel in backend.kernels() {
        if kernel.support(&op, backend.hardware()).is_yes() {
            kernel.prepare_checked(&op, weights, backend.hardware()).unwrap();
        }
    }
}

/// What is kept in the folder after [`prepare`] has run with this setting.
fn kept(folder: &Path, tune: &str) -> BTreeMap<String, String> {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "prepare", "--ignored"]).env("DLIS_OPENCL_CACHE", folder).env("DLIS_OPENCL_TUNE", tune);
    assert!(again.output().unwrap().status.success());
    match std::fs::read(folder.join("tuned.json")) {
        Ok(text) => serde_json::from_slice(&text).unwrap(),
        Err(_) => BTreeMap::new(),
    }
}

#[test]
fn what_a_search_finds_is_kept() {
    if devices().is_err() && std::env::var_os("DLIS_OPENCL_OPTIONAL").is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(kept(folder.path(), "").is_empty(), "nothing is searched unless it is asked for");
    let found = kept(folder.path(), "1");
    assert!(found.keys().all(|key| key.contains("linear/f32/dense/")), "{found:?}");
    assert!(
        !found.is_empty() || backend().device().info().kind != DeviceKind::Cpu,
        "processors have tiles to choose of"
    );
    // A winner that no kernel knows is of an earlier version: it is searched again.
    let stale: BTreeMap<&String, &str> = found.keys().map(|key| (key, "of an earlier version")).collect();
    std::fs::write(folder.path().join("tuned.json"), serde_json::to_vec(&stale).unwrap()).unwrap();
    for setting in ["", "0"] {
        let unchanged = kept(folder.path(), setting);
        assert!(unchanged.values().all(|winner| winner == "of an earlier version"), "{unchanged:?}");
    }
    let again = kept(folder.path(), "1");
    assert!(again.keys().eq(found.keys()), "{again:?}");
    assert!(again.values().all(|winner| winner != "of an earlier version"), "{again:?}");
}
