//! Break-evens as a table, figures and a page.

use super::{Measurement, NamedShape, Unsupported, Verdict, shapes_of, verdict};
use crate::chart::{Content, Figure, Kind, Panel, Series};
use crate::page::{Drawing, Section, TextTable};
use crate::quantity;
use dlis_formats::Format;

/// The measurements of one shape on one system, by format.
fn of_shape<'a>(
    measurements: &'a [Measurement],
    named: &NamedShape,
    sample: &Measurement,
) -> Vec<(Format, Vec<&'a Measurement>)> {
    let mut series: Vec<(Format, Vec<&Measurement>)> = Vec::new();
    for format in Format::ALL {
        let (shape, cold) = (named.shape.clone(), named.shape.is_cold());
        let wanted = Measurement { shape, format, cold, ..sample.clone() };
        let mut own: Vec<&Measurement> = measurements.iter().filter(|m| m.same_series(&wanted)).collect();
        own.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity));
        if !own.is_empty() {
            series.push((format, own));
        }
    }
    series
}

/// A break-even in a cell of the table, and what the format gains at its best.
fn cell(own: &[&Measurement]) -> String {
    let points: Vec<(f64, f64)> = own.iter().map(|m| (m.sparsity, m.ratio)).collect();
    let best = own.iter().min_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let gain = best.map_or_else(String::new, |best| {
        let at = if own.len() > 1 { format!(" at {}", quantity::share(best.sparsity)) } else { String::new() };
        format!("{:.2}x as fast{at}", 1.0 / best.ratio)
    });
    match verdict(&points) {
        None => "not measured".to_owned(),
        Some(Verdict::From(sparsity)) => format!("from {:.0} % ({gain})", 100.0 * sparsity),
        Some(Verdict::Always(lowest)) if own.len() > 1 => format!("from {:.0} % or less ({gain})", 100.0 * lowest),
        Some(Verdict::Always(_)) => format!("yes ({gain})"),
        Some(Verdict::Never { .. }) => format!("no ({gain})"),
    }
}

/// A row a shape, a column a format: from which sparsity the format beats dense. `measurements` may hold those
/// of other networks and systems; `sample` names the system that is shown, by any measurement on it.
pub fn summary(
    shapes: &[NamedShape],
    measurements: &[Measurement],
    unsupported: &[Unsupported],
    sample: &Measurement,
) -> TextTable {
    let series: Vec<_> = shapes.iter().map(|named| of_shape(measurements, named, sample)).collect();
    let measured = |format: &Format| series.iter().flatten().any(|(other, _)| other == format);
    let missing = |format: &Format| unsupported.iter().any(|other| other.format == *format);
    let formats: Vec<Format> = Format::ALL.into_iter().filter(|format| measured(format) || missing(format)).collect();
    let mut columns: Vec<String> = ["layers", "shape", "dense", "dense kernel"].map(str::to_owned).into();
    columns.extend(formats.iter().map(ToString::to_string));
    let rows = shapes.iter().zip(&series).map(|(named, series)| {
        let dense = series.first().and_then(|(_, own)| own.first());
        let unknown = || "not measured".to_owned();
        let mut row = vec![
            layers(&named.layers),
            named.shape.to_string(),
            dense.map_or_else(unknown, |m| quantity::time(m.dense_ns).to_string()),
            dense.map_or_else(unknown, |m| short_kernel(&m.dense_kernel)),
        ];
        let shape = named.shape.to_string();
        for format in &formats {
            let own = series.iter().find(|(other, _)| other == format);
            let none = unsupported.iter().any(|other| other.format == *format && other.shape == shape);
            row.push(match own {
                Some((_, own)) => cell(own),
                None if none => "no kernel".to_owned(),
                None => unknown(),
            });
        }
        row
    });
    let noisy = series.iter().flatten().flat_map(|(_, own)| own).filter(|m| m.noisy).count();
    let mut notes = vec![
        "In brackets the highest speed over dense that was measured. Formats that take the same time whatever the \
         zeros are measured once. Depthwise convolutions are left out."
            .to_owned(),
    ];
    if shapes.iter().any(|named| named.shape.is_cold()) {
        notes.push(
            "Weights of a mebibyte of f32 and more are put out of the caches before every run, as they are in a network \
             whose weights do not fit them."
                .to_owned(),
        );
    }
    if noisy > 0 {
        notes.push(format!("{noisy} of the times are noisy."));
    }
    TextTable {
        title: format!(
            "Sparsity from which each format beats dense, {}, {} thread{}, batch {}",
            sample.backend,
            sample.threads,
            if sample.threads == 1 { "" } else { "s" },
            sample.batch
        ),
        rows: rows.collect(),
        columns,
        notes,
    }
}

