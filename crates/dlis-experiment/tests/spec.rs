//! Experiment files: what they mean, and errors that point at the place.

use dlis_experiment::spec::{Dataset, MAX_FILE_BYTES, Threads, schema};
use dlis_experiment::{Experiment, SpecError, StackLayer};

const HW: &str = "0123456789abcdef";

/// The message for `text`, without the snippet.
fn refused(text: &str) -> String {
    match Experiment::parse("x.toml", text).unwrap_err() {
        SpecError::Invalid { file, line, column, message, snippet } => {
            assert_eq!(file, "x.toml");
            assert!(snippet.contains('^'), "{snippet}");
            format!("{line}:{column}: {message}")
        }
        other => panic!("{other}"),
    }
}

fn pointed(text: impl AsRef<str>, start: &str) {
    let message = refused(text.as_ref());
    assert!(message.starts_with(start), "{message}, expected {start}");
}

/// A file that is well formed but for the lines added.
fn with(lines: &str) -> String {
    format!("name = \"x\"\nnetworks = [\"vgg16-cifar10\"]\n{lines}")
}

#[test]
fn the_built_in_experiment_has_every_algorithm_and_every_recipe() {
    let experiment = Experiment::builtin();
    assert_eq!(experiment.name, "default");
    assert_eq!(experiment.accuracy.dataset, Dataset::Embedded);
    assert!(experiment.break_even.as_ref().is_some_and(|spec| spec.formats.contains(&dlis_formats::Format::CsrF16)));
    let points = experiment.expand(8, HW);
    let recipes = experiment.grids[1].recipes.len();
    // 3 networks, 4 algorithms, 2 backends, 2 thread counts; then the recipes with one algorithm on one backend.
    // At last two recipes in another format.
    assert_eq!(points.len(), 48 + 3 * (recipes + 2) * 2);
    assert_eq!(points[0].to_string(), "vgg16-cifar10 / none / stored / fixed:direct / rayon, 1 thread, static");
    assert_eq!(points[1].threads, 8);
    assert_eq!(points[2].backend, "omp");
    assert_eq!(points[47].to_string(), "mobilenet-cifar10 / none / stored / measured / omp, 8 threads, static");
    assert_eq!(points[48].to_string(), "vgg16-cifar10 / int8 / stored / measured / omp, 1 thread, static");
    assert!(points.iter().all(|point| point.validate().is_ok() && point.hw == HW));
    assert_eq!(points, experiment.expand(8, HW));
    // On one core `"all"` threads are one.
    assert_eq!(experiment.expand(1, HW).len(), points.len() / 2);
}

#[test]
fn grids_share_what_they_do_not_list() {
    let text = with(
        r#"
threads = [3]
formats = ["stored", "dense-f32"]
[[grids]]
algorithms = ["heuristic"]
[[grids]]
recipes = ["none", "int8"]
formats = ["stored"]
algorithms = ["heuristic", "measured"]
"#,
    );
    let points = Experiment::parse("x.toml", &text).unwrap().expand(8, HW);
    let shown: Vec<String> = points.iter().map(|p| format!("{} {} {}", p.recipe, p.format, p.algorithm)).collect();
    // What both have is listed once.
    let expected = [
        "none stored heuristic",
        "none dense-f32 heuristic",
        "none stored measured",
        "int8 stored heuristic",
        "int8 stored measured",
    ];
    assert_eq!(shown, expected);
    assert!(points.iter().all(|point| point.threads == 3 && point.network == "vgg16-cifar10"));
    pointed(with("[[grids]]\nthread = [1]"), "4:1: unknown field `thread`");
    let break_even = |text: &str| with(&format!("[break_even]\nbudget_ms = 9\n{text}"));
    pointed(break_even("formats = ['csr-f16']\nsparsities = [0.5, 1.5]"), "6:20: 1.5: expected a share, 0 to 1");
    pointed(break_even("formats = ['csr']\nsparsities = [0.5]"), "5:11: `csr` is not a weight format");
    pointed(break_even("formats = ['csr-f16']"), "3:1: missing field `sparsities`");
    pointed(with("[[grids]]\nthreads = []"), "4:11: an empty list");
    pointed(with("[[grids]]\nrecipes = ['a']\n[[grids]]\nrecipes = ['b', 'b']"), "6:17: `b` is listed twice");
    // A choice is refused where it stands.
    let text = with("[[grids]]\nrecipes = ['a']\n[[grids]]\nrecipes = ['a', 'b']");
    let accepts = |_, value: &str| if value == "b" { Err("no".to_owned()) } else { Ok(()) };
    let error = Experiment::parse("x.toml", &text).unwrap().check(accepts).unwrap_err();
    assert!(error.to_string().starts_with("x.toml:6:17: no"), "{error}");
}

#[test]
fn what_is_left_out_has_a_default() {
    let experiment = Experiment::parse("x.toml", &with("")).unwrap();
    assert_eq!(experiment.grids[0].threads, [Threads::Count(1), Threads::All]);
    assert_eq!(experiment.expand(4, HW).len(), 2);
    assert_eq!(experiment.constraints, Default::default());
}

