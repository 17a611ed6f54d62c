//! Figures and tables of the comparison, with and without measurements of ours.

use super::*;
use crate::Technique;

fn curves() -> Vec<CurvePoint> {
    let point = |technique, level: f64, sparsity: f64, accuracy: f64, disk_bytes| CurvePoint {
        network: "vgg16-cifar10".into(),
        technique,
        level,
        accuracy,
        images: 10_000,
        disk_bytes,
        weight_bytes: disk_bytes + 1,
        macs: 313_463_808,
        sparsity,
        recipe: format!("{technique}-{level}"),
    };
    vec![
        point(Technique::Plain, 0.0, 0.0, 0.94, 60_000_000),
        point(Technique::WeightPruning, 0.8, 0.8, 0.94, 15_000_000),
        point(Technique::WeightPruning, 0.9, 0.9, 0.935, 9_000_000),
        point(Technique::WeightPruning, 0.97, 0.97, 0.89, 3_000_000),
        point(Technique::Ternary, 0.05, 0.5, 0.93, 4_000_000),
    ]
}

fn all(ours: Ours<'_>) -> Vec<crate::page::Section> {
    Topic::ALL.map(|topic| section(topic, ours, 0.9).unwrap()).into()
}

#[test]
fn without_measurements_the_paper_stands_alone_and_ours_is_said_to_be_missing() {
    let sections = all(Ours::default());
    let ids: Vec<&str> = sections.iter().map(|section| section.id.as_str()).collect();
    assert_eq!(ids, ["accuracy", "pareto", "memory", "times", "fixed-accuracy"]);
    let curves = &sections[0].figures;
    assert_eq!(curves.len(), 3);
    // 7 + 7 + 6 hollow marks, each a disc and a rim, and one such in the legend.
    assert_eq!(curves[0].svg.matches("<circle").count(), 2 * (7 + 7 + 6 + 1));
    assert_eq!(curves[0].svg.matches("no curve has been measured yet").count(), 3);
    assert!(!curves[0].svg.contains(">\nours\n<"));
    let memory = &sections[2].tables[0];
    assert_eq!(memory.rows[0][1..3], ["309.9 MB", "not measured"]);
    assert!(sections[2].text[0].contains("not resident bytes"));
    // Two machines' panels; of ours a word for each technique, but no bar.
    assert!(sections[3].figures[0].svg.contains("nothing to draw"));
    let times = &sections[3].tables[0].rows;
    assert_eq!(times.len(), 2 * 3 * 4);
    assert_eq!(times[0][3], "1: 2.83 s, 2: 1.48 s, 4: 811 ms, 8: 752 ms");
    assert!(times.iter().all(|row| row.iter().all(|cell| !cell.is_empty())));
    assert_eq!(sections[4].tables[0].rows[0][4], "none as accurate was measured");
}

#[test]
fn our_points_are_drawn_and_compared_at_the_papers_places() {
    let curves = curves();
    let ours = Ours { curves: &curves, records: &[] };
    let accuracy = section(Topic::Accuracy, ours, 0.9).unwrap();
    // Three points of ours and one mark in the legend more than the paper's.
    assert_eq!(accuracy.figures[0].svg.matches("<circle").count(), 2 * (7 + 7 + 6 + 1) + 3 + 1);
    let row = |at: &str| {
        let rows = &accuracy.tables[0].rows;
        rows.iter().find(|row| row[0] == "vgg16-cifar10" && row[1] == "weight pruning" && row[2] == at).unwrap()
    };
    assert_eq!(row("90.0 %")[3..6], ["87.95 %", "93.5 %", "+5.55 points"]);
    assert_eq!(row("97.0 %")[5], "+10.05 points");
    let ternary = accuracy.tables[0].rows.iter().find(|row| row[1] == "ternary" && row[2] == "threshold 0.2").unwrap();
    assert_eq!(ternary[4..6], ["-", "-"], "the only point of ours has a threshold of 0.05");

    let memory = section(Topic::Memory, ours, 0.9).unwrap();
    // At 97 % the accuracy is below 90 %, so that at 90 % is the smallest.
    assert!(memory.tables[0].rows[0][4].starts_with("9.00 MB on disk"), "{:?}", memory.tables[0].rows[0]);
    let fixed = section(Topic::FixedAccuracy, ours, 0.92).unwrap();
    assert!(fixed.tables[0].rows[1][5].starts_with("9.00 MB (weight pruning-0.9"), "{:?}", fixed.tables[0].rows[1]);
    assert_eq!(fixed.tables[0].rows[4][5], "none as accurate was measured");
}

#[test]
fn topics_read_back() {
    for topic in Topic::ALL {
        assert_eq!(topic.name().parse(), Ok(topic));
    }
    assert!("speed".parse::<Topic>().unwrap_err().to_string().contains("fixed-accuracy"));
}