/// `conv4_2`, or `conv4_2 and 3 more`.
fn layers(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// Algorithm and instruction set of a kernel.
fn short_kernel(id: &str) -> String {
    id.split('/').skip(3).collect::<Vec<_>>().join("/")
}

/// The page on a network: the table, and a panel for each shape with the time of each format over dense.
///
/// # Errors
///
/// The message of the plotting library.
pub fn page_sections(
    network: &str,
    shapes: &[NamedShape],
    measurements: &[Measurement],
    unsupported: &[Unsupported],
    sample: &Measurement,
) -> Result<Vec<Section>, String> {
    let panel = |named: &NamedShape| {
        let all = of_shape(measurements, named, sample);
        let series = all.iter().map(|(format, own)| {
            let index = Format::ALL.iter().position(|other| other == format).unwrap_or(0);
            Series {
                name: format.to_string(),
                colour: index,
                shape: index / 8 + index % 5,
                quoted: false,
                joined: true,
                points: own.iter().map(|m| [m.sparsity, m.ratio]).collect(),
            }
        });
        let dense = all.first().and_then(|(_, own)| own.first());
        let notes = dense.map_or_else(Vec::new, |m| {
            vec![format!(
                "{}; dense: {} by {}",
                layers(&named.layers),
                quantity::time(m.dense_ns),
                short_kernel(&m.dense_kernel)
            )]
        });
        Panel {
            title: named.shape.to_string(),
            notes,
            content: Content::Lines {
                x: (Kind::Share, "sparsity"),
                y: (Kind::Factor, "time over dense"),
                series: series.collect(),
                rule: Some(1.0),
            },
        }
    };
    let figure = Figure {
        title: format!("Time over dense, {network}: below the dashed line a format pays"),
        columns: 3,
        panels: shapes.iter().map(panel).collect(),
    };
    let mut findings = Vec::new();
    for format in Format::ALL {
        let of_format: Vec<&Unsupported> = unsupported.iter().filter(|other| other.format == format).collect();
        if let Some(first) = of_format.first() {
            findings.push(format!("{format}: not measured for {} shapes; {}.", of_format.len(), first.reason));
        }
    }
    let system = format!("threads-{}", sample.threads);
    Ok(vec![Section {
        id: format!("break-even-{network}"),
        title: format!("Where sparsity begins to pay: {network}"),
        text: vec![
            "Every distinct convolution and linear layer on its own, dense by the fastest dense kernel and in each \
             format with random masks, timed in the same rounds. The ratio is the median over the rounds of the \
             format's time over dense; the break-even is where its logarithm, interpolated, crosses zero for good."
                .to_owned(),
        ],
        figures: vec![Drawing { file_name: format!("{network}-{system}.svg"), svg: figure.svg()? }],
        tables: vec![summary(shapes, measurements, unsupported, sample)],
        findings,
    }])
}

/// The sections of those of these networks of the zoo that have measurements, each on the first system that it was
/// measured on.
///
/// # Errors
///
/// The message of the plotting library.
///
/// ```
/// use dlis_experiment::break_even::stored_sections;
/// assert!(stored_sections(&["vgg16-cifar10"], &[])?.is_empty());
/// # Ok::<(), String>(())
/// ```
pub fn stored_sections(networks: &[&str], measurements: &[Measurement]) -> Result<Vec<Section>, String> {
    let mut sections = Vec::new();
    for network in networks {
        let Some(shapes) = shapes_of(network) else { continue };
        let own = |m: &&Measurement| shapes.iter().any(|named| named.shape == m.shape);
        if let Some(sample) = measurements.iter().find(own) {
            sections.extend(page_sections(network, &shapes, measurements, &[], sample)?);
        }
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::break_even::{shapes, store::tests::measurement};

    #[test]
    fn the_table_says_from_where_on_each_format_pays() {
        let named = shapes(&dlis_model::zoo::vgg16_cifar10(), &[])[3..5].to_vec();
        let mut all = vec![
            measurement(Format::CsrF32, 0.9, 0.5),
            measurement(Format::CsrF32, 0.5, 2.0),
            measurement(Format::Bsr16x1, 0.5, 0.8),
            measurement(Format::Bsr16x1, 0.9, 0.25),
            measurement(Format::Int8, 0.0, 1.25),
        ];
        let mut other_threads = measurement(Format::CsrF32, 0.7, 0.1);
        other_threads.threads = 2;
        all.push(other_threads);
        let unsupported =
            [Unsupported { shape: named[0].shape.to_string(), format: Format::Int4, reason: "no kernel".into() }];
        let table = summary(&named, &all, &unsupported, &all[0]);
        assert_eq!(table.columns[4..], ["csr-f32", "bsr-16x1", "int8", "int4"]);
        assert_eq!(
            table.rows[0][2..],
            [
                "1.00 ms",
                "winograd/avx2",
                "from 70 % (2.00x as fast at 90.0 %)",
                "from 50 % or less (4.00x as fast at 90.0 %)",
                "no (0.80x as fast)",
                "no kernel"
            ]
        );
        assert!(table.rows[1][2..].iter().all(|cell| cell == "not measured"), "{:?}", table.rows[1]);

        let page = page_sections("vgg16-cifar10", &named, &all, &unsupported, &all[0]).unwrap();
        let svg = &page[0].figures[0].svg;
        assert!(svg.contains("0.25x") || svg.contains("0.3x"), "a factor is shown");
        assert!(svg.contains("nothing to draw"), "the second shape has no measurement");
        assert!(page[0].findings[0].contains("int4: not measured for 1 shapes"), "{:?}", page[0].findings);

        let stored = stored_sections(&["vgg16-cifar10", "mobilenet-cifar10", "a/path"], &all).unwrap();
        assert_eq!(stored.len(), 1, "the shape is one of VGG-16 alone");
        assert_eq!(stored[0].id, "break-even-vgg16-cifar10");
    }
}