#[test]
fn every_key_is_understood() {
    let text = with(
        r#"
recipes = ["none"]
formats = ["dense-f32"]
algorithms = ["fixed:conv2d/*/dense/*/*", "heuristic"]
backends = ["omp"]
threads = [2, "all"]
schedules = ["dynamic,4", "guided"]
batches = [1, 16]
accuracy = { dataset = "cifar10", images = 500 }
latency = { min_samples = 5, budget_ms = 100 }
[constraints]
min_accuracy = 0.9
max_latency = "20ms"
max_memory = "28MiB"
min_throughput = 50.0
max_disk = "15 MB"
"#,
    );
    let experiment = Experiment::parse("x.toml", &text).unwrap();
    assert_eq!(experiment.expand(8, HW).len(), 2 * 2 * 2 * 2);
    assert_eq!(experiment.accuracy.images.map(|n| n.get()), Some(500));
    assert_eq!(experiment.constraints.max_latency_ns, Some(20e6));
    assert_eq!(experiment.constraints.max_memory_bytes, Some(28 << 20));
    assert_eq!(experiment.constraints.max_disk_bytes, Some(15_000_000));
    let points = experiment.expand(8, HW);
    let last = points.last().unwrap();
    assert_eq!((last.schedule.to_string().as_str(), last.batch), ("guided,1", 16));
}

#[test]
fn errors_point_at_the_place() {
    pointed("name = 'x'", "1:1: missing field `networks`");
    pointed(with("colour = 'red'"), "3:1: unknown field `colour`, expected one of `name`");
    pointed(with("\n[latency]\nbudget = 3"), "5:1: unknown field `budget`");
    pointed(with("backends = 'omp'"), "3:12: invalid type: string \"omp\"");
    pointed(with("algorithms = ['measured', 'direct']"), "3:27: `direct` is not a policy");
    pointed(with("algorithms = ['fixed:NO']"), "3:15: `fixed:NO` is not a policy");
    pointed(with("schedules = ['auto']"), "3:14: `auto` is not a schedule");
    pointed(with("threads = [1, 0]"), "3:15: invalid value: integer `0`, expected a number of");
    pointed(with("threads = ['many']"), "3:12: invalid value: string \"many\"");
    pointed(with("batches = [0]"), "3:12: a batch of 0 images");
    pointed(with("backends = ['omp', 'omp']"), "3:20: `omp` is listed twice");
    pointed(with("backends = []"), "3:12: an empty list: expected at least one backend");
    pointed(with("recipes = ['']"), "3:12: \"\": expected a name");
    assert!(refused(&with("accuracy = { dataset = 'mnist' }")).contains("unknown variant `mnist`"));
    pointed(with("accuracy = { images = 0 }"), "3:23: ");
    pointed(with("constraints = { max_latency = '20' }"), "3:31: `20` is not a time");
    pointed(with("constraints = { min_accuracy = 93.0 }"), "3:32: 93: expected a share");
    pointed(with("constraints = { min_throughput = nan }"), "3:34: NaN");
    pointed("name = '../x'\nnetworks = ['a']", "1:8: `name`: expected 1 to 64");
    pointed(with("= 3"), "3:1: ");
}

#[test]
fn the_whole_message_shows_the_line() {
    let error = Experiment::parse("dir/x.toml", &with("backends = ['omp', 'omp']")).unwrap_err();
    let expected =
        "dir/x.toml:3:20: `omp` is listed twice\n  |\n3 | backends = ['omp', 'omp']\n  |                    ^^^^^";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_caller_refuses_names_at_their_place() {
    let experiment = Experiment::parse("x.toml", &with("backends = ['omp', 'cuda']")).unwrap();
    let mut asked = Vec::new();
    let error = experiment
        .check(|layer, value| {
            asked.push((layer, value.to_owned()));
            if value == "cuda" { Err("no backend `cuda`".into()) } else { Ok(()) }
        })
        .unwrap_err();
    assert!(error.to_string().starts_with("x.toml:3:20: no backend `cuda`"), "{error}");
    assert!(asked.contains(&(StackLayer::Network, "vgg16-cifar10".into())));
    assert!(experiment.check(|_, _| Ok(())).is_ok());
}

#[test]
fn large_grids_and_files_are_refused() {
    let many = |key: &str, n: usize| format!("{key} = [{}]\n", (1..=n).map(|i| format!("'n{i}',")).collect::<String>());
    let text = with(&(many("recipes", 400) + &many("formats", 400)));
    assert!(refused(&text).contains("a grid of 320000 stack points: expected at most 100000"));
    let text = with(&format!("#{}", "x".repeat(MAX_FILE_BYTES)));
    assert!(matches!(Experiment::parse("x.toml", &text), Err(SpecError::TooLarge { .. })));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.toml");
    std::fs::write(&path, text).unwrap();
    assert!(matches!(Experiment::load(&path), Err(SpecError::TooLarge { .. })));
    assert!(matches!(Experiment::load(folder.path().join("none.toml")), Err(SpecError::Io { .. })));
}

#[test]
fn the_schema_documents_every_key() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["name", "networks"]));
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(properties.len(), 14);
    let check = |key: &str, property: &serde_json::Value| {
        assert!(property["description"].as_str().is_some_and(|text| text.len() > 10), "{key}: {property}");
    };
    for (key, property) in properties {
        check(key, property);
        for (inner, property) in property["properties"].as_object().into_iter().flatten() {
            check(&format!("{key}.{inner}"), property);
        }
    }
    assert_eq!(properties["latency"]["properties"].as_object().unwrap().len(), 2);
    assert_eq!(properties["constraints"]["additionalProperties"], false);
    assert_eq!(properties["recipes"]["default"], serde_json::json!(["none"]));
    assert_eq!(properties["threads"]["default"], serde_json::json!([1, "all"]));
    assert_eq!(properties["latency"]["properties"]["budget_ms"]["default"], 2000);
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(name|networks|threads|latency|[a-z]{1,5})?[ =\\[\\]{}'\"#\n.,0-9a-z\u{e9}]{0,60}") {
        let _ = Experiment::parse("x.toml", &text);
        let _ = Experiment::parse("x.toml", &with(&text));
    }
}
