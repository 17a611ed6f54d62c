//! Recommendations: the right point, the reason, and what stands in the way.

mod support;

use dlis_experiment::recommend::{Constraints, Limit, recommend};
use dlis_experiment::{Record, StackLayer};

/// A point of these figures, quiet unless changed.
fn record(threads: usize, top1: f64, latency_ms: f64, memory_mb: u64) -> Record {
    let mut record = support::record(0, "measured", "rayon", threads);
    record.accuracy.top1 = top1;
    let ns = latency_ms * 1e6;
    let latency = &mut record.latency;
    (latency.median_ns, latency.p10_ns, latency.p90_ns) = (ns, ns * 0.99, ns * 1.02);
    (latency.ci_low_ns, latency.ci_high_ns) = (ns * 0.995, ns * 1.005);
    (latency.noisy, latency.noise) = (false, None);
    record.throughput_images_per_s = 1e3 / latency_ms;
    record.memory.weight_bytes = memory_mb * 1_000_000;
    (record.memory.activation_bytes, record.memory.scratch_bytes) = (0, 0);
    record.validate().unwrap();
    record
}

fn four() -> [Record; 4] {
    [record(1, 0.95, 40.0, 45), record(2, 0.935, 15.0, 60), record(3, 0.92, 8.0, 13), record(4, 0.94, 18.0, 25)]
}

fn limits() -> Constraints {
    Constraints {
        min_accuracy: Some(0.93),
        max_latency_ns: Some(20e6),
        max_memory_bytes: Some(30_000_000),
        ..Constraints::default()
    }
}

#[test]
fn the_fastest_that_keeps_all_is_chosen_with_the_reason() {
    let records = four();
    let answer = recommend(&records, &limits());
    assert_eq!(answer.chosen.unwrap().point.threads, 4);
    assert_eq!(
        answer.reason,
        "18.0 ms per inference, 94.0 % top-1, 25.0 MB of memory: the only one of 4 points that keeps every constraint."
    );
    assert_eq!((answer.considered, answer.kept), (4, 1));
    assert_eq!(answer.rejected, [(Limit::Accuracy, 1), (Limit::Latency, 1), (Limit::Memory, 2)]);
    let notes: Vec<(usize, bool, &str)> =
        answer.runners_up.iter().map(|up| (up.record.point.threads, up.keeps, up.note.as_str())).collect();
    assert_eq!(
        notes,
        [
            (3, false, "92.0 % of accuracy is 1.00 points below the limit of 93.0 %"),
            (2, false, "60.0 MB of memory is 100 % above the limit of 30.0 MB"),
        ]
    );
}

#[test]
fn without_constraints_the_fastest_wins_and_the_next_are_compared() {
    let records = four();
    let answer = recommend(&records, &Constraints::default());
    assert_eq!(answer.chosen.unwrap().point.threads, 3);
    assert!(
        answer.reason.ends_with(
            "the fastest of 4 points, all of which keep every constraint. The next best takes 1.88 times as long."
        ),
        "{}",
        answer.reason
    );
    assert_eq!(answer.runners_up[0].note, "takes 1.88 times as long; more memory, 60.0 MB; more accuracy, 93.5 %");
    assert!(answer.cautions.is_empty(), "{:?}", answer.cautions);
}

#[test]
fn points_that_cannot_be_told_apart_are_decided_by_memory_unless_noisy() {
    let mut records = [record(1, 0.9, 10.0, 50), record(2, 0.9, 10.05, 40), record(3, 0.9, 10.3, 10)];
    let answer = recommend(&records, &Constraints::default());
    assert_eq!(answer.chosen.unwrap().point.threads, 2);
    assert!(answer.reason.contains("One more is as fast within the error"), "{}", answer.reason);
    assert_eq!(answer.runners_up[0].note, "as fast within the error of measurement; more memory, 50.0 MB");
    records[1].latency.noisy = true;
    assert_eq!(recommend(&records, &Constraints::default()).chosen.unwrap().point.threads, 1);
}

#[test]
fn the_binding_constraint_is_named_with_what_it_would_take() {
    let records = four();
    let tight = Constraints { max_memory_bytes: Some(20_000_000), ..limits() };
    let answer = recommend(&records, &tight);
    assert!(answer.chosen.is_none());
    assert_eq!(
        answer.reason,
        "None of 4 points keeps every constraint: without --min-accuracy 1 point would do, the nearest at 92.0 %; without --max-memory 2 points would do, the nearest at 25.0 MB."
    );
    assert_eq!(answer.runners_up[0].record.point.threads, 3, "8/7 of the errors is nearer than 5/4 of the memory");
    assert_eq!(answer.runners_up[1].note, "25.0 MB of memory is 25 % above the limit of 20.0 MB");
    let hopeless = Constraints { max_disk_bytes: Some(1), max_latency_ns: Some(1.0), ..Constraints::default() };
    let answer = recommend(&records, &hopeless);
    assert_eq!(
        answer.reason,
        "None of 4 points keeps every constraint, and giving up any single one would not do. --max-latency rejects the most, 4 of 4."
    );
    assert_eq!(answer.runners_up.len(), 3);
}

#[test]
fn filters_take_points_out_and_unknown_choices_are_named() {
    let records = four();
    let only = |layer, choice: &str| Constraints { only: [(layer, vec![choice.to_owned()])].into(), ..limits() };
    assert_eq!(recommend(&records, &only(StackLayer::Threads, "4")).considered, 1);
    let answer = recommend(&records, &only(StackLayer::Backend, "opencl"));
    assert_eq!(
        answer.reason,
        "No record passes the filters, of 4 in the store. No record has backend opencl; there are rayon."
    );
    let mut both = only(StackLayer::Backend, "rayon");
    both.only.insert(StackLayer::Network, vec![]);
    assert_eq!(recommend(&records, &both).considered, 4, "a layer without choices is free");
}

#[test]
fn what_could_make_the_answer_wrong_is_said() {
    let mut records = four();
    records[3].latency.noisy = true;
    records[3].latency.noise = Some("two modes".into());
    records[3].latency.p90_ns = 26e6;
    records[0].point.hw = "another".into();
    records[0].accuracy.images = 10_000;
    let answer = recommend(&records, &limits());
    assert_eq!(
        answer.cautions,
        [
            "its latency is noisy (two modes): measure it again on a quiet machine",
            "the limit of 20.0 ms holds for the median; one inference in ten takes 26.0 ms or more",
            "its accuracy was measured on 1000 images of `embedded`, which leaves 92.35 % to 95.31 % (95 % confidence)",
            "the accuracies of the points were measured on different sets of images",
            "the points were measured on 2 machines; choose one by its `hw`",
        ]
    );
}

#[test]
fn the_command_line_goes_before_the_file() {
    let line = Constraints { max_latency_ns: Some(5e6), ..Constraints::default() };
    let both = line.or(&limits());
    assert_eq!((both.max_latency_ns, both.min_accuracy), (Some(5e6), Some(0.93)));
}
